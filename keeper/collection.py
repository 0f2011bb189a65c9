"""One collection: the seeds, then each query of the feed page by page, as far as its share of the tokens goes."""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine

from keeper.check import Checked, give_back, note_failure, record_answer
from keeper.collect import Collected, collect, end_deals, end_unseen
from keeper.domain.budget import Priority
from keeper.domain.deal import MOST_PAGES, DealQuery, DealSource
from keeper.domain.deal_files import Seeds
from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.domain.product_group import ProductGroup
from keeper.fetch import fetch, fetch_deals
from keeper.keepa.answer import DealAnswer
from keeper.keepa.client import KeepaClient
from keeper.keepa.requests import DEAL_PAGE_TOKENS, MAX_ASINS, cost_upper_bound
from keeper.plan import PlannedRequest, options_of, plan_products
from keeper.postgres import deals, installation, ledger
from keeper.postgres.deals import Key
from keeper.record import LARGEST_BATCH
from keeper.tokens import TokenSettings, TokensUnavailable, release, reserve

logger = logging.getLogger(__name__)

# So long Keepa answers the same query with the same pages (Keepa API documentation, "Browsing Deals").
CACHE_TIME = timedelta(seconds=120)
# What the tokens of seeds are reserved for; Keepa knows it as `product`, like any check.
SEEDS = "seeds"
# What counts against the share, whoever asked for it; lists of bestsellers and the finder count against that of `discover`.
OPERATIONS = frozenset({SEEDS, "deal", "category", "search"})
# The lowest new one, Amazon's own counted too: a product is one deal, not three.
_SEED_PRICE_TYPES = (PriceType.NEW,)
# An older price of a seed is not taken for seen: Keepa may have been away for hours.
_SEEDS_TRUSTED = timedelta(hours=3)
_HISTORY_DAYS = 365
_HOUR = timedelta(hours=1)
_LONGEST_REASON = 300
# A pass begins anew so often where waiting for tokens tore it apart; then the next run goes on.
_MOST_RESTARTS = 2
_NEVER = datetime.min.replace(tzinfo=UTC)


class BudgetSpent(KeeperError):
    """The share of the tokens is spent; what is left waits for the next run."""


@dataclass(frozen=True, slots=True)
class CollectSettings:
    """How much is collected; see the settings of the same names."""

    share_pct: float
    least_fall_pct: float
    seeds_fresh_for: timedelta
    ends_after: timedelta
    max_wait_seconds: float
    most_pages: int = MOST_PAGES
    instant_per_hour: int = 5

    @property
    def full_pass_every(self) -> timedelta | None:
        """How often a query's pass looks for all the deals it knows: twice until they would be over. Never in one of a few pages only."""
        return self.ends_after / 2 if self.most_pages >= MOST_PAGES else None


@dataclass(slots=True)
class Gathered:
    """What one collection did.

    Attributes:
        tokens: what Keepa took.
        announced: keys of the deals that may be told to people from now on.
        troubles: what failed, each once.
        notes: what is no failure but worth saying.
    """

    pages: int = 0
    seen: int = 0
    kept: int = 0
    added: int = 0
    changed: int = 0
    ended: int = 0
    glitches: int = 0
    told: int = 0
    tokens: int = 0
    announced: list[Key] = field(default_factory=list)
    troubles: dict[str, None] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)

    def add(self, done: "Collected | Gathered") -> None:
        """Sum up."""
        self.seen += done.seen
        self.kept += done.kept
        self.added += done.added
        self.changed += done.changed
        self.ended += done.ended
        self.glitches += done.glitches
        self.told += done.told
        self.announced += done.announced

    @property
    def sentence(self) -> str:
        """For the list of runs."""
        return (
            f"{self.added} new deals, {self.changed} changed, {self.ended} over; kept {self.kept} of {self.seen} seen, "
            f"{self.glitches} may be glitches, {self.told} told at once; {self.pages} pages, {self.tokens} tokens"
        )


