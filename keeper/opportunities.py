"""The verb that shows opportunities: lists them, explains one part by part, and reckons anew what they leave a seller of one's own kind.

The table holds the profit of the operator's default seller. Who has a profile is told their own: reckoned over the widest gross gaps, a
bounded number of them, and kept until the next comparison, another day, or another profile.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Final

from sqlalchemy import Connection

from keeper.domain.arbitrage import (
    HighestPurchase,
    Profit,
    compute_profit,
    find_break_even_purchase,
    find_highest_purchase_for_roi,
)
from keeper.domain.exchange import ExchangeRates
from keeper.domain.fees import stated_pct
from keeper.domain.opportunity import FoundOpportunity
from keeper.domain.opportunity_query import LARGEST_PAGE, LARGEST_TOTAL, OpportunityQuery, OpportunitySort, Place
from keeper.domain.seller import SellerProfile
from keeper.domain.trade_terms import STALE_AFTER_DAYS, Tables, Terms, find_terms
from keeper.postgres import opportunities

# A second of reckoning at most; nobody reads further down the list of the widest gaps.
MOST_CANDIDATES: Final = 2_000
_MOST_KEPT = 16


@dataclass(frozen=True, slots=True)
class Reckoning:
    """What a profit is reckoned with.

    Attributes:
        on: the day whose rows of the tables count.
        stale_rate_days: an older exchange rate makes the result stale.
    """

    seller: SellerProfile
    tables: Tables
    rates: ExchangeRates
    on: date
    stale_rate_days: int = STALE_AFTER_DAYS

    def find_terms(self, found: FoundOpportunity) -> Terms:
        """What the trade is subject to."""
        one = found.opportunity
        return find_terms(
            one.source_market,
            one.target_market,
            seller=self.seller,
            tables=self.tables,
            rates=self.rates,
            on=self.on,
            category=one.category,
            fba_minor=found.fba_minor,
            weight_g=found.weight_g,
            stated_referral_pct=stated_pct(found.stated_referral_pct),
            stale_after_days=self.stale_rate_days,
        )

    def compute_profit(self, found: FoundOpportunity) -> Profit:
        """What the trade leaves at the prices the opportunity has."""
        return compute_profit(self.find_terms(found), found.opportunity.source_minor, found.opportunity.target_minor)


@dataclass(frozen=True, slots=True)
class Own:
    """The asking user's own seller.

    Attributes:
        key: the same as long as the same opportunities leave the same: user, revision of the profile, comparison, day.
    """

    reckoning: Reckoning
    key: tuple[Hashable, ...]


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of opportunities.

    Attributes:
        total: all that fulfil the conditions, 1,000 meaning so many or more; None on later pages.
        next: where the next page begins; None after the last one.
        considered: for a seller of one's own, how many of the widest gross gaps were reckoned; None for the default seller.
    """

    found: tuple[FoundOpportunity, ...]
    total: int | None
    next: Place | None
    considered: int | None = None


@dataclass(slots=True)
class OwnProfits:
    """What was reckoned for users' own sellers, the latest asked for. Safe to share between threads."""

    _kept: OrderedDict[Hashable, tuple[FoundOpportunity, ...]] = field(default_factory=OrderedDict)
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def recall(self, key: Hashable) -> tuple[FoundOpportunity, ...] | None:
        """What was kept; None where nothing was."""
        with self._mutex:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def keep(self, key: Hashable, reckoned: tuple[FoundOpportunity, ...]) -> None:
        """In the place of what nobody has asked for the longest."""
        with self._mutex:
            self._kept[key] = reckoned
            self._kept.move_to_end(key)
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Explained:
    """A trade part by part.

    Attributes:
        found: as the seller asked for sees it.
        break_even: the most that may be paid without a loss.
        wanted_roi: the most that may be paid for the ROI the seller wants; None where none is wanted.
    """

    found: FoundOpportunity
    profit: Profit
    break_even: HighestPurchase
    wanted_roi: HighestPurchase | None


