"""Claims about recorded answers: the very numbers that Keepa sent."""

import json
import math
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from keeper.domain.marketplace import Marketplace
from keeper.domain.price_series import time_of
from keeper.domain.price_type import PriceType
from keeper.domain.product import Availability, Product
from keeper.keepa.deal_wire import DecodedDeals, decode_deals
from keeper.keepa.wire import PRICE_TYPES, Envelope, decode_envelope, decode_products, encode_series

OURS = Path(__file__).parents[2] / "recordings"
FULL = "product_us_B0D8W1YVBX_stats_rating_buybox_4tokens.json"
PLAIN = "product_us_B0D8W1YVBX_1token.json"
SERUM = "B0D8W1YVBX"


def recording(name: str) -> bytes:
    folder = OURS if (OURS / name).exists() else Path(os.environ["KEEPER_RECORDINGS"])
    return (folder / name).read_bytes()


def product_of(name: str, asin: str = SERUM) -> Product:
    return decode_products(recording(name), [asin], Marketplace.US).products[asin]


def product_object_of(name: str, asin: str) -> Product:
    """A recorded product without its envelope, in an envelope of ours."""
    envelope = {"timestamp": 1780141957832, "tokensLeft": 1199, "refillIn": 1, "refillRate": 20, "tokensConsumed": 1}
    body = json.dumps(envelope | {"products": [json.loads(recording(name))]}).encode()
    return decode_products(body, [asin], Marketplace.DE).products[asin]


@pytest.fixture(scope="module")
def full() -> Product:
    return product_of(FULL)


@pytest.fixture(scope="module")
def plain() -> Product:
    return product_of(PLAIN)


def test_nothing_of_the_recordings_is_dropped(full: Product, plain: Product) -> None:
    assert full.dropped == plain.dropped == ()


def test_current_values_are_those_keepa_shows(full: Product) -> None:
    assert full.stats is not None
    assert full.stats.current == {
        PriceType.AMAZON: None,
        PriceType.NEW: 1499,
        PriceType.USED: None,
        PriceType.SALES: 23,
        PriceType.LISTPRICE: 2499,
        PriceType.LIGHTNING_DEAL: None,
        PriceType.COUNT_NEW: 5,
        PriceType.COUNT_REFURBISHED: None,
        PriceType.EXTRA_INFO_UPDATES: 5,
        PriceType.RATING: 43,
        PriceType.COUNT_REVIEWS: 11598,
        PriceType.BUY_BOX_SHIPPING: 1499,
        PriceType.PRIME_EXCL: None,
        PriceType.COUNT_NEW_FBA: 3,
        PriceType.COUNT_NEW_FBM: 2,
    }


def test_what_was_not_asked_is_not_out_of_stock(plain: Product) -> None:
    assert plain.stats is not None
    assert not {PriceType.BUY_BOX_SHIPPING, PriceType.RATING, PriceType.COUNT_REVIEWS} & plain.stats.current.keys()


@pytest.mark.parametrize(
    ("days", "mean"),
    [(0, 1849), (30, 1742), (90, 1797), (180, 1849), (365, 1908)],
)
def test_averages_are_keepas_own(full: Product, days: int, mean: int) -> None:
    assert full.stats is not None
    assert full.stats.average[days][PriceType.NEW] == mean


def test_an_empty_interval_has_no_average(plain: Product) -> None:
    assert plain.stats is not None
    assert (plain.stats.average[0], plain.stats.lowest_in_interval, plain.stats.out_of_stock_pct[0]) == ({}, {}, {})


def test_all_time_low_and_high_carry_their_time(full: Product) -> None:
    assert full.stats is not None
    low, high = full.stats.lowest[PriceType.NEW], full.stats.highest[PriceType.NEW]
    assert (low.amount, low.at, high.amount, high.at) == (
        1499,
        datetime(2026, 3, 25, 7, 16, tzinfo=UTC),
        2499,
        datetime(2024, 9, 14, 0, 24, tzinfo=UTC),
    )


