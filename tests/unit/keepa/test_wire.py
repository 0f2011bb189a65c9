"""Claims about Keepa's JSON as Keeper's values. The shapes are those of recorded answers; the numbers are made up."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from keeper.domain.marketplace import Marketplace
from keeper.domain.price_series import Extreme, PriceSeries
from keeper.domain.price_type import PriceType
from keeper.domain.product import Availability, Product, ProductKind, ProductStats, ReturnRate
from keeper.keepa.wire import (
    MINUTES_TO_2011,
    PRICE_TYPES,
    NotAnAnswer,
    SeriesUnreadable,
    decode_products,
    decode_series,
    decode_time,
    encode_series,
)

ASIN = "B0CPV5YY7K"
OTHER = "B0CPV5YY7L"
MINUTE = 8_000_000
NOW_MS = (MINUTE + MINUTES_TO_2011) * 60_000


def answer_of(*products: object, **envelope: object) -> bytes:
    tokens = {"tokensLeft": 1199, "refillIn": 30_500, "refillRate": 20, "tokenFlowReduction": 0.0, "tokensConsumed": len(products)}
    return json.dumps({"timestamp": NOW_MS, **tokens, "products": products} | envelope).encode()


def decoded(fields: dict[str, Any], marketplace: Marketplace = Marketplace.DE) -> Product:
    return decode_products(answer_of({"asin": ASIN} | fields), [ASIN], marketplace).products[ASIN]


def stats_of(fields: dict[str, Any], **product: Any) -> ProductStats:
    stats = decoded({"stats": fields} | product).stats
    assert stats is not None
    return stats


def by_index(length: int = 36, *, other: Any = -1, **values: Any) -> list[Any]:
    """Keepa's array by price type: `AMAZON=5` at the index of AMAZON, `other` elsewhere."""
    numbers = [other] * length
    for name, value in values.items():
        numbers[PRICE_TYPES.index(PriceType(name))] = value
    return numbers


# --- series


@pytest.mark.parametrize(
    ("price_type", "flat", "amounts"),
    [
        pytest.param(PriceType.NEW, [5, 1999, 9, -1], (1999, None), id="pair, no offer"),
        pytest.param(PriceType.NEW, [5, -2, 9, 1999], (None, 1999), id="pair, unknown"),
        pytest.param(PriceType.NEW, [5, 0, 9, 1], (None, 1), id="a price of nothing is no price"),
        pytest.param(PriceType.COUNT_NEW, [5, 0, 9, 3], (0, 3), id="a count of none is a count"),
        pytest.param(PriceType.SALES, [5, -1, 9, 77], (None, 77), id="no rank"),
        pytest.param(PriceType.EXTRA_INFO_UPDATES, [5, -3, 9, 5], (-3, 5), id="fetch marks keep their sign"),
        pytest.param(PriceType.BUY_BOX_SHIPPING, [5, 1999, 499, 9, 1500, 0], (2498, 1500), id="triplet is the landed price"),
        pytest.param(PriceType.BUY_BOX_SHIPPING, [5, 1999, -1, 9, -1, -1], (1999, None), id="triplet, shipping unknown, no offer"),
        pytest.param(PriceType.EBAY_NEW_SHIPPING, [5, -2, -2, 9, -1, 300], (None, None), id="shipping alone is no price"),
    ],
)
def test_series_has_an_amount_only_where_there_is_an_offer(price_type: PriceType, flat: list[int], amounts: tuple[int | None, ...]) -> None:
    assert decode_series(flat, price_type) == PriceSeries((5 + MINUTES_TO_2011, 9 + MINUTES_TO_2011), amounts)


def test_the_last_entry_of_a_minute_counts() -> None:
    assert decode_series([5, 100, 5, 90, 9, 80], PriceType.NEW) == PriceSeries((5 + MINUTES_TO_2011, 9 + MINUTES_TO_2011), (90, 80))


