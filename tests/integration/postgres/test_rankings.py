"""Rankings: the database says of all products what the domain says of one, in pages by an index."""

import random
from typing import Any

from sqlalchemy import Connection, Engine, text

from keeper.domain.marketplace import Marketplace
from keeper.domain.ranking import RankingFacts, compute_ranking_parts
from keeper.postgres.rankings import RankingPlace, rank_after, select_ranking
from keeper.ranking import rank_products
from tests.integration.makers import ASIN, NOW, ago, one, plans, product, rows, run_record


def known(engine: Engine, number: int, *, marketplace: Marketplace = Marketplace.DE, root: int | None = 7, **facts: Any) -> str:
    """A product with these facts."""
    asin = f"B{number:09}"
    run_record(engine, product(asin=asin, marketplace=marketplace, root_category_id=root, **facts), sinks=frozenset())
    return asin


def test_the_database_agrees_with_the_domain(engine: Engine) -> None:
    dice = random.Random(7)
    facts = {}
    for number in range(150):
        said: dict[str, Any] = {
            "sales_rank": dice.choice([None, dice.randrange(1, 40), dice.randrange(1, 500_000), 10, 11, 300_000, 300_001]),
            "sales_rank_drops_30": dice.choice([None, dice.randrange(0, 90)]),
            "monthly_sold": dice.choice([None, dice.randrange(0, 2_000)]),
            "rating_tenths": dice.choice([None, dice.randrange(0, 51)]),
            "review_count": dice.choice([None, dice.randrange(0, 3_000), 2**31 - 1]),
        }
        facts[known(engine, number, **said)] = RankingFacts(**said)
    rank_products(engine, now=NOW)
    with engine.begin() as connection:
        found = select_ranking(connection, "DE", limit=1_000)
    wanted = {asin: compute_ranking_parts(said) for asin, said in facts.items()}
    assert {one.asin: one.parts for one in found} == {asin: parts for asin, parts in wanted.items() if sum(parts.values())}
    assert {one.asin: one.facts for one in found}.items() <= facts.items()
    assert [(-one.score, one.asin) for one in found] == sorted((-one.score, one.asin) for one in found)


def test_a_second_run_writes_nothing(engine: Engine) -> None:
    known(engine, 1, sales_rank=5)
    assert [rank_products(engine, now=NOW) for _ in range(2)] == [1, 0]


def test_only_what_changed_is_ranked_anew(engine: Engine) -> None:
    known(engine, 1, sales_rank=5)
    known(engine, 2, sales_rank=50)
    rank_products(engine, now=ago(hours=1))
    known(engine, 2, sales_rank=5)
    assert rank_products(engine, now=NOW) == 1
    assert rows(engine, "SELECT score, ranked_at FROM product_rankings ORDER BY asin") == [(40, ago(hours=1)), (40, NOW)]


def test_what_is_known_no_more_is_ranked_no_more(engine: Engine) -> None:
    known(engine, 1, sales_rank=5)
    rank_products(engine, now=NOW)
    with engine.begin() as connection:
        connection.execute(text("UPDATE products SET sales_rank = NULL"))
    assert rank_products(engine, now=NOW) == 1
    assert one(engine, "SELECT count(*) FROM product_rankings") == 0


def test_a_walk_in_steps_finds_the_same(engine: Engine) -> None:
    for number in range(5):
        known(engine, number, sales_rank=number + 1)
        known(engine, number, sales_rank=number + 1, marketplace=Marketplace.IT)
    after: str | None = ""
    changed = []
    while after is not None:
        with engine.begin() as connection:
            share = rank_after(connection, after, limit=4, now=NOW)
        changed.append(share.changed)
        after = share.last
    assert sum(changed) == 10
    assert rank_products(engine, now=NOW) == 0


def test_pages_follow_one_another_without_a_gap(engine: Engine) -> None:
    for number, rank in enumerate((5, 500, 5, 50, 5, 50)):
        known(engine, number, sales_rank=rank)
    rank_products(engine, now=NOW)
    seen: list[str] = []
    place: RankingPlace | None = None
    with engine.begin() as connection:
        while page := select_ranking(connection, "DE", after=place, limit=2):
            seen += [one.asin for one in page]
            place = RankingPlace(page[-1].score, page[-1].asin)
    assert [int(asin[1:]) for asin in seen] == [0, 2, 4, 3, 5, 1]


def test_a_category_and_a_store_have_rankings_of_their_own(engine: Engine) -> None:
    known(engine, 1, sales_rank=5, root=7)
    known(engine, 2, sales_rank=5, root=8)
    known(engine, 3, sales_rank=5, root=8, marketplace=Marketplace.IT)
    rank_products(engine, now=NOW)
    with engine.begin() as connection:
        assert [one.asin[-1] for one in select_ranking(connection, "DE", root_category_id=8, limit=9)] == ["2"]
        assert [one.asin[-1] for one in select_ranking(connection, "IT", limit=9)] == ["3"]


def test_a_page_is_read_from_its_index(engine: Engine) -> None:
    for number in range(120):
        known(engine, number, sales_rank=number * 40 + 1)
    rank_products(engine, now=NOW)

    def ask(root: int | None, after: RankingPlace | None = None) -> str:
        def look(connection: Connection) -> None:
            connection.execute(text("ANALYZE product_rankings"))
            connection.execute(text("SET LOCAL enable_seqscan = off"))
            connection.execute(text("SET LOCAL enable_bitmapscan = off"))
            select_ranking(connection, "DE", root_category_id=root, after=after, limit=5)

        return plans(engine, look)

    for plan, index in (
        (ask(None), "product_rankings_best"),
        (ask(None, RankingPlace(30, ASIN)), "product_rankings_best"),
        (ask(7), "product_rankings_of_category"),
    ):
        assert index in plan
        assert "Sort" not in plan
