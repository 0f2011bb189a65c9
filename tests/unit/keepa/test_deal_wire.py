"""Claims about a page of deals: what a row becomes, and that a hole costs a row or a field, never the page."""

import json
from typing import Any

import pytest

from keeper.domain.deal import RootCategory
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.keepa.deal_wire import DecodedDeals, decode_deals
from keeper.keepa.wire import LAST_MINUTE, MINUTES_TO_2011, MOST_AMOUNT, NotAnAnswer

ASIN = "B0CPV5YY7K"
TOKENS = {"timestamp": 1_780_142_239_307, "tokensLeft": 1195, "refillIn": 59_147, "refillRate": 20, "tokensConsumed": 5}
ANSWERED = 8_105_000


def cells(fill: int, **values: int) -> list[int]:
    return [values.get(price_type.value, fill) for price_type in PriceType]


def deal(asin: str = ASIN, **fields: Any) -> dict[str, Any]:
    return {
        "asin": asin,
        "title": "Toaster &amp; Grill",
        "image": [ord(letter) for letter in "51+abc.jpg"],
        "rootCat": 562066,
        "categories": [1382696031, 9223372036854775807],
        "parentAsin": "B000000009",
        "current": cells(-1, NEW=1999, LISTPRICE=3999, SALES=120, COUNT_NEW=4, RATING=45, COUNT_REVIEWS=88),
        "currentSince": cells(-1, NEW=8_100_000, SALES=8_104_000),
        "avg": [cells(-2, NEW=2100), cells(-2, NEW=2500), cells(-2, NEW=-1), cells(-2, NEW=2900)],
        "delta": [cells(0)] * 4,
        "deltaPercent": [cells(0)] * 4,
        "deltaLast": cells(0, NEW=1000),
        "backInStock": [False] * 36,
        "creationDate": 8_100_000,
        "lastUpdate": 8_104_900,
        "lightningStart": 0,
        "lightningEnd": 0,
        "salesRankDrops90": 7,
        "warehouseCondition": 0,
    } | fields


def page(*rows: object, **fields: Any) -> bytes:
    deals = {"dr": list(rows), "categoryIds": [562066], "categoryNames": ["Elektronik"], "categoryCount": [1505], "drDateIndex": 0}
    return json.dumps(TOKENS | {"deals": deals, "dealsCached": True} | fields).encode()


def decoded(*rows: object, price_type: PriceType = PriceType.NEW, **fields: Any) -> DecodedDeals:
    return decode_deals(page(*rows, **fields), Marketplace.DE, price_type)


def test_a_row_becomes_a_sighting() -> None:
    (sighting,) = decoded(deal()).sightings
    assert (
        sighting.asin,
        sighting.marketplace,
        sighting.price_type,
        sighting.changed_minute - MINUTES_TO_2011,
        sighting.updated_minute - MINUTES_TO_2011,
        sighting.amount_minor,
        sighting.previous_minor,
        sighting.list_price_minor,
        sighting.averages_minor,
    ) == (ASIN, Marketplace.DE, PriceType.NEW, 8_100_000, 8_104_900, 1999, 2999, 3999, {2: 2100, 7: 2500, 90: 2900})


def test_what_a_row_says_of_its_product_is_kept() -> None:
    (sighting,) = decoded(deal()).sightings
    assert (
        sighting.title,
        sighting.image_url,
        sighting.rating_tenths,
        sighting.review_count,
        sighting.sales_rank,
        sighting.sales_rank_drops_90,
        sighting.offer_count,
        sighting.root_category_id,
        sighting.category_ids,
        sighting.category,
        sighting.parent_asin,
    ) == (
        "Toaster & Grill",
        "https://m.media-amazon.com/images/I/51+abc.jpg",
        45,
        88,
        120,
        7,
        4,
        562066,
        (1382696031,),
        "Elektronik",
        "B000000009",
    )


def test_present_values_are_there_for_who_looks() -> None:
    (sighting,) = decoded(deal()).sightings
    assert (sighting.current[PriceType.NEW], sighting.current[PriceType.USED], dict(sighting.current_since)) == (
        1999,
        None,
        {PriceType.NEW: 8_100_000 + MINUTES_TO_2011, PriceType.SALES: 8_104_000 + MINUTES_TO_2011},
    )


def test_a_page_says_how_many_rows_it_had_and_where_its_deals_are() -> None:
    answer = decoded(deal(), None, deal("B000000002"))
    assert (answer.row_count, answer.is_cached, answer.roots, json.loads(bytes(answer.raw["B000000002"]))) == (
        3,
        True,
        {562066: RootCategory("Elektronik", 1505)},
        deal("B000000002"),
    )


