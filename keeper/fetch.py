"""The verb `fetch`: one paid request to Keepa, settled whatever comes of it."""

import logging
import time
from uuid import uuid4

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from keeper.domain.errors import KeeperError
from keeper.domain.tokens import KeepaCall, TokenStatus
from keeper.keepa.answer import ProductAnswer
from keeper.keepa.client import KeepaClient
from keeper.keepa.errors import KeepaError
from keeper.plan import PlannedRequest
from keeper.tokens import release, settle

logger = logging.getLogger(__name__)

_SETTLE_WAITS_SECONDS = (0.5, 2.0, 10.0)


def fetch(engine: Engine, client: KeepaClient, request: PlannedRequest, *, reservation_id: int | None = None) -> ProductAnswer:
    """Send the request and settle its reservation with Keepa's own numbers; a failure is settled too, before it is raised.

    Args:
        reservation_id: another reservation than the plan's, for a second try.

    Raises:
        KeepaError: as the client says; the reservation is settled and a further try needs one of its own.
    """
    paid_by = request.reservation_id if reservation_id is None else reservation_id
    options = request.options
    started = time.monotonic()
    try:
        answer = client.fetch_products(
            request.asins,
            request.marketplace,
            stats_days=options.stats_days,
            history_days=options.history_days,
            buybox=options.buybox,
            rating=options.rating,
        )
    except KeepaError as error:
        _settle(
            engine,
            paid_by,
            error.call,
            error.tokens,
            key_fingerprint=client.key_fingerprint,
            started=started,
            may_have_cost=error.may_have_cost,
        )
        raise
    except KeeperError:
        try:
            release(engine, paid_by)
        except OperationalError as lost:
            logger.error("reservation %d could not be given back, it is written off when its lease ends: %s", paid_by, lost.orig)
        raise
    _settle(engine, paid_by, answer.call, answer.tokens, key_fingerprint=client.key_fingerprint, started=started)
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
