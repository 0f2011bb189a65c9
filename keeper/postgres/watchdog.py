"""What the watchdog asks of the database, and what it remembers there. Each question costs the same however much the tables hold."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, text

from keeper.domain.watchdog import Clock, Followed, LateInterval, Trouble
from keeper.postgres.outbox import FIRST_OF_SHARDS

_MOST_PLANS = 10_000
_MOST_DUE_NEXT = 1_000
_MOST_DEMAND = 20_000
_MOST_DEAD = 10_000


def select_server(connection: Connection) -> tuple[str, str]:
    """The server's version and the database's name."""
    version, name = connection.execute(text("SELECT current_setting('server_version'), current_database()")).one()
    return version, name


def select_clocks(connection: Connection) -> tuple[datetime, Clock]:
    """The database's own clock, and business time beside it."""
    row = connection.execute(
        text(
            """
            SELECT clock_timestamp() AS machine, keeper_now() AS business, clock_speed,
                CASE WHEN clock_anchor_machine > 0
                    THEN extract(epoch FROM clock_timestamp())::float8 - clock_anchor_machine END AS since_jump
            FROM installation
            """
        )
    ).one()
    return row.machine, Clock(row.business, row.clock_speed, row.since_jump)


def select_late(connection: Connection, *, before: datetime) -> list[LateInterval]:
    """Products that were due before then and were not checked, by interval, among the first 10,000 of them."""
    rows = connection.execute(
        text(
            """
            SELECT interval_seconds, count(*) AS products, min(next_check_at) AS oldest, max(last_checked_at) AS newest,
                (sum(count(*)) OVER ()) >= :most AS is_cut
            FROM (
                SELECT interval_seconds, next_check_at, last_checked_at FROM planned_checks
                WHERE next_check_at < :before ORDER BY next_check_at LIMIT :most
            ) late GROUP BY interval_seconds ORDER BY interval_seconds
            """
        ),
        {"before": before, "most": _MOST_PLANS},
    )
    return [LateInterval(row.interval_seconds, row.products, row.oldest, row.newest, row.is_cut) for row in rows]


@dataclass(frozen=True, slots=True)
class DueNext:
    """The products that are due next, 1,000 at most; those that failed are among them, because they are tried again soon.

    Attributes:
        failure: the most frequent one; None where none failed.
    """

    products: int
    failed: int
    failure: str | None


def select_due_next(connection: Connection, *, now: datetime) -> DueNext:
    """How their last checks went."""
    row = connection.execute(
        text(
            """
            SELECT count(*), count(last_failure), mode() WITHIN GROUP (ORDER BY last_failure)
            FROM (SELECT last_failure FROM planned_checks WHERE next_check_at >= :now ORDER BY next_check_at LIMIT :most) next
            """
        ),
        {"now": now, "most": _MOST_DUE_NEXT},
    ).one()
    return DueNext(*row)


@dataclass(frozen=True, slots=True)
class Canary:
    """One watched product.

    Attributes:
        interval_seconds: the shortest of its watches.
        checked_at: the youngest of its prices; None where it has none yet.
    """

    interval_seconds: int
    next_check_at: datetime
    checked_at: datetime | None
    last_failure: str | None


def find_canary(connection: Connection, asin: str, marketplace: str) -> Canary | None:
    """None where nobody watches it."""
    row = connection.execute(
        text(
            """
            SELECT p.interval_seconds, p.next_check_at, p.last_failure,
                (SELECT max(checked_at) FROM current_prices c WHERE c.asin = :asin AND c.marketplace = :marketplace) AS checked_at
            FROM planned_checks p WHERE p.asin = :asin AND p.marketplace = :marketplace ORDER BY p.interval_seconds LIMIT 1
            """
        ),
        {"asin": asin, "marketplace": marketplace},
    ).one_or_none()
    return None if row is None else Canary(row.interval_seconds, row.next_check_at, row.checked_at, row.last_failure)


def select_demand(connection: Connection, *, now: datetime, plain_tokens: int, buybox_tokens: int) -> float:
    """Tokens a minute that the watches ask for, by what is due in the time ahead; exact up to 20,000 planned checks, else of those next.

    A product that several plans hold counts for each: a little more than `ledger.select_demand`, which reads every watch.
    """
    demand: float = connection.execute(
        text(
            """
            WITH next AS MATERIALIZED (
                SELECT next_check_at, interval_seconds::float8 AS seconds,
                    CASE WHEN is_buybox THEN :buybox ELSE :plain END::float8 AS tokens
                FROM planned_checks WHERE next_check_at >= :now ORDER BY next_check_at LIMIT :most
            ), overdue AS (
                SELECT interval_seconds::float8 AS seconds, CASE WHEN is_buybox THEN :buybox ELSE :plain END::float8 AS tokens
                FROM planned_checks WHERE next_check_at < :now ORDER BY next_check_at DESC LIMIT :most
            ), ahead AS (
                SELECT count(*) AS plans, greatest(extract(epoch FROM max(next_check_at) - CAST(:now AS timestamptz))::float8, 1) AS seconds
                FROM next
            )
            SELECT 60 * coalesce(
                CASE WHEN ahead.plans < :most
                    THEN (SELECT sum(tokens / seconds) FROM (SELECT seconds, tokens FROM next UNION ALL SELECT * FROM overdue) every)
                    ELSE (SELECT sum(tokens * greatest(1, ahead.seconds / next.seconds)) / ahead.seconds FROM next)
                END, 0)
            FROM ahead
            """
        ),
        {"now": now, "plain": plain_tokens, "buybox": buybox_tokens, "most": _MOST_DEMAND},
    ).scalar_one()
    return demand


