"""A PostgreSQL behind a proxy that takes everything and says nothing: TCP lives, so only Keeper itself can see that nobody is there."""

import threading
from collections.abc import Iterator, Sequence

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from keeper.domain.delivery import Outcome, Turn
from keeper.domain.events import OutboxMessage
from keeper.postgres.embedded import EmbeddedServer, temporary_server
from keeper.postgres.engine import answering_within, is_away, open_engine
from keeper.postgres.migrate import migrate
from keeper.relay import Relayed, RelaySettings, drain, keep_relaying, relay
from tests.integration.makers import NOW, one
from tests.integration.test_sinks import Taker, price, watch
from tests.services.proxy import Proxy
from tests.services.waiting import wait_until

SETTINGS = RelaySettings(most_tries=3, first_wait_seconds=600)
# Keeper's own patience is a few seconds; a wait without an end is longer than any of these.
_LONGEST_SECONDS = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """On a TCP port, so that a proxy can stand before it."""
    with temporary_server(tcp_port=0) as running:
        running.create_database("template_half_open")
        opened = open_engine(running.dsn("template_half_open"))
        migrate(opened, now=NOW)
        opened.dispose()
        yield running


@pytest.fixture
def engine(server: EmbeddedServer) -> Iterator[Engine]:
    """Without a proxy between, with one price that waits."""
    server.create_database("half_open", template="template_half_open")
    opened = open_engine(server.dsn("half_open"))
    watch(opened)
    price(opened, 5000, 30)
    yield opened
    opened.dispose()
    server.drop_database("half_open")


@pytest.fixture
def proxy(server: EmbeddedServer) -> Iterator[Proxy]:
    with Proxy(server.address().port) as running:
        yield running


@pytest.fixture
def behind(proxy: Proxy, engine: Engine) -> Iterator[Engine]:
    """By way of the proxy, with little patience."""
    url = engine.url.set(port=proxy.port).render_as_string(hide_password=False)
    opened = open_engine(url, connect_timeout_seconds=1, statement_timeout_seconds=1)
    yield opened
    # What hangs in a fault of Keeper's lets go.
    proxy.restore()
    opened.dispose()


class Silencing(Taker):
    """While it delivers, the way to PostgreSQL falls silent; then it waits until it is told that its turn is lost."""

    was_told = False

    def __init__(self, proxy: Proxy) -> None:
        super().__init__()
        self._proxy = proxy

    def deliver(self, messages: Sequence[OutboxMessage], turn: Turn) -> Iterator[list[Outcome]]:  # noqa: ARG002
        self._proxy.half_open()
        wait_until(turn.is_lost, "nobody says that the lock is lost", longest_seconds=_LONGEST_SECONDS)
        self.was_told = turn.is_over()
        yield from ()


class SilencedAmidStore(Taker):
    """The way to PostgreSQL falls silent while an acknowledgement is stored, which then waits for its answer."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__()
        self._proxy = proxy

    def store(self, connection: Connection, outcome: Outcome, *, is_dead: bool) -> None:  # noqa: ARG002
        self._proxy.half_open()


class Call(threading.Thread):
    """A call that must end; `outcome` is what it returned or raised."""

    def __init__(self, engine: Engine, sink: Taker, *, is_drain: bool = False) -> None:
        super().__init__(daemon=True)
        self.outcome: Relayed | Exception | None = None
        self._engine = engine
        self._sink = sink
        self._is_drain = is_drain

    def run(self) -> None:
        try:
            if self._is_drain:
                self.outcome = drain(self._engine, self._sink, settings=SETTINGS, longest_seconds=600, then=lambda: None)
            else:
                self.outcome = relay(self._engine, self._sink, settings=SETTINGS, longest_seconds=600)
        except Exception as error:  # noqa: BLE001  looked at where the thread has ended
            self.outcome = error

    def ended(self) -> "Relayed | Exception | None":
        """Start it, and wait for its end."""
        self.start()
        self.join(_LONGEST_SECONDS)
        assert not self.is_alive()
        return self.outcome


def test_a_relay_whose_lock_answers_no_more_is_told_and_ends(engine: Engine, behind: Engine, proxy: Proxy) -> None:
    sink = Silencing(proxy)
    done = Call(behind, sink).ended()
    assert isinstance(done, Relayed)
    assert (sink.was_told, done.delivered, done.is_complete) == (True, 0, False)
    assert one(engine, "SELECT count(*) FROM outbox") == 1


def test_a_relay_ends_where_the_answer_to_a_statement_does_not_come(engine: Engine, behind: Engine, proxy: Proxy) -> None:
    done = Call(behind, SilencedAmidStore(proxy)).ended()
    assert isinstance(done, Exception)
    assert is_away(done)
    assert one(engine, "SELECT count(*) FROM outbox") == 1


def test_a_rebuild_that_holds_all_shards_ends_too(engine: Engine, behind: Engine, proxy: Proxy) -> None:
    """Nobody else could take them."""
    done = Call(behind, Silencing(proxy), is_drain=True).ended()
    assert isinstance(done, Exception)


def test_the_server_frees_the_shards_of_a_relay_that_it_hears_nothing_of(
    engine: Engine, behind: Engine, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection lives on, as far as TCP goes; another relay, which reaches the server, goes on in its place."""
    monkeypatch.setattr("keeper.relay._LONGEST_SILENCE_SECONDS", 3.0)
    Call(behind, Silencing(proxy)).ended()
    taker = Taker()

    def is_delivered() -> bool:
        return relay(engine, taker, settings=SETTINGS, longest_seconds=60).delivered == 1

    wait_until(is_delivered, "the shard is held for ever", longest_seconds=_LONGEST_SECONDS)
    assert taker.amounts == [5000]


