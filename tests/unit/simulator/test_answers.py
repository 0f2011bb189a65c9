import html
import math
from typing import Any

import pytest

from keeper.simulator.clock import KEEPA_EPOCH_MINUTES
from keeper.simulator.prices import PRICES, TRIPLETS
from tests.unit.simulator.conftest import START, World, WorldMaker

NOW = START / 60 - KEEPA_EPOCH_MINUTES
KEYBOARDS = [0, 5, 13, 21, 34, 46]
OFFERS_ONLY = {7, 9, 10, *range(19, 28), 32}


def points(product: dict[str, Any], price_type: int) -> list[tuple[int, int]]:
    flat = product["csv"][price_type]
    if price_type in TRIPLETS:
        return [(m, p + max(0, s) if p >= 0 else -1) for m, p, s in zip(flat[::3], flat[1::3], flat[2::3], strict=True)]
    return list(zip(flat[::2], flat[1::2], strict=True))


def walk(entries: list[tuple[int, int]], start: float, end: float) -> tuple[float, float, float]:
    """Value x minutes, minutes with a value, minutes covered, by going through every span."""
    weighted = live = covered = 0.0
    for place, (minute, value) in enumerate(entries):
        until = entries[place + 1][0] if place + 1 < len(entries) else end
        span = min(until, end) - max(minute, start)
        if span > 0:
            covered += span
            if value >= 0:
                live += span
                weighted += value * span
    return weighted, live, covered


@pytest.mark.parametrize("number", KEYBOARDS)
@pytest.mark.parametrize("days", [30, 90, 180, 365])
def test_averages_are_the_mean_weighted_by_time_cut_off(shared_world: World, number: int, days: int) -> None:
    product = shared_world.product(number, stats=7, rating=1, buybox=1)
    for price_type, flat in enumerate(product["csv"]):
        expected = -1
        if flat:
            weighted, live, _ = walk(points(product, price_type), NOW - days * 1440, NOW)
            expected = int(weighted / live + 1e-6) if live else -1
        if price_type == 8:
            continue  # its last entry may lie in the future
        assert product["stats"][f"avg{days}"][price_type] == expected, price_type


@pytest.mark.parametrize("number", KEYBOARDS)
@pytest.mark.parametrize("days", [30, 90, 180, 365])
def test_out_of_stock_percentage_is_rounded_up_and_only_for_prices(shared_world: World, number: int, days: int) -> None:
    product = shared_world.product(number, stats=7, offers=20, update=-1)
    for price_type, flat in enumerate(product["csv"]):
        if price_type == 8:
            continue
        expected = -1
        if flat and price_type in PRICES:
            _, live, covered = walk(points(product, price_type), NOW - days * 1440, NOW)
            expected = math.ceil(100 * (covered - live) / covered - 1e-6)
        assert product["stats"][f"outOfStockPercentage{days}"][price_type] == expected, price_type


@pytest.mark.parametrize("number", KEYBOARDS)
def test_current_is_the_last_entry_of_each_series(shared_world: World, number: int) -> None:
    product = shared_world.product(number, stats=30, rating=1, buybox=1)
    for price_type, flat in enumerate(product["csv"]):
        if price_type != 8:
            assert product["stats"]["current"][price_type] == (points(product, price_type)[-1][1] if flat else -1)


@pytest.mark.parametrize("number", KEYBOARDS)
def test_lowest_and_highest_ever_are_the_first_of_their_kind(shared_world: World, number: int) -> None:
    product = shared_world.product(number, stats=30)
    for price_type in (0, 1, 3, 4, 11):
        if product["csv"][price_type] is None:
            assert product["stats"]["min"][price_type] is None
            continue
        live = [(value, minute) for minute, value in points(product, price_type) if value >= 0]
        if live:
            low, high = min(live), max(live, key=lambda pair: (pair[0], -pair[1]))
            assert product["stats"]["min"][price_type] == [low[1], low[0]]
            assert product["stats"]["max"][price_type] == [high[1], high[0]]


def test_interval_of_no_length_has_no_averages_but_fixed_windows(shared_world: World) -> None:
    stats = shared_world.product(0, stats=0)["stats"]
    assert set(stats["avg"]) == {-1}
    assert set(stats["outOfStockPercentageInInterval"]) == {-1}
    assert stats["minInInterval"][1] == [-1, -1]
    assert stats["avg30"][1] > 0