def test_out_of_stock_shares_are_keepas_own(full: Product) -> None:
    assert full.stats is not None
    assert full.stats.out_of_stock_pct[90] == {
        PriceType.AMAZON: 100,
        PriceType.NEW: 0,
        PriceType.USED: 100,
        PriceType.LISTPRICE: 0,
        PriceType.LIGHTNING_DEAL: 98,
        PriceType.BUY_BOX_SHIPPING: 1,
        PriceType.PRIME_EXCL: 100,
    }


def test_sales_rank_drops_and_offers_are_keepas_own(full: Product) -> None:
    assert full.stats is not None
    assert (full.stats.sales_rank_drops, full.stats.total_offer_count) == ({30: 35, 90: 75, 180: 165, 365: 424}, 5)


def test_the_buy_box_names_its_seller(full: Product) -> None:
    assert full.stats is not None
    assert (full.stats.buy_box_seller_id, full.stats.buy_box_is_amazon, full.stats.buy_box_is_fba, full.stats.buy_box_updated_at) == (
        "AXXXXXXXXX0001",
        False,
        True,
        datetime(2026, 5, 10, 4, 2, tzinfo=UTC),
    )


def test_every_series_has_every_point(full: Product) -> None:
    assert {price_type.value: len(series) for price_type, series in full.series.items()} == {
        "AMAZON": 1,
        "NEW": 129,
        "USED": 1,
        "SALES": 2740,
        "LISTPRICE": 11,
        "LIGHTNING_DEAL": 30,
        "COUNT_NEW": 195,
        "COUNT_REFURBISHED": 1,
        "EXTRA_INFO_UPDATES": 4099,
        "RATING": 109,
        "COUNT_REVIEWS": 2956,
        "BUY_BOX_SHIPPING": 249,
        "PRIME_EXCL": 12,
        "COUNT_NEW_FBA": 28,
        "COUNT_NEW_FBM": 74,
    }


def test_a_series_ends_with_keepas_last_entry(full: Product) -> None:
    new = full.series[PriceType.NEW]
    assert (time_of(new.minutes[-1]), new.amounts[-2:]) == (datetime(2026, 4, 27, 7, 46, tzinfo=UTC), (1950, 1499))


@pytest.mark.parametrize("name", [FULL, PLAIN], ids=["4 tokens", "1 token"])
def test_every_recorded_series_is_encoded_to_the_very_numbers_keepa_sent(name: str) -> None:
    sent = json.loads(recording(name))["products"][0]["csv"]
    series = product_of(name).series
    ours = [encode_series(series[price_type], price_type) if price_type in series else None for price_type in PRICE_TYPES]
    assert ours == sent


def test_current_values_are_the_last_of_their_series(full: Product) -> None:
    assert full.stats is not None
    assert {price_type: series.amounts[-1] for price_type, series in full.series.items()} == full.stats.current


def test_product_facts_are_keepas_own(full: Product) -> None:
    assert (
        full.brand,
        full.category_path,
        full.eans,
        full.sales_rank,
        full.rating_tenths,
        full.review_count,
        full.monthly_sold,
        full.availability,
        full.referral_fee_pct,
        full.fba_pick_pack_minor,
        full.package_weight_g,
        len(full.image_urls),
        full.updated_at,
    ) == (
        "EQQUALBERRY",
        ("Beauty & Personal Care", "Skin Care", "Face", "Treatments & Masks", "Serums"),
        ("8809875456477",),
        23,
        43,
        11598,
        100000,
        Availability.NO_OFFER,
        15.01,
        409,
        141,
        9,
        datetime(2026, 5, 10, 4, 2, tzinfo=UTC),
    )


def test_what_a_reseller_should_know_is_keepas_own(full: Product) -> None:
    assert (
        full.is_hazardous,
        full.is_heat_sensitive,
        full.return_rate,
        full.coupon_minor,
        full.coupon_pct,
        full.lightning_ends_at,
        full.offer_count,
        full.sales_rank_drops_30,
        full.buy_box_is_amazon,
        full.buy_box_is_fba,
    ) == (None, False, None, None, None, None, 5, 35, False, True)


def test_who_has_the_buy_box_is_not_known_where_it_was_not_asked(plain: Product) -> None:
    assert (plain.offer_count, plain.sales_rank_drops_30, plain.buy_box_is_amazon, plain.buy_box_is_fba) == (4, 35, None, None)


