"""What a filter may be, and what is kept of it."""

from typing import Any

import pytest

from keeper.domain.deal_filter import DealFilter, DealFilterInvalid, check_name, read_rules, write_rules
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType

DE, FR, UK, JP = Marketplace.DE, Marketplace.FR, Marketplace.UK, Marketplace.JP
FULL = DealFilter(
    words='cherry "leise tastatur"',
    exclude_words="hülle aufkleber",
    brands=("Cherry", "Logitech"),
    categories=("Tastaturen", "430170031"),
    marketplaces=(DE, FR),
    price_from_minor=2000,
    price_to_minor=10000,
    discount_from_pct=20,
    discount_to_pct=90.5,
    below_median_from_pct=10,
    rating_from=4.2,
    reviews_from=50,
    rank_to=20_000,
    score_from=40,
    price_types=(PriceType.NEW, PriceType.AMAZON),
    layouts=("qwertz",),
    group="keyboards",
)


def test_what_is_kept_is_read_as_it_was() -> None:
    assert read_rules(write_rules(FULL)) == FULL


def test_only_the_conditions_there_are_are_kept() -> None:
    assert write_rules(DealFilter()) == {}
    assert write_rules(DealFilter(words="cherry", rank_to=0)) == {"words": "cherry", "rank_to": 0}


def test_every_condition_is_written_and_read() -> None:
    assert set(write_rules(FULL)) == set(DealFilter.__slots__)


@pytest.mark.parametrize(
    ("asked", "field", "told"),
    [
        pytest.param({"words": '"?!"'}, "words", "holds no word", id="no word"),
        pytest.param({"exclude_words": "a " * 150}, "exclude_words", "holds no word, or more than 20", id="too many words"),
        pytest.param({"words": "a" * 301}, "words", "at most 300", id="too long"),
        pytest.param({"words": "a\x00b"}, "words", "must be a text", id="NUL"),
        pytest.param({"brands": ("\ud800",)}, "brands", "must be a text", id="half a character"),
        pytest.param({"brands": ("",)}, "brands", "1 to 300", id="empty brand"),
        pytest.param({"categories": ("x",) * 51}, "categories", "names 51; at most 50", id="too many categories"),
        pytest.param({"marketplaces": (DE, DE)}, "marketplaces", "names one twice", id="twice"),
        pytest.param({"price_types": (PriceType.RATING,)}, "price_types", "RATING has no deals", id="no price"),
        pytest.param({"price_to_minor": 5000}, "price_to_minor", "name them", id="a price anywhere"),
        pytest.param({"price_from_minor": 1, "marketplaces": (DE, UK)}, "price_from_minor", "DE in EUR; UK in GBP", id="two currencies"),
        pytest.param(
            {"price_from_minor": 2, "price_to_minor": 1, "marketplaces": (DE,)}, "price_to_minor", "not be below", id="upside down"
        ),
        pytest.param({"price_from_minor": -1, "marketplaces": (DE,)}, "price_from_minor", "from 0 to", id="negative price"),
        pytest.param({"discount_from_pct": 50, "discount_to_pct": 20}, "discount_to_pct", "not be below", id="discount upside down"),
        pytest.param({"discount_to_pct": 101}, "discount_to_pct", "from 0 to 100", id="more than all"),
        pytest.param({"below_median_from_pct": -1}, "below_median_from_pct", "from 0 to 100", id="above the median"),
        pytest.param({"rating_from": 5.1}, "rating_from", "from 0 to 5", id="six stars"),
        pytest.param({"score_from": 100.5}, "score_from", "from 0 to 100", id="score"),
        pytest.param({"reviews_from": 2**31}, "reviews_from", "from 0 to", id="reviews"),
    ],
)
def test_what_cannot_be_names_its_field(asked: dict[str, Any], field: str, told: str) -> None:
    with pytest.raises(DealFilterInvalid, match=told) as caught:
        DealFilter(**asked)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")


@pytest.mark.parametrize("places", [(DE, FR), (JP,), (UK,)])
def test_a_price_is_in_the_one_currency_of_its_marketplaces(places: tuple[Marketplace, ...]) -> None:
    assert DealFilter(marketplaces=places, price_to_minor=5000).currency == places[0].currency


@pytest.mark.parametrize(
    ("rules", "field", "told"),
    [
        pytest.param({"words": "cherry", "colour": "red"}, "colour", "is no rule; a filter knows words, exclude_words", id="unknown"),
        pytest.param([], "rules", "must be an object", id="a list"),
        pytest.param({"words": 1}, "words", "must be a text", id="no text"),
        pytest.param({"brands": "Cherry"}, "brands", "must be a list", id="no list"),
        pytest.param({"brands": [1]}, "brands", "must be a text", id="a number among brands"),
        pytest.param({"marketplaces": ["XX"]}, "marketplaces", "'XX' is not known; choose among US, UK", id="no marketplace"),
        pytest.param({"rank_to": True}, "rank_to", "must be a whole number", id="a boolean"),
        pytest.param({"rank_to": 1.5}, "rank_to", "must be a whole number", id="a fraction"),
        pytest.param({"rating_from": "4"}, "rating_from", "must be a number", id="text for a number"),
        pytest.param({"rating_from": float("nan")}, "rating_from", "must be a number", id="not a number"),
        pytest.param({"score_from": 10**400}, "score_from", "must be", id="larger than any number"),
        pytest.param({"group": 7}, "group", "must be a text", id="group"),
    ],
)
def test_rules_that_cannot_be_read_name_what_is_wrong(rules: object, field: str, told: str) -> None:
    with pytest.raises(DealFilterInvalid, match=told) as caught:
        read_rules(rules)
    assert caught.value.field == field


def test_a_name_is_trimmed() -> None:
    assert check_name("  Cherry   unter 50 ") == "Cherry unter 50"


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\x00b"])
def test_a_name_is_a_name(name: str) -> None:
    with pytest.raises(DealFilterInvalid, match="name: must have 1 to 100"):
        check_name(name)
