"""The verb `fetch`: one paid request to Keepa, settled whatever comes of it."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import uuid4

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from keeper.domain.deal import DealQuery
from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.tokens import KeepaCall, TokenStatus
from keeper.keepa.answer import Answer, AsinAnswer, CategoryAnswer, DealAnswer, ProductAnswer
from keeper.keepa.client import KeepaClient
from keeper.keepa.errors import KeepaError
from keeper.keepa.requests import FinderQuery
from keeper.plan import PlannedRequest
from keeper.tokens import release, settle

logger = logging.getLogger(__name__)

A = TypeVar("A", bound=Answer)

_SETTLE_WAITS_SECONDS = (0.5, 2.0, 10.0)


def fetch(engine: Engine, client: KeepaClient, request: PlannedRequest, *, reservation_id: int | None = None) -> ProductAnswer:
    """Send the request and settle its reservation with Keepa's own numbers; a failure is settled too, before it is raised.

    Args:
        reservation_id: another reservation than the plan's, for a second try.

    Raises:
        KeepaError: as the client says; the reservation is settled and a further try needs one of its own.
    """
    options = request.options
    return _paid(
        engine,
        client,
        request.reservation_id if reservation_id is None else reservation_id,
        lambda: client.fetch_products(
            request.asins,
            request.marketplace,
            stats_days=options.stats_days,
            history_days=options.history_days,
            buybox=options.buybox,
            rating=options.rating,
            offers=options.offers,
        ),
    )


def fetch_deals(engine: Engine, client: KeepaClient, query: DealQuery, page: int, *, reservation_id: int) -> DealAnswer:
    """One page of deals, settled as `fetch` does. Reserve `DEAL_PAGE_TOKENS` for it.

    Raises:
        RequestInvalid: a query Keepa could only refuse; the reservation is given back.
        KeepaError: as the client says; the reservation is settled.
    """
    return _paid(engine, client, reservation_id, lambda: client.fetch_deals(query, page))


def fetch_bestsellers(
    engine: Engine, client: KeepaClient, marketplace: Marketplace, category_id: int, *, reservation_id: int
) -> AsinAnswer:
    """A list of bestsellers, settled as `fetch` does. Reserve `BESTSELLERS_TOKENS` for it."""
    return _paid(engine, client, reservation_id, lambda: client.fetch_bestsellers(marketplace, category_id))


def fetch_found(engine: Engine, client: KeepaClient, query: FinderQuery, page: int, *, reservation_id: int) -> AsinAnswer:
    """One page of the finder, settled as `fetch` does. Reserve `finder_cost_upper_bound` for it."""
    return _paid(engine, client, reservation_id, lambda: client.find_asins(query, page))


def fetch_categories(
    engine: Engine, client: KeepaClient, marketplace: Marketplace, category_ids: Sequence[int], *, reservation_id: int
) -> CategoryAnswer:
    """Categories, or every root without ids, settled as `fetch` does. Reserve `CATEGORIES_TOKENS` for it."""
    return _paid(engine, client, reservation_id, lambda: client.fetch_categories(marketplace, category_ids))


def fetch_categories_named(
    engine: Engine, client: KeepaClient, marketplace: Marketplace, term: str, *, reservation_id: int
) -> CategoryAnswer:
    """Categories by words of their names, settled as `fetch` does. Reserve `CATEGORY_SEARCH_TOKENS` for it."""
    return _paid(engine, client, reservation_id, lambda: client.search_categories(marketplace, term))


def _paid(engine: Engine, client: KeepaClient, reservation_id: int, ask: Callable[[], A]) -> A:
    """Ask, and settle with what the answer or the error says; what was never sent gives its tokens back."""
    started = time.monotonic()
    try:
        answer = ask()
    except KeepaError as error:
        _settle(
            engine,
            reservation_id,
            error.call,
            error.tokens,
            key_fingerprint=client.key_fingerprint,
            started=started,
            may_have_cost=error.may_have_cost,
        )
        raise
    except KeeperError:
        try:
            release(engine, reservation_id)
        except OperationalError as lost:
            logger.error("reservation %d could not be given back, it is written off when its lease ends: %s", reservation_id, lost.orig)
        raise
    _settle(engine, reservation_id, answer.call, answer.tokens, key_fingerprint=client.key_fingerprint, started=started)
    return answer


def _settle(
    engine: Engine,
    reservation_id: int,
    call: KeepaCall,
    tokens: TokenStatus | None,
    *,
    key_fingerprint: str,
    started: float,
    may_have_cost: bool = False,
) -> None:
    """Settle a call, waiting for a database that restarts: neither a paid answer nor Keepa's error is lost for its bookkeeping."""
    call_id = uuid4()
    for wait_seconds in (*_SETTLE_WAITS_SECONDS, None):
        try:
            settle(
                engine,
                reservation_id,
                call,
                tokens,
                key_fingerprint=key_fingerprint,
                started=started,
                may_have_cost=may_have_cost,
                call_id=call_id,
            )
            return
        except OperationalError as error:
            if wait_seconds is None:
                logger.error("call %s could not be settled, its reservation is written off when its lease ends: %s", call_id, error.orig)
                return
            time.sleep(wait_seconds)
