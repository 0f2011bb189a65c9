"""The comparison of stores: what opens, changes and closes an opportunity, and what a pass looks at."""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from keeper import compare as verb
from keeper.compare import Compared, ComparisonRunning, Terms, compare
from keeper.domain.arbitrage import compute_profit
from keeper.domain.exchange import ExchangeRate, ExchangeRates
from keeper.domain.fee_category import FeeCategories, FeeCategoryRule
from keeper.domain.marketplace import Marketplace
from keeper.domain.opportunity_query import OpportunityQuery
from keeper.domain.price_type import PriceType
from keeper.domain.seller import InboundBand, SellerProfile
from keeper.domain.trade_terms import Tables, find_terms
from keeper.opportunities import Reckoning
from keeper.postgres.comparison import ColumnUnreadable
from keeper.postgres.jobs import hold_job
from keeper.postgres.opportunities import select_opportunities
from tests.integration.makers import ASIN, NOW, ago, one, product, rows, run_record
from tests.unit.domain.seed_tables import BORDERS, FEES, RATES, VAT

DE, IT, ES, FR, UK = Marketplace.DE, Marketplace.IT, Marketplace.ES, Marketplace.FR, Marketplace.UK
ROOT = 562066
OTHER_ASIN = "B000000002"
SELLER = SellerProfile("DE", frozenset({"DE"}), True, "EUR", 50, 0, Decimal(0), (InboundBand(None, None, None, 100),))
TERMS = Terms(
    seller=SELLER,
    tables=Tables(VAT, FEES, BORDERS),
    rates=RATES,
    fee_categories=FeeCategories(tuple(FeeCategoryRule(store, ROOT, "root", None, "default", "test") for store in (DE, IT, ES, FR, UK))),
)
GOLDEN = {DE: 6000, IT: 9999}


def seen(engine: Engine, prices: Mapping[Marketplace, int | None], *, asin: str = ASIN, at: Any = NOW, **facts: Any) -> None:
    """Keepa answered these prices."""
    said: dict[str, Any] = {"root_category_id": ROOT, "fba_pick_pack_minor": 420} | facts
    run_record(
        engine, *(product([(at, price)], asin=asin, marketplace=store, at=at, **said) for store, price in prices.items()), sinks=frozenset()
    )


def run(engine: Engine, terms: Terms = TERMS, *, now: Any = NOW, **options: Any) -> Compared:
    return compare(engine, now=now, terms=terms, **options)


def pull_the_plug(*_: Any, **__: Any) -> None:
    raise ConnectionError("pulled the plug")


def opportunities(engine: Engine, columns: str, *, asin: str = ASIN) -> list[Any]:
    return rows(engine, f"SELECT {columns} FROM opportunities WHERE asin = :asin ORDER BY id", asin=asin)


def test_the_golden_case_is_found_with_its_true_profit(engine: Engine) -> None:
    seen(engine, GOLDEN)
    done = run(engine)
    assert (done.opened, done.changed, done.closed, done.products, done.pairs, done.why) == (1, 0, 0, 1, 2, "the first")
    assert opportunities(
        engine, "source_market, target_market, source_minor, target_minor, margin_minor, margin_pct, profit_minor, roi_pct, category"
    ) == [("DE", "IT", 6000, 9999, 3999, Decimal("66.65"), 1054, Decimal("20.30"), "default")]


def test_a_pair_in_pounds_is_what_the_domain_says_of_it(engine: Engine) -> None:
    seen(engine, {UK: 4000, DE: 9999}, package_weight_g=400)
    run(engine)
    wanted = compute_profit(
        find_terms(UK, DE, seller=SELLER, tables=TERMS.tables, rates=RATES, on=NOW.date(), category="default", fba_minor=420, weight_g=400),
        4000,
        9999,
    )
    assert opportunities(engine, "margin_minor, margin_pct, profit_minor, invested_minor, unknown_parts, is_stale, source_currency") == [
        (
            wanted.margin_minor,
            wanted.margin_percentage,
            None,
            None,
            [part.name.value for part in wanted.unknown],
            wanted.is_stale,
            "GBP",
        )
    ]


