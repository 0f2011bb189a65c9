"""Search over a million running deals, in PostgreSQL and in Elasticsearch: `python -m benchmarks.deal_search`.

300,000 products of five stores, most of them German, each with three or four deals; titles of the words such titles have, some of them in
most titles, some in one. Asked are the questions people ask: words, phrases, a typo, prices, discounts, brands, categories, layouts, every
order, second pages by cursor; each with its total, as the API asks them, in turns. A figure is over all questions together.
"""

import argparse
import os
import secrets
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp

from sqlalchemy import Engine, text

from benchmarks.figures import database, say
from benchmarks.triple_write import tell
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.domain.search import SearchPage, SearchQuery, SearchSort, SearchSubject
from keeper.find import Searcher, find
from keeper.postgres.deals import walk_deals
from keeper.postgres.search import PostgresSearcher
from keeper.search import indices
from keeper.search.bulk import BulkWriter, write_documents
from keeper.search.connection import SearchConnection, open_client
from keeper.search.mapping import Alias, alias_name
from keeper.search.query import ElasticsearchSearcher
from tests.services.elasticsearch import ElasticsearchCluster

PRODUCTS = 300_000
DEALS = 1_000_000
ROUNDS = 20
GOAL_MS = 200.0
PAGE = 20
_WRITTEN_AT_ONCE = 2_000

Figure = tuple[str, float, str, str]

_KINDS = "ARRAY['Tastatur', 'Gaming Tastatur', 'Funktastatur', 'Mechanische Tastatur', 'Maus', 'Kabel', 'Monitor', 'Headset']"
_TRAITS = (
    "ARRAY['schwarz', 'weiß', 'leise', 'kabellos', 'RGB', 'beleuchtet', 'kompakt', 'ergonomisch', 'Bluetooth', 'USB', 'flach', "
    "'mit Ziffernblock', 'Handballenauflage', 'hot-swap', 'Aluminium', 'wasserdicht']"
)
_BRANDS = "ARRAY['Cherry', 'Logitech', 'Perixx', 'Razer', 'Corsair', 'Keychron', 'Hama', 'Trust', 'Microsoft', 'HP']"
_CATEGORIES = "ARRAY['Tastaturen', 'Mäuse', 'Kabel', 'Monitore', 'Headsets', 'Zubehör']"
_FILL = (
    f"""
    INSERT INTO products (asin, marketplace, kind, title, brand, image_url, category_path, rating_tenths, review_count, sales_rank,
        first_seen_at, checked_at, changed_at)
    SELECT 'B' || lpad(n::text, 9, '0'), (ARRAY['DE', 'DE', 'DE', 'DE', 'DE', 'DE', 'FR', 'IT', 'ES', 'UK'])[1 + n % 10], 'standard',
        concat_ws(' ', brand, ({_KINDS})[1 + (h >> 8) % 8], 'K' || n % 5000 || ',', ({_TRAITS})[1 + (h >> 12) % 16],
            ({_TRAITS})[1 + (h >> 16) % 16], ({_TRAITS})[1 + (h >> 20) % 16], (ARRAY['QWERTZ', 'QWERTZ Layout', 'QWERTY', ''])[1 + n % 4]),
        brand, 'https://m.media-amazon.com/images/I/' || n || '.jpg', ARRAY['Computer & Zubehör', ({_CATEGORIES})[1 + (h >> 8) % 6]],
        20 + (h >> 3) % 31, (h >> 5) % 3000, 1 + (h % 400000), :now, :now, :now
    FROM (
        SELECT n, h, CASE WHEN h % 3 = 0 THEN ({_BRANDS})[1 + (h >> 4) % 10] ELSE 'Marke' || h % 4000 END AS brand
        FROM (SELECT n, hashint4(n) & 2147483647 AS h FROM generate_series(CAST(:first AS integer), CAST(:last AS integer)) n) numbered
    ) branded
    """,
    """
    INSERT INTO collected_deals (asin, marketplace, price_type, changed_at, amount_minor, list_price_minor, currency, discount_pct,
        first_seen_at, last_seen_at, rating_tenths, review_count, sales_rank, category, url, deal_score, source, product_group, layout,
        median_90_minor, below_median_pct, lowest_year_minor, is_year_low, announced_at, event_id)
    SELECT p.asin, p.marketplace, price_type, at, amount, amount * 3 / 2 + h % 5000, CASE p.marketplace WHEN 'UK' THEN 'GBP' ELSE 'EUR' END,
        round(100 - amount * 100.0 / (amount * 3 / 2 + h % 5000), 2), at, :now, p.rating_tenths, p.review_count, p.sales_rank,
        p.category_path[2], 'https://www.amazon.de/dp/' || p.asin, (h >> 7) % 100, 'feed',
        CASE WHEN p.title LIKE '%astatur%' THEN 'keyboards' END,
        CASE WHEN p.title LIKE '%QWERTZ%' THEN 'qwertz' WHEN h % 500 = 0 THEN 'azerty' END,
        amount * 5 / 4, (h >> 9) % 60 - 10, amount, h % 9 = 0, at, gen_random_uuid()
    FROM (
        SELECT p.*, price_type, h, 500 + (h >> 2) % 40000 AS amount,
            date_trunc('minute', CAST(:now AS timestamptz)) - (h % 129600) * interval '1 minute' AS at
        FROM products p
        CROSS JOIN unnest(ARRAY['NEW', 'AMAZON', 'BUY_BOX_SHIPPING', 'USED']) WITH ORDINALITY kinds (price_type, place)
        CROSS JOIN LATERAL (SELECT hashtext(p.asin || price_type) & 2147483647 AS h) hashed
        WHERE substr(p.asin, 2)::integer BETWEEN :first AND :last AND (place < 4 OR substr(p.asin, 2)::integer % 3 = 0)
    ) p
    """,
)


