"""What is measured at every scrape: each question looks at a bounded number of rows by an index, however large the tables grow."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

# No question counts further. Where more waits, that it is so much is all one needs to know.
MOST_ROWS = 10_000
_MOST_OF_SHARD = 2_500


@dataclass(frozen=True, slots=True)
class ChecksAhead:
    """The planned checks of watches whose interval is at most `interval_seconds`, and longer than that of the class before.

    Attributes:
        interval_seconds: None for the class of the longest.
        due: to be checked by now.
        overdue: late by more than a whole interval of their own.
        oldest_seconds: since the last successful check of the one that is the longest ago; None where none was ever checked.
        oldest_intervals: the same in intervals of the check it belongs to, at its largest.
    """

    interval_seconds: int | None
    due: int
    overdue: int
    oldest_seconds: float | None
    oldest_intervals: float | None


def select_checks(connection: Connection, *, now: datetime, bounds_seconds: tuple[int, ...]) -> list[ChecksAhead]:
    """The checks that come first, by class of interval; a class none of them is in is left out.

    Of one interval the price that is due first is the oldest, so the first ones tell of the oldest of all. Only the first `MOST_ROWS` are
    looked at: where more than that are due, a class of long intervals may be missing, and the others say enough.

    Args:
        bounds_seconds: the longest interval of each class, rising, without the last class.
    """
    rows = connection.execute(
        text(
            """
            WITH first AS MATERIALIZED (
                SELECT interval_seconds, next_check_at, last_checked_at FROM planned_checks ORDER BY next_check_at LIMIT :most
            )
            SELECT width_bucket(interval_seconds - 1, CAST(:bounds AS integer[])) AS class,
                count(*) FILTER (WHERE next_check_at <= :now),
                count(*) FILTER (WHERE next_check_at + make_interval(secs => interval_seconds) <= :now),
                extract(epoch FROM CAST(:now AS timestamptz) - min(last_checked_at))::float8,
                max(extract(epoch FROM CAST(:now AS timestamptz) - last_checked_at)::float8 / interval_seconds)
            FROM first GROUP BY class ORDER BY class
            """
        ),
        {"now": now, "bounds": list(bounds_seconds), "most": MOST_ROWS},
    )
    classes = (*bounds_seconds, None)
    return [ChecksAhead(classes[number], *rest) for number, *rest in rows]


@dataclass(frozen=True, slots=True)
class SinkBacklog:
    """What waits for one sink, and what was given up for it.

    Attributes:
        messages: up to some ten thousand; what is beyond is not counted.
        oldest_seconds: age of the oldest one on the machine's clock; 0 without any.
        dead_letters: likewise up to `MOST_ROWS`.
    """

    sink: str
    messages: int
    oldest_seconds: float
    dead_letters: int


def select_sink_backlogs(connection: Connection) -> list[SinkBacklog]:
    """Of every sink that receives events, by name."""
    rows = connection.execute(
        text(
            """
            SELECT s.name, waiting.messages, coalesce(extract(epoch FROM clock_timestamp() - oldest.recorded_at)::float8, 0), dead.letters
            FROM sinks s
            CROSS JOIN LATERAL (
                SELECT coalesce(sum(of_shard.messages), 0) AS messages
                FROM generate_series(0, 15) AS shard CROSS JOIN LATERAL (
                    SELECT count(*) AS messages FROM (
                        SELECT 1 FROM outbox o WHERE o.sink = s.name AND o.shard = shard.shard ORDER BY o.event_seq LIMIT :most_of_shard
                    ) counted
                ) of_shard
            ) waiting
            LEFT JOIN LATERAL (
                SELECT e.recorded_at
                FROM generate_series(0, 15) AS shard CROSS JOIN LATERAL (
                    SELECT event_on, event_seq FROM outbox o WHERE o.sink = s.name AND o.shard = shard.shard ORDER BY o.event_seq LIMIT 1
                ) first JOIN events e ON e.recorded_on = first.event_on AND e.seq = first.event_seq
                ORDER BY first.event_seq LIMIT 1
            ) oldest ON true
            CROSS JOIN LATERAL (
                SELECT count(*) AS letters FROM (SELECT 1 FROM dead_letters d WHERE d.sink = s.name ORDER BY d.id LIMIT :most) counted
            ) dead
            ORDER BY s.name
            """
        ),
        {"most": MOST_ROWS, "most_of_shard": _MOST_OF_SHARD},
    )
    return [SinkBacklog(row[0], int(row[1]), max(0.0, row[2]), row[3]) for row in rows]


@dataclass(frozen=True, slots=True)
class DeliveryCount:
    """Messages to channels of one scheme, by what became of them: `pending`, `delivered` or `dead`."""

    scheme: str
    outcome: str
    deliveries: int


def select_delivery_counts(connection: Connection, *, since: datetime) -> list[DeliveryCount]:
    """Of those made since then, among the newest `MOST_ROWS`."""
    rows = connection.execute(
        text(
            """
            WITH newest AS MATERIALIZED (
                SELECT channel_id, status, created_at FROM deliveries ORDER BY id DESC LIMIT :most
            )
            SELECT c.scheme, n.status, count(*) FROM newest n JOIN channels c ON c.id = n.channel_id
            WHERE n.created_at > :since GROUP BY 1, 2 ORDER BY 1, 2
            """
        ),
        {"since": since, "most": MOST_ROWS},
    )
    return [DeliveryCount(*row) for row in rows]