def test_an_unknown_part_leaves_the_profit_unknown_and_names_it(engine: Engine) -> None:
    seen(engine, GOLDEN, fba_pick_pack_minor=None)
    run(engine)
    assert opportunities(engine, "profit_minor, roi_pct, unknown_parts, margin_minor") == [(None, None, ["FBA fee"], 3999)]


def test_a_second_pass_changes_nothing(engine: Engine) -> None:
    seen(engine, GOLDEN)
    run(engine)
    before = opportunities(engine, "*")
    again = run(engine, is_full=True)
    assert (again.opened, again.changed, again.closed) == (0, 0, 0)
    assert opportunities(engine, "*") == before


def test_only_what_changed_is_looked_at(engine: Engine) -> None:
    seen(engine, GOLDEN)
    seen(engine, {DE: 5000, IT: 9000}, asin=OTHER_ASIN)
    run(engine)
    seen(engine, {DE: 5500}, at=NOW + timedelta(hours=1))
    done = run(engine, now=NOW + timedelta(hours=1))
    assert (done.is_full, done.why, done.products, done.changed) == (False, "changes", 1, 1)
    assert opportunities(engine, "source_minor, margin_minor") == [(5500, 4499)]


def test_a_pass_without_changes_looks_at_nothing(engine: Engine) -> None:
    seen(engine, GOLDEN)
    run(engine)
    assert run(engine).products == 0


def test_a_price_that_was_checked_and_stayed_makes_its_opportunity_fresh(engine: Engine) -> None:
    seen(engine, GOLDEN)
    run(engine)
    later = NOW + timedelta(hours=3)
    run_record(engine, product([(NOW, 6000)], at=later, root_category_id=ROOT, fba_pick_pack_minor=420), sinks=frozenset())
    run(engine, now=later)
    assert opportunities(engine, "source_checked_at, target_checked_at") == [(later, NOW)]


@pytest.mark.parametrize(
    ("prices", "why"),
    [pytest.param({IT: 6100}, "gap closed", id="the gap"), pytest.param({IT: None}, "price gone", id="the price")],
)
def test_what_is_over_is_closed_and_says_why(engine: Engine, prices: dict[Marketplace, int | None], why: str) -> None:
    seen(engine, GOLDEN)
    run(engine)
    later = NOW + timedelta(hours=1)
    seen(engine, prices, at=later)
    assert run(engine, now=later).closed == 1
    assert opportunities(engine, "closed_at, closed_why") == [(later, why)]


def test_a_price_nobody_checks_ends_its_opportunity_by_time_alone(engine: Engine) -> None:
    seen(engine, GOLDEN)
    run(engine)
    run(engine, now=NOW + timedelta(hours=25))
    assert opportunities(engine, "is_stale, 'old price' = ANY(flags), closed_why") == [(True, True, None)]
    assert run(engine, now=NOW + timedelta(hours=26)).products == 0
    run(engine, now=NOW + timedelta(hours=73))
    assert opportunities(engine, "closed_why") == ["price too old"]


def test_each_opportunity_ages_in_its_own_time(engine: Engine) -> None:
    def old_ones() -> list[Any]:
        return rows(engine, "SELECT asin FROM opportunities WHERE 'old price' = ANY(flags) ORDER BY asin")

    def next_to_age() -> Any:
        return rows(engine, "SELECT ages_at FROM comparisons ORDER BY id DESC LIMIT 1")[0]

    seen(engine, GOLDEN)
    run(engine)
    assert next_to_age() == NOW + timedelta(hours=24)
    # One that opens later, by prices that were checked before.
    seen(engine, GOLDEN, asin=OTHER_ASIN, at=ago(hours=10))
    run(engine, now=NOW + timedelta(hours=1))
    assert next_to_age() == NOW + timedelta(hours=14)
    assert run(engine, now=NOW + timedelta(hours=13)).products == 0
    run(engine, now=NOW + timedelta(hours=14))
    assert (old_ones(), next_to_age()) == ([OTHER_ASIN], NOW + timedelta(hours=24))
    run(engine, now=NOW + timedelta(hours=24))
    assert (old_ones(), next_to_age()) == ([OTHER_ASIN, ASIN], NOW + timedelta(hours=62))
    run(engine, now=NOW + timedelta(hours=62))
    assert opportunities(engine, "closed_why", asin=OTHER_ASIN) == ["price too old"]
    assert (opportunities(engine, "closed_why"), next_to_age()) == ([None], NOW + timedelta(hours=72))


