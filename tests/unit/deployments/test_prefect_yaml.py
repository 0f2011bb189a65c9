"""`prefect.yaml` holds only words Prefect understands, and each check of that can fail."""

import inspect
import json
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from pydantic import ValidationError

from deployments.pools import HEAVY, PROCESS, QUEUES
from flows.arbitrage_scan import _run_name as _scan_name
from flows.deal_collection import _run_name as _collect_name
from flows.price_watch import _run_name as _check_name
from tests.services.deployment_file import WORK_POOLS, WORK_QUEUES, DeploymentFile

FILE = Path(__file__).parents[3] / "prefect.yaml"

Parsed = dict[str, Any]


@pytest.fixture
def parsed() -> Parsed:
    """The file. By way of JSON, because an anchor is one object in several places, and a mistake shall be made in one."""
    read: Parsed = json.loads(json.dumps(yaml.safe_load(FILE.read_text())))
    return read


def test_file_is_understood(parsed: Parsed) -> None:
    DeploymentFile.model_validate(parsed)


def test_two_deployments_watch_prices_and_never_share_a_name(parsed: Parsed) -> None:
    read = DeploymentFile.model_validate(parsed)

    jobs = {one.name: (one.entrypoint, one.schedules[0].cron) for one in read.deployments if one.schedules}
    assert jobs["every-6h"] == ("flows.price_watch.price_watch", "2 */6 * * *")
    assert jobs["tick"] == ("flows.price_watch.price_watch", "*/5 * * * *")
    every_5min = {one.entrypoint for one in read.deployments if one.name == "every-5min"}
    assert every_5min == {"flows.delivery.delivery", "flows.watchdog.watchdog"}
    assert jobs["daily"][0] == "flows.maintenance.maintenance"


def test_an_index_is_built_anew_by_hand_only(parsed: Parsed) -> None:
    by_hand = [one.entrypoint for one in DeploymentFile.model_validate(parsed).deployments if not one.schedules]
    assert "flows.reindex.reindex" in by_hand


def _flows(parsed: Parsed) -> dict[str, Flow[..., Any]]:
    """By entrypoint."""
    entrypoints = {one.entrypoint for one in DeploymentFile.model_validate(parsed).deployments}
    return {one: getattr(import_module(one.rpartition(".")[0]), one.rpartition(".")[2]) for one in entrypoints}


def test_what_runs_every_five_minutes_waits_for_no_container(parsed: Parsed) -> None:
    read = DeploymentFile.model_validate(parsed)

    often = {one.entrypoint for one in read.deployments if any("/5 " in entry.cron for entry in one.schedules)}
    in_processes = {one.entrypoint for one in read.deployments if one.work_pool.name == "keeper-process"}
    assert in_processes == often >= {"flows.price_watch.price_watch", "flows.delivery.delivery"}


def test_prices_and_deliveries_go_first(parsed: Parsed) -> None:
    read = DeploymentFile.model_validate(parsed)

    critical = {one.entrypoint for one in read.deployments if one.work_pool.work_queue_name == "critical"}
    others = {one.entrypoint for one in read.deployments if one.work_pool.work_queue_name != "critical"}
    assert critical >= {"flows.price_watch.price_watch", "flows.delivery.delivery"}
    assert critical.isdisjoint(others)


def test_pools_and_queues_are_those_that_bootstrap_makes() -> None:
    assert {PROCESS, HEAVY} == WORK_POOLS
    assert set(QUEUES) == WORK_QUEUES
    assert list(QUEUES) == sorted(QUEUES, key=lambda name: QUEUES[name]) == ["critical", "default"]


def test_every_parameter_says_what_it_is_for(parsed: Parsed) -> None:
    silent = [
        f"{entrypoint}({name})"
        for entrypoint, flow in _flows(parsed).items()
        for name, said in flow.parameters.properties.items()
        if not said.get("description")
    ]

    assert silent == []


def test_name_of_every_run_tells_what_it_does(parsed: Parsed) -> None:
    assert [entrypoint for entrypoint, flow in _flows(parsed).items() if not flow.flow_run_name] == []


def test_every_run_shows_its_result(parsed: Parsed) -> None:
    assert [entrypoint for entrypoint, flow in _flows(parsed).items() if not re.search(r"\bshow_\w+\(", inspect.getsource(flow.fn))] == []


