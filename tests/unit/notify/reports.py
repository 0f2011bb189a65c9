"""The report the tests of this room show: three filters, news and old news, a hostile title, a product without a picture."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_type import PriceType
from keeper.domain.report import FilterPart, GoneDeal, HeldAlert, Mark, Report, ReportDeal, ReportEntry, WatchDrop

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
HOSTILE = '</a><script>alert(1)</script><img src=x onerror=alert(2)> "quoted" & \u202eturned'
LONG = "Keychron" + "UltraLowProfileMechanicalKeyboard" * 5
_FALLING = (9990, 9990, 9490, 9490, 9490, None, None, 8990, 8990, 9990, 9990, 9990, 7990, 7990, 6990, 6990)


def eur(amount_minor: int) -> Money:
    """Euro."""
    return Money(amount_minor, "EUR")


def deal(number: int = 0, price: int = 6990, **parts: Any) -> ReportDeal:
    """A deal with everything known; `parts` are others."""
    known: dict[str, Any] = {
        "asin": f"B0DEAL{number:04d}",
        "marketplace": Marketplace.DE,
        "price_type": PriceType.NEW,
        "changed_at": NOW - timedelta(hours=number + 1),
        "title": f"Keychron K{number} Pro kabellose mechanische Tastatur, QWERTZ, Hot-Swap, RGB",
        "brand": "Keychron",
        "image_url": f"https://m.media-amazon.com/images/I/61deal{number}.jpg",
        "price": eur(price),
        "list_price": eur(12900),
        "median_90": eur(9990),
        "lowest_year": eur(6490),
        "discount_pct": 45.81,
        "below_median_pct": 30.03,
        "rating_tenths": 46,
        "review_count": 1847,
        "sales_rank": 1200,
        "score": 82.4,
        "layout": "qwertz",
        "is_year_low": False,
        "is_all_time_low": False,
        "is_list_price_fiction": False,
        "chart": _FALLING,
    }
    return ReportDeal(**known | parts)


def entry(number: int = 0, mark: Mark = Mark.NEW, before: int | None = None, **parts: Any) -> ReportEntry:
    """A deal in a report."""
    return ReportEntry(deal(number, **parts), mark, None if before is None else eur(before))


REPORT = Report(
    user="anna",
    report_date=date(2026, 11, 21),
    timezone="Europe/Berlin",
    composed_at=NOW,
    since=NOW - timedelta(days=1),
    chart_days=90,
    parts=(
        FilterPart(
            7,
            "Mechanical, below 100 €",
            True,
            (
                entry(1, is_all_time_low=True, score=91.0),
                entry(2, Mark.CHEAPER, 8990, price=7490, below_median_pct=25.03),
                entry(3, title=HOSTILE, image_url="https://m.media-amazon.com/images/I/61x.jpg?a=1&b=2", is_list_price_fiction=True),
                entry(4, title=LONG, brand=None, image_url=None, chart=(), score=None, layout=None, rating_tenths=None, median_90=None),
                entry(5, Mark.KNOWN),
                entry(6, Mark.DEARER, 5990),
            ),
            (
                GoneDeal("B0GONE0001", Marketplace.DE, "Logitech MX Keys S Plus", eur(8990)),
                GoneDeal("B0GONE0002", Marketplace.DE, HOSTILE, eur(99)),
            ),
        ),
        FilterPart(
            8, "Split & ergonomic <all>", False,
            (entry(1, is_all_time_low=True, score=91.0), entry(8, is_year_low=True, price=10990, chart=_FALLING[::-1])),
        ),
        FilterPart(9, "Quiet switches", False, ()),
    ),
    drops=(
        WatchDrop(
            "B0WATCH001", Marketplace.DE, PriceType.AMAZON, "NuPhy Air75 V2 flache mechanische Tastatur",
            "https://m.media-amazon.com/images/I/61watch.jpg", eur(10450), eur(13990), eur(10000), NOW - timedelta(hours=5), _FALLING,
        ),
    ),
    drops_found=3,
    held=(HeldAlert("Instant: Wooting", deal(9, title="Wooting 60HE+ Modul", price=14900), NOW - timedelta(hours=9)),),
    held_found=2,
    problems=("Your filter Quiet cannot be read: words: must be a text",),
)  # fmt: skip

EMPTY = replace(REPORT, parts=(), drops=(), drops_found=0, held=(), held_found=0, problems=())


def full(parts: int = 3, deals: int = 10) -> Report:
    """As large as a report gets with so many filters, all of it news with long titles and charts that never repeat a price."""
    chart = tuple(5000 + (bar * 7919) % 5000 for bar in range(30))
    return replace(
        REPORT,
        parts=tuple(
            FilterPart(
                part, f"Filter {part}", True, tuple(entry(part * 100 + n, title="Tastatur " * 22, chart=chart) for n in range(deals))
            )
            for part in range(parts)
        ),
    )
