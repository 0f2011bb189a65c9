"""Everything of yours is due, and a run of the deployment is started by name on a real Prefect server."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from tests.integration.api.conftest import Person


@pytest.fixture
def watched(anna: Person, ben: Person, engine: Engine) -> None:
    """Two watches of anna's and one of ben's, none of them due."""
    for person, asins in ((anna, ["B00OCMRV40", "B08DG4C63H"]), (ben, ["B08KWBVK4Z"])):
        person.post("/api/v1/watches", [{"asin": asin} for asin in asins])
    with engine.begin() as connection:
        connection.execute(text("UPDATE planned_checks SET next_check_at = now() + interval '5 hours'"))


def _run(prefect: str, run_id: str) -> Any:
    with httpx.Client(base_url=prefect, timeout=30) as client:
        return client.get(f"/flow_runs/{run_id}").raise_for_status().json()


def _due(person: Person) -> int:
    moments = [datetime.fromisoformat(one["next_check_at"]) for one in person.get("/api/v1/watches")["watches"]]
    return sum(moment <= datetime.now(UTC) for moment in moments)


def test_all_of_mine_are_due_and_a_run_waits_for_its_worker(deployed: str, watched: None, anna: Person, ben: Person) -> None:
    told = anna.post("/api/v1/price/check-all", status=202)

    run = _run(deployed, told["run_id"])
    assert run["name"] == told["name"] and run["parameters"] == {"go_on_seconds": 0}
    assert told["url"] == f"{deployed.removesuffix('/api')}/runs/flow-run/{told['run_id']}"
    assert told["watches"] == 2
    assert (_due(anna), _due(ben)) == (2, 0)


def test_the_page_of_the_run_is_where_a_browser_finds_prefect(
    deployed: str, watched: None, anna: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_UI_URL", "http://prefect.test:4200/")
    told = anna.post("/api/v1/price/check-all", status=202)
    assert told["url"] == f"http://prefect.test:4200/runs/flow-run/{told['run_id']}"


def test_the_same_request_again_starts_no_second_run(deployed: str, watched: None, anna: Person, ben: Person, engine: Engine) -> None:
    first = anna.post("/api/v1/price/check-all", key="one", status=202)

    assert anna.post("/api/v1/price/check-all", key="one", status=202) == first
    assert ben.post("/api/v1/price/check-all", key="one", status=202)["run_id"] != first["run_id"]
    # What Prefect was told, it keeps: also where our answer was lost.
    with engine.begin() as connection:
        connection.execute(text("UPDATE idempotent_requests SET status = NULL, answer = NULL"))
    assert anna.post("/api/v1/price/check-all", key="one", status=202)["run_id"] == first["run_id"]


def test_who_asks_again_and_again_is_given_the_same_run(deployed: str, watched: None, anna: Person) -> None:
    runs = [anna.post("/api/v1/price/check-all", status=202)["run_id"] for _ in range(5)]

    # A new one where five minutes are over in between.
    assert len(set(runs)) <= 2


def test_a_prefect_that_is_gone_is_told(watched: None, anna: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")

    told = anna.post("/api/v1/price/check-all", status=503)

    assert told["type"] == "urn:keeper:problem:prefect-down"
    assert _due(anna) == 0


def test_a_deployment_prefect_does_not_know_is_told(
    prefect_server: Any, watched: None, anna: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.url)
    with httpx.Client(base_url=prefect_server.url, timeout=30) as client:
        known = client.get("/deployments/name/price-watch/tick")
        if known.status_code == 200:
            client.delete(f"/deployments/{known.json()['id']}").raise_for_status()

    assert anna.post("/api/v1/price/check-all", status=503)["type"] == "urn:keeper:problem:deployment-missing"