@pytest.mark.parametrize(
    ("price_type", "flat"),
    [
        pytest.param(PriceType.NEW, [5, 100, 9], id="cut pair"),
        pytest.param(PriceType.BUY_BOX_SHIPPING, [5, 100, 0, 9], id="cut triplet"),
        pytest.param(PriceType.NEW, [9, 100, 5, 90], id="time goes back"),
        pytest.param(PriceType.NEW, [5, 100, 10**12, 90], id="a time that is no date"),
        pytest.param(PriceType.EXTRA_INFO_UPDATES, [5, -(10**20)], id="a count that is none"),
    ],
)
def test_a_series_that_makes_no_sense_is_refused(price_type: PriceType, flat: list[int]) -> None:
    with pytest.raises(SeriesUnreadable):
        decode_series(flat, price_type)


def test_a_series_that_makes_no_sense_costs_only_itself() -> None:
    product = decoded({"csv": by_index(other=None, NEW=[5, 100, 9], AMAZON=[5, 100])})
    assert (set(product.series), product.dropped) == ({PriceType.AMAZON}, ("csv.NEW: 3 numbers are not entries of 2",))


def test_a_series_that_is_no_list_costs_only_itself() -> None:
    product = decoded({"csv": by_index(other=None, NEW="5,100", AMAZON=[5, 100])})
    assert (set(product.series), len(product.dropped)) == ({PriceType.AMAZON}, 1)


@pytest.mark.parametrize("length", [0, 28, 36, 50])
def test_keepas_list_of_types_may_be_shorter_or_longer_than_ours(length: int) -> None:
    product = decoded({"csv": [[5, 100, 0][: 3 if index in (7, *range(18, 30), 32) else 2] for index in range(length)]})
    assert list(product.series) == list(PRICE_TYPES[:length])


def test_series_keep_their_future() -> None:
    flat = [MINUTE - 10, 999, MINUTE + 500, -1]
    product = decoded({"csv": by_index(other=None, LIGHTNING_DEAL=flat)})
    assert product.series[PriceType.LIGHTNING_DEAL].minutes[-1] == MINUTE + 500 + MINUTES_TO_2011


@pytest.mark.parametrize("csv", [None, []], ids=["null", "empty"])
def test_no_history_is_no_series(csv: object) -> None:
    assert decoded({"csv": csv}).series == {}


def test_encoding_writes_triplets_where_keepa_does() -> None:
    series = PriceSeries((MINUTES_TO_2011 + 5, MINUTES_TO_2011 + 9), (2498, None))
    assert encode_series(series, PriceType.BUY_BOX_SHIPPING) == [5, 2498, 0, 9, -1, -1]


# --- statistics


def test_a_type_keepa_does_not_show_is_not_out_of_stock() -> None:
    stats = stats_of({"current": by_index(NEW=1999), "outOfStockPercentage365": by_index(NEW=0, AMAZON=100), "max": [None] * 36})
    assert stats.current == {PriceType.NEW: 1999, PriceType.AMAZON: None}


def test_a_type_with_an_all_time_high_and_no_current_value_is_out_of_stock() -> None:
    assert stats_of({"current": by_index(), "max": by_index(other=None, USED=[5, 3571])}).current == {PriceType.USED: None}


def test_a_type_with_history_and_no_current_value_is_out_of_stock() -> None:
    assert stats_of({"current": by_index()}, csv=by_index(other=None, NEW=[5, -1])).current == {PriceType.NEW: None}


def test_current_has_types_beyond_the_shorter_arrays() -> None:
    assert stats_of({"current": by_index(COUNT_NEW_FBM=2), "outOfStockPercentage365": [-1] * 28}).current == {PriceType.COUNT_NEW_FBM: 2}


