"""The history of one price for a range of time, in one round trip."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from keeper.domain.errors import KeeperError
from keeper.domain.price_series import PriceSeries, time_of

MOST_POINTS = 50_000


class ProductUnknown(KeeperError):
    """No answer of Keepa on this product has been recorded."""


@dataclass(frozen=True, slots=True)
class HistoryRange:
    """What is known of one price of a known product in a range of time.

    Attributes:
        title: None where Keepa has none.
        currency, observed_at, checked_at: of the current price; all None where the product has no such price.
        amount_minor: the current price; None without an offer.
        checked_at: until when the price is known, and so the end of every range: the answer stays the same until the next check.
        start_at, end_at: the range; None where the product has no such price. It is empty where it begins after `end_at`.
        series: the change points of the range, led by the one in force at its start.
        is_cut: the range has more points than may be read; `start_at` is where the newest of them begin.
    """

    title: str | None
    amount_minor: int | None
    currency: str | None
    observed_at: datetime | None
    checked_at: datetime | None
    start_at: datetime | None
    end_at: datetime | None
    series: PriceSeries
    is_cut: bool


_RANGE = text(
    """
    SELECT p.title, c.amount_minor, c.currency, c.observed_at, c.checked_at, r.start_at, r.end_at,
        led.minute AS led_minute, led.amount_minor AS led_amount, later.minutes, later.amounts
    FROM products p
    LEFT JOIN current_prices c ON c.asin = p.asin AND c.marketplace = p.marketplace AND c.price_type = :price_type
    LEFT JOIN LATERAL (
        SELECT greatest(CAST(:start AS timestamptz), end_at - CAST(:span AS interval)) AS start_at, end_at
        FROM (SELECT least(greatest(c.checked_at, c.observed_at), CAST(:end AS timestamptz)) AS end_at) AS known
    ) r ON c.checked_at IS NOT NULL
    LEFT JOIN LATERAL (
        SELECT floor(date_part('epoch', observed_at) / 60)::integer AS minute, amount_minor FROM price_history
        WHERE asin = :asin AND marketplace = :marketplace AND price_type = :price_type
            AND observed_at <= r.start_at AND r.start_at <= r.end_at
        ORDER BY observed_at DESC LIMIT 1
    ) led ON true
    LEFT JOIN LATERAL (
        SELECT array_agg(floor(date_part('epoch', observed_at) / 60)::integer) AS minutes, array_agg(amount_minor) AS amounts
        FROM (
            SELECT observed_at, amount_minor FROM price_history
            WHERE asin = :asin AND marketplace = :marketplace AND price_type = :price_type
                AND observed_at > r.start_at AND observed_at <= r.end_at
            ORDER BY observed_at DESC LIMIT :most
        ) AS newest
    ) later ON true
    WHERE p.asin = :asin AND p.marketplace = :marketplace
    """
)


def find_price_history(
    connection: Connection,
    asin: str,
    marketplace: str,
    price_type: str,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    span: timedelta | None = None,
    most_points: int = MOST_POINTS,
) -> HistoryRange:
    """The range from `start` to `end`.

    Args:
        start, span: not before that, and not longer before the end; at least one of them.
        end: None for as long as the price is known, and never beyond that.
        most_points: after the start, the newest so many.

    Raises:
        ProductUnknown: see there.
    """
    row = connection.execute(
        _RANGE,
        {
            "asin": asin,
            "marketplace": marketplace,
            "price_type": price_type,
            "start": start,
            "end": end,
            "span": span,
            "most": most_points + 1,
        },
    ).one_or_none()
    if row is None:
        raise ProductUnknown(f"nothing is known of {asin} in {marketplace} yet")
    # The newest came first, so that the limit leaves out the oldest.
    minutes, amounts = (row.minutes or [])[::-1], (row.amounts or [])[::-1]
    start_at = row.start_at
    is_cut = len(minutes) > most_points
    if is_cut:
        minutes, amounts = minutes[1:], amounts[1:]
        start_at = time_of(minutes[0])
    elif row.led_minute is not None:
        minutes, amounts = [row.led_minute, *minutes], [row.led_amount, *amounts]
    return HistoryRange(
        title=row.title,
        amount_minor=row.amount_minor,
        currency=row.currency,
        observed_at=row.observed_at,
        checked_at=row.checked_at,
        start_at=start_at,
        end_at=row.end_at,
        series=PriceSeries(minutes, amounts),
        is_cut=is_cut,
    )