def test_no_offer_of_the_asked_type_skips_the_row() -> None:
    answer = decoded(deal(), deal("B000000002", current=cells(-1)), deal("B000000003", current=cells(0)))
    assert ([one.asin for one in answer.sightings], answer.skipped, answer.unreadable) == ([ASIN], ("B000000002", "B000000003"), {})


def test_a_repeated_row_counts_once() -> None:
    answer = decoded(deal(), deal(lastUpdate=1))
    assert (len(answer.sightings), answer.row_count) == (1, 2)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(None, id="null"),
        pytest.param([], id="a list"),
        pytest.param("B000000002", id="a text"),
        pytest.param({}, id="empty"),
        pytest.param({"asin": None}, id="its ASIN is null"),
        pytest.param({"asin": 7}, id="its ASIN is a number"),
        pytest.param(deal("b000000002"), id="its ASIN is none"),
    ],
)
def test_a_row_of_nobody_knows_whom_is_named_by_its_place(row: object) -> None:
    answer = decoded(row, deal())
    assert ([one.asin for one in answer.sightings], list(answer.unreadable)) == ([ASIN], [0])


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"current": None}, id="no current values"),
        pytest.param({"current": {}}, id="current values are no list"),
        pytest.param({"current": [1]}, id="current values are too few"),
        pytest.param({"current": [1, None, 3]}, id="the asked value is null"),
        pytest.param({"current": [1, "1999", 3]}, id="the asked value is a text"),
        pytest.param({"current": [1, MOST_AMOUNT + 1]}, id="the asked value is beyond any price"),
        pytest.param({"current": [1, 2**70]}, id="the asked value is beyond any number"),
        pytest.param({"currentSince": None, "creationDate": 0}, id="nobody knows since when"),
        pytest.param({"currentSince": cells(LAST_MINUTE + 1), "creationDate": -1}, id="since no date there is"),
    ],
)
def test_a_row_that_does_not_say_what_makes_it_a_deal_is_named_by_its_asin(fields: dict[str, Any]) -> None:
    answer = decoded(deal("B000000002", **fields), deal())
    assert ([one.asin for one in answer.sightings], list(answer.unreadable), list(answer.raw)) == ([ASIN], ["B000000002"], [ASIN])


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        pytest.param({"image": None}, "image_url", None, id="no picture"),
        pytest.param({"image": []}, "image_url", None, id="an empty picture"),
        pytest.param({"image": [300, -1]}, "image_url", None, id="a picture of no characters"),
        pytest.param({"image": [47, 46, 46, 47]}, "image_url", None, id="a picture of another folder"),
        pytest.param({"image": "51.jpg"}, "image_url", None, id="a picture that is a text"),
        pytest.param({"title": None}, "title", None, id="no title"),
        pytest.param({"title": 7}, "title", None, id="a title that is a number"),
        pytest.param({"title": "a\x00b\ud800"}, "title", None, id="a title with half a character"),
        pytest.param({"rootCat": 9223372036854775807}, "root_category_id", None, id="an unknown category"),
        pytest.param({"rootCat": 9223372036854776000}, "root_category_id", None, id="an unknown category by way of JavaScript"),
        pytest.param({"rootCat": 2**63 - 2}, "root_category_id", 2**63 - 2, id="a category of 64 bits"),
        pytest.param({"rootCat": "562066"}, "root_category_id", None, id="a category that is a text"),
        pytest.param({"categories": [5, None, "x", 6]}, "category_ids", (5, 6), id="categories with holes"),
        pytest.param({"categories": None}, "category_ids", (), id="no categories"),
        pytest.param({"parentAsin": ""}, "parent_asin", None, id="an empty parent"),
        pytest.param({"deltaLast": None}, "previous_minor", None, id="no last change"),
        pytest.param({"deltaLast": cells(0)}, "previous_minor", None, id="a last change of 0"),
        pytest.param({"deltaLast": cells(0, NEW=-999)}, "previous_minor", 1000, id="a rise"),
        pytest.param({"deltaLast": cells(0, NEW=-1999)}, "previous_minor", None, id="a rise from nothing"),
        pytest.param({"deltaLast": cells(0, NEW=MOST_AMOUNT)}, "previous_minor", None, id="a fall from beyond any price"),
        pytest.param({"avg": None}, "averages_minor", {}, id="no averages"),
        pytest.param({"avg": [None, cells(7), {}, cells(8)]}, "averages_minor", {7: 7, 90: 8}, id="averages with holes"),
        pytest.param({"avg": [[1, None], [1, 2]]}, "averages_minor", {7: 2}, id="two short averages, one with a hole"),
        pytest.param({"avg": [cells(MOST_AMOUNT + 1), cells(9)]}, "averages_minor", {7: 9}, id="an average beyond any price"),
        pytest.param({"currentSince": None}, "changed_minute", 8_100_000 + MINUTES_TO_2011, id="since its creation"),
        pytest.param({"lastUpdate": None}, "updated_minute", 8_100_000 + MINUTES_TO_2011, id="looked at when it changed"),
        pytest.param({"lastUpdate": "now"}, "updated_minute", 8_100_000 + MINUTES_TO_2011, id="looked at in words"),
        pytest.param({"salesRankDrops90": -1}, "sales_rank_drops_90", None, id="unknown drops"),
        pytest.param({"current": [1, 1999]}, "rating_tenths", None, id="current values are few"),
        pytest.param({"current": cells(-1, NEW=1, RATING=51)}, "rating_tenths", None, id="a rating of more than five stars"),
        pytest.param({"current": cells(-1, NEW=1, COUNT_REVIEWS=2**40)}, "review_count", None, id="more reviews than there can be"),
        pytest.param({"current": [*cells(-1, NEW=1999), 1, 2, 3]}, "amount_minor", 1999, id="price types of tomorrow"),
        pytest.param({"unheard": {"of": [1]}}, "amount_minor", 1999, id="an unknown field"),
    ],
)
def test_a_hole_costs_its_field(fields: dict[str, Any], name: str, value: object) -> None:
    answer = decoded(deal(**fields), deal("B000000002"))
    assert (getattr(answer.sightings[0], name), len(answer.sightings), answer.unreadable) == (value, 2, {})


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({"image": "51.jpg"}, "image: ", id="a wrong type"),
        pytest.param({"current": cells(-1, NEW=1, SALES=2**40)}, "current.SALES: ", id="beyond a column"),
        pytest.param({"avg": [cells(1), [1, "2"]]}, "avg[1][1]: ", id="a cell"),
    ],
)
def test_what_was_dropped_is_named(fields: dict[str, Any], reason: str) -> None:
    (said,) = decoded(deal(**fields)).dropped[ASIN]
    assert said.startswith(reason)