@pytest.mark.parametrize(
    ("price", "shipping", "expected"),
    [
        pytest.param(1499, 399, {PriceType.BUY_BOX_SHIPPING: 1898}, id="price and shipping"),
        pytest.param(1499, -1, {PriceType.BUY_BOX_SHIPPING: 1499}, id="shipping unknown"),
        pytest.param(-1, -1, {PriceType.BUY_BOX_SHIPPING: None}, id="nobody has it"),
        pytest.param(-2, -2, {}, id="not asked"),
    ],
)
def test_the_buy_box_is_the_landed_price_where_asked(price: int, shipping: int, expected: dict[PriceType, int | None]) -> None:
    assert stats_of({"current": by_index(), "buyBoxPrice": price, "buyBoxShipping": shipping}).current == expected


def test_averages_come_by_window_and_without_sentinels() -> None:
    stats = stats_of({"avg": by_index(), "avg30": by_index(NEW=1742, AMAZON=-2), "avg365": by_index(36, NEW=1908)})
    assert stats.average == {0: {}, 30: {PriceType.NEW: 1742}, 90: {}, 180: {}, 365: {PriceType.NEW: 1908}}


def test_out_of_stock_shares_come_by_window() -> None:
    stats = stats_of({"outOfStockPercentage30": by_index(AMAZON=100), "outOfStockPercentageInInterval": by_index(NEW=1)})
    assert stats.out_of_stock_pct == {0: {PriceType.NEW: 1}, 30: {PriceType.AMAZON: 100}, 90: {}, 180: {}, 365: {}}


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        pytest.param([MINUTE, 1499], {PriceType.NEW: Extreme(1499, MINUTE + MINUTES_TO_2011)}, id="a low"),
        pytest.param([-1, -1], {}, id="none in the interval"),
        pytest.param(None, {}, id="no data at all"),
        pytest.param([MINUTE], {}, id="cut"),
        pytest.param([], {}, id="empty"),
    ],
)
def test_extremes_are_there_only_where_keepa_has_one(pair: object, expected: dict[PriceType, Extreme]) -> None:
    assert stats_of({"minInInterval": by_index(other=None, NEW=pair)}).lowest_in_interval == expected


@pytest.mark.parametrize("seller", ["-1", "-2", "", None], ids=["nobody qualified", "unknown", "empty", "null"])
def test_a_buy_box_without_seller_has_none(seller: str | None) -> None:
    assert stats_of({"buyBoxSellerId": seller}).buy_box_seller_id is None


def test_absent_statistics_are_none() -> None:
    assert decoded({"stats": None}).stats is None


# --- product


def test_titles_lose_their_entities_but_not_their_ampersands() -> None:
    assert decoded({"title": "K&uuml;he &amp; K&#228;lber &notit A&B &#x1F600;\u0000 "}).title == "Kühe & Kälber &notit A&B 😀"


def test_control_characters_are_no_part_of_a_title() -> None:
    """A search completion refuses a document that holds one."""
    assert decoded({"title": "Tasta\u001ftur\t75%\u0085 DE\u00a0ISO"}).title == "Tasta tur 75%  DE\u00a0ISO"


@pytest.mark.parametrize("text", [None, "", "  "], ids=["null", "empty", "blank"])
def test_a_text_without_content_is_none(text: str | None) -> None:
    assert decoded({"brand": text}).brand is None


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"images": [{"l": "a+1.jpg", "lH": 9, "m": "b.jpg"}, {"m": "c.jpg"}, {"l": None}]}, id="images"),
        pytest.param({"imagesCSV": "a+1.jpg,c.jpg"}, id="imagesCSV"),
        pytest.param({"images": None, "imagesCSV": "a+1.jpg,c.jpg,,../x y"}, id="both, and a name that is none"),
    ],
)
def test_images_are_whole_addresses_in_both_forms(fields: dict[str, Any]) -> None:
    assert decoded(fields).image_urls == ("https://m.media-amazon.com/images/I/a+1.jpg", "https://m.media-amazon.com/images/I/c.jpg")


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"variations": [{"asin": "B000000001"}, {"asin": None}, {"asin": "B000000002", "attributes": []}]}, id="variations"),
        pytest.param({"variationCSV": "B000000001,B000000002"}, id="variationCSV"),
    ],
)
def test_variations_come_in_both_forms(fields: dict[str, Any]) -> None:
    assert decoded(fields).variation_asins == ("B000000001", "B000000002")


