"""The verb `record` on a real database: what becomes history, current price, event, and what changes nothing."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from keeper.domain.events import Sink, price_event_id
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.domain.product import Availability, Product, ProductKind, ReturnRate
from keeper.postgres.outbox import listen, wait_for_notice
from keeper.record import LARGEST_BATCH, record
from tests.integration.makers import (
    ALL_SINKS,
    ASIN,
    NOW,
    Points,
    add_user,
    add_watch,
    ago,
    everything,
    history,
    one,
    price_events,
    product,
    rows,
    run_record,
)

CURRENT = "SELECT amount_minor, observed_at FROM current_prices WHERE price_type = 'NEW'"


def test_the_first_check_backfills_the_history_it_got(engine: Engine) -> None:
    points: Points = [(ago(days=360), 5000), (ago(days=90), None), (ago(days=30), 4500), (ago(hours=5), 4400)]
    run_record(engine, product(points))
    assert history(engine) == points


def test_without_a_watch_there_is_no_event(engine: Engine) -> None:
    run_record(engine, product([(ago(days=3), 5000), (ago(hours=1), 4000)]))
    assert rows(engine, "SELECT * FROM events") == []


def test_the_first_current_price_of_a_watched_type_is_an_event_and_the_backfill_is_none(engine: Engine) -> None:
    add_watch(engine, add_user(engine))
    run_record(engine, product([(ago(days=30), 5000), (ago(days=3), 4600), (ago(hours=1), 4000)]))
    assert [(event["current_price"], event["previous_price"]) for event in price_events(engine)] == [(40.0, 46.0)]


def test_only_the_watched_type_makes_an_event(engine: Engine) -> None:
    add_watch(engine, add_user(engine), price_type=PriceType.AMAZON)
    run_record(engine, product({PriceType.NEW: [(ago(days=1), 5000)], PriceType.AMAZON: [(ago(days=2), 6000)]}))
    assert [event["price_type"] for event in price_events(engine)] == ["AMAZON"]


def test_a_removed_watch_makes_no_event(engine: Engine) -> None:
    add_watch(engine, add_user(engine))
    with engine.begin() as connection:
        connection.execute(text("UPDATE watched_products SET is_active = false"))
    run_record(engine, product([(ago(days=1), 5000)]))
    assert price_events(engine) == []


def test_an_unchanged_price_adds_no_row_and_moves_the_time_of_the_check(engine: Engine) -> None:
    add_watch(engine, add_user(engine))
    run_record(engine, product([(ago(days=1), 5000)]))
    before = everything(engine)
    done = run_record(engine, product([(ago(days=1), 5000)], at=NOW + timedelta(hours=6)))
    after = everything(engine)
    assert (done.changes, done.events) == (0, 0)
    assert [table for table in after if after[table] != before[table]] == ["products", "current_prices", "planned_checks"]
    assert one(engine, "SELECT checked_at FROM current_prices") == NOW + timedelta(hours=6)


def test_a_changed_price_adds_a_point_an_event_and_a_row_for_each_active_sink(engine: Engine) -> None:
    add_watch(engine, add_user(engine))
    run_record(engine, product([(ago(days=1), 5000)]), sinks=frozenset())
    run_record(engine, product([(ago(days=1), 5000), (NOW, 4500)], at=NOW), sinks=frozenset({Sink.KAFKA, Sink.SEARCH, Sink.NOTIFY}))
    assert history(engine) == [(ago(days=1), 5000), (NOW, 4500)]
    assert one(engine, CURRENT) == (4500, NOW)
    assert [event["current_price"] for event in price_events(engine)] == [50.0, 45.0]
    outbox = rows(
        engine,
        "SELECT o.sink, o.key, e.payload->>'current_price' FROM outbox o "
        "JOIN events e ON e.recorded_on = o.event_on AND e.seq = o.event_seq ORDER BY 1",
    )
    assert outbox == [("kafka", ASIN, "45.00"), ("search", ASIN, "45.00")]


def test_of_several_changes_between_two_checks_only_the_newest_is_an_event(engine: Engine) -> None:
    add_watch(engine, add_user(engine))
    known = [(ago(days=1), 5000)]
    run_record(engine, product(known, at=ago(hours=6)))
    between = [(ago(hours=5), 4000), (ago(hours=3), 4800), (ago(hours=1), 4600)]
    run_record(engine, product(known + between))
    assert history(engine) == known + between
    assert [(event["previous_price"], event["current_price"]) for event in price_events(engine)][1:] == [(48.0, 46.0)]


def test_a_change_away_and_back_between_two_checks_is_an_event_with_the_price_before_it(engine: Engine) -> None:
    add_watch(engine, add_user(engine))
    known = [(ago(days=1), 5000)]
    run_record(engine, product(known, at=ago(hours=6)))
    run_record(engine, product([*known, (ago(hours=4), 3900), (ago(hours=2), 5000)]))
    assert [(event["previous_price"], event["current_price"]) for event in price_events(engine)][1:] == [(39.0, 50.0)]
    assert one(engine, CURRENT) == (5000, ago(hours=2))


def test_a_change_away_and_back_without_an_entry_of_its_own_is_recorded_at_the_last_update(engine: Engine) -> None:
    known = [(ago(days=1), 5000)]
    run_record(engine, product(known, at=ago(hours=6)))
    run_record(engine, product([*known, (ago(hours=4), 3900)], current=5000, updated_at=ago(hours=1)))
    assert history(engine) == [*known, (ago(hours=4), 3900), (ago(hours=1), 5000)]
    assert one(engine, CURRENT) == (5000, ago(hours=1))


def test_a_repeated_value_in_keepas_history_hides_no_change(engine: Engine) -> None:
    add_watch(engine, add_user(engine))
    run_record(engine, product([(ago(days=1), 5000)], at=ago(hours=6)))
    run_record(engine, product([(ago(days=1), 5000), (ago(hours=4), 4500), (ago(hours=2), 4500)]))
    assert one(engine, CURRENT) == (4500, ago(hours=4))
    assert history(engine) == [(ago(days=1), 5000), (ago(hours=4), 4500)]


def test_a_repeated_value_is_one_change_point(engine: Engine) -> None:
    run_record(engine, product([(ago(days=9), 5000), (ago(days=8), 5000), (ago(days=7), None), (ago(days=6), None), (ago(days=5), 4500)]))
    assert history(engine) == [(ago(days=9), 5000), (ago(days=7), None), (ago(days=5), 4500)]


@pytest.mark.parametrize(
    ("updated_at", "expected"),
    [
        pytest.param(ago(hours=1), ago(hours=1), id="at the last update"),
        pytest.param(NOW + timedelta(hours=1), NOW, id="never after the answer"),
        pytest.param(None, NOW, id="at the answer where Keepa does not say"),
        pytest.param(ago(days=9), ago(days=1) + timedelta(minutes=1), id="after the last entry"),
    ],
)
def test_a_changed_value_without_an_entry_gets_a_time(engine: Engine, updated_at: datetime | None, expected: datetime) -> None:
    run_record(engine, product([(ago(days=1), 5000)], at=ago(hours=12)))
    run_record(engine, product([(ago(days=1), 5000)], current=4500, updated_at=updated_at))
    assert one(engine, CURRENT) == (4500, expected)


def test_a_value_without_any_history_gets_the_last_update(engine: Engine) -> None:
    run_record(engine, product(current=4500, updated_at=ago(hours=2)))
    assert history(engine) == [(ago(hours=2), 4500)]


def test_a_value_still_without_an_entry_is_no_second_change(engine: Engine) -> None:
    for hours in (12, 6, 0):
        run_record(engine, product([(ago(days=1), 5000)], current=4500, at=ago(hours=hours)))
    assert history(engine) == [(ago(days=1), 5000), (ago(hours=12), 4500)]


def test_an_announced_lightning_deal_is_not_believed(engine: Engine) -> None:
    points = {PriceType.LIGHTNING_DEAL: [(ago(days=2), None), (NOW + timedelta(hours=3), 2999)]}
    run_record(engine, product(points))
    assert history(engine, PriceType.LIGHTNING_DEAL) == [(ago(days=2), None)]


def test_a_series_wholly_in_the_future_is_no_price(engine: Engine) -> None:
    run_record(engine, product({PriceType.LIGHTNING_DEAL: [(NOW + timedelta(hours=3), 2999)]}))
    assert rows(engine, "SELECT * FROM current_prices") == []


@pytest.mark.parametrize("kind", [ProductKind.INACCESSIBLE, ProductKind.INVALID, ProductKind.VARIATION_PARENT])
def test_a_product_that_cannot_have_a_price_leaves_none_and_tells_the_watch(engine: Engine, kind: ProductKind) -> None:
    add_watch(engine, add_user(engine), 5000)
    run_record(engine, product([(ago(days=1), 4000)], kind=kind, current=4000))
    assert rows(engine, "SELECT * FROM current_prices") + rows(engine, "SELECT * FROM price_history") == []
    assert one(engine, "SELECT last_failure FROM planned_checks") is not None


def test_a_failure_is_forgotten_when_a_check_succeeds(engine: Engine) -> None:
    add_watch(engine, add_user(engine))
    run_record(engine, product(kind=ProductKind.INVALID, at=ago(hours=6)))
    run_record(engine, product([(ago(days=1), 4000)]))
    assert one(engine, "SELECT last_failure FROM planned_checks") is None


def test_the_same_answer_twice_changes_nothing(engine: Engine) -> None:
    add_watch(engine, add_user(engine, channels=["mailto://localhost/a@example.org"]), 4800)
    answer = product(
        {
            PriceType.NEW: [(ago(days=3), 5000), (ago(days=1), 4500)],
            PriceType.USED: [(ago(days=2), 3000), (ago(days=2, hours=-1), None)],
        },
        current={PriceType.NEW: 4400, PriceType.USED: None, PriceType.AMAZON: 4700},
        title='Tastatur "MX"\t\\ \n',
        category_ids=(1, 2),
        category_path=('Computer & "Zubehör"', "Tast\\aturen", ""),
        eans=("0000000000017",),
        prime_eligible=True,
        referral_fee_pct=7.21,
        availability=Availability.IN_STOCK,
        listed_at=ago(days=900),
        image_urls=("https://example.org/1.jpg",),
    )
    run_record(engine, answer)
    before = everything(engine)
    run_record(engine, answer)
    assert everything(engine) == before


RESELLING: dict[str, Any] = {
    "is_hazardous": True,
    "is_heat_sensitive": False,
    "return_rate": ReturnRate.HIGH,
    "coupon_minor": 500,
    "lightning_ends_at": NOW + timedelta(hours=2),
    "offer_count": 4,
    "sales_rank_drops_30": 35,
    "buy_box_is_amazon": True,
    "buy_box_is_fba": False,
}


def test_what_a_reseller_should_know_is_kept(engine: Engine) -> None:
    run_record(engine, product([(ago(days=1), 5000)], **RESELLING))
    assert one(engine, f"SELECT {', '.join(RESELLING)} FROM products") == tuple(RESELLING.values())


def test_only_what_an_answer_may_not_have_been_asked_for_stays_known(engine: Engine) -> None:
    run_record(engine, product([(ago(days=1), 5000)], at=ago(hours=6), **RESELLING))
    run_record(engine, product([(ago(days=1), 5000)]))
    kept = ("offer_count", "sales_rank_drops_30", "buy_box_is_amazon", "buy_box_is_fba")
    assert one(engine, f"SELECT {', '.join(RESELLING)} FROM products") == tuple(
        value if name in kept else None for name, value in RESELLING.items()
    )


def test_a_product_seen_by_the_way_takes_nothing_away(engine: Engine) -> None:
    run_record(engine, product([(ago(days=1), 5000)], at=ago(hours=6), **RESELLING))
    run_record(engine, product(is_partial=True))
    assert one(engine, f"SELECT {', '.join(RESELLING)} FROM products") == tuple(RESELLING.values())


def test_an_older_answer_that_arrives_late_moves_nothing_back(engine: Engine) -> None:
    add_watch(engine, add_user(engine))
    older = product([(ago(days=1), 5000)], at=ago(hours=6), title="Old title", sales_rank=9)
    newer = product([(ago(days=1), 5000), (ago(hours=2), 4500)], title="New title", sales_rank=8)
    run_record(engine, newer)
    before = everything(engine)
    run_record(engine, older)
    after = everything(engine)
    assert one(engine, CURRENT) == (4500, ago(hours=2))
    assert one(engine, "SELECT title, sales_rank FROM products") == ("New title", 8)
    for table in ("price_history", "events", "outbox"):
        assert after[table] == before[table]


def test_an_offer_that_ends_is_a_change_to_no_price(engine: Engine) -> None:
    add_watch(engine, add_user(engine), 4000)
    run_record(engine, product([(ago(days=1), 5000)], at=ago(hours=6)))
    run_record(engine, product([(ago(days=1), 5000), (ago(hours=1), None)]))
    [_, event] = price_events(engine)
    assert one(engine, CURRENT) == (None, ago(hours=1))
    assert (event["current_price"], event["previous_price"], event["price_change"]) == (None, 50.0, None)


def test_an_offer_that_comes_back_has_no_previous_price(engine: Engine) -> None:
    add_watch(engine, add_user(engine))
    run_record(engine, product([(ago(days=1), None)], at=ago(hours=6)))
    run_record(engine, product([(ago(days=1), None), (ago(hours=1), 5000)]))
    [_, event] = price_events(engine)
    assert (event["current_price"], event["previous_price"], event["price_change"]) == (50.0, None, None)


def test_a_landed_price_is_recorded_as_it_came(engine: Engine) -> None:
    add_watch(engine, add_user(engine), price_type=PriceType.BUY_BOX_SHIPPING)
    run_record(engine, product({PriceType.BUY_BOX_SHIPPING: [(ago(days=1), 5499)]}), buybox=True)
    assert history(engine, PriceType.BUY_BOX_SHIPPING) == [(ago(days=1), 5499)]
    assert [event["price_type"] for event in price_events(engine)] == ["BUY_BOX_SHIPPING"]


def test_counts_and_ranks_are_no_prices(engine: Engine) -> None:
    run_record(engine, product({PriceType.SALES: [(ago(days=1), 100)], PriceType.COUNT_NEW: [(ago(days=1), 3)]}))
    assert rows(engine, "SELECT * FROM current_prices") == []


TITLE = 'Tastatur "MX" \\ {0}\nzweite Zeile\t&amp; ünïcode 😀 %s :name'


def test_the_event_has_the_fields_and_types_of_price_updates(engine: Engine) -> None:
    add_watch(engine, add_user(engine), 4500)
    at = datetime(2026, 2, 20, 12, 30, tzinfo=UTC)
    run_record(engine, product([(at - timedelta(days=1), 5999), (at, 4999)], at=at + timedelta(minutes=1), title=TITLE))
    expected: dict[str, Any] = {
        "asin": ASIN,
        "product_title": TITLE,
        "current_price": 49.99,
        "target_price": 45.0,
        "previous_price": 59.99,
        "price_change": 16.67,
        "price_change_percent": 16.67,
        "domain": "de",
        "currency": "EUR",
        "timestamp": "2026-02-20T12:30:00Z",
        "event_type": "price_update",
        "event_id": str(price_event_id(ASIN, "DE", "NEW", int(at.timestamp()), 4999)),
        "schema_version": 1,
        "price_type": "NEW",
        "current_price_minor": 4999,
        "target_price_minor": 4500,
        "previous_price_minor": 5999,
    }
    [event] = price_events(engine)
    assert event == expected
    assert {name: type(value) for name, value in event.items()} == {name: type(value) for name, value in expected.items()}


def test_a_product_without_a_title_has_a_null_title(engine: Engine) -> None:
    add_watch(engine, add_user(engine))
    run_record(engine, product([(ago(days=1), 5000)], title=None))
    assert price_events(engine)[0]["product_title"] is None


@pytest.mark.parametrize(
    ("marketplace", "minor", "text_"),
    [
        pytest.param(Marketplace.JP, 5980, "5980", id="yen have no decimals"),
        pytest.param(Marketplace.DE, 5, "0.05", id="cents keep their zero"),
        pytest.param(Marketplace.UK, 4500, "45.00", id="whole pounds keep two"),
        pytest.param(Marketplace.US, 2_147_483_647, "21474836.47", id="the largest amount is exact"),
    ],
)
def test_prices_are_exact_in_the_event(engine: Engine, marketplace: Marketplace, minor: int, text_: str) -> None:
    add_watch(engine, add_user(engine), marketplace=marketplace)
    run_record(engine, product([(ago(days=1), minor)], marketplace=marketplace))
    assert one(engine, "SELECT payload->>'current_price' FROM events") == text_


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        pytest.param(5999, 4999, "16.67", id="rounded up"),
        pytest.param(6000, 5000, "16.67", id="two thirds"),
        pytest.param(3000, 2000, "33.33", id="a third, rounded down"),
        pytest.param(80000, 79996, "0.01", id="half is rounded up"),
        pytest.param(5000, 6000, "-20.00", id="a rise is negative"),
        pytest.param(80000, 80004, "-0.01", id="half of a rise is rounded away from zero"),
        pytest.param(1, 2_000_000_000, "-199999999900.00", id="a glitch"),
        pytest.param(5000, 4999, "0.02", id="a cent"),
    ],
)
def test_the_fall_has_two_decimals_half_up(engine: Engine, before: int, now: int, expected: str) -> None:
    add_watch(engine, add_user(engine))
    run_record(engine, product([(ago(days=2), before), (ago(days=1), now)]))
    assert one(engine, "SELECT payload->>'price_change' FROM events") == expected


def test_history_keeps_what_its_event_said(engine: Engine) -> None:
    add_watch(engine, add_user(engine), 4500)
    run_record(engine, product([(ago(days=2), 5000), (ago(days=1), 4800)]))
    event_id = price_event_id(ASIN, "DE", "NEW", int(ago(days=1).timestamp()), 4800)
    kept = "SELECT event_id, event_version, previous_minor, target_minor FROM price_history ORDER BY observed_at"
    assert rows(engine, kept) == [(None, None, None, None), (event_id, 1, 5000, 4500)]
    assert one(engine, "SELECT event_id, version FROM events") == (event_id, 1)


def test_a_point_that_was_known_before_its_change_gets_the_event_and_one_with_an_event_stays(engine: Engine) -> None:
    add_watch(engine, add_user(engine))
    run_record(engine, product([(ago(days=9), 5000)]))
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO price_history (asin, marketplace, price_type, observed_at, amount_minor, currency, event_id, event_version) "
                "VALUES (:asin, 'DE', 'NEW', :first, 4001, 'EUR', NULL, NULL), (:asin, 'DE', 'NEW', :second, 3001, 'EUR', :other, 1)"
            ),
            {"asin": ASIN, "first": ago(days=2), "second": ago(days=1), "other": UUID(int=1)},
        )
    run_record(engine, product([(ago(days=9), 5000), (ago(days=2), 4000)]))
    run_record(engine, product([(ago(days=9), 5000), (ago(days=2), 4000), (ago(days=1), 3000)]))
    found = rows(engine, "SELECT amount_minor, event_id FROM price_history WHERE price_type = 'NEW' ORDER BY observed_at OFFSET 1")
    known = price_event_id(ASIN, "DE", "NEW", round(ago(days=2).timestamp()), 4000)
    assert [tuple(row) for row in found] == [(4000, known), (3001, UUID(int=1))]
    assert len(price_events(engine)) == 3


def test_the_target_of_an_event_is_the_highest_active_one(engine: Engine) -> None:
    for name, target in (("anna", 4000), ("bert", 4700), ("carl", None)):
        add_watch(engine, add_user(engine, name), target)
    gone = add_watch(engine, add_user(engine, "dora"), 4900)
    with engine.begin() as connection:
        connection.execute(text("UPDATE watched_products SET is_active = false WHERE id = :id"), {"id": gone})
    run_record(engine, product([(ago(days=1), 5000)]))
    assert [event["target_price_minor"] for event in price_events(engine)] == [4700]


def test_no_user_is_named_in_a_price_update(engine: Engine) -> None:
    add_watch(engine, add_user(engine, "very-secret-name"), 6000)
    run_record(engine, product([(ago(days=1), 5000)]))
    [event] = rows(engine, "SELECT key || payload::text FROM events WHERE kind = 'price_update'")
    assert "user" not in event
    assert "very-secret-name" not in event


@pytest.mark.parametrize(
    ("second", "rises"),
    [
        pytest.param(product([(ago(days=1), 5000)], brand="C", sales_rank=7), 0, id="the same again"),
        pytest.param(product([(ago(days=1), 5000), (NOW, 4000)], brand="C", sales_rank=7), 1, id="another price"),
        pytest.param(product([(ago(days=1), 5000)], brand="D", sales_rank=7), 1, id="another brand"),
        pytest.param(product([(ago(days=1), 5000), (NOW, 4000)], brand="D", sales_rank=7), 1, id="both"),
        pytest.param(product([(ago(days=1), 5000)], brand=None, sales_rank=7), 1, id="no brand any more"),
        pytest.param(product([(ago(days=1), 5000)], brand="C", sales_rank=None), 0, id="a rank not said this time"),
        pytest.param(product([(ago(days=1), 5000)], brand="C", sales_rank=7, updated_at=None), 0, id="no time of update said"),
        pytest.param(
            product({PriceType.NEW: [(ago(days=1), 5000)], PriceType.USED: [(ago(days=1), 1)]}, brand="C", sales_rank=7),
            1,
            id="a further type",
        ),
        pytest.param(product([(ago(days=9), 4000), (ago(days=1), 5000)], brand="C", sales_rank=7), 0, id="more of the past"),
    ],
)
def test_the_revision_rises_exactly_when_content_or_a_price_changes(engine: Engine, second: Product, rises: int) -> None:
    run_record(engine, product([(ago(days=1), 5000)], brand="C", sales_rank=7, at=ago(hours=6)))
    before = one(engine, "SELECT revision FROM products")
    run_record(engine, second)
    assert one(engine, "SELECT revision FROM products") == before + rises


def test_a_check_moves_the_watch_an_interval_on_and_ends_the_claim(engine: Engine) -> None:
    add_watch(engine, add_user(engine), interval=timedelta(minutes=30))
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO check_claims VALUES (:asin, 'DE', gen_random_uuid(), clock_timestamp() + interval '1 hour')"), {"asin": ASIN}
        )
    run_record(engine, product([(ago(days=1), 5000)]))
    assert one(engine, "SELECT last_checked_at, next_check_at FROM planned_checks") == (NOW, NOW + timedelta(minutes=30))
    assert rows(engine, "SELECT * FROM check_claims") == []


@pytest.mark.parametrize(("buybox", "is_checked"), [(False, False), (True, True)])
def test_a_watch_of_the_buy_box_is_checked_only_where_it_was_asked(engine: Engine, buybox: bool, is_checked: bool) -> None:
    add_watch(engine, add_user(engine), price_type=PriceType.BUY_BOX_SHIPPING)
    run_record(engine, product([(ago(days=1), 5000)]), buybox=buybox)
    assert (one(engine, "SELECT last_checked_at FROM planned_checks") is not None) is is_checked


def test_products_of_the_same_asin_in_two_marketplaces_are_two(engine: Engine) -> None:
    add_watch(engine, add_user(engine))
    prices = {Marketplace.DE: 5000, Marketplace.UK: 4000}
    run_record(engine, *(product([(ago(days=1), price)], marketplace=place) for place, price in prices.items()))
    current = rows(engine, "SELECT marketplace, amount_minor, currency FROM current_prices ORDER BY 1")
    assert current == [("DE", 5000, "EUR"), ("UK", 4000, "GBP")]
    assert [event["domain"] for event in price_events(engine)] == ["de"]


def test_an_observation_of_any_year_finds_a_place(engine: Engine) -> None:
    run_record(engine, product([(datetime(2011, 3, 1, tzinfo=UTC), 9000), (ago(days=1), 5000)]))
    assert len(history(engine)) == 2


def test_a_failed_transaction_leaves_nothing(engine: Engine) -> None:
    add_watch(engine, add_user(engine), 6000)
    before = everything(engine)
    with pytest.raises(RuntimeError), engine.begin() as connection:
        record(connection, [product([(ago(days=1), 5000)])], now=NOW)
        raise RuntimeError
    assert everything(engine) == before


def test_the_largest_falls_are_told(engine: Engine) -> None:
    user_id = add_user(engine)
    answers = []
    for number, (before, now) in enumerate([(5000, 4900), (5000, 2500), (5000, 5100), (100, 60)]):
        asin = f"B00000000{number}"
        add_watch(engine, user_id, asin=asin)
        answers.append(product([(ago(days=2), before), (ago(days=1), now)], asin=asin))
    done = run_record(engine, *answers)
    assert [(fall.previous_minor, fall.amount_minor) for fall in done.falls] == [(5000, 2500), (100, 60), (5000, 4900)]


def test_nothing_answered_is_nothing_recorded(engine: Engine) -> None:
    with engine.begin() as connection:
        assert record(connection, [], now=NOW).products == 0


def test_more_than_a_transaction_takes_is_refused(engine: Engine) -> None:
    many = [product(asin=f"B{number:09d}") for number in range(LARGEST_BATCH + 1)]
    with pytest.raises(ValueError, match="at most"), engine.begin() as connection:
        record(connection, many, now=NOW)


def test_concurrent_records_of_overlapping_products_agree(engine: Engine) -> None:
    user_id = add_user(engine)
    asins = [f"B{number:09d}" for number in range(60)]
    for asin in asins[::3]:
        add_watch(engine, user_id, 10_000, asin=asin)
    start = threading.Barrier(4)

    def work(worker: int) -> None:
        start.wait(10)
        for step in range(6):
            mine = asins[worker * 5 : worker * 5 + 40][:: 1 if worker % 2 else -1]
            at = NOW + timedelta(minutes=10 * step)
            run_record(engine, *(product([(ago(days=1), 5000), (at, 4000 - step)], asin=asin, at=at) for asin in mine))

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work, worker) for worker in range(4)]:
            future.result(120)
    last = NOW + timedelta(minutes=50)
    recorded = rows(engine, "SELECT DISTINCT amount_minor, observed_at FROM current_prices")
    assert recorded == [(3995, last)]
    doubled = rows(engine, "SELECT event_id FROM events WHERE kind = 'price_update' GROUP BY event_id HAVING count(*) > 1")
    assert doubled == []
    assert len(rows(engine, "SELECT 1 FROM products")) == 55


def in_force(points: list[tuple[datetime, int | None]]) -> list[tuple[datetime, int | None]]:
    """The step function: without points that repeat the value before."""
    return [point for number, point in enumerate(points) if number == 0 or point[1] != points[number - 1][1]]


_CHANGES = st.lists(
    st.tuples(st.integers(1, 300), st.none() | st.sampled_from([3000, 3500, 4000, 4500])), min_size=1, max_size=14
)  # minutes since the change before, and the value


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=_CHANGES, cuts=st.lists(st.integers(0, 4200), max_size=6))
def test_history_is_the_same_however_it_is_cut_into_checks(engine: Engine, changes: list[tuple[int, int | None]], cuts: list[int]) -> None:
    minutes, points = 0, []
    for gap, amount in changes:
        minutes += gap
        points.append((ago(days=10) + timedelta(minutes=minutes), amount))
    ends = sorted({ago(days=10) + timedelta(minutes=cut) for cut in cuts} | {points[-1][0]})
    asins = ["B000000000", "B000000001"]
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE products, current_prices, price_history, events, outbox"))
    for end in ends:
        known = [point for point in points if point[0] <= end]
        if known:
            run_record(engine, product(known, asin=asins[0], at=end, current=known[-1][1]))
    run_record(engine, product(points, asin=asins[1], at=ends[-1], current=points[-1][1]))
    cut, whole = (history(engine, asin=asin) for asin in asins)
    assert in_force(cut) == whole == in_force(points)
    current = rows(engine, "SELECT amount_minor FROM current_prices ORDER BY asin")
    assert current == [points[-1][1]] * 2


def test_event_ids_in_the_outbox_are_uuids_of_their_observation(engine: Engine) -> None:
    add_watch(engine, add_user(engine))
    run_record(engine, product([(ago(days=1), None)]))
    [event_id] = rows(engine, "SELECT event_id FROM events")
    assert isinstance(event_id, UUID)
    assert event_id == price_event_id(ASIN, "DE", "NEW", int(ago(days=1).timestamp()), None)


@pytest.mark.parametrize(
    ("sinks", "is_woken"), [pytest.param(ALL_SINKS, True, id="with sinks"), pytest.param(frozenset(), False, id="without sinks")]
)
def test_a_price_event_wakes_the_relays(engine: Engine, sinks: frozenset[Sink], is_woken: bool) -> None:
    add_watch(engine, add_user(engine))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        listen(connection)
        run_record(engine, product([(ago(days=1), 4000)]), sinks=sinks)
        assert wait_for_notice(connection, longest_seconds=5 if is_woken else 0.2) is is_woken
