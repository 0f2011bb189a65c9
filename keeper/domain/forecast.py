"""Where a price may go: its own past moves from where it stands now, given only where that was better than to say that it stays.

The model, in one sentence: what the price did within so many days after past days on which it stood about as high, and had stood there for
about as long, weighted by how alike they are. For the price the median of these moves counts, with a part for "it stays"; for a target the
share of these days after which it fell by as much as is wanted now, with a part for the share of all days. Days, and not changes, are
counted, so that all of it is weighted by time.

Whether that is worth anything is tried on this product's own history: from every day that has enough before it, with nothing but what was
known then (a rolling origin), against "the last price stays" (absolute error) and against the share of all days so far (Brier score).
Both overlap from day to day, so whole spans of the horizon's length are compared, by a one-sided t-test at 1 %, and the gain must be 5 %.
The weights and limits are Keeper's own judgement; no paper stands behind them.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, log, sqrt
from typing import Final

from keeper.domain.price_series import PriceSeries

# Days ahead.
HORIZONS: Final = (7, 30)
# A longer history is cut to this.
MOST_DAYS: Final = 365
# So much must lie before a day for a forecast to be tried from it.
LEAST_DAYS: Final = 120
LEAST_GAIN: Final = 0.05
LEAST_SPANS: Final = 4
LOW_QUANTILE: Final = 0.1
HIGH_QUANTILE: Final = 0.9

_DAY: Final = 1440
# Prices are alike within a quarter of the range they mostly moved in, and at least within 2 %.
_LEVEL_SHARE = 0.25
_LEAST_LEVEL = 0.02
# Times since the last change are alike within 15 %.
_AGE_WIDTH = 0.15
# What a day counts that is alike in its price alone.
_OTHER_AGE = 0.02
# One-sided, at 1 %, by degrees of freedom; the next lower one counts.
_T_LIMITS = ((3, 4.541), (4, 3.747), (5, 3.365), (6, 3.143), (7, 2.998), (8, 2.896), (10, 2.764), (15, 2.602), (20, 2.528), (30, 2.457))


@dataclass(frozen=True, slots=True)
class Backtest:
    """How the model did on history that was held back.

    Attributes:
        days: from how many it was tried.
        spans: how many spans of the horizon's length these fall into.
        loss: of the model, a mean: absolute error in minor units, or Brier score.
        baseline_loss: of what it must beat.
    """

    days: int
    spans: int
    loss: float
    baseline_loss: float
    is_better: bool


@dataclass(frozen=True, slots=True)
class HorizonForecast:
    """What is to be expected in so many days.

    Attributes:
        price_minor: then; None where nothing better than the last price is known, and so are the next two.
        low_minor, high_minor: it is between them four times in five.
        why_no_price: in plain words; empty where there is one.
        price_backtest: None where there was nothing to try.
        chance: of being at or below the target at any time until then, 0 to 1; None as above, or where no target was asked for.
        base_rate: the share of all days of the past after which it fell by as much; no forecast. None where there is none, or no target.
        why_no_chance: empty where there is one, and where no target was asked for.
    """

    days: int
    price_minor: int | None = None
    low_minor: int | None = None
    high_minor: int | None = None
    why_no_price: str = ""
    price_backtest: Backtest | None = None
    chance: float | None = None
    base_rate: float | None = None
    why_no_chance: str = ""
    chance_backtest: Backtest | None = None


def forecast_price(series: PriceSeries, *, end_minute: int, target_minor: int | None = None) -> tuple[HorizonForecast, ...]:
    """A forecast for each of `HORIZONS`, from `end_minute`, until when the series is known.

    Args:
        series: of prices; a year of it is used.
        target_minor: the price somebody waits for.
    """
    days = _Days(series, end_minute)
    return tuple(_forecast(days, horizon, target_minor) for horizon in HORIZONS)


def _forecast(days: "_Days", horizon: int, target_minor: int | None) -> HorizonForecast:
    is_asked = target_minor is not None
    if days.count == 0 or days.prices[-1] is None:
        why = "there is no offer now"
        return HorizonForecast(horizon, why_no_price=why, why_no_chance=why if is_asked else "")
    needed = LEAST_DAYS + (LEAST_SPANS + 1) * horizon
    if days.count <= needed:
        why = f"{needed} days of history are needed to try it, and there are {days.count - 1}"
        return HorizonForecast(horizon, why_no_price=why, why_no_chance=why if is_asked else "")
    windows = _Windows(days, horizon)
    last = days.count - 1
    tried = _test_price(windows)
    price = low = high = None
    if tried.is_better:
        moves = windows.weigh_moves(last)
        low, price, high = (round(days.known(last) * exp(_quantile(moves, share))) for share in (LOW_QUANTILE, 0.5, HIGH_QUANTILE))
    why_price = "" if tried.is_better else _why_not(tried, "that the last price stays")
    if target_minor is None:
        return HorizonForecast(horizon, price, low, high, why_price, tried)
    if days.known(last) <= target_minor:
        return HorizonForecast(horizon, price, low, high, why_price, tried, why_no_chance="the price is there already")
    reached = windows.find_falls(target_minor / days.known(last))
    chance, base_rate = windows.find_chance(last, reached)
    tried_chance = _test_chance(windows, reached)
    why_chance = "" if tried_chance.is_better else _why_not(tried_chance, "how often it happened so far")
    chance = chance if tried_chance.is_better else None
    return HorizonForecast(horizon, price, low, high, why_price, tried, chance, base_rate, why_chance, tried_chance)


class _Days:
    """The price once a day, the last day at the end; index 0 is the oldest.

    Attributes:
        prices: None without an offer.
        ages: for how many days the price had been what it was.
        lows: the lowest price within the day that ends there; None without an offer.
    """

    def __init__(self, series: PriceSeries, end_minute: int) -> None:
        minutes, amounts = series.minutes, series.amounts
        stop = bisect_right(minutes, end_minute)
        begun = minutes[0] if stop else end_minute
        self.count = 0 if not stop else min((end_minute - begun) // _DAY, MOST_DAYS) + 1
        self.prices: list[int | None] = []
        self.ages: list[float] = []
        self.lows: list[int | None] = []
        for place in range(self.count):
            at = end_minute - (self.count - 1 - place) * _DAY
            index = bisect_right(minutes, at) - 1
            first = max(bisect_right(minutes, at - _DAY) - 1, 0)
            within = [amount for amount in amounts[first : index + 1] if amount is not None]
            self.prices.append(amounts[index])
            self.ages.append((at - minutes[index]) / _DAY)
            self.lows.append(min(within, default=None))
        self.levels = [None if price is None else log(price) for price in self.prices]
        self._widths: dict[int, float] = {}

    def known(self, place: int) -> int:
        """The price of a day that has one."""
        price = self.prices[place]
        assert price is not None  # noqa: S101  callers have looked
        return price

    def level_width(self, origin: int) -> float:
        """How far apart prices are alike, by the days until the origin."""
        if origin not in self._widths:
            known = sorted(level for level in self.levels[: origin + 1] if level is not None)
            spread = known[int(0.9 * (len(known) - 1))] - known[int(0.1 * (len(known) - 1))]
            self._widths[origin] = max(_LEAST_LEVEL, _LEVEL_SHARE * spread)
        return self._widths[origin]


class _Windows:
    """From each day to the day so many days later.

    Attributes:
        moves: the log of the price then by the price at the begin; None where one of them is not there.
        lows: the lowest within; None without an offer.
    """

    def __init__(self, days: _Days, horizon: int) -> None:
        self.days = days
        self.horizon = horizon
        levels = days.levels
        self.count = days.count - horizon
        self.moves: list[float | None] = []
        self.lows: list[int | None] = []
        for place in range(self.count):
            begin, end = levels[place], levels[place + horizon]
            self.moves.append(None if begin is None or end is None else end - begin)
            within = [low for low in days.lows[place + 1 : place + horizon + 1] if low is not None]
            self.lows.append(min(within, default=None))
        self._logs_of_age = [log(1 + age) for age in days.ages]
        self._weighed: dict[int, list[tuple[int, float]]] = {}

    def weigh(self, origin: int) -> list[tuple[int, float]]:
        """Every day whose window had ended by the origin and which has a price, with how alike it is."""
        if origin in self._weighed:
            return self._weighed[origin]
        levels, ages = self.days.levels, self._logs_of_age
        level, age = levels[origin], ages[origin]
        assert level is not None  # noqa: S101  callers have looked
        width = self.days.level_width(origin)
        found = self._weighed[origin] = []
        for place in range(max(origin - self.horizon + 1, 0)):
            there = levels[place]
            if there is None:
                continue
            distance = (there - level) / width
            if distance * distance > 18:  # e to the -9: nothing
                continue
            apart = (ages[place] - age) / _AGE_WIDTH
            found.append((place, exp(-distance * distance / 2) * (_OTHER_AGE + (1 - _OTHER_AGE) * exp(-apart * apart / 2))))
        return found

    def weigh_moves(self, origin: int) -> list[tuple[float, float]]:
        """Moves and what each counts, in order; that it stays counts as one window does."""
        moves = [(move, weight) for place, weight in self.weigh(origin) if (move := self.moves[place]) is not None]
        return sorted([*moves, (0.0, float(self.horizon))])

    def find_falls(self, share: float) -> list[bool | None]:
        """Whether the price fell to such a share of what it was at the begin; None for a day without an offer."""
        return [
            None if price is None else low is not None and low <= share * price
            for price, low in zip(self.days.prices, self.lows, strict=False)
        ]

    def find_chance(self, origin: int, reached: Sequence[bool | None]) -> tuple[float | None, float | None]:
        """By the model, and by the share of all days; None where no day had an offer."""
        ended = [one for one in reached[: max(origin - self.horizon + 1, 0)] if one is not None]
        if not ended:
            return None, None
        base = sum(ended) / len(ended)
        total = float(self.horizon)
        hits = base * total
        for place, weight in self.weigh(origin):
            is_reached = reached[place]
            if is_reached is not None:
                total += weight
                hits += weight if is_reached else 0.0
        return hits / total, base


def _test_price(windows: _Windows) -> Backtest:
    losses = []
    for origin in range(LEAST_DAYS, windows.count):
        move = windows.moves[origin]
        if move is None:
            continue
        price = windows.days.known(origin)
        actual = windows.days.known(origin + windows.horizon)
        said = price * exp(_quantile(windows.weigh_moves(origin), 0.5))
        losses.append((origin, abs(said - actual), float(abs(price - actual))))
    return _compare(losses, windows.horizon)


def _test_chance(windows: _Windows, reached: Sequence[bool | None]) -> Backtest:
    losses = []
    for origin in range(LEAST_DAYS, windows.count):
        is_reached = reached[origin]
        if is_reached is None:
            continue
        chance, base = windows.find_chance(origin, reached)
        if chance is not None and base is not None:
            losses.append((origin, (chance - is_reached) ** 2, (base - is_reached) ** 2))
    tried = _compare(losses, windows.horizon)
    # Of what hardly ever happened, nothing is learnt.
    happened = {origin // windows.horizon for origin, *_ in losses if reached[origin]}
    return tried if len(happened) >= LEAST_SPANS else replace(tried, is_better=False)


def _compare(losses: Sequence[tuple[int, float, float]], horizon: int) -> Backtest:
    """Loss of the model and of the baseline, by day."""
    if not losses:
        return Backtest(0, 0, 0.0, 0.0, False)
    spans: dict[int, list[float]] = {}
    for origin, loss, baseline in losses:
        spans.setdefault(origin // horizon, []).append(baseline - loss)
    mean_loss = sum(loss for _, loss, _ in losses) / len(losses)
    mean_baseline = sum(baseline for *_, baseline in losses) / len(losses)
    gains = [sum(some) / len(some) for some in spans.values()]
    is_better = mean_loss < (1 - LEAST_GAIN) * mean_baseline and _is_above_zero(gains)
    return Backtest(len(losses), len(spans), mean_loss, mean_baseline, is_better)


def _is_above_zero(gains: Sequence[float]) -> bool:
    """Whether their mean is, by more than chance."""
    count = len(gains)
    if count < LEAST_SPANS:
        return False
    mean = sum(gains) / count
    deviation = sqrt(sum((gain - mean) ** 2 for gain in gains) / (count - 1))
    limit = next(limit for freedom, limit in reversed(_T_LIMITS) if count - 1 >= freedom)
    return mean > 0 and mean * sqrt(count) >= limit * deviation


def _quantile(weighted: Sequence[tuple[float, float]], share: float) -> float:
    """The least value up to which so much of the weight lies; the values are in order."""
    wanted = share * sum(weight for _, weight in weighted)
    passed = 0.0
    for value, weight in weighted:
        passed += weight
        if passed >= wanted:
            return value
    return weighted[-1][0]


def _why_not(tried: Backtest, baseline: str) -> str:
    if tried.baseline_loss == 0:
        return f"on its own history nothing could be better than to say {baseline}"
    if tried.spans < LEAST_SPANS:
        return f"it could be tried from {tried.days} days only"
    return f"on its own history it was not surely better than to say {baseline}"
