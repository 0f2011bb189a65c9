"""Makes up what a product cost, and everything around it, as a pure function of seed, product, marketplace and time.

Time is cut into segments of a quarter year on a fixed grid. Each segment draws from a generator of its own, seeded with
(seed, product, marketplace, segment), and starts from nothing the segment before has left behind except what reaches over by
its own dates (a campaign, a gap). So a price at a moment does not depend on when it is asked for nor on how far the history
goes back, and two simulators with one seed agree.

The shape follows what price trackers show: a list price that stays for months, an offer that returns to its usual level, small
jitters, campaigns of some days, sale days in every shop at once, lightning deals of hours, gaps without an offer, and now and
then a glitch. How often a product changes is log-normal between products. Some generated products crash: for an hour at most, once
a day, they cost next to nothing.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b

from keeper.simulator.clock import KEEPA_EPOCH_MINUTES
from keeper.simulator.columns import NONE, Column, StepWriter, make_column

TYPES = 36
AMAZON, NEW, USED, SALES, LISTPRICE = range(5)
NEW_FBM_SHIPPING, LIGHTNING_DEAL, WAREHOUSE, NEW_FBA, COUNT_NEW, COUNT_USED, COUNT_REFURBISHED = 7, 8, 9, 10, 11, 12, 13
EXTRA_UPDATES, RATING, COUNT_REVIEWS, BUY_BOX_SHIPPING, USED_NEW_SHIPPING, USED_VERY_GOOD_SHIPPING = 15, 16, 17, 18, 19, 20
BUY_BOX_USED_SHIPPING, PRIME_EXCL, COUNT_NEW_FBA, COUNT_NEW_FBM = 32, 33, 34, 35
TRIPLETS = frozenset({7, *range(18, 30), 32})
PRICES = frozenset({0, 1, 2, 4, 5, 6, 7, 8, 9, 10, *range(18, 34)})

# Price types that come out of one drawing.
OFFER_TYPES = frozenset({AMAZON, NEW, NEW_FBM_SHIPPING, LIGHTNING_DEAL, NEW_FBA, BUY_BOX_SHIPPING, PRIME_EXCL, COUNT_NEW,
                         COUNT_NEW_FBA, COUNT_NEW_FBM})  # fmt: skip
USED_TYPES = frozenset({USED, WAREHOUSE, COUNT_USED, USED_NEW_SHIPPING, USED_VERY_GOOD_SHIPPING, BUY_BOX_USED_SHIPPING})
RANK_TYPES = frozenset({SALES})
SLOW_TYPES = frozenset({LISTPRICE, RATING, COUNT_REVIEWS})
FAMILIES = (OFFER_TYPES, USED_TYPES, RANK_TYPES, SLOW_TYPES)

DAY = 1440
SEGMENT = 91 * DAY
# Since this day NEW holds price plus shipping, before it the price alone (Keepa API docs, changelog of 2026-02-23).
LANDING_PRICE_SINCE = int(datetime(2026, 2, 23, tzinfo=UTC).timestamp()) // 60 - KEEPA_EPOCH_MINUTES
# Recorded answers have no count by fulfilment before this minute.
FULFILMENT_COUNTS_SINCE = 7_947_768
ANNOUNCED_AHEAD = 12 * 60

A, F, M = 0, 1, 2
_SET, _CUT, _UNCUT, _GAP, _UNGAP, _GLITCH, _UNGLITCH, _LIGHTNING, _UNLIGHTNING = range(9)
_Event = tuple[int, int, int, float]


@dataclass(frozen=True, slots=True)
class Traits:
    """What one product is like in one marketplace; the process draws the rest.

    Attributes:
        seed: The catalog's seed.
        asin: Product.
        domain: Keepa's marketplace id.
        level_minor: Price it moves around, currency minor units.
        list_minor: List price; None means that it has none.
        changes_per_day: Price changes a day, over all its sellers.
        amazon_sells: Whether Amazon itself sells it.
        fba: Third parties that ship through Amazon.
        fbm: Third parties that ship themselves.
        shipping_minor: What those charge for shipping.
        has_used: Whether used ones are offered.
        has_warehouse: Whether Amazon's warehouse offers returned ones.
        has_lightning: Whether it gets lightning deals.
        has_prime_exclusive: Whether Prime members get a price of their own on sale days.
        rank_level: Sales rank it moves around; None means unranked.
        rating: Stars x 10; 0 means unrated.
        reviews_per_day: New reviews a day.
        launched: Keepa minute of its first review.
        monthly_sold: Units a month; 0 means that Amazon does not say.
        amazon_id: Amazon's own seller id in this marketplace.
        seller_ids: Third parties, those that ship through Amazon first.
        crashes: Whether it costs less than a tenth for at most an hour, once a day.
    """

    seed: int
    asin: str
    domain: int
    level_minor: float
    list_minor: int | None
    changes_per_day: float
    amazon_sells: bool
    fba: int
    fbm: int
    shipping_minor: int
    has_used: bool
    has_warehouse: bool
    has_lightning: bool
    has_prime_exclusive: bool
    rank_level: float | None
    rating: int
    reviews_per_day: float
    launched: int
    monthly_sold: int
    amazon_id: str
    seller_ids: tuple[str, ...]
    crashes: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """Everything that happens to one product in one marketplace between two minutes.

    Attributes:
        columns: One per price type; None where the type has no data.
        buybox_times: Keepa minutes at which the buy box changed hands.
        buybox_sellers: Who had it from then on; "-1" means nobody.
        monthly_sold: Bracket of units sold a month.
        rank_drops: Keepa minutes at which the sales rank fell as it does after a sale.
        lightning_windows: Start and end of each lightning deal.
        price_changes: Keepa minutes at which any new offer changed.
        first: Minute the history begins at.
        last: Minute from which on nothing has been made up yet.
    """

    columns: tuple[Column | None, ...]
    buybox_times: list[int]
    buybox_sellers: list[str]
    monthly_sold: Column | None
    rank_drops: list[int]
    lightning_windows: list[tuple[int, int]]
    price_changes: list[int]
    first: int
    last: int


def derive(*parts: object) -> int:
    """Returns a number of 64 bits that depends on every part and on nothing else."""
    return int.from_bytes(blake2b(":".join(map(str, parts)).encode(), digest_size=8).digest(), "big")


def last_visit(asin: str, domain: int, now: int) -> int:
    """Returns the minute at which Keepa last looked at a product by itself, every so many minutes at a time of the product's own."""
    every, phase = visit_rhythm(asin, domain)
    return now - (now + phase) % every