def questions() -> dict[str, SearchQuery]:
    """By what they ask."""
    de = SearchQuery(SearchSubject.DEALS, limit=PAGE)
    return {
        "a word that most titles have": replace(de, text="tastatur"),
        "two words, the best first": replace(de, text="cherry tastatur", sort=SearchSort.SCORE),
        "phrase": replace(de, text='"mechanische tastatur"', price_to_minor=8000),
        "words in a price range": replace(de, text="gaming leise", price_from_minor=2000, price_to_minor=8000),
        "words, cheapest first": replace(de, text="funktastatur kompakt", sort=SearchSort.PRICE_ASCENDING),
        "a rare word": replace(de, text="K4711"),
        "a typo": replace(de, text="mechanishe tastatur"),
        "everything, newest": de,
        "everything, best": replace(de, sort=SearchSort.SCORE),
        "largest discounts": replace(de, sort=SearchSort.DISCOUNT, discount_from_pct=30),
        "dearest": replace(de, sort=SearchSort.PRICE_DESCENDING, price_to_minor=30000),
        "a brand, cheapest first": replace(de, brands=("logitech",), sort=SearchSort.PRICE_ASCENDING),
        "a rare brand": replace(de, brands=("Marke77",), sort=SearchSort.SCORE),
        "a category, far below the median": replace(de, categories=("Tastaturen",), below_median_from_pct=45, sort=SearchSort.SCORE),
        "a layout and a group": replace(de, layouts=("qwertz",), group="keyboards", score_from=90, sort=SearchSort.NEWEST),
        "a rare layout": replace(de, layouts=("azerty",), sort=SearchSort.DISCOUNT),
        "well rated": replace(de, rating_from=4.5, reviews_from=500, sort=SearchSort.RATING),
        "sales rank": replace(de, rank_to=1000, sort=SearchSort.SCORE),
        "used ones in a price range": replace(de, price_type=PriceType.USED, price_from_minor=4990, price_to_minor=5010),
        "another store": replace(de, text="clavier cherry", marketplace=Marketplace.FR, sort=SearchSort.SCORE),
    }


# Whose second page is asked for, too.
SECOND_PAGES = (
    "a word that most titles have",
    "two words, the best first",
    "everything, newest",
    "largest discounts",
    "a brand, cheapest first",
)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deals", type=int, default=DEALS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--no-elasticsearch", action="store_true")
    arguments = parser.parse_args()
    say("deals", search_figures(deals=arguments.deals, rounds=arguments.rounds, with_elasticsearch=not arguments.no_elasticsearch))


