"""The verb `compare`: which products are worth buying in one store and selling in another, for all of them or for what has changed.

A pass works in several short transactions, one for some ten thousand products: it reads their prices as columns, reckons all pairs, and
makes the open opportunities of those products what was found. What changed is taken off its list in the same transaction, and a pass says
what it reckons with before it begins: one that is killed has done a part, and the next does the rest, and again what was reckoned with
other terms than its own.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine

from keeper.domain.errors import TransientError
from keeper.domain.exchange import ExchangeRates
from keeper.domain.fee_category import FeeCategories
from keeper.domain.marketplace import COMPARED, Marketplace
from keeper.domain.opportunity_score import Flag
from keeper.domain.price_type import PriceType
from keeper.domain.same_article import Listing, find_doubts
from keeper.domain.seller import SellerProfile
from keeper.domain.trade_terms import STALE_AFTER_DAYS, Tables
from keeper.postgres import comparison, product_changes
from keeper.postgres.comparison import HAS_INVESTED, HAS_PROFIT, HAS_PROFIT_MARGIN, HAS_ROI, MOST_PCT, Listings, Prices, Scope, Written
from keeper.postgres.jobs import hold_job
from keeper.profit_pass import BITS, NONE, Candidates, Columns, ProfitPass, Profits
from keeper.score_pass import FLAG_BITS, PARTS, FactColumns, compute_score_parts, find_flags

logger = logging.getLogger(__name__)

JOB: Final = "compare"
# Raised where opportunities would look otherwise from the same prices: then every one is looked at anew.
RULES: Final = 2
# So many prices are read at once: some 50,000 products in five stores, which takes some 50 MB.
ROWS_AT_ONCE: Final = 250_000
PRODUCTS_AT_ONCE: Final = 20_000
# One that stays as it is is marked as seen twice a day, and not by every pass.
SEEN_AGAIN: Final = timedelta(hours=12)
# A price is old after this part of the time after which it counts no more.
_OLD_AFTER_PART = 3

_ALL = 2**31 - 1

Ints = NDArray[np.int64]


class ComparisonRunning(TransientError):
    """Another process compares."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What prices are compared by.

    Attributes:
        stores: compared with each other in every direction.
        price_type: the price basis.
        least_margin_pct: a gross gap of more is an opportunity.
        seller: the operator's default one.
        price_ends_after: a price nobody has checked for so long is none.
    """

    seller: SellerProfile
    tables: Tables
    rates: ExchangeRates
    fee_categories: FeeCategories
    stores: tuple[Marketplace, ...] = COMPARED
    price_type: PriceType = PriceType.NEW
    least_margin_pct: Decimal = Decimal(10)
    stale_rate_days: int = STALE_AFTER_DAYS
    price_ends_after: timedelta = timedelta(hours=72)

    @property
    def categories(self) -> tuple[str, ...]:
        """Every category of fees and taxes that is known."""
        found = {rule.category for rule in self.fee_categories.rules if rule.category is not None}
        found |= {fee.category for fee in self.tables.fees.referral} | {fee.category for fee in self.tables.fees.closing}
        found |= {rate.category for rate in self.tables.vat.rates} | {border.category for border in self.tables.borders.terms}
        return tuple(sorted(found))


@dataclass(frozen=True, slots=True)
class Compared:
    """What one pass did.

    Attributes:
        id: of the pass.
        is_full: every product was looked at.
        why: what made it look at more than the changes; "changes" where nothing did.
        products: how many were looked at.
        pairs: how many trades were compared: both prices were known.
    """

    id: int
    is_full: bool
    why: str
    products: int = 0
    pairs: int = 0
    opened: int = 0
    changed: int = 0
    closed: int = 0

    @property
    def sentence(self) -> str:
        """For the list of runs."""
        return (
            f"{self.opened} new opportunities, {self.changed} changed, {self.closed} over; "
            f"{self.products} products in {self.pairs} pairs compared ({self.why})"
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a pass looks at besides the changes.

    Attributes:
        walk: source and target of the pairs every product is looked at in; None for none, empty for all pairs and those no longer compared.
        lanes: categories, sources and targets whose open opportunities are reckoned anew.
        is_looked: listings are compared anew, too.
    """

    why: str
    walk: Collection[tuple[str, str]] | None = None
    lanes: Collection[tuple[str | None, str, str]] = ()
    is_looked: bool = False