@pytest.mark.parametrize(
    ("start", "end", "is_lightning"),
    [(0, 0, False), (ANSWERED - 5_000, ANSWERED + 5_000, True), (ANSWERED + 4_000, ANSWERED + 5_000, False), (1, 2, False)],
    ids=["none", "running", "announced", "over"],
)
def test_a_lightning_deal_is_one_while_it_runs(start: int, end: int, is_lightning: bool) -> None:
    (sighting,) = decoded(deal(lightningStart=start, lightningEnd=end)).sightings
    assert sighting.is_lightning is is_lightning


def test_used_offers_are_counted_for_a_used_price() -> None:
    (sighting,) = decoded(deal(current=cells(-1, USED=5, COUNT_USED=3, COUNT_NEW=9)), price_type=PriceType.USED).sightings
    assert sighting.offer_count == 3


@pytest.mark.parametrize(
    "deals",
    [{"dr": []}, {"dr": None}, {}, {"dr": [], "categoryIds": "x"}],
    ids=["no rows", "null rows", "nothing", "categories that are none"],
)
def test_an_empty_page_is_one(deals: object) -> None:
    answer = decoded(deals=deals)
    assert (answer.has_payload, answer.row_count, answer.sightings) == (True, 0, ())


@pytest.mark.parametrize("deals", [[], 7, {"dr": {}}, {"dr": "x"}], ids=["a list", "a number", "rows in an object", "rows in a text"])
def test_what_is_no_page_is_no_answer(deals: object) -> None:
    with pytest.raises(NotAnAnswer):
        decoded(deals=deals)


def test_categories_with_holes_cost_the_page_nothing() -> None:
    answer = decoded(deal(), deals={"dr": [deal()], "categoryIds": [1, None], "categoryNames": ["a"], "categoryCount": [1]})
    assert (len(answer.sightings), answer.roots) == (1, {})


def test_a_category_without_a_name_has_none() -> None:
    answer = decoded(
        deals={
            "dr": [],
            "categoryIds": [1, 9223372036854775807, 2],
            "categoryNames": ["?", "?", None],
            "categoryCount": [3, 4, -1],
        }
    )
    assert answer.roots == {1: RootCategory(None, 3), 2: RootCategory(None, 0)}
