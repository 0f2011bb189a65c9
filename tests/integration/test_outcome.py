"""What became of opportunities: noted when they open, scored when their day has come."""

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from keeper.domain.arbitrage import compute_profit
from keeper.domain.exchange import ExchangeRate, ExchangeRates
from keeper.domain.marketplace import Marketplace
from keeper.domain.outcome import BANDS
from keeper.domain.trade_terms import find_terms
from keeper.outcome import OutcomesScored, score_outcomes
from keeper.postgres.exchange_rates import insert_seeds
from keeper.postgres.outcomes import select_due_outcomes, select_outcome_bands
from tests.integration.makers import ASIN, NOW, plans, rows
from tests.integration.opportunities import add_opportunities, opportunity
from tests.integration.test_compare import GOLDEN, OTHER_ASIN, SELLER, TERMS, run, seen

DE, IT, UK = Marketplace.DE, Marketplace.IT, Marketplace.UK
DAY = timedelta(days=1)


def outcomes(engine: Engine, columns: str, *, days: int = 1) -> list[Any]:
    return rows(engine, f"SELECT {columns} FROM opportunity_outcomes WHERE days = :days ORDER BY opportunity_id", days=days)


def score(engine: Engine, now: datetime, **options: Any) -> OutcomesScored:
    return score_outcomes(engine, now=now, terms=TERMS, **options)


def found_then(engine: Engine) -> None:
    """The golden case is found and noted."""
    seen(engine, GOLDEN)
    run(engine)
    score(engine, NOW)


def test_an_opportunity_is_noted_with_what_it_said(engine: Engine) -> None:
    seen(engine, GOLDEN)
    run(engine)
    assert score(engine, NOW) == OutcomesScored(noted=1)
    said = rows(engine, "SELECT score FROM opportunities")
    assert rows(engine, "SELECT days, due_at, score, bought_minor, promised_minor, scored_at FROM opportunity_outcomes ORDER BY days") == [
        (days, NOW + days * DAY, said[0], 6000, 1054, None) for days in (1, 7, 30)
    ]


def test_without_an_exchange_rate_of_that_day_nothing_is_known(engine: Engine) -> None:
    add_opportunities(engine, opportunity(UK, DE, source_minor=4000, target_minor=9999, profit=None))
    score(engine, NOW)
    seen(engine, {UK: 4000, DE: 9999}, at=NOW + DAY)
    assert score(engine, NOW + DAY) == OutcomesScored(scored=1, unknown=1)


def test_a_gap_that_is_still_there_after_a_day_has_lasted_and_earned_its_profit(engine: Engine) -> None:
    found_then(engine)
    seen(engine, GOLDEN, at=NOW + DAY)
    assert score(engine, NOW + DAY) == OutcomesScored(scored=1, lasted=1)
    assert outcomes(engine, "source_minor, target_minor, margin_minor, has_lasted, profit_minor, earned_minor, scored_at") == [
        (6000, 9999, 3999, True, 1054, 1054, NOW + DAY)
    ]


def test_who_bought_when_it_opened_earns_the_price_of_the_day(engine: Engine) -> None:
    found_then(engine)
    seen(engine, {DE: 9000, IT: 8500}, at=NOW + DAY)
    score(engine, NOW + DAY)

    def profit(purchase: int) -> int | None:
        terms = find_terms(
            DE, IT, seller=SELLER, tables=TERMS.tables, rates=TERMS.rates, on=(NOW + DAY).date(), category="default", fba_minor=420
        )
        return compute_profit(terms, purchase, 8500).profit_minor

    assert outcomes(engine, "has_lasted, margin_minor, profit_minor, earned_minor") == [(False, -500, profit(9000), profit(6000))]


def test_a_pair_in_pounds_is_reckoned_with_the_rate_of_the_day(engine: Engine) -> None:
    day = (NOW + DAY).date()
    rates = ExchangeRates((ExchangeRate("GBP", Decimal("0.8"), day, "test"), ExchangeRate("GBP", Decimal("0.5"), day + DAY, "test")))
    with engine.begin() as connection:
        insert_seeds(connection, rates.rates)
    add_opportunities(engine, opportunity(UK, DE, source_minor=4000, target_minor=9999, profit=None))
    score(engine, NOW)
    seen(engine, {UK: 4000, DE: 9999}, at=NOW + DAY, package_weight_g=400)
    score(engine, NOW + 5 * DAY)
    terms = find_terms(
        UK, DE, seller=SELLER, tables=TERMS.tables, rates=rates, on=day, category="default", fba_minor=420, weight_g=400
    )  # fmt: skip
    wanted = compute_profit(terms, 4000, 9999)
    assert outcomes(engine, "margin_minor, has_lasted, profit_minor") == [(4999, True, wanted.profit_minor)]
    assert wanted.margin_minor == 4999


@pytest.mark.parametrize(
    ("margin", "has_lasted"), [pytest.param(6600, False, id="exactly the least"), pytest.param(6601, True, id="a cent more")]
)
def test_a_gap_lasts_while_it_is_above_the_least_margin(engine: Engine, margin: int, has_lasted: bool) -> None:
    found_then(engine)
    seen(engine, {DE: 6000, IT: margin}, at=NOW + DAY)
    score(engine, NOW + DAY)
    assert outcomes(engine, "has_lasted") == [has_lasted]


def test_a_price_of_later_does_not_count(engine: Engine) -> None:
    found_then(engine)
    seen(engine, {DE: 6000, IT: 6000}, at=NOW + DAY + timedelta(hours=1))
    score(engine, NOW + 2 * DAY)
    assert outcomes(engine, "target_minor, has_lasted") == [(9999, True)]


