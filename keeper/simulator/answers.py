"""Writes a product answer as Keepa does: the same keys, the same gates, the same arithmetic.

Shapes follow recorded answers; the formulas of `stats` reproduce the recordings (Keepa API docs, statistics object).
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from keeper.simulator.catalog import (
    MARKETPLACES,
    UNKNOWN_CATEGORY,
    Marketplace,
    Product,
    count_pieces,
    list_categories,
    list_ean,
    make_title,
    variation_asins,
)
from keeper.simulator.columns import NONE, Column
from keeper.simulator.prices import (
    AMAZON,
    ANNOUNCED_AHEAD,
    BUY_BOX_SHIPPING,
    BUY_BOX_USED_SHIPPING,
    COUNT_NEW,
    COUNT_NEW_FBA,
    COUNT_NEW_FBM,
    COUNT_REVIEWS,
    COUNT_USED,
    DAY,
    EXTRA_UPDATES,
    LIGHTNING_DEAL,
    LISTPRICE,
    NEW_FBA,
    NEW_FBM_SHIPPING,
    PRICES,
    RATING,
    SALES,
    TYPES,
    WAREHOUSE,
    History,
    Traits,
    derive,
)

# Which price types an option opens; what no option opens is always there (Keepa API docs, product object, csv).
OFFERS_ONLY = frozenset({NEW_FBM_SHIPPING, WAREHOUSE, NEW_FBA, *range(19, 28), BUY_BOX_USED_SHIPPING})
BUYBOX_TYPES = frozenset({BUY_BOX_SHIPPING})
RATING_TYPES = frozenset({RATING, COUNT_REVIEWS})
GATED = OFFERS_ONLY | BUYBOX_TYPES | RATING_TYPES | {EXTRA_UPDATES}
OPEN_TYPES = frozenset(range(TYPES)) - GATED
NOT_REQUESTED = -2
_WINDOWS = (30, 90, 180, 365)
_NOBODY = ("-1", "-2", "")


@dataclass(frozen=True, slots=True)
class View:
    """How much of a product an answer shows.

    Attributes:
        stats: Start and end of the interval in Keepa minutes; None without `stats`.
        history: Whether histories are in the answer.
        since: Keepa minute from which on they are, with the entry in force then (as the recorded offers of `days=1` have it);
            None means all.
        offers: Whether offers were fetched or recent ones used.
        only_live_offers: Whether offers that have ended are left out.
        buybox: Whether buy-box data were asked for.
        rating: Whether rating data were asked for.
        stock: Whether stock was asked for (with offers only).
        historical_variations: Whether former variations were asked for.
        videos: Whether videos were asked for.
        aplus: Whether A+ content was asked for.
    """

    stats: tuple[float, float] | None = None
    history: bool = True
    since: int | None = None
    offers: bool = False
    only_live_offers: bool = False
    buybox: bool = False
    rating: bool = False
    stock: bool = False
    historical_variations: bool = False
    videos: bool = False
    aplus: bool = False

    @property
    def types(self) -> frozenset[int]:
        """Price types this view opens."""
        return _open_types(self.offers, self.buybox, self.rating)


@lru_cache(maxsize=8)
def _open_types(offers: bool, buybox: bool, rating: bool) -> frozenset[int]:
    if offers:
        return frozenset(range(TYPES))
    opened = set(OPEN_TYPES)
    if buybox:
        opened |= BUYBOX_TYPES
    if rating:
        opened |= RATING_TYPES
    if buybox or rating:
        opened.add(EXTRA_UPDATES)
    return frozenset(opened)


@dataclass(frozen=True, slots=True)
class Freshness:
    """When Keepa last looked.

    Attributes:
        now: Simulated Keepa minutes with their fraction.
        updated: Minute of the data in this answer; nothing later is shown.
        rating_updated: Minute of the rating data.
        stock_updated: Minute of the stock data.
        offers_updated: Minute of the offers data.
    """

    now: float
    updated: int
    rating_updated: int
    stock_updated: int
    offers_updated: int


def make_unknown(asin: str, domain: int, updated: int) -> dict[str, Any]:
    """Returns the entry for a well-formed ASIN that the catalog does not have.

    Keepa's own entry is not documented; this one has every key, no content and productType 4 (invalid or deprecated).
    """
    answer: dict[str, Any] = dict.fromkeys(_PLAIN_KEYS)
    answer.update(_SENTINELS)
    answer.update(asin=asin, domainId=domain, productType=4, lastUpdate=updated, trackingSince=updated, csv=[None] * TYPES, rootCategory=0)
    return answer


def make_product(product: Product, traits: Traits, history: History, view: View, fresh: Freshness) -> dict[str, Any]:
    """Returns one entry of `products`."""
    place = MARKETPLACES[traits.domain]
    answer = describe_product(product, traits, place).copy()
    counts = [0 if column is None else column.count_until(fresh.updated) for column in history.columns]
    columns: Sequence[Column | None] = [
        column if count and price_type in view.types else None
        for price_type, (column, count) in enumerate(zip(history.columns, counts, strict=True))
    ]
    changes = bisect_right(history.price_changes, fresh.updated)
    answer.update(
        lastUpdate=fresh.updated,
        lastPriceChange=history.price_changes[changes - 1] if changes else history.first,
        lastRatingUpdate=fresh.rating_updated,
        lastSoldUpdate=fresh.updated,
        trackingSince=history.first,
        stats=None,
        offersSuccessful=False,
        liveOffersOrder=None,
    )
    amazon = _at(history.columns[AMAZON], counts[AMAZON])
    answer["availabilityAmazon"] = 0 if amazon > 0 else -1
    answer["monthlySold"] = None
    if history.monthly_sold is not None:
        sold = history.monthly_sold.value_at(fresh.updated, len(history.monthly_sold.times))
        answer["monthlySold"] = sold if sold > 0 else None
    box = _at(history.columns[BUY_BOX_SHIPPING], counts[BUY_BOX_SHIPPING])
    answer["buyBoxEligibleOfferCounts"] = _count_eligible(history, counts)
    answer["competitivePriceThreshold"] = int(box * 1.05) if box > 0 else None
    lightning = find_lightning(history, fresh.updated)
    answer["deals"] = None
    if lightning is not None and lightning[1] >= 0:
        answer["deals"] = [{"accessType": "ALL", "badge": "Lightning deal", "dealType": "LIGHTNING_DEAL"}]
    _write_history(answer, product, traits, history, columns, counts, view, fresh, lightning)
    if view.stats is not None:
        answer["stats"] = make_stats(traits, history, columns, counts, view, fresh, lightning)
    if view.rating or view.offers:
        answer["reviews"] = _make_reviews(columns, counts, view, fresh)
    if view.offers:
        _write_offers(answer, traits, history, counts, view, fresh)
    if view.historical_variations:
        answer["historicalVariations"] = [product.parent] if product.parent else None
    if not view.videos:
        answer["videos"] = None
    if not view.aplus:
        answer["aPlus"] = None
    return answer


def count_offers(history: History, minute: int) -> int:
    """Returns how many offers a fetch would find: new and used ones."""
    new, used = history.columns[COUNT_NEW], history.columns[COUNT_USED]
    found = 0
    for column in (new, used):
        if column is not None:
            found += max(0, column.value_at(minute, column.count_until(minute)))
    return found


def last_offers_fetch(history: History, minute: int) -> int:
    """Returns when another of Keepa's users last had offers fetched; 0 if never."""
    column = history.columns[EXTRA_UPDATES]
    if column is None:
        return 0
    count = column.count_until(minute)
    return column.times[count - 1] if count else 0