def visit_rhythm(asin: str, domain: int) -> tuple[int, int]:
    """Returns how many minutes lie between two visits of Keepa's own (30 to 509), and their phase."""
    return 30 + derive("visit", asin, domain) % (8 * 60), derive("phase", asin, domain)


def make_history(traits: Traits, first: int, now: int) -> History:
    """Makes up the history from minute `first` to the end of the segment that holds `now`."""
    last_segment = max(now, first) // SEGMENT
    last = (last_segment + 1) * SEGMENT
    # One segment earlier: a campaign of its last days may still be running at `first`.
    segments = range(first // SEGMENT - 1, last_segment + 1)
    columns: list[Column | None] = [None] * TYPES
    offers = _Offers(traits)
    events: list[_Event] = []
    prime_windows: list[tuple[int, int]] = []
    for segment in segments:
        _draw_offer_events(traits, segment, events, prime_windows)
    events.sort()
    offers.replay(events)
    for price_type, writer in offers.writers.items():
        columns[price_type] = make_column(writer, first, last, with_shipping=price_type in TRIPLETS)
    for price_type in (COUNT_NEW_FBA, COUNT_NEW_FBM):
        columns[price_type] = make_column(offers.writers[price_type], max(first, FULFILMENT_COUNTS_SINCE), last)
    if offers.windows:
        # An end beyond the segment is known already: the last entry may lie in the future.
        columns[LIGHTNING_DEAL] = make_column(offers.writers[LIGHTNING_DEAL], first, last + DAY)
    else:
        columns[LIGHTNING_DEAL] = None
    _add_used(traits, segments, columns, first, last)
    _add_slow_types(traits, segments, columns, first, last, prime_windows)
    rank_drops = _add_rank(traits, segments, columns, first, last)
    buybox = _cut_pairs(offers.buybox_times, offers.buybox_sellers, first, last)
    new = columns[NEW]
    return History(
        columns=tuple(columns),
        buybox_times=buybox[0],
        buybox_sellers=buybox[1],
        monthly_sold=_make_monthly_sold(traits, segments, first, last),
        rank_drops=rank_drops,
        lightning_windows=[window for window in offers.windows if window[1] > first],
        price_changes=list(new.times) if new else [first],
        first=first,
        last=last,
    )


def make_recent(traits: Traits, first: int, now: int, family: frozenset[int]) -> dict[int, Column]:
    """Makes up one family of price types alone, from minute `first` to the end of the segment that holds `now`.

    From the second entry of each column on, what it says is what `make_history` says; the first may stand for an older one.

    Args:
        traits: The product.
        first: Keepa minute to begin at.
        now: Keepa minute that must be covered.
        family: One of `FAMILIES`.
    """
    last_segment = max(now, first) // SEGMENT
    last = (last_segment + 1) * SEGMENT
    segments = range(first // SEGMENT - 1, last_segment + 1)
    columns: list[Column | None] = [None] * TYPES
    if family is OFFER_TYPES:
        offers = _Offers(traits)
        events: list[_Event] = []
        prime_windows: list[tuple[int, int]] = []
        for segment in segments:
            _draw_offer_events(traits, segment, events, prime_windows)
        events.sort()
        offers.replay(events)
        for price_type in OFFER_TYPES - {LIGHTNING_DEAL, PRIME_EXCL}:
            columns[price_type] = make_column(offers.writers[price_type], first, last, with_shipping=price_type in TRIPLETS)
        if offers.windows:
            columns[LIGHTNING_DEAL] = make_column(offers.writers[LIGHTNING_DEAL], first, last + DAY)
        _add_prime_exclusive(traits, segments, columns, first, last, prime_windows)
    elif family is USED_TYPES:
        _add_used(traits, segments, columns, first, last)
    elif family is RANK_TYPES:
        _add_rank(traits, segments, columns, first, last)
    else:
        _add_list_price(traits, segments, columns, first, last)
        _add_rating(traits, segments, columns, first, last)
        _add_reviews(traits, columns, first, last)
    return {price_type: column for price_type, column in enumerate(columns) if column is not None}


def make_empty_history(first: int, last: int) -> History:
    """Returns the history of a product that has no prices."""
    return History((None,) * TYPES, [], [], None, [], [], [], first, last)


def _draw_offer_events(traits: Traits, segment: int, events: list[_Event], prime_windows: list[tuple[int, int]]) -> None:
    start = segment * SEGMENT
    shared = random.Random(derive(traits.seed, traits.asin, "campaigns", segment))
    own = random.Random(derive(traits.seed, traits.asin, traits.domain, "offers", segment))
    draw = own.random
    actors = [actor for actor, exists in ((A, traits.amazon_sells), (F, traits.fba), (M, traits.fbm)) if exists]
    # The same drift in every marketplace, so that prices there move together.
    drift = math.exp(shared.gauss(0.0, 0.04))
    anchors = [traits.level_minor * drift * factor for factor in (1.0, 1.02, 0.99)]
    current = [0.0, 0.0, 0.0]
    for actor in actors:
        value = anchors[actor] if draw() < 0.5 else anchors[actor] * math.exp(own.gauss(0.0, 0.07))
        current[actor] = value
        # Not at the grid itself, or every product would change in the same minute.
        events.append((start + int(draw() * 6 * DAY), _SET, actor, _tidy(value)))
    weights = [actor for actor in actors for _ in range((5, 4, 2)[actor])]
    minute = start + 6 * DAY + 0.0
    per_minute = traits.changes_per_day / DAY
    while weights:
        minute += own.expovariate(per_minute)
        if minute >= start + SEGMENT:
            break
        actor = weights[int(draw() * len(weights))]
        kind = draw()
        if kind < 0.3:
            value = anchors[actor]
        elif kind < 0.75:
            value = current[actor] * (0.98 + 0.04 * draw())
        else:
            value = _tidy(anchors[actor] * math.exp(own.gauss(-0.02, 0.08)))
        current[actor] = value
        events.append((int(minute), _SET, actor, value))
    sellers = [actor for actor in actors if actor != M]
    for actor in actors:
        if draw() < (0.25, 0.3, 0.2)[actor]:
            begin = start + int(draw() * SEGMENT)
            length = int(min(20 * DAY, max(120, math.exp(own.gauss(math.log(2.5 * DAY), 1.0)))))
            events.append((begin, _GAP, actor, 0.0))
            events.append((begin + length, _UNGAP, actor, 0.0))
        if draw() < 0.02:
            begin = start + int(draw() * SEGMENT)
            factor = 0.02 + 0.28 * draw() if draw() < 0.75 else 3.0 + 7.0 * draw()
            events.append((begin, _GLITCH, actor, factor))
            events.append((begin + 15 + int(draw() * 400), _UNGLITCH, actor, factor))
    if traits.crashes and actors:
        # A generator of its own: the price process of every other product stays as it is.
        crash = random.Random(derive(traits.seed, traits.asin, traits.domain, "crash", segment))
        for day in range(SEGMENT // DAY):
            begin = start + day * DAY + int(crash.random() * (DAY - 60))
            # Below zero: the price itself, 0.12 in the marketplace's currency.
            factor = -12.0 if crash.random() < 0.25 else 0.008 + 0.06 * crash.random()
            events.append((begin, _GLITCH, actors[0], factor))
            events.append((begin + 15 + int(crash.random() * 45), _UNGLITCH, actors[0], factor))
    for begin, end, depth, is_sale_day in _draw_campaigns(shared, start):
        joins = draw() < (0.85 if is_sale_day else 0.7)
        factor = round(1.0 - depth * (0.85 + 0.3 * draw()), 3)
        for actor in sellers:
            if joins and (actor == A or draw() < 0.5):
                events.append((begin, _CUT, actor, factor))
                events.append((end, _UNCUT, actor, factor))
        if joins and is_sale_day and traits.has_prime_exclusive:
            prime_windows.append((begin, end))
    if traits.has_lightning and sellers:
        for slot in range(3):
            if draw() < 0.3:
                begin = start + (slot * 30 + int(draw() * 29)) * DAY + (6 + int(draw() * 28) // 2) * 60
                factor = round(0.65 + 0.17 * draw(), 3)
                events.append((begin, _LIGHTNING, sellers[0], factor))
                events.append((begin + 360 + int(draw() * 7) * 60, _UNLIGHTNING, sellers[0], factor))


def _draw_campaigns(shared: random.Random, start: int) -> list[tuple[int, int, float, bool]]:
    campaigns = []
    for week in range(13):
        chance, when, length, depth = shared.random(), shared.random(), shared.random(), shared.random()
        if chance < 0.12:
            begin = start + week * 7 * DAY + int(when * 4 * DAY)
            campaigns.append((begin, begin + (2 + int(length * 6)) * DAY, 0.08 + 0.2 * depth, False))
    for begin, end in _sale_days(start):
        chance, depth = shared.random(), shared.random()
        if chance < 0.5:
            campaigns.append((begin, end, 0.12 + 0.25 * depth, True))
    return campaigns


@lru_cache(maxsize=256)
def _sale_days(start: int) -> tuple[tuple[int, int], ...]:
    """Returns the sale days that begin in a segment: spring, July's and October's Prime days, the Black Friday week, Christmas."""
    first_day = (datetime(2011, 1, 1, tzinfo=UTC) + timedelta(minutes=start)).date()
    windows = []
    for year in range(first_day.year, first_day.year + 2):
        november = date(year, 11, 1)
        thanksgiving = november + timedelta(days=(3 - november.weekday()) % 7 + 21)
        for begin, days in (
            (date(year, 3, 20), 6),
            (date(year, 7, 8), 4),
            (date(year, 10, 7), 2),
            (thanksgiving - timedelta(days=6), 11),
            (date(year, 12, 15), 9),
        ):
            minute = (begin - date(2011, 1, 1)).days * DAY
            if start <= minute < start + SEGMENT:
                windows.append((minute, minute + days * DAY))
    return tuple(windows)


class _Offers:
    """Replays the events of all sellers and writes down every price type that follows from them."""

    def __init__(self, traits: Traits) -> None:
        self._traits = traits
        self.writers = {
            price_type: StepWriter()
            for price_type in (
                AMAZON,
                NEW,
                NEW_FBM_SHIPPING,
                LIGHTNING_DEAL,
                NEW_FBA,
                COUNT_NEW,
                BUY_BOX_SHIPPING,
                COUNT_NEW_FBA,
                COUNT_NEW_FBM,
            )
        }
        self.windows: list[tuple[int, int]] = []
        self.buybox_times: list[int] = []
        self.buybox_sellers: list[str] = []

    def replay(self, events: Sequence[_Event]) -> None:
        """Goes through the events, which must be in order of time."""
        traits, writers = self._traits, self.writers
        base: list[float] = [0.0, 0.0, 0.0]
        cuts: list[list[float]] = [[], [], []]
        glitches: list[list[float]] = [[], [], []]
        gaps = [0, 0, 0]
        prices = [NONE, NONE, NONE]
        shipping = traits.shipping_minor
        lightning_since = 0
        ceiling = 2.5 * traits.level_minor
        write_own = [writers[AMAZON].write, writers[NEW_FBA].write, writers[NEW_FBM_SHIPPING].write]
        write_new, write_count = writers[NEW].write, writers[COUNT_NEW].write
        write_count_fba, write_count_fbm = writers[COUNT_NEW_FBA].write, writers[COUNT_NEW_FBM].write
        lightning = writers[LIGHTNING_DEAL]
        box_times: list[int] = []
        box_values: list[int] = []
        box_shippings: list[int] = []
        if events and not traits.amazon_sells:
            writers[AMAZON].write(events[0][0], NONE)
        if events:
            lightning.write(events[0][0], NONE)
        for minute, kind, actor, value in events:
            if kind == _SET:
                base[actor] = value
            elif kind == _CUT:
                cuts[actor].append(value)
            elif kind == _UNCUT:
                cuts[actor].remove(value)
            elif kind == _GAP:
                gaps[actor] += 1
            elif kind == _UNGAP:
                gaps[actor] -= 1
            elif kind == _GLITCH:
                glitches[actor].append(value)
            elif kind == _UNGLITCH:
                glitches[actor].remove(value)
            elif kind == _LIGHTNING:
                cuts[actor].append(value)
                lightning_since = minute
            else:
                cuts[actor].remove(value)
            if base[actor] <= 0 or gaps[actor]:
                price = NONE
            else:
                amount = base[actor]
                if cuts[actor]:
                    amount *= min(cuts[actor])
                if glitches[actor]:
                    glitch = glitches[actor][-1]
                    amount = amount * glitch if glitch > 0 else -glitch
                price = max(1, int(amount + 0.5))
            if kind == _LIGHTNING and price > 0:
                lightning.write(minute, price)
            elif kind == _UNLIGHTNING and lightning.values[-1] != NONE:
                lightning.write(minute, NONE)
                self.windows.append((lightning_since, minute))
            if price == prices[actor]:
                continue
            prices[actor] = price
            write_own[actor](minute, price)
            amazon, fba, fbm = prices
            landed = fbm + shipping if fbm > 0 else NONE
            listed = landed if minute >= LANDING_PRICE_SINCE else fbm
            best = amazon
            if fba > 0 and (best < 0 or fba < best):
                best = fba
            rival = landed if fba < 0 or 0 < landed * 1.05 < fba else fba
            write_new(minute, listed if listed > 0 and (best < 0 or listed < best) else best)
            from_amazon = (amazon > 0) + (traits.fba if fba > 0 else 0)
            from_others = traits.fbm if fbm > 0 else 0
            write_count(minute, from_amazon + from_others or NONE)
            write_count_fba(minute, from_amazon or NONE)
            write_count_fbm(minute, from_others or NONE)
            if amazon > 0 and (rival < 0 or amazon <= rival * 1.02):
                winner, box_price, box_shipping = traits.amazon_id, amazon, 0
            elif rival > 0 and rival == fba:
                winner, box_price, box_shipping = traits.seller_ids[0], fba, 0
            elif rival > 0:
                winner, box_price, box_shipping = traits.seller_ids[traits.fba], fbm, shipping
            else:
                winner, box_price, box_shipping = "-1", NONE, NONE
            if box_price > ceiling:
                winner, box_price, box_shipping = "-1", NONE, NONE
            if box_times and box_times[-1] == minute:
                box_values[-1], box_shippings[-1] = box_price, box_shipping
            elif not box_values or box_values[-1] != box_price or box_shippings[-1] != box_shipping:
                box_times.append(minute)
                box_values.append(box_price)
                box_shippings.append(box_shipping)
            if self.buybox_times and self.buybox_times[-1] == minute:
                self.buybox_sellers[-1] = winner
            elif not self.buybox_sellers or self.buybox_sellers[-1] != winner:
                self.buybox_times.append(minute)
                self.buybox_sellers.append(winner)
        box = writers[BUY_BOX_SHIPPING]
        box.times, box.values, box.shippings = box_times, box_values, box_shippings
        fbm_writer = writers[NEW_FBM_SHIPPING]
        fbm_writer.shippings = [shipping if value >= 0 else NONE for value in fbm_writer.values]


def _add_used(traits: Traits, segments: range, columns: list[Column | None], first: int, last: int) -> None:
    used, warehouse = StepWriter(), StepWriter()
    changes: list[tuple[int, int, int]] = []
    for segment in segments:
        start = segment * SEGMENT
        own = random.Random(derive(traits.seed, traits.asin, traits.domain, "used", segment))
        draw = own.random
        if traits.has_used:
            minute = start + draw() * 5 * DAY
            while minute < start + SEGMENT:
                price = NONE if draw() < 0.25 else int(traits.level_minor * (0.6 + 0.28 * draw()))
                changes.append((int(minute), 0, price))
                minute += own.expovariate(0.3 * traits.changes_per_day / DAY)
        if traits.has_warehouse:
            for slot in range(3):
                begin = start + int((slot * 30 + draw() * 15) * DAY)
                changes.append((begin, 1, int(traits.level_minor * (0.68 + 0.2 * draw()))))
                changes.append((begin + int((1 + 13 * draw()) * DAY), 1, NONE))
    if not changes:
        writer = StepWriter()
        writer.write(first, NONE)
        columns[USED] = make_column(writer, first, last)
        return
    changes.sort()
    lowest, count = StepWriter(), StepWriter()
    prices = [NONE, NONE]
    warehouse.write(changes[0][0], NONE)
    for minute_at, which, price in changes:
        prices[which] = price
        (warehouse if which else used).write(minute_at, price)
        on_offer = [amount for amount in prices if amount > 0]
        lowest.write(minute_at, min(on_offer, default=NONE))
        count.write(minute_at, len(on_offer) or NONE)
    columns[USED] = make_column(lowest, first, last)
    columns[COUNT_USED] = make_column(count, first, last)
    columns[BUY_BOX_USED_SHIPPING] = make_column(lowest, first, last, with_shipping=True)
    if traits.has_used:
        columns[USED_NEW_SHIPPING] = make_column(used, first, last, with_shipping=True)
    if traits.has_warehouse:
        columns[WAREHOUSE] = make_column(warehouse, first, last)
        columns[USED_VERY_GOOD_SHIPPING] = make_column(warehouse, first, last, with_shipping=True)


def _add_slow_types(
    traits: Traits,
    segments: range,
    columns: list[Column | None],
    first: int,
    last: int,
    prime_windows: list[tuple[int, int]],
) -> None:
    _add_list_price(traits, segments, columns, first, last)
    refurbished = StepWriter()
    refurbished.write(first, NONE)
    columns[COUNT_REFURBISHED] = make_column(refurbished, first, last)
    _add_prime_exclusive(traits, segments, columns, first, last, prime_windows)
    # Fetches of offers by other users: every few days, at no round time; the same count again and again is how Keepa writes it.
    step = 3 * DAY + derive(traits.asin, traits.domain, "fetch") % (5 * DAY)
    count = columns[COUNT_NEW]
    fetches = list(range((first // step + 1) * step, last, step))
    if fetches and count is not None:
        columns[EXTRA_UPDATES] = Column(fetches, [max(0, count.value_at(minute, len(count.times))) for minute in fetches])
    _add_rating(traits, segments, columns, first, last)
    _add_reviews(traits, columns, first, last)


def _add_list_price(traits: Traits, segments: range, columns: list[Column | None], first: int, last: int) -> None:
    if traits.list_minor is None:
        return
    listed = StepWriter()
    for segment in segments:
        own = random.Random(derive(traits.seed, traits.asin, traits.domain, "list", segment // 3))
        factor = 1.0 if own.random() < 0.5 else math.exp(own.gauss(0.0, 0.05))
        listed.write(segment // 3 * 3 * SEGMENT + int(own.random() * 30 * DAY), int(_tidy(traits.list_minor * factor)))
    columns[LISTPRICE] = make_column(listed, first, last)


def _add_reviews(traits: Traits, columns: list[Column | None], first: int, last: int) -> None:
    if not traits.rating:
        return
    every = max(DAY, int(DAY / traits.reviews_per_day))
    phase = derive(traits.asin, traits.domain, "reviews") % every
    reviews = StepWriter()
    grid = range(first // every * every + phase, last, every)
    counted = [max(1, int(traits.reviews_per_day * (minute - traits.launched) / DAY)) for minute in grid]
    kept = [place for place, (before, value) in enumerate(zip([0, *counted], counted, strict=False)) if value != before]
    reviews.times = [grid[place] for place in kept]
    reviews.values = [counted[place] for place in kept]
    columns[COUNT_REVIEWS] = make_column(reviews, first, last)


def _add_prime_exclusive(
    traits: Traits, segments: range, columns: list[Column | None], first: int, last: int, prime_windows: list[tuple[int, int]]
) -> None:
    if not traits.has_prime_exclusive:
        return
    exclusive = StepWriter()
    exclusive.write(segments.start * SEGMENT, NONE)
    best = columns[NEW]
    for begin, end in sorted(prime_windows):
        price = best.value_at(begin, len(best.times)) if best else NONE
        if price > 0:
            exclusive.write(begin, int(price * 0.95))
            exclusive.write(end, NONE)
    columns[PRIME_EXCL] = make_column(exclusive, first, last)


def _add_rating(traits: Traits, segments: range, columns: list[Column | None], first: int, last: int) -> None:
    if not traits.rating:
        return
    rating = StepWriter()
    for segment in segments:
        own = random.Random(derive(traits.seed, traits.asin, traits.domain, "rating", segment))
        for slot in range(2):
            stars = max(10, min(50, traits.rating + int(own.gauss(0.0, 1.2))))
            rating.write(segment * SEGMENT + int((slot + own.random()) * SEGMENT / 2), stars)
    columns[RATING] = make_column(rating, first, last)


def _add_rank(traits: Traits, segments: range, columns: list[Column | None], first: int, last: int) -> list[int]:
    if traits.rank_level is None:
        return []
    ranks = StepWriter()
    times, values = ranks.times, ranks.values
    drops: list[int] = []
    per_minute = min(3.0, 0.4 + traits.changes_per_day) / DAY
    level = traits.rank_level
    exp, log = math.exp, math.log
    before = 0
    at = -1
    for segment in segments:
        own = random.Random(derive(traits.seed, traits.asin, traits.domain, "rank", segment))
        draw = own.random
        end = (segment + 1) * SEGMENT
        minute = segment * SEGMENT + draw() * DAY
        deviation = own.gauss(0.0, 0.35)
        while minute < end:
            value = max(1, int(level * exp(deviation)))
            if value != before and at != int(minute):
                at = int(minute)
                times.append(at)
                values.append(value)
                # Keepa's rule for a drop that means a sale is not public; one of 8 % or more is taken for it.
                if value < before * 0.92 and at >= first:
                    drops.append(at)
                before = value
            deviation = deviation * 0.96 + 0.35 * (draw() + draw() - 1.0)
            minute -= log(1.0 - draw()) / per_minute
    columns[SALES] = make_column(ranks, first, last)
    return drops


def _make_monthly_sold(traits: Traits, segments: range, first: int, last: int) -> Column | None:
    if not traits.monthly_sold:
        return None
    sold = StepWriter()
    for segment in segments:
        own = random.Random(derive(traits.seed, traits.asin, traits.domain, "sold", segment))
        for slot in range(3):
            units = traits.monthly_sold * math.exp(own.gauss(0.0, 0.3))
            bracket = next((step for step in (10_000, 5_000, 1_000, 500, 100, 50) if units >= step), 50)
            sold.write(segment * SEGMENT + int((slot + own.random()) * 30 * DAY), int(max(50, units // bracket * bracket)))
    return make_column(sold, first, last)


def _cut_pairs(times: list[int], words: list[str], first: int, last: int) -> tuple[list[int], list[str]]:
    kept_times: list[int] = []
    kept_words: list[str] = []
    for minute, word in zip(times, words, strict=True):
        if minute >= last:
            break
        if minute <= first:
            kept_times, kept_words = [first], [word]
        elif not kept_words or kept_words[-1] != word:
            kept_times.append(minute)
            kept_words.append(word)
    return kept_times, kept_words


def _tidy(amount_minor: float) -> float:
    """Returns the amount as shops write it: just below a whole unit, or below a tenth where it is small."""
    if amount_minor < 500:
        return max(9.0, round(amount_minor / 10) * 10 - 1)
    return round(amount_minor / 100) * 100 - 1
