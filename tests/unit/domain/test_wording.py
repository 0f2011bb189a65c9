"""What people write, and what is made of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.domain.marketplace import Marketplace
from keeper.domain.wording import (
    WordsUnclear,
    find_store,
    read_asin,
    read_marketplace,
    read_price_type,
    read_span_seconds,
    shown,
    write_span,
)


@pytest.mark.parametrize("read", [read_asin, read_marketplace, read_price_type, read_span_seconds])
@given(text=st.text())
def test_any_text_is_read_or_refused_in_words(read: object, text: str) -> None:
    assert callable(read)
    try:
        read(text)
    except WordsUnclear as error:
        assert str(error).encode()


@pytest.mark.parametrize("read", [read_asin, read_marketplace, read_price_type, read_span_seconds])
@pytest.mark.parametrize("text", ["9" * 1_000_000, "/dp/" * 250_000, "1d" * 500_000], ids=["digits", "link", "days"])
def test_a_megabyte_is_refused_in_a_short_line(read: object, text: str) -> None:
    assert callable(read)
    with pytest.raises(WordsUnclear) as raised:
        read(text)
    assert len(str(raised.value)) < 300


def test_a_span_beyond_a_century_is_refused() -> None:
    with pytest.raises(WordsUnclear, match="century"):
        read_span_seconds("9" * 40 + "d")


@given(seconds=st.integers(1, 100 * 365 * 86400))
def test_a_span_is_read_as_it_was_written(seconds: int) -> None:
    assert read_span_seconds(write_span(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(21600, "6h"), (1800, "30m"), (129600, "1d12h"), (90, "1m30s"), (2592000, "30d"), (3661, "1h1m1s"), (0, "0s")]
)
def test_a_span_is_written_as_people_write_it(seconds: int, text: str) -> None:
    assert write_span(seconds) == text


@pytest.mark.parametrize("store", Marketplace)
def test_a_link_leads_to_its_store(store: Marketplace) -> None:
    link = f"https://{store.host}/Some-Keyboard/dp/B00OCMRV40/ref=sr_1_3?th=1"
    assert (find_store(link), read_asin(link)) == (store, "B00OCMRV40")


@pytest.mark.parametrize(
    "text", ["B00OCMRV40", "https://notamazon.de/dp/B00OCMRV40", "https://amazon.de.example.org/dp/B00OCMRV40", "https://amazon.xx/dp/1"]
)
def test_what_is_no_link_to_a_store_leads_to_none(text: str) -> None:
    assert find_store(text) is None


def test_what_is_shown_is_short_and_printable() -> None:
    assert shown("\ud800\n" * 1000).encode() == (b"'" + b"\\ud800\\n" * 8)[:60] + "…".encode()