def test_interval_may_be_two_dates_or_two_numbers(shared_world: World) -> None:
    by_days = shared_world.product(0, stats=30)["stats"]
    end = int(START * 1000)
    by_numbers = shared_world.product(0, stats=f"{end - 30 * 86_400_000},{end}")["stats"]
    assert by_numbers["avg"] == by_days["avg"]
    by_dates = shared_world.product(0, stats="2026-01-01,2026-02-01T00:00:00Z")["stats"]
    assert by_dates["avg"][1] > 0
    assert by_dates["avg"] != by_days["avg"]
    assert by_dates["avg30"] == by_days["avg30"]


@pytest.mark.parametrize(
    ("options", "opened"),
    [
        ({}, set()),
        ({"rating": 1}, {15, 16, 17}),
        ({"buybox": 1}, {15, 18}),
        ({"rating": 1, "buybox": 1}, {15, 16, 17, 18}),
        ({"offers": 20}, {15, 16, 17, 18, *OFFERS_ONLY}),
    ],
    ids=["nothing", "rating", "buybox", "both", "offers"],
)
def test_types_behind_a_gate_show_only_with_their_option(shared_world: World, options: dict[str, int], opened: set[int]) -> None:
    gated = {15, 16, 17, 18, *OFFERS_ONLY}
    seen = set()
    for number in range(0, 46, 3):
        product = shared_world.product(number, stats=30, **options)
        assert len(product["csv"]) == len(product["stats"]["current"]) == 36
        for price_type in gated:
            if product["csv"][price_type] is not None:
                seen.add(price_type)
            elif price_type not in opened:
                assert product["stats"]["current"][price_type] == -1
                assert product["stats"]["min"][price_type] is None
    assert seen <= opened
    assert seen >= opened & {15, 16, 17, 18, 7, 9, 10}


def test_buy_box_without_its_option_reads_not_requested(shared_world: World) -> None:
    stats = shared_world.product(0, stats=30)["stats"]
    assert (stats["buyBoxPrice"], stats["buyBoxShipping"], stats["buyBoxSellerId"]) == (-2, -2, None)
    assert (stats["offerCountFBA"], stats["retrievedOfferCount"], stats["tradeInPrice"]) == (-2, -2, -2)
    assert "buyBoxStats" not in stats


def test_buy_box_with_its_option_agrees_with_the_history(shared_world: World) -> None:
    for number in range(46):
        product = shared_world.product(number, stats=30, buybox=1)
        stats = product["stats"]
        assert stats["buyBoxPrice"] == product["csv"][18][-2]
        assert stats["buyBoxSellerId"] == product["buyBoxSellerIdHistory"][-1]
        if stats["buyBoxPrice"] > 0:
            assert stats["buyBoxStats"][stats["buyBoxSellerId"]]["percentageWon"] > 0
            assert sum(each["percentageWon"] for each in stats["buyBoxStats"].values()) <= 100.001


def test_stats_are_null_without_the_option(shared_world: World) -> None:
    assert shared_world.product(0)["stats"] is None


def test_history_0_drops_every_history(shared_world: World) -> None:
    product = shared_world.product(0, history=0, stats=30, offers=20)
    for name in ("csv", "salesRanks", "monthlySoldHistory", "parentAsinHistory", "buyBoxSellerIdHistory", "buyBoxUsedHistory"):
        assert product[name] is None
    assert product["stats"]["current"][1] > 0


def test_days_limits_history_to_the_entry_in_force_and_what_came_after(shared_world: World) -> None:
    whole = shared_world.product(0, rating=1, buybox=1)
    short = shared_world.product(0, rating=1, buybox=1, days=30)
    cut = int(NOW) - 30 * 1440
    for price_type, flat in enumerate(whole["csv"]):
        if flat and price_type != 8:
            stride = 3 if price_type in TRIPLETS else 2
            times = flat[::stride]
            first = max((place for place, minute in enumerate(times) if minute <= cut), default=0)
            assert short["csv"][price_type] == flat[first * stride :]
    assert len(short["buyBoxSellerIdHistory"]) <= len(whole["buyBoxSellerIdHistory"])


def test_days_changes_no_statistics(shared_world: World) -> None:
    assert shared_world.product(0, stats=90, days=3)["stats"] == shared_world.product(0, stats=90)["stats"]


@pytest.mark.parametrize("domain", [1, 2, 3, 4, 8, 9])
def test_nothing_lies_in_the_future_but_a_lightning_deals_end(shared_world: World, domain: int) -> None:
    for number in range(0, 46, 5):
        product = shared_world.product(number, domain=domain, rating=1, buybox=1)
        assert NOW - 60 <= product["lastUpdate"] <= NOW
        for price_type, flat in enumerate(product["csv"]):
            if flat and price_type != 8:
                assert flat[:: 3 if price_type in TRIPLETS else 2][-1] <= product["lastUpdate"]