def test_prices_that_are_looked_at_again_and_stayed_open_what_time_alone_closed(engine: Engine) -> None:
    seen(engine, GOLDEN)
    run(engine)
    late = NOW + timedelta(hours=80)
    run(engine, now=late)
    for hours, store, price in ((0, DE, 6000), (1, IT, 9999)):
        at = late + timedelta(hours=hours)
        run_record(
            engine,
            product([(NOW, price)], at=at, marketplace=store, root_category_id=ROOT, fba_pick_pack_minor=420),
            sinks=frozenset(),
        )
        run(engine, now=at)
    assert opportunities(engine, "closed_why, first_seen_at") == [("price too old", NOW), (None, late + timedelta(hours=1))]


def test_a_gap_that_closed_is_not_looked_at_for_prices_that_stayed(engine: Engine) -> None:
    seen(engine, GOLDEN)
    run(engine)
    seen(engine, {IT: 6100}, at=NOW + timedelta(hours=1))
    run(engine, now=NOW + timedelta(hours=1))
    later = NOW + timedelta(hours=3)
    run_record(engine, product([(NOW, 6000)], at=later, root_category_id=ROOT, fba_pick_pack_minor=420), sinks=frozenset())
    assert run(engine, now=later).products == 0


def test_a_new_gap_is_a_new_opportunity(engine: Engine) -> None:
    for hours, price in ((0, 9999), (1, 6100), (2, 9500)):
        at = NOW + timedelta(hours=hours)
        seen(engine, {DE: 6000, IT: price}, at=at)
        run(engine, now=at)
    assert opportunities(engine, "first_seen_at, closed_why") == [(NOW, "gap closed"), (NOW + timedelta(hours=2), None)]


def test_the_best_of_its_life_is_kept(engine: Engine) -> None:
    for hours, price in ((0, 8999), (1, 9999), (2, 9500)):
        at = NOW + timedelta(hours=hours)
        seen(engine, {DE: 6000, IT: price}, at=at)
        run(engine, now=at)
    assert opportunities(engine, "first_seen_at, last_seen_at, margin_minor, best_margin_minor, best_profit_minor, best_at") == [
        (NOW, NOW + timedelta(hours=2), 3500, 3999, 1054, NOW + timedelta(hours=1))
    ]


def test_a_gap_whose_return_rises_is_news_though_its_profit_falls(engine: Engine) -> None:
    seen(engine, GOLDEN)
    run(engine)
    later = NOW + timedelta(hours=1)
    seen(engine, {DE: 2000, IT: 4900}, at=later)
    run(engine, now=later)
    [(profit_minor, roi_pct, best_at, became_at)] = opportunities(engine, "profit_minor, roi_pct, best_at, became_at")
    assert profit_minor < 1054 and roi_pct > Decimal("20.30")
    assert (best_at, became_at) == (NOW, later)


def test_a_gap_that_falls_and_rises_again_is_news_though_it_was_better_before(engine: Engine) -> None:
    became = []
    for hours, price in ((0, 9999), (1, 9200), (2, 9900), (3, 9900)):
        at = NOW + timedelta(hours=hours)
        seen(engine, {DE: 6000, IT: price}, at=at)
        run(engine, now=at)
        became += opportunities(engine, "became_at")
    assert became == [NOW, NOW, NOW + timedelta(hours=2), NOW + timedelta(hours=2)]


def test_a_gap_that_is_fresh_again_is_news(engine: Engine) -> None:
    seen(engine, GOLDEN)
    run(engine)
    for hours in (25, 49):
        run(engine, now=NOW + timedelta(hours=hours))
    later = NOW + timedelta(hours=50)
    seen(engine, GOLDEN, at=later)
    run(engine, now=later)
    assert opportunities(engine, "is_stale, best_at, became_at") == [(False, NOW, later)]


def test_a_gap_whose_doubts_clear_is_news(engine: Engine) -> None:
    seen(engine, {DE: 6000}, eans=("4005176894879",))
    seen(engine, {IT: 9999}, eans=("4005176894886",))
    run(engine)
    later = NOW + timedelta(hours=1)
    seen(engine, {IT: 9999}, eans=("4005176894879",), at=later)
    run(engine, now=later)
    assert opportunities(engine, "cardinality(doubts), became_at") == [(0, later)]


