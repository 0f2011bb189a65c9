"""The alert the tests of this room send."""

from datetime import UTC, datetime

from keeper.domain.alert import PriceAlert
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_type import PriceType

ALERT = PriceAlert(
    alert_id="0f5c",
    asin="B07W6JG6Z7",
    marketplace=Marketplace.DE,
    price_type=PriceType.NEW,
    title='Tastatur "MX" <!channel> & @everyone',
    price=Money(4999, "EUR"),
    previous_price=Money(5999, "EUR"),
    target=Money(5000, "EUR"),
    lowest_in_year=Money(4890, "EUR"),
    image_url="https://m.media-amazon.com/images/I/41.jpg",
    observed_at=datetime(2026, 2, 20, 12, 30, tzinfo=UTC),
)