def compare(
    engine: Engine,
    *,
    now: datetime,
    terms: Terms,
    is_full: bool = False,
    on_changed: Callable[[Connection, Sequence[str]], object] | None = None,
    on_done: Callable[[int], object] = lambda _: None,
) -> Compared:
    """Make the opportunities what the prices say. Idempotent; safe to be killed at any time.

    Args:
        is_full: look at every product, whatever has changed.
        on_changed: told in each transaction which products' opportunities it opened, changed or closed.
        on_done: told how many more products were looked at.

    Raises:
        ComparisonRunning: another process is at it.
        PassImpossible: an exchange rate nobody can reckon with.
    """
    with hold_job(engine, JOB) as is_held:
        if not is_held:
            raise ComparisonRunning("the stores are being compared already; try again when that is through, in some minutes")
        return _Pass(engine, now=now, terms=terms, on_changed=on_changed, on_done=on_done).run(is_full=is_full)


class _Pass:
    """One pass; made for one call."""

    def __init__(
        self,
        engine: Engine,
        *,
        now: datetime,
        terms: Terms,
        on_changed: Callable[[Connection, Sequence[str]], object] | None,
        on_done: Callable[[int], object],
    ) -> None:
        self.engine = engine
        self.now = now
        self.terms = terms
        self.on_changed = on_changed
        self.on_done = on_done
        self.stores = terms.stores
        self.ready = ProfitPass(
            terms.stores,
            terms.categories,
            seller=terms.seller,
            tables=terms.tables,
            rates=terms.rates,
            on=now.date(),
            stale_after_days=terms.stale_rate_days,
        )
        self.pairs = [(self.stores[source], self.stores[target]) for source, target in self.ready.pairs]
        self.category_numbers = {category: number for number, category in enumerate(self.ready.categories)}
        # Which of our categories a store's category is, by a hash of both; asked once for each.
        self.known_categories: dict[int, int] = {}
        divided = {rule.root_category_id for rule in terms.fee_categories.rules if rule.path is not None}
        self.divided_roots = np.array(sorted(divided), np.int64)
        self.over_after = terms.price_ends_after
        self.old_after = terms.price_ends_after / _OLD_AFTER_PART
        self.over = now - self.over_after
        self.old = now - self.old_after
        # When the first open opportunity ages by nothing but time; None where nobody knows.
        self.ages_at: datetime | None = None
        self.done = Compared(0, False, "")

    def run(self, *, is_full: bool) -> Compared:
        """All of it."""
        reckoned_with = self._describe()
        with self.engine.begin() as connection:
            plan = self._plan(comparison.select_terms(connection), reckoned_with, is_full=is_full)
            until = product_changes.select_last_change(connection)
            walks = plan.walk is not None
            self.ages_at = None if walks else comparison.select_ages_at(connection)
            number = comparison.insert_comparison(connection, is_full=walks, why=plan.why, terms=json.dumps(reckoned_with), now=self.now)
        self.done = replace(self.done, id=number, is_full=walks, why=plan.why)
        if plan.walk is not None:
            self._walk(plan.walk or None, is_looked=plan.is_looked)
        if plan.lanes:
            with self.engine.begin() as connection:
                asins = comparison.select_open(connection, plan.lanes)
            self._look_at(asins, is_looked=False)
        self._take_changes(until)
        if self.ages_at is None or self.ages_at <= self.now:
            with self.engine.begin() as connection:
                aged, self.ages_at = comparison.select_aged(
                    connection, now=self.now, old_after=self.old_after, over_after=self.over_after, flag=Flag.OLD_PRICE
                )
            self._look_at(aged, is_looked=False)
        with self.engine.begin() as connection:
            comparison.finish_comparison(
                connection,
                number,
                products=self.done.products,
                pairs=self.done.pairs,
                opened=self.done.opened,
                changed=self.done.changed,
                closed=self.done.closed,
                ages_at=self.ages_at,
                now=self.now,
            )
        logger.info("%s", self.done.sentence)
        return self.done

    def _describe(self) -> dict[str, Any]:
        """What it reckons with, as fingerprints."""
        terms = self.terms
        settings = (
            RULES,
            terms.price_type.value,
            str(terms.least_margin_pct),
            terms.price_ends_after.total_seconds(),
            terms.fee_categories.rules,
        )
        worth = [terms.rates.find_exchange(store.currency, "EUR", self.now.date()) for store in self.stores]
        return {
            "settings": hashlib.sha256(repr(settings).encode()).hexdigest()[:12],
            "worth": {
                store.value: None if one is None else f"{one.numerator}/{one.denominator}"
                for store, one in zip(self.stores, worth, strict=True)
            },
            "pairs": [f"{source}-{target}" for source, target in self.pairs],
            "terms": self.ready.fingerprints(),
        }

    def _plan(self, before: Sequence[Mapping[str, Any]], after: Mapping[str, Any], *, is_full: bool) -> _Plan:
        """What is other than the last time, and so is to be reckoned anew.

        Rates change the gap itself, so every product is looked at, in the pairs of those currencies. Fees and the seller change only what
        is left of a gap: the open opportunities of those categories and pairs are.

        Args:
            before: of the last pass that came to its end, then of those after it that did not: any opportunity may be by any of them.
        """
        if not before or not before[0]:
            return _Plan("the first", (), is_looked=True)
        if is_full:
            return _Plan("asked for", ())
        if not all(before):
            return _Plan("a pass that broke off", (), is_looked=True)
        if any(one.get("settings") != after["settings"] or one.get("pairs") != after["pairs"] for one in before):
            return _Plan("other settings", (), is_looked=True)
        moved = {store for store, worth in after["worth"].items() if any(one.get("worth", {}).get(store) != worth for one in before)}
        walk = [(source.value, target.value) for source, target in self.pairs if {source.value, target.value} & moved]
        lanes = [
            (category or None, self.pairs[pair][0].value, self.pairs[pair][1].value)
            for category, marks in after["terms"].items()
            for pair, mark in enumerate(marks)
            if any([mark] != one.get("terms", {}).get(category, [])[pair : pair + 1] for one in before)
        ]
        lanes = [lane for lane in lanes if (lane[1], lane[2]) not in walk]
        why = " and ".join(word for word, is_so in (("exchange rates", walk), ("fees or the seller", lanes)) if is_so)
        return _Plan(why or "changes", walk or None, lanes)

    def _walk(self, pairs: Collection[tuple[str, str]] | None, *, is_looked: bool) -> None:
        """Every product in order, in these pairs or all."""
        after: str | None = ""
        while after is not None:
            with self.engine.begin() as connection:
                comparison.lock_comparing(connection)
                prices = self._read_after(connection, after)
                changed: Collection[str] = ()
                if pairs is None:
                    # What was changed before its price is read is seen now; a change that came since is for the next transaction.
                    changed = product_changes.take_changes_between(connection, after, prices.last)
                    if changed:
                        # What was taken is looked at here, all of it.
                        prices = self._read_after(connection, after, until=prices.last, rows=_ALL)
                scope = Scope(after=after, last=prices.last, pairs=pairs)
                self._write(connection, prices, scope, looked=None if is_looked else changed)
            self.on_done(len(prices.asins))
            after = prices.last

    def _read_after(self, connection: Connection, after: str, *, until: str | None = None, rows: int | None = None) -> Prices:
        return comparison.read_prices_after(
            connection,
            after,
            until=until,
            rows=rows or ROWS_AT_ONCE,
            price_type=self.terms.price_type,
            stores=self.stores,
            checked_since=self.over,
        )

    def _take_changes(self, until: int) -> None:
        """What changed before the pass began, chunk by chunk."""
        asins: Sequence[str] = [""]
        while asins:
            with self.engine.begin() as connection:
                comparison.lock_comparing(connection)
                asins = product_changes.take_changes(connection, until=until, limit=PRODUCTS_AT_ONCE)
                if asins:
                    self._write_these(connection, asins, looked=None)
            self.on_done(len(asins))

    def _look_at(self, asins: Sequence[str], *, is_looked: bool) -> None:
        """These products."""
        for some in _shares(asins, PRODUCTS_AT_ONCE):
            with self.engine.begin() as connection:
                comparison.lock_comparing(connection)
                self._write_these(connection, some, looked=None if is_looked else ())
            self.on_done(len(some))

    def _write_these(self, connection: Connection, asins: Sequence[str], *, looked: Collection[str] | None) -> None:
        prices = comparison.read_prices_of(connection, asins, price_type=self.terms.price_type, stores=self.stores, checked_since=self.over)
        self._write(connection, prices, Scope(asins=asins), looked=looked)

    def _write(self, connection: Connection, prices: Prices, scope: Scope, *, looked: Collection[str] | None) -> None:
        """Make the open opportunities of the scope what these prices say.

        Args:
            looked: products whose listings are compared anew; None for all. Those of a new gap always are.
        """
        wanted = None
        if scope.pairs is not None:
            wanted = [place for place, (source, target) in enumerate(self.pairs) if (source.value, target.value) in scope.pairs]
        candidates = self.ready.find_candidates(prices.minor, self.terms.least_margin_pct, wanted)
        comparison.make_stages(connection)
        flags: Mapping[int, Sequence[str]] = {}
        unknown: Mapping[int, Sequence[str]] = {}
        if len(candidates.products):
            gaps = self._reckon(connection, prices, candidates)
            asins = gaps["asin"]
            gaps["is_looked"] = np.ones(len(asins), np.uint8) if looked is None else np.isin(asins, np.array(list(looked), "S10"))
            gaps["is_new"] = np.zeros(len(asins), np.uint8)
            unknown = {int(mask): [name.value for name, bit in BITS.items() if mask & bit] for mask in np.unique(gaps["unknown"])}
            flags = {int(mask): [flag.value for flag, bit in FLAG_BITS.items() if mask & bit] for mask in np.unique(gaps["flags"])}
            comparison.stage_gaps(connection, gaps)
            self._look(connection)
        written = comparison.write_gaps(
            connection,
            scope=scope,
            pairs=self.pairs,
            price_type=self.terms.price_type,
            categories=self.ready.categories,
            unknown=unknown,
            flags=flags,
            now=self.now,
            over=self.over,
            seen_again=SEEN_AGAIN,
        )
        if self.on_changed is not None and written.asins:
            self.on_changed(connection, written.asins)
        self._add(prices, written, wanted)

    def _add(self, prices: Prices, written: Written, wanted: Sequence[int] | None) -> None:
        known = (prices.minor > 0).sum(axis=0)
        pairs = int((known * (known - 1)).sum())
        if wanted is not None:
            pairs = sum(
                int(((prices.minor[self.ready.pairs[pair][0]] > 0) & (prices.minor[self.ready.pairs[pair][1]] > 0)).sum())
                for pair in wanted
            )
        self.done = replace(
            self.done,
            products=self.done.products + len(prices.asins),
            pairs=self.done.pairs + pairs,
            opened=self.done.opened + written.opened,
            changed=self.done.changed + written.changed,
            closed=self.done.closed + written.closed,
        )

    def _reckon(self, connection: Connection, prices: Prices, candidates: Candidates) -> dict[str, NDArray[Any]]:
        """The columns of the stage, of all candidates."""
        # Facts are read of the products of candidates only: most products have none.
        products, places = np.unique(candidates.products, return_inverse=True)
        asins = prices.asins[products]
        listings = comparison.read_listings(
            connection, asins, price_type=self.terms.price_type, stores=self.stores, now=self.now, checked_since=self.over
        )
        grid = _Grid(listings, len(self.stores), len(products))
        columns = Columns(
            prices=prices.minor[:, products],
            categories=self._find_categories(connection, asins, listings, grid),
            stated=grid.spread(listings.stated),
            fba=grid.spread(listings.fba),
            weights=grid.spread(listings.weight),
        )
        trades = replace(candidates, products=places)
        profits = self.ready.reckon(trades, columns)
        sources, targets = np.array(self.ready.pairs, np.int64)[candidates.pairs].T
        checked = grid.spread(listings.checked_at)
        source_checked, target_checked = checked[sources, places], checked[targets, places]
        checked_last = np.minimum(source_checked, target_checked)
        is_old = checked_last <= comparison.microseconds_of(self.old)
        if self.ages_at is not None:
            left = [(is_old, self.over_after), (~is_old, self.old_after)]
            ages = [comparison.moment_of(int(checked_last[some].min())) + after for some, after in left if some.any()]
            self.ages_at = min([self.ages_at, *ages])
        facts = _facts(grid, listings, profits, places, sources, targets, is_old)
        parts = compute_score_parts(facts)
        known = np.where(profits.unknown == 0, HAS_PROFIT, 0) + np.where(profits.has_invested, HAS_INVESTED, 0)
        known += np.where(profits.has_roi, HAS_ROI, 0) + np.where(profits.has_margin_of_sale, HAS_PROFIT_MARGIN, 0)
        return {
            "asin": asins[places],
            "pair": candidates.pairs,
            "source_minor": columns.prices[sources, places],
            "target_minor": columns.prices[targets, places],
            "source_checked_at": source_checked,
            "target_checked_at": target_checked,
            "margin_minor": profits.margin,
            "margin_pct": np.clip(profits.margin_pct, -MOST_PCT, MOST_PCT),
            "profit_minor": profits.profit,
            "invested_minor": profits.invested,
            "roi_pct": np.clip(profits.roi_pct, -MOST_PCT, MOST_PCT),
            "profit_margin_pct": np.clip(profits.margin_of_sale_pct, -MOST_PCT, MOST_PCT),
            "known": known,
            "unknown": profits.unknown,
            "is_stale": (profits.is_stale | is_old).astype(np.uint8),
            "category": columns.categories[targets, places],
            "flags": find_flags(facts),
            **{f"part_{part.value}": parts[row] for row, part in enumerate(PARTS)},
        }

    def _find_categories(self, connection: Connection, asins: NDArray[np.bytes_], listings: Listings, grid: "_Grid") -> Ints:
        """Our category of each product by the store that sells: that store's own, or that of the first store that has one."""
        # Where the root decides alone, what is below it is nobody's business.
        path = np.where(np.isin(listings.root, self.divided_roots), listings.path, 0)
        mixed = (path * 31 + listings.root) * 31 + listings.stores
        keys, first, places = np.unique(mixed, return_index=True, return_inverse=True)
        new = [place for place in range(len(keys)) if int(keys[place]) not in self.known_categories]
        if new:
            named = [(asins[listings.products[first[place]]].decode(), self.stores[listings.stores[first[place]]]) for place in new]
            paths = comparison.select_paths(connection, [(asin, store.value) for asin, store in named])
            for place, (asin, store) in zip(new, named, strict=True):
                root = int(listings.root[first[place]])
                category = self.terms.fee_categories.find(store, None if root == NONE else root, paths.get((asin, store.value), ()))
                self.known_categories[int(keys[place])] = self.category_numbers[category]
        numbers = np.array([self.known_categories[int(key)] for key in keys], np.int64)
        own = np.maximum(grid.spread(numbers[places] if len(keys) else np.empty(0, np.int64)), 0)
        any_store = np.zeros(own.shape[1], np.int64)
        for store in reversed(range(own.shape[0])):
            any_store = np.where(own[store] > 0, own[store], any_store)
        found: Ints = np.where(own > 0, own, any_store)
        return found

    def _look(self, connection: Connection) -> None:
        """Compare the listings of those that are new, or that were asked for."""
        looked = comparison.select_unlooked(connection, [(source.value, target.value) for source, target in self.pairs])
        asins = sorted({asin for asin, _ in looked})
        doubts: dict[tuple[str, int], Sequence[str]] = {}
        texts = comparison.select_texts(connection, asins, self.stores) if asins else {}
        nothing = Listing()
        for asin, pair in looked:
            source, target = self.pairs[pair]
            if found := find_doubts(texts.get((asin, source.value), nothing), texts.get((asin, target.value), nothing)):
                doubts[asin, pair] = found
        comparison.stage_doubts(connection, doubts)