def test_a_gap_whose_profit_becomes_known_is_news(engine: Engine) -> None:
    seen(engine, GOLDEN, fba_pick_pack_minor=None)
    run(engine)
    before = opportunities(engine, "profit_minor, became_at")
    later = NOW + timedelta(hours=1)
    seen(engine, GOLDEN, at=later)
    run(engine, now=later)
    assert (before, opportunities(engine, "profit_minor, became_at")) == ([(None, NOW)], [(1054, later)])


def test_the_pairs_of_other_currencies_stay_as_they_are_where_a_rate_moves(engine: Engine) -> None:
    seen(engine, GOLDEN)
    run(engine)
    before = opportunities(engine, "*")
    done = run(engine, replace(TERMS, rates=ExchangeRates((ExchangeRate("GBP", Decimal("0.9"), date(2026, 5, 9), "test"),))))
    assert (done.opened, done.changed, done.closed) == (0, 0, 0)
    assert opportunities(engine, "*") == before


def test_other_exchange_rates_reckon_the_pairs_of_their_currency_anew(engine: Engine) -> None:
    seen(engine, {DE: 6000, IT: 9999, UK: 9999})
    run(engine)
    before = opportunities(engine, "target_market, margin_minor")
    done = run(engine, replace(TERMS, rates=ExchangeRates((*RATES.rates, ExchangeRate("GBP", Decimal("0.9"), date(2026, 5, 9), "test")))))
    assert (done.why, done.is_full) == ("exchange rates", True)
    after = sorted(opportunities(engine, "target_market, margin_minor"))
    assert [pair for pair in after if pair not in before] == [("UK", 11110 - 9999), ("UK", 11110 - 6000)]
    assert done.closed == 0


def test_another_seller_reckons_open_opportunities_anew_and_no_other_product(engine: Engine) -> None:
    seen(engine, GOLDEN)
    seen(engine, {DE: 5000, IT: 5100}, asin=OTHER_ASIN)
    run(engine)
    done = run(engine, replace(TERMS, seller=replace(SELLER, preparation_minor=150)))
    assert (done.why, done.products, done.changed) == ("fees or the seller", 1, 1)
    assert opportunities(engine, "profit_minor") == [954]


def test_a_lower_least_margin_looks_at_every_product(engine: Engine) -> None:
    seen(engine, {DE: 6000, IT: 6500})
    assert run(engine).opened == 0
    done = run(engine, replace(TERMS, least_margin_pct=Decimal(5)))
    assert (done.why, done.opened) == ("other settings", 1)


def test_stores_that_are_no_longer_compared_end_their_opportunities(engine: Engine) -> None:
    seen(engine, GOLDEN)
    run(engine)
    run(engine, replace(TERMS, stores=(DE, ES)))
    assert opportunities(engine, "closed_why") == ["no longer compared"]


def test_another_price_basis_is_compared(engine: Engine) -> None:
    answered = [
        product({PriceType.NEW: [(NOW, 6000)], PriceType.BUY_BOX_SHIPPING: [(NOW, price)]}, marketplace=store)
        for store, price in ((DE, 7000), (IT, 9000))
    ]
    run_record(engine, *answered, sinks=frozenset())
    run(engine, replace(TERMS, price_type=PriceType.BUY_BOX_SHIPPING))
    assert opportunities(engine, "price_type, source_minor, target_minor") == [("BUY_BOX_SHIPPING", 7000, 9000)]


def test_what_speaks_against_one_article_is_a_doubt(engine: Engine) -> None:
    answered = [
        product([(NOW, price)], marketplace=store, eans=(code,), brand="Bosch", package_quantity=1)
        for store, price, code in ((DE, 6000, "4005176894879"), (IT, 9999, "4005176894886"))
    ]
    run_record(engine, *answered, sinks=frozenset())
    run(engine)
    assert opportunities(engine, "doubts") == [["no EAN in common"]]


def test_facts_that_change_take_a_doubt_back(engine: Engine) -> None:
    seen(engine, {DE: 6000}, eans=("4005176894879",))
    seen(engine, {IT: 9999}, eans=("4005176894886",))
    run(engine)
    seen(engine, {IT: 9999}, eans=("4005176894879",), at=NOW + timedelta(hours=1))
    run(engine, now=NOW + timedelta(hours=1))
    assert opportunities(engine, "doubts") == [[]]