def test_an_offer_that_is_gone_is_a_gap_that_is_over(engine: Engine) -> None:
    found_then(engine)
    seen(engine, {DE: None, IT: 9999}, at=NOW + DAY)
    score(engine, NOW + DAY)
    assert outcomes(engine, "source_minor, has_lasted, profit_minor, earned_minor") == [(None, False, None, 1054)]


def test_what_nobody_has_looked_at_is_waited_for_and_then_counts_while_a_price_counts(engine: Engine) -> None:
    found_then(engine)
    assert score(engine, NOW + DAY).scored == 0
    assert score(engine, NOW + 4 * DAY) == OutcomesScored(scored=1, lasted=1)


def test_what_nobody_has_looked_at_for_longer_is_unknown(engine: Engine) -> None:
    found_then(engine)
    score(engine, NOW + 10 * DAY)
    assert outcomes(engine, "has_lasted, source_minor, profit_minor, earned_minor, scored_at IS NULL", days=7) == [
        (None, None, None, None, False)
    ]


def test_an_unknown_part_leaves_the_profit_unknown_and_the_gap_known(engine: Engine) -> None:
    add_opportunities(engine, opportunity(profit=None))
    score(engine, NOW)
    seen(engine, GOLDEN, at=NOW + DAY, fba_pick_pack_minor=None)
    score(engine, NOW + DAY)
    assert outcomes(engine, "has_lasted, margin_minor, profit_minor, earned_minor") == [(True, 3999, None, None)]


def test_a_second_run_finds_nothing_to_do(engine: Engine) -> None:
    found_then(engine)
    seen(engine, {DE: 9000, IT: 8500}, at=NOW + DAY)
    score(engine, NOW + DAY)
    before = outcomes(engine, "*")
    assert score(engine, NOW + DAY) == OutcomesScored()
    assert outcomes(engine, "*") == before


def test_a_run_is_bounded_and_the_next_goes_on(engine: Engine) -> None:
    add_opportunities(engine, *(opportunity(asin=f"B00000000{number}") for number in range(5)))
    assert [score(engine, NOW, most_noted=2).noted for _ in range(4)] == [2, 2, 1, 0]
    assert [score(engine, NOW + 5 * DAY, most_scored=3).scored for _ in range(3)] == [3, 2, 0]


def test_what_may_not_be_the_same_article_is_not_counted(engine: Engine) -> None:
    add_opportunities(engine, opportunity(doubts=["EANs differ"]), opportunity(DE, Marketplace.FR))
    assert score(engine, NOW).noted == 1


def test_the_score_of_the_beginning_counts_whatever_it_becomes(engine: Engine) -> None:
    add_opportunities(engine, opportunity(score=85))
    score(engine, NOW)
    with engine.begin() as connection:
        connection.execute(text("UPDATE opportunities SET score = 10"))
    with engine.begin() as connection:
        bands = select_outcome_bands(connection)
    assert [(band.least_score, band.most_score, band.opportunities) for band in bands] == [
        (80, 100, 1), (60, 79, 0), (40, 59, 0), (20, 39, 0), (0, 19, 0),
    ]  # fmt: skip


def test_bands_tell_the_share_that_lasted_and_the_median_earned(engine: Engine) -> None:
    add_opportunities(engine, *(opportunity(asin=asin, score=100) for asin in (ASIN, OTHER_ASIN, "B000000003")))
    score(engine, NOW)
    for asin, price in ((ASIN, 9999), (OTHER_ASIN, 9999), ("B000000003", 6000)):
        seen(engine, {DE: 6000, IT: price}, asin=asin, at=NOW + DAY)
    score(engine, NOW + DAY)
    with engine.begin() as connection:
        best = select_outcome_bands(connection)[0]
    after_a_day = best.horizons[0]
    assert (best.opportunities, after_a_day.known, after_a_day.lasted, after_a_day.lasted_pct) == (3, 3, 2, 66.67)
    assert (after_a_day.median_promised_minor, after_a_day.median_earned_minor) == (1054, 1054)
    assert [(one.known, one.lasted_pct) for one in best.horizons[1:]] == [(0, None), (0, None)]


def test_bands_of_later_opportunities_only(engine: Engine) -> None:
    add_opportunities(engine, opportunity(), opportunity(asin=OTHER_ASIN, at=NOW + DAY))
    score(engine, NOW + DAY)
    with engine.begin() as connection:
        assert sum(band.opportunities for band in select_outcome_bands(connection, since=NOW + DAY)) == 1


def test_without_opportunities_every_band_is_there_and_empty(engine: Engine) -> None:
    with engine.begin() as connection:
        assert [band.opportunities for band in select_outcome_bands(connection)] == [0] * BANDS


def test_what_is_due_is_found_by_its_index(engine: Engine) -> None:
    add_opportunities(engine, *(opportunity(asin=f"B{number:09}") for number in range(300)))
    score(engine, NOW)

    def ask(connection: Connection) -> None:
        connection.execute(text("ANALYZE opportunity_outcomes"))
        connection.execute(text("ANALYZE opportunities"))
        select_due_outcomes(connection, now=NOW + timedelta(hours=1), price_ends_after=TERMS.price_ends_after, limit=100)

    assert "opportunity_outcomes_due" in plans(engine, ask)


def test_outcomes_go_with_their_opportunity(engine: Engine) -> None:
    found_then(engine)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM opportunities"))
    assert outcomes(engine, "days") == []


def test_the_least_margin_may_be_a_fraction(engine: Engine) -> None:
    found_then(engine)
    seen(engine, {DE: 6000, IT: 6635}, at=NOW + DAY)
    score_outcomes(engine, now=NOW + DAY, terms=replace(TERMS, least_margin_pct=Decimal("10.58")))
    assert outcomes(engine, "has_lasted") == [True]