@pytest.mark.parametrize("unknown", [0, -1, 2**63 - 1, 9223372036854776000, 2**70], ids=str)
def test_an_unknown_category_is_none(unknown: int) -> None:
    product = decoded({"rootCategory": unknown, "categories": [unknown, 430161031]})
    assert (product.root_category_id, product.category_ids) == (None, (430161031,))


def test_category_path_runs_from_the_root() -> None:
    tree = [{"catId": 1, "name": "Computer &amp; Zubehör"}, {"catId": 2, "name": "Tastaturen"}]
    assert decoded({"categoryTree": tree}).category_path == ("Computer & Zubehör", "Tastaturen")


def test_codes_keep_leading_zeros_and_order() -> None:
    product = decoded({"eanList": ["0097855190123", "4260000000001"], "upcList": None})
    assert (product.eans, product.upcs) == (("0097855190123", "4260000000001"), ())


@pytest.mark.parametrize(
    ("number", "kind", "has_prices"),
    [
        (0, ProductKind.STANDARD, True),
        (1, ProductKind.DOWNLOAD, True),
        (2, ProductKind.EBOOK, True),
        (3, ProductKind.INACCESSIBLE, False),
        (4, ProductKind.INVALID, False),
        (5, ProductKind.VARIATION_PARENT, False),
    ],
)
def test_kinds_without_prices_show_none(number: int, kind: ProductKind, has_prices: bool) -> None:
    arrays = {"csv": by_index(other=None, NEW=[5, 100], SALES=[5, 7]), "stats": {"current": by_index(NEW=100, SALES=7)}}
    product = decoded({"productType": number} | arrays)
    prices = {PriceType.NEW} if has_prices else set()
    assert product.stats is not None
    assert (product.kind, set(product.series), set(product.stats.current)) == (
        kind,
        prices | {PriceType.SALES},
        prices | {PriceType.SALES},
    )


def test_an_unknown_kind_is_read_as_a_standard_product_and_named() -> None:
    product = decoded({"productType": 6})
    assert (product.kind, product.dropped) == (ProductKind.STANDARD, ("productType: 6 is unknown",))


@pytest.mark.parametrize(
    ("number", "availability"),
    [
        (-1, Availability.NO_OFFER),
        (0, Availability.IN_STOCK),
        (1, Availability.PREORDER),
        (2, Availability.UNKNOWN),
        (3, Availability.BACKORDER),
        (4, Availability.DELAYED),
        (99, None),
        (None, None),
    ],
)
def test_availability_is_amazons_own(number: int | None, availability: Availability | None) -> None:
    assert decoded({"availabilityAmazon": number}).availability is availability


@pytest.mark.parametrize(
    ("minute", "expected"),
    [
        pytest.param(0, None, id="zero"),
        pytest.param(-1, None, id="minus one"),
        pytest.param(MINUTE, datetime(2026, 3, 18, 13, 20, tzinfo=UTC), id="a time"),
        pytest.param(MINUTE + 525_600, datetime(2027, 3, 18, 13, 20, tzinfo=UTC), id="the future"),
        pytest.param(2**62, None, id="no date"),
    ],
)
def test_listed_since_is_a_time_or_unknown(minute: int, expected: datetime | None) -> None:
    assert decoded({"listedSince": minute}).listed_at == expected


