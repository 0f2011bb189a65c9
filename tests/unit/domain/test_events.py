"""Who gets which event, and ids that agree wherever they are made."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.domain.events import KINDS, EventKind, Sink, price_event_id
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PRICES
from keeper.record import _event_id


@given(
    asin=st.from_regex(r"[A-Z0-9]{10}", fullmatch=True),
    marketplace=st.sampled_from(list(Marketplace)),
    price_type=st.sampled_from(PRICES),
    minute=st.integers(21_500_000, 40_000_000),
    amount=st.none() | st.integers(1, 2**31 - 1),
)
def test_the_fast_event_id_is_the_plain_one(asin: str, marketplace: Marketplace, price_type: str, minute: int, amount: int | None) -> None:
    assert UUID(_event_id(asin, marketplace.value, str(price_type), minute, amount)) == price_event_id(
        asin, marketplace.value, str(price_type), minute * 60, amount
    )


def test_an_event_id_never_changes_with_the_program() -> None:
    assert price_event_id("B07W6JG6Z7", "DE", "NEW", 1_771_590_600, 4999) == UUID("3267dfcc-b8f9-5179-95d5-51cfa08a0019")


@pytest.mark.parametrize(
    ("kind", "sinks"),
    [
        (EventKind.PRICE_UPDATE, {Sink.KAFKA, Sink.SEARCH}),
        (EventKind.DEAL_UPDATE, {Sink.KAFKA, Sink.SEARCH}),
        (EventKind.RAW_PRODUCT, {Sink.KAFKA}),
        (EventKind.RAW_DEAL, {Sink.KAFKA}),
        (EventKind.PRODUCT_UPDATE, {Sink.ENRICH}),
        (EventKind.KEEPA_CALL, {Sink.SEARCH}),
        (EventKind.ALERT, {Sink.NOTIFY}),
        (EventKind.TOKENS_FOREIGN, set()),
    ],
)
def test_each_kind_goes_to_its_sinks(kind: EventKind, sinks: set[Sink]) -> None:
    assert {sink for sink, kinds in KINDS.items() if kind in kinds} == sinks


def test_every_sink_has_its_kinds() -> None:
    assert set(KINDS) == set(Sink)
