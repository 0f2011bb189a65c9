"""What others produced is recorded once, and as if Keeper had seen it itself."""

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from keeper.domain.events import price_event_id, raw_event_id
from keeper.domain.price_type import PriceType
from keeper.ingest import Ingested, ingest_deals, ingest_prices, ingest_raw
from keeper.postgres.ingested import delete_old
from tests.integration.makers import ASIN, NOW, add_user, add_watch, ago, history, one, product, rows, run_record

RECORDED = Path("tests/recordings/product_us_B0D8W1YVBX_1token.json")


@dataclass(frozen=True)
class Received:
    """A message as it came."""

    value: bytes
    topic: str = "price-updates"


def message(topic: str = "price-updates", **fields: Any) -> Received:
    said = {"asin": ASIN, "product_title": "Fremde Tastatur", "current_price": 49.99, "domain": "de", "timestamp": "2026-11-20T10:00:00Z"}
    return Received(json.dumps(said | fields).encode(), topic)


def ingest(engine: Engine, *messages: Received) -> Ingested[Received]:
    return ingest_prices(engine, messages, now=NOW)


def test_a_foreign_price_is_recorded_with_its_product(engine: Engine) -> None:
    assert ingest(engine, message()).recorded == 1
    assert history(engine) == [(NOW - timedelta(hours=2), 4999)]
    assert rows(engine, "SELECT title FROM products") == ["Fremde Tastatur"]


def test_a_foreign_price_is_recorded_once_however_often_it_comes(engine: Engine) -> None:
    first, again = ingest(engine, message(), message()), ingest(engine, message())
    assert ((first.recorded, first.own), (again.recorded, again.own)) == ((1, 1), (0, 1))
    assert len(history(engine)) == 1


def test_keepers_own_price_is_passed_over(engine: Engine) -> None:
    own = price_event_id(ASIN, "DE", "NEW", int((NOW - timedelta(hours=2)).timestamp()), 4999)
    done = ingest(engine, message(event_id=str(own)))
    assert (done.recorded, done.own, rows(engine, "SELECT 1 FROM price_history")) == (0, 1, [])


def test_a_foreign_price_at_the_target_alerts_by_keepers_one_rule(engine: Engine) -> None:
    """Once, at the target and not a percent above it."""
    add_watch(engine, add_user(engine, channels=["json://127.0.0.1:9/"]), 4999)
    run_record(engine, product([(ago(days=1), 6000)], at=ago(days=1)))
    ingest(engine, message(current_price=50.20, timestamp="2026-11-20T09:00:00Z"))
    assert rows(engine, "SELECT 1 FROM price_alerts") == []
    ingest(engine, message())
    ingest(engine, message(timestamp="2026-11-20T10:30:00Z"))
    assert rows(engine, "SELECT amount_minor FROM price_alerts") == [4999]


def test_what_is_known_of_the_product_stays(engine: Engine) -> None:
    run_record(engine, product([(ago(days=1), 6000)], at=ago(days=1), brand="Cherry", review_count=12))
    before = one(engine, "SELECT checked_at FROM products")
    ingest(engine, message())
    assert one(engine, "SELECT title, brand, review_count, kind, checked_at FROM products") == (
        "Fremde Tastatur", "Cherry", 12, "standard", before,
    )  # fmt: skip


def test_a_foreign_price_is_no_check(engine: Engine) -> None:
    add_watch(engine, add_user(engine), 100)
    before = one(engine, "SELECT next_check_at, last_checked_at FROM planned_checks")
    ingest(engine, message())
    assert one(engine, "SELECT next_check_at, last_checked_at FROM planned_checks") == before


def test_an_older_foreign_price_is_history_and_no_event(engine: Engine) -> None:
    add_watch(engine, add_user(engine), 100)
    run_record(engine, product([(ago(minutes=30), 6000)]))
    ingest(engine, message())
    assert history(engine) == [(NOW - timedelta(hours=2), 4999), (ago(minutes=30), 6000)]
    assert one(engine, "SELECT amount_minor FROM current_prices") == 6000
    assert one(engine, "SELECT count(*) FROM events WHERE kind = 'price_update'") == 1


