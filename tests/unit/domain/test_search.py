"""The rules of searching: queries, terms, likeness, cursors, bands."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.domain.search import (
    DISCOUNT_BANDS_PCT,
    Cursor,
    Position,
    SearchInvalid,
    SearchQuery,
    SearchSort,
    SearchSubject,
    SearchTerm,
    band_name,
    check_beginning,
    decode_cursor,
    encode_cursor,
    is_alike,
    parse_terms,
    price_bands_minor,
)

QUERY = SearchQuery(SearchSubject.PRODUCTS, "leise Tastatur")


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"text": "x" * 301}, "text"),
        ({"text": "a\x00b"}, "text"),
        ({"text": "\ud800"}, "text"),
        ({"price_from_minor": -1}, "price_from"),
        ({"price_to_minor": 1_000_000_001}, "price_to"),
        ({"price_from_minor": 2, "price_to_minor": 1}, "price_to"),
        ({"discount_from_pct": 100.01}, "discount_from"),
        ({"discount_from_pct": float("nan")}, "discount_from"),
        ({"rating_from": 5.1}, "rating_from"),
        ({"brands": ("x",) * 51}, "brands"),
        ({"categories": ("\ud800",)}, "categories"),
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"price_type": PriceType.NEW}, "price_type"),
        ({"includes_ended": True}, "includes_ended"),
        ({"sort": SearchSort.SCORE}, "sort"),
        ({"layouts": ("qwertz",)}, "layouts"),
        ({"group": ""}, "group"),
        ({"score_from": 0}, "score_from"),
        ({"subject": SearchSubject.DEALS, "discount_to_pct": 101}, "discount_to"),
        ({"subject": SearchSubject.DEALS, "discount_to_pct": 5, "discount_from_pct": 6}, "discount_to"),
        ({"subject": SearchSubject.DEALS, "below_median_from_pct": -1}, "below_median_from"),
        ({"subject": SearchSubject.DEALS, "reviews_from": -1}, "reviews_from"),
        ({"subject": SearchSubject.DEALS, "rank_to": 2**31}, "rank_to"),
        ({"subject": SearchSubject.DEALS, "score_from": 101}, "score_from"),
        ({"subject": SearchSubject.DEALS, "layouts": ("x",) * 51}, "layouts"),
        ({"subject": SearchSubject.DEALS, "group": "\ud800"}, "group"),
    ],
    ids=str,
)
def test_a_query_out_of_bounds_names_the_field(asked: dict[str, Any], field: str) -> None:
    with pytest.raises(SearchInvalid, match=f"^{field}: ") as raised:
        SearchQuery(**({"subject": SearchSubject.PRODUCTS} | asked))
    assert raised.value.field == field


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"price_from_minor": 5, "price_to_minor": 5, "discount_from_pct": 0, "rating_from": 5, "limit": 1000},
        {"subject": SearchSubject.DEALS, "price_type": PriceType.NEW, "includes_ended": True},
    ],
    ids=str,
)
def test_a_query_within_its_bounds_is_one(asked: dict[str, Any]) -> None:
    SearchQuery(**({"subject": SearchSubject.PRODUCTS} | asked))


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", []),
        ("  \n ", []),
        ("leise  Tastatur", ["leise", "Tastatur"]),
        ('"leise Tastatur" Cherry', ['"leise Tastatur', "Cherry"]),
        ('27" Monitor', ["27", "Monitor"]),
        ('ein "halbes', ["ein", "halbes"]),
        ('"" Maus', ["Maus"]),
        ("Maus & Tastatur - schwarz", ["Maus", "Tastatur", "schwarz"]),
        ("Maus maus Maus", ["Maus", "maus"]),
        ("KC-1000", ["KC-1000"]),
        ("Groﬁg", ["Grofig"]),
    ],
)
def test_a_text_is_words_and_phrases(text: str, terms: list[str]) -> None:
    """Here a quote before a term means a phrase."""
    assert parse_terms(text) == tuple(SearchTerm(one.lstrip('"'), is_phrase=one.startswith('"')) for one in terms)


@pytest.mark.parametrize("text", ["?!", '"..." -', "*"])
def test_a_text_without_a_word_is_refused(text: str) -> None:
    with pytest.raises(SearchInvalid, match="holds no word"):
        parse_terms(text)


def test_too_many_words_are_refused() -> None:
    with pytest.raises(SearchInvalid, match="holds 21 words; at most 20"):
        parse_terms(" ".join(f"wort{number}" for number in range(21)))


@given(st.text(max_size=300))
def test_any_text_is_terms_or_refused(text: str) -> None:
    try:
        terms = parse_terms(text)
    except SearchInvalid:
        return
    assert all(any(sign.isalnum() for sign in term.words) for term in terms)


@pytest.mark.parametrize(
    ("word", "other", "expected"),
    [
        ("keybord", "keyboard", True),
        ("keybaord", "keyboard", True),
        ("tsatatur", "tastatur", True),
        ("tastatuuur", "tastatur", True),
        ("tastatuuuur", "tastatur", False),
        ("tastatur", "statur", True),
        ("maus", "haus", True),
        ("maus", "mausi", True),
        ("maus", "hausi", False),
        ("usb", "us", True),
        ("pc", "pd", False),
        ("pc", "pc", True),
        ("kabel", "kable", True),
        ("abc", "cba", False),
    ],
)
def test_words_within_a_few_letters_are_alike(word: str, other: str, expected: bool) -> None:
    assert is_alike(word, other) is expected


@given(st.text("abcd", max_size=9), st.text("abcd", max_size=9))
def test_likeness_of_words_of_equal_length_has_no_direction(word: str, other: str) -> None:
    if len(word) == len(other):
        assert is_alike(word, other) is is_alike(other, word)
    assert is_alike(word, word)


@given(
    key=st.integers(-(2**61), 2**61) | st.floats(-1e15, 1e15),
    ids=st.lists(st.text("ABC-_0", max_size=64) | st.integers(-(2**61), 2**61), min_size=1, max_size=4),
    alike=st.lists(st.integers(0, 19), max_size=3),
)
def test_a_cursor_comes_back_as_it_was(key: float, ids: list[str | int], alike: list[int]) -> None:
    cursor = Cursor(Position(key, tuple(ids)), tuple(alike))
    assert decode_cursor(QUERY, encode_cursor(QUERY, cursor)) == cursor


@pytest.mark.parametrize(
    "other",
    [
        SearchQuery(SearchSubject.DEALS, "leise Tastatur"),
        SearchQuery(SearchSubject.PRODUCTS, "Tastatur leise"),
        SearchQuery(SearchSubject.PRODUCTS, "leise Tastatur", marketplace=Marketplace.UK),
        SearchQuery(SearchSubject.PRODUCTS, "leise Tastatur", sort=SearchSort.NEWEST),
        SearchQuery(SearchSubject.PRODUCTS, "leise Tastatur", price_to_minor=1),
    ],
    ids=str,
)
def test_a_cursor_of_another_query_is_refused(other: SearchQuery) -> None:
    with pytest.raises(SearchInvalid, match="belongs to another query"):
        decode_cursor(other, encode_cursor(QUERY, Cursor(Position(1, ("A",)))))


def test_a_cursor_goes_on_with_another_page_size() -> None:
    cursor = Cursor(Position(1, ("A",)))
    other = SearchQuery(SearchSubject.PRODUCTS, " leise   Tastatur ", limit=7, has_facets=True)
    assert decode_cursor(other, encode_cursor(QUERY, cursor)) == cursor


@pytest.mark.parametrize(
    "parts",
    [
        None,
        {},
        [],
        [1, 2, 3],
        [2, QUERY.fingerprint, [], 1, "A"],
        [1, QUERY.fingerprint, [], 1],
        [1, QUERY.fingerprint, [20], 1, "A"],
        [1, QUERY.fingerprint, [True], 1, "A"],
        [1, QUERY.fingerprint, 5, 1, "A"],
        [1, QUERY.fingerprint, [], "1", "A"],
        [1, QUERY.fingerprint, [], True, "A"],
        [1, QUERY.fingerprint, [], None, "A"],
        [1, QUERY.fingerprint, [], float("nan"), "A"],
        [1, QUERY.fingerprint, [], float("inf"), "A"],
        [1, QUERY.fingerprint, [], 10**400, "A"],
        [1, QUERY.fingerprint, [], 1, None],
        [1, QUERY.fingerprint, [], 1, ["A"]],
        [1, QUERY.fingerprint, [], 1, "A" * 65],
        [1, QUERY.fingerprint, [], 1, "\x00"],
        [1, QUERY.fingerprint, [], 1, 1.5],
        [1, QUERY.fingerprint, [], 1, 2**63],
        [1, QUERY.fingerprint, [], 1, "A", "B", "C", "D", "E"],
    ],
    ids=repr,
)
def test_a_made_up_cursor_is_refused(parts: object) -> None:
    text = base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()
    with pytest.raises(SearchInvalid, match="is not one that Keeper gave"):
        decode_cursor(QUERY, text)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda some: base64.urlsafe_b64encode(some).decode()))
def test_any_text_as_cursor_is_refused(text: str) -> None:
    with pytest.raises(SearchInvalid):
        decode_cursor(QUERY, text)


def test_bands_are_in_minor_units_of_the_order_of_the_currency() -> None:
    assert price_bands_minor("EUR") == (0, 2500, 5000, 10000, 20000, 50000)
    assert price_bands_minor("JPY") == (0, 2500, 5000, 10000, 20000, 50000)
    assert price_bands_minor("INR") == (0, 250000, 500000, 1000000, 2000000, 5000000)


def test_the_last_band_is_open() -> None:
    assert [band_name(DISCOUNT_BANDS_PCT, number) for number in (0, 4)] == ["0-10", "75-"]


@pytest.mark.parametrize(("text", "beginning"), [("", None), (" t ", None), ("t.", None), ("ta", "ta"), (" leise  ta", "leise ta")])
def test_a_beginning_has_two_letters(text: str, beginning: str | None) -> None:
    assert check_beginning(text) == beginning
