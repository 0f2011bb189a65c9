"""Lists of a million opportunities, through the verb that answers the API: `python -m benchmarks.opportunities`.

1,000,000 open gaps of 250,000 products between five stores, and 100,000 that are over: every tenth doubtful, and those with the highest
margins, as it is in life; no profit known where a border is crossed. Asked are the questions people ask: every order, lanes, categories
that are common and rare, least margins and returns, the doubtful too, later pages; first pages with their count, in turns. The figure is
over all of them together. Beside it what a page costs for a seller of one's own, when it is reckoned and when it is kept.
"""

import argparse
import statistics
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from sqlalchemy import Connection, Engine, text

from benchmarks.figures import database, say
from keeper.domain.exchange import ExchangeRates
from keeper.domain.marketplace import Marketplace
from keeper.domain.opportunity_query import OpportunityQuery, OpportunitySort
from keeper.opportunities import Own, OwnProfits, Reckoning, list_opportunities
from keeper.postgres import opportunities
from keeper.settings import read_settings
from keeper.trade_files import read_seller_file, read_tables

OPPORTUNITIES = 1_000_000
ROUNDS = 20
GOAL_MS = 200.0
PAGE = 100

Figure = tuple[str, float, str, str]

_STORES = "ARRAY['DE', 'IT', 'ES', 'FR', 'UK']"
_FILL = (
    f"""
    INSERT INTO products (asin, marketplace, kind, title, brand, image_url, fba_pick_pack_minor, package_weight_g,
        first_seen_at, checked_at, changed_at)
    SELECT 'B' || lpad(n::text, 9, '0'), store, 'standard', 'Cherry KC 1000 Tastatur, QWERTZ, kabelgebunden ' || n, 'CHERRY',
        'https://m.media-amazon.com/images/I/' || n || '.jpg', 300 + n % 500, 200 + n % 4000, :now, :now, :now
    FROM generate_series(1, :opportunities / 4) n CROSS JOIN unnest({_STORES}) AS store
    """,
    f"""
    INSERT INTO opportunities (asin, source_market, target_market, price_type, source_minor, target_minor, source_currency,
        target_currency, source_checked_at, target_checked_at, margin_minor, margin_pct, profit_minor, invested_minor, roi_pct,
        profit_margin_pct, unknown_parts, reckoned_on, category, doubts, flags, score, score_parts, first_seen_at, last_seen_at,
        best_margin_minor, best_profit_minor, best_at, closed_at, closed_why)
    SELECT 'B' || lpad((1 + n / 4)::text, 9, '0'), source, target, 'NEW', price, price + gap, 'EUR', 'EUR', :now, :now, gap,
        round(gap * 100.0 / price, 2), profit, price, round(profit * 100.0 / price, 2), round(profit * 100.0 / (price + gap), 2),
        CASE WHEN profit IS NULL THEN '{{customs duty}}'::text[] ELSE '{{}}' END, current_date,
        CASE WHEN h % 1000 = 0 THEN 'jewelry' WHEN h % 7 = 0 THEN NULL ELSE (ARRAY['default', 'electronics', 'computers'])[1 + h % 3] END,
        CASE WHEN is_doubtful THEN '{{another pack size}}'::text[] ELSE '{{}}' END, '{{}}', (h >> 5) % 101, '{{"profit": 20}}',
        :now - n * interval '1 second', :now, gap, profit, :now,
        CASE WHEN n > :opportunities THEN :now - (n - :opportunities) * interval '1 minute' END,
        CASE WHEN n > :opportunities THEN 'gap closed' END
    FROM (
        SELECT n, h, source, target, price, gap, is_doubtful,
            CASE WHEN 'UK' IN (source, target) OR h % 11 = 0 THEN NULL ELSE gap - price / 8 - 500 - h % 900 END AS profit
        FROM (
            SELECT n, h, ({_STORES})[1 + n % 4] AS source, ({_STORES})[1 + (n % 4 + 1 + h % 4) % 5] AS target, h % 10 = 0 AS is_doubtful,
                500 + (h >> 2) % 30000 AS price,
                ((500 + (h >> 2) % 30000) * (10 + (h >> 9) % 60 + CASE WHEN h % 10 = 0 THEN 300 ELSE 0 END)) / 100 AS gap
            FROM (SELECT n, hashint4(n) & 2147483647 AS h FROM generate_series(1, :opportunities * 11 / 10) n) numbered
        ) priced
    ) reckoned
    ON CONFLICT DO NOTHING
    """,
)


