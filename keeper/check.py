"""The verbs around one check: record what an answer brought, or note that it brought nothing; and a check somebody asks for."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, IntegrityError

from keeper.domain.budget import Priority
from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.product import Product
from keeper.domain.seller_offer import SellerOffer
from keeper.fetch import fetch
from keeper.keepa.answer import ProductAnswer
from keeper.keepa.client import KeepaClient
from keeper.keepa.offer_wire import decode_offers
from keeper.keepa.requests import MAX_ASINS, cost_upper_bound
from keeper.plan import PlannedRequest, options_of, plan, plan_products, renew_claims
from keeper.postgres import installation, watches
from keeper.postgres.offers import insert_offers
from keeper.postgres.prices import Change
from keeper.record import Recorded, record
from keeper.tokens import TokenSettings, release, renew, reserve

logger = logging.getLogger(__name__)

# After a check that brought nothing; the watch's own interval where that is shorter.
RETRY_AFTER = timedelta(minutes=15)
_BACKFILL_DAYS = 365
# What the server says to a value it has no place for; COPY says it in the driver's own words. Never an outage.
_REFUSALS = (DataError, IntegrityError, psycopg.DataError, psycopg.IntegrityError)
_NAMES_LOGGED = 3
# Why a product somebody asked for was not checked now.
UNDER_WAY = "another check of it is under way"
# For each one under way one that waits for it: the budget of the rest stays free for others meanwhile.
_REQUESTS_PER_ROUND = 2


class NotChecked(KeeperError):
    """A check brought no price."""


@dataclass(slots=True)
class Checked:
    """What one or several checks did.

    Attributes:
        checked: products recorded that can have a price.
        failures: why a product was not, by `ASIN marketplace`.
        tokens: what Keepa took.
        falls: the largest falls among watched prices, largest first.
    """

    checked: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    tokens: int = 0
    observations: int = 0
    changes: int = 0
    history_points: int = 0
    events: int = 0
    alerts: int = 0
    falls: list[Change] = field(default_factory=list)

    def add(self, other: "Checked") -> None:
        """Sum up."""
        self.checked += other.checked
        self.failures |= other.failures
        self.tokens += other.tokens
        self.observations += other.observations
        self.changes += other.changes
        self.history_points += other.history_points
        self.events += other.events
        self.alerts += other.alerts
        self.falls = sorted(self.falls + other.falls, key=_fall_pct, reverse=True)[:10]

    @property
    def sentence(self) -> str:
        """For the list of runs."""
        return f"checked {self.checked}, failed {len(self.failures)}, {self.tokens} tokens"


def _fall_pct(change: Change) -> float:
    if not change.previous_minor or change.amount_minor is None:
        return 0.0
    return 100 * (change.previous_minor - change.amount_minor) / change.previous_minor


def record_answer(engine: Engine, request: PlannedRequest, answer: ProductAnswer, *, now: datetime) -> Checked:
    """Record an answer; the asked products it does not hold, or that cannot be recorded, are noted as failed. Idempotent.

    A product that can have no price is recorded, but counts as failed; it is due again an interval later like any other.
    """
    _log_losses(request, answer)
    postponed = dict.fromkeys(answer.missing, "Keepa's answer does not hold this product") | dict(answer.unreadable)
    products = list(answer.products.values())
    done = Checked(tokens=answer.tokens.tokens_consumed)

    def record_some(some: Sequence[Product]) -> None:
        with engine.begin() as connection:
            recorded = record(connection, some, now=now, raw=answer.raw_product, buybox=request.buybox)
            if request.offers is not None:
                insert_offers(connection, request.marketplace, _offers_of(answer, some), now=now)
        _add(done, recorded)

    refused: set[str] = set()
    try:
        record_some(products)
    except _REFUSALS:
        for product in products:
            try:
                record_some([product])
            except _REFUSALS as error:
                logger.warning("%s %s cannot be recorded: %s", product.asin, request.marketplace, type(error).__name__)
                refused.add(product.asin)
    postponed |= dict.fromkeys(sorted(refused), "Keepa's answer holds a value of this product that Keeper cannot record")
    priceless = {product.asin: why for product in products if product.asin not in refused and (why := product.kind.failure)}
    done.checked = len(products) - len(refused) - len(priceless)
    done.failures = {f"{asin} {request.marketplace}": why for asin, why in (postponed | priceless).items()}
    if postponed:
        with engine.begin() as connection:
            for why in sorted(set(postponed.values())):
                asins = [asin for asin in postponed if postponed[asin] == why]
                watches.postpone_failed(connection, asins, request.marketplace, failure=why, now=now, wait=RETRY_AFTER)
    return done


def _offers_of(answer: ProductAnswer, products: Sequence[Product]) -> dict[str, Sequence[SellerOffer]]:
    """Who sells them; those whose sellers cannot be read are left out, and asked for again."""
    read = {product.asin: decode_offers(answer.raw_product(product.asin)) for product in products}
    return {asin: offers for asin, offers in read.items() if offers is not None}


def _log_losses(request: PlannedRequest, answer: ProductAnswer) -> None:
    """One warning of all that Keepa's answer had and Keeper leaves out."""
    dropped = [f"{product.asin} {reason}" for product in answer.products.values() for reason in product.dropped]
    losses = [
        f"{len(names)} {what} ({'; '.join(name[:200] for name in names[:_NAMES_LOGGED])}{'; ...' if len(names) > _NAMES_LOGGED else ''})"
        for what, names in (("values not understood", dropped), ("products nobody asked for", answer.unasked))
        if names
    ]
    if answer.notice:
        losses.append(f"a notice: {answer.notice}")
    if losses:
        logger.warning("Keepa's answer on %s products in %s: %s", request.size, request.marketplace, ", ".join(losses))


