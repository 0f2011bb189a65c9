"""What others may have produced: read exactly, or refused with the reason."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.domain.events import deal_event_id, deal_id_of, price_event_id, raw_event_id
from keeper.domain.incoming import IncomingPrice, MessageUnreadable, decode_deal, decode_price, decode_raw
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
# As the reference system produced it.
REFERENCE = {
    "asin": "B07W6JG6Z7", "product_title": "Tastatur", "current_price": 49.99, "target_price": 45.00, "previous_price": 59.99,
    "price_change": 16.67, "domain": "de", "currency": "EUR", "timestamp": "2026-02-20T12:30:00Z", "event_type": "price_update",
}  # fmt: skip


def price(**changes: Any) -> IncomingPrice:
    return decode_price(json.dumps(REFERENCE | changes).encode(), topic="price-updates", now=NOW)


def test_an_event_of_the_reference_is_read() -> None:
    found = price()
    assert (found.asin, found.marketplace, found.price_type) == ("B07W6JG6Z7", Marketplace.DE, PriceType.NEW)
    assert (found.amount_minor, found.title, found.is_own) == (4999, "Tastatur", False)
    assert found.observed_at == datetime(2026, 2, 20, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("changes", "amount"),
    [
        pytest.param({"current_price": 49}, 4900, id="whole"),
        pytest.param({"current_price": 0.29}, 29, id="not a float's 28.999"),
        pytest.param({"current_price": 10.005}, 1001, id="half up"),
        pytest.param({"current_price": 0}, None, id="zero is no price"),
        pytest.param({"current_price": -1}, None, id="below zero is no price"),
        pytest.param({"current_price": None}, None, id="null is no price"),
        pytest.param({"current_price_minor": 5001}, 5001, id="the exact field first"),
        pytest.param({"domain": "jp", "currency": "JPY", "current_price": 4980}, 4980, id="yen"),
        pytest.param({"domain": "UK", "currency": "GBP"}, 4999, id="capital letters"),
    ],
)
def test_amounts_are_exact_in_minor_units(changes: dict[str, Any], amount: int | None) -> None:
    assert price(**changes).amount_minor == amount


@pytest.mark.parametrize("field", ["price_type", "currency", "schema_version", "event_id", "product_title"])
def test_a_field_that_is_null_is_missing(field: str) -> None:
    without = {name: value for name, value in REFERENCE.items() if name != field}
    assert price(**{field: None}) == decode_price(json.dumps(without).encode(), topic="price-updates", now=NOW)


@pytest.mark.parametrize(
    ("timestamp", "at"),
    [
        pytest.param("2026-02-20T12:30:00", datetime(2026, 2, 20, 12, 30, tzinfo=UTC), id="without a zone: UTC"),
        pytest.param("2026-02-20T12:30:00+02:00", datetime(2026, 2, 20, 10, 30, tzinfo=UTC), id="another zone"),
    ],
)
def test_times_are_utc(timestamp: str, at: datetime) -> None:
    assert price(timestamp=timestamp).observed_at == at


def test_a_second_copy_is_the_same_event_and_another_price_is_another() -> None:
    assert price().event_id == price(product_title="another title").event_id
    assert price().event_id != price(current_price=49.98).event_id


def test_an_event_keeps_the_id_it_has() -> None:
    event_id = uuid4()
    assert price(event_id=str(event_id)).event_id == event_id


def test_keepers_own_events_are_known_by_their_ids() -> None:
    own = price_event_id("B07W6JG6Z7", "DE", "NEW", int(datetime(2026, 2, 20, 12, 30, tzinfo=UTC).timestamp()), 4999)
    assert price(event_id=str(own), current_price_minor=4999).is_own
    assert not price(event_id=str(own), current_price_minor=4998).is_own


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"asin": "short"}, id="asin"),
        pytest.param({"asin": 7}, id="asin a number"),
        pytest.param({"domain": "xx"}, id="domain"),
        pytest.param({"domain": None}, id="no domain"),
        pytest.param({"currency": "USD"}, id="currency of another store"),
        pytest.param({"timestamp": "yesterday"}, id="timestamp"),
        pytest.param({"timestamp": 1771590600}, id="timestamp a number"),
        pytest.param({"timestamp": "1999-12-31T23:59:59Z"}, id="before Amazon sold there"),
        pytest.param({"timestamp": (NOW + timedelta(hours=1)).isoformat()}, id="time to come"),
        pytest.param({"current_price": "49.99"}, id="price as text"),
        pytest.param({"current_price": True}, id="price a truth value"),
        pytest.param({"current_price": 1e300}, id="price beyond everything"),
        pytest.param({"current_price_minor": 49.5}, id="minor units not whole"),
        pytest.param({"price_type": "SALES"}, id="a rank is no price"),
        pytest.param({"price_type": ["NEW"]}, id="price type a list"),
        pytest.param({"event_id": "7"}, id="event id"),
        pytest.param({"event_id": 7}, id="event id a number"),
        pytest.param({"schema_version": 2}, id="schema of a later Keeper"),
        pytest.param({"schema_version": True}, id="schema a truth value"),
        pytest.param({"product_title": {}}, id="title an object"),
    ],
)
def test_what_cannot_be_is_refused_by_the_name_of_its_field(changes: dict[str, Any]) -> None:
    [(field, _)] = changes.items()
    with pytest.raises(MessageUnreadable, match=field.removesuffix("_minor")):
        price(**changes)


@given(st.binary() | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(list(REFERENCE)) | st.text(), inner), max_leaves=20).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_anything_else_is_refused_and_nothing_worse(value: bytes) -> None:
    for decode in (decode_price, decode_deal, decode_raw):
        with pytest.raises(MessageUnreadable):
            decode(value, topic="t", now=NOW)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())
            for name in (*REFERENCE, "current_price_minor", "price_type", "event_id", "schema_version", "original_price", "product")
        },
    )
)
def test_an_event_with_any_fields_changed_is_read_or_refused(changes: dict[str, Any]) -> None:
    value = json.dumps(REFERENCE | changes).encode()
    for decode in (decode_price, decode_deal, decode_raw):
        try:
            found: Any = decode(value, topic="t", now=NOW)
        except MessageUnreadable as error:
            assert len(str(error)) < 400
        else:
            assert found.asin == "B07W6JG6Z7"
            assert isinstance(found.event_id, UUID)


def test_a_deal_of_the_reference_is_read() -> None:
    value = {
        "asin": "B07W6JG6Z7", "product_title": "Tastatur", "current_price": 39.99, "original_price": 59.99, "discount_percent": 33.34,
        "rating": 4.5, "review_count": 1847, "sales_rank": 1200, "domain": "de", "timestamp": "2026-02-20T12:30:00",
        "event_type": "deal_update",
    }  # fmt: skip
    found = decode_deal(json.dumps(value).encode(), topic="deal-updates", now=NOW)
    assert (found.amount_minor, found.list_price_minor, found.is_own) == (3999, 5999, False)


def test_word_of_a_deleted_deal_brings_no_price() -> None:
    def is_passed_over(**fields: object) -> bool:
        return decode_deal(json.dumps(REFERENCE | fields).encode(), topic="deal-updates", now=NOW).is_own

    assert [is_passed_over(deleted=True), is_passed_over(deleted=False), is_passed_over()] == [True, False, False]


def test_keepers_own_deals_are_known_by_their_ids() -> None:
    deal_id = deal_id_of("B07W6JG6Z7", "DE", "NEW", 1_771_590_600)
    value = REFERENCE | {"deal_id": deal_id, "revision": 3, "event_id": str(deal_event_id(deal_id, 3))}
    assert decode_deal(json.dumps(value).encode(), topic="deal-updates", now=NOW).is_own


def test_keepers_own_answers_are_known_by_their_ids() -> None:
    value = REFERENCE | {"event_id": str(raw_event_id("B07W6JG6Z7", "DE", REFERENCE["timestamp"])), "product": None}  # type: ignore[arg-type]
    found = decode_raw(json.dumps(value).encode(), topic="raw.keepa_updates", now=NOW)
    assert (found.is_own, found.raw) == (True, None)


def test_keepas_answer_keeps_its_numbers() -> None:
    value = REFERENCE | {"product": {"asin": "B07W6JG6Z7", "csv": [[1, 2]], "referralFeePercentage": 15.01}}
    found = decode_raw(json.dumps(value).encode(), topic="raw.keepa_updates", now=NOW)
    assert json.loads(found.raw or b"") == value["product"]


def test_a_bare_product_is_refused_with_what_to_do() -> None:
    with pytest.raises(MessageUnreadable, match="wrap it"):
        decode_raw(b'{"asin": "B07W6JG6Z7", "domainId": 3}', topic="raw.keepa_updates", now=NOW)