def test_flags_and_score_come_from_both_listings(engine: Engine) -> None:
    seen(engine, GOLDEN)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE products SET sales_rank_drops_30 = 60, offer_count = 1, buy_box_is_amazon = true WHERE marketplace = 'IT'")
        )
        connection.execute(
            text("UPDATE products SET is_hazardous = true, coupon_pct = 5, availability = 'in_stock' WHERE marketplace = 'DE'")
        )
    run(engine)
    [(flags, score, parts)] = opportunities(engine, "flags, score, score_parts")
    assert flags == ["sells fast", "Amazon sells it", "hazardous", "coupon", "stock unknown"]
    assert parts == {"profit": 16, "velocity": 25, "competition": 9, "safety": 0, "certainty": 6}
    assert score == sum(parts.values())


def amazon_asks(engine: Engine, store: Marketplace, price: int | None, *, at: Any = NOW) -> None:
    """Keepa answered this price of Amazon's own offer."""
    said: dict[str, Any] = {"root_category_id": ROOT, "fba_pick_pack_minor": 420}
    run_record(engine, product({PriceType.AMAZON: [(at, price)]}, marketplace=store, at=at, **said), sinks=frozenset())


@pytest.mark.parametrize(
    ("price", "is_told", "points"),
    [
        pytest.param(9999, True, 0, id="the compared price"),
        pytest.param(9000, True, 0, id="less"),
        pytest.param(11000, False, 0, id="more: the buy box may be Amazon's all the same"),
        pytest.param(None, False, 6, id="no offer"),
    ],
)
def test_amazon_is_a_seller_by_its_own_price_where_nobody_asked_for_the_buy_box(
    engine: Engine, price: int | None, is_told: bool, points: int
) -> None:
    seen(engine, GOLDEN)
    amazon_asks(engine, IT, price)
    run(engine)
    assert opportunities(engine, "'Amazon sells it' = ANY(flags), (score_parts->>'competition')::int") == [(is_told, points)]


def test_a_price_of_amazons_that_nobody_checks_tells_nothing(engine: Engine) -> None:
    amazon_asks(engine, IT, 9999, at=ago(hours=80))
    seen(engine, GOLDEN)
    run(engine)
    assert opportunities(engine, "'Amazon sells it' = ANY(flags)") == [False]


def test_amazon_as_a_new_seller_is_told_by_the_next_pass(engine: Engine) -> None:
    seen(engine, GOLDEN)
    run(engine)
    later = NOW + timedelta(hours=1)
    amazon_asks(engine, IT, 9999, at=later)
    run(engine, now=later)
    assert opportunities(engine, "'Amazon sells it' = ANY(flags)") == [True]


@pytest.mark.parametrize(
    ("price_type", "amazon", "box_is_amazon", "is_known"),
    [
        pytest.param(PriceType.NEW, 6000, None, True, id="the price is Amazon's own"),
        pytest.param(PriceType.NEW, 6500, None, False, id="Amazon asks more"),
        pytest.param(PriceType.NEW, None, True, False, id="the buy box is not what is compared"),
        pytest.param(PriceType.BUY_BOX_SHIPPING, None, True, True, id="the buy box is Amazon's"),
        pytest.param(PriceType.BUY_BOX_SHIPPING, None, False, False, id="the buy box is another's"),
    ],
)
def test_the_stock_is_known_of_amazons_own_offer_only(
    engine: Engine, price_type: PriceType, amazon: int | None, box_is_amazon: bool | None, is_known: bool
) -> None:
    for store, price in GOLDEN.items():
        said: dict[str, Any] = {"root_category_id": ROOT, "fba_pick_pack_minor": 420}
        run_record(engine, product({price_type: [(NOW, price)]}, marketplace=store, **said), sinks=frozenset())
    if amazon is not None:
        amazon_asks(engine, DE, amazon)
    with engine.begin() as connection:
        connection.execute(text("UPDATE products SET availability = 'in_stock', buy_box_is_amazon = :is_so"), {"is_so": box_is_amazon})
    run(engine, replace(TERMS, price_type=price_type))
    assert opportunities(engine, "'stock unknown' = ANY(flags), (score_parts->>'certainty')::int") == [
        (not is_known, 10 if is_known else 6)
    ]


