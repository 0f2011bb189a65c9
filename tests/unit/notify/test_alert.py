import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from keeper.domain.alert import AlertUnreadable, PriceAlert, decode_alert, encode_alert
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_type import PriceType

ALERT = PriceAlert(
    alert_id="0f5c",
    asin="B07W6JG6Z7",
    marketplace=Marketplace.DE,
    price_type=PriceType.NEW,
    title="Keyboard",
    price=Money(4999, "EUR"),
    previous_price=Money(5999, "EUR"),
    target=Money(5000, "EUR"),
    lowest_in_year=Money(4890, "EUR"),
    image_url="https://m.media-amazon.com/images/I/41.jpg",
    observed_at=datetime(2026, 2, 20, 12, 30, tzinfo=UTC),
)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (5999, 4999, "16.67"),
        (20000, 19999, "0.01"),
        (40000, 39999, "0.00"),
        (8, 7, "12.50"),
        (5000, 5000, "0.00"),
        (4000, 5000, "-25.00"),
        (1, 0, "100.00"),
    ],
    ids=["fall", "half rounds up", "less than half", "exact", "same", "rise", "to nothing"],
)
def test_drop_is_percent_of_the_previous_price(before: int, now: int, expected: str) -> None:
    alert = replace(ALERT, previous_price=Money(before, "EUR"), price=Money(now, "EUR"))
    assert alert.drop_pct == Decimal(expected)
    assert str(alert.drop_pct) == expected


def test_drop_without_previous_price_is_none() -> None:
    assert replace(ALERT, previous_price=None).drop_pct is None


@pytest.mark.parametrize(
    ("marketplace", "link"),
    [(Marketplace.DE, "https://www.amazon.de/dp/B07W6JG6Z7"), (Marketplace.UK, "https://www.amazon.co.uk/dp/B07W6JG6Z7")],
)
def test_link_leads_to_the_store_of_the_marketplace(marketplace: Marketplace, link: str) -> None:
    assert replace(ALERT, marketplace=marketplace).link == link


def test_alert_refuses_a_time_without_zone() -> None:
    with pytest.raises(ValueError, match="time zone"):
        replace(ALERT, observed_at=datetime(2026, 2, 20))  # noqa: DTZ001


@pytest.mark.parametrize("alert", [ALERT, replace(ALERT, previous_price=None, lowest_in_year=None, image_url=None)], ids=["full", "sparse"])
def test_alert_survives_json(alert: PriceAlert) -> None:
    assert decode_alert(json.loads(json.dumps(encode_alert(alert)))) == alert


def test_times_are_stored_in_utc() -> None:
    alert = replace(ALERT, observed_at=datetime(2026, 2, 20, 13, 30, tzinfo=timezone(timedelta(hours=1))))
    assert encode_alert(alert)["observed_at"] == "2026-02-20T12:30:00Z"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("marketplace", "XX"),
        ("price_type", "CHEAP"),
        ("price", None),
        ("price", {"amount_minor": 49.99, "currency": "EUR"}),
        ("observed_at", "2026-02-20T12:30:00"),
        ("observed_at", 5),
    ],
)
def test_unreadable_alert_is_a_named_error(key: str, value: Any) -> None:
    with pytest.raises(AlertUnreadable, match="cannot be read"):
        decode_alert({**encode_alert(ALERT), key: value})


def test_missing_key_is_a_named_error() -> None:
    payload = encode_alert(ALERT)
    del payload["target"]
    with pytest.raises(AlertUnreadable, match="target"):
        decode_alert(payload)
