"""Claims about the sighting a product's own history makes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keeper.domain.deal import DealSighting, sighting_of
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_series import Extreme, PriceSeries, minute_of
from keeper.domain.price_type import PriceType
from keeper.domain.product import Product, ProductKind, ProductStats

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
DAY = 1440


def ago(days: float) -> int:
    return minute_of(NOW - timedelta(days=days))


def series_of(*points: tuple[float, int | None]) -> PriceSeries:
    return PriceSeries(tuple(ago(days) for days, _ in points), tuple(amount for _, amount in points))


def stats_of(**fields: Any) -> ProductStats:
    names = ("current", "average", "lowest", "highest", "lowest_in_interval", "highest_in_interval", "out_of_stock_pct", "sales_rank_drops")
    empty: dict[str, Any] = {name: {} for name in names}
    return ProductStats(**(empty | fields))


def product_of(series: PriceSeries | None = None, **fields: Any) -> Product:
    given: dict[str, Any] = {"asin": "B0CPV5YY7K", "marketplace": Marketplace.DE, "kind": ProductKind.STANDARD, "answered_at": NOW}
    if series is not None:
        given["series"] = {PriceType.NEW: series}
    return Product(**(given | fields))


def seen(product: Product) -> DealSighting:
    sighting = sighting_of(product, PriceType.NEW, NOW)
    assert sighting is not None
    return sighting


YEARS = series_of((800, 3000), (400, 1500), (300, 4000), (200, None), (100, 2000), (50, 5000), (2, None), (1, 1800), (0.5, 1800))


def test_the_present_price_is_since_it_became_what_it_is() -> None:
    sighting = seen(product_of(YEARS))
    assert (sighting.amount_minor, sighting.changed_minute) == (1800, ago(1))


def test_the_price_before_is_the_last_there_was() -> None:
    assert seen(product_of(YEARS)).previous_minor == 5000


def test_lows_and_high_are_of_the_time_before_the_present_price() -> None:
    sighting = seen(product_of(YEARS, tracking_since=NOW - timedelta(days=800)))
    # 1,500 stood until 300 days ago, so within the year.
    assert (sighting.lowest_year_minor, sighting.highest_year_minor, sighting.lowest_ever_minor) == (1500, 5000, 1500)


def test_averages_and_median_are_weighted_by_time() -> None:
    sighting = seen(product_of(series_of((100, 1000), (45, 3000), (1, 500))))
    assert (sighting.averages_minor, sighting.median_90_minor) == (
        {2: 1750, 7: (6 * 3000 + 500) // 7, 31: (30 * 3000 + 500) // 31, 90: (45 * 1000 + 44 * 3000 + 500) // 90},
        1000,
    )


def test_keepas_means_stand_in_where_the_history_is_too_short() -> None:
    stats = stats_of(current={PriceType.NEW: 500}, average={30: {PriceType.NEW: 2900}, 90: {PriceType.NEW: 2000}})
    assert seen(product_of(series_of((10, 3000), (1, 500)), stats=stats)).averages_minor == {
        2: 1750,
        7: (18000 + 500) // 7,
        31: 2900,
        90: 2000,
    }


def test_without_a_history_the_price_is_since_keepa_saw_a_change() -> None:
    stats = stats_of(current={PriceType.NEW: 500})
    sighting = seen(product_of(stats=stats, price_changed_at=NOW - timedelta(hours=3), updated_at=NOW - timedelta(hours=1)))
    assert (
        sighting.changed_minute,
        sighting.updated_minute,
        sighting.previous_minor,
        sighting.averages_minor,
        sighting.median_90_minor,
    ) == (
        minute_of(NOW) - 180,
        minute_of(NOW) - 60,
        None,
        {},
        None,
    )


def test_a_present_price_the_history_does_not_know_yet_is_since_the_last_look() -> None:
    stats = stats_of(current={PriceType.NEW: 500})
    sighting = seen(product_of(series_of((10, 3000)), stats=stats, updated_at=NOW - timedelta(hours=1)))
    assert (sighting.changed_minute, sighting.previous_minor) == (minute_of(NOW) - 60, 3000)


def test_a_price_in_the_future_is_not_there_yet() -> None:
    assert seen(product_of(series_of((10, 3000), (-1, 1)))).amount_minor == 3000


@pytest.mark.parametrize(
    "product",
    [
        pytest.param(product_of(), id="nothing known"),
        pytest.param(product_of(series_of((10, 3000), (1, None))), id="out of stock"),
        pytest.param(product_of(series_of((10, 3000)), stats=stats_of(current={PriceType.NEW: None})), id="out of stock by its statistics"),
        pytest.param(product_of(series_of((-1, 3000))), id="announced"),
    ],
)
def test_no_offer_is_no_sighting(product: Product) -> None:
    assert sighting_of(product, PriceType.NEW, NOW) is None


@pytest.mark.parametrize(
    ("fields", "lowest"),
    [
        pytest.param({}, None, id="a history that may be cut"),
        pytest.param({"tracking_since": NOW - timedelta(days=30)}, 3000, id="a whole history"),
        pytest.param({"tracking_since": NOW - timedelta(days=900)}, None, id="a history that is cut"),
        pytest.param({"stats": stats_of(lowest={PriceType.NEW: Extreme(700, ago(600))})}, 700, id="Keepa's own"),
        pytest.param({"stats": stats_of(lowest={PriceType.NEW: Extreme(500, ago(1))})}, 3000, id="Keepa's own is the present price"),
    ],
)
def test_the_lowest_ever_is_told_where_it_is_known(fields: dict[str, Any], lowest: int | None) -> None:
    assert seen(product_of(series_of((30, 3000), (1, 500)), **fields)).lowest_ever_minor == lowest


def test_a_product_that_never_cost_anything_else_has_no_lows() -> None:
    sighting = seen(product_of(series_of((500, 3000))))
    assert (sighting.previous_minor, sighting.lowest_year_minor, sighting.highest_year_minor, sighting.lowest_ever_minor) == (
        None,
        None,
        None,
        None,
    )


def test_list_price_rank_and_offers_are_the_products() -> None:
    stats = stats_of(current={PriceType.NEW: 500, PriceType.LISTPRICE: 900, PriceType.COUNT_NEW: 4}, sales_rank_drops={90: 12})
    sighting = seen(
        product_of(stats=stats, sales_rank=77, rating_tenths=43, review_count=9, category_path=("Küche", "Toaster"), brand="WMF")
    )
    assert (
        sighting.list_price_minor,
        sighting.offer_count,
        sighting.sales_rank_drops_90,
        sighting.sales_rank,
        sighting.rating_tenths,
        sighting.review_count,
        sighting.category,
        sighting.brand,
    ) == (900, 4, 12, 77, 43, 9, "Toaster", "WMF")