@dataclass(frozen=True, slots=True)
class SinkQueue:
    """What waits for one sink.

    Attributes:
        messages: counted up to a bound.
        oldest_seconds: age of the oldest, on the machine's clock; None where nothing waits.
        dead_letters: counted up to a bound.
    """

    sink: str
    messages: int
    oldest_seconds: float | None
    dead_letters: int


def select_queues(connection: Connection, *, most: int) -> list[SinkQueue]:
    """Every sink, and what was given up for one that is none any more.

    Args:
        most: messages are counted up to one more than this.
    """
    rows = connection.execute(
        text(
            f"""
            WITH RECURSIVE dead (sink) AS (
                (SELECT sink FROM dead_letters ORDER BY sink LIMIT 1)
                UNION ALL
                SELECT (SELECT d.sink FROM dead_letters d WHERE d.sink > dead.sink ORDER BY d.sink LIMIT 1) FROM dead
                WHERE dead.sink IS NOT NULL
            ), oldest AS (
                SELECT DISTINCT ON (sink) sink, event_on, event_seq FROM ({FIRST_OF_SHARDS}) first ORDER BY sink, event_seq
            ), known AS (
                SELECT name AS sink FROM sinks UNION SELECT sink FROM oldest UNION SELECT sink FROM dead WHERE sink IS NOT NULL
            )
            SELECT known.sink,
                -- In the key's order, so that a sink with few rows is not looked for among all.
                (
                    SELECT count(*) FROM (
                        SELECT 1 FROM outbox o WHERE o.sink = known.sink ORDER BY o.sink, o.shard, o.event_seq LIMIT :most + 1
                    ) counted
                ) AS messages,
                (
                    SELECT extract(epoch FROM clock_timestamp() - e.recorded_at)::float8
                    FROM oldest JOIN events e ON e.recorded_on = oldest.event_on AND e.seq = oldest.event_seq
                    WHERE oldest.sink = known.sink
                ) AS oldest_seconds,
                (
                    SELECT count(*) FROM (
                        SELECT 1 FROM dead_letters d WHERE d.sink = known.sink ORDER BY d.sink, d.id LIMIT :most_dead
                    ) counted
                ) AS dead_letters
            FROM known ORDER BY known.sink
            """
        ),
        {"most": most, "most_dead": _MOST_DEAD},
    )
    return [SinkQueue(*row) for row in rows]


def count_dead_letters(connection: Connection, sink: str) -> dict[str, int]:
    """Of the newest that were given up for a sink: how many, by the key of their events, those first that have the oldest.

    The keys of notifications are channels' ids.
    """
    rows = connection.execute(
        text(
            """
            SELECT key, count(*) AS letters FROM (SELECT key, id FROM dead_letters WHERE sink = :sink ORDER BY id DESC LIMIT :most) newest
            GROUP BY key ORDER BY min(id)
            """
        ),
        {"sink": sink, "most": _MOST_DEAD},
    )
    return {row.key: row.letters for row in rows}


def select_sample(connection: Connection, *, start: str, limit: int) -> list[str]:
    """Some ASINs in their order, from `start` on and round to the beginning."""
    ordered = """
        (SELECT asin FROM (
            SELECT DISTINCT asin FROM (SELECT asin FROM products WHERE asin {than} :start ORDER BY asin LIMIT :rows) listed
        ) distinct_asins ORDER BY asin LIMIT :limit)
    """
    rows = connection.execute(
        text(f"SELECT asin FROM ({ordered.format(than='>=')} UNION ALL {ordered.format(than='<')}) found LIMIT :limit"),
        # A product is a row in each of at most a dozen stores.
        {"start": start, "limit": limit, "rows": 12 * limit},
    )
    return [asin for (asin,) in rows]


_COUNTS = {
    "price_history": "SELECT count(*) FROM price_history WHERE asin = ANY(:asins) AND event_id IS NOT NULL "
    "AND (CAST(:since AS timestamptz) IS NULL OR observed_at >= :since)",
    "collected_deals": "SELECT count(*) FROM collected_deals WHERE asin = ANY(:asins) AND CAST(:since AS timestamptz) IS NULL",
    "products": "SELECT count(DISTINCT asin) FROM products WHERE asin = ANY(:asins) AND CAST(:since AS timestamptz) IS NULL",
    "keepa_calls": "SELECT count(*) FROM keepa_calls WHERE called_at >= :since AND CAST(:asins AS text[]) IS NOT NULL",
}