def test_the_bytes_of_a_product_are_keepas_own(full: Product) -> None:
    body = recording(FULL)
    raw = bytes(decode_products(body, [full.asin], Marketplace.US).raw[full.asin])
    assert (raw in body, json.loads(raw)) == (True, json.loads(body)["products"][0])


def test_the_token_status_is_keepas_own() -> None:
    tokens = decode_products(recording(FULL), [SERUM], Marketplace.US).envelope.tokens
    assert tokens is not None
    assert (tokens.tokens_consumed, tokens.tokens_left, tokens.refill_per_minute, tokens.refill_in_seconds, tokens.at) == (
        4,
        94,
        60,
        53.441,
        datetime(2026, 5, 10, 4, 19, 28, 884000, tzinfo=UTC),
    )


def envelope_of(label: str) -> Envelope:
    for name in (OURS, Path(os.environ.get("KEEPER_RECORDINGS", OURS))):
        for entry in json.loads((name / "envelopes.json").read_text()):
            if entry["label"] == label:
                return decode_envelope(json.dumps(entry["body"]).encode())
    raise LookupError(label)


def test_the_recorded_answer_to_an_invalid_key_is_no_empty_bucket() -> None:
    envelope = envelope_of("invalid_key")
    assert (envelope.tokens, envelope.is_all_zero, envelope.error) == (
        None,
        True,
        "invalidParameter: You used an invalid parameter for this API call.",
    )


@pytest.mark.recordings
def test_the_recorded_token_status_is_read() -> None:
    tokens = envelope_of("token_status").tokens
    assert tokens is not None
    assert (tokens.tokens_left, tokens.refill_per_minute, tokens.refill_in_seconds) == (1200, 20, 39.592)


@pytest.mark.recordings
def test_the_recorded_empty_bucket_is_an_empty_bucket() -> None:
    envelope = envelope_of("empty_bucket_no_error_object")
    assert envelope.tokens is not None
    assert (envelope.is_all_zero, envelope.tokens.tokens_left, envelope.tokens.refill_in_seconds) == (False, 0, 38.205)


@pytest.mark.recordings
def test_an_answer_of_2025_without_history_is_read() -> None:
    product = product_of("product_us_code_lookup_offers_47tokens_2025.json", "B008N7TETU")
    assert (product.series, product.stats, product.dropped, product.upcs, product.image_urls[3]) == (
        {},
        None,
        (),
        ("688575201901",),
        "https://m.media-amazon.com/images/I/51+XJMlhlKL.jpg",
    )


@pytest.mark.recordings
def test_a_german_glitch_price_is_read() -> None:
    product = product_object_of("productobj_de_B0BFRDGFP6_stats90_csv_truncated.json", "B0BFRDGFP6")
    assert product.stats is not None
    assert (
        product.stats.current[PriceType.AMAZON],
        product.stats.average[90][PriceType.AMAZON],
        product.series[PriceType.AMAZON].amounts,
    ) == (
        3046,
        241351,
        (249000, 3047, 3046),
    )


@pytest.mark.recordings
def test_a_german_product_without_used_offers_is_out_of_stock_there() -> None:
    product = product_object_of("productobj_de_B0BFRDGFP6_stats90_csv_truncated.json", "B0BFRDGFP6")
    assert product.stats is not None
    assert product.stats.current[PriceType.USED] is None


@pytest.mark.recordings
def test_the_second_german_product_is_read_whole() -> None:
    product = product_object_of("productobj_de_B0010AH4BW_stats90_csv_truncated.json", "B0010AH4BW")
    assert (product.dropped, product.stats is not None) == ((), True)


DEALS = "deal_de_amazon_week_page0_150deals.json"


@pytest.fixture(scope="module")
def deal_page() -> DecodedDeals:
    return decode_deals(recording(DEALS), Marketplace.DE, PriceType.AMAZON)


@pytest.mark.recordings
def test_a_recorded_page_of_deals_is_read_whole(deal_page: DecodedDeals) -> None:
    assert (len(deal_page.sightings), deal_page.row_count, deal_page.unreadable, deal_page.skipped, deal_page.dropped) == (
        150,
        150,
        {},
        (),
        {},
    )