def test_the_category_is_that_of_the_store_that_sells_or_of_one_that_knows_it(engine: Engine) -> None:
    rules = (FeeCategoryRule(DE, ROOT, "root", None, "electronics", "test"), FeeCategoryRule(ES, 7, "root", None, "default", "test"))
    seen(engine, {DE: 6000})
    seen(engine, {IT: 9999, ES: 9999}, root_category_id=7)
    run(engine, replace(TERMS, fee_categories=FeeCategories(rules)))
    assert dict(opportunities(engine, "target_market, category")) == {"IT": "electronics", "ES": "default"}


def test_the_weight_is_that_of_the_other_listing_where_the_one_that_sells_says_none(engine: Engine) -> None:
    seller = replace(SELLER, inbound=(InboundBand(None, None, 500, 100), InboundBand(None, None, None, 900)))
    seen(engine, {DE: 6000}, package_weight_g=400)
    seen(engine, {IT: 9999})
    run(engine, replace(TERMS, seller=seller))
    assert opportunities(engine, "profit_minor") == [1054]


def test_a_path_of_categories_is_asked_for(engine: Engine) -> None:
    rules = (
        FeeCategoryRule(IT, ROOT, "Computer", None, "computers", "test"),
        FeeCategoryRule(IT, ROOT, "Computer", "Tastiere", "computer_accessories", "test"),
    )
    seen(engine, {DE: 6000}, root_category_id=None)
    seen(engine, {IT: 9999}, category_path=("Computer", "Tastiere"))
    run(engine, replace(TERMS, fee_categories=FeeCategories(rules)))
    assert opportunities(engine, "category") == ["computer_accessories"]


def test_the_share_keepa_states_is_used_where_no_category_is_known(engine: Engine) -> None:
    seen(engine, GOLDEN, root_category_id=None, referral_fee_pct=7.21)
    run(engine)
    assert opportunities(engine, "category, unknown_parts") == [
        (None, ["output VAT", "closing fee", "digital services fee on selling", "purchase VAT reclaimed"])
    ]


def test_what_is_stored_is_what_its_explanation_says(engine: Engine) -> None:
    bands = (InboundBand(None, None, 500, 120), InboundBand(DE, None, None, 300), InboundBand(None, UK, 2000, 900))
    terms = replace(TERMS, seller=replace(SELLER, inbound=bands, return_allowance_pct=Decimal("2.5")))
    chance = random.Random(7)
    for number in range(40):
        for store in TERMS.stores:
            seen(
                engine,
                {store: chance.randint(1500, 9000)},
                asin=f"B{number:09d}",
                root_category_id=chance.choice([ROOT, None]),
                fba_pick_pack_minor=chance.choice([None, 305, 511]),
                package_weight_g=chance.choice([None, 400, 1500]),
                referral_fee_pct=chance.choice([None, 15.0, 7.21]),
            )
    run(engine, terms)
    reckoning = Reckoning(terms.seller, terms.tables, terms.rates, NOW.date())
    with engine.begin() as connection:
        page = select_opportunities(connection, OpportunityQuery(includes_doubtful=True, limit=100))
    assert len(page.found) == 100
    for found in page.found:
        profit, stored = reckoning.compute_profit(found), found.opportunity
        assert (stored.profit_minor, stored.invested_minor, stored.roi_pct) == (profit.profit_minor, profit.invested_minor, profit.roi_pct)
        assert stored.unknown_parts == tuple(part.name.value for part in profit.unknown)


