"""A paid request whose bookkeeping meets a database that restarts."""

import time
from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest

from keeper.domain.budget import Priority
from keeper.domain.marketplace import Marketplace
from keeper.fetch import fetch
from keeper.keepa.client import KeepaClient
from keeper.keepa.errors import ServerDown
from keeper.plan import PlannedRequest
from keeper.postgres import installation
from keeper.postgres.embedded import EmbeddedServer, temporary_server
from keeper.postgres.engine import open_engine
from keeper.postgres.installation import SIMULATOR
from keeper.postgres.migrate import migrate
from keeper.resources import agree_on_clock
from keeper.simulator.server import Simulator
from keeper.tokens import TokenSettings, learn_bucket, reserve
from tests.integration.makers import NOW, rows

KEY = "k" * 64


class _FailingStopper(httpx.BaseTransport):
    """Stops PostgreSQL and answers a request for products with 503."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._transport = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path != "/product":
            return self._transport.handle_request(request)
        self._server.stop()
        return httpx.Response(503, text="down")

    def close(self) -> None:
        self._transport.close()


def test_a_failed_call_leaves_its_row_and_its_error_although_the_database_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    with temporary_server(settings={"synchronous_commit": "on"}) as server, Simulator(key=KEY) as simulator:
        server.create_database("keeper")
        engine = open_engine(server.dsn("keeper"))
        migrate(engine, now=NOW)
        with engine.begin() as connection:
            installation.claim_source(connection, SIMULATOR)
        agree_on_clock(engine, simulator.url)
        # The wait before the second try is the time the server takes to come back.
        monkeypatch.setattr("keeper.fetch.time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: server.start()))
        with KeepaClient(KEY, base_url=simulator.url, transport=_FailingStopper(server)) as client:
            learn_bucket(engine, client)
            reservation_id = reserve(
                engine, operation="product", tokens=1, priority=Priority.USER, max_wait_seconds=0, settings=TokenSettings()
            )
            request = PlannedRequest(uuid4(), reservation_id, Marketplace.DE, ("B07W6JG6Z7",), False, 2, 1)
            with pytest.raises(ServerDown):
                fetch(engine, client, request)
        calls = rows(engine, "SELECT success FROM keepa_calls WHERE operation = 'product'")
        left = rows(engine, "SELECT 1 FROM token_reservations")
        engine.dispose()
    assert calls == [False]
    assert left == []