@pytest.mark.parametrize(
    ("fields", "rank"),
    [
        pytest.param({"stats": {"current": by_index(SALES=23)}}, 23, id="from the statistics"),
        pytest.param({"csv": by_index(other=None, SALES=[MINUTE - 5, 26, MINUTE + 5, 99])}, 26, id="from the history, not from its future"),
        pytest.param({"salesRankReference": 11, "salesRanks": {"12": [5, 9], "11": [5, 40, 9, 41]}}, 41, id="from the main category"),
        pytest.param({"salesRankReference": -1, "salesRanks": {"12": [5, 9]}}, None, id="no main category"),
        pytest.param({"salesRankReference": 11, "salesRanks": {"11": "odd"}}, None, id="unreadable"),
        pytest.param({"stats": {"current": by_index()}}, None, id="none"),
    ],
)
def test_sales_rank_comes_from_wherever_the_answer_has_it(fields: dict[str, Any], rank: int | None) -> None:
    assert decoded(fields).sales_rank == rank


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"referralFeePercentage": 15.01, "referralFeePercent": 15}, 15.01, id="exact"),
        pytest.param({"referralFeePercent": 15}, 15.0, id="old field"),
        pytest.param({"referralFeePercentage": -1.0}, None, id="unknown"),
    ],
)
def test_referral_fee_is_the_exact_one(fields: dict[str, Any], expected: float | None) -> None:
    assert decoded(fields).referral_fee_pct == expected


# Of a recorded answer (a perfume, 2025), without what the exceptions of other countries say.
PERFUME = [{"aspect": "united_nations_regulatory_id", "value": "UN1266"}, {"aspect": "transportation_regulatory_class", "value": "3"}]


@pytest.mark.parametrize(
    ("fields", "name", "expected"),
    [
        pytest.param({"hazardousMaterials": PERFUME}, "is_hazardous", True, id="hazardous"),
        pytest.param({"hazardousMaterials": []}, "is_hazardous", False, id="nothing hazardous"),
        pytest.param({"hazardousMaterials": None}, "is_hazardous", None, id="hazards not said"),
        pytest.param({"isHeatSensitive": True}, "is_heat_sensitive", True, id="heat"),
        pytest.param({}, "is_heat_sensitive", None, id="heat not said"),
        pytest.param({"returnRate": 1}, "return_rate", ReturnRate.LOW, id="few returns"),
        pytest.param({"returnRate": 2}, "return_rate", ReturnRate.HIGH, id="many returns"),
        pytest.param({"returnRate": 3}, "return_rate", None, id="returns unknown"),
        pytest.param({"coupon": [500, 0]}, "coupon_minor", 500, id="coupon of money"),
        pytest.param({"coupon": [-15, 0]}, "coupon_pct", 15, id="coupon of a percentage"),
        pytest.param({"coupon": [0, -5]}, "coupon_pct", None, id="coupon with a subscription only"),
        pytest.param({"coupon": [0, -5]}, "coupon_minor", None, id="no coupon of money"),
        pytest.param({"stats": {"current": by_index(COUNT_NEW=5)}}, "offer_count", 5, id="offers"),
        pytest.param({"csv": by_index(other=None, COUNT_NEW=[MINUTE - 5, 4])}, "offer_count", 4, id="offers of the history"),
        pytest.param(
            {"stats": {"current": by_index(COUNT_NEW=-1)}, "csv": by_index(other=None, COUNT_NEW=[MINUTE - 5, -1])},
            "offer_count",
            0,
            id="no offers now",
        ),
        pytest.param({"stats": {"current": by_index()}}, "offer_count", None, id="offers not known"),
        pytest.param({"stats": {"salesRankDrops30": 35}}, "sales_rank_drops_30", 35, id="rank drops"),
        pytest.param({"stats": {"salesRankDrops30": 0}}, "sales_rank_drops_30", 0, id="no rank drops"),
        pytest.param({"stats": {"salesRankDrops30": -1}}, "sales_rank_drops_30", None, id="rank drops not known"),
        pytest.param({"stats": {"buyBoxIsAmazon": True}}, "buy_box_is_amazon", True, id="Amazon has the buy box"),
        pytest.param({"stats": {"buyBoxIsFBA": False}}, "buy_box_is_fba", False, id="a merchant has the buy box"),
        pytest.param({"stats": {}}, "buy_box_is_fba", None, id="buy box not asked"),
        pytest.param(
            {"stats": {"lightningDealInfo": [MINUTE - 5, MINUTE + 60]}},
            "lightning_ends_at",
            decode_time(MINUTE + 60),
            id="lightning deal",
        ),
        pytest.param({"stats": {"lightningDealInfo": [MINUTE + 5, -1]}}, "lightning_ends_at", None, id="announced lightning deal"),
        pytest.param({"stats": {"lightningDealInfo": [MINUTE - 60, MINUTE - 5]}}, "lightning_ends_at", None, id="past lightning deal"),
    ],
)
def test_what_a_reseller_should_know_is_read(fields: dict[str, Any], name: str, expected: object) -> None:
    assert getattr(decoded(fields), name) == expected


