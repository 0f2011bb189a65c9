"""Partitions: made ahead, a place for every year, moved when their month is made, dropped when nobody waits."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from keeper.domain.events import Event, EventKind, Sink
from keeper.maintain import Retention, maintain
from keeper.postgres.outbox import FIRST_OF_SHARDS, insert_events
from keeper.postgres.partitions import PartitionsBusy, drop_event_days, make_partitions
from tests.integration.makers import one, plans, rows

RETENTION = Retention(events=7, calls=90, ingested=8, dead_letters=90, sightings=90, deals=400, opportunities=400, reports=400)
TODAY = datetime.now(UTC).date()
NOW = datetime(TODAY.year, TODAY.month, TODAY.day, 12, tzinfo=UTC)
FAR = datetime(2035, 6, 15, tzinfo=UTC)


def make(engine: Engine, now: datetime = NOW) -> int:
    with engine.begin() as connection:
        return make_partitions(connection, now=now)


def partitions(engine: Engine, table: str) -> list[str]:
    query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = CAST(:table AS regclass) ORDER BY 1"
    return [name for name in rows(engine, query, table=table) if not name.endswith("_default")]


def month(steps: int) -> str:
    months = TODAY.year * 12 + TODAY.month - 1 + steps
    return f"price_history_{months // 12}{months % 12 + 1:02d}"


def add_point(engine: Engine, at: datetime, asin: str = "B07W6JG6Z7") -> str:
    """Returns the partition it went to."""
    query = """
        INSERT INTO price_history (asin, marketplace, price_type, observed_at, amount_minor, currency)
        VALUES (:asin, 'DE', 'NEW', :at, 4999, 'EUR') RETURNING tableoid::regclass::text
    """
    return str(one(engine, query, at=at, asin=asin))


def add_event_day(engine: Engine, day: date) -> str:
    """A day's partition with one event. Returns its name."""
    name = f"events_{day:%Y%m%d}"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE {name} PARTITION OF events FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"))
        connection.execute(
            text("INSERT INTO events (recorded_on, event_id, kind, key, payload) VALUES (:day, gen_random_uuid(), 'alert', '1', '{}')"),
            {"day": day},
        )
    return name


def test_months_are_made_a_year_back_and_some_ahead(engine: Engine) -> None:
    make(engine)
    found = partitions(engine, "price_history")
    assert {month(step) for step in range(-13, 4)} <= set(found)


def test_days_of_events_are_made_ahead(engine: Engine) -> None:
    make(engine)
    assert {f"events_{TODAY + timedelta(days=step):%Y%m%d}" for step in range(8)} <= set(partitions(engine, "events"))


def test_making_them_again_makes_none(engine: Engine) -> None:
    make(engine)
    assert make(engine) == 0


def test_the_next_month_makes_one_more(engine: Engine) -> None:
    make(engine, FAR)
    assert make(engine, FAR + timedelta(days=30)) == 1


@pytest.mark.parametrize("year", [2011, 2019, 2050])
def test_a_point_of_any_year_finds_a_place(engine: Engine, year: int) -> None:
    assert add_point(engine, datetime(year, 1, 1, tzinfo=UTC)) == "price_history_default"


def test_a_point_of_a_made_month_goes_there(engine: Engine) -> None:
    make(engine)
    assert add_point(engine, NOW) == month(0)


def test_points_move_when_their_month_is_made(engine: Engine) -> None:
    edges = [datetime(2035, 6, 1, tzinfo=UTC), FAR, datetime(2035, 6, 30, 23, 59, tzinfo=UTC), datetime(2035, 7, 1, tzinfo=UTC)]
    for at in [*edges, datetime(2050, 1, 1, tzinfo=UTC)]:
        add_point(engine, at)
    make(engine, FAR)
    where = rows(engine, "SELECT tableoid::regclass::text, count(*) FROM price_history GROUP BY 1 ORDER BY 1")
    assert where == [("price_history_203506", 3), ("price_history_203507", 1), ("price_history_default", 1)]