@dataclass(frozen=True, slots=True)
class Share:
    """What collecting may spend in an hour, and what is left of it; below 0 where more is reserved than there is."""

    tokens: int
    left: int

    def left_for_seeds(self, queries: int) -> int:
        """Without a page for each of so many queries, which are half of the share at most: many seeds do not starve the feed."""
        return max(0, self.left - min(queries * DEAL_PAGE_TOKENS, self.tokens // 2))


def share_of(connection: Connection, *, share_pct: float, now: datetime) -> Share:
    """The share of an hour's refill, less what was spent on collecting in the last hour and what is reserved for it.

    Nothing before Keepa has named its bucket.
    """
    bucket = ledger.read_ledger(connection).bucket
    if bucket is None:
        return Share(0, 0)
    tokens = int(bucket.net_per_minute * 60 * share_pct / 100)
    return Share(tokens, tokens - sum(ledger.select_used(connection, OPERATIONS, since=now - _HOUR).values()))


def seeds_in_turn(engine: Engine, pairs: Iterable[tuple[Seeds, Marketplace]]) -> list[tuple[Seeds, Marketplace]]:
    """Those first whose turn was longest ago: where the share is too small for all, none waits for ever."""
    with engine.begin() as connection:
        asked = deals.select_seeds_asked(connection)
    return sorted(pairs, key=lambda pair: asked.get((pair[0].name, pair[1].value), _NEVER))


def queries_in_turn(engine: Engine, queries: Collection[DealQuery]) -> list[DealQuery]:
    """The same for queries, and note that they are wanted. One that ran out of tokens within Keepa's cache time goes on first."""
    with engine.begin() as connection:
        now = installation.select_now(connection)
        deals.want_queries(connection, queries, now=now)
        states = {query: deals.select_query(connection, query) for query in queries}

    def turn(query: DealQuery) -> tuple[bool, datetime]:
        state = states[query]
        asked_at = (state.asked_at if state else None) or _NEVER
        return not (state and state.next_page and now - asked_at <= CACHE_TIME), asked_at

    return sorted(queries, key=turn)


def plan_seeds(
    engine: Engine,
    seeds: Seeds,
    marketplace: Marketplace,
    *,
    fresh_for: timedelta,
    share_pct: float,
    queries: int,
    settings: TokenSettings,
    max_wait_seconds: float,
) -> list[PlannedRequest]:
    """Claim and pay for the seeds that nobody has checked lately, as far as the share goes.

    Args:
        queries: of the feed that wait for their turn; a page of each is left to them.

    Raises:
        TokensUnavailable: the first request could not be paid.
    """
    with engine.begin() as connection:
        now = installation.select_now(connection)
        left = share_of(connection, share_pct=share_pct, now=now).left_for_seeds(queries)
        every = deals.select_stale(connection, seeds.asins, marketplace.value, before=now - fresh_for)
        stale = every[:left]
    requests: list[PlannedRequest] = []
    try:
        for start in range(0, len(stale), MAX_ASINS):
            share = stale[start : start + MAX_ASINS]
            tokens = cost_upper_bound(len(share), options_of(buybox=False, history_days=_HISTORY_DAYS))
            try:
                reservation_id = _reserve_of_share(
                    engine,
                    operation=SEEDS,
                    share_pct=share_pct,
                    tokens=tokens,
                    priority=Priority.COLLECTION,
                    max_wait_seconds=max_wait_seconds,
                    settings=settings,
                )
            except BudgetSpent:
                break
            except TokensUnavailable:
                if requests:
                    break
                raise
            try:
                with engine.begin() as connection:
                    request = plan_products(
                        connection,
                        share,
                        marketplace,
                        buybox=False,
                        history_days=_HISTORY_DAYS,
                        reservation_id=reservation_id,
                        settings=settings,
                    )
            except BaseException:
                release(engine, reservation_id)
                raise
            if request is None:
                release(engine, reservation_id)
            else:
                requests.append(replace(request, operation=SEEDS, priority=Priority.COLLECTION))
    except BaseException:
        for request in requests:
            give_back(engine, request)
        raise
    if requests or not every:
        with engine.begin() as connection:
            deals.note_seeds_asked(connection, seeds.name, marketplace.value, now=now)
    return requests


def walk_seeds(
    engine: Engine,
    seeds: Seeds,
    marketplace: Marketplace,
    *,
    plan: Callable[[Seeds, Marketplace], list[PlannedRequest]],
    check: Callable[[PlannedRequest], Checked],
    keep: Callable[[Seeds, Marketplace], Gathered],
    gathered: Gathered,
) -> None:
    """Check the seeds nobody has checked lately, then look at the recorded prices of all. What fails is noted.

    Args:
        plan, check, keep: `plan_seeds`, a fetch with its recording, and `collect_seeds`, with what the caller puts around them.
        gathered: what is done is added here.
    """
    gathered.notes |= dict.fromkeys(seeds.problems)
    requests: list[PlannedRequest] = []
    try:
        requests = plan(seeds, marketplace)
    except TokensUnavailable as error:
        gathered.notes[f"{seeds.name} {marketplace}: {error}"] = None
    except KeeperError as error:
        logger.error("no seeds of %s in %s could be asked for: %s", seeds.name, marketplace, error)
        gathered.troubles[f"{seeds.name} {marketplace}: {error}"[:_LONGEST_REASON]] = None
    for position, request in enumerate(requests):
        try:
            done = check(request)
        except KeeperError as error:
            logger.error("%d seeds of %s failed: %s", request.size, marketplace, error)
            gathered.troubles[f"{seeds.name} {marketplace}: {error}"[:_LONGEST_REASON]] = None
            with engine.begin() as connection:
                now = installation.select_now(connection)
            note_failure(engine, request, str(error)[:_LONGEST_REASON], now=now)
            continue
        except BaseException:
            for waiting in requests[position:]:
                give_back(engine, waiting)
            raise
        gathered.tokens += done.tokens
        if done.failures:
            gathered.notes[f"{seeds.name} {marketplace}: {len(done.failures)} of {request.size} products could not be checked"] = None
    gathered.add(keep(seeds, marketplace))


def collect_seeds(
    engine: Engine,
    seeds: Seeds,
    marketplace: Marketplace,
    *,
    groups: Sequence[ProductGroup],
    least_fall_pct: float,
    instant_per_hour: int = 5,
) -> Gathered:
    """Deals among the seeds, by the prices that are recorded of them."""
    done = Gathered()
    for start in range(0, len(seeds.asins), LARGEST_BATCH // len(_SEED_PRICE_TYPES)):
        asins = seeds.asins[start : start + LARGEST_BATCH // len(_SEED_PRICE_TYPES)]
        with engine.begin() as connection:
            now = installation.select_now(connection)
            sightings = deals.select_sightings(
                connection, asins, marketplace, _SEED_PRICE_TYPES, checked_since=now - _SEEDS_TRUSTED, now=now
            )
            done.add(
                collect(
                    connection,
                    sightings,
                    now=now,
                    source=DealSource.SEEDS,
                    query=seeds.name,
                    groups=groups,
                    only_groups=False,
                    least_fall_pct=least_fall_pct,
                    instant_per_hour=instant_per_hour,
                )
            )
    return done


def pay_page(engine: Engine, *, share_pct: float, settings: TokenSettings, max_wait_seconds: float) -> int:
    """Set the tokens of one page aside. Returns the reservation.

    Raises:
        BudgetSpent: the share of this hour is spent.
        TokensUnavailable: others go first, and the tokens are not there in time.
    """
    check_share(engine, tokens=DEAL_PAGE_TOKENS, share_pct=share_pct)
    return _reserve_of_share(
        engine,
        operation="deal",
        share_pct=share_pct,
        tokens=DEAL_PAGE_TOKENS,
        priority=Priority.COLLECTION,
        max_wait_seconds=max_wait_seconds,
        settings=settings,
    )


def check_share(engine: Engine, *, tokens: int, share_pct: float) -> None:
    """Ask whether so many tokens are left of the share.

    Raises:
        BudgetSpent: they are not.
    """
    with engine.begin() as connection:
        share = share_of(connection, share_pct=share_pct, now=installation.select_now(connection))
    if share.left < tokens:
        raise BudgetSpent(
            f"collecting has spent its share of {share.tokens} tokens an hour (KEEPER_DEALS_SHARE_PCT); what is left waits for the next run"
        )


def _reserve_of_share(engine: Engine, *, share_pct: float, **wanted: Any) -> int:
    """Set tokens aside and count again: somebody else may have reserved of the same share meanwhile.

    Raises:
        BudgetSpent, TokensUnavailable: nothing stays reserved.
    """
    reservation_id = reserve(engine, **wanted)
    try:
        check_share(engine, tokens=0, share_pct=share_pct)
    except BaseException:
        release(engine, reservation_id)
        raise
    return reservation_id


def walk_query(
    engine: Engine,
    query: DealQuery,
    *,
    fetch_page: Callable[[DealQuery, int], DealAnswer],
    keep: Callable[[DealQuery, int, DealAnswer], tuple[Collected, int | None]],
    gathered: Gathered,
    most_pages: int = MOST_PAGES,
) -> None:
    """One pass, newest first. What fails is noted and stops this query only.

    Args:
        fetch_page: pays for a page and asks for it.
        keep: `keep_page`, with what the caller puts around it.
        gathered: what is done is added here.

    Raises:
        BudgetSpent: there are no tokens for any query.
    """
    page: int | None = first_page(engine, query)
    left, restarts = most_pages, 0
    while page is not None and left:
        left -= 1
        asked = page
        try:
            answer = fetch_page(query, page)
        except (BudgetSpent, TokensUnavailable) as error:
            with engine.begin() as connection:
                deals.stop_query(connection, query, next_page=page, now=installation.select_now(connection), failure=None)
            raise BudgetSpent(str(error)) from error
        except KeeperError as error:
            with engine.begin() as connection:
                deals.stop_query(connection, query, next_page=0, now=installation.select_now(connection), failure=str(error))
            gathered.troubles[f"{query.name} {query.price_type}: {error}"] = None
            return
        gathered.pages += 1
        gathered.tokens += answer.tokens.tokens_consumed
        _note_losses(query, answer, gathered)
        done, page = keep(query, page, answer)
        gathered.add(done)
        if asked and page == 0:
            restarts += 1
            if restarts > _MOST_RESTARTS:
                gathered.notes[
                    f"{query.name} {query.price_type}: its pages came too slowly to be of one answer; the next run begins anew"
                ] = None
                return


def first_page(engine: Engine, query: DealQuery) -> int:
    """Where to go on: within Keepa's cache time where the tokens ran out, later at the newest."""
    with engine.begin() as connection:
        state = deals.select_query(connection, query)
        if state is None or state.asked_at is None or installation.select_now(connection) - state.asked_at > CACHE_TIME:
            return 0
        return state.next_page


def keep_page(
    engine: Engine,
    query: DealQuery,
    page: int,
    answer: DealAnswer,
    *,
    groups: Sequence[ProductGroup],
    full_pass_every: timedelta | None = None,
    instant_per_hour: int = 5,
) -> tuple[Collected, int | None]:
    """Collect one page and note where the pass stands, in one transaction. Returns the next page too; None when the pass is through.

    It is through where the feed ends, and at the first page with nothing new: none of its rows is new to us, and all are as old as what
    the last pass knew that was through. A pass that was interrupted moves that mark nowhere, so the next one walks over what it brought
    and on to what it left unread.

    A page that came later than Keepa keeps its answers is of another one, between which rows may have moved: what it tells is kept, and
    the pass begins at page 0 again.

    A full pass goes on while the query has running deals further down that it has not seen; how far its share lets it. The feed is in
    order of the changes of price: a deal that changed later than all on this page had its place on the pages before, and when this pass
    saw it nowhere, it is over. What lies further down is not judged by this pass (`select_overdue` tells how long it runs unseen), and
    nothing by a pass with a row that nobody can read.
    """
    with engine.begin() as connection:
        now = installation.select_now(connection)
        done = collect(
            connection,
            answer.sightings,
            now=now,
            source=DealSource.FEED,
            query=query.name,
            groups=[group for group in groups if query.group in (None, group.name)],
            only_groups=query.group is not None,
            raw=answer.raw_deal,
            instant_per_hour=instant_per_hour,
        )
        state = deals.select_query(connection, query)
        began_at = now if page == 0 or state is None else state.began_at
        full_at = None if state is None else state.full_at
        if page == 0 and full_pass_every is not None and (full_at is None or now - full_at >= full_pass_every):
            full_at = now
        is_full = began_at is not None and full_at == began_at
        is_torn = page > 0 and state is not None and state.asked_at is not None and now - state.asked_at > CACHE_TIME
        if is_torn and is_full:
            full_at = None
        if answer.unreadable or is_torn:
            began_at = None
        mark_at = None if state is None else state.mark_at
        newest_at = max((one.changed_at for one in answer.sightings), default=None)
        # What the group leaves out is stored nowhere; the time of change tells whether it is new.
        is_news = done.is_news or (newest_at is not None and (mark_at is None or newest_at > mark_at))
        is_wanted = is_news or (is_full and began_at is not None and deals.has_unseen(connection, query, since=began_at, until=newest_at))
        next_page = 0 if is_torn else page + 1 if is_wanted and not answer.is_last and page + 1 < MOST_PAGES else None
        deals.keep_query(
            connection,
            query,
            next_page=next_page or 0,
            now=now,
            began_at=began_at,
            full_at=full_at,
            reached_at=None if answer.is_last else newest_at,
            newest_at=newest_at,
            is_through=next_page is None,
        )
        ended = 0
        if began_at is not None and (answer.is_last or newest_at is not None):
            ended = end_unseen(connection, query, since=began_at, now=now)
    return replace(done, ended=done.ended + ended), next_page


def end_overdue(engine: Engine, *, ends_after: timedelta) -> int:
    """End what is over. Returns how many deals."""
    total = 0
    while True:
        with engine.begin() as connection:
            ended = end_deals(connection, now=installation.select_now(connection), ends_after=ends_after)
        if not ended:
            return total
        total += ended


def collect_all(
    engine: Engine,
    client: KeepaClient,
    *,
    seeds: Sequence[tuple[Seeds, Marketplace]],
    queries: Sequence[DealQuery],
    groups: Sequence[ProductGroup],
    settings: CollectSettings,
    token_settings: TokenSettings,
    on_planned: Callable[[int], None] = lambda _: None,
    on_done: Callable[[int], None] = lambda _: None,
) -> Gathered:
    """Everything at once, for a person who asked.

    Args:
        on_planned: told how many seeds and queries there are.
        on_done: told how many more are through.
    """
    gathered = Gathered()
    on_planned(len(seeds) + len(queries))

    def check(request: PlannedRequest) -> Checked:
        answer = fetch(engine, client, request)
        with engine.begin() as connection:
            now = installation.select_now(connection)
        return record_answer(engine, request, answer, now=now)

    def plan(some: Seeds, marketplace: Marketplace) -> list[PlannedRequest]:
        return plan_seeds(
            engine,
            some,
            marketplace,
            fresh_for=settings.seeds_fresh_for,
            share_pct=settings.share_pct,
            queries=len(queries),
            settings=token_settings,
            max_wait_seconds=settings.max_wait_seconds,
        )

    def keep_seeds(some: Seeds, marketplace: Marketplace) -> Gathered:
        return collect_seeds(
            engine,
            some,
            marketplace,
            groups=groups,
            least_fall_pct=settings.least_fall_pct,
            instant_per_hour=settings.instant_per_hour,
        )

    def fetch_page(query: DealQuery, page: int) -> DealAnswer:
        reservation_id = pay_page(engine, share_pct=settings.share_pct, settings=token_settings, max_wait_seconds=settings.max_wait_seconds)
        return fetch_deals(engine, client, query, page, reservation_id=reservation_id)

    def keep(query: DealQuery, page: int, answer: DealAnswer) -> tuple[Collected, int | None]:
        return keep_page(
            engine,
            query,
            page,
            answer,
            groups=groups,
            full_pass_every=settings.full_pass_every,
            instant_per_hour=settings.instant_per_hour,
        )

    for some, marketplace in seeds_in_turn(engine, seeds):
        walk_seeds(engine, some, marketplace, plan=plan, check=check, keep=keep_seeds, gathered=gathered)
        on_done(1)
    try:
        for query in queries_in_turn(engine, queries):
            walk_query(engine, query, fetch_page=fetch_page, keep=keep, gathered=gathered, most_pages=settings.most_pages)
            on_done(1)
    except BudgetSpent as error:
        gathered.notes[str(error)] = None
    gathered.ended += end_overdue(engine, ends_after=settings.ends_after)
    return gathered


def _note_losses(query: DealQuery, answer: DealAnswer, gathered: Gathered) -> None:
    """One note of the rows of a page that nobody can read."""
    if answer.unreadable:
        name, why = next(iter(answer.unreadable.items()))
        gathered.notes[f"{query.name}: {len(answer.unreadable)} of {answer.row_count} rows could not be read ({name}: {why})"] = None
        logger.warning("%s: %d of %d rows could not be read (%s: %s)", query.name, len(answer.unreadable), answer.row_count, name, why)
    if answer.notice:
        gathered.notes[f"{query.name}: {answer.notice}"] = None
