"""A file of watches: read row by row, whatever is in it."""

import csv
import io
import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_type import PriceType
from keeper.domain.watch import Watch
from keeper.domain.watch_list import (
    COLUMNS,
    EXPORT_COLUMNS,
    LARGEST_BYTES,
    MOST_ROWS,
    ListedWatch,
    ListForm,
    WatchList,
    WatchListUnreadable,
    decode_list,
    guess_form,
)

ASIN, OTHER = "B00OCMRV40", "B08DG4C63H"
FULL = Watch(ASIN, Marketplace.UK, PriceType.BUY_BOX_SHIPPING, Money(4990, "GBP"), timedelta(minutes=30), 2.5)


def read_csv(text: str | bytes) -> WatchList:
    return decode_list(text if isinstance(text, bytes) else text.encode(), ListForm.CSV)


def read_json(document: Any) -> WatchList:
    return decode_list(document if isinstance(document, bytes) else json.dumps(document).encode(), ListForm.JSON)


def only(found: WatchList) -> ListedWatch:
    assert found.rejected == ()
    [listed] = found.watches
    return listed


def problems(found: WatchList) -> list[tuple[int, str | None]]:
    return [(one.line, one.field) for one in found.rejected]


# --- what is read


ALL = "asin,marketplace,price_type,target,interval,hysteresis_pct,is_paused"
HEADINGS = '\ufeff"ASIN","Marketplace","Price type","Target","Interval","Hysteresis pct","Is paused"'
LINK = "https://www.amazon.co.uk/dp/B00OCMRV40?th=1"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"{ALL}\nB00OCMRV40,UK,buybox,49.90,30m,2.5,no\n", id="plain"),
        pytest.param(f"{ALL.replace(',', ';')}\nb00ocmrv40;uk;BUYBOX;49,90;1800;2,5%;FALSCH", id="German"),
        pytest.param(
            "is_paused\ttarget\tasin\tmarketplace\tinterval\thysteresis_pct\tprice_type\r\n0\t49.9\tB00OCMRV40\tUK\t30m\t2.50\tbuy box\r\n",
            id="tabs, another order",
        ),
        pytest.param(f'{HEADINGS}\n"B00OCMRV40","UK","BUY_BOX_SHIPPING","49,90","30m","2.5","false"', id="quotes and a mark of order"),
        pytest.param(f"\n\n{ALL},\n,,,,,,,\n B00OCMRV40 , uk , buybox , 49.90 , 30m , 2.5 , no ,\n", id="blanks and empty rows"),
        pytest.param(
            "asin,price_type,target,interval,hysteresis_pct,is_paused,title,price,currency\n"
            f'{LINK},buybox,49.90,30m,2.5,no,"A ""quoted"" title,\nin two lines",12.50,GBP\n',
            id="a link, and what an export adds",
        ),
    ],
)
def test_a_row_of_csv_is_a_watch(text: str) -> None:
    listed = only(read_csv(text))
    assert (listed.watch, listed.is_paused) == (FULL, False)


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"watches": rows, "next": None}], ids=["a list", "an object"])
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="text"),
        pytest.param({"target": 49.9, "interval": 1800, "hysteresis_pct": 2.5}, id="numbers"),
        pytest.param({"interval": 1800.0, "is_paused": "false", "title": None, "currency": "GBP", "price": 1}, id="odd ones"),
    ],
)
def test_an_object_of_json_is_a_watch(wrap: Any, changes: dict[str, Any]) -> None:
    row = {
        "asin": ASIN, "marketplace": "UK", "price_type": "BUY_BOX_SHIPPING", "target": "49.90", "interval": "30m", "hysteresis_pct": "2.5",
        "is_paused": False,
    }  # fmt: skip
    listed = only(read_json(wrap([row | changes])))
    assert (listed.watch, listed.is_paused) == (FULL, False)


@pytest.mark.parametrize("found", [read_csv(f"asin\n{ASIN}\n"), read_json([{"asin": ASIN}])], ids=["csv", "json"])
def test_only_the_asin_is_needed(found: WatchList) -> None:
    listed = only(found)
    assert (listed.watch, listed.is_paused, set(listed.said)) == (Watch(ASIN, Marketplace.DE), None, {"asin"})


