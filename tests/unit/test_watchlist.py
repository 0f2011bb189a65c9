"""A list that was written is read as it was, and runs nothing in a spreadsheet."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_type import WATCHABLE
from keeper.domain.watch import LARGEST_TARGET_MINOR, LONGEST_INTERVAL, Watch
from keeper.domain.watch_list import COLUMNS, ListForm, decode_list
from keeper.postgres.watches import WatchRow
from keeper.watchlist import write_csv, write_json

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
WRITERS: dict[ListForm, Callable[[Iterable[WatchRow]], Iterator[str]]] = {ListForm.CSV: write_csv, ListForm.JSON: write_json}


def row(**facts: Any) -> WatchRow:
    known: dict[str, Any] = {
        "watch_id": 1, "user": "anna", "asin": "B00OCMRV40", "marketplace": "DE", "price_type": "NEW", "title": "Tastatur",
        "target_minor": 4990, "currency": "EUR", "interval_seconds": 21600, "hysteresis_pct": 2.0, "is_armed": True, "amount_minor": 5499,
        "observed_at": NOW,
        "last_checked_at": NOW, "next_check_at": NOW, "last_failure": None, "is_paused": False, "created_at": NOW, "image_url": None,
    }  # fmt: skip
    return WatchRow(**(known | facts))


@st.composite
def rows(draw: st.DrawFn) -> list[WatchRow]:
    asins = draw(st.lists(st.from_regex(r"[A-Z0-9]{10}", fullmatch=True), max_size=5, unique=True))
    made = []
    for asin in asins:
        marketplace = draw(st.sampled_from(Marketplace))
        made.append(
            row(
                asin=asin,
                marketplace=marketplace.value,
                currency=marketplace.currency,
                price_type=draw(st.sampled_from(WATCHABLE)).value,
                title=draw(st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))),
                target_minor=draw(st.none() | st.integers(1, LARGEST_TARGET_MINOR)),
                amount_minor=draw(st.none() | st.integers(1, 2**31 - 1)),
                interval_seconds=draw(st.integers(60, round(LONGEST_INTERVAL.total_seconds()))),
                hysteresis_pct=draw(st.integers(0, 10_000)) / 100,
                is_paused=draw(st.booleans()),
            )
        )
    return made


def watch_of(one: WatchRow) -> Watch:
    marketplace = Marketplace(one.marketplace)
    target = Money(one.target_minor, one.currency) if one.target_minor else None
    price_type = next(known for known in WATCHABLE if known == one.price_type)
    return Watch(one.asin, marketplace, price_type, target, timedelta(seconds=one.interval_seconds), one.hysteresis_pct)


@pytest.mark.parametrize("form", ListForm)
@given(wanted=rows())
@example(wanted=[row(title="one\rtwo\nthree\r\nfour"), row(asin="B00OCMRV41")])
def test_what_was_written_is_read_as_it_was(form: ListForm, wanted: list[WatchRow]) -> None:
    found = decode_list("".join(WRITERS[form](wanted)).encode(), form)
    assert (found.rows, found.rejected) == (len(wanted), ())
    assert [(one.watch, one.is_paused) for one in found.watches] == [(watch_of(one), one.is_paused) for one in wanted]
    assert all(set(one.said) == set(COLUMNS) for one in found.watches)


def test_csv_is_what_people_read() -> None:
    assert "".join(write_csv([row(), row(marketplace="JP", currency="JPY", target_minor=None, amount_minor=4980, title=None)])) == (
        "asin,marketplace,price_type,target,interval,hysteresis_pct,is_paused,title,price,currency\n"
        "B00OCMRV40,DE,NEW,49.90,6h,2,false,Tastatur,54.99,EUR\n"
        "B00OCMRV40,JP,NEW,,6h,2,false,,4980,JPY\n"
    )


@pytest.mark.parametrize("wanted", [[], [row()], [row(), row()]], ids=len)
def test_json_is_an_object_with_a_list(wanted: list[WatchRow]) -> None:
    assert [one["target"] for one in json.loads("".join(write_json(wanted)))["watches"]] == ["49.90"] * len(wanted)


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(sign: str) -> None:
    title = f"{sign}HYPERLINK(1)"
    [_, cells] = csv.reader(io.StringIO("".join(write_csv([row(title=title)])), newline=""))
    assert (cells[7], [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]) == (f"'{title}", [])