def test_the_key_holds_in_a_month_made_later(engine: Engine) -> None:
    add_point(engine, FAR)
    make(engine, FAR)
    query = """
        INSERT INTO price_history (asin, marketplace, price_type, observed_at, amount_minor, currency)
        VALUES ('B07W6JG6Z7', 'DE', 'NEW', :at, 1, 'EUR') ON CONFLICT DO NOTHING RETURNING 1
    """
    assert rows(engine, query, at=FAR) == []


def test_a_recording_transaction_under_way_is_waited_for(engine: Engine) -> None:
    """It has written to the default partition; the month it wrote to is made after it, and takes its row."""
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:
            connection.execute(
                text("INSERT INTO price_history VALUES ('B07W6JG6Z7', 'DE', 'NEW', :at, 4999, 'EUR', NULL, NULL, NULL, NULL)"), {"at": FAR}
            )
            making = pool.submit(make, engine, FAR)
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'price_history_default'::regclass"
            while not making.done() and not one(engine, waiting):
                pass
            assert not making.done()
        assert making.result(30) > 0
    assert one(engine, "SELECT tableoid::regclass::text FROM price_history") == "price_history_203506"


def test_old_days_of_events_are_dropped(engine: Engine) -> None:
    old = add_event_day(engine, TODAY - timedelta(days=8))
    kept = add_event_day(engine, TODAY - timedelta(days=7))
    with engine.begin() as connection:
        assert drop_event_days(connection, keep_days=7) == 1
    found = partitions(engine, "events")
    assert old not in found
    assert kept in found


def test_old_events_without_a_day_of_their_own_are_removed(engine: Engine) -> None:
    query = (
        "INSERT INTO events (recorded_on, event_id, kind, key, payload) VALUES (:day, gen_random_uuid(), 'alert', '1', '{}') RETURNING 1"
    )
    one(engine, query, day=TODAY - timedelta(days=300))
    with engine.begin() as connection:
        drop_event_days(connection, keep_days=7)
    assert rows(engine, "SELECT 1 FROM events") == []


def test_a_day_some_sink_waits_for_is_kept(engine: Engine) -> None:
    older = add_event_day(engine, TODAY - timedelta(days=20))
    waited = add_event_day(engine, TODAY - timedelta(days=15))
    newer = add_event_day(engine, TODAY - timedelta(days=10))
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO outbox (sink, shard, key, event_on, event_seq) SELECT 'kafka', 0, key, recorded_on, seq FROM events "
                "WHERE recorded_on = :day"
            ),
            {"day": TODAY - timedelta(days=15)},
        )
        drop_event_days(connection, keep_days=7)
    found = partitions(engine, "events")
    assert older not in found
    assert {waited, newer} <= set(found)


def test_a_day_whose_first_event_was_numbered_after_one_of_the_next_day_is_kept(engine: Engine) -> None:
    """Its transaction began before midnight and numbered it late; the sink waits for both, in the order of their numbers."""
    later = add_event_day(engine, TODAY - timedelta(days=15))
    earlier = add_event_day(engine, TODAY - timedelta(days=16))
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO outbox (sink, shard, key, event_on, event_seq) SELECT 'kafka', 0, key, recorded_on, seq FROM events")
        )
        assert drop_event_days(connection, keep_days=7) == 0
    assert {earlier, later} <= set(partitions(engine, "events"))