def test_a_session_that_relayed_may_be_idle_afterwards(engine: Engine) -> None:
    assert relay(engine, Taker(), settings=SETTINGS, longest_seconds=60).delivered == 1
    with engine.connect() as connection:
        assert connection.execute(text("SHOW idle_session_timeout")).scalar_one() == "0"


def test_a_listener_that_hears_nothing_notices_that_nobody_is_there(
    behind: Engine, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is the only one who would: nothing waits, and the next sweep is far away."""
    monkeypatch.setattr("keeper.relay._BELL_SECONDS", 0.2)
    assert relay(behind, Taker(), settings=SETTINGS, longest_seconds=60).delivered == 1
    stop, rounds = threading.Event(), threading.Semaphore(0)
    arguments = {"settings": SETTINGS, "stop": stop, "sweep_seconds": 600, "on_relayed": lambda _sink, _done: rounds.release()}
    service = threading.Thread(target=keep_relaying, args=(behind, [Taker()]), kwargs=arguments, daemon=True)
    service.start()
    try:
        for _ in range(2):
            assert rounds.acquire(timeout=_LONGEST_SECONDS)
        wait_until(lambda: behind.pool.checkedout() == 1, "others than the listener ask")  # type: ignore[attr-defined]
        proxy.half_open()
        wait_until(lambda: "does not answer" in caplog.text, "nobody notices", longest_seconds=_LONGEST_SECONDS)
    finally:
        stop.set()
        proxy.restore()
        service.join(_LONGEST_SECONDS)
    assert not service.is_alive()


def test_what_waited_is_delivered_when_the_server_is_back(engine: Engine, behind: Engine, proxy: Proxy) -> None:
    Call(behind, Silencing(proxy)).ended()
    proxy.restore()
    taker = Taker()
    wait_until(lambda: relay(behind, taker, settings=SETTINGS, longest_seconds=60).delivered == 1, "nothing is delivered")
    assert taker.amounts == [5000]


def test_a_connection_that_is_given_up_is_said_to_be_away_and_not_used_again(behind: Engine, proxy: Proxy) -> None:
    with behind.connect() as connection:
        connection.execute(text("SELECT 1"))
        proxy.half_open()
        with pytest.raises(DBAPIError, match="has not answered") as caught:
            connection.execute(text("SELECT 1"))
    assert is_away(caught.value)
    assert caught.value.connection_invalidated


def test_a_server_that_works_longer_than_its_silence_is_allowed_is_waited_for_where_told(engine: Engine) -> None:
    with engine.connect() as connection:
        with answering_within(connection, None):
            connection.execute(text("SELECT pg_sleep(0.3)"))
        with answering_within(connection, 0.1), pytest.raises(DBAPIError, match="has not answered"):
            connection.execute(text("SELECT pg_sleep(5)"))
