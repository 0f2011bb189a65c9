"""Partitions: price history by month of business time, events by day of the machine's clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from keeper.domain.errors import TransientError
from keeper.postgres.outbox import FIRST_OF_SHARDS

_MONTHS_BACK = 13
_MONTHS_AHEAD = 3
_DAYS_AHEAD = 8


class PartitionsBusy(TransientError):
    """Somebody holds a table longer than one may wait for it here; nothing was changed, and a later call finds the same to do."""


def make_partitions(connection: Connection, *, now: datetime, at_most: int | None = None, lock_seconds: float | None = None) -> int:
    """Make what is missing, a year back and some time ahead. Rows that waited in a default partition move over.

    Args:
        at_most: how many in this transaction, which until its end stops whoever writes to the default partition; None for all.
        lock_seconds: longest wait for those who write there now; None for any.

    Returns:
        How many partitions were made.

    Raises:
        PartitionsBusy: see there; the transaction is of no use any more.
    """
    first = _month(now.date().replace(day=1), -_MONTHS_BACK)
    wanted = [("price_history", _month(first, step), _month(first, step + 1), "%Y%m") for step in range(_MONTHS_BACK + _MONTHS_AHEAD + 1)]
    today: date = connection.execute(text("SELECT current_date")).scalar_one()
    wanted += [("events", today + timedelta(days=step), today + timedelta(days=step + 1), "%Y%m%d") for step in range(_DAYS_AHEAD)]
    existing = _partitions(connection, "price_history") | _partitions(connection, "events")
    missing = [(table, start, end, f"{table}_{start.strftime(form)}") for table, start, end, form in wanted]
    missing = [row for row in missing if row[3] not in existing]
    with _waiting_briefly(connection, lock_seconds):
        for table, start, end, name in missing[:at_most]:
            _make(connection, table, start, end, name)
    return len(missing[:at_most])


def select_missing(connection: Connection, *, now: datetime, days_ahead: int) -> list[str]:
    """Names of the partitions that rows of the days ahead will want and that are not there."""
    months = {day.strftime("%Y%m") for day in (now.date(), now.date() + timedelta(days=days_ahead))}
    today: date = connection.execute(text("SELECT current_date")).scalar_one()
    wanted = [f"price_history_{month}" for month in sorted(months)]
    wanted += [f"events_{today + timedelta(days=step):%Y%m%d}" for step in range(days_ahead + 1)]
    existing = _partitions(connection, "price_history") | _partitions(connection, "events")
    return [name for name in wanted if name not in existing]


def drop_event_days(connection: Connection, *, keep_days: int, at_most: int | None = None, lock_seconds: float | None = None) -> int:
    """Drop the days of events older than `keep_days` that no outbox row waits for.

    Args:
        at_most: how many in this transaction, which until its end stops whoever reads or writes events; None for all.
        lock_seconds: longest wait for those who read or write them now; None for any.

    Returns:
        How many partitions were dropped.

    Raises:
        PartitionsBusy: see there; the transaction is of no use any more.
    """
    with _waiting_briefly(connection, lock_seconds):
        # Whoever queues a row for an event has looked at events in the same transaction: what waits is known for sure once this is held.
        connection.execute(text("LOCK TABLE ONLY events IN ACCESS EXCLUSIVE MODE"))
        limit = connection.execute(text("SELECT current_date")).scalar_one() - timedelta(days=keep_days)
        oldest_waiting = _oldest_waiting_day(connection)
        if oldest_waiting is not None:
            limit = min(limit, oldest_waiting)
        connection.execute(text("DELETE FROM events_default WHERE recorded_on < :limit"), {"limit": limit})
        names = sorted(_partitions(connection, "events"))
        old = [name for name in names if name[7:].isdigit() and name[7:] < limit.strftime("%Y%m%d")][:at_most]
        for name in old:
            connection.execute(text(f"DROP TABLE {name}"))
    return len(old)


def _oldest_waiting_day(connection: Connection) -> date | None:
    """No row of the outbox waits for an event of a day before; None where nothing waits. A look into the key for each sink and shard."""
    first: date | None = connection.execute(text(f"SELECT min(event_on) FROM ({FIRST_OF_SHARDS}) first")).scalar_one()
    # A transaction that began before midnight may have numbered its event after one of the next day.
    return None if first is None else first - timedelta(days=1)


@contextmanager
def _waiting_briefly(connection: Connection, seconds: float | None) -> Iterator[None]:
    connection.execute(text(f"SET LOCAL lock_timeout = {0 if seconds is None else round(seconds * 1000)}"))
    try:
        yield
    except OperationalError as error:
        if not isinstance(error.orig, psycopg.errors.LockNotAvailable):
            raise
        raise PartitionsBusy(
            "partitions wait: a transaction that does not end holds a table of events or prices; nothing was changed, and the next "
            "maintenance tries again. `SELECT pid, xact_start, application_name, state FROM pg_stat_activity ORDER BY xact_start` shows it"
        ) from error


def _partitions(connection: Connection, table: str) -> set[str]:
    query = text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = CAST(:table AS regclass)")
    return set(connection.execute(query, {"table": table}).scalars())


def _make(connection: Connection, table: str, start: date, end: date, name: str) -> None:
    column = "observed_at" if table == "price_history" else "recorded_on"
    bounds = f"FROM ('{_bound(table, start)}') TO ('{_bound(table, end)}')"
    # A row that reaches the default partition between the move and the attach would fail the attach.
    connection.execute(text(f"LOCK TABLE {table}_default IN ACCESS EXCLUSIVE MODE"))
    connection.execute(text(f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"))
    connection.execute(
        text(
            f"WITH moved AS (DELETE FROM {table}_default WHERE {column} >= '{_bound(table, start)}' AND {column} < '{_bound(table, end)}' "
            f"RETURNING *) INSERT INTO {name} SELECT * FROM moved"
        )
    )
    connection.execute(text(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES {bounds}"))


def _bound(table: str, day: date) -> str:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).isoformat() if table == "price_history" else day.isoformat()


def _month(first: date, step: int) -> date:
    months = first.year * 12 + first.month - 1 + step
    return date(months // 12, months % 12 + 1, 1)
