"""The API's process is killed in the middle of a request, for real."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from deployments.stack import free_port
from keeper.postgres.embedded import EmbeddedServer
from keeper.simulator.server import Simulator
from tests.integration.api.conftest import MakePerson
from tests.services.waiting import wait_until

ROOT = Path(__file__).parents[3]
ASIN = "B00OCMRV40"


@contextmanager
def api_process(environment: dict[str, str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m api`, ready; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "api"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def is_ready() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=10).status_code == 200
        except httpx.HTTPError:
            assert process.poll() is None, "the API ended"
            return False

    try:
        wait_until(is_ready, "the API is not ready", longest_seconds=60)
        yield process
    finally:
        process.kill()
        process.wait(30)


@pytest.mark.slow
def test_a_check_whose_process_was_killed_is_told_as_interrupted(
    postgres: EmbeddedServer, database: str, engine: Engine, simulator: Simulator, make_person: MakePerson, tmp_path: Path
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | {
        "KEEPER_DATA": str(tmp_path / "data"),
        "KEEPER_DATABASE_URL": postgres.libpq_dsn(database),
        "KEEPER_KEEPA_SIMULATOR_URL": simulator.url,
        "KEEPER_API_PORT": str(port),
    }
    anna = make_person(url, "anna")
    slow = {"kind": "slow", "seconds": 60, "path": "/product", "next": 1}
    httpx.post(f"{simulator.url}/_simulator/faults", json=slow, timeout=10).raise_for_status()

    def begun() -> bool:
        with engine.begin() as connection:
            return bool(connection.execute(text("SELECT count(*) FROM check_claims")).scalar_one())

    def ask() -> None:
        try:
            anna.ask("POST", "/api/v1/price/check", json={"asin": ASIN}, headers={"Idempotency-Key": "one"})
        except httpx.HTTPError:
            cut.append(True)

    cut: list[bool] = []
    asking = threading.Thread(target=ask)
    with api_process(environment, port) as process:
        asking.start()
        wait_until(begun, "the check never began")
        process.kill()
        asking.join(30)
    assert cut == [True]

    with api_process(environment, port):
        told: list[Any] = []

        def is_known() -> bool:
            # The killed one's connection, and with it its lock, ends as soon as the server has seen it.
            told[:] = [anna.post("/api/v1/price/check", {"asin": ASIN}, key="one", status=409)]
            return bool(told[0]["type"] != "urn:keeper:problem:request-runs")

        wait_until(is_known, "it is held by nobody")

    assert told[0]["type"] == "urn:keeper:problem:request-interrupted"
    assert f"no price of {ASIN} in DE is stored" in told[0]["detail"]