def _at(column: Column | None, count: int) -> int:
    return column.totals[count - 1] if column is not None and count else NONE


def find_lightning(history: History, minute: int) -> tuple[int, int] | None:
    """Returns start and end of the running deal, start and -1 of an announced one, None without either."""
    for start, end in history.lightning_windows:
        if start <= minute < end:
            return start, end
        if start - ANNOUNCED_AHEAD <= minute < start:
            return start, NONE
    return None


def _write_history(
    answer: dict[str, Any],
    product: Product,
    traits: Traits,
    history: History,
    columns: Sequence[Column | None],
    counts: Sequence[int],
    view: View,
    fresh: Freshness,
    lightning: tuple[int, int] | None,
) -> None:
    for key in _HISTORY_KEYS:
        answer[key] = None
    if not view.history:
        return
    since = view.since
    csv = [None if column is None else column.select_flat(count, since) for column, count in zip(columns, counts, strict=True)]
    deals = csv[LIGHTNING_DEAL]
    if deals is not None and lightning is not None:
        # The one entry that may lie in the future: the end of a running deal or the start of an announced one.
        deals += [lightning[1] if lightning[1] >= 0 else lightning[0], NONE]
    answer["csv"] = csv
    ranks = csv[SALES]
    if ranks is not None:
        place = MARKETPLACES[traits.domain]
        root, leaf = place.root[0], (place.path[-1] if product.trap is None else place.accessories)[0]
        # The node below has fewer products: the same walk on a smaller scale.
        below = ranks.copy()
        below[1::2] = [max(1, rank // 24) for rank in below[1::2]]
        answer["salesRanks"] = {str(root): ranks, str(leaf): below}
        answer["salesRankReferenceHistory"] = [history.first, root]
    if history.monthly_sold is not None:
        sold = history.monthly_sold
        answer["monthlySoldHistory"] = sold.select_flat(sold.count_until(fresh.updated), since)
    if answer["coupon"] is not None:
        answer["couponHistory"] = [history.first, *answer["coupon"]]
    if product.parent:
        answer["parentAsinHistory"] = [str(history.first), product.parent]
    if view.offers or view.buybox:
        times = history.buybox_times
        begin = 0 if since is None else max(0, bisect_right(times, since) - 1)
        until = bisect_right(times, fresh.updated)
        flat = [
            word
            for minute, seller in zip(times[begin:until], history.buybox_sellers[begin:until], strict=True)
            for word in (str(minute), seller)
        ]
        answer["buyBoxSellerIdHistory"] = flat


def make_stats(
    traits: Traits,
    history: History,
    columns: Sequence[Column | None],
    counts: Sequence[int],
    view: View,
    fresh: Freshness,
    lightning: tuple[int, int] | None,
) -> dict[str, Any]:
    """Returns the `stats` object.

    `avgN` is the mean weighted by time over the last N days, cut off to a whole number; `outOfStockPercentageN` is rounded up;
    where the history is shorter than the window, the part it covers is the whole.
    """
    interval = view.stats or (fresh.now, fresh.now)
    now = fresh.now
    end = min(interval[1], now)
    starts = (interval[0], *(now - days * DAY for days in _WINDOWS))
    averages = [[NONE] * TYPES for _ in starts]
    missing = [[NONE] * TYPES for _ in starts]
    current, at_start = [NONE] * TYPES, [NONE] * TYPES
    low: list[list[int] | None] = [None] * TYPES
    high: list[list[int] | None] = [None] * TYPES
    low_in: list[list[int] | None] = [None] * TYPES
    high_in: list[list[int] | None] = [None] * TYPES
    is_lowest, is_lowest_90 = [False] * TYPES, [False] * TYPES
    for price_type, column in enumerate(columns):
        if column is None:
            continue
        count = counts[price_type]
        value = column.totals[count - 1]
        current[price_type] = value
        at_start[price_type] = column.value_at(interval[0], count)
        is_price = price_type in PRICES
        windows = column.measure(starts, now, count)
        if end != now:
            windows[0] = column.measure(starts[:1], end, count)[0]
        for row, (weighted, live, covered) in enumerate(windows):
            if live > 0:
                averages[row][price_type] = int(weighted / live + 1e-9)
            if is_price and covered > 0:
                missing[row][price_type] = math.ceil(100 * (covered - live) / covered - 1e-9)
        lowest = column.lowest(fresh.updated)
        if lowest is None:
            continue
        highest = column.highest(fresh.updated)
        low[price_type] = [*lowest]
        high[price_type] = [*highest] if highest is not None else None
        extremes = column.range_in(*interval, count)
        low_in[price_type] = [*extremes[0]] if extremes is not None else [NONE, NONE]
        high_in[price_type] = [*extremes[1]] if extremes is not None else [NONE, NONE]
        if value >= 0:
            is_lowest[price_type] = value == lowest[1]
            is_lowest_90[price_type] = value <= column.lowest_since(now - 90 * DAY, count)
    drops = history.rank_drops
    drops_until = bisect_right(drops, fresh.updated)
    stats: dict[str, Any] = {
        "current": current,
        "avg": averages[0],
        "avg30": averages[1],
        "avg90": averages[2],
        "avg180": averages[3],
        "avg365": averages[4],
        "atIntervalStart": at_start,
        "min": low,
        "max": high,
        "minInInterval": low_in,
        "maxInInterval": high_in,
        "isLowest": is_lowest,
        "isLowest90": is_lowest_90,
        "outOfStockPercentageInInterval": missing[0],
        "outOfStockPercentage30": missing[1],
        "outOfStockPercentage90": missing[2],
        "outOfStockPercentage180": missing[3],
        "outOfStockPercentage365": missing[4],
        "outOfStockCountAmazon30": _count_gaps(columns[AMAZON], counts[AMAZON], now - 30 * DAY),
        "outOfStockCountAmazon90": _count_gaps(columns[AMAZON], counts[AMAZON], now - 90 * DAY),
        "deltaPercent90_monthlySold": _sold_delta(history, fresh),
        "salesRankDrops30": drops_until - bisect_left(drops, now - 30 * DAY, 0, drops_until),
        "salesRankDrops90": drops_until - bisect_left(drops, now - 90 * DAY, 0, drops_until),
        "salesRankDrops180": drops_until - bisect_left(drops, now - 180 * DAY, 0, drops_until),
        "salesRankDrops365": drops_until - bisect_left(drops, now - 365 * DAY, 0, drops_until),
        "totalOfferCount": max(0, _at(history.columns[COUNT_NEW], counts[COUNT_NEW]))
        + max(0, _at(history.columns[COUNT_USED], counts[COUNT_USED])),
        "lastOffersUpdate": fresh.offers_updated if view.offers else fresh.updated,
        "lightningDealInfo": None if lightning is None else [*lightning],
        "tradeInPrice": NOT_REQUESTED,
        "offerCountFBA": NOT_REQUESTED,
        "offerCountFBM": NOT_REQUESTED,
        "retrievedOfferCount": NOT_REQUESTED,
        "sellerIdsLowestFBA": None,
        "sellerIdsLowestFBM": None,
    }
    stats.update(_BUYBOX_NOT_REQUESTED)
    if view.offers or view.buybox:
        _write_buybox(stats, traits, history, counts, interval, fresh)
    if view.offers:
        fba = max(0, _at(history.columns[COUNT_NEW_FBA], counts[COUNT_NEW_FBA]))
        fbm = max(0, _at(history.columns[COUNT_NEW_FBM], counts[COUNT_NEW_FBM]))
        stats.update(
            offerCountFBA=fba,
            offerCountFBM=fbm,
            retrievedOfferCount=stats["totalOfferCount"],
            sellerIdsLowestFBA=[traits.seller_ids[0]] if traits.fba and fba else None,
            sellerIdsLowestFBM=[traits.seller_ids[traits.fba]] if fbm else None,
        )
        used = history.columns[BUY_BOX_USED_SHIPPING]
        used_price = _at(used, counts[BUY_BOX_USED_SHIPPING])
        if used is not None:
            stats.update(
                buyBoxUsedPrice=used_price,
                buyBoxUsedShipping=0 if used_price >= 0 else NONE,
                buyBoxUsedSellerId=traits.amazon_id if used_price >= 0 else None,
                buyBoxUsedIsFBA=used_price >= 0,
                buyBoxUsedCondition=3 if used_price >= 0 else None,
            )
        if view.stock:
            stats.update(stockAmazon=_stock(traits, "amazon") if current[AMAZON] > 0 else -2, stockBuyBox=_stock(traits, "box"))
    return stats


def _write_buybox(
    stats: dict[str, Any], traits: Traits, history: History, counts: Sequence[int], interval: tuple[float, float], fresh: Freshness
) -> None:
    box = history.columns[BUY_BOX_SHIPPING]
    count = counts[BUY_BOX_SHIPPING]
    price, shipping = (box.flat[3 * count - 2], box.flat[3 * count - 1]) if box is not None and count else (NONE, NONE)
    holder = bisect_right(history.buybox_times, fresh.updated) - 1
    seller = history.buybox_sellers[holder] if holder >= 0 else "-1"
    won = price > 0 and seller not in _NOBODY
    by_amazon = won and seller == traits.amazon_id
    by_fba = by_amazon or (won and seller in traits.seller_ids[: traits.fba])
    listed = _at(history.columns[LISTPRICE], counts[LISTPRICE])
    saving = round(100 * (listed - price) / listed) if won and listed > price else None
    stats.update(
        buyBoxPrice=price,
        buyBoxShipping=shipping,
        buyBoxSellerId=seller,
        buyBoxIsAmazon=by_amazon,
        buyBoxIsFBA=by_fba,
        buyBoxIsUnqualified=not won,
        buyBoxIsShippable=won,
        buyBoxIsPreorder=False,
        buyBoxIsBackorder=False,
        buyBoxIsMAP=False,
        buyBoxIsUsed=False,
        buyBoxIsPrimeEligible=by_fba,
        buyBoxIsFreeShippingEligible=won and shipping == 0,
        buyBoxIsWarehouseDeal=False,
        buyBoxAvailabilityMessage="IN_STOCK" if won else None,
        buyBoxCondition=1 if won else None,
        buyBoxShippingTime=[0, 0] if by_fba else ([24, 72] if won else None),
        buyBoxSavingBasis=listed if saving is not None else None,
        buyBoxSavingBasisType="LIST_PRICE" if saving is not None else None,
        buyBoxSavingPercentage=saving,
        lastBuyBoxUpdate=fresh.updated,
        buyBoxStats=_share_buybox(traits, history, counts, interval, fresh),
    )


def _share_buybox(
    traits: Traits, history: History, counts: Sequence[int], interval: tuple[float, float], fresh: Freshness
) -> dict[str, dict[str, Any]]:
    start, end = interval[0], min(interval[1], fresh.now)
    times, sellers = history.buybox_times, history.buybox_sellers
    if end <= start or not times:
        return {}
    box, new = history.columns[BUY_BOX_SHIPPING], history.columns[COUNT_NEW]
    held: dict[str, float] = {}
    seen: dict[str, int] = {}
    priced: dict[str, tuple[float, float]] = {}
    first = max(0, bisect_right(times, start) - 1)
    for i in range(first, bisect_right(times, fresh.updated)):
        begin = max(start, times[i])
        until = min(end, times[i + 1]) if i + 1 < len(times) and times[i + 1] <= fresh.updated else end
        if until <= begin:
            continue
        held[sellers[i]] = held.get(sellers[i], 0.0) + until - begin
        seen[sellers[i]] = int(min(until, fresh.updated))
        if box is not None:
            weighted, live, _ = box.measure((begin,), until, counts[BUY_BOX_SHIPPING])[0]
            before = priced.get(sellers[i], (0.0, 0.0))
            priced[sellers[i]] = (before[0] + weighted, before[1] + live)
    whole = sum(held.values())
    offers = max(1, _at(new, counts[COUNT_NEW]))
    return {
        seller: {
            "percentageWon": round(100 * minutes / whole, 7),
            "avgPrice": int(priced[seller][0] / priced[seller][1]) if priced.get(seller, (0, 0))[1] else NONE,
            "avgNewOfferCount": offers,
            "avgUsedOfferCount": _at(history.columns[COUNT_USED], counts[COUNT_USED]),
            "isFBA": seller == traits.amazon_id or seller in traits.seller_ids[: traits.fba],
            "lastSeen": seen[seller],
        }
        for seller, minutes in held.items()
        if seller not in _NOBODY
    }


def _write_offers(answer: dict[str, Any], traits: Traits, history: History, counts: Sequence[int], view: View, fresh: Freshness) -> None:
    offers: list[dict[str, Any]] = []
    live: list[int] = []

    def add(price_type: int, seller: str, condition: int, factor: float, *, fba: bool, amazon: bool, warehouse: bool = False) -> None:
        column, count = history.columns[price_type], counts[price_type]
        if column is None or not count:
            return
        flat = column.select_flat(count, None if view.since is None else view.since)
        step = column.stride
        prices = [
            (minute, int(value * factor), flat[place * step + 2] if step == 3 else 0)
            for place, (minute, value) in enumerate(zip(flat[::step], flat[1::step], strict=True))
            if value > 0
        ]
        on_offer = column.totals[count - 1] > 0
        if not prices or (view.only_live_offers and not on_offer):
            return
        if on_offer:
            live.append(len(offers))
        offer: dict[str, Any] = {
            "offerId": 1 + derive(traits.asin, seller, condition) % 500,
            "lastSeen": fresh.offers_updated if on_offer else column.times[count - 1],
            "sellerId": seller,
            "offerCSV": [number for triplet in prices for number in triplet],
            "condition": condition,
            "conditionComment": None,
            "isPrime": fba,
            "isMAP": False,
            "isShippable": True,
            "isPreorder": False,
            "isWarehouseDeal": warehouse,
            "isAmazon": amazon,
            "isPrimeExcl": False,
            "isFBA": fba,
            "shipsFromChina": False,
            "minOrderQty": 1,
            "couponHistory": None,
        }
        if view.stock:
            offer["stockCSV"] = [fresh.stock_updated, _stock(traits, seller)]
        offers.append(offer)

    add(AMAZON, traits.amazon_id, 1, 1.0, fba=True, amazon=True)
    for place in range(traits.fba):
        add(NEW_FBA, traits.seller_ids[place], 1, 1 + 0.04 * place, fba=True, amazon=False)
    for place in range(traits.fbm):
        add(NEW_FBM_SHIPPING, traits.seller_ids[traits.fba + place], 1, 1 + 0.05 * place, fba=False, amazon=False)
    add(19, _third_party(traits), 2, 1.0, fba=False, amazon=False)
    add(WAREHOUSE, _warehouse_id(traits), 3, 1.0, fba=True, amazon=False, warehouse=True)
    answer["offers"] = offers or None
    answer["liveOffersOrder"] = live if offers else None
    answer["offersSuccessful"] = bool(offers)
    used = history.columns[BUY_BOX_USED_SHIPPING]
    if view.history and used is not None:
        flat: list[str] = []
        for minute, price, _ in _triplets(used.select_flat(counts[BUY_BOX_USED_SHIPPING], view.since)):
            flat += (str(minute), _warehouse_id(traits) if price > 0 else "-1", "3" if price > 0 else "", "1" if price > 0 else "0")
        answer["buyBoxUsedHistory"] = flat
    else:
        answer["buyBoxUsedHistory"] = None
    if view.stock:
        answer["lastStockUpdate"] = fresh.stock_updated


def _triplets(flat: list[int]) -> list[tuple[int, int, int]]:
    return list(zip(flat[0::3], flat[1::3], flat[2::3], strict=True))


def _third_party(traits: Traits) -> str:
    return f"A{derive('used', traits.asin, traits.domain) % 10**13:013d}"


def _warehouse_id(traits: Traits) -> str:
    return f"A{derive('warehouse', traits.domain) % 10**13:013d}"


def _stock(traits: Traits, seller: str) -> int:
    return 1 + derive("stock", traits.asin, traits.domain, seller) % 60


def _make_reviews(columns: Sequence[Column | None], counts: Sequence[int], view: View, fresh: Freshness) -> dict[str, Any]:
    column, count = columns[COUNT_REVIEWS], counts[COUNT_REVIEWS]
    flat = column.select_flat(count, view.since) if column is not None and view.history else []
    thinned = [number for place in range(0, len(flat), 20) for number in flat[place : place + 2]]
    return {"lastUpdate": fresh.rating_updated, "ratingCount": thinned, "reviewCount": thinned}


def _count_eligible(history: History, counts: Sequence[int]) -> list[int]:
    fba = max(0, _at(history.columns[COUNT_NEW_FBA], counts[COUNT_NEW_FBA]))
    fbm = max(0, _at(history.columns[COUNT_NEW_FBM], counts[COUNT_NEW_FBM]))
    used = max(0, _at(history.columns[COUNT_USED], counts[COUNT_USED]))
    return [fba, fbm, used, 0, 0, 0, 0, 0]


def _count_gaps(column: Column | None, count: int, since: float) -> int:
    """Counts the times without an Amazon offer in a window; a gap that lasts all through it counts one, as recorded."""
    if column is None:
        return NONE
    first = max(0, bisect_right(column.times, since, 0, count) - 1)
    return sum(1 for value in column.totals[first:count] if value < 0)


def _sold_delta(history: History, fresh: Freshness) -> int:
    sold = history.monthly_sold
    if sold is None:
        return NOT_REQUESTED
    count = sold.count_until(fresh.updated)
    before, now = sold.value_at(fresh.now - 90 * DAY, count), _at(sold, count)
    return NOT_REQUESTED if before <= 0 or now <= 0 else int(100 * (now - before) / before)


@lru_cache(maxsize=2048)
def describe_product(product: Product, traits: Traits, place: Marketplace) -> dict[str, Any]:
    """Returns the keys that do not change with time."""
    answer: dict[str, Any] = dict.fromkeys(_PLAIN_KEYS)
    answer.update(_SENTINELS)
    draw = derive(product.asin, "description")
    name = make_title(product, place)
    title = name if name is None else name[:200]
    pages = [
        {
            "l": f"{image_name(product, n, 'l')}.jpg",
            "lH": 1500,
            "lW": 1500,
            "m": f"{image_name(product, n, 'm')}.jpg",
            "mH": 500,
            "mW": 500,
        }
        for n in range(1 + draw % 5)
    ]
    root, leaves = list_categories(product, place)
    branch = (place.root, *place.path) if product.trap is None else (place.root, place.input_devices, place.accessories)
    is_keyboard = product.trap is None
    inaccessible = product.product_type in (3, 4)
    pieces = count_pieces(product, place)
    answer.update(
        asin=product.asin,
        domainId=place.domain,
        productType=product.product_type,
        title=title,
        brand=product.brand,
        manufacturer=product.brand,
        model=f"M{draw % 100_000:05d}",
        partNumber=f"P{draw % 1_000_000:06d}",
        color=("Schwarz", "Black", "White", None)[draw % 4],
        type="KEYBOARDS" if is_keyboard else "COMPUTER_ADD_ON",
        itemTypeKeyword="computer-keyboards" if is_keyboard else "computer-keyboard-accessories",
        websiteDisplayGroup="pc_display_on_website",
        websiteDisplayGroupName="Personal Computer",
        salesRankDisplayGroup="pc_display_on_website",
        brandStoreName=product.brand,
        brandStoreUrl=f"/stores/{product.brand.replace(' ', '')}/page/SIMULATED",
        brandStoreUrlName=product.brand,
        urlSlug="-".join(product.brand.split()) + f"-{product.asin}",
        features=[f"{product.brand} {place.noun}", "USB"] if is_keyboard else None,
        description=None,
        images=None if inaccessible else pages,
        rootCategory=root,
        categories=[*leaves],
        categoryTree=None if root == UNKNOWN_CATEGORY else [{"catId": node, "name": name} for node, name in branch],
        eanList=None if inaccessible else [list_ean(product, place)],
        upcList=None,
        parentAsin=product.parent,
        variations=_variations(product),
        hasReviews=traits.rating > 0,
        # Once and with a subscription; a negative number is a percentage.
        coupon=[-5 * (1 + draw % 3), 0] if draw % 17 == 3 and not product.product_type else None,
        isAdultProduct=False,
        isEligibleForSuperSaverShipping=True,
        isEligibleForTradeIn=False,
        isHeatSensitive=draw % 37 == 5,
        isRedirectASIN=False,
        isSNS=False,
        launchpad=False,
        g=draw % 10_000,
        listedSince=0 if draw % 7 == 0 else traits.launched,
        numberOfItems=pieces,
        packageQuantity=pieces,
        packageHeight=35 + draw % 40,
        packageLength=360 + draw % 150,
        packageWidth=130 + draw % 90,
        packageWeight=500 + draw % 900,
        itemHeight=20 + draw % 25,
        itemLength=300 + draw % 150,
        itemWidth=110 + draw % 60,
        itemWeight=400 + draw % 700,
        fbaFees=None
        if product.product_type
        else {"lastUpdate": traits.launched + 2_000 * DAY, "pickAndPackFee": int((300 + draw % 250) * place.fba_factor)},
        # Keepa measures it at a price, so it is a little off (15.01 in a recorded answer).
        referralFeePercent=15,
        referralFeePercentage=15.01,
        salesRankReference=place.root[0] if traits.rank_level is not None and not product.product_type else -1,
        unitCount={"unitType": "Count", "unitValue": float(pieces)},
        videos=[],
        aPlus=[],
    )
    # Recorded answers have these keys only where there is something to say.
    if draw % 11 == 4 and not inaccessible:
        answer["hazardousMaterials"] = _BATTERY
    if draw % 9 < 2 and not inaccessible:
        answer["returnRate"] = 1 + draw % 9
    if inaccessible:
        answer.update(brandStoreName=None, brandStoreUrl=None, brandStoreUrlName=None, features=None, unitCount=None)
    return answer


def image_name(product: Product, place: int, size: str) -> str:
    number = derive("image", product.asin, place, size)
    return f"{'71' if size == 'l' else '41'}{number:020d}"[:11] + "L"


def _variations(product: Product) -> list[dict[str, Any]] | None:
    layouts = ("QWERTZ", "QWERTY", "AZERTY", "QWERTZ CH", "QWERTY ES", "QWERTY IT")
    return [
        {"asin": asin, "image": f"{derive('image', asin):020d}"[:11] + "L.jpg", "attributes": [{"dimension": "Layout", "value": layout}]}
        for asin, layout in zip(variation_asins(product), layouts, strict=False)
    ] or None


# Of a wireless keyboard.
_BATTERY = [
    {"aspect": "united_nations_regulatory_id", "value": "UN3481"},
    {"aspect": "transportation_regulatory_class", "value": "9"},
]

_HISTORY_KEYS = (
    "csv",
    "salesRanks",
    "monthlySoldHistory",
    "parentAsinHistory",
    "couponHistory",
    "buyBoxSellerIdHistory",
    "salesRankReferenceHistory",
)

# What a recorded answer holds, null where this product has nothing.
_PLAIN_KEYS = (
    "aPlus", "activeIngredients", "asin", "author", "availabilityAmazon", "binding", "brand", "brandStoreName", "brandStoreUrl",
    "brandStoreUrlName", "buyBoxEligibleOfferCounts", "buyBoxSellerIdHistory", "categories", "categoryTree", "color",
    "competitivePriceThreshold", "coupon", "couponHistory", "csv", "deals", "description", "domainId", "eanList", "ebayListingIds",
    "edition", "fbaFees", "features", "format", "frequentlyBoughtTogether", "g", "hasReviews", "images", "ingredients",
    "isAdultProduct", "isEligibleForSuperSaverShipping", "isEligibleForTradeIn", "isHeatSensitive", "isRedirectASIN", "isSNS",
    "itemForm", "itemHeight", "itemLength", "itemTypeKeyword", "itemWeight", "itemWidth", "languages", "lastEbayUpdate",
    "lastPriceChange", "lastRatingUpdate", "lastSoldUpdate", "lastUpdate", "launchpad", "listedSince", "liveOffersOrder",
    "manufacturer", "model", "monthlySold", "monthlySoldHistory", "numberOfItems", "numberOfPages", "offersSuccessful",
    "packageHeight", "packageLength", "packageQuantity", "packageWeight", "packageWidth", "parentAsin", "parentAsinHistory",
    "partNumber", "primeDealEndTime", "productBenefit", "productGroup", "productType", "promotions", "publicationDate",
    "recommendedUsesForProduct", "referralFeePercent", "referralFeePercentage", "releaseDate", "rootCategory", "safetyWarning",
    "salesRankDisplayGroup", "salesRankReference", "salesRankReferenceHistory", "salesRanks", "scent", "size", "specialIngredients",
    "stats", "targetAudienceKeyword", "title", "trackingSince", "type", "unitCount", "upcList", "urlSlug", "variations", "videos",
    "websiteDisplayGroup", "websiteDisplayGroupName",
)  # fmt: skip

_SENTINELS: Mapping[str, Any] = {
    "availabilityAmazon": -1,
    "hasReviews": False,
    "isAdultProduct": False,
    "isEligibleForSuperSaverShipping": False,
    "isEligibleForTradeIn": False,
    "isHeatSensitive": False,
    "isRedirectASIN": False,
    "isSNS": False,
    "launchpad": False,
    "offersSuccessful": False,
    "itemHeight": -1,
    "itemLength": -1,
    "itemWeight": -1,
    "itemWidth": -1,
    "packageHeight": -1,
    "packageLength": -1,
    "packageQuantity": -1,
    "packageWeight": -1,
    "packageWidth": -1,
    "numberOfItems": -1,
    "numberOfPages": -1,
    "lastEbayUpdate": 0,
    "lastPriceChange": 0,
    "lastRatingUpdate": 0,
    "lastSoldUpdate": 0,
    "listedSince": 0,
    "primeDealEndTime": 0,
    "publicationDate": 0,
    "releaseDate": 0,
    "salesRankReference": -1,
    "referralFeePercent": 0,
    "referralFeePercentage": 0.0,
    "g": 0,
}

_BUYBOX_NOT_REQUESTED: Mapping[str, Any] = {
    "buyBoxPrice": NOT_REQUESTED,
    "buyBoxShipping": NOT_REQUESTED,
    **dict.fromkeys(
        (
            "buyBoxSellerId",
            "buyBoxIsAmazon",
            "buyBoxIsFBA",
            "buyBoxIsUnqualified",
            "buyBoxIsShippable",
            "buyBoxIsPreorder",
            "buyBoxIsBackorder",
            "buyBoxIsMAP",
            "buyBoxIsUsed",
            "buyBoxIsPrimeExclusive",
            "buyBoxIsPrimeEligible",
            "buyBoxIsFreeShippingEligible",
            "buyBoxIsWarehouseDeal",
            "buyBoxAvailabilityMessage",
            "buyBoxCondition",
            "buyBoxShippingCountry",
            "lastBuyBoxUpdate",
        )
    ),
}