@pytest.mark.parametrize("unknown", [0, -1, None], ids=str)
def test_sizes_keepa_does_not_know_are_none(unknown: int | None) -> None:
    product = decoded({"packageWeight": unknown, "numberOfItems": unknown, "monthlySold": unknown, "fbaFees": {"pickAndPackFee": unknown}})
    assert (product.package_weight_g, product.unit_count, product.monthly_sold, product.fba_pick_pack_minor) == (None,) * 4


def test_a_product_of_nothing_but_its_asin_is_a_product() -> None:
    product = decoded({})
    assert (product.kind, product.updated_at, product.stats, product.series, product.dropped) == (ProductKind.STANDARD, None, None, {}, ())


# --- what does not fit


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("title", 5),
        ("images", {"l": "a.jpg"}),
        ("monthlySold", "100+"),
        ("categories", [1.5]),
        ("packageWeight", 2**80),
        ("fbaFees", [1]),
        ("isAdultProduct", 0),
        ("hazardousMaterials", "UN1266"),
        ("coupon", 5),
        ("lastUpdate", 1e300),
    ],
)
def test_a_field_that_changed_its_shape_costs_only_itself(name: str, value: object) -> None:
    product = decoded({name: value, "manufacturer": "Cherry", "stats": {"current": by_index(NEW=100)}})
    assert product.stats is not None
    assert (product.manufacturer, product.stats.current, [reason.partition(":")[0] for reason in product.dropped]) == (
        "Cherry",
        {PriceType.NEW: 100},
        [name],
    )


@pytest.mark.parametrize(
    ("fields", "name", "dropped"),
    [
        pytest.param({"numberOfItems": 2**33}, "unit_count", "numberOfItems", id="items"),
        pytest.param({"coupon": [2**31, 0]}, "coupon_minor", "coupon", id="coupon"),
        pytest.param({"coupon": [-101, 0]}, "coupon_pct", "coupon", id="coupon of too much"),
        pytest.param({"stats": {"salesRankDrops30": 2**31}}, "sales_rank_drops_30", "stats.salesRankDrops30", id="rank drops"),
        pytest.param({"packageWeight": 2**31}, "package_weight_g", "packageWeight", id="weight"),
        pytest.param({"monthlySold": 2**40}, "monthly_sold", "monthlySold", id="sold"),
        pytest.param({"fbaFees": {"pickAndPackFee": 2**31}}, "fba_pick_pack_minor", "fbaFees.pickAndPackFee", id="fee"),
        pytest.param({"stats": {"current": by_index(RATING=40_000)}}, "rating_tenths", "stats.current.RATING", id="rating"),
        pytest.param({"csv": by_index(other=None, RATING=[5, 51])}, "rating_tenths", "csv.RATING", id="rating in history"),
        pytest.param({"stats": {"current": by_index(SALES=2**31)}}, "sales_rank", "stats.current.SALES", id="rank"),
        pytest.param(
            {"salesRankReference": 7, "salesRanks": {"7": [5, 2**31]}}, "sales_rank", "csv.SALES", id="rank of the reference category"
        ),
        pytest.param({"stats": {"current": by_index(COUNT_REVIEWS=2**31)}}, "review_count", "stats.current.COUNT_REVIEWS", id="reviews"),
    ],
)
def test_a_number_the_database_has_no_room_for_is_none_and_named(fields: dict[str, Any], name: str, dropped: str) -> None:
    product = decoded(fields)
    assert (getattr(product, name), [reason.partition(": ")[0] for reason in product.dropped]) == (None, [dropped])


