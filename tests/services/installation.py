"""A whole Keeper for one test: a database, a simulated Keepa, Prefect's server; its flows run in processes of their own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.client.schemas.objects import FlowRun
from sqlalchemy import Connection, Engine, text

from deployments.stack import ROOT
from keeper.accounts import add_channel
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.watch import DEFAULT_INTERVAL, Watch
from keeper.postgres import users, watches
from keeper.resources import Resources, jump_clock, make_resources, now_of
from keeper.settings import read_settings
from keeper.simulator.server import Simulator
from tests.services.prefect import PrefectServer

_LONGEST_RUN_SECONDS = 120


@dataclass(frozen=True, slots=True)
class FlowEnd:
    """How a run ended."""

    run_id: str
    state: str
    message: str


@dataclass(slots=True)
class Installation:
    """What one test has to itself.

    Attributes:
        resources: live things with the settings of this test.
        environment: of every process this test starts.
    """

    prefect: PrefectServer
    simulator: Simulator
    resources: Resources
    environment: dict[str, str]
    _running: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def engine(self) -> Engine:
        """On this test's database."""
        return self.resources.engine

    def watch(
        self,
        count: int,
        *,
        marketplace: Marketplace = Marketplace.DE,
        interval: timedelta = DEFAULT_INTERVAL,
        target_minor: int | None = None,
        user: str = "anna",
        start: int = 0,
    ) -> list[str]:
        """Watch `count` products of the catalog, due at once. Returns their ASINs."""
        asins: list[str] = self.simulator_says("products", start=start, count=count)["asins"]
        with self.engine.begin() as connection:
            wanted = [
                Watch(asin, marketplace, interval=interval, target=Money(target_minor, marketplace.currency) if target_minor else None)
                for asin in asins
            ]
            watches.insert_watches(connection, self._user_id(connection, user), wanted, now=now_of(connection))
        return asins

    def run(self, flow: str, **parameters: Any) -> FlowEnd:
        """Run a flow (`price_watch.price_watch`) to its end."""
        return self.end_of(self.start(flow, **parameters))

    def start(self, flow: str, *, deployment: str | None = None, **parameters: Any) -> "subprocess.Popen[str]":
        """Start a flow in a process of its own; `deployment` is the name it takes itself to be run for."""
        named = {"PREFECT__RUNTIME__DEPLOYMENT__NAME": deployment} if deployment else {}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.services.run_flow", f"flows.{flow}", json.dumps(parameters)],
            cwd=ROOT,
            env=self.environment | named,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._running.append(process)
        return process

    def end_of(self, process: "subprocess.Popen[str]") -> FlowEnd:
        """Wait for a started flow."""
        output, _ = process.communicate(timeout=_LONGEST_RUN_SECONDS)
        assert process.returncode == 0, output
        # Prefect may log after the flow has ended.
        said = json.loads(next(line for line in reversed(output.splitlines()) if line.startswith('{"id"')))
        return FlowEnd(said["id"], said["name"], said["message"])

    def simulator_says(self, name: str, **query: Any) -> dict[str, Any]:
        """GET of a control endpoint."""
        answer = httpx.get(f"{self.simulator.url}/_simulator/{name}", params=query, timeout=10)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def tell_simulator(self, name: str, **wish: Any) -> None:
        """POST to a control endpoint."""
        httpx.post(f"{self.simulator.url}/_simulator/{name}", json=wish, timeout=10).raise_for_status()

    def rows(self, query: str, **values: Any) -> list[Any]:
        """What the database holds."""
        with self.engine.begin() as connection:
            return list(connection.execute(text(query), values).all())

    def count(self, table: str) -> int:
        """Rows of a table."""
        return int(self.rows(f"SELECT count(*) FROM {table}")[0][0])

    def paid_calls(self) -> list[Any]:
        """The calls for products, oldest first: success, asin_count, tokens_consumed, error."""
        return self.rows(
            "SELECT success, asin_count, tokens_consumed, error FROM keepa_calls WHERE operation = 'product' ORDER BY called_at, id"
        )

    def products_asked(self) -> int:
        """Requests for products that reached the simulator."""
        return int(self.simulator_says("requests")["by_path"].get("/product", 0))

    def set_speed(self, speed: float) -> None:
        """Business seconds in a second of the machine, for the database and the simulator."""
        jump_clock(self.engine, self.simulator.url, speed=speed)

    def jump(self, **parts: float) -> None:
        """Move business time forward."""
        jump_clock(self.engine, self.simulator.url, seconds=timedelta(**parts).total_seconds())

    def add_mail(self, port: int, *, user: str = "anna") -> None:
        """Alerts of a user go to a mail server on this port."""
        with self.engine.begin() as connection:
            add_channel(
                connection,
                self.resources.cipher(),
                self._user_id(connection, user),
                name="mail",
                url=f"mailto://127.0.0.1:{port}/anna@example.org?from=keeper@example.org&mode=insecure",
                schemes=("mailto",),
            )

    def _user_id(self, connection: Connection, name: str) -> int:
        known: int | None = connection.execute(text("SELECT id FROM users WHERE name = :name"), {"name": name}).scalar_one_or_none()
        return known if known is not None else users.insert_user(connection, name)

    def flow_run(self, end: FlowEnd) -> FlowRun:
        """A run as the server knows it."""
        return self.prefect.flow_run(end.run_id)

    def close(self) -> None:
        """End what still runs."""
        for process in self._running:
            if process.poll() is None:
                process.kill()
                process.communicate()


@contextmanager
def make_installation(
    prefect: PrefectServer, simulator: Simulator, database_url: str, folder: Path, channel_key: str
) -> Iterator[Installation]:
    """An installation with one business time and Keeper's limits as `bootstrap` makes them."""
    settings = {
        "KEEPER_DATA": str(folder),
        "KEEPER_DATABASE_URL": database_url,
        "KEEPER_KEEPA_SIMULATOR_URL": simulator.url,
        "KEEPER_CHANNELS_KEYS": channel_key,
        "KEEPER_CHANNELS_SCHEMES": "mailto",
    }
    with pytest.MonkeyPatch.context() as patched:
        for name, value in settings.items():
            patched.setenv(name, value)
        resources = make_resources(read_settings())
    prefect.set_limits()
    made = Installation(prefect, simulator, resources, prefect.environment(**settings))
    try:
        yield made
    finally:
        made.close()
        resources.close()
