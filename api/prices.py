"""A price over time, and what it was worth."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import Response
from pydantic import BeforeValidator, Field, WithJsonSchema

from api import conditional
from api.access import Reader
from api.live import House
from api.problems import problems
from api.query import LEFT_OUT
from api.schemas import Answer, Asin, KindOfPrice, Store, in_whole_units, write_json
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money, minor_digits
from keeper.domain.price_series import EPOCH, Extreme, PriceSeries, PriceSummary, downsample, iso_of, minute_of, summarize, time_of
from keeper.domain.price_type import PriceType
from keeper.postgres.history import MOST_POINTS, HistoryRange, find_price_history

router = APIRouter(tags=["prices"])

LONGEST_DAYS: Final = 3650
DEFAULT_DAYS: Final = 90
_CSV: Final = "text/csv"
_UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "It is what If-None-Match names"}}


def _read_moment(text: object) -> object:
    """A day or a moment of ISO 8601; without a zone it is UTC. Before 1970 there was no price."""
    if not isinstance(text, str):
        return text
    try:
        moment = datetime.fromisoformat(text.upper())
        return max((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC), EPOCH)
    except OverflowError:
        # In another zone it is before the first or after the last moment there is.
        return EPOCH if text.startswith("0") else datetime.max.replace(tzinfo=UTC)
    except ValueError:
        raise ValueError("write it like 2026-03-01 or 2026-03-01T08:00:00Z") from None


Moment = Annotated[
    datetime,
    BeforeValidator(_read_moment),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}]}),
]
# Parts of a cent are cut: at or below is the same with and without them.
Limit = Annotated[
    Decimal,
    Field(gt=0, le=10_000_000),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 10_000_000, "examples": [49.9]}),
]


@dataclass(frozen=True, slots=True)
class AskedRange:
    """Which time is asked for: limits that all hold."""

    start: datetime | None
    end: datetime | None
    span: timedelta | None


async def _range(
    days: Annotated[
        Annotated[Annotated[int, Field(ge=1, le=LONGEST_DAYS)] | None, LEFT_OUT],
        Query(description=f"At most so many days before the end; {DEFAULT_DAYS} where there is no `from` either"),
    ] = None,
    start: Annotated[Annotated[Moment | None, LEFT_OUT], Query(alias="from", description="Not before that day or moment, UTC")] = None,
    end: Annotated[
        Annotated[Moment | None, LEFT_OUT],
        Query(alias="to", description="Until that day or moment, UTC; at most until the price was last checked, which is the default"),
    ] = None,
) -> AskedRange:
    if days is None and start is None:
        days = DEFAULT_DAYS
    return AskedRange(start, end, None if days is None else timedelta(days=days))


InRange = Annotated[AskedRange, Depends(_range)]


class HistoryFormat(StrEnum):
    """How a history is written."""

    JSON = "json"
    CSV = "csv"


class PricePoint(Answer):
    """A price, valid until the next point."""

    observed_at: datetime = Field(description="Since when, by Keepa; of the first point it may be before the range")
    price: float | None = Field(description="In whole units; null: no offer", examples=[49.9])
    price_minor: int | None = Field(examples=[4990])


class OfProduct(Answer):
    """One price of one product in a range of time."""

    asin: str = Field(examples=["B00OCMRV40"])
    marketplace: Marketplace
    price_type: PriceType
    title: str | None
    link: str = Field(description="The product's page at Amazon")
    currency: str = Field(examples=["EUR"])
    checked_at: datetime | None = Field(
        description="Until when the price is known: the range ends there, and the answer stays the same until the next check. "
        "Null: there is no such price"
    )
    start_at: datetime | None = Field(description="Where the range begins")
    end_at: datetime | None = Field(description="Where it ends; before its begin where it is empty")
    is_cut: bool = Field(description=f"The range has more than {MOST_POINTS:,} points: `start_at` is where the newest of them begin")


class PriceHistory(OfProduct):
    """A step function: each price holds until the next point, the last one until `end_at`."""

    price: float | None = Field(description="The current one, whatever the range; null: no offer", examples=[49.9])
    price_minor: int | None = Field(examples=[4990])
    observed_at: datetime | None = Field(description="Since when the price is this, by Keepa")
    points_in_range: int = Field(description="How many there are; `points` has fewer where they are more than was asked for")
    points: list[PricePoint] = Field(description="Oldest first, led by the one in force at the begin of the range")


class PriceAmount(Answer):
    """An amount of money."""

    price: float = Field(description="In whole units", examples=[49.9])
    price_minor: int = Field(examples=[4990])


class PriceExtreme(PriceAmount):
    """A lowest or highest price."""

    at: datetime = Field(description="When it first stood there within the range")


class TimeAtOrBelow(PriceAmount):
    """How long the price was low enough."""

    seconds: int
    pct: float | None = Field(description="Percent of the time with an offer; null: there was none")


class PriceStats(OfProduct):
    """What a price was worth in a range of time. Amounts are null where there was no offer."""

    price: float | None = Field(description="At the end of the range; null: no offer", examples=[49.9])
    price_minor: int | None = Field(examples=[4990])
    since: datetime | None = Field(description="Since when it is this, or since when there is no offer")
    lowest: PriceExtreme | None
    lowest_until: datetime | None = Field(description="Until when it last stood at the lowest; the end of the range where it still does")
    highest: PriceExtreme | None
    average: PriceAmount | None = Field(description="Weighted by time, over the time with an offer")
    median: PriceAmount | None = Field(description="The price it stood at or below for half of the time with an offer")
    at_or_below: TimeAtOrBelow | None = Field(description="Where `at_or_below` was asked for")
    known_seconds: int = Field(description="How much of the range is known")
    offer_seconds: int = Field(description="How much of that there was an offer")
    offer_pct: float | None = Field(description="The same in percent; null: nothing is known", ge=0, le=100)


@router.get(
    "/prices/{asin}/history",
    response_model=PriceHistory,
    responses=problems(404)
    | _UNCHANGED
    | {
        200: {
            "description": "The history; as CSV with a header and an empty `price` where there is no offer",
            "content": {_CSV: {"schema": {"type": "string"}}},
        }
    },
)
def get_history(
    asin: Asin,
    asked: InRange,
    _: Reader,
    live: House,
    request: Request,
    marketplace: Store = Marketplace.DE,
    price_type: KindOfPrice = PriceType.NEW,
    points: Annotated[int, Query(ge=2, le=5000, description="At most so many; both ends and all extremes are kept")] = 1000,
    form: Annotated[
        Annotated[HistoryFormat | None, LEFT_OUT], Query(alias="format", description="Else by the header Accept, JSON by default")
    ] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """How a price changed. Has an ETag, which stays the same between two checks."""
    with live.begin() as connection:
        known = find_price_history(connection, asin, marketplace.value, price_type.value, start=asked.start, end=asked.end, span=asked.span)
    shown = known.series
    if known.start_at is not None and known.end_at is not None:
        shown = downsample(shown, minute_of(known.start_at), minute_of(known.end_at), points)
    if form is HistoryFormat.CSV or (form is None and _prefers_csv(accept)):
        answered = conditional.answer(request, "".join(_lines(shown, marketplace.currency)).encode(), media_type=_CSV)
        answered.headers["Content-Disposition"] = f'attachment; filename="{asin}-{marketplace.value}-{price_type.value}.csv"'
        return answered
    fields = _of_product(asin, marketplace, price_type, known) | {
        "price": in_whole_units(known.amount_minor, marketplace.currency),
        "price_minor": known.amount_minor,
        "observed_at": known.observed_at,
        "points_in_range": len(known.series),
        "points": _points(shown, marketplace.currency),
    }
    return conditional.answer(request, write_json(fields))


@router.get("/prices/{asin}/stats", response_model=PriceStats, responses=problems(404) | _UNCHANGED)
def get_stats(
    asin: Asin,
    asked: InRange,
    _: Reader,
    live: House,
    request: Request,
    marketplace: Store = Marketplace.DE,
    price_type: KindOfPrice = PriceType.NEW,
    at_or_below: Annotated[
        Annotated[Limit | None, LEFT_OUT], Query(description="How long was it at this price or below? In whole units")
    ] = None,
) -> Response:
    """The lowest, the highest, the usual price of a range, and how long it was low enough. Has an ETag, as the history has."""
    with live.begin() as connection:
        known = find_price_history(connection, asin, marketplace.value, price_type.value, start=asked.start, end=asked.end, span=asked.span)
    limit_minor = None if at_or_below is None else int(at_or_below.scaleb(minor_digits(marketplace.currency)))
    # Without such a price the series is empty, and so is any range of it.
    start, end = (0, 0) if known.start_at is None or known.end_at is None else (minute_of(known.start_at), minute_of(known.end_at))
    summary = summarize(known.series, start, end, limit_minor)
    return conditional.answer(
        request,
        PriceStats(**_of_product(asin, marketplace, price_type, known), **_summed_up(summary, limit_minor, marketplace.currency)),
    )


def _of_product(asin: str, marketplace: Marketplace, price_type: PriceType, known: HistoryRange) -> dict[str, Any]:
    return {
        "asin": asin,
        "marketplace": marketplace,
        "price_type": price_type,
        "title": known.title,
        "link": f"https://{marketplace.host}/dp/{asin}",
        "currency": marketplace.currency,
        "checked_at": known.checked_at,
        "start_at": known.start_at,
        "end_at": known.end_at,
        "is_cut": known.is_cut,
    }


def _summed_up(summary: PriceSummary, limit_minor: int | None, currency: str) -> dict[str, Any]:
    def amount(minor: int | None) -> PriceAmount | None:
        return None if minor is None else PriceAmount(price=_whole(minor, currency), price_minor=minor)

    def extreme(found: Extreme | None) -> PriceExtreme | None:
        return None if found is None else PriceExtreme(price=_whole(found.amount, currency), price_minor=found.amount, at=found.at)

    at_or_below = None
    if limit_minor is not None:
        at_or_below = TimeAtOrBelow(
            price=_whole(limit_minor, currency),
            price_minor=limit_minor,
            seconds=60 * (summary.at_or_below_minutes or 0),
            pct=_rounded(summary.at_or_below_pct),
        )
    return {
        "price": in_whole_units(summary.current, currency),
        "price_minor": summary.current,
        "since": None if summary.current_since_minute is None else time_of(summary.current_since_minute),
        "lowest": extreme(summary.lowest),
        "lowest_until": None if summary.lowest_until_minute is None else time_of(summary.lowest_until_minute),
        "highest": extreme(summary.highest),
        "average": amount(summary.average),
        "median": amount(summary.median),
        "at_or_below": at_or_below,
        "known_seconds": 60 * summary.known_minutes,
        "offer_seconds": 60 * summary.offer_minutes,
        "offer_pct": _rounded(summary.offer_pct),
    }


def _whole(minor: int, currency: str) -> float:
    return float(Money(minor, currency).amount)


def _rounded(pct: float | None) -> float | None:
    return None if pct is None else round(pct, 2)


def _points(series: PriceSeries, currency: str) -> list[dict[str, object]]:
    scale = 10 ** minor_digits(currency)
    return [
        {"observed_at": iso_of(minute), "price": None if amount is None else amount / scale, "price_minor": amount}
        for minute, amount in zip(series.minutes, series.amounts, strict=True)
    ]


def _lines(series: PriceSeries, currency: str) -> Iterator[str]:
    """Of CSV (RFC 4180)."""
    yield "observed_at,price,price_minor,currency\r\n"
    digits = minor_digits(currency)
    for minute, amount in zip(series.minutes, series.amounts, strict=True):
        price = "" if amount is None else f"{amount / 10**digits:.{digits}f},{amount}"
        yield f"{iso_of(minute)},{price or ','},{currency}\r\n"


def _prefers_csv(accept: str) -> bool:
    """Whether the header names CSV, and nothing that JSON is before it."""
    weights = {_CSV: 0.0, "application/json": 0.0}
    for part in accept.lower().split(","):
        name, *options = (one.strip() for one in part.split(";"))
        if name in weights:
            weights[name] = max(weights[name], next((_weight(one[2:]) for one in options if one.startswith("q=")), 1.0))
    return weights[_CSV] > weights["application/json"]


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