def test_prices_of_one_batch_are_in_the_order_of_their_times(engine: Engine) -> None:
    times = ["2026-11-20T10:30:00Z", "2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z"]
    ingest(engine, *(message(current_price=40 + place, timestamp=at) for place, at in enumerate(times)))
    assert [amount for _, amount in history(engine)] == [4100, 4000, 4200]
    assert one(engine, "SELECT amount_minor FROM current_prices") == 4200


def test_what_cannot_be_read_costs_no_other_its_recording(engine: Engine) -> None:
    bad = Received(b"\xff\x00")
    done = ingest(engine, bad, message(), Received(b"[]"))
    assert done.recorded == 1
    assert [(where, bool(reason)) for where, reason in done.rejected] == [(bad, True), (Received(b"[]"), True)]


def test_a_foreign_deal_is_a_product_and_its_prices(engine: Engine) -> None:
    done = ingest_deals(engine, [message("deal-updates", original_price=79.99)], now=NOW, watch_user_id=None)
    assert done.recorded == 1
    assert (history(engine), history(engine, PriceType.LISTPRICE)) == (
        [(NOW - timedelta(hours=2), 4999)], [(NOW - timedelta(hours=2), 7999)],
    )  # fmt: skip
    assert rows(engine, "SELECT 1 FROM watched_products") == []


def test_a_foreign_deal_is_watched_without_a_target_for_the_user_named(engine: Engine) -> None:
    user_id = add_user(engine)
    for _ in range(2):
        ingest_deals(engine, [message("deal-updates")], now=NOW, watch_user_id=user_id)
    assert rows(engine, "SELECT user_id, asin, target_minor FROM watched_products") == [(user_id, ASIN, None)]


def test_a_deal_without_a_price_is_rejected(engine: Engine) -> None:
    done = ingest_deals(engine, [message("deal-updates", current_price=0)], now=NOW, watch_user_id=None)
    assert [reason for _, reason in done.rejected] == ["a deal without a price"]


def raw(**fields: Any) -> Received:
    answer = json.loads(RECORDED.read_text())["products"][0]
    said = {"asin": answer["asin"], "domain": "us", "timestamp": "2026-11-20T10:00:00Z", "event_type": "raw_product", "product": answer}
    return Received(json.dumps(said | fields).encode(), "raw.keepa_updates")


def test_a_foreign_answer_of_keepa_is_recorded_as_if_asked(engine: Engine) -> None:
    done = ingest_raw(engine, [raw()], now=NOW)
    assert (done.recorded, done.rejected) == (1, [])
    assert one(engine, "SELECT count(*) FROM current_prices") > 0
    assert one(engine, "SELECT marketplace, title IS NOT NULL FROM products") == ("US", True)


def test_keepers_own_answer_is_read_and_not_recorded(engine: Engine) -> None:
    own = raw(event_id=str(raw_event_id("B0D8W1YVBX", "US", "2026-11-20T10:00:00Z")))
    done = ingest_raw(engine, [own], now=NOW)
    assert (done.own, done.recorded, done.read) == (1, 0, [(own, "B0D8W1YVBX")])
    assert rows(engine, "SELECT 1 FROM products") == []


def test_an_answer_on_another_product_is_rejected(engine: Engine) -> None:
    done = ingest_raw(engine, [raw(asin="B000000000")], now=NOW)
    assert (done.recorded, [reason for _, reason in done.rejected]) == (0, ["product: the product is not B000000000"])


def test_what_was_ingested_long_ago_is_forgotten(engine: Engine) -> None:
    ingest(engine, message())
    with engine.begin() as connection:
        assert (delete_old(connection, days=1), delete_old(connection, days=0)) == (0, 1)