class _Grid:
    """Where listings stand in arrays of stores x products."""

    def __init__(self, listings: Listings, stores: int, products: int) -> None:
        self.shape = (stores, products)
        self.places = (listings.stores, listings.products)

    def spread(self, column: Ints) -> Ints:
        """A column of listings as stores x products; `NONE` where there is no listing."""
        found = np.full(self.shape, NONE, np.int64)
        found[self.places] = column
        return found


def _facts(
    grid: _Grid, listings: Listings, profits: Profits, places: Ints, sources: Ints, targets: Ints, is_old: NDArray[np.bool_]
) -> FactColumns:
    def of(column: Ints, stores: Ints) -> Ints:
        found: Ints = grid.spread(column)[stores, places]
        return found

    def either(column: Ints) -> Ints:
        return np.maximum(of(column, sources), of(column, targets))

    return FactColumns(
        roi_pct=profits.roi_pct,
        has_roi=profits.has_roi,
        sales_rank_drops_30=of(listings.sales_rank_drops_30, targets),
        monthly_sold=of(listings.monthly_sold, targets),
        offer_count=of(listings.offer_count, targets),
        buy_box_is_amazon=of(listings.buy_box_is_amazon, targets),
        amazon_matches=of(listings.amazon_matches, targets),
        is_hazardous=either(listings.is_hazardous),
        is_heat_sensitive=either(listings.is_heat_sensitive),
        is_often_returned=of(listings.is_often_returned, targets),
        is_lightning=of(listings.is_lightning, sources) == 1,
        has_coupon=of(listings.has_coupon, sources) == 1,
        is_in_stock=of(listings.is_in_stock, sources),
        is_old=is_old,
    )


def _shares(asins: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(asins), size):
        yield asins[start : start + size]
