"""The dashboard as people use it: its own process, in front of it a browser, behind it the API on a real database."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import Engine

from api.app import create_app
from deployments.stack import ROOT, answers, free_port
from keeper.accounts import Scope, add_api_key, add_user
from keeper.notify.channels import make_key
from keeper.postgres.embedded import EmbeddedServer
from keeper.postgres.engine import open_engine
from keeper.settings import Settings
from keeper.simulator.server import Simulator
from tests.integration.dashboard.edge import Arbitrage, in_front_of
from tests.integration.deal_makers import add_deal
from tests.services.api import serve
from tests.services.proxy import Proxy
from tests.services.waiting import wait_until

KEYBOARDS = ("B00F35N1KS", "B09N9CY637", "B08DG4C63H", "B08ZNSJ152")
STORES = ("DE", "IT", "ES", "FR", "UK")


@dataclass
class House:
    """The API behind the dashboard.

    Attributes:
        way: between the dashboard and the API; it may be cut.
    """

    engine: Engine
    arbitrage: Arbitrage
    url: str
    way: Proxy
    key: str
    reading_key: str

    @property
    def dashboards_url(self) -> str:
        """Where the dashboard asks."""
        return f"http://127.0.0.1:{self.way.port}"

    def ask(self, method: str, path: str, **rest: Any) -> Any:
        """The JSON of a request with the person's key that must succeed."""
        answered = httpx.request(method, f"{self.url}{path}", headers={"Authorization": f"Bearer {self.key}"}, timeout=30, **rest)
        assert answered.is_success, answered.text
        return answered.json() if answered.content else None


@pytest.fixture(scope="module")
def house(postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """With a person, watches whose prices come from the simulator in five stores, deals, and tokens that were spent."""
    database = f"test_{uuid4().hex}"
    postgres.create_database(database, template="template_keeper")
    engine = open_engine(postgres.dsn(database))
    with Simulator() as simulator, ExitStack() as stack:
        settings = Settings.model_validate(
            {
                "data": tmp_path_factory.mktemp("house"),
                "database_url": postgres.libpq_dsn(database),
                "keepa": {"simulator_url": simulator.url},
                "channels": {"keys": make_key()},
                "api": {"requests_per_minute": 100_000},
            }
        )
        arbitrage = Arbitrage(list(KEYBOARDS))
        with engine.begin() as connection:
            anna = add_user(connection, "anna")
            reader = add_api_key(connection, anna.user_id, label="reader", scope=Scope.READ)
        url = stack.enter_context(serve(in_front_of(create_app(settings), arbitrage), is_daemon=True))
        way = stack.enter_context(Proxy(int(url.rpartition(":")[2])))
        made = House(engine, arbitrage, url, way, anna.shown_key, reader.shown_key)
        _fill(made)
        yield made
    engine.dispose()
    postgres.drop_database(database)


def _fill(made: House) -> None:
    for asin in KEYBOARDS:
        made.ask("POST", "/api/v1/price/check", json={"asin": asin})
    for store in STORES[1:]:
        made.ask("POST", "/api/v1/price/check", json={"asin": KEYBOARDS[0], "marketplace": store})
    made.ask("POST", "/api/v1/watches", json={"asin": KEYBOARDS[0], "target": 19.90})
    made.ask("POST", "/api/v1/watches", json={"asin": KEYBOARDS[1], "target": 500})
    made.ask("POST", "/api/v1/watches", json={"asin": KEYBOARDS[0], "marketplace": "UK", "target": 15})
    paused = made.ask("POST", "/api/v1/watches", json={"asin": KEYBOARDS[2]})
    made.ask("PATCH", f"/api/v1/watches/{paused['id']}", json={"is_paused": True})
    now = datetime.now(UTC)
    for place, asin in enumerate(KEYBOARDS):
        add_deal(
            made.engine,
            asin=asin,
            changed_at=(now - timedelta(hours=place + 1)).replace(second=0, microsecond=0),
            amount_minor=3999 + 1000 * place,
            list_price_minor=8999,
            median_90_minor=5999,
            discount_pct=50 - place,
            below_median_pct=30 - 5 * place,
            deal_score=90 - 15 * place,
            is_year_low=place == 0,
            is_all_time_low=False,
            is_list_price_fiction=place == 1,
            last_seen_at=now,
            announced_at=now,
        )


@dataclass(frozen=True)
class Dashboard:
    """Its process."""

    url: str
    log: Path


@pytest.fixture(scope="module")
def dashboard(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """Started as `keeper dashboard` starts it, by somebody whose own settings send usage statistics."""
    port = free_port()
    log = tmp_path_factory.mktemp("dashboard") / "dashboard.log"
    environment = {
        **os.environ,
        "KEEPER_DASHBOARD_PORT": str(port),
        "KEEPER_DASHBOARD_API_URL": house.dashboards_url,
        "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "true",
        "PYTHONUNBUFFERED": "1",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "keeper", "dashboard"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: process.poll() is not None or answers(f"{url}/_stcore/health"), "the dashboard did not start")
        assert process.poll() is None, log.read_text()
        yield Dashboard(url, log)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