@pytest.mark.parametrize(
    ("price_type", "flat", "amounts", "dropped"),
    [
        pytest.param(PriceType.NEW, [5, 2**31, 9, 100], (None, 100), 1, id="beyond"),
        pytest.param(PriceType.NEW, [5, 2**31 - 1, 9, -1], (2**31 - 1, None), 0, id="the largest"),
        pytest.param(PriceType.BUY_BOX_SHIPPING, [5, 2**31 - 10, 10, 9, 100, 5], (None, 105), 1, id="price and shipping beyond"),
        pytest.param(PriceType.BUY_BOX_SHIPPING, [5, 2**31 - 10, 9, 9, -1, 900], (2**31 - 1, None), 0, id="price and shipping the largest"),
    ],
)
def test_a_price_the_database_has_no_room_for_is_none_and_named(
    price_type: PriceType, flat: list[int], amounts: tuple[int | None, ...], dropped: int
) -> None:
    product = decoded({"csv": [flat if one is price_type else None for one in PRICE_TYPES]})
    assert (product.series[price_type].amounts, len(product.dropped)) == (amounts, dropped)


@pytest.mark.parametrize(
    ("fields", "price_type"),
    [
        pytest.param({"current": by_index(NEW=2**31)}, PriceType.NEW, id="price"),
        pytest.param({"buyBoxPrice": 2**31 - 1, "buyBoxShipping": 1}, PriceType.BUY_BOX_SHIPPING, id="buy box"),
    ],
)
def test_a_current_price_the_database_has_no_room_for_is_none_and_named(fields: dict[str, Any], price_type: PriceType) -> None:
    product = decoded({"stats": fields})
    assert product.stats is not None
    assert (product.stats.current[price_type], product.dropped) == (None, (f"stats.current.{price_type}: is beyond {2**31 - 1}",))


@pytest.mark.parametrize("half", [r"\ud83d", r"\udc00", r"\uDC00\uD83D"])
def test_half_a_character_costs_only_its_field(half: str) -> None:
    body = answer_of({"asin": ASIN, "title": "HALF", "brand": "C\\ud83d \U0001f600"}, {"asin": OTHER, "title": "whole"})
    found = decode_products(body.replace(b"HALF", half.encode()), [ASIN, OTHER], Marketplace.DE).products
    assert (found[ASIN].title, found[ASIN].brand, found[ASIN].dropped) == (None, "C\\ud83d \U0001f600", ("title: is not UTF-8",))
    assert found[OTHER].title == "whole"


def test_a_statistic_that_changed_its_shape_costs_only_itself() -> None:
    product = decoded({"stats": {"current": by_index(NEW=100), "avg30": "none", "min": 5}})
    assert product.stats is not None
    assert (product.stats.current, [reason.partition(":")[0] for reason in product.dropped]) == (
        {PriceType.NEW: 100},
        ["stats.avg30", "stats.min"],
    )


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"stats": []}, id="statistics"),
        pytest.param({"stats": {"current": [None]}}, id="current values"),
        pytest.param({"csv": {}}, id="history"),
        pytest.param({"productType": "0"}, id="kind"),
        pytest.param({"domainId": 4}, id="another marketplace"),
    ],
)
def test_a_product_whose_prices_cannot_be_read_is_unreadable_and_its_neighbour_is_not(fields: dict[str, Any]) -> None:
    body = answer_of({"asin": "B000000001"} | fields, {"asin": "B000000002", "domainId": 3})
    decoded = decode_products(body, ["B000000001", "B000000002"], Marketplace.DE)
    assert (list(decoded.products), list(decoded.unreadable), decoded.missing) == (["B000000002"], ["B000000001"], ())


