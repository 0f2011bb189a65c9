"""What search leaves to the database: texts kept by triggers, prices that touch no index, plans that use them."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from keeper.domain.product import Product
from keeper.domain.search import LARGEST_TOTAL, SearchQuery, SearchSort, SearchSubject
from keeper.find import find, suggest
from keeper.postgres.embedded import EmbeddedServer
from keeper.postgres.engine import open_engine
from keeper.postgres.installation import SCHEMA_REVISION
from keeper.postgres.migrate import migrate
from keeper.postgres.search import PostgresSearcher
from keeper.record import record
from tests.integration.makers import ASIN, NOW, ago, one, product, rows, run_record

OTHER = "B000000002"
PRODUCTS, DEALS = SearchSubject.PRODUCTS, SearchSubject.DEALS
LATER = NOW + timedelta(hours=1)


def answer(title: str | None = "Leise Tastatur", *, amount: int = 4999, hours: int = 0, **facts: Any) -> Product:
    at = NOW + timedelta(hours=hours)
    return product([(ago(days=1), 4999), (at - timedelta(minutes=2), amount)], at=at, title=title, **facts)


def found(engine: Engine, asked: str) -> list[str]:
    with engine.begin() as connection:
        return [hit.asin for hit in find(PostgresSearcher(connection), SearchQuery(PRODUCTS, asked)).hits]


def test_a_new_product_is_found(engine: Engine) -> None:
    run_record(engine, answer(brand="Cherry"))
    assert found(engine, "cherry tastaturen") == [ASIN]


def test_a_new_title_is_found_and_the_old_one_is_not(engine: Engine) -> None:
    run_record(engine, answer())
    run_record(engine, answer("Laute Maus", hours=1))
    assert found(engine, "Tastatur") == []
    assert found(engine, "laut") == [ASIN]


def test_words_of_a_new_title_can_be_mistyped(engine: Engine) -> None:
    run_record(engine, answer())
    run_record(engine, answer("Mikrowellenherd", hours=1))
    assert found(engine, "Mikrowelenherd") == [ASIN]


def test_a_product_without_title_has_a_text_all_the_same(engine: Engine) -> None:
    run_record(engine, answer(None, brand="Cherry"))
    assert found(engine, "cherry") == [ASIN]


def test_a_product_that_goes_takes_its_text_along(engine: Engine) -> None:
    run_record(engine, answer())
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM products"))
    assert rows(engine, "SELECT asin FROM product_texts") == []


def test_a_very_long_title_is_kept(engine: Engine) -> None:
    run_record(engine, answer("Tastatur " + "sehr lang " * 100_000))
    assert found(engine, "Tastatur") == [ASIN]


def test_a_price_alone_writes_no_text(engine: Engine) -> None:
    run_record(engine, answer())
    written = one(engine, "SELECT xmin::text, ctid::text FROM product_texts")
    run_record(engine, answer(amount=3999, hours=1))
    assert one(engine, "SELECT xmin::text, ctid::text FROM product_texts") == written
    assert one(engine, "SELECT amount_minor FROM current_prices") == 3999


def test_a_price_alone_touches_no_index_of_products(engine: Engine) -> None:
    run_record(engine, answer())
    with engine.begin() as connection:
        record(connection, [answer(amount=3999, hours=1)], now=LATER)
        counted = connection.execute(
            text(
                "SELECT pg_stat_get_xact_tuples_updated(t) AS updated, pg_stat_get_xact_tuples_hot_updated(t) AS hot "
                "FROM CAST('products' AS regclass) t"
            )
        ).one()
    assert counted.updated == counted.hot > 0


def test_two_who_learn_the_same_word_do_not_wait_for_each_other(engine: Engine) -> None:
    with engine.begin() as first, engine.begin() as second:
        second.execute(text("SET LOCAL lock_timeout = '2s'"))
        record(first, [answer("Quokkatastatur")], now=NOW)
        record(second, [answer("Quokkatastatur", asin=OTHER)], now=NOW)
    assert found(engine, "Quokatastatur") == [OTHER, ASIN]


def test_the_migration_takes_in_what_is_there(postgres: EmbeddedServer, empty_database: str) -> None:
    engine = open_engine(postgres.dsn(empty_database))
    try:
        migrate(engine, now=NOW, target="0001")
        with engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO products (asin, marketplace, kind, title, first_seen_at, checked_at) "
                    "VALUES (:asin, 'DE', 'standard', 'Leise Tastatur', :now, :now)"
                ),
                {"asin": ASIN, "now": NOW},
            )
        assert migrate(engine, now=NOW) == SCHEMA_REVISION
        assert found(engine, "leise Tastaturen") == found(engine, "Tastatuur") == [ASIN]
    finally:
        engine.dispose()


@pytest.fixture(scope="module")
def large(postgres: EmbeddedServer) -> Iterator[Engine]:
    """3,000 products, a deal on each."""
    postgres.create_database("test_search_large", template="template_keeper")
    engine = open_engine(postgres.dsn("test_search_large"))
    with engine.begin() as connection:
        connection.execute(
            text(
                """
                INSERT INTO products (asin, marketplace, kind, title, brand, first_seen_at, checked_at, changed_at)
                SELECT 'B' || lpad(n::text, 9, '0'), 'DE', 'standard', concat_ws(' ', 'Tastatur', substr(md5(n::text), 1, 9), md5(n::text)),
                    CASE WHEN n % 1000 = 0 THEN 'Cherry-2' ELSE 'Cherry' END, :now, :now, :now
                FROM generate_series(1, 3000) n
                """
            ),
            {"now": NOW},
        )
        connection.execute(
            text(
                """
                INSERT INTO collected_deals (asin, marketplace, price_type, changed_at, amount_minor, currency, discount_pct, first_seen_at,
                    last_seen_at, sales_rank, layout, deal_score, announced_at)
                SELECT asin, 'DE', 'NEW', CAST(:now AS timestamptz) - row_number() OVER () * interval '1 minute',
                    row_number() OVER (), 'EUR', row_number() OVER () % 90, :now, :now,
                    row_number() OVER (), CASE WHEN row_number() OVER () % 500 = 0 THEN 'azerty' ELSE 'qwertz' END,
                    row_number() OVER () % 100, :now
                FROM products
                """
            ),
            {"now": NOW},
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    yield engine
    engine.dispose()
    postgres.drop_database("test_search_large")


def plans(engine: Engine, ask: Callable[[PostgresSearcher], object]) -> str:
    """How the database goes about everything that `ask` asks it."""
    asked: list[tuple[str, Any]] = []

    def keep(connection: Connection, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        asked.append((statement, parameters))

    with engine.begin() as connection:
        event.listen(engine, "before_cursor_execute", keep)
        try:
            ask(PostgresSearcher(connection))
        finally:
            event.remove(engine, "before_cursor_execute", keep)
        lines = [line for statement, parameters in asked for (line,) in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (SearchQuery(PRODUCTS, "c4ca4238a"), "product_texts_words"),
        (SearchQuery(PRODUCTS, '"c4ca4238a c4ca4238a0b923820dcc509a6f75849b"'), "product_texts_words"),
        (SearchQuery(PRODUCTS, "c4ca4238x"), "product_words_alike"),
        (SearchQuery(DEALS, "c4ca4238a"), "product_texts_words"),
        (SearchQuery(DEALS), "collected_deals_newest"),
        (SearchQuery(DEALS, sort=SearchSort.DISCOUNT), "collected_deals_largest"),
        (SearchQuery(DEALS, sort=SearchSort.SCORE), "collected_deals_best"),
        (SearchQuery(DEALS, sort=SearchSort.RATING), "collected_deals_rated"),
        (SearchQuery(DEALS, rank_to=1), "collected_deals_ranked"),
        (SearchQuery(DEALS, layouts=("azerty",)), "collected_deals_layouts"),
        (SearchQuery(DEALS, brands=("CHERRY-2",)), "products_of_brand"),
        (SearchQuery(DEALS, sort=SearchSort.PRICE_ASCENDING), "collected_deals_cheapest"),
        (SearchQuery(DEALS, sort=SearchSort.PRICE_DESCENDING), "collected_deals_cheapest"),
    ],
    ids=[
        "word",
        "phrase",
        "typo",
        "deals by word",
        "newest deals",
        "largest discounts",
        "best deals",
        "best rated",
        "sales rank",
        "layout",
        "brand",
        "cheapest deals",
        "dearest deals",
    ],
)
def test_a_search_uses_its_index(large: Engine, query: SearchQuery, index: str) -> None:
    assert index in plans(large, lambda searcher: find(searcher, query))


@pytest.mark.parametrize("sort", [SearchSort.NEWEST, SearchSort.DISCOUNT, SearchSort.PRICE_ASCENDING])
def test_a_later_page_begins_in_the_index(large: Engine, sort: SearchSort) -> None:
    query = SearchQuery(DEALS, sort=sort)
    with large.begin() as connection:
        cursor = find(PostgresSearcher(connection), query).next_cursor
    shown = plans(large, lambda searcher: find(searcher, SearchQuery(DEALS, sort=sort, cursor=cursor)))
    column = {SearchSort.NEWEST: "changed_at <=", SearchSort.DISCOUNT: "'-1000'", SearchSort.PRICE_ASCENDING: "amount_minor >="}[sort]
    [condition, *_] = [line for line in shown.splitlines() if "Index Cond" in line and "marketplace" in line and column in line]
    assert condition


def test_words_that_most_deals_have_leave_the_newest_first(large: Engine) -> None:
    with large.begin() as connection:
        searcher = PostgresSearcher(connection)
        first = find(searcher, SearchQuery(DEALS, "tastatur", limit=3))
        second = find(searcher, SearchQuery(DEALS, "tastatur", limit=3, cursor=first.next_cursor))
        newest = find(searcher, SearchQuery(DEALS, "tastatur", limit=6, sort=SearchSort.NEWEST))
    assert (*first.hits, *second.hits) == newest.hits
    assert first.total == LARGEST_TOTAL


def test_suggestions_use_the_trigrams(large: Engine) -> None:
    assert "product_texts_trigrams" in plans(large, lambda searcher: suggest(searcher, PRODUCTS, "c4ca42"))