@pytest.mark.parametrize(
    ("name_of", "parameters", "name"),
    [
        (_check_name, {"interval_minutes": 360.0}, "check prices: every 360 min"),
        (_check_name, {"interval_minutes": None}, "check prices: all that are due"),
        (_collect_name, {}, "collect deals: seeds and feed"),
        (_collect_name, {"is_with_seeds": False, "marketplaces": ["DE", "IT"]}, "collect deals: feed in DE, IT"),
        (_scan_name, {}, "look at all stores, then compare what has changed"),
        (_scan_name, {"is_with_scan": False, "is_full": True}, "compare every product"),
    ],
)
def test_name_of_a_run_tells_its_parameters(
    name_of: Callable[[], str], parameters: Parsed, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefect.runtime.flow_run.parameters", parameters, raising=False)

    assert name_of() == name


def _first(parsed: Parsed) -> Parsed:
    found: Parsed = parsed["deployments"][0]
    return found


def _schedule(parsed: Parsed) -> Parsed:
    found: Parsed = _first(parsed)["schedules"][0]
    return found


MISTAKES: dict[str, tuple[Callable[[Parsed], object], str]] = {
    "unknown key of the file": (lambda file: file.update(deploymnets=[]), "Extra inputs are not permitted"),
    "unknown key of a deployment": (lambda file: _first(file).update(concurency_limit=1), "Extra inputs are not permitted"),
    "unknown key of a schedule": (lambda file: _schedule(file).update(time_zone="UTC"), "Extra inputs are not permitted"),
    "limit inside the pool": (
        lambda file: _first(file)["work_pool"].update(concurrency_limit=_first(file)["concurrency_limit"]),
        "Extra inputs are not permitted",
    ),
    "no limit": (lambda file: _first(file).pop("concurrency_limit"), "Field required"),
    "two at a time": (lambda file: _first(file)["concurrency_limit"].update(limit=2), "Input should be 1"),
    "another collision strategy": (lambda file: _first(file)["concurrency_limit"].update(collision_strategy="ENQUEUE"), "CANCEL_NEW"),
    "default grace": (lambda file: _first(file)["concurrency_limit"].pop("grace_period_seconds"), "Field required"),
    "no slug": (lambda file: _schedule(file).pop("slug"), "Field required"),
    "slug twice": (lambda file: _schedule(file).update(slug="tick"), "a slug is there twice"),
    "deployment twice": (lambda file: _first(file).update(name="tick"), "a deployment is there twice"),
    "no timezone": (lambda file: _schedule(file).pop("timezone"), "Field required"),
    "unknown timezone": (lambda file: _schedule(file).update(timezone="Europe/Bremen"), "No time zone found"),
    "bad cron": (lambda file: _schedule(file).update(cron="61 * * * *"), "is no cron line"),
    "cron with a field missing": (lambda file: _schedule(file).update(cron="* * * *"), "is no cron line"),
    "every minute": (lambda file: _schedule(file).update(cron="* * * * *"), "more often than every five minutes"),
    "close by across the hour": (lambda file: _schedule(file).update(cron="0,58 * * * *"), "more often than every five minutes"),
    "unknown queue": (lambda file: _first(file)["work_pool"].update(work_queue_name="defualt"), "is none of"),
    "unknown pool": (lambda file: _first(file)["work_pool"].update(name="keeper-proces"), "is none of"),
    "unknown tag": (lambda file: _first(file).update(tags=["kepa"]), "is none of"),
    "no tags": (lambda file: _first(file).update(tags=[]), "at least 1 item"),
    "unknown parameter": (lambda file: _first(file)["parameters"].update(intervall=1), "unexpected keyword argument"),
    "parameter of another type": (lambda file: _first(file)["parameters"].update(interval_minutes="six"), "valid number"),
    "path entrypoint": (lambda file: _first(file).update(entrypoint="flows/price_watch.py:price_watch"), "should match pattern"),
    "missing module": (lambda file: _first(file).update(entrypoint="flows.price_watsh.price_watch"), "cannot be imported"),
    "missing function": (lambda file: _first(file).update(entrypoint="flows.price_watch.price_watsh"), "cannot be imported"),
    "no flow": (lambda file: _first(file).update(entrypoint="flows.price_watch.show_checks"), "is no flow"),
    "a step that pulls code": (lambda file: file.update(pull=[{"step": {}}]), "at most 0 items"),
    "no schedule": (lambda file: _first(file).update(schedules=[]), "has a schedule, or its name is by-hand"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_found(parsed: Parsed, mistake: str) -> None:
    make, complaint = MISTAKES[mistake]
    make(parsed)

    with pytest.raises(ValidationError, match=complaint):
        DeploymentFile.model_validate(parsed)
