"""The dashboard as people use it: its own process, in front of it a browser, behind it the API on a real database."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, text
from starlette.types import Receive, Scope, Send

from api.app import create_app
from deployments.stack import ROOT, answers, free_port
from keeper.accounts import add_api_key, add_user
from keeper.domain.access import Scope as KeyScope
from keeper.domain.exchange import ExchangeRate
from keeper.domain.marketplace import Marketplace
from keeper.notify.channels import make_key
from keeper.postgres.embedded import EmbeddedServer
from keeper.postgres.engine import open_engine
from keeper.postgres.exchange_rates import insert_seeds
from keeper.settings import Settings
from keeper.simulator.server import Simulator
from tests.integration.deal_makers import add_deal
from tests.integration.opportunities import add_comparison, add_opportunities, opportunity
from tests.services.api import serve
from tests.services.proxy import Proxy
from tests.services.waiting import wait_until

KEYBOARDS = ("B00F35N1KS", "B09N9CY637", "B08DG4C63H", "B08ZNSJ152")
STORES = ("DE", "IT", "ES", "FR", "UK")
# Somebody's title that Markdown and a spreadsheet would take for something else.
TITLE = '=HYPERLINK("https://example.org") *Trust* Taro [Tastatur] $5'
_DE, _IT, _ES, _FR, _UK = (Marketplace(store) for store in STORES)


class Overheard:
    """In front of the API: what it was asked for opportunities."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self.asked: list[dict[str, list[str]]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note it, and pass it on."""
        if scope["type"] == "http" and scope["path"] == "/api/v1/opportunities":
            self.asked.append(parse_qs(scope["query_string"].decode()))
        await self._app(scope, receive, send)


@dataclass
class House:
    """The API behind the dashboard.

    Attributes:
        opportunities: their ids.
        way: between the dashboard and the API; it may be cut.
    """

    settings: Settings
    engine: Engine
    overheard: Overheard
    opportunities: list[int]
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


@pytest.fixture(scope="package")
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
        overheard = Overheard(create_app(settings))
        with engine.begin() as connection:
            anna = add_user(connection, "anna")
            reader = add_api_key(connection, anna.user_id, label="reader", scope=KeyScope.READ)
        url = stack.enter_context(serve(overheard, is_daemon=True))
        way = stack.enter_context(Proxy(int(url.rpartition(":")[2])))
        made = House(settings, engine, overheard, [], url, way, anna.shown_key, reader.shown_key)
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
    _add_deals(made.engine, now)
    made.opportunities += _add_opportunities(made.engine, now)


def _add_deals(engine: Engine, now: datetime) -> None:
    for place, asin in enumerate(KEYBOARDS):
        add_deal(
            engine,
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


def _add_opportunities(engine: Engine, now: datetime) -> list[int]:
    """Of each kind one: with a profit, with another, of unknown profit, with a loss, of doubt."""
    hours = [now - timedelta(hours=number) for number in range(5)]
    with engine.begin() as connection:
        connection.execute(text("UPDATE products SET title = :title WHERE asin = :asin"), {"title": TITLE, "asin": KEYBOARDS[2]})
        insert_seeds(connection, [ExchangeRate("GBP", Decimal("0.85"), now.date() - timedelta(days=1), "a test")])
    add_comparison(engine, at=now)
    one, other, strange, lossy = KEYBOARDS
    profit: dict[str, Any] = {"profit": 2004, "roi_pct": Decimal("24.47"), "margin_minor": 4809, "margin_pct": Decimal("58.72")}
    unknown: dict[str, Any] = {
        "profit": None,
        "unknown_parts": ("FBA fee", "customs duty"),
        "margin_minor": 1623,
        "margin_pct": Decimal("56.61"),
    }
    loss: dict[str, Any] = {"profit": -212, "roi_pct": Decimal("-5.07"), "margin_minor": 883, "margin_pct": Decimal("22.08")}
    doubt: dict[str, Any] = {
        "profit": 50,
        "roi_pct": Decimal("2.50"),
        "margin_minor": 391,
        "margin_pct": Decimal("19.56"),
        "doubts": ("1 and 2 pieces",),
    }
    return add_opportunities(
        engine,
        opportunity(_DE, _IT, asin=one, at=hours[0], flags=("hazardous",)),
        opportunity(_FR, _ES, asin=other, at=hours[1], source_minor=8190, target_minor=12999, flags=("Amazon sells it",), **profit),
        opportunity(_UK, _DE, asin=strange, at=hours[2], source_minor=2437, target_minor=4490, is_stale=True, **unknown),
        opportunity(_DE, _UK, asin=lossy, at=hours[3], source_minor=3999, target_minor=4150, **loss),
        opportunity(_ES, _DE, asin=one, at=hours[4], source_minor=1999, target_minor=2390, **doubt),
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
