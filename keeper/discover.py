"""The verb `discover`: products that may join the catalog are found, fetched once and recorded, within a share of the tokens."""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine

from keeper.check import Checked, give_back, note_failure, record_answer
from keeper.domain.budget import Priority
from keeper.domain.discovery import DiscoveryQuery, Selection
from keeper.domain.errors import KeeperError, TransientError
from keeper.domain.marketplace import Marketplace
from keeper.domain.product import Product
from keeper.domain.product_group import ProductGroup
from keeper.fetch import fetch, fetch_bestsellers, fetch_found
from keeper.keepa.answer import AsinAnswer, ProductAnswer
from keeper.keepa.client import KeepaClient
from keeper.keepa.requests import BESTSELLERS_TOKENS, MAX_ASINS, FinderQuery, cost_upper_bound, finder_cost_upper_bound
from keeper.plan import PlannedRequest, options_of, plan_products
from keeper.postgres import candidates, installation, ledger, watches
from keeper.postgres.jobs import hold_job
from keeper.tokens import TokenSettings, TokensUnavailable, release, reserve

logger = logging.getLogger(__name__)

JOB = "discovery"
# A list of bestsellers and a page of the finder are paid once within so long.
LIST_AGE = timedelta(days=1)
_HISTORY_DAYS = 365
_HOUR = timedelta(hours=1)
_LONGEST_REASON = 300
# What counts against the share beside the candidates themselves, whoever asked for it.
_OPERATIONS = frozenset({"bestsellers", "query"})

FetchList = Callable[[Marketplace, int], AsinAnswer]
FetchFound = Callable[[FinderQuery], AsinAnswer]


class ListUnderWay(TransientError):
    """Somebody else is asking for the same list at this moment."""


@dataclass(frozen=True, slots=True)
class DiscoverSettings:
    """How far the catalog grows; see the settings of the same names."""

    most_products: int
    share_pct: float
    most_per_run: int
    deal_age: timedelta
    max_wait_seconds: float


@dataclass(slots=True)
class Discovered:
    """What one run did.

    Attributes:
        candidates: products that wait to be fetched since this run.
        lists: lists and pages of the finder that were paid.
        added: products that joined the catalog; `strangers` did not belong to their group, `failed` brought nothing.
        tokens: what Keepa took.
        catalog: products with prices at the end; `waiting` the candidates that are left.
        troubles: what failed, each once.
        notes: what is no failure but worth saying.
    """

    candidates: int = 0
    lists: int = 0
    added: int = 0
    strangers: int = 0
    failed: int = 0
    tokens: int = 0
    catalog: int = 0
    waiting: int = 0
    troubles: dict[str, None] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """For the list of runs."""
        return (
            f"{self.added} products joined the catalog of {self.catalog}, {self.strangers} did not belong, {self.failed} brought nothing; "
            f"{self.candidates} new candidates from deals and {self.lists} lists, {self.waiting} wait; {self.tokens} tokens"
        )


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of one request's candidates."""

    added: int = 0
    strangers: int = 0
    failed: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Room:
    """How far a run may still go.

    Attributes:
        share: tokens of an hour; `left` of them are not spent.
        products: that may be fetched.
    """

    share: int
    left: int
    products: int


def room_of(connection: Connection, *, settings: DiscoverSettings, fetched: int, now: datetime) -> Room:
    """The share of an hour's refill less what discovering spent in the last hour, the catalog's room, and the run's.

    Nothing before Keepa has named its bucket.
    """
    bucket = ledger.read_ledger(connection).bucket
    share = 0 if bucket is None else int(bucket.net_per_minute * 60 * settings.share_pct / 100)
    since = now - _HOUR
    spent = sum(one.tokens for one in ledger.select_spending(connection, since=since) if one.operation in _OPERATIONS)
    left = max(0, share - spent - candidates.count_asked(connection, since=since))
    free = settings.most_products - candidates.count_catalog(connection)
    return Room(share, left, max(0, min(left, free, settings.most_per_run - fetched)))


