"""Claims about every JSON there can be: values or the one error, and nothing lost on the way back."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keeper.domain.marketplace import Marketplace
from keeper.domain.price_series import PriceSeries
from keeper.domain.price_type import PriceType
from keeper.domain.product import Product
from keeper.keepa.deal_wire import DealWire, decode_deals
from keeper.keepa.list_wire import CategoryWire, decode_asins, decode_categories
from keeper.keepa.wire import (
    MINUTES_TO_2011,
    MOST_AMOUNT,
    MOST_RATING_TENTHS,
    EnvelopeWire,
    NotAnAnswer,
    ProductWire,
    SeriesUnreadable,
    StatsWire,
    decode_envelope,
    decode_products,
    decode_series,
    encode_series,
)

ASIN = "B0CPV5YY7K"
PRICE_TYPE = st.sampled_from(PriceType)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(["-1", "-2", "&amp;", "&#xD800;", "\x00", "2011-01-01"])
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=12
)
numbers = st.lists(st.integers(-2, 9_000_000) | st.integers(-(2**70), 2**70) | st.none(), max_size=8)
by_type = st.lists(numbers | st.none() | scalars, max_size=40)
arrays = st.lists(st.integers(-2, 10_000), max_size=40)


def objects(shape: type[Any], *, required: dict[str, st.SearchStrategy[Any]], richer: dict[str, st.SearchStrategy[Any]]) -> Any:
    """Objects with the field names of `shape`, holding anything or what nearly fits."""
    names = [name for name in shape.__struct_fields__ if name not in required]
    return st.fixed_dictionaries(required, optional={name: anything | richer.get(name, arrays) for name in names})


stats = objects(StatsWire, required={}, richer=dict.fromkeys(("min", "max", "minInInterval", "maxInInterval"), by_type))
products = objects(
    ProductWire,
    required={"asin": st.just(ASIN) | anything},
    richer={
        "stats": stats,
        "csv": by_type,
        "images": st.lists(st.dictionaries(st.sampled_from("lm"), scalars)),
        "salesRanks": st.dictionaries(st.sampled_from(["1", "2"]), numbers | scalars),
        "salesRankReference": st.integers(0, 2),
        "productType": st.integers(-1, 7),
    },
)
envelopes = objects(EnvelopeWire, required={}, richer={name: st.integers(-(2**40), 2**45) for name in EnvelopeWire.__struct_fields__})

deals = objects(
    DealWire,
    required={"asin": st.just(ASIN) | st.just("B000000002") | anything},
    richer={"avg": st.lists(arrays, max_size=5), "current": st.lists(st.integers(-2, 2**33) | anything, max_size=40)},
)


def read_all(product: Product) -> str:
    """Looks into everything, so that what is made on first use is made."""
    return repr(product)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(envelope=envelopes, payload=st.lists(products, max_size=3) | anything)
def test_any_json_of_the_outer_shape_gives_values_or_the_one_error(envelope: dict[str, Any], payload: Any) -> None:
    body = json.dumps({**envelope, "products": payload}).encode()
    try:
        decoded = decode_products(body, [ASIN], Marketplace.DE)
    except NotAnAnswer:
        return
    assert len(decoded.products) + len(decoded.unreadable) + len(decoded.missing) == 1
    assert all(read_all(product) for product in decoded.products.values())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(envelope=envelopes, rows=st.lists(deals | anything, max_size=4), price_type=PRICE_TYPE)
def test_any_page_of_the_outer_shape_loses_rows_but_not_itself(envelope: dict[str, Any], rows: list[Any], price_type: PriceType) -> None:
    body = json.dumps({**envelope, "deals": {"dr": rows}}).encode()
    decoded = decode_deals(body, Marketplace.DE, price_type)
    known = {*(one.asin for one in decoded.sightings), *decoded.skipped, *decoded.unreadable}
    repeated = [row for row in rows if isinstance(row, dict) and row.get("asin") in (ASIN, "B000000002")]
    assert decoded.row_count == len(rows)
    assert len(known) == len(rows) - max(0, len(repeated) - len({row["asin"] for row in repeated}))
    assert all(repr(one) and 0 < one.amount_minor <= MOST_AMOUNT for one in decoded.sightings)


listed = st.lists(st.sampled_from([ASIN, "B000000002"]) | anything, max_size=6)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(envelope=envelopes, payload=st.fixed_dictionaries({}, optional={"asinList": listed | anything, "bestSellersList": anything}))
def test_any_list_gives_asins_each_once_or_the_one_error(envelope: dict[str, Any], payload: dict[str, Any]) -> None:
    try:
        decoded = decode_asins(json.dumps(envelope | payload).encode())
    except NotAnAnswer:
        return
    assert len(set(decoded.asins)) == len(decoded.asins)


categories = objects(CategoryWire, required={"catId": st.integers(-1, 2**65) | anything}, richer={"name": st.text(max_size=5)})


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(envelope=envelopes, sent=st.dictionaries(st.text(max_size=3), categories | anything, max_size=4))
def test_any_category_is_read_or_named(envelope: dict[str, Any], sent: dict[str, Any]) -> None:
    decoded = decode_categories(json.dumps(envelope | {"categories": sent}).encode(), Marketplace.DE)
    assert len(decoded.categories) + len(decoded.unreadable) == sum(1 for one in sent.values() if one is not None)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=st.binary(max_size=40) | anything.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_give_an_envelope_or_the_one_error(body: bytes) -> None:
    try:
        envelope = decode_envelope(body)
    except NotAnAnswer:
        return
    assert envelope.tokens is None or envelope.tokens.refill_per_minute > 0


@st.composite
def series_of(draw: st.DrawFn, price_type: PriceType) -> PriceSeries:
    minutes = sorted(draw(st.sets(st.integers(0, 10_000_000), max_size=20)))
    least = 1 if price_type.is_price else 0
    most = MOST_RATING_TENTHS if price_type is PriceType.RATING else MOST_AMOUNT
    amount: st.SearchStrategy[int | None] = st.integers(least, most)
    if price_type is not PriceType.EXTRA_INFO_UPDATES:
        amount = amount | st.none()
    amounts = draw(st.lists(amount, min_size=len(minutes), max_size=len(minutes)))
    return PriceSeries(tuple(minute + MINUTES_TO_2011 for minute in minutes), tuple(amounts))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(price_type=PRICE_TYPE, data=st.data())
def test_what_is_encoded_decodes_to_itself(price_type: PriceType, data: st.DataObject) -> None:
    series = data.draw(series_of(price_type))
    assert decode_series(encode_series(series, price_type), price_type) == series


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(price_type=PRICE_TYPE, data=st.data())
def test_what_keepa_sends_is_encoded_to_itself(price_type: PriceType, data: st.DataObject) -> None:
    flat = encode_series(data.draw(series_of(price_type)), price_type)
    assert encode_series(decode_series(flat, price_type), price_type) == flat


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(price_type=PRICE_TYPE, flat=st.lists(st.integers(-(2**64), 2**64) | st.integers(-2, 100), max_size=12))
def test_any_numbers_are_a_series_in_ascending_time_or_the_one_error(price_type: PriceType, flat: list[int]) -> None:
    try:
        series = decode_series(flat, price_type)
    except SeriesUnreadable:
        return
    assert list(series.minutes) == sorted(set(series.minutes))
