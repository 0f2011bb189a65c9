"""The verb `scan`: look at the same products in all stores that are compared, as far as a share of the tokens goes."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine

from keeper.check import Checked, give_back, note_failure, record_answer
from keeper.discover import LIST_AGE, FetchFound, FetchList, ListUnderWay, bestsellers, finder_query
from keeper.domain.budget import Priority
from keeper.domain.discovery import DiscoveryQuery
from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.domain.scan_plan import ScanPlan
from keeper.fetch import fetch, fetch_bestsellers, fetch_found
from keeper.keepa.answer import AsinAnswer
from keeper.keepa.client import KeepaClient
from keeper.keepa.requests import BESTSELLERS_TOKENS, MAX_ASINS, FinderQuery, cost_upper_bound, finder_cost_upper_bound
from keeper.plan import PlannedRequest, options_of, plan_products
from keeper.postgres import candidates, installation, ledger
from keeper.postgres import scan as store
from keeper.postgres.scan import DueProduct
from keeper.tokens import TokenSettings, TokensUnavailable, release, reserve

logger = logging.getLogger(__name__)

JOB = "arbitrage-scan"
# What the tokens are reserved for; Keepa knows it as `product`, `bestsellers` and `query`.
OPERATION = "arbitrage"
# A run is made so often and may spend what its share came to since the last one.
EVERY = timedelta(hours=2)
# A store that does not have a product is asked again after so long.
_ABSENT_AGAIN = timedelta(days=7)
_FIRST_HISTORY_DAYS = 365
# Sellers are asked for ten at a time, and Keepa gives no fewer.
_OFFERS = 20
_LEAST_REQUESTS = 2
_LONGEST_REASON = 300


class ShareSpent(KeeperError):
    """The share of the tokens is spent; what is left waits for the next run."""


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """What is compared and how much it may cost; see the settings of the same names.

    Attributes:
        lists: categories whose bestsellers are compared.
        queries: finder queries whose products are.
    """

    stores: tuple[Marketplace, ...]
    price_type: PriceType
    share_pct: float
    fresh_for: timedelta
    price_ends_after: timedelta
    deal_age: timedelta
    most_asins: int
    most_per_list: int
    max_wait_seconds: float
    lists: tuple[tuple[Marketplace, int], ...] = ()
    queries: tuple[DiscoveryQuery, ...] = ()

    @property
    def has_buybox(self) -> bool:
        """Whether the buy box is asked for."""
        return self.price_type is PriceType.BUY_BOX_SHIPPING

    @property
    def offers(self) -> int | None:
        """How many sellers are asked for; None for none. Without them Keepa does not tell the price of those it sends for."""
        return _OFFERS if self.price_type is PriceType.NEW_FBA else None

    @property
    def tokens_each(self) -> int:
        """What a product costs in a store at most."""
        return cost_upper_bound(1, options_of(buybox=self.has_buybox, history_days=1, offers=self.offers))


@dataclass(slots=True)
class StoreScan:
    """What came of one store."""

    requests: int = 0
    checked: int = 0
    failed: int = 0
    tokens: int = 0


@dataclass(slots=True)
class Scanned:
    """What one run did.

    Attributes:
        plan: before it began; None until then.
        products: that were asked for somewhere.
        stores: what came of each.
        lists: lists that were paid; `tokens` are theirs, too.
        troubles: what failed, each once.
        notes: what is no failure but worth saying.
    """

    plan: ScanPlan | None = None
    products: int = 0
    lists: int = 0
    tokens: int = 0
    stores: dict[Marketplace, StoreScan] = field(default_factory=dict)
    troubles: dict[str, None] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)

    @property
    def checked(self) -> int:
        """Listings, in all stores."""
        return sum(one.checked for one in self.stores.values())

    @property
    def sentence(self) -> str:
        """For the list of runs."""
        return f"looked at {self.products} products in {len(self.stores)} stores, {self.checked} listings; {self.tokens} tokens"


@dataclass(frozen=True, slots=True)
class Share:
    """What comparing may spend in an hour, and what is left of it now.

    Attributes:
        capacity: what the bucket holds at most.
    """

    per_hour: int
    left: int
    capacity: int = 0


def share_of(connection: Connection, *, share_pct: float, now: datetime) -> Share:
    """The share of the refill, less what was spent of it since the last run and what is reserved.

    Nothing before Keepa has named its bucket.
    """
    bucket = ledger.read_ledger(connection).bucket
    if bucket is None:
        return Share(0, 0)
    hours = EVERY / timedelta(hours=1)
    per_hour = bucket.net_per_minute * 60 * share_pct / 100
    used = sum(ledger.select_used(connection, {OPERATION}, since=now - EVERY).values())
    return Share(int(per_hour), int(per_hour * hours) - used, bucket.capacity)


def plan_scan(engine: Engine, settings: ScanSettings) -> ScanPlan:
    """How many products at which age the tokens can hold. Nothing is asked or paid; of lists what is kept counts."""
    listed = _listed(engine, settings)
    with engine.begin() as connection:
        now = installation.select_now(connection)
        due = _select_due(connection, settings, listed, now=now)
        share = share_of(connection, share_pct=settings.share_pct, now=now)
        by_source = store.count_wanted(
            connection, stores=settings.stores, listed=listed, deals_since=now - settings.deal_age, most=settings.most_asins
        )
    return ScanPlan(
        products=sum(by_source.values()),
        stores=len(settings.stores),
        tokens_each=settings.tokens_each,
        tokens_per_hour=share.per_hour,
        price_ends_after=settings.price_ends_after,
        every=max(EVERY, settings.fresh_for),
        due=len(due),
        due_tokens=sum(len(one.stores) for one in due) * settings.tokens_each,
        tokens_left=max(0, share.left),
        by_source=by_source,
    )


def scan(
    engine: Engine,
    *,
    settings: ScanSettings,
    fetch_list: FetchList,
    fetch_found: FetchFound,
    plan: Callable[[Sequence[str], Marketplace, int], PlannedRequest | None],
    check: Callable[[PlannedRequest], Checked],
    scanned: Scanned,
    largest_request: int | None = None,
    on_planned: Callable[[int], None] = lambda _: None,
    on_done: Callable[[int], None] = lambda _: None,
) -> None:
    """One run: read lists, then ask for the products that are due, some in all stores before the next ones in any.

    What fails is noted; a store that fails is left out for the rest of the run and stops no other.

    Args:
        fetch_list, fetch_found: pay and ask for a list.
        plan: `plan_listings`.
        check: fetches and records one request.
        scanned: what is done is added here.
        largest_request: tokens one request may cost at most; None for what the bucket allows.
        on_planned: told how many products are due.
        on_done: told how many more are through.
    """
    _ask_lists(engine, settings, fetch_list=fetch_list, fetch_found=fetch_found, scanned=scanned)
    scanned.plan = plan_scan(engine, settings)
    if scanned.plan.warning:
        scanned.notes[scanned.plan.warning] = None
    with engine.begin() as connection:
        due = _select_due(connection, settings, _listed(engine, settings), now=installation.select_now(connection))
    on_planned(len(due))
    waiting = _in_turn(due)
    dead: set[Marketplace] = set()
    try:
        while (some := list(_take(waiting, _affordable(engine, settings, largest_request)))) and len(dead) < len(settings.stores):
            for marketplace in settings.stores:
                if marketplace not in dead and (asins := [one.asin for one in some if marketplace in one.stores]):
                    days = _history_days(engine, some)
                    if not _scan_store(engine, marketplace, asins, days, plan=plan, check=check, scanned=scanned):
                        dead.add(marketplace)
            scanned.products += len(some)
            on_done(len(some))
    except (ShareSpent, TokensUnavailable) as error:
        scanned.notes[f"the rest waits for the next run: {error}"[:_LONGEST_REASON]] = None


def _scan_store(
    engine: Engine,
    marketplace: Marketplace,
    asins: Sequence[str],
    history_days: int,
    *,
    plan: Callable[[Sequence[str], Marketplace, int], PlannedRequest | None],
    check: Callable[[PlannedRequest], Checked],
    scanned: Scanned,
) -> bool:
    """One request. Returns whether the store answers.

    Raises:
        ShareSpent, TokensUnavailable: nothing was asked.
    """
    request = plan(asins, marketplace, history_days)
    if request is None:
        return True
    done = scanned.stores.setdefault(marketplace, StoreScan())
    done.requests += 1
    try:
        checked = check(request)
    except KeeperError as error:
        logger.error("%d products of %s failed: %s", request.size, marketplace, error)
        done.failed += request.size
        scanned.troubles[f"{marketplace} is left out: {error}"[:_LONGEST_REASON]] = None
        with engine.begin() as connection:
            now = installation.select_now(connection)
            # Or the same products were the next run's first again, and no other had its turn.
            store.mark_scanned(connection, request.asins, marketplace, now=now)
        note_failure(engine, request, str(error)[:_LONGEST_REASON], now=now)
        return False
    except BaseException:
        give_back(engine, request)
        raise
    with engine.begin() as connection:
        store.mark_scanned(connection, request.asins, marketplace, now=installation.select_now(connection))
    done.checked += checked.checked
    done.failed += len(checked.failures)
    done.tokens += checked.tokens
    scanned.tokens += checked.tokens
    return True


def plan_listings(
    engine: Engine,
    asins: Sequence[str],
    marketplace: Marketplace,
    history_days: int,
    *,
    settings: ScanSettings,
    token_settings: TokenSettings,
) -> PlannedRequest | None:
    """Claim and pay for one request, after everybody else. None when all its products are being checked right now.

    Raises:
        ShareSpent: the share of the tokens does not go so far.
        TokensUnavailable: others go first, and the tokens are not there in time.
    """
    tokens = len(asins) * settings.tokens_each
    reservation_id = _reserve(engine, tokens, settings=settings, token_settings=token_settings)
    try:
        with engine.begin() as connection:
            request = plan_products(
                connection,
                asins,
                marketplace,
                buybox=settings.has_buybox,
                history_days=history_days,
                reservation_id=reservation_id,
                settings=token_settings,
                offers=settings.offers,
            )
    except BaseException:
        release(engine, reservation_id)
        raise
    if request is None:
        release(engine, reservation_id)
        return None
    return replace(request, operation=OPERATION, priority=Priority.BACKGROUND)


def pay_list(engine: Engine, tokens: int, *, settings: ScanSettings, token_settings: TokenSettings) -> int:
    """Set the tokens of a list aside, of the same share. Returns the reservation.

    Raises:
        ShareSpent, TokensUnavailable: see `plan_listings`.
    """
    return _reserve(engine, tokens, settings=settings, token_settings=token_settings)


def scan_all(
    engine: Engine,
    client: KeepaClient,
    *,
    settings: ScanSettings,
    token_settings: TokenSettings,
    on_planned: Callable[[int], None] = lambda _: None,
    on_done: Callable[[int], None] = lambda _: None,
) -> Scanned:
    """Everything at once, for a person who asked; see `scan`."""
    scanned = Scanned()

    def ask_list(marketplace: Marketplace, category_id: int) -> AsinAnswer:
        reservation_id = pay_list(engine, BESTSELLERS_TOKENS, settings=settings, token_settings=token_settings)
        return fetch_bestsellers(engine, client, marketplace, category_id, reservation_id=reservation_id)

    def ask_finder(query: FinderQuery) -> AsinAnswer:
        reservation_id = pay_list(engine, finder_cost_upper_bound(query), settings=settings, token_settings=token_settings)
        return fetch_found(engine, client, query, 0, reservation_id=reservation_id)

    def check(request: PlannedRequest) -> Checked:
        answer = fetch(engine, client, request)
        with engine.begin() as connection:
            now = installation.select_now(connection)
        return record_answer(engine, request, answer, now=now)

    scan(
        engine,
        settings=settings,
        fetch_list=ask_list,
        fetch_found=ask_finder,
        plan=lambda asins, marketplace, days: plan_listings(
            engine, asins, marketplace, days, settings=settings, token_settings=token_settings
        ),
        check=check,
        scanned=scanned,
        on_planned=on_planned,
        on_done=on_done,
    )
    return scanned


def _reserve(engine: Engine, tokens: int, *, settings: ScanSettings, token_settings: TokenSettings) -> int:
    with engine.begin() as connection:
        share = share_of(connection, share_pct=settings.share_pct, now=installation.select_now(connection))
    if share.left < tokens:
        raise ShareSpent(f"comparing stores has spent its share of {share.per_hour} tokens an hour (KEEPER_ARBITRAGE_SHARE_PCT)")
    return reserve(
        engine,
        operation=OPERATION,
        tokens=tokens,
        priority=Priority.BACKGROUND,
        max_wait_seconds=settings.max_wait_seconds,
        settings=token_settings,
    )


def _affordable(engine: Engine, settings: ScanSettings, largest_request: int | None) -> int:
    """How many products fit into one round of requests: all their stores are asked with what is left of the share.

    Raises:
        ShareSpent: not even one.
    """
    with engine.begin() as connection:
        share = share_of(connection, share_pct=settings.share_pct, now=installation.select_now(connection))
    products = share.left // (settings.tokens_each * len(settings.stores))
    if products < 1:
        raise ShareSpent(f"comparing stores has spent its share of {share.per_hour} tokens an hour (KEEPER_ARBITRAGE_SHARE_PCT)")
    # More than half of the bucket at once would be long in coming, and nobody else had any meanwhile.
    largest = share.capacity // _LEAST_REQUESTS if largest_request is None else min(largest_request, share.capacity // _LEAST_REQUESTS)
    return max(1, min(products, MAX_ASINS, largest // settings.tokens_each))


def _in_turn(due: Sequence[DueProduct]) -> Iterator[DueProduct]:
    """By turns one that people wait for or that is an opportunity, and one of the rest: neither waits for all of the other."""
    kept = iter([one for one in due if one.source <= store.OPEN])
    rest = iter([one for one in due if one.source > store.OPEN])
    queues = [kept, rest]
    while queues:
        for queue in list(queues):
            try:
                yield next(queue)
            except StopIteration:
                queues.remove(queue)


def _take(waiting: Iterator[DueProduct], most: int) -> Iterator[DueProduct]:
    for _ in range(most):
        try:
            yield next(waiting)
        except StopIteration:
            return


def _history_days(engine: Engine, some: Sequence[DueProduct]) -> int:
    """So many that no change since the last answer is missed, however often it was asked for in vain; of a product never seen a year."""
    checked = [one.checked_at for one in some]
    if None in checked:
        return _FIRST_HISTORY_DAYS
    with engine.begin() as connection:
        now = installation.select_now(connection)
    oldest = min(at for at in checked if at is not None)
    return min(_FIRST_HISTORY_DAYS, (now - oldest).days + 2)


def _select_due(connection: Connection, settings: ScanSettings, listed: Sequence[str], *, now: datetime) -> list[DueProduct]:
    return store.select_due(
        connection,
        stores=settings.stores,
        price_type=settings.price_type,
        listed=listed,
        deals_since=now - settings.deal_age,
        most=settings.most_asins,
        seen_before=now - settings.fresh_for,
        absent_before=now - _ABSENT_AGAIN,
    )


def _listed(engine: Engine, settings: ScanSettings) -> list[str]:
    """The products of all kept lists, by turns one of each, so that the best of all come first."""
    with engine.begin() as connection:
        lists = [candidates.select_list(connection, marketplace, category_id) for marketplace, category_id in settings.lists]
        asins = [list(one.asins[: settings.most_per_list]) for one in lists if one is not None]
        asins += [list(candidates.select_found(connection, query.name)[: settings.most_per_list]) for query in settings.queries]
    longest = max(map(len, asins), default=0)
    return list(dict.fromkeys(one[place] for place in range(longest) for one in asins if place < len(one)))


def _ask_lists(engine: Engine, settings: ScanSettings, *, fetch_list: FetchList, fetch_found: FetchFound, scanned: Scanned) -> None:
    """Lists that were not paid within a day. What fails stops that list only; the one before counts on."""

    def counted(answer: AsinAnswer) -> AsinAnswer:
        scanned.lists += 1
        scanned.tokens += answer.tokens.tokens_consumed
        return answer

    for marketplace, category_id in settings.lists:
        with _noting(f"bestsellers of {category_id} in {marketplace}", scanned):
            found = bestsellers(engine, marketplace, category_id, fetch_list=lambda *which: counted(fetch_list(*which)))
            if not found:
                scanned.notes[f"Keepa has no list of {category_id} in {marketplace}"] = None
    for query in settings.queries:
        if query.selection is None:
            continue
        with engine.begin() as connection:
            asked_at = candidates.select_found_at(connection, query.name)
            is_fresh = asked_at is not None and installation.select_now(connection) - asked_at < LIST_AGE
        if is_fresh:
            continue
        with _noting(f"finder query {query.name}", scanned):
            answer = counted(fetch_found(finder_query(query.marketplace, query.selection)))
            with engine.begin() as connection:
                candidates.keep_found(connection, query.name, answer.asins, now=installation.select_now(connection))


@contextmanager
def _noting(name: str, scanned: Scanned) -> Iterator[None]:
    try:
        yield
    except (TokensUnavailable, ShareSpent, ListUnderWay) as error:
        scanned.notes[f"{name}: {error}"[:_LONGEST_REASON]] = None
    except KeeperError as error:
        logger.error("%s failed: %s", name, error)
        scanned.troubles[f"{name}: {error}"[:_LONGEST_REASON]] = None