@pytest.mark.parametrize(
    ("found", "said"),
    [
        pytest.param(read_csv(f"asin,target,interval\n{ASIN},,\n"), {"asin", "target"}, id="empty cells"),
        pytest.param(read_csv(f"asin,target,interval\n{ASIN}\n"), {"asin"}, id="a short row"),
        pytest.param(read_csv(f"asin,interval\n{ASIN},6h\n"), {"asin", "interval"}, id="a default said"),
        pytest.param(read_json([{"asin": ASIN, "target": None, "interval": None}]), {"asin", "target"}, id="null"),
    ],
)
def test_a_row_says_what_it_has(found: WatchList, said: set[str]) -> None:
    assert only(found).said == said


def test_an_apostrophe_against_formulas_is_taken_off() -> None:
    assert only(read_csv(f"asin,target\n{ASIN},'+49.90\n")).watch.target == Money(4990, "EUR")


def test_yen_have_no_smaller_unit() -> None:
    assert only(read_csv(f"asin,marketplace,target\n{ASIN},JP,4980\n")).watch.target == Money(4980, "JPY")


@pytest.mark.parametrize("text", ["asin\n", "asin,target\r\n\r\n", "[]", '{"watches": []}'])
def test_a_list_without_rows_is_empty(text: str) -> None:
    assert decode_list(text.encode(), guess_form(text.encode())) == WatchList(0, (), ())


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (b"asin,target\n", ListForm.CSV),
        (b'\xef\xbb\xbf [{"asin"', ListForm.JSON),
        (b'\n{"watches": []}', ListForm.JSON),
        (b"", ListForm.CSV),
    ],
)
def test_the_form_is_guessed_from_the_first_sign(content: bytes, form: ListForm) -> None:
    assert guess_form(content) is form


# --- what is rejected, by line and field


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        ("asin", "B00", "not an ASIN"),
        ("asin", "306406152", "dropped the zeros"),
        ("marketplace", "GB", "choose one of US, UK"),
        ("price_type", "SALES", "cannot be watched"),
        ("target", "cheap", "not an amount"),
        ("target", "0", "above 0"),
        ("target", "-5", "above 0"),
        ("target", "49.905", "finer than EUR"),
        ("target", "1e999999999", "write it like"),
        ("target", "NaN", "not an amount"),
        ("target", "9" * 100, "too long"),
        ("interval", "soon", "not a duration"),
        ("interval", "30s", "from 1 minute to 30 days"),
        ("interval", "59", "from 1 minute to 30 days"),
        ("interval", "99999999999999999999", "from 1 minute to 30 days"),
        ("interval", "31d", "from 1 minute to 30 days"),
        ("hysteresis_pct", "lots", "not a number"),
        ("hysteresis_pct", "101", "from 0 to 100"),
        ("hysteresis_pct", "-1", "from 0 to 100"),
        ("hysteresis_pct", "nan", "not a number"),
        ("is_paused", "maybe", "neither true nor false"),
        ("currency", "USD", "prices in DE are in EUR"),
    ],
)
def test_a_fault_is_told_with_line_and_field(column: str, cell: str, said: str) -> None:
    header, row = ("asin", cell) if column == "asin" else (f"asin,{column}", f"{ASIN},{cell}")
    found = read_csv(f"{header}\n{row}\n{OTHER}\n")
    assert (problems(found), len(found.watches), found.rows) == ([(2, column)], 1, 2)
    assert said in found.rejected[0].message