def bestsellers(
    engine: Engine, marketplace: Marketplace, category_id: int, *, fetch_list: FetchList, max_age: timedelta = LIST_AGE
) -> tuple[str, ...]:
    """The bestsellers of a category, the best first: the kept list, or a new one where it is older than `max_age`.

    A list that came is not paid a second time within LIST_AGE, whatever the caller's `max_age`, and however many ask at once. Where
    Keepa has no list, that is kept too.

    Args:
        fetch_list: pays for a list and asks for it, as `fetch_list` here does.

    Raises:
        ListUnderWay: another caller is asking Keepa for it; its answer will be there soon.
        KeepaError, TokensUnavailable: of `fetch_list`.
    """
    max_age = max(max_age, LIST_AGE)
    if (known := _fresh_list(engine, marketplace, category_id, max_age)) is not None:
        return known
    with hold_job(engine, f"bestsellers/{marketplace}/{category_id}") as is_mine:
        if not is_mine:
            raise ListUnderWay(f"the bestsellers of {category_id} in {marketplace} are being asked for; try again in a minute")
        # Another may have brought it between the look and the lock.
        if (known := _fresh_list(engine, marketplace, category_id, max_age)) is not None:
            return known
        answer = fetch_list(marketplace, category_id)
        with engine.begin() as connection:
            candidates.keep_list(connection, marketplace, category_id, answer.asins, now=installation.select_now(connection))
        return answer.asins


def _fresh_list(engine: Engine, marketplace: Marketplace, category_id: int, max_age: timedelta) -> tuple[str, ...] | None:
    with engine.begin() as connection:
        known = candidates.select_list(connection, marketplace, category_id)
        return known.asins if known is not None and installation.select_now(connection) - known.fetched_at < max_age else None


def fetch_list(
    engine: Engine, client: KeepaClient, marketplace: Marketplace, category_id: int, *, settings: TokenSettings, max_wait_seconds: float
) -> AsinAnswer:
    """Pay for a list of bestsellers and ask for it."""
    reservation_id = pay(engine, "bestsellers", BESTSELLERS_TOKENS, settings=settings, max_wait_seconds=max_wait_seconds)
    return fetch_bestsellers(engine, client, marketplace, category_id, reservation_id=reservation_id)


def pay(engine: Engine, operation: str, tokens: int, *, settings: TokenSettings, max_wait_seconds: float) -> int:
    """Set tokens aside, after everybody else. Returns the reservation.

    Raises:
        TokensUnavailable: others go first, and the tokens are not there in time.
    """
    return reserve(
        engine, operation=operation, tokens=tokens, priority=Priority.BACKGROUND, max_wait_seconds=max_wait_seconds, settings=settings
    )


def finder_query(marketplace: Marketplace, selection: Selection) -> FinderQuery:
    """What the finder is asked for."""
    return FinderQuery(
        marketplace,
        root_category_id=selection.root_category_id,
        categories=selection.categories,
        words=selection.words,
        brands=selection.brands,
        price_type=selection.price_type,
        price_from_minor=selection.price_from_minor,
        price_to_minor=selection.price_to_minor,
        rank_from=selection.rank_from,
        rank_to=selection.rank_to,
        rating_from_tenths=selection.rating_from_tenths,
        reviews_from=selection.reviews_from,
        per_page=selection.most,
    )


def discover(
    engine: Engine,
    *,
    queries: Sequence[DiscoveryQuery],
    marketplaces: Collection[Marketplace],
    settings: DiscoverSettings,
    fetch_list: FetchList,
    fetch_found: FetchFound,
    plan: Callable[[int], PlannedRequest | None],
    check: Callable[[PlannedRequest], Kept],
    discovered: Discovered,
    on_planned: Callable[[int], None] = lambda _: None,
    on_done: Callable[[int], None] = lambda _: None,
) -> None:
    """One run: note candidates, ask for lists while too few wait, fetch. What fails is noted; what is left waits for the next run.

    Args:
        marketplaces: whose deals bring candidates.
        fetch_list, fetch_found: pay and ask for a list.
        plan, check: `plan_candidates` of at most so many, and a fetch with `keep_candidates`.
        discovered: what is done is added here.
        on_planned: told how many products are to be fetched, at most.
        on_done: told how many more are through.
    """
    fetched = 0
    with engine.begin() as connection:
        now = installation.select_now(connection)
        stores = [one.value for one in marketplaces]
        discovered.candidates += candidates.insert_from_deals(connection, stores, since=now - settings.deal_age, now=now)
        candidates.settle_known(connection, now=now)
    for query in queries:
        _ask_lists(engine, query, settings=settings, fetch_list=fetch_list, fetch_found=fetch_found, discovered=discovered)
    room, waiting = _look(engine, settings, fetched)
    on_planned(min(room.products, waiting))
    while room.products and waiting:
        try:
            request = plan(min(room.products, MAX_ASINS))
        except TokensUnavailable as error:
            discovered.notes[f"the rest waits for the next run: {error}"] = None
            break
        if request is None:
            break
        fetched += request.size
        try:
            kept = check(request)
        except KeeperError as error:
            logger.error("%d candidates of %s failed: %s", request.size, request.marketplace, error)
            discovered.failed += request.size
            discovered.troubles[f"{request.size} candidates of {request.marketplace}: {error}"[:_LONGEST_REASON]] = None
            with engine.begin() as connection:
                now = installation.select_now(connection)
            note_failure(engine, request, str(error)[:_LONGEST_REASON], now=now)
            # What Keepa cannot answer now, it will not for the next hundred either.
            break
        except BaseException:
            give_back_candidates(engine, request)
            raise
        discovered.added += kept.added
        discovered.strangers += kept.strangers
        discovered.failed += kept.failed
        discovered.tokens += kept.tokens
        on_done(request.size)
        room, waiting = _look(engine, settings, fetched)
    with engine.begin() as connection:
        discovered.catalog = candidates.count_catalog(connection)
        discovered.waiting = candidates.count_waiting(connection, now=installation.select_now(connection))
    _note_bounds(discovered, room, settings)