def test_products_are_matched_by_asin_not_by_position() -> None:
    body = answer_of({"asin": "B000000003"}, None, {"asin": "B000000001"})
    decoded = decode_products(body, ["B000000001", "B000000002", "B000000003"], Marketplace.DE)
    assert (set(decoded.products), decoded.missing) == ({"B000000001", "B000000003"}, ("B000000002",))


def test_the_first_of_two_products_with_one_asin_counts() -> None:
    body = answer_of({"asin": ASIN, "title": "first"}, {"asin": ASIN, "title": "second"})
    assert decode_products(body, [ASIN], Marketplace.DE).products[ASIN].title == "first"


def test_a_product_nobody_asked_for_is_left_out_and_named() -> None:
    decoded = decode_products(answer_of({"asin": "B000000009"}), [ASIN], Marketplace.DE)
    assert (decoded.products, decoded.missing, decoded.unasked) == ({}, (ASIN,), ("B000000009",))


@pytest.mark.parametrize("odd", ["null", "5", '"x"', "[]", "{}", '{"asin": null}', '{"asin": 5}'])
def test_an_entry_that_is_no_product_makes_its_asin_missing(odd: str) -> None:
    body = answer_of().replace(b'"products": []', b'"products": [' + odd.encode() + b"]")
    assert decode_products(body, [ASIN], Marketplace.DE).missing == (ASIN,)


def test_each_product_keeps_its_own_bytes() -> None:
    product = '{"asin" : "B0CPV5YY7K", "unknownField":[1, 2.50]}'
    body = answer_of().replace(b'"products": []', b'"products": [' + product.encode() + b"]")
    assert bytes(decode_products(body, [ASIN], Marketplace.DE).raw[ASIN]) == product.encode()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>", id="a page"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"products":{}}', id="products are no list"),
        pytest.param(answer_of({"asin": ASIN})[:-9], id="cut"),
        pytest.param(b"[" * 100_000, id="deeper than any reader goes"),
    ],
)
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(NotAnAnswer):
        decode_products(body, [ASIN], Marketplace.DE)


# --- envelope


def test_the_envelope_says_what_is_left_of_the_bucket() -> None:
    tokens = decode_products(answer_of(tokensLeft=-3, tokensConsumed=7, tokenFlowReduction=2.5), [], Marketplace.DE).envelope.tokens
    assert tokens is not None
    assert (tokens.at, tokens.tokens_left, tokens.refill_in_seconds, tokens.refill_per_minute) == (
        datetime(2026, 3, 18, 13, 20, tzinfo=UTC),
        -3,
        30.5,
        20,
    )


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"refillRate": 0}, id="no rate"),
        pytest.param({"refillRate": None}, id="rate unknown"),
        pytest.param({"tokensLeft": "many"}, id="not a number"),
        pytest.param({"timestamp": 10**30}, id="not a date"),
        pytest.param({"tokensLeft": 10**15}, id="more than any plan"),
        pytest.param({"timestamp": None}, id="no time"),
    ],
)
def test_token_fields_that_make_no_sense_are_no_token_status(fields: dict[str, Any]) -> None:
    assert decode_products(answer_of(**fields), [], Marketplace.DE).envelope.tokens is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(None, None, id="null"),
        pytest.param({"type": "invalidParameter", "message": "No.", "details": "asin"}, "invalidParameter: No. (asin)", id="whole"),
        pytest.param({"type": "invalidParameter", "details": None}, "invalidParameter", id="type only"),
        pytest.param({}, "unnamed", id="empty"),
        pytest.param("broken", "an error in a shape that cannot be read", id="a text"),
        pytest.param({"details": {}}, "an error in a shape that cannot be read", id="details are no text"),
    ],
)
def test_an_error_in_the_envelope_is_quoted(error: object, expected: str | None) -> None:
    assert decode_products(answer_of(error=error), [], Marketplace.DE).envelope.error == expected