def test_many_products_are_compared_in_chunks(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(verb, "PRODUCTS_AT_ONCE", 3)
    for number in range(10):
        seen(engine, GOLDEN | {FR: 6000}, asin=f"B{number:09d}")
    done = run(engine)
    assert (done.products, done.pairs, done.opened) == (10, 60, 20)
    for number in range(10):
        seen(engine, {DE: 9999}, asin=f"B{number:09d}", at=NOW + timedelta(hours=1))
    done = run(engine, now=NOW + timedelta(hours=1))
    assert (done.products, done.closed, done.opened) == (10, 10, 10)


def test_who_wants_to_know_is_told_what_changed_in_the_same_transaction(engine: Engine) -> None:
    told: list[Sequence[str]] = []
    seen(engine, GOLDEN)

    def keep(connection: Connection, asins: Sequence[str]) -> None:
        assert connection.execute(text("SELECT count(*) FROM opportunities")).scalar_one() == 1
        told.append(asins)

    run(engine, on_changed=keep)
    run(engine, is_full=True, on_changed=keep)
    assert told == [(ASIN,)]


def test_a_pass_that_breaks_off_is_done_by_the_next(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "ROWS_AT_ONCE", 3)
    for number in range(6):
        seen(engine, GOLDEN, asin=f"B{number:09d}")

    def break_off(connection: Connection, asins: Collection[str]) -> None:
        if "B000000003" in asins:
            raise ConnectionError("pulled the plug")

    with pytest.raises(ConnectionError):
        run(engine, on_changed=break_off)
    assert one(engine, "SELECT count(*) FROM opportunities") == 3
    assert run(engine).why == "the first"
    assert rows(engine, "SELECT asin FROM opportunities ORDER BY asin") == [f"B{number:09d}" for number in range(6)]


def test_changes_of_a_pass_that_breaks_off_stay_on_the_list(engine: Engine) -> None:
    run(engine)
    seen(engine, GOLDEN)

    def break_off(connection: Connection, asins: Collection[str]) -> None:
        raise ConnectionError("pulled the plug")

    with pytest.raises(ConnectionError):
        run(engine, on_changed=break_off)
    assert run(engine).opened == 1


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(TERMS, seller=replace(SELLER, preparation_minor=2000)), id="seller"),
        pytest.param(replace(TERMS, least_margin_pct=Decimal(70)), id="setting"),
        pytest.param(replace(TERMS, rates=ExchangeRates((ExchangeRate("GBP", Decimal("0.9"), date(2026, 5, 9), "test"),))), id="rate"),
    ],
)
def test_what_a_killed_pass_reckoned_with_other_terms_is_reckoned_anew(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, other: Terms
) -> None:
    seen(engine, GOLDEN)
    seen(engine, {UK: 6000, DE: 9999}, asin=OTHER_ASIN)
    run(engine)
    columns = "asin, source_market, target_market, margin_minor, profit_minor, closed_at IS NULL"
    before = rows(engine, f"SELECT {columns} FROM opportunities WHERE closed_at IS NULL ORDER BY asin, source_market")
    with monkeypatch.context() as patched, pytest.raises(ConnectionError):
        patched.setattr("keeper.postgres.comparison.finish_comparison", pull_the_plug)
        run(engine, other)
    assert rows(engine, f"SELECT {columns} FROM opportunities WHERE closed_at IS NULL ORDER BY asin, source_market") != before
    run(engine)
    assert rows(engine, f"SELECT {columns} FROM opportunities WHERE closed_at IS NULL ORDER BY asin, source_market") == before
    assert run(engine).why == "changes"


def test_a_killed_pass_that_did_not_say_what_it_reckoned_with_leaves_every_product_to_the_next(engine: Engine) -> None:
    run(engine)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO comparisons (is_full, why, began_at) VALUES (false, 'changes', :now)"), {"now": NOW})
    assert run(engine).is_full


def test_a_second_comparison_beside_one_is_refused(engine: Engine) -> None:
    with hold_job(engine, verb.JOB), pytest.raises(ComparisonRunning, match="being compared already"):
        run(engine)


def test_each_pass_is_numbered_and_says_what_it_did(engine: Engine) -> None:
    seen(engine, GOLDEN)
    first, second = run(engine), run(engine)
    assert second.id > first.id
    assert one(engine, "SELECT opened, is_full, why, ended_at FROM comparisons WHERE id = :id", id=first.id) == (1, True, "the first", NOW)


def test_an_asin_of_another_length_is_told_and_not_misread(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO current_prices SELECT unnest(ARRAY['B0', :asin]), 'DE', 'NEW', 100, 'EUR', :now, :now"),
            {"now": NOW, "asin": ASIN},
        )
    with pytest.raises(ColumnUnreadable, match="ten letters"):
        run(engine)


def test_a_price_checked_long_ago_opens_nothing(engine: Engine) -> None:
    seen(engine, GOLDEN, at=ago(hours=80))
    assert run(engine).opened == 0