def _look(engine: Engine, settings: DiscoverSettings, fetched: int) -> tuple[Room, int]:
    """How far the run may go, and how many wait."""
    with engine.begin() as connection:
        now = installation.select_now(connection)
        return room_of(connection, settings=settings, fetched=fetched, now=now), candidates.count_waiting(connection, now=now)


def _note_bounds(discovered: Discovered, room: Room, settings: DiscoverSettings) -> None:
    if discovered.catalog >= settings.most_products:
        discovered.notes[f"the catalog has its {settings.most_products} products (KEEPER_DISCOVERY_MOST_PRODUCTS)"] = None
    elif discovered.waiting and not room.left:
        discovered.notes[
            f"discovering has spent its share of {room.share} tokens an hour (KEEPER_DISCOVERY_SHARE_PCT); the rest waits for the next run"
        ] = None
    elif discovered.waiting and not room.products:
        discovered.notes[f"{settings.most_per_run} products are one run's (KEEPER_DISCOVERY_MOST_PER_RUN); the rest waits for the next"] = (
            None
        )


def _ask_lists(
    engine: Engine,
    query: DiscoveryQuery,
    *,
    settings: DiscoverSettings,
    fetch_list: FetchList,
    fetch_found: FetchFound,
    discovered: Discovered,
) -> None:
    """The lists of one file, each only while fewer candidates wait than can be fetched. What fails stops that list only."""

    def list_of(marketplace: Marketplace, category_id: int) -> AsinAnswer:
        return _counted(fetch_list(marketplace, category_id), discovered)

    for category_id in query.bestsellers:
        with _noting(engine, f"{query.name}: bestsellers of {category_id}", BESTSELLERS_TOKENS, settings, discovered) as may_ask:
            if may_ask or _fresh_list(engine, query.marketplace, category_id, LIST_AGE) is not None:
                asins = bestsellers(engine, query.marketplace, category_id, fetch_list=list_of)
                if not asins:
                    discovered.notes[f"{query.name}: Keepa has no list of {category_id} in {query.marketplace}"] = None
                _note_found(engine, query, asins, "bestsellers", discovered)
    if query.selection is not None and not _is_found_lately(engine, query):
        finder = finder_query(query.marketplace, query.selection)
        with _noting(engine, f"{query.name}: finder", finder_cost_upper_bound(finder), settings, discovered) as may_ask:
            if may_ask:
                answer = _counted(fetch_found(finder), discovered)
                _note_found(engine, query, answer.asins, "finder", discovered)


@contextmanager
def _noting(engine: Engine, name: str, tokens: int, settings: DiscoverSettings, discovered: Discovered) -> Iterator[bool]:
    """Whether a list for so many tokens is wanted and can be paid; what goes wrong with it is noted."""
    room, waiting = _look(engine, settings, 0)
    is_wanted = room.products > waiting
    if is_wanted and room.left < tokens:
        discovered.notes[
            f"{name} takes {tokens} tokens, and {room.left} are left of the share of {room.share} an hour (KEEPER_DISCOVERY_SHARE_PCT)"
        ] = None
    try:
        yield is_wanted and room.left >= tokens
    except (TokensUnavailable, ListUnderWay) as error:
        discovered.notes[f"{name}: {error}"[:_LONGEST_REASON]] = None
    except KeeperError as error:
        logger.error("%s failed: %s", name, error)
        discovered.troubles[f"{name}: {error}"[:_LONGEST_REASON]] = None


def _is_found_lately(engine: Engine, query: DiscoveryQuery) -> bool:
    with engine.begin() as connection:
        asked_at = candidates.select_found_at(connection, query.name)
        return asked_at is not None and installation.select_now(connection) - asked_at < LIST_AGE


def _counted(answer: AsinAnswer, discovered: Discovered) -> AsinAnswer:
    discovered.lists += 1
    discovered.tokens += answer.tokens.tokens_consumed
    return answer


