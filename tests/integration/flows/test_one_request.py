"""One id through a request to the API, the run it starts, and the events that arise from both."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from deployments.stack import ROOT, free_port
from keeper.accounts import add_api_key
from keeper.domain.access import Scope
from tests.services.installation import Installation
from tests.services.waiting import wait_until

_ASKED = "asked-for-all.1"
_CHECKED = "asked-for-one.2"


@contextmanager
def serving(installation: Installation, log: Path) -> Iterator[str]:
    """The API as a process, as it is deployed."""
    port = free_port()
    environment = installation.environment | {
        "KEEPER_API_PORT": str(port), "KEEPER_LOG_FORMAT": "json", "KEEPER_PREFECT_API_URL": installation.prefect.url,
    }  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "api"], cwd=ROOT, env=environment, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/api/v1/process", timeout=5).status_code < 500
        except httpx.HTTPError:
            return False

    try:
        wait_until(answers, "the API does not serve", longest_seconds=60)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def lines_of(text: str, request_id: str) -> list[dict[str, object]]:
    """The JSON lines that bear the id."""
    told = [json.loads(line) for line in text.splitlines() if line.startswith('{"time"')]
    return [line for line in told if line["request_id"] == request_id]


@pytest.fixture
def anna_id(installation: Installation) -> int:
    """A user who watches a product."""
    installation.watch(1)
    return int(installation.rows("SELECT id FROM users WHERE name = 'anna'")[0][0])


@pytest.fixture
def headers(installation: Installation, anna_id: int) -> dict[str, str]:
    with installation.engine.begin() as connection:
        key = add_api_key(connection, anna_id, label="test", scope=Scope.WRITE)
    return {"Authorization": f"Bearer {key.shown_key}"}


def test_one_id_is_in_the_log_of_the_api_in_that_of_the_run_and_in_the_events(
    installation: Installation, anna_id: int, headers: dict[str, str], tmp_path: Path
) -> None:
    prefect = installation.prefect
    with prefect.client() as client:
        for deployment in client.read_deployments():
            client.delete_deployment(deployment.id)
        flow_id = client.create_flow_from_name("price-watch")
        client.create_deployment(
            flow_id, "tick", entrypoint="flows.price_watch.price_watch", tags=["keeper"], enforce_parameter_schema=False
        )
    with serving(installation, tmp_path / "api.log") as url, httpx.Client(base_url=url, headers=headers, timeout=30) as client_:
        started = client_.post("/api/v1/price/check-all", headers={"X-Request-ID": _ASKED})
        other = installation.simulator_says("products", start=5, count=1)["asins"][0]
        checked = client_.post("/api/v1/price/check", json={"asin": other}, headers={"X-Request-ID": _CHECKED})
    run_id = started.json()["run_id"]
    environment = installation.environment | {"PREFECT__FLOW_RUN_ID": run_id, "KEEPER_LOG_FORMAT": "json"}
    run = subprocess.run(
        [sys.executable, "-m", "prefect.engine"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert (started.status_code, checked.status_code) == (202, 200), started.text + checked.text
    assert (started.headers["X-Request-ID"], checked.headers["X-Request-ID"]) == (_ASKED, _CHECKED)
    log = (tmp_path / "api.log").read_text()
    [access] = [line for line in lines_of(log, _ASKED) if line["logger"] == "uvicorn.access"]
    assert '"POST /api/v1/price/check-all HTTP/1.1" 202' in str(access["message"])
    assert access["user_id"] == anna_id
    assert [line["asin"] for line in lines_of(log, _CHECKED) if line["logger"] == "uvicorn.access"] == [other]
    assert run.returncode == 0, run.stdout
    assert {line["run_id"] for line in lines_of(run.stdout, _ASKED)} == {run_id}
    wait_until(lambda: any(f"[request_id={_ASKED}]" in line for line in prefect.logs(run_id)), "Prefect has no line with the id")
    found = installation.rows("SELECT DISTINCT kind, request_id FROM events WHERE request_id IS NOT NULL ORDER BY 1, 2")
    assert [tuple(row) for row in found] == [("keepa_call", _ASKED), ("keepa_call", _CHECKED), ("price_update", _ASKED)]
