"""The daily reports of 1,000 users with 3 filters each over 5,000 deals: seconds and SQL statements, which must not grow with the users.

Each deal has a product and 20 recorded prices; each user a channel, 5 watches of which some fell, and three filters of different kinds
(words and a price, a discount, a score). The baseline composes the same reports user by user, as one would who has a function for one.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, event, text

from benchmarks.figures import database
from keeper.domain.deal_filter import DealFilter, write_rules
from keeper.domain.events import KINDS, Sink
from keeper.domain.marketplace import Marketplace
from keeper.domain.report import decode_report
from keeper.notify.report import compose_report
from keeper.postgres.sinks import insert_sink, lock_sinks
from keeper.report import ReportSettings, report

USERS = 1_000
FEW = 100
DEALS = 5_000
POINTS = 20
WATCHES = 5
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)

Figure = tuple[str, float, str, str]


def report_figures() -> list[Figure]:
    """On a database of its own."""
    with database() as engine:
        fill_deals(engine, DEALS)
        return measure_reports(engine)


def measure_reports(engine: Engine, *, users: int = USERS, few: int = FEW, deals: int = DEALS) -> list[Figure]:
    """Figures of a database that `fill_deals` has filled."""
    fill_readers(engine, users, deals)
    few_seconds, few_queries = _run(engine, few, NOW)
    many_seconds, many_queries = _run(engine, users, NOW + timedelta(days=1))
    again_seconds, again_queries = _run(engine, users, NOW + timedelta(days=2))
    loop_seconds, loop_queries = _run(engine, few, NOW + timedelta(days=3), users_at_once=1)
    with engine.begin() as connection:
        content = connection.execute(text("SELECT content FROM deal_reports ORDER BY deal_count DESC LIMIT 1")).scalar_one()
    started = time.perf_counter()
    for _ in range(20):
        message = compose_report(decode_report(content))
    render_ms = 1000 * (time.perf_counter() - started) / 20
    return [
        (f"report_queries_{few}_users", few_queries, "statements", f"the same as for {users:,}"),
        ("report_queries", many_queries, "statements", f"the same as for {few}, whatever the number of users"),
        (f"report_seconds_{few}_users", few_seconds, "s", ""),
        ("report_seconds", many_seconds, "s", ""),
        ("report_queries_second_day", again_queries, "statements", "the same"),
        ("report_seconds_second_day", again_seconds, "s", "with a report before to compare with"),
        ("report_ms_per_user", 1000 * many_seconds / users, "ms", ""),
        (f"user_by_user_seconds_{few}_users", loop_seconds, "s", f"baseline of {few_seconds:.2f} s"),
        (f"user_by_user_queries_{few}_users", loop_queries, "statements", f"baseline of {few_queries}"),
        ("render_ms", render_ms, "ms", "HTML, text and the short form of the largest report"),
        ("render_kb", len(message.html.encode()) / 1024, "KB", "below 102, where Gmail cuts"),
    ]


def fill_deals(engine: Engine, deals: int) -> None:
    """Deals with their products and prices; every third is cheap, every fifth by another maker."""
    values = {"deals": deals, "points": POINTS, "now": NOW}
    with engine.begin() as connection:
        connection.execute(
            text(
                """
                INSERT INTO products (asin, marketplace, kind, title, brand, image_url, first_seen_at, checked_at, changed_at)
                SELECT 'B' || lpad(n::text, 9, '0'), 'DE', 'STANDARD',
                    CASE n % 5 WHEN 0 THEN 'Logitech MX ' WHEN 1 THEN 'Keychron K' ELSE 'Cherry MX Board ' END || n
                        || ' kabellose mechanische Tastatur, QWERTZ, beleuchtet',
                    CASE n % 5 WHEN 0 THEN 'Logitech' WHEN 1 THEN 'Keychron' ELSE 'Cherry' END,
                    'https://m.media-amazon.com/images/I/61bench' || n || '.jpg', :now, :now, :now
                FROM generate_series(1, :deals) n
                """
            ),
            values,
        )
        connection.execute(
            text(
                """
                INSERT INTO price_history (asin, marketplace, price_type, observed_at, amount_minor, currency)
                SELECT 'B' || lpad(n::text, 9, '0'), 'DE', 'NEW', :now - make_interval(days => 5 * point, hours => 3),
                    3000 + (n * 37 + point * 613) % 12000, 'EUR'
                FROM generate_series(1, :deals) n, generate_series(0, :points - 1) point
                """
            ),
            values,
        )
        connection.execute(
            text(
                """
                INSERT INTO collected_deals (asin, marketplace, price_type, changed_at, amount_minor, list_price_minor, currency,
                    discount_pct, first_seen_at, last_seen_at, event_id, url, deal_score, source, median_90_minor, below_median_pct,
                    lowest_year_minor, is_year_low, is_all_time_low, is_list_price_fiction, sightings, announced_at, rating_tenths,
                    review_count, sales_rank, layout)
                SELECT 'B' || lpad(n::text, 9, '0'), 'DE', 'NEW', :now - make_interval(hours => 3),
                    CASE n % 3 WHEN 0 THEN 4000 ELSE 9000 END + n % 900, 15000, 'EUR', 20 + n % 60, :now, :now, gen_random_uuid(), NULL,
                    n % 100, 'feed', 12000, n % 60, 4000, n % 7 = 0, n % 29 = 0, false, 1, :now - make_interval(hours => 2), 40 + n % 10,
                    n % 5000, n, 'qwertz'
                FROM generate_series(1, :deals) n
                """
            ),
            values,
        )
        connection.execute(
            text(
                """
                INSERT INTO current_prices (asin, marketplace, price_type, amount_minor, currency, observed_at, checked_at)
                SELECT DISTINCT ON (asin, marketplace, price_type) asin, marketplace, price_type, amount_minor, currency, observed_at, :now
                FROM price_history ORDER BY asin, marketplace, price_type, observed_at DESC
                """
            ),
            values,
        )
        lock_sinks(connection)
        insert_sink(connection, Sink.KAFKA.value, KINDS[Sink.KAFKA], from_oldest=False)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))


def fill_readers(engine: Engine, users: int, deals: int) -> None:
    """Users with a channel, watches and three filters of different kinds each; none of them is due until `_run` says so."""
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO users (name, report_hour, timezone) SELECT 'reader' || n, NULL, 'UTC' FROM generate_series(1, :users) n"),
            {"users": users},
        )
        connection.execute(
            text(
                "INSERT INTO channels (user_id, name, scheme, shown, url_encrypted, key_fingerprint) "
                "SELECT id, 'mail', 'mailto', 'mailto', 'unused', 'unused' FROM users"
            )
        )
        connection.execute(
            text(
                """
                INSERT INTO watched_products (user_id, asin, marketplace, price_type, target_minor, currency)
                SELECT u.id, 'B' || lpad((1 + (u.id * 31 + n * 977) % :deals)::text, 9, '0'), 'DE', 'NEW', 4500, 'EUR'
                FROM users u, generate_series(1, :watches) n ON CONFLICT DO NOTHING
                """
            ),
            {"deals": deals, "watches": WATCHES},
        )
        for place in range(3):
            connection.execute(
                text(
                    "INSERT INTO deal_filters (user_id, name, rules) SELECT * FROM "
                    "unnest(CAST(:ids AS bigint[]), CAST(:names AS text[]), CAST(:rules AS jsonb[]))"
                ),
                _filters(list(connection.execute(text("SELECT id FROM users ORDER BY id")).scalars()), place),
            )


def _filters(user_ids: list[int], place: int) -> dict[str, list[Any]]:
    brands = ("Logitech", "Keychron", "Cherry")

    def rules(number: int) -> DealFilter:
        if place == 0:
            stores = (Marketplace.DE,)
            return DealFilter(words="tastatur", brands=(brands[number % 3],), marketplaces=stores, price_to_minor=5000 + number % 4000)
        if place == 1:
            return DealFilter(discount_from_pct=40 + number % 30, rating_from=4)
        return DealFilter(score_from=50 + number % 40, words="mechanische")

    return {
        "ids": user_ids,
        "names": [f"filter {place}"] * len(user_ids),
        "rules": [json.dumps(write_rules(rules(number))) for number in user_ids],
    }


def _run(engine: Engine, users: int, now: datetime, *, users_at_once: int = USERS) -> tuple[float, int]:
    """Seconds and statements of the verb for so many users, who are due at noon of that day."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE users SET report_hour = CASE WHEN id <= :last THEN 12 END"), {"last": users})
    with _counted(engine) as statements:
        started = time.perf_counter()
        done = report(engine, now=now, settings=ReportSettings(users_at_once=users_at_once))
        seconds = time.perf_counter() - started
    assert len(done.users) == users
    assert all(one.deals for one in done.users)
    return seconds, len(statements)


@contextmanager
def _counted(engine: Engine) -> Iterator[list[str]]:
    counted: list[str] = []

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        counted.append(statement)

    event.listen(engine, "before_cursor_execute", count)
    try:
        yield counted
    finally:
        event.remove(engine, "before_cursor_execute", count)
