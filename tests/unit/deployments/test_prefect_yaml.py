"""`prefect.yaml` holds only words Prefect understands, and each check of that can fail."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tests.services.deployment_file import DeploymentFile

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
    assert jobs["every-5min"][0] == "flows.delivery.delivery"
    assert jobs["daily"][0] == "flows.maintenance.maintenance"


def test_an_index_is_built_anew_by_hand_only(parsed: Parsed) -> None:
    by_hand = [one.entrypoint for one in DeploymentFile.model_validate(parsed).deployments if not one.schedules]
    assert "flows.reindex.reindex" in by_hand


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