def test_running_lightning_deal_shows_its_price_and_its_end(new_world: WorldMaker) -> None:
    world = new_world()
    history = world.keepa.catalog.history(world.keepa.catalog.product(0), 3, int(NOW))
    start, end = next(window for window in history.lightning_windows if window[0] > NOW - 600 * 1440)
    moment = (start + 60 + KEEPA_EPOCH_MINUTES) * 60.0
    product = new_world(start_at=moment).product(0, stats=30, update=0)
    assert product["stats"]["lightningDealInfo"] == [start, end]
    assert product["csv"][8][-2:] == [end, -1]
    assert product["stats"]["current"][8] == product["csv"][8][-3] > 0
    assert product["deals"][0]["dealType"] == "LIGHTNING_DEAL"


def test_announced_lightning_deal_shows_its_start(new_world: WorldMaker) -> None:
    world = new_world()
    history = world.keepa.catalog.history(world.keepa.catalog.product(0), 3, int(NOW))
    start, _ = next(window for window in history.lightning_windows if window[0] > NOW - 600 * 1440)
    moment = (start - 30 + KEEPA_EPOCH_MINUTES) * 60.0
    product = new_world(start_at=moment).product(0, stats=30, update=0)
    assert product["stats"]["lightningDealInfo"] == [start, -1]
    assert product["csv"][8][-2:] == [start, -1]
    assert product["stats"]["current"][8] == -1


@pytest.mark.parametrize(("number", "kind"), [(97, 3), (98, 5), (99, 4)])
def test_product_without_prices_has_a_type_and_no_series(shared_world: World, number: int, kind: int) -> None:
    product = shared_world.product(number, stats=30, rating=1, buybox=1)
    assert product["productType"] == kind
    assert product["csv"] == [None] * 36
    assert set(product["stats"]["current"]) == {-1}
    assert product["stats"]["buyBoxPrice"] == -1


def test_title_reads_as_in_the_seed_once_unescaped(shared_world: World) -> None:
    title = shared_world.product(18)["title"]
    assert title.startswith("T&#x27;nB")
    assert html.unescape(title).startswith("T'nB - Clavier sans Fil")


def test_every_keyboard_has_what_arbitrage_needs(shared_world: World) -> None:
    eans = []
    for domain in (2, 3, 4, 8, 9):
        product = shared_world.product(7, domain=domain, stats=30)
        eans.append(product["eanList"])
        assert product["domainId"] == domain
        assert product["categoryTree"][0]["catId"] == product["rootCategory"]
        assert product["categoryTree"][-1]["catId"] == product["categories"][0]
        assert product["fbaFees"]["pickAndPackFee"] > 0
        assert product["referralFeePercentage"] > 0
        assert min(product[name] for name in ("packageHeight", "packageLength", "packageWidth", "packageWeight")) > 0
        assert product["images"][0].keys() == {"l", "lH", "lW", "m", "mH", "mW"}
    assert all(ean == eans[0] for ean in eans)


def test_offers_agree_with_the_series_they_come_from(shared_world: World) -> None:
    for number in range(0, 46, 4):
        product = shared_world.product(number, offers=20, stats=30)
        offers = product["offers"]
        current = product["stats"]["current"]
        live = [offers[place] for place in product["liveOffersOrder"]]
        new = [offer["offerCSV"][-2] for offer in live if offer["condition"] == 1]
        assert len(new) == max(0, current[11])
        fba = [offer["offerCSV"][-2] for offer in live if offer["condition"] == 1 and offer["isFBA"] and not offer["isAmazon"]]
        assert min(fba, default=-1) == current[10]
        assert all(len(offer["offerCSV"]) % 3 == 0 for offer in offers)


def test_live_offers_only_leaves_the_ended_ones_out(shared_world: World) -> None:
    for number in range(0, 46, 4):
        product = shared_world.product(number, offers=20, only_live_offers=1)
        assert product["liveOffersOrder"] == list(range(len(product["offers"])))


def test_parent_and_each_child_list_the_whole_family(shared_world: World) -> None:
    parent, child = shared_world.product(98), shared_world.product(92)
    assert child["parentAsin"] == parent["asin"]
    assert [each["asin"] for each in parent["variations"]] == [each["asin"] for each in child["variations"]]
    assert [each["asin"] for each in parent["variations"]] == shared_world.keepa.catalog.asins(90, 96)
    assert shared_world.product(0)["variations"] is None