def note_failure(engine: Engine, request: PlannedRequest, failure: str, *, now: datetime) -> Checked:
    """A request brought nothing: its products are tried again later."""
    with engine.begin() as connection:
        watches.postpone_failed(connection, request.asins, request.marketplace, failure=failure, now=now, wait=RETRY_AFTER)
    return Checked(failures={f"{asin} {request.marketplace}": failure for asin in request.asins})


def give_back(engine: Engine, request: PlannedRequest) -> None:
    """A request was never sent: its tokens are free, its products stay due."""
    release(engine, request.reservation_id)
    with engine.begin() as connection:
        watches.release_claims(connection, request.batch_id)


def check_products(
    engine: Engine,
    client: KeepaClient,
    asins: Sequence[str],
    marketplace: Marketplace,
    *,
    buybox: bool,
    settings: TokenSettings,
    max_wait_seconds: float,
) -> Checked:
    """Check some products now, for a person who asked: first in the queue for tokens.

    Raises:
        KeepaError, TokensUnavailable: see there. What was done until then is recorded; what was not, ended from outside (Ctrl-C) too, is
            given back.
    """
    done = Checked()
    asins = list(dict.fromkeys(asins))
    for start in range(0, len(asins), MAX_ASINS):
        share = asins[start : start + MAX_ASINS]
        options = options_of(buybox=buybox, history_days=_BACKFILL_DAYS)
        reservation_id = reserve(
            engine,
            operation="product",
            tokens=cost_upper_bound(len(share), options),
            priority=Priority.USER,
            max_wait_seconds=max_wait_seconds,
            settings=settings,
        )
        try:
            with engine.begin() as connection:
                now = installation.select_now(connection)
                request = plan_products(
                    connection,
                    share,
                    marketplace,
                    buybox=buybox,
                    history_days=_BACKFILL_DAYS,
                    reservation_id=reservation_id,
                    settings=settings,
                )
        except BaseException:
            release(engine, reservation_id)
            raise
        claimed = frozenset(request.asins) if request else frozenset()
        busy = {f"{asin} {marketplace}": UNDER_WAY for asin in share if asin not in claimed}
        done.add(Checked(failures=busy))
        if request is None:
            release(engine, reservation_id)
            continue
        try:
            answer = fetch(engine, client, request)
            recorded = record_answer(engine, request, answer, now=now)
        except KeeperError as error:
            note_failure(engine, request, str(error), now=now)
            raise
        except BaseException:
            give_back(engine, request)
            raise
        done.add(recorded)
    return done


def check_due(
    engine: Engine,
    client: KeepaClient,
    *,
    settings: TokenSettings,
    batch_size: int,
    requests_at_once: int,
    on_planned: Callable[[int], None] = lambda _: None,
    on_checked: Callable[[int], None] = lambda _: None,
) -> Checked:
    """Check whatever is due and can be paid, round by round, until nothing is left to plan or no request of a round came through.

    A round is short, so that others can plan and reserve between two.

    Ended from outside (Ctrl-C), what is under way is still recorded and what was not sent is given back.

    Args:
        on_planned: told how many further products are planned.
        on_checked: told how many products are through, recorded or failed.
    """
    done = Checked()
    while True:
        with engine.begin() as connection:
            now = installation.select_now(connection)
            requests = plan(
                connection, now=now, batch_size=batch_size, most_requests=_REQUESTS_PER_ROUND * requests_at_once, settings=settings
            )
        if not requests:
            return done
        on_planned(sum(request.size for request in requests))
        failed = 0
        with ThreadPoolExecutor(max_workers=requests_at_once) as pool:
            running: dict[Future[Checked], PlannedRequest] = {
                pool.submit(_check_request, engine, client, request, now=now, settings=settings): request for request in requests
            }
            try:
                for future in as_completed(running):
                    request = running[future]
                    try:
                        done.add(future.result())
                    except KeeperError as error:
                        failed += 1
                        done.add(note_failure(engine, request, str(error), now=now))
                    on_checked(request.size)
            except BaseException:
                for future, request in running.items():
                    if future.cancel():
                        give_back(engine, request)
                raise
        if failed == len(requests):
            return done


def _check_request(engine: Engine, client: KeepaClient, request: PlannedRequest, *, now: datetime, settings: TokenSettings) -> Checked:
    lost = None
    if not renew_claims(engine, request, settings):
        lost = "somebody else began to check it while it waited"
    elif not renew(engine, request.reservation_id, settings):
        lost = "its tokens were written off while it waited"
    if lost is not None:
        give_back(engine, request)
        return Checked(failures={f"{asin} {request.marketplace}": lost for asin in request.asins})
    answer = fetch(engine, client, request)
    return record_answer(engine, request, answer, now=now)


def _add(done: Checked, recorded: Recorded) -> None:
    done.observations += recorded.observations
    done.changes += recorded.changes
    done.history_points += recorded.history_points
    done.events += recorded.events
    done.alerts += recorded.alerts
    done.falls = sorted(done.falls + list(recorded.falls), key=_fall_pct, reverse=True)[:10]