def list_opportunities(
    connection: Connection, query: OpportunityQuery, *, own: Own | None = None, kept: OwnProfits | None = None
) -> Listed:
    """A page of opportunities, with the profit of the default seller or of one's own.

    Args:
        own: None for the default seller.
        kept: where what was reckoned for `own` is kept.
    """
    if own is None:
        page = opportunities.select_opportunities(connection, query)
        total = None if query.after is not None else opportunities.count_opportunities(connection, query)
        return Listed(page.found, total, page.next)
    reckoned = _reckon_own(connection, query, own, kept)
    wanted = [one for one in reckoned if _is_wanted(one, query)]
    ordered = sorted(wanted, key=lambda one: opportunities.place_of(one.opportunity, query), reverse=True)
    if query.after is not None:
        ordered = [one for one in ordered if opportunities.place_of(one.opportunity, query) < query.after]
    page_found = tuple(ordered[: query.limit])
    following = opportunities.place_of(page_found[-1].opportunity, query) if len(ordered) > query.limit else None
    return Listed(page_found, None if query.after is not None else min(len(wanted), LARGEST_TOTAL), following, len(reckoned))


def recompute(found: FoundOpportunity, reckoning: Reckoning) -> FoundOpportunity:
    """The same opportunity as another seller or another day sees it.

    The best profit it ever had is the default seller's, so it is left out.

    A gap whose exchange rate is not known on that day stays what the comparison found.
    """
    return _seen_with(found, reckoning.compute_profit(found), reckoning.on)


def explain(connection: Connection, opportunity_id: int, reckoning: Reckoning) -> Explained:
    """A trade part by part, each with the rows it stands on, by the tables of any day.

    Raises:
        OpportunityUnknown: see there.
    """
    found = opportunities.find_opportunity(connection, opportunity_id)
    terms = reckoning.find_terms(found)
    sale_minor = found.opportunity.target_minor
    wanted_pct = reckoning.seller.wanted_roi_pct
    profit = compute_profit(terms, found.opportunity.source_minor, sale_minor)
    return Explained(
        _seen_with(found, profit, reckoning.on),
        profit,
        find_break_even_purchase(terms, sale_minor),
        None if wanted_pct is None else find_highest_purchase_for_roi(terms, sale_minor, wanted_pct),
    )


def find_best(found: Iterable[FoundOpportunity]) -> FoundOpportunity | None:
    """That which leaves most, the unknown last, then the widest gap; what may not be the same article is none."""
    sure = [one for one in found if one.opportunity.is_active and not one.opportunity.doubts]
    return min(sure, key=_worth, default=None)


def _worth(found: FoundOpportunity) -> tuple[bool, int, int, int]:
    one = found.opportunity
    return one.profit_minor is None, -(one.profit_minor or 0), -one.margin_minor, one.id or 0


def _seen_with(found: FoundOpportunity, profit: Profit, on: date) -> FoundOpportunity:
    one = found.opportunity
    seen = replace(
        one,
        margin_minor=one.margin_minor if profit.margin_minor is None else profit.margin_minor,
        margin_pct=one.margin_pct if profit.margin_percentage is None else profit.margin_percentage,
        profit_minor=profit.profit_minor,
        invested_minor=profit.invested_minor,
        roi_pct=profit.roi_pct,
        profit_margin_pct=profit.profit_margin_pct,
        unknown_parts=tuple(part.name.value for part in profit.unknown),
        is_stale=one.is_stale or profit.is_stale,
        reckoned_on=on,
        best_profit_minor=None,
    )
    return replace(found, opportunity=seen)


def _reckon_own(connection: Connection, query: OpportunityQuery, own: Own, kept: OwnProfits | None) -> tuple[FoundOpportunity, ...]:
    candidates = replace(
        query,
        least_roi_pct=None,
        least_profit_minor=None,
        sort=OpportunitySort.MARGIN if query.is_active else OpportunitySort.NEWEST,
        limit=LARGEST_PAGE,
        after=None,
    )
    key = (*own.key, candidates)
    reckoned = kept.recall(key) if kept is not None else None
    if reckoned is None:
        reckoned = tuple(recompute(one, own.reckoning) for one in _select_candidates(connection, candidates))
        if kept is not None:
            kept.keep(key, reckoned)
    return reckoned


def _select_candidates(connection: Connection, query: OpportunityQuery) -> Sequence[FoundOpportunity]:
    found: list[FoundOpportunity] = []
    while len(found) < MOST_CANDIDATES:
        page = opportunities.select_opportunities(connection, query)
        found += page.found
        if page.next is None:
            break
        query = replace(query, after=page.next)
    return found[:MOST_CANDIDATES]


def _is_wanted(found: FoundOpportunity, query: OpportunityQuery) -> bool:
    one = found.opportunity
    if query.least_roi_pct is not None and (one.roi_pct is None or one.roi_pct < query.least_roi_pct):
        return False
    return query.least_profit_minor is None or (one.profit_minor is not None and one.profit_minor >= query.least_profit_minor)
