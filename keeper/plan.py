"""The verb `plan`: which watched products are checked now, in which requests, paid from which reservations."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine

from keeper.domain.budget import Priority, spendable
from keeper.domain.marketplace import Marketplace
from keeper.keepa.requests import MAX_ASINS, ProductOptions, cost_upper_bound
from keeper.postgres import ledger, watches
from keeper.postgres.watches import DueBatch
from keeper.tokens import TokenSettings

STATS_DAYS = 365


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One paid request: its products are claimed, its tokens reserved.

    Plain values only, so that a task can take it as a parameter.

    Attributes:
        batch_id: of the claims.
        reservation_id: of the tokens.
        tokens: upper bound of the cost.
        history_days: covers the time since the last check of each product.
        offers: so many sellers are asked for, too; None for none.
    """

    batch_id: UUID
    reservation_id: int
    marketplace: Marketplace
    asins: tuple[str, ...]
    buybox: bool
    history_days: int
    tokens: int
    operation: str = "product"
    priority: Priority = Priority.WATCH
    offers: int | None = None

    @property
    def size(self) -> int:
        """How many products."""
        return len(self.asins)

    @property
    def options(self) -> ProductOptions:
        """What to ask Keepa for."""
        return options_of(buybox=self.buybox, history_days=self.history_days, offers=self.offers)


def options_of(*, buybox: bool, history_days: int | None, offers: int | None = None) -> ProductOptions:
    """What a check asks: statistics and history cost nothing, the buy box two tokens, sellers 6 for each ten."""
    return ProductOptions(stats_days=STATS_DAYS, history_days=history_days, buybox=buybox, offers=offers)


def plan(
    connection: Connection,
    *,
    now: datetime,
    until: datetime | None = None,
    interval: timedelta | None = None,
    batch_size: int = MAX_ASINS,
    largest_request: int | None = None,
    most_requests: int | None = None,
    settings: TokenSettings,
) -> list[PlannedRequest]:
    """Claim and pay for the due products the budget allows, oldest due first. What it does not allow waits.

    The ledger's lock makes concurrent plans take different products. An empty plan is a normal answer.

    Args:
        connection: in a transaction the caller commits; until then nobody else plans.
        until: watches due up to here are taken; None for `now`.
        interval: only watches of this interval.
        batch_size: at most so many products in a request.
        largest_request: tokens one request may cost at most; batches are cut to it, and what costs more on its own waits.
        most_requests: so many requests at most, the oldest due; None for all the budget allows.
    """
    state = ledger.lock_ledger(connection)
    if state.bucket is None:
        return []
    tokens = spendable(state.bucket, state.reservations, Priority.WATCH, settings.user_share_pct, state.now)
    plain, buybox = _tokens_each(False), _tokens_each(True)
    size = min(batch_size, MAX_ASINS)
    affordable = size * buybox if largest_request is None else largest_request
    if min(tokens, affordable) < plain:
        return []
    plain_size, buybox_size = min(size, affordable // plain), min(size, affordable // buybox)
    if most_requests is not None:
        tokens = min(tokens, most_requests * max(plain_size * plain, buybox_size * buybox))
    watches.delete_dead_claims(connection)
    due = watches.select_due_batches(
        connection,
        now=now,
        until=until or now,
        tokens=tokens,
        plain_tokens=plain,
        buybox_tokens=buybox,
        plain_size=plain_size,
        buybox_size=buybox_size,
        interval_seconds=round(interval.total_seconds()) if interval else None,
    )
    return [_claim(connection, batch, Priority.WATCH, settings) for batch in due[:most_requests]]


def renew_claims(engine: Engine, request: PlannedRequest, settings: TokenSettings) -> bool:
    """Start the leases of the claims anew, just before the request is sent. False when somebody else checks its products by now."""
    with engine.begin() as connection:
        return watches.renew_claims(connection, request.batch_id, lease_seconds=settings.lease_seconds) == request.size


def plan_products(
    connection: Connection,
    asins: Collection[str],
    marketplace: Marketplace,
    *,
    buybox: bool,
    history_days: int,
    reservation_id: int,
    settings: TokenSettings,
    offers: int | None = None,
) -> PlannedRequest | None:
    """Claim some products for a check somebody asked for, on tokens already reserved. None when all are being checked right now."""
    ledger.lock_ledger(connection)
    batch_id = uuid4()
    claimed = watches.claim_products(connection, batch_id, asins, marketplace.value, lease_seconds=settings.lease_seconds)
    if not claimed:
        return None
    return PlannedRequest(
        batch_id=batch_id,
        reservation_id=reservation_id,
        marketplace=marketplace,
        asins=tuple(sorted(claimed)),
        buybox=buybox,
        history_days=history_days,
        tokens=cost_upper_bound(len(claimed), options_of(buybox=buybox, history_days=history_days, offers=offers)),
        offers=offers,
    )


def _claim(connection: Connection, batch: DueBatch, priority: Priority, settings: TokenSettings) -> PlannedRequest:
    batch_id = uuid4()
    watches.claim_products(connection, batch_id, batch.asins, batch.marketplace, lease_seconds=settings.lease_seconds)
    reservation_id = ledger.insert_reservation(
        connection,
        operation="product",
        tokens=batch.tokens,
        priority=priority,
        is_granted=True,
        lease_seconds=settings.lease_seconds,
    )
    return PlannedRequest(
        batch_id=batch_id,
        reservation_id=reservation_id,
        marketplace=Marketplace(batch.marketplace),
        asins=batch.asins,
        buybox=batch.buybox,
        history_days=batch.history_days,
        tokens=batch.tokens,
    )


def _tokens_each(buybox: bool) -> int:
    return cost_upper_bound(1, options_of(buybox=buybox, history_days=1))
