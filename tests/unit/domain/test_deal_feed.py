"""Feeds that readers and spreadsheets take."""

import csv
import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.domain.deal_feed import ATOM, CSV_COLUMNS, FeedEntry, write_atom, write_csv

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ENTRY = FeedEntry(
    deal_id="B00OCMRV40-DE-NEW-1795173360", asin="B00OCMRV40", marketplace="DE", title="Tastatur <b>fett</b> & leise", brand="Cherry",
    category="Tastaturen", link="https://www.amazon.de/dp/B00OCMRV40", price_type="NEW", currency="EUR", amount_minor=4999,
    list_price_minor=9999, discount_pct=50.01, median_90_minor=7999, below_median_pct=37.5, lowest_year_minor=5499, is_year_low=False,
    is_all_time_low=None, score=71, rating=4.5, review_count=210, sales_rank=17, changed_at=AT - timedelta(hours=2), announced_at=AT,
    ended_at=None,
)  # fmt: skip


def parsed(*entries: FeedEntry, name: str = "Cherry") -> ElementTree.Element:
    return ElementTree.fromstring(write_atom(7, name, AT - timedelta(days=9), entries))  # noqa: S314  our own


def texts(element: ElementTree.Element, name: str) -> list[str | None]:
    return [one.text for one in element.iter(f"{{{ATOM}}}{name}")]


def test_a_feed_has_what_rfc_4287_asks_for() -> None:
    feed = parsed(ENTRY)
    assert feed.tag == f"{{{ATOM}}}feed"
    [entry] = feed.findall(f"{{{ATOM}}}entry")
    for element in (feed, entry):
        for name in ("id", "title", "updated"):
            [only] = element.findall(f"{{{ATOM}}}{name}")
            assert only.text
    assert feed.findall(f"{{{ATOM}}}author/{{{ATOM}}}name")[0].text == "Keeper"


def test_an_entry_keeps_its_id_and_leads_to_amazon() -> None:
    feed = parsed(ENTRY)
    assert texts(feed, "id") == ["urn:keeper:filter:7", "urn:keeper:deal:B00OCMRV40-DE-NEW-1795173360"]
    assert [link.attrib for link in feed.iter(f"{{{ATOM}}}link")] == [{"rel": "alternate", "href": ENTRY.link}]


def test_a_summary_says_price_discount_middle_and_low() -> None:
    [summary] = texts(parsed(ENTRY), "summary")
    assert summary == (
        "49.99 € · 50 % below the list price of 99.99 € · 38 % below the middle of 90 days of 79.99 € · "
        "the least within a year was 54.99 € · 4.5 stars of 210 · score 71 of 100"
    )


def test_a_feed_changed_last_when_its_last_deal_did() -> None:
    over = replace(ENTRY, ended_at=AT + timedelta(hours=3))
    assert texts(parsed(over, ENTRY), "updated") == ["2026-11-20T15:00:00Z", "2026-11-20T15:00:00Z", "2026-11-20T12:00:00Z"]
    assert texts(parsed(), "updated") == ["2026-11-11T12:00:00Z"]


@given(st.text(max_size=60), st.text(max_size=30))
def test_any_title_makes_valid_xml(title: str, name: str) -> None:
    feed = parsed(replace(ENTRY, title=title, category=title or None), name=name)
    assert len(feed.findall(f"{{{ATOM}}}entry")) == 1


def test_a_title_is_text_and_no_markup() -> None:
    assert texts(parsed(ENTRY), "title")[1] == "49.99 € · Tastatur <b>fett</b> & leise"


def rows(*entries: FeedEntry) -> list[dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(write_csv(entries).decode(), newline="")))


def test_a_table_has_a_head_and_plain_numbers() -> None:
    [row] = rows(ENTRY)
    assert tuple(row) == CSV_COLUMNS
    assert (row["price"], row["currency"], row["median_90"], row["rating"]) == ("49.99", "EUR", "79.99", "4.5")
    assert (row["ended_at"], row["announced_at"]) == ("", "2026-11-20T12:00:00Z")
    assert rows() == []


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_runs_as_a_formula(sign: str) -> None:
    evil = f'{sign}HYPERLINK("http://x")'
    [row] = rows(replace(ENTRY, title=evil, brand=evil, category=evil))
    assert row["title"] == row["brand"] == row["category"] == f"'{evil}"