def count_documents(connection: Connection, table: str, asins: Collection[str], *, since: datetime | None) -> int:
    """Documents there should be of these products, from the table as in `rebuild.count_rows`; of calls, which are of none, since then."""
    counted: int = connection.execute(text(_COUNTS[table]), {"asins": list(asins), "since": since}).scalar_one()
    return counted


def note_scheduler(connection: Connection, deployment_id: UUID, place: str) -> None:
    """A deployment of the watchdog runs on this database."""
    connection.execute(
        text(
            """
            INSERT INTO schedulers (deployment_id, place) VALUES (:deployment_id, :place)
            ON CONFLICT (deployment_id) DO UPDATE SET place = excluded.place, seen_at = clock_timestamp()
            """
        ),
        {"deployment_id": deployment_id, "place": place},
    )


@dataclass(frozen=True, slots=True)
class Scheduler:
    """A deployment of the watchdog, seen of late."""

    deployment_id: UUID
    place: str


def select_schedulers(connection: Connection, *, within_seconds: float) -> list[Scheduler]:
    """Those seen within so long of the machine, oldest first."""
    rows = connection.execute(
        text(
            "SELECT deployment_id, place FROM schedulers WHERE seen_at > clock_timestamp() - make_interval(secs => :seconds) "
            "ORDER BY seen_at, deployment_id"
        ),
        {"seconds": within_seconds},
    )
    return [Scheduler(*row) for row in rows]


def has_rows_outside(connection: Connection, table: str) -> bool:
    """Whether the default partition of `events` or `price_history` holds something newer than a day, for which there was no other."""
    column = {"events": "recorded_on >= current_date", "price_history": "observed_at >= keeper_now() - interval '1 day'"}[table]
    is_there: bool = connection.execute(text(f"SELECT EXISTS (SELECT 1 FROM {table}_default WHERE {column})")).scalar_one()
    return is_there


def select_troubles(connection: Connection) -> list[Followed]:
    """Those that are open, and those whose end somebody may still have to be told."""
    rows = connection.execute(
        text(
            """
            SELECT check_name, about, text, remedy, opened_at, seen_at, ended_at, told, told_end FROM troubles
            WHERE ended_at IS NULL OR ended_at > clock_timestamp() - interval '2 days' ORDER BY opened_at, check_name, about
            """
        )
    )
    return [
        Followed(
            Trouble(row.check_name, row.about, row.text, row.remedy),
            row.opened_at,
            row.seen_at,
            row.ended_at,
            frozenset(row.told),
            frozenset(row.told_end),
        )
        for row in rows
    ]


def save_troubles(connection: Connection, followed: Sequence[Followed]) -> None:
    """Keep them as they are now; those that ended a month ago are forgotten."""
    connection.execute(text("DELETE FROM troubles WHERE ended_at < clock_timestamp() - interval '30 days'"))
    for one in followed:
        if one.ended_at is None:
            # Two folders may have seen it begin at two times while the database was away: it is one trouble, and this is what both know.
            connection.execute(
                text("DELETE FROM troubles WHERE check_name = :check AND about = :about AND ended_at IS NULL AND opened_at <> :opened_at"),
                {"check": one.trouble.check, "about": one.trouble.about, "opened_at": one.opened_at},
            )
        connection.execute(
            text(
                """
                INSERT INTO troubles (check_name, about, opened_at, seen_at, ended_at, text, remedy, told, told_end)
                VALUES (:check, :about, :opened_at, :seen_at, :ended_at, :text, :remedy, :told, :told_end)
                ON CONFLICT (check_name, about, opened_at) DO UPDATE SET seen_at = excluded.seen_at, ended_at = excluded.ended_at,
                    text = excluded.text, remedy = excluded.remedy, told = excluded.told, told_end = excluded.told_end
                """
            ),
            {
                "check": one.trouble.check,
                "about": one.trouble.about,
                "opened_at": one.opened_at,
                "seen_at": one.seen_at,
                "ended_at": one.ended_at,
                "text": one.trouble.text,
                "remedy": one.trouble.remedy,
                "told": sorted(one.told),
                "told_end": sorted(one.told_end),
            },
        )


@dataclass(frozen=True, slots=True)
class OperatorChannel:
    """A channel of somebody who runs Keeper."""

    channel_id: int
    shown: str
    url_encrypted: str


def select_operator_channels(connection: Connection) -> list[OperatorChannel]:
    """The channels of all administrators, by id."""
    rows = connection.execute(
        text("SELECT c.id, c.shown, c.url_encrypted FROM channels c JOIN users u ON u.id = c.user_id WHERE u.role = 'admin' ORDER BY c.id")
    )
    return [OperatorChannel(*row) for row in rows]
