"""Deals as people subscribe to them: Atom for feed readers (RFC 4287), CSV for spreadsheets (RFC 4180)."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from xml.etree import ElementTree

from keeper.domain.money import Money
from keeper.domain.watch_list import FORMULA_SIGNS

ATOM: Final = "http://www.w3.org/2005/Atom"
CSV_COLUMNS: Final = (
    "asin", "marketplace", "title", "brand", "category", "price_type", "price", "currency", "list_price", "discount_pct", "median_90",
    "below_median_pct", "lowest_year", "score", "rating", "reviews", "sales_rank", "since", "announced_at", "ended_at", "link",
)  # fmt: skip
# What XML 1.0 does not hold, not even escaped.
_NO_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class FeedEntry:
    """A deal as a reader shows it. Amounts are in minor units; None means nobody knows.

    Attributes:
        deal_id: the same for good, so that a reader knows what it has shown.
        updated_at: when it was announced, or ended.
    """

    deal_id: str
    asin: str
    marketplace: str
    title: str | None
    brand: str | None
    category: str | None
    link: str
    price_type: str
    currency: str
    amount_minor: int
    list_price_minor: int | None
    discount_pct: float | None
    median_90_minor: int | None
    below_median_pct: float | None
    lowest_year_minor: int | None
    is_year_low: bool | None
    is_all_time_low: bool | None
    score: float | None
    rating: float | None
    review_count: int | None
    sales_rank: int | None
    changed_at: datetime
    announced_at: datetime
    ended_at: datetime | None

    @property
    def updated_at(self) -> datetime:
        return max(self.announced_at, self.ended_at or self.announced_at)


def write_atom(filter_id: int, name: str, made_at: datetime, entries: Sequence[FeedEntry]) -> bytes:
    """A feed. It names no address of its own, because that holds the reader's key.

    Args:
        made_at: when the filter was made: a feed without entries changed last then.
    """
    # As the default namespace: some readers know no other form.
    feed = ElementTree.Element("feed", {"xmlns": ATOM})
    _add(feed, "id", f"urn:keeper:filter:{filter_id}")
    _add(feed, "title", f"Keeper: {name}")
    _add(feed, "updated", _time(max([made_at, *(entry.updated_at for entry in entries)])))
    _add(_add(feed, "author"), "name", "Keeper")
    for entry in entries:
        element = _add(feed, "entry")
        _add(element, "id", f"urn:keeper:deal:{entry.deal_id}")
        _add(element, "title", f"{_money(entry.amount_minor, entry)} · {entry.title or entry.asin}")
        _add(element, "updated", _time(entry.updated_at))
        _add(element, "published", _time(entry.announced_at))
        ElementTree.SubElement(element, "link", {"rel": "alternate", "href": entry.link})
        if entry.category:
            ElementTree.SubElement(element, "category", {"term": _NO_XML.sub("", entry.category)})
        _add(element, "summary", _summary(entry))
    document: str = ElementTree.tostring(feed, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{document}\n'.encode()


def write_csv(entries: Iterable[FeedEntry]) -> bytes:
    """A table with a head. A text that a spreadsheet would run as a formula gets an apostrophe in front."""
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(CSV_COLUMNS)
    for entry in entries:
        cells = (
            entry.asin, entry.marketplace, entry.title, entry.brand, entry.category, entry.price_type, _amount(entry.amount_minor, entry),
            entry.currency, _amount(entry.list_price_minor, entry), entry.discount_pct, _amount(entry.median_90_minor, entry),
            entry.below_median_pct, _amount(entry.lowest_year_minor, entry), entry.score, entry.rating, entry.review_count,
            entry.sales_rank, _time(entry.changed_at), _time(entry.announced_at),
            None if entry.ended_at is None else _time(entry.ended_at), entry.link,
        )  # fmt: skip
        writer.writerow([_defused(cell) if isinstance(cell, str) else cell for cell in cells])
    return table.getvalue().encode(errors="replace")


def _add(parent: ElementTree.Element, name: str, text: str | None = None) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, name)
    element.text = None if text is None else _NO_XML.sub("", text)
    return element


def _summary(entry: FeedEntry) -> str:
    said = [_money(entry.amount_minor, entry)]
    if entry.discount_pct is not None and entry.list_price_minor is not None:
        said.append(f"{entry.discount_pct:.0f} % below the list price of {_money(entry.list_price_minor, entry)}")
    if entry.below_median_pct is not None and entry.below_median_pct > 0:
        middle = f" of {_money(entry.median_90_minor, entry)}" if entry.median_90_minor is not None else ""
        said.append(f"{entry.below_median_pct:.0f} % below the middle of 90 days{middle}")
    if entry.is_all_time_low:
        said.append("it never cost less")
    elif entry.is_year_low:
        said.append("it did not cost less within a year")
    elif entry.lowest_year_minor is not None:
        said.append(f"the least within a year was {_money(entry.lowest_year_minor, entry)}")
    if entry.rating is not None:
        said.append(f"{entry.rating:.1f} stars" + (f" of {entry.review_count}" if entry.review_count else ""))
    if entry.score is not None:
        said.append(f"score {entry.score:.0f} of 100")
    if entry.ended_at is not None:
        said.append(f"over since {_time(entry.ended_at)}")
    return " · ".join(said)


def _money(amount_minor: int, entry: FeedEntry) -> str:
    return str(Money(amount_minor, entry.currency))


def _amount(amount_minor: int | None, entry: FeedEntry) -> str | None:
    return None if amount_minor is None else str(Money(amount_minor, entry.currency).amount)


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _defused(cell: str) -> str:
    return f"'{cell}" if cell[:1] in FORMULA_SIGNS else cell