@pytest.mark.parametrize(
    ("row", "field"),
    [
        pytest.param("text", None, id="no object"),
        pytest.param({}, "asin", id="nothing"),
        pytest.param({"asin": None}, "asin", id="null"),
        pytest.param({"asin": 306406152}, "asin", id="a number as ASIN"),
        pytest.param({"asin": ASIN, "asins": 1}, None, id="an unknown field"),
        pytest.param({"asin": ASIN, "\ud800": 1}, None, id="half a character"),
        pytest.param({"asin": "\ud800" * 10}, "asin", id="half characters"),
        pytest.param({"asin": f"{ASIN[:9]}\0"}, "asin", id="a NUL"),
        pytest.param({"asin": ASIN, "marketplace": 3}, "marketplace", id="a number as marketplace"),
        pytest.param({"asin": ASIN, "price_type": ["NEW"]}, "price_type", id="a list"),
        pytest.param({"asin": ASIN, "target": True}, "target", id="a truth as amount"),
        pytest.param({"asin": ASIN, "target": {"amount": 1}}, "target", id="an object as amount"),
        pytest.param({"asin": ASIN, "interval": 90.5}, "interval", id="half a second"),
        pytest.param({"asin": ASIN, "interval": False}, "interval", id="a truth as interval"),
        pytest.param({"asin": ASIN, "hysteresis_pct": []}, "hysteresis_pct", id="a list as number"),
        pytest.param({"asin": ASIN, "is_paused": 1}, "is_paused", id="a number as truth"),
        pytest.param({"asin": ASIN, "currency": 978}, "currency", id="a number as currency"),
    ],
)
def test_a_value_of_another_type_is_told_with_its_place(row: Any, field: str | None) -> None:
    found = read_json([{"asin": OTHER}, row])
    assert (problems(found), len(found.watches)) == ([(2, field)], 1)


def test_all_faults_of_a_row_are_told() -> None:
    found = read_csv("asin,marketplace,interval,target\nB00,XX,1s,abc\n")
    assert (problems(found), found.rows) == ([(2, "asin"), (2, "marketplace"), (2, "interval")], 1)


def test_a_row_without_an_asin_is_named() -> None:
    assert problems(read_csv("asin,target\n,5\n")) == [(2, "asin")]


def test_lines_count_what_quotes_hold() -> None:
    text = f'asin,title\r\n{ASIN},"one\r\ntwo\nthree"\r\n\r\nwrong,x\r\n'
    assert problems(read_csv(text)) == [(6, "asin")]


def test_a_price_that_is_there_twice_is_named_with_its_first_line() -> None:
    found = read_csv(f"asin,target\n{ASIN},5\n{OTHER},5\nhttps://www.amazon.de/dp/{ASIN},6\n")
    assert (problems(found), len(found.watches)) == ([(4, "asin")], 2)
    assert found.rejected[0].message == f"{ASIN} in DE (NEW) is in line 2 already"


def test_a_row_that_was_rejected_is_no_first_one() -> None:
    found = read_csv(f"asin,target\n{ASIN},x\n{ASIN},5\n")
    assert (problems(found), len(found.watches)) == ([(2, "target")], 1)


def test_a_link_to_another_store_than_the_row_says_is_a_fault() -> None:
    found = read_csv(f"asin,marketplace\nhttps://www.amazon.it/dp/{ASIN},FR\n")
    assert (problems(found), "leads to IT" in found.rejected[0].message) == ([(2, "marketplace")], True)


def test_a_cell_without_a_column_is_a_fault() -> None:
    found = read_csv(f"asin,target\n{ASIN},49,90\n")
    assert (problems(found), "quotes around it" in found.rejected[0].message) == ([(2, None)], True)


