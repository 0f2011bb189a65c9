"""The one way to open PostgreSQL: a bounded pool with timeouts everywhere."""

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar, cast

import msgspec
import psycopg
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from keeper import trace
from keeper.domain.errors import KeeperError

_COPY_LINES = 1000
# What was sent and is not taken for so long, nobody is there to take.
_UNTAKEN_MS = 15_000
# The server's side of the same: a client whose host lost power holds its locks no longer than this.
_SERVER_KEEPALIVES = "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=3 -c tcp_keepalives_count=3"

# A server that lives cancels a statement after its timeout and says so; one that is silent for so long after that is none.
_SILENCE_SECONDS = 5.0

RV = TypeVar("RV")


class DatabaseUrlInvalid(KeeperError):
    """Not a PostgreSQL URL. Its text never holds the URL."""


def open_engine(
    url: str,
    *,
    pool_size: int = 8,
    connect_timeout_seconds: int = 10,
    statement_timeout_seconds: float = 60,
    application_name: str = "keeper",
) -> Engine:
    """An engine on `url`; nothing is connected yet.

    Dead peers are noticed within about 15 seconds by both sides; a statement is cancelled after its timeout, and where nobody says even
    that, as behind a proxy that acknowledges for a server it has lost, its connection is closed some seconds later.

    Args:
        url: `postgresql://user:password@host:port/database`; the driver is always psycopg 3.

    Raises:
        DatabaseUrlInvalid: another kind of database.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise DatabaseUrlInvalid("KEEPER_DATABASE_URL is not a URL; write it like postgresql://user:password@host:5432/database") from None
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise DatabaseUrlInvalid("KEEPER_DATABASE_URL must start with postgresql://")
    engine = create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=2,
        pool_timeout=30,
        pool_pre_ping=True,
        hide_parameters=True,  # an error's text reaches logs, and values may be secrets
        connect_args={
            "connect_timeout": connect_timeout_seconds,
            "application_name": application_name,
            "keepalives": 1,
            "keepalives_idle": 5,
            "keepalives_interval": 3,
            "keepalives_count": 3,
            "tcp_user_timeout": _UNTAKEN_MS,
            "options": f"-c statement_timeout={round(statement_timeout_seconds * 1000)} -c timezone=UTC -c jit=off {_SERVER_KEEPALIVES}",
        },
    )
    answer_seconds = statement_timeout_seconds + _SILENCE_SECONDS if statement_timeout_seconds > 0 else None

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: object, _record: object, words: list[Any], parameters: dict[str, Any]) -> _Connection:
        opened = _Connection.connect(*words, **parameters)
        opened.answer_seconds = answer_seconds
        return opened

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        """What is recorded in a transaction for a request bears its id: `events.request_id` has it as its default."""
        known = trace.current()
        if known.request_id is not None and known.is_kept and connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("SELECT set_config('keeper.request_id', %s, true)", (known.request_id,))

    return engine


class _Connection(psycopg.Connection[Any]):
    """A connection that waits for no answer for ever. Neither keepalives nor tcp_user_timeout see a peer that acknowledges and is silent.

    Attributes:
        answer_seconds: a silence of so long, while something is waited for, closes it; None for any patience.
    """

    answer_seconds: float | None = None

    def wait(self, gen: Generator[Any, Any, RV], *args: Any, **names: Any) -> RV:
        """Everything that psycopg waits for on the connection, it waits for here."""
        return super().wait(self._until_silent(gen), *args, **names)

    def _until_silent(self, gen: Generator[Any, Any, RV]) -> Generator[Any, Any, RV]:
        heard_at = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                # psycopg looks several times a second, and says so with nothing.
                ready = yield wanted
                if ready:
                    heard_at = time.monotonic()
                elif self.answer_seconds is not None and time.monotonic() - heard_at > self.answer_seconds:
                    self.close()
                    raise psycopg.OperationalError(f"the server has not answered for {self.answer_seconds:.0f} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            value: RV = end.value
            return value


@contextmanager
def answering_within(connection: Connection, seconds: float | None) -> Iterator[None]:
    """Another patience with the server on this connection, until the end of the block; None for any."""
    driver = cast("_Connection", driver_of(connection))
    before, driver.answer_seconds = driver.answer_seconds, seconds
    try:
        yield
    finally:
        driver.answer_seconds = before


@contextmanager
def statements_within(connection: Connection, seconds: float) -> Iterator[None]:
    """At least so long for each statement, and as much patience with its answer. The database's part holds until the transaction ends."""
    connection.execute(
        text(
            """
            SELECT set_config('statement_timeout', (CASE WHEN setting::bigint BETWEEN 1 AND :ms THEN :ms ELSE setting::bigint END)::text,
                true)
            FROM pg_settings WHERE name = 'statement_timeout'
            """
        ),
        {"ms": round(seconds * 1000)},
    )
    patience = cast("_Connection", driver_of(connection)).answer_seconds
    with answering_within(connection, None if patience is None else max(patience, seconds + _SILENCE_SECONDS)):
        yield


# Connection exceptions, insufficient resources, operator intervention but for a cancelled query.
_OUTAGES = ("08", "53", "57P")


def is_away(error: BaseException) -> bool:
    """Whether an error says that the database cannot be used now, and not that what it was asked is wrong.

    The server or the way to it; a connection that another thread has just seen end; a pool whose connections are all in use.
    """
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or isinstance(error, InterfaceError) or isinstance(error.orig, psycopg.OperationalError)
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | PendingRollbackError | PoolTimeout)


def is_outage(error: BaseException) -> bool:
    """Whether everybody meets it: a deadlock or a cancelled query is psycopg's OperationalError, too, and one transaction's own trouble."""
    state = getattr(getattr(error, "orig", error), "sqlstate", None)
    return is_away(error) and (state is None or state.startswith(_OUTAGES))


def driver_of(connection: Connection) -> psycopg.Connection[Any]:
    """psycopg's own connection below SQLAlchemy's, for COPY; its transaction is the same one."""
    return cast("psycopg.Connection[Any]", connection.connection.driver_connection)


def copy_rows(connection: Connection, target: str, lines: Iterable[str]) -> int:
    r"""COPY text lines (tab-separated, `\N` for null, each ending in a newline) into `target`, e.g. `stage (asin, minute)`.

    The server reads the first lines while the next are made. Returns how many there were.
    """
    with driver_of(connection).cursor() as cursor:
        with cursor.copy(f"COPY {target} FROM STDIN") as copy:
            waiting = iter(lines)
            while share := list(islice(waiting, _COPY_LINES)):
                copy.write("".join(share))
        return cursor.rowcount


def json_rows(rows: Sequence[object]) -> str:
    """Dataclasses or dicts as a JSON array, for `json_to_recordset`: of a few hundred rows that takes less than COPY and a stage do.

    A NUL, which PostgreSQL cannot hold, is dropped.
    """
    body = msgspec.json.encode(rows)
    return (msgspec.json.encode(_without_nuls(msgspec.json.decode(body))) if rb"\u0000" in body else body).decode()


def _without_nuls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nuls(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_nuls(part) for part in value]
    return value.replace("\x00", "") if isinstance(value, str) else value


_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\x00": ""})


def copy_text(value: str | None) -> str:
    """One text field for `copy_rows`. A NUL, which PostgreSQL cannot hold, is dropped."""
    return "\\N" if value is None else value.translate(_ESCAPES)