@pytest.mark.recordings
def test_recorded_deals_are_what_a_plain_reading_gives(deal_page: DecodedDeals) -> None:
    rows = json.loads(recording(DEALS))["deals"]["dr"]
    names = json.loads(recording(DEALS))["deals"]
    roots = dict(zip(names["categoryIds"], names["categoryNames"], strict=True))

    def shown(row: dict[str, Any]) -> tuple[object, ...]:
        now, since = row["current"], row["currentSince"]
        start = datetime(2011, 1, 1, tzinfo=UTC)
        return (
            row["asin"],
            start + timedelta(minutes=since[0]),
            start + timedelta(minutes=row["lastUpdate"]),
            now[0],
            now[0] + row["deltaLast"][0] if row["deltaLast"][0] else None,
            now[4] if now[4] > 0 else None,
            {days: row["avg"][place][0] for place, days in enumerate((2, 7, 31, 90)) if row["avg"][place][0] > 0},
            now[16] if now[16] >= 0 else None,
            now[17] if now[17] >= 0 else None,
            now[3] if now[3] > 0 else None,
            now[11] if now[11] >= 0 else None,
            row["salesRankDrops90"] if row["salesRankDrops90"] >= 0 else None,
            row["rootCat"],
            [category for category in row["categories"] if category < 2**63 - 1],
            roots.get(row["rootCat"]),
            row.get("parentAsin"),
            "https://m.media-amazon.com/images/I/" + "".join(map(chr, row["image"])) if row["image"] else None,
            row["title"],
        )

    assert [
        (
            one.asin,
            one.changed_at,
            time_of(one.updated_minute),
            one.amount_minor,
            one.previous_minor,
            one.list_price_minor,
            one.averages_minor,
            one.rating_tenths,
            one.review_count,
            one.sales_rank,
            one.offer_count,
            one.sales_rank_drops_90,
            one.root_category_id,
            list(one.category_ids),
            one.category,
            one.parent_asin,
            one.image_url,
            one.title,
        )
        for one in deal_page.sightings
    ] == [shown(row) for row in rows]


@pytest.mark.recordings
def test_all_present_values_of_recorded_deals_are_keepas(deal_page: DecodedDeals) -> None:
    rows = json.loads(recording(DEALS))["deals"]["dr"]
    for one, row in zip(deal_page.sightings, rows, strict=True):
        assert one.current == {
            price_type: value if value >= (1 if price_type.is_price else 0) else None
            for price_type, value in zip(PRICE_TYPES, row["current"], strict=True)
            if value != -2
        }
        assert one.current_since == {
            price_type: minute + 21_564_000 for price_type, minute in zip(PRICE_TYPES, row["currentSince"], strict=True) if minute > 0
        }


@pytest.mark.recordings
def test_falls_from_the_averages_of_recorded_deals_are_keepas(deal_page: DecodedDeals) -> None:
    rows = json.loads(recording(DEALS))["deals"]["dr"]
    compared = 0
    for one, row in zip(deal_page.sightings, rows, strict=True):
        for place, days in enumerate((2, 7, 31, 90)):
            if (mean := one.averages_minor.get(days)) is not None:
                fall = mean - one.amount_minor
                assert (fall, math.floor(100 * fall / mean + 0.5)) == (row["delta"][place][0], row["deltaPercent"][place][0])
                compared += 1
    assert compared > 500


@pytest.mark.recordings
def test_a_recorded_page_says_where_all_its_deals_are(deal_page: DecodedDeals) -> None:
    page = json.loads(recording(DEALS))["deals"]
    known = {
        category: (None if name == "?" else name, count)
        for category, name, count in zip(page["categoryIds"], page["categoryNames"], page["categoryCount"], strict=True)
        if category < 2**63 - 1
    }
    assert (deal_page.roots, deal_page.envelope.tokens and deal_page.envelope.tokens.tokens_consumed) == (known, 5)


@pytest.mark.recordings
def test_the_bytes_of_a_recorded_deal_are_keepas_own(deal_page: DecodedDeals) -> None:
    body = recording(DEALS)
    assert all(bytes(raw) in body and json.loads(bytes(raw))["asin"] == asin for asin, raw in deal_page.raw.items())