# --- what is refused whole


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"", "empty", id="nothing"),
        pytest.param(b"\n \n", "empty", id="blank lines"),
        pytest.param(b"target\n5\n", "`asin`", id="no asin"),
        pytest.param(b"B00OCMRV40\nB08DG4C63H\n", "must name the columns", id="no header"),
        pytest.param(b"asin,colour,shape\n", r"unknown columns: 'colour', 'shape'; known are asin, marketplace", id="unknown columns"),
        pytest.param(b"asin,target,Target\n", "names target twice", id="a column twice"),
        pytest.param("asin,title\nB00OCMRV40,T\xe4st\n".encode("latin-1"), "line 2 is not UTF-8", id="another encoding"),
        pytest.param("asin\n".encode("utf-16"), "UTF-8", id="two bytes a character"),
        pytest.param(b'asin,title\nB00OCMRV40,"27" inches"\n', "line 2 is not CSV", id="a quote within quotes"),
        pytest.param(b'asin,title\nB00OCMRV40,x\nB08DG4C63H,"open\nB08DG4C63I,x\n', "line 3 is not CSV", id="an open quote"),
        pytest.param(b"asin,title\nB00OCMRV40," + b"x" * 200_000, "line 2 is not CSV", id="a huge cell"),
        pytest.param(b"asin\n" + b"x" * LARGEST_BYTES, "larger than 8 MB", id="a huge file"),
    ],
)
def test_csv_that_says_nothing_is_refused_whole(content: bytes, said: str) -> None:
    with pytest.raises(WatchListUnreadable, match=said):
        read_csv(content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"", "not JSON", id="nothing"),
        pytest.param(b"[", "not JSON", id="half a list"),
        pytest.param(b"5", "must be a list", id="a number"),
        pytest.param(b'{"rows": []}', "must be a list", id="another object"),
        pytest.param(b"[" * 100_000, "nested too deeply", id="deep"),
        pytest.param(b'[{"asin": "B00OCMRV40", "target": NaN}]', "NaN is no number", id="no number"),
        pytest.param(b'[{"asin": "B00OCMRV40", "target": 1e99999999999999999999}]', "beyond any", id="beyond numbers"),
        pytest.param(b"[" + b"9" * 5000 + b"]", "not JSON", id="five thousand digits"),
        pytest.param(b'["\xff"]', "line 1 is not UTF-8", id="another encoding"),
    ],
)
def test_json_that_says_nothing_is_refused_whole(content: bytes, said: str) -> None:
    with pytest.raises(WatchListUnreadable, match=said):
        read_json(content)


@pytest.mark.parametrize("form", ListForm)
def test_ten_thousand_rows_are_read_and_one_more_is_too_many(form: ListForm) -> None:
    asins = [f"B{number:09d}" for number in range(MOST_ROWS + 1)]

    def content(some: list[str]) -> bytes:
        return ("\n".join(["asin", *some]) if form is ListForm.CSV else json.dumps([{"asin": one} for one in some])).encode()

    assert len(decode_list(content(asins[:-1]), form).watches) == MOST_ROWS
    with pytest.raises(WatchListUnreadable, match="more than 10,000 rows"):
        decode_list(content(asins), form)


# --- whatever a file holds

_CELLS = st.one_of(
    st.text(),
    st.sampled_from(
        ["", ASIN, OTHER, "DE", "xx", "NEW", "49,90", "1e400", "-0", "sNaN", "Infinity", "6h", "0", "true", "'=1", '"', "\r", "\0"]
    ),
)
_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), _CELLS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


def assert_told_in_words(content: bytes, form: ListForm) -> None:
    try:
        found = decode_list(content, form)
    except WatchListUnreadable as error:
        assert str(error).encode()
        return
    lines = [one.line for one in found.watches] + list({one.line for one in found.rejected})
    assert sorted(set(lines)) == sorted(lines)
    assert len(lines) == found.rows
    for problem in found.rejected:
        assert problem.message.encode()
        assert len(problem.message) < 400


@given(content=st.binary(), form=st.sampled_from(ListForm))
@example(content=b"asin\n\0\n", form=ListForm.CSV)
def test_bytes_are_read_or_refused_in_words(content: bytes, form: ListForm) -> None:
    assert_told_in_words(content, form)


@given(
    header=st.lists(st.sampled_from([*COLUMNS, *EXPORT_COLUMNS, "", "x"]), min_size=1, max_size=8),
    rows=st.lists(st.lists(_CELLS, max_size=9), max_size=5),
    separator=st.sampled_from(",;\t"),
    has_asin=st.booleans(),
)
def test_cells_are_read_or_refused_in_words(header: list[str], rows: list[list[str]], separator: str, has_asin: bool) -> None:
    written = io.StringIO(newline="")
    named = (["asin"] if has_asin else []) + list(dict.fromkeys(name for name in header if name != "asin" or not has_asin))
    csv.writer(written, delimiter=separator).writerows([named, *rows])
    assert_told_in_words(written.getvalue().encode(errors="replace"), ListForm.CSV)


@given(rows=st.lists(st.one_of(_VALUES, st.dictionaries(st.sampled_from([*COLUMNS, *EXPORT_COLUMNS]), _VALUES)), max_size=5))
def test_values_are_read_or_refused_in_words(rows: list[Any]) -> None:
    assert_told_in_words(json.dumps(rows).encode(), ListForm.JSON)
