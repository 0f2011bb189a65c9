"""Pages of opportunities: which, in which order, and by which index."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, text

from keeper import maintain as maintain_verb
from keeper.domain.marketplace import Marketplace
from keeper.domain.opportunity import Opportunity
from keeper.domain.opportunity_query import OpportunityQuery, OpportunityQueryInvalid, OpportunitySort
from keeper.maintain import Maintained, Retention, maintain
from keeper.postgres.opportunities import (
    OpportunityUnknown,
    count_opportunities,
    find_opportunity,
    select_generation,
    select_opportunities,
    select_totals,
)
from tests.integration.makers import ASIN, NOW, add_user, ago, plans, product, rows, run_record
from tests.integration.opportunities import add_comparison, add_opportunities, opportunity

DE, IT, ES, FR = Marketplace.DE, Marketplace.IT, Marketplace.ES, Marketplace.FR
OVER: dict[str, Any] = {"closed_at": NOW, "closed_why": "gap closed"}


def asin(number: int) -> str:
    return f"B{number:09d}"


def ask(engine: Engine, query: OpportunityQuery) -> list[Opportunity]:
    with engine.begin() as connection:
        return [found.opportunity for found in select_opportunities(connection, query).found]


def walk(engine: Engine, query: OpportunityQuery) -> list[int | None]:
    """The ids of all pages."""
    met: list[int | None] = []
    while True:
        with engine.begin() as connection:
            page = select_opportunities(connection, query)
        met += [found.opportunity.id for found in page.found]
        if page.next is None:
            return met
        query = replace(query, after=page.next)


def test_an_opportunity_is_read_as_it_was_written(engine: Engine) -> None:
    written = opportunity(doubts=("another brand",), flags=("Amazon sells it",), best_at=ago(hours=1))
    [number] = add_opportunities(engine, written)

    with engine.begin() as connection:
        found = find_opportunity(connection, number)

    assert found.opportunity == replace(written, id=number)


def test_words_of_a_product_are_those_of_the_listing_it_is_sold_by(engine: Engine) -> None:
    run_record(
        engine,
        product([(NOW, 6000)], title="Tastatur", brand="Cherry"),
        product([(NOW, 9999)], marketplace=IT, title="Tastiera", package_weight_g=900),
    )
    add_opportunities(engine, opportunity())

    with engine.begin() as connection:
        [found] = select_opportunities(connection, OpportunityQuery()).found

    assert (found.title, found.brand, found.weight_g) == ("Tastiera", "Cherry", 900)
    assert (found.source_link, found.target_link) == (f"https://www.amazon.de/dp/{ASIN}", f"https://www.amazon.it/dp/{ASIN}")


def test_the_weight_is_that_of_the_other_listing_where_the_one_that_sells_says_none(engine: Engine) -> None:
    run_record(engine, product([(NOW, 6000)], package_weight_g=400), product([(NOW, 9999)], marketplace=IT))
    add_opportunities(engine, opportunity())

    with engine.begin() as connection:
        [found] = select_opportunities(connection, OpportunityQuery()).found

    assert found.weight_g == 400


@pytest.mark.parametrize(
    ("sort", "facts"),
    [
        (OpportunitySort.MARGIN, [{"margin_pct": Decimal(30)}, {"margin_pct": Decimal(20)}, {"margin_pct": Decimal(10)}]),
        (OpportunitySort.PROFIT, [{"profit": 30}, {"profit": -5}, {"profit": None}]),
        (OpportunitySort.ROI, [{"roi_pct": Decimal(30)}, {"roi_pct": Decimal(-1)}, {"profit": None}]),
        (OpportunitySort.SCORE, [{"score": 90}, {"score": 50}, {"score": 0}]),
    ],
    ids=["margin", "profit", "roi", "score"],
)
def test_the_best_comes_first_and_the_unknown_last(engine: Engine, sort: OpportunitySort, facts: list[dict[str, Any]]) -> None:
    ids = add_opportunities(engine, *(opportunity(asin=asin(number), **one) for number, one in reversed(list(enumerate(facts)))))

    assert [one.id for one in ask(engine, OpportunityQuery(sort=sort))] == list(reversed(ids))


@pytest.mark.parametrize("doubtful", [False, True], ids=["sure", "doubtful too"])
@pytest.mark.parametrize("sort", OpportunitySort)
def test_pages_meet_each_once_in_the_order_of_one_page(engine: Engine, sort: OpportunitySort, doubtful: bool) -> None:
    """Many equal ones, so that the number makes the order."""
    many = [
        opportunity(asin=asin(number), profit=None if number % 3 == 0 else number % 4, margin_pct=Decimal(number % 5), score=number % 2)
        for number in range(40)
    ]
    add_opportunities(engine, *(replace(one, doubts=("another brand",) if number % 7 == 0 else ()) for number, one in enumerate(many)))
    query = OpportunityQuery(sort=sort, includes_doubtful=doubtful)
    whole = walk(engine, replace(query, limit=1000))

    assert walk(engine, replace(query, limit=7)) == whole
    assert len(set(whole)) == (40 if doubtful else 34)


def test_those_that_are_over_come_as_they_ended(engine: Engine) -> None:
    ids = add_opportunities(
        engine,
        *(opportunity(asin=asin(number), closed_at=NOW + timedelta(seconds=number % 3), closed_why="gap closed") for number in range(9)),
    )
    query = OpportunityQuery(is_active=False, sort=OpportunitySort.NEWEST, limit=2)

    assert walk(engine, query) == sorted(ids, key=lambda one: ((one - ids[0]) % 3, one), reverse=True)


def test_those_that_are_over_have_no_other_order() -> None:
    with pytest.raises(OpportunityQueryInvalid, match=r"^sort: "):
        OpportunityQuery(is_active=False)


HALF = opportunity(target=ES, margin_pct=Decimal(10), profit=100, roi_pct=Decimal("5.00"), category="electronics")


@pytest.mark.parametrize(
    "query",
    [
        OpportunityQuery(least_margin_pct=Decimal("66.65")),
        OpportunityQuery(least_roi_pct=Decimal("20.30")),
        OpportunityQuery(least_profit_minor=1054),
        OpportunityQuery(sources=(DE,), targets=(IT,)),
        OpportunityQuery(targets=(IT, FR)),
        OpportunityQuery(categories=("default",)),
        OpportunityQuery(asin=ASIN, categories=("default", "computers")),
    ],
    ids=["margin", "roi", "profit", "lane", "targets", "category", "categories of a product"],
)
def test_a_condition_holds_for_all_that_are_found_and_counted(engine: Engine, query: OpportunityQuery) -> None:
    wanted, *_ = add_opportunities(engine, opportunity(), HALF)

    assert [one.id for one in ask(engine, query)] == [wanted]
    with engine.begin() as connection:
        assert count_opportunities(connection, query) == 1


@pytest.mark.parametrize(
    "query", [OpportunityQuery(least_roi_pct=Decimal(0)), OpportunityQuery(least_profit_minor=-(2**31))], ids=["roi", "profit"]
)
def test_a_profit_that_is_not_known_is_at_least_nothing(engine: Engine, query: OpportunityQuery) -> None:
    add_opportunities(engine, opportunity(profit=None))

    assert ask(engine, query) == []


def test_what_is_doubtful_or_over_is_left_out_unless_asked_for(engine: Engine) -> None:
    sure, doubtful, over = add_opportunities(
        engine, opportunity(), opportunity(target=ES, doubts=("another pack size",)), opportunity(target=FR, **OVER)
    )

    assert [one.id for one in ask(engine, OpportunityQuery())] == [sure]
    assert {one.id for one in ask(engine, OpportunityQuery(includes_doubtful=True))} == {sure, doubtful}
    assert [one.id for one in ask(engine, OpportunityQuery(is_active=False, sort=OpportunitySort.NEWEST))] == [over]


def test_no_more_than_a_thousand_are_counted(engine: Engine) -> None:
    fill(engine, 1200)

    with engine.begin() as connection:
        assert count_opportunities(connection, OpportunityQuery()) == 1000


def fill(engine: Engine, count: int) -> None:
    """So many of as many products."""
    [number] = add_opportunities(engine, opportunity(asin=asin(0)))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        columns = (
            "source_market, target_market, price_type, source_minor, target_minor, source_currency, target_currency, source_checked_at, "
            "target_checked_at, margin_minor, profit_minor, invested_minor, roi_pct, profit_margin_pct, reckoned_on, category, "
            "first_seen_at, last_seen_at, best_margin_minor, best_at"
        )
        connection.execute(
            text(
                f"""
                INSERT INTO opportunities (asin, margin_pct, score, doubts, {columns})
                SELECT 'B' || lpad(n::text, 9, '0'), n % 977, n % 101, CASE WHEN n % 10 = 0 THEN ARRAY['x'] ELSE '{{}}' END, {columns}
                FROM opportunities CROSS JOIN generate_series(1, :count) n WHERE id = :number
                """
            ),
            {"count": count - 1, "number": number},
        )
        connection.execute(text("VACUUM ANALYZE opportunities"))


@pytest.mark.parametrize(
    ("sort", "index"),
    [
        (OpportunitySort.MARGIN, "_by_margin"),
        (OpportunitySort.PROFIT, "_by_profit"),
        (OpportunitySort.ROI, "_by_roi"),
        (OpportunitySort.SCORE, "_by_score"),
        (OpportunitySort.NEWEST, "opportunities_pkey"),
    ],
    ids=str,
)
def test_each_order_goes_by_its_index_on_every_page(engine: Engine, sort: OpportunitySort, index: str) -> None:
    fill(engine, 20_000)
    query = OpportunityQuery(sort=sort, limit=20, includes_doubtful=True)
    with engine.begin() as connection:
        page = select_opportunities(connection, query)

    for one in (query, replace(query, after=page.next)):
        plan = plans(engine, lambda connection, one=one: select_opportunities(connection, one))  # type: ignore[misc]
        assert index in plan, plan
        assert "Seq Scan on opportunities" not in plan


def test_an_opportunity_that_is_not_there_is_told(engine: Engine) -> None:
    for number in (1, 2**70):
        with engine.begin() as connection, pytest.raises(OpportunityUnknown, match=f"there is no opportunity {number}"):
            find_opportunity(connection, number)


def test_totals_count_what_is_there(engine: Engine) -> None:
    run_record(engine, product([(NOW, 6000)]), product([(NOW, 9999)], marketplace=IT))
    add_opportunities(
        engine,
        opportunity(),
        opportunity(asin=asin(1), margin_pct=Decimal(20), profit=-10),
        opportunity(target=ES, profit=None),
        opportunity(target=FR, margin_pct=Decimal(900), profit=90_000, doubts=("another brand",)),
        opportunity(asin=asin(2), **OVER),
    )

    with engine.begin() as connection:
        totals = select_totals(connection)

    assert (totals.products, totals.markets) == (1, 2)
    assert (totals.open, totals.profitable, totals.doubtful, totals.unknown) == (4, 1, 1, 1)
    assert (totals.best_margin_pct, totals.best_profit_minor) == (Decimal("66.65"), 1054)
    assert [(one.source_market, one.target_market, one.opportunities, one.median_margin_pct) for one in totals.by_pair] == [
        ("DE", "IT", 2, Decimal("20.00")),
        ("DE", "ES", 1, Decimal("66.65")),
    ]


def test_totals_of_nothing_are_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        totals = select_totals(connection)

    assert (totals.products, totals.markets, totals.open, totals.best_margin_pct, totals.by_pair) == (0, 0, 0, None, ())


def test_the_generation_is_the_newest_comparison_that_is_through_and_the_users_profile(engine: Engine) -> None:
    user_id = add_user(engine)
    with engine.begin() as connection:
        assert select_generation(connection, user_id).comparison_id is None
    number = add_comparison(engine)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO comparisons (is_full, why, began_at) VALUES (true, 'runs', now())"))
        connection.execute(
            text('INSERT INTO seller_profiles (user_id, profile, revision) VALUES (:id, \'{"home": "FR"}\', 3)'), {"id": user_id}
        )
        found, without = select_generation(connection, user_id), select_generation(connection, None)

    assert (found.comparison_id, found.compared_at, found.profile, found.profile_revision) == (number, NOW, {"home": "FR"}, 3)
    assert (without.comparison_id, without.profile, without.profile_revision) == (number, None, 0)


# --- forgotten


def forget(engine: Engine, days: int) -> Maintained:
    kept = Retention(events=7, calls=90, ingested=8, dead_letters=90, sightings=90, deals=400, opportunities=days, reports=400)
    return maintain(engine, now=NOW, retention=kept)


def note_outcome(engine: Engine, number: int, *, due: int, is_scored: bool) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO opportunity_outcomes (opportunity_id, days, due_at, score, bought_minor, scored_at) "
                "VALUES (:number, 30, :due_at, 50, 6000, :scored_at)"
            ),
            {"number": number, "due_at": ago(days=due), "scored_at": ago(days=due) if is_scored else None},
        )


def test_opportunities_are_forgotten_so_long_after_their_end(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintain_verb, "_OPPORTUNITIES_AT_ONCE", 2)
    over = [opportunity(asin=asin(number), at=ago(days=90), closed_at=ago(days=31), closed_why="gap closed") for number in range(3)]
    stays = [opportunity(at=ago(days=90)), opportunity(DE, FR, at=ago(days=90), closed_at=ago(days=29), closed_why="gap closed")]
    kept = add_opportunities(engine, *over, *stays)[3:]
    assert forget(engine, 30).opportunities_forgotten == 3
    assert rows(engine, "SELECT id FROM opportunities ORDER BY id") == kept
    assert forget(engine, 30).opportunities_forgotten == 0


@pytest.mark.parametrize(
    ("due", "is_scored", "forgotten"),
    [
        pytest.param(10, True, 1, id="its outcome is known"),
        pytest.param(10, False, 0, id="its outcome is still to be looked up"),
        pytest.param(31, False, 1, id="nobody looks its outcome up"),
    ],
)
def test_an_opportunity_is_kept_until_its_outcome_is_known(engine: Engine, due: int, is_scored: bool, forgotten: int) -> None:
    [number] = add_opportunities(engine, opportunity(at=ago(days=90), closed_at=ago(days=40), closed_why="gap closed"))
    note_outcome(engine, number, due=due, is_scored=is_scored)
    assert forget(engine, 30).opportunities_forgotten == forgotten
    assert len(rows(engine, "SELECT 1 FROM opportunity_outcomes")) == 1 - forgotten
