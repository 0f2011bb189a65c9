"""The verb that scores outcomes: did the gap last for 1, 7 and 30 days, and what would have been earned.

What an opportunity says is noted right after it opened, with its score; when the day has come, both prices of that time are looked up in
the price history and reckoned with the tables and exchange rates of that day, by the pass that found it. What Keeper keeps no history of
(FBA fee, weight, category, the seller) is as it is now. A price counts as known where it was looked at by then, and not longer before than
a price counts; one that nobody has looked at since is waited for as long.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine

from keeper.compare import Terms
from keeper.domain.fees import stated_pct
from keeper.domain.marketplace import Marketplace
from keeper.postgres import outcomes
from keeper.postgres.exchange_rates import select_rates
from keeper.postgres.outcomes import DueOutcome, ScoredOutcome
from keeper.profit_pass import NONE, Candidates, Columns, ProfitPass

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 5_000
# Two hours' worth of a market of a million open gaps; the next run does the rest.
MOST_NOTED: Final = 500_000
MOST_SCORED: Final = 50_000

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class OutcomesScored:
    """What one run did.

    Attributes:
        noted: opportunities that will be looked at again.
        scored: outcomes that are known now; an opportunity has three.
        lasted: of these, those whose gap was still there.
        unknown: of these, those whose prices nobody looked at.
    """

    noted: int = 0
    scored: int = 0
    lasted: int = 0
    unknown: int = 0

    @property
    def sentence(self) -> str:
        """For the list of runs."""
        return f"{self.noted} opportunities noted, {self.scored} outcomes scored: {self.lasted} gaps lasted, {self.unknown} unknown"


def score_outcomes(
    engine: Engine, *, now: datetime, terms: Terms, most_noted: int = MOST_NOTED, most_scored: int = MOST_SCORED
) -> OutcomesScored:
    """Note what has opened and score what is due, in short transactions. Idempotent; two at once do each outcome once.

    Args:
        terms: as opportunities are found by, but for the exchange rates: those known of each outcome's own day count.
    """
    noted = scored = lasted = unknown = 0
    while noted < most_noted:
        with engine.begin() as connection:
            done = outcomes.insert_due_outcomes(connection, limit=min(_AT_ONCE, most_noted - noted))
        noted += done
        if not done:
            break
    passes = _Passes(terms)
    while scored < most_scored:
        with engine.begin() as connection:
            due = outcomes.select_due_outcomes(
                connection, now=now, price_ends_after=terms.price_ends_after, limit=min(_AT_ONCE, most_scored - scored)
            )
            found = [
                one
                for on, some in groupby(sorted(due, key=lambda one: one.due_at), key=lambda one: one.due_at.date())
                for one in _score_day(connection, list(some), terms.least_margin_pct, passes, on)
            ]
            outcomes.update_outcomes(connection, found, now=now)
        scored += len(found)
        lasted += sum(one.has_lasted is True for one in found)
        unknown += sum(one.has_lasted is None for one in found)
        if not due:
            break
    done_all = OutcomesScored(noted, scored, lasted, unknown)
    logger.info("%s", done_all.sentence)
    return done_all


class _Passes:
    """A pass for each day and the stores that are traded between then; made once."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.made: dict[tuple[date, tuple[Marketplace, ...]], ProfitPass] = {}

    def find(self, connection: Connection, on: date, stores: Collection[str]) -> ProfitPass:
        """With the rows of the tables and the exchange rates that count on that day."""
        terms = self.terms
        key = on, tuple(store for store in Marketplace if store in stores or store in terms.stores)
        if key not in self.made:
            self.made[key] = ProfitPass(
                key[1],
                terms.categories,
                seller=terms.seller,
                tables=terms.tables,
                rates=select_rates(connection, on=on),
                on=on,
                stale_after_days=terms.stale_rate_days,
            )
        return self.made[key]


def _score_day(
    connection: Connection, due: Sequence[DueOutcome], least_margin_pct: Decimal, passes: _Passes, on: date
) -> list[ScoredOutcome]:
    """All outcomes of one day in one pass: each as two products, one bought at the price of that day and one at the price noted."""
    ready = passes.find(connection, on, {store for one in due for store in (one.source_market, one.target_market)})
    number = len(due)
    stores = {store.value: place for place, store in enumerate(ready.stores)}
    sources = np.array([stores[one.source_market] for one in due] * 2, np.int64)
    targets = np.array([stores[one.target_market] for one in due] * 2, np.int64)
    places = np.arange(2 * number)
    numbers = {category: place for place, category in enumerate(ready.categories)}

    def spread(values: Sequence[int | None]) -> Ints:
        """Of the listing it is sold by, as stores x products."""
        column = np.full((len(stores), 2 * number), NONE, np.int64)
        column[targets, places] = [NONE if value is None else value for value in values] * 2
        return column

    prices = spread([one.target_minor if one.is_known else None for one in due])
    bought = [one.source_minor if one.is_known else None for one in due] + [one.bought_minor for one in due]
    prices[sources, places] = [NONE if price is None else price for price in bought]
    stated = [stated_pct(one.stated_referral_pct) for one in due]
    columns = Columns(
        prices=prices,
        categories=np.maximum(spread([numbers.get(one.category, 0) for one in due]), 0),
        stated=spread([None if pct is None else int(pct * 100) for pct in stated]),
        fba=spread([one.fba_minor for one in due]),
        weights=spread([one.weight_g for one in due]),
    )
    trades = ready.find_candidates(prices, None)
    # Each has two prices, so both directions are found.
    is_asked = np.array(ready.pairs, np.int64)[trades.pairs, 0] == sources[trades.products]
    trades = Candidates(trades.products[is_asked], trades.pairs[is_asked], trades.purchase[is_asked], trades.sale[is_asked])
    profits = ready.reckon(trades, columns)
    margin: list[int | None] = [None] * (2 * number)
    profit: list[int | None] = [None] * (2 * number)
    is_wide: list[bool] = [False] * (2 * number)
    above, below = least_margin_pct.as_integer_ratio()
    known = profits.unknown == 0
    for row, place in enumerate(trades.products.tolist()):
        margin[place] = int(profits.margin[row])
        profit[place] = int(profits.profit[row]) if known[row] else None
        is_wide[place] = int(profits.margin[row]) * 100 * below > above * int(trades.purchase[row])
    return [
        ScoredOutcome(
            opportunity_id=one.opportunity_id,
            days=one.days,
            source_minor=one.source_minor if one.is_known else None,
            target_minor=one.target_minor if one.is_known else None,
            margin_minor=margin[place],
            has_lasted=_has_lasted(one, margin[place], is_wide[place]),
            profit_minor=profit[place],
            earned_minor=profit[number + place],
        )
        for place, one in enumerate(due)
    ]


def _has_lasted(one: DueOutcome, margin_minor: int | None, is_wide: bool) -> bool | None:
    """A gap without one of its prices is over; one without an exchange rate, or that nobody looked at, is not known."""
    if not one.is_known:
        return None
    if one.source_minor is None or one.target_minor is None:
        return False
    return is_wide if margin_minor is not None else None