def _note_found(engine: Engine, query: DiscoveryQuery, asins: Sequence[str], source: str, discovered: Discovered) -> None:
    with engine.begin() as connection:
        now = installation.select_now(connection)
        discovered.candidates += candidates.insert_found(
            connection, asins, query.marketplace, source=source, query=query.name, group=query.group, now=now
        )
        if source == "finder":
            candidates.keep_found(connection, query.name, asins, now=now)


def plan_candidates(engine: Engine, *, most: int, settings: TokenSettings, max_wait_seconds: float) -> PlannedRequest | None:
    """Claim and pay for the next candidates of one store. None when nobody waits, or all are being checked right now.

    Raises:
        TokensUnavailable: others go first, and the tokens are not there in time.
    """
    with engine.begin() as connection:
        found = candidates.select_next(connection, limit=min(most, MAX_ASINS), now=installation.select_now(connection))
    if found is None:
        return None
    marketplace, asins = found
    tokens = cost_upper_bound(len(asins), options_of(buybox=False, history_days=_HISTORY_DAYS))
    reservation_id = pay(engine, "product", tokens, settings=settings, max_wait_seconds=max_wait_seconds)
    try:
        with engine.begin() as connection:
            request = plan_products(
                connection,
                asins,
                Marketplace(marketplace),
                buybox=False,
                history_days=_HISTORY_DAYS,
                reservation_id=reservation_id,
                settings=settings,
            )
            # Those that somebody else checks right now too: they wait a day, and are in the catalog by then.
            candidates.mark_asked(connection, asins, marketplace, now=installation.select_now(connection))
    except BaseException:
        release(engine, reservation_id)
        raise
    if request is None:
        release(engine, reservation_id)
    return request


def keep_candidates(engine: Engine, request: PlannedRequest, answer: ProductAnswer, *, groups: Sequence[ProductGroup]) -> Kept:
    """Record what belongs to the group its list names, as a check does; the rest is noted as looked at. Idempotent."""
    by_name = {group.name: group for group in groups}
    with engine.begin() as connection:
        now = installation.select_now(connection)
        wanted = candidates.select_groups(connection, request.asins, request.marketplace)
    members = {asin: one for asin, one in answer.products.items() if _belongs(one, wanted.get(asin), by_name)}
    checked: Checked = record_answer(engine, request, replace(answer, products=members), now=now)
    with engine.begin() as connection:
        candidates.mark_fetched(connection, request.asins, request.marketplace, now=now)
        watches.release_claims(connection, request.batch_id)
    strangers = len(answer.products) - len(members)
    return Kept(checked.checked, strangers, request.size - strangers - checked.checked, checked.tokens)


def _belongs(product: Product, wanted: str | None, groups: dict[str, ProductGroup]) -> bool:
    # A group that is no more keeps nobody out.
    if wanted is None or wanted not in groups:
        return True
    return groups[wanted].judge(product.title or "", product.category_ids, product.root_category_id, brand=product.brand).is_member


def give_back_candidates(engine: Engine, request: PlannedRequest) -> None:
    """A request was never sent: its tokens are free, its candidates wait."""
    give_back(engine, request)
    with engine.begin() as connection:
        candidates.mark_asked(connection, request.asins, request.marketplace, now=None)


def discover_all(
    engine: Engine,
    client: KeepaClient,
    *,
    queries: Sequence[DiscoveryQuery],
    marketplaces: Collection[Marketplace],
    groups: Sequence[ProductGroup],
    settings: DiscoverSettings,
    token_settings: TokenSettings,
    on_planned: Callable[[int], None] = lambda _: None,
    on_done: Callable[[int], None] = lambda _: None,
) -> Discovered:
    """Everything at once, for a person who asked; see `discover`."""
    discovered = Discovered()
    wait = settings.max_wait_seconds

    def ask_finder(query: FinderQuery) -> AsinAnswer:
        reservation_id = pay(engine, "query", finder_cost_upper_bound(query), settings=token_settings, max_wait_seconds=wait)
        return fetch_found(engine, client, query, 0, reservation_id=reservation_id)

    discover(
        engine,
        queries=queries,
        marketplaces=marketplaces,
        settings=settings,
        fetch_list=lambda store, category_id: fetch_list(
            engine, client, store, category_id, settings=token_settings, max_wait_seconds=wait
        ),
        fetch_found=ask_finder,
        plan=lambda most: plan_candidates(engine, most=most, settings=token_settings, max_wait_seconds=wait),
        check=lambda request: keep_candidates(engine, request, fetch(engine, client, request), groups=groups),
        discovered=discovered,
        on_planned=on_planned,
        on_done=on_done,
    )
    return discovered