def search_figures(*, deals: int = DEALS, rounds: int = ROUNDS, with_elasticsearch: bool = True) -> list[Figure]:
    """How long a search takes."""
    with database() as engine:
        fill(engine, deals)
        figures: list[Figure] = [("searched_deals", float(deals), "deals", "")]
        figures += measure("postgres", lambda query: ask_postgres(engine, query), rounds)
        if with_elasticsearch:
            with served(engine) as searcher:
                figures += measure("elasticsearch", lambda query: find(searcher, query), rounds)
    return figures


def fill(engine: Engine, deals: int) -> None:
    """The deals and their products, in parts, then the statistics."""
    products = deals * PRODUCTS // DEALS
    started = time.perf_counter()
    for statement in _FILL:
        for first in range(1, products + 1, 25_000):
            with engine.begin() as connection:
                last = min(first + 24_999, products)
                connection.execute(text(statement), {"first": first, "last": last, "now": datetime.now(UTC)})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
        kept = connection.execute(text("SELECT count(*) FROM collected_deals")).scalar_one()
    print(f"{kept:,} deals on {products:,} products in PostgreSQL after {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)


def ask_postgres(engine: Engine, query: SearchQuery) -> SearchPage:
    """In a transaction of its own, as the API does."""
    with engine.begin() as connection:
        return find(PostgresSearcher(connection), query)


@contextmanager
def served(engine: Engine) -> Iterator[Searcher]:
    """A real Elasticsearch that holds the deals."""
    started = time.perf_counter()
    given = os.environ.get("KEEPER_ELASTICSEARCH_URL")
    with ExitStack() as stack:
        url = given or stack.enter_context(_cluster()).url
        connection = SearchConnection((url,), index_prefix=f"bench-{secrets.token_hex(3)}-")
        client = open_client(connection)
        indices.connect(client, connection)
        writer = BulkWriter(client, connection, requires_alias=True)
        written = 0
        for rows in walk_deals(engine, page=_WRITTEN_AT_ONCE):
            answers = write_documents(
                writer, alias_name(connection, Alias.DEALS), [(one.id, one.version, one.body.encode()) for one in rows]
            )
            assert not [one for one in answers if one.refusal]
            written += len(rows)
        indices.refresh(client, connection, alias_name(connection, Alias.DEALS))
        print(f"{written:,} documents in Elasticsearch after {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        yield ElasticsearchSearcher(client, connection)
        client.close()


@contextmanager
def _cluster() -> Iterator[ElasticsearchCluster]:
    folder = Path(mkdtemp(prefix="keeper-bench-elasticsearch-"))
    folder.chmod(0o755)
    cluster = ElasticsearchCluster(folder, is_temporary=True, is_quick=False, say=tell)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


def measure(name: str, ask: Callable[[SearchQuery], SearchPage], rounds: int) -> list[Figure]:
    """Every question in turns; the first round, which warms up, is not counted."""
    asked = questions()
    for second in SECOND_PAGES:
        asked[f"{second}, second page"] = replace(asked[second], cursor=ask(asked[second]).next_cursor)
    spans: dict[str, list[float]] = {one: [] for one in asked}
    for turn in range(rounds + 1):
        for one, query in asked.items():
            started = time.perf_counter()
            ask(query)
            if turn:
                spans[one].append((time.perf_counter() - started) * 1000)
    for one, times in sorted(spans.items(), key=lambda item: -statistics.median(item[1])):
        print(f"{name}: {one}: least {min(times):.1f}, median {statistics.median(times):.1f}, most {max(times):.1f} ms", file=sys.stderr)
    every = sorted(span for times in spans.values() for span in times)
    p99 = every[min(len(every) - 1, round(len(every) * 0.99))]
    return [
        (f"{name}_search_p50_ms", statistics.median(every), "ms", f"<= {GOAL_MS:.0f}"),
        (f"{name}_search_p99_ms", p99, "ms", f"<= {GOAL_MS:.0f}"),
    ]


if __name__ == "__main__":
    main()
