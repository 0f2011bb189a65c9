"""Claims about what is asked and what it can cost."""

import json
from typing import Any

import pytest

from keeper.domain.deal import DateRange, DealQuery
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.keepa.errors import KeepaError, RequestInvalid
from keeper.keepa.requests import DOMAIN_IDS, ProductOptions, cost_upper_bound, deal_request, product_request

ASIN = "B0CPV5YY7K"


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        pytest.param({}, {"history": "0"}, id="nothing but the product"),
        pytest.param({"stats_days": 90}, {"history": "0", "stats": "90"}, id="statistics"),
        pytest.param({"history_days": 365}, {"history": "1", "days": "365"}, id="history"),
        pytest.param({"buybox": True, "rating": True}, {"history": "0", "buybox": "1", "rating": "1"}, id="buy box and rating"),
        pytest.param({"update_hours": 0}, {"history": "0", "update": "0"}, id="ask Amazon now"),
        pytest.param({"update_hours": -1}, {"history": "0", "update": "-1"}, id="never ask Amazon"),
        pytest.param({"offers": 20}, {"history": "0", "offers": "20"}, id="offers"),
    ],
)
def test_request_says_what_was_wished(options: dict[str, Any], sent: dict[str, str]) -> None:
    request = product_request([ASIN], Marketplace.DE, ProductOptions(**options))
    assert request.parameters == {"domain": "3", "asin": ASIN} | sent


@pytest.mark.parametrize(("offers", "is_slow"), [(None, False), (20, True)], ids=["plain", "offers"])
def test_only_offers_make_a_request_slow(offers: int | None, is_slow: bool) -> None:
    assert product_request([ASIN], Marketplace.DE, ProductOptions(offers=offers)).is_slow is is_slow


def test_every_marketplace_has_a_domain_of_its_own() -> None:
    assert (set(DOMAIN_IDS), len(set(DOMAIN_IDS.values()))) == (set(Marketplace), len(Marketplace))


@pytest.mark.parametrize(
    "asins",
    [
        pytest.param([], id="none"),
        pytest.param([f"B0{number:08}" for number in range(101)], id="more than a hundred"),
        pytest.param([ASIN, ASIN], id="one twice"),
        pytest.param(["b0cpv5yy7k"], id="small letters"),
        pytest.param(["B0CPV5YY7"], id="too short"),
        pytest.param(["B0CPV5YY7K\n"], id="a line break"),
        pytest.param(["B0CPV5YY7Ｋ"], id="a letter that is not Latin"),
        pytest.param(["B0CPV5,Y7K"], id="a comma"),
    ],
)
def test_wrong_asins_are_refused_before_they_cost_anything(asins: list[str]) -> None:
    with pytest.raises(RequestInvalid):
        product_request(asins, Marketplace.DE, ProductOptions())


@pytest.mark.parametrize(
    "options",
    [{"stats_days": 0}, {"history_days": -1}, {"offers": 10}, {"offers": 101}, {"update_hours": -2}],
    ids=lambda options: next(iter(options)),
)
def test_wrong_options_are_refused_before_they_cost_anything(options: dict[str, Any]) -> None:
    with pytest.raises(RequestInvalid):
        ProductOptions(**options)


def test_a_refused_request_is_a_value_error_and_no_call_to_keepa() -> None:
    assert (issubclass(RequestInvalid, ValueError), issubclass(RequestInvalid, KeepaError)) == (True, False)


@pytest.mark.parametrize(
    ("count", "options", "tokens"),
    [
        pytest.param(100, {"stats_days": 90}, 100, id="statistics are free"),
        pytest.param(100, {"stats_days": 90, "history_days": 365}, 100, id="history is free"),
        pytest.param(100, {"rating": True, "buybox": True}, 400, id="rating and buy box"),
        pytest.param(3, {"update_hours": 0}, 6, id="asking Amazon now"),
        pytest.param(3, {"update_hours": 24}, 3, id="a day old is good enough"),
        pytest.param(1, {"offers": 20}, 12, id="twenty offers"),
        pytest.param(2, {"offers": 25, "rating": True, "buybox": True}, 38, id="a begun page is a page, the buy box is ignored"),
    ],
)
def test_cost_is_the_documented_upper_bound(count: int, options: dict[str, Any], tokens: int) -> None:
    assert cost_upper_bound(count, ProductOptions(**options)) == tokens


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        pytest.param({"without_erotic": False}, {}, id="nothing but the type"),
        pytest.param({}, {"filterErotic": True, "isFilterEnabled": True}, id="as it comes"),
        pytest.param(
            {"price_from_minor": 500, "without_erotic": False},
            {"currentRange": [500, 2**31 - 1], "isRangeEnabled": True},
            id="a least price",
        ),
        pytest.param({"price_to_minor": 900, "without_erotic": False}, {"currentRange": [0, 900], "isRangeEnabled": True}, id="a most"),
        pytest.param({"fall_pct_from": 20, "without_erotic": False}, {"deltaPercentRange": [20, 100], "isRangeEnabled": True}, id="a fall"),
        pytest.param({"fall_pct_to": 80, "without_erotic": False}, {"deltaPercentRange": [10, 80], "isRangeEnabled": True}, id="no more"),
        pytest.param({"rank_to": 5000, "without_erotic": False}, {"salesRankRange": [0, 5000], "isRangeEnabled": True}, id="well sold"),
        pytest.param({"rank_from": 9, "without_erotic": False}, {"salesRankRange": [9, -1], "isRangeEnabled": True}, id="badly sold"),
        pytest.param(
            {
                "rating_from_tenths": 40,
                "categories": (562066,),
                "not_categories": (9223372036854775806,),
                "words": ("Toaster", "größer"),
                "brands": ("WMF",),
                "is_lowest": True,
                "is_lowest_90": True,
                "has_reviews": True,
                "must_have_amazon_offer": True,
                "single_variation": True,
            },
            {
                "isFilterEnabled": True,
                "minRating": 40,
                "includeCategories": [562066],
                "excludeCategories": [9223372036854775806],
                "titleSearch": "Toaster größer",
                "brand": ["WMF"],
                "isLowest": True,
                "isLowest90": True,
                "hasReviews": True,
                "mustHaveAmazonOffer": True,
                "filterErotic": True,
                "singleVariation": True,
            },
            id="every filter",
        ),
    ],
)
def test_a_query_for_deals_says_what_was_wished(query: dict[str, Any], sent: dict[str, Any]) -> None:
    request = deal_request(DealQuery("any", Marketplace.DE, PriceType.BUY_BOX_SHIPPING, DateRange.QUARTER, **query), 2)
    assert json.loads(request.body or b"") == {"page": 2, "domainId": 3, "priceTypes": [18], "dateRange": 3, "sortType": 1} | sent


def test_a_title_of_too_many_words_is_refused() -> None:
    with pytest.raises(RequestInvalid):
        deal_request(DealQuery("any", Marketplace.DE, words=(" ".join("x" * 26), " ".join("y" * 25))), 0)