def test_what_waits_is_not_read_to_know_its_oldest_day(engine: Engine) -> None:
    """A look into the key for each sink and shard, however many rows there are: how the dropping of days itself goes about it."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO outbox (sink, shard, key, event_on, event_seq) SELECT (ARRAY['kafka', 'search'])[1 + n % 2], n % 16, 'k', "
                "current_date, n FROM generate_series(1, 50000) n"
            )
        )
        connection.execute(text("ANALYZE outbox"))
        assert connection.execute(text(f"SELECT count(*), min(event_seq) FROM ({FIRST_OF_SHARDS}) first")).one() == (16, 1)
    plan = plans(engine, lambda connection: drop_event_days(connection, keep_days=7))
    assert "Seq Scan on outbox" not in plan
    assert "outbox_pkey" in plan


@pytest.mark.parametrize("is_made", [True, False], ids=["made", "dropped"])
def test_partitions_wait_for_nobody_for_ever(engine: Engine, is_made: bool) -> None:
    """A transaction that does not end holds the table: after a moment those who come later go on, and nothing was changed."""
    add_event_day(engine, TODAY - timedelta(days=8))
    before = partitions(engine, "events"), partitions(engine, "price_history")
    with engine.begin() as holder:
        holder.execute(text("LOCK TABLE price_history_default, events IN ROW EXCLUSIVE MODE"))
        with pytest.raises(PartitionsBusy, match="the next maintenance tries again"), engine.begin() as connection:
            if is_made:
                make_partitions(connection, now=FAR, lock_seconds=0.05)
            else:
                drop_event_days(connection, keep_days=7, lock_seconds=0.05)
        assert (partitions(engine, "events"), partitions(engine, "price_history")) == before


def test_maintenance_that_finds_partitions_busy_does_the_rest_and_the_next_one_does_all(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keeper.maintain._LOCK_SECONDS", 0.05)
    add_event_day(engine, TODAY - timedelta(days=8))
    with engine.begin() as holder:
        holder.execute(text("LOCK TABLE price_history_default, events IN ROW EXCLUSIVE MODE"))
        held = maintain(engine, now=FAR, retention=RETENTION)
    assert (held.partitions_made, held.event_days_dropped, "pg_stat_activity" in held.problem) == (0, 0, True)
    done = maintain(engine, now=FAR, retention=RETENTION)
    assert (done.partitions_made > 0, done.event_days_dropped, done.problem) == (True, 1, "")


def test_maintenance_again_does_nothing(engine: Engine) -> None:
    add_event_day(engine, TODAY - timedelta(days=8))
    done = [maintain(engine, now=NOW, retention=RETENTION) for _ in range(2)]
    assert (done[0].event_days_dropped, done[1].partitions_made, done[1].event_days_dropped, done[1].calls_removed) == (1, 0, 0, 0)


def test_partitions_are_made_and_dropped_without_the_ledgers_lock(engine: Engine) -> None:
    """A recording transaction holds them up; whoever needs the ledger goes on."""
    writes = [
        ("INSERT INTO price_history VALUES ('B07W6JG6Z7', 'DE', 'NEW', :at, 4999, 'EUR', NULL, NULL, NULL, NULL)", FAR),
        ("INSERT INTO events (recorded_on, event_id, kind, key, payload) VALUES (:at, gen_random_uuid(), 'alert', '1', '{}')", TODAY),
    ]
    with ThreadPoolExecutor(1) as pool:
        for number, (query, at) in enumerate(writes):
            add_event_day(engine, TODAY - timedelta(days=8))
            with engine.begin() as connection:
                connection.execute(text(query), {"at": at})
                maintaining = pool.submit(maintain, engine, now=FAR + timedelta(days=100 * number), retention=RETENTION)
                waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
                while not maintaining.done() and not one(engine, waiting):
                    pass
                assert not maintaining.done()
                assert rows(engine, "SELECT 1 FROM token_ledger FOR UPDATE NOWAIT") == [1]
            maintaining.result(60)


def test_a_months_rows_are_found_by_time(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO price_history SELECT 'B' || lpad(number::text, 9, '0'), 'DE', 'NEW', "
                "timestamptz '2040-01-01Z' + number * interval '1 hour', 1, 'EUR' FROM generate_series(1, 20000) AS number"
            )
        )
        connection.execute(text("ANALYZE price_history_default"))
        query = "EXPLAIN DELETE FROM price_history_default WHERE observed_at >= '2041-02-01Z' AND observed_at < '2041-03-01Z'"
        plan = "\n".join(connection.execute(text(query)).scalars())
    assert "price_history_default_by_time" in plan


def test_todays_event_goes_to_todays_partition(engine: Engine) -> None:
    make(engine)
    with engine.begin() as connection:
        insert_events(connection, [Event.of(uuid4(), EventKind.ALERT, "1", {})], {EventKind.ALERT: [Sink.NOTIFY.value]})
    day, where = one(engine, "SELECT recorded_on, tableoid::regclass::text FROM events")
    assert where == f"events_{day:%Y%m%d}"