def questions() -> dict[str, OpportunityQuery]:
    """By what they ask."""
    every = OpportunityQuery(limit=PAGE)
    orders = {f"by {sort}": replace(every, sort=sort) for sort in OpportunitySort}
    return orders | {
        "the largest page": replace(every, limit=1000),
        "a least margin": replace(every, least_margin_pct=Decimal(30)),
        "a high least margin, by profit": replace(every, least_margin_pct=Decimal(69), sort=OpportunitySort.PROFIT),
        "a least return": replace(every, least_roi_pct=Decimal(20)),
        "a high least return, by score": replace(every, least_roi_pct=Decimal(50), sort=OpportunitySort.SCORE),
        "a return nobody has": replace(every, least_roi_pct=Decimal(5000)),
        "a least profit, newest first": replace(every, least_profit_minor=10_000, sort=OpportunitySort.NEWEST),
        "a lane": replace(every, sources=(Marketplace.DE,), targets=(Marketplace.IT,)),
        "a lane nobody has": replace(every, sources=(Marketplace.UK,), targets=(Marketplace.IT,), sort=OpportunitySort.SCORE),
        "two sources, by return": replace(every, sources=(Marketplace.DE, Marketplace.FR), sort=OpportunitySort.ROI),
        "a common category, by profit": replace(every, categories=("computers",), sort=OpportunitySort.PROFIT),
        "a rare category, by score": replace(every, categories=("jewelry",), sort=OpportunitySort.SCORE),
        "a category nobody has": replace(every, categories=("music",), sort=OpportunitySort.PROFIT),
        "a lane and a rare category": replace(every, sources=(Marketplace.DE,), targets=(Marketplace.FR,), categories=("jewelry",)),
        "all at once": replace(
            every,
            sources=(Marketplace.DE,),
            targets=(Marketplace.ES, Marketplace.IT),
            categories=("computers", "electronics"),
            least_margin_pct=Decimal(40),
            least_roi_pct=Decimal(25),
            sort=OpportunitySort.PROFIT,
        ),
        "the doubtful too": replace(every, includes_doubtful=True),
        "the doubtful too, by score": replace(every, includes_doubtful=True, sort=OpportunitySort.SCORE),
        "a product": replace(every, asin="B000001000", includes_doubtful=True),
        "those that are over": replace(every, is_active=False, sort=OpportunitySort.NEWEST),
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--opportunities", type=int, default=OPPORTUNITIES)
    arguments = parser.parse_args()
    with database() as engine:
        fill(engine, arguments.opportunities)
        figures = measure(engine, arguments.rounds)
    say("opportunities", figures)


def fill(engine: Engine, opportunities: int) -> None:
    """So many that are there, and a tenth as many that are over."""
    with engine.begin() as connection:
        for statement in _FILL:
            connection.execute(text(statement), {"opportunities": opportunities, "now": datetime.now(UTC)})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE products, opportunities"))


def measure(engine: Engine, rounds: int) -> list[Figure]:
    """Milliseconds of every question in turns."""
    asked = questions()
    with engine.begin() as connection:
        for name, query in list(asked.items()):
            page = opportunities.select_opportunities(connection, query)
            if page.next is not None:
                asked[f"{name}, second page"] = replace(query, after=page.next)
    taken: dict[str, list[float]] = {name: [] for name in asked}
    for number in range(rounds + 1):
        for name, query in asked.items():
            with engine.begin() as connection:
                started = time.perf_counter()
                list_opportunities(connection, query)
                # The first round fills the caches.
                if number:
                    taken[name].append((time.perf_counter() - started) * 1000)
    for name, values in sorted(taken.items(), key=lambda one: -max(one[1])):
        print(f"{statistics.median(values):8.1f} ms, at most {max(values):8.1f}: {name}", file=sys.stderr)
    together = sorted(value for values in taken.values() for value in values)
    reckoned, recalled = measure_own(engine)
    return [
        ("opportunities_p50_ms", statistics.median(together), "ms", ""),
        ("opportunities_p99_ms", together[round(0.99 * (len(together) - 1))], "ms", f"<= {GOAL_MS:g}"),
        ("own_profile_first_page_ms", reckoned, "ms", ""),
        ("own_profile_kept_page_ms", recalled, "ms", ""),
    ]


def measure_own(engine: Engine) -> tuple[float, float]:
    """A page for a seller of one's own: reckoned, and recalled."""
    settings = read_settings().arbitrage
    own = Own(
        Reckoning(read_seller_file(settings.seller), read_tables(settings.tables), ExchangeRates(), datetime.now(UTC).date()), ("bench",)
    )
    kept = OwnProfits()
    query = OpportunityQuery(sort=OpportunitySort.PROFIT, limit=PAGE)

    def once(connection: Connection) -> float:
        started = time.perf_counter()
        list_opportunities(connection, query, own=own, kept=kept)
        return (time.perf_counter() - started) * 1000

    with engine.begin() as connection:
        return once(connection), once(connection)


if __name__ == "__main__":
    main()
