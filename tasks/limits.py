"""Prefect's global limits, where a person sees and sets Keepa's budget: `keepa-requests` and `keepa-tokens`.

The ledger in PostgreSQL is the authority; after it has granted, a fetch also takes its tokens here. A missing limit is an error.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate

# Not exported by `prefect.concurrency.sync`, which raises it.
from prefect.concurrency._asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency, rate_limit
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.variables import Variable

from keeper.domain.errors import KeeperError
from keeper.postgres.installation import select_clock_speed
from keeper.postgres.ledger import read_ledger
from keeper.resources import process_resources
from tasks.retries import on_database

logger = logging.getLogger(__name__)

REQUESTS = "keepa-requests"
TOKENS = "keepa-tokens"
# The refill rate the limit was last written for, so that a new one is noticed and a person's own values are left alone.
_RATE_VARIABLE = "keeper_refill_per_minute"
# The shortest Prefect allows: so long the slot of a killed process stays taken.
_LEASE_SECONDS = 60
_SHORTEST_WAIT_SECONDS = 0.1
# Prefect asks for one slot after the other in a process and counts each wait from its turn; here it counts from the call.
_turn = threading.Lock()


class LimitMissing(KeeperError):
    """A global limit Keeper counts on does not exist."""


class SlotsUnavailable(KeeperError):
    """No slot came free in time: somebody else holds them, the limit's decay was lowered, or Prefect does not answer."""


@task(name="follow-rate", retries=3, retry_delay_seconds=[1, 5, 20], retry_condition_fn=on_database, cache_policy=NO_CACHE)
def follow_rate() -> list[str]:
    """Write the limits anew where Keepa refills at another rate by now. Returns a line per thing changed."""
    resources = process_resources()
    with resources.engine.begin() as connection:
        bucket = read_ledger(connection).bucket
        speed = select_clock_speed(connection)
    if bucket is None or bucket.refill_per_minute == 0 or not resources.settings.prefect.limits:
        return []
    return write_limits(bucket.refill_per_minute, speed, resources.settings.keepa.requests_at_once)


def write_limits(rate: int, speed: float, requests_at_once: int) -> list[str]:
    """Make both limits where they are missing; write that of tokens anew only when `rate` or `speed` is not what it was written for.

    Args:
        rate: tokens Keepa refills in a business minute.
        speed: business seconds in a second.

    Returns:
        A line per thing made or changed.
    """
    known = str(Variable.get(_RATE_VARIABLE, default=""))
    wanted = f"{rate} x {speed:g}"
    with get_client(sync_client=True) as client:
        changes = _write(client, REQUESTS, limit=requests_at_once, decay=0.0, is_new_rate=False)
        changes += _write(client, TOKENS, limit=rate * 60, decay=2 * rate / 60 * speed, is_new_rate=known not in ("", wanted))
    if known != wanted:
        Variable.set(_RATE_VARIABLE, wanted, overwrite=True)
    return changes


def _write(client: SyncPrefectClient, name: str, *, limit: int, decay: float, is_new_rate: bool) -> list[str]:
    try:
        client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name=name, limit=limit, active=True, active_slots=0, slot_decay_per_second=decay)
        )
        return [f"limit {name} made: {limit}, decay {decay:g}/s"]
    if not is_new_rate:
        return []
    client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(limit=limit, slot_decay_per_second=decay))
    return [f"limit {name} changed with Keepa's refill rate: {limit}, decay {decay:g}/s"]


def largest_request() -> int:
    """Tokens one request may take at once: the limit's size, where a person has lowered it below Keepa's own.

    Raises:
        LimitMissing: there is no such limit.
        SlotsUnavailable: Prefect's API does not answer.
    """
    try:
        with get_client(sync_client=True) as client:
            return _read_size(client)
    except (httpx.HTTPError, PrefectException, RuntimeError) as error:
        raise SlotsUnavailable(f"Prefect's API does not answer, so no slots of {REQUESTS} and {TOKENS} can be taken: {error}") from error


def _read_size(client: SyncPrefectClient) -> int:
    try:
        client.read_global_concurrency_limit_by_name(REQUESTS)
        return int(client.read_global_concurrency_limit_by_name(TOKENS).limit)
    except ObjectNotFound:
        raise LimitMissing(f"Prefect has no global limits {REQUESTS} and {TOKENS}; `python -m deployments.bootstrap` makes them") from None


@contextmanager
def slots(tokens: int, *, wait_seconds: float) -> Iterator[None]:
    """Hold a place among the requests in flight and take `tokens`, which come back by decay only.

    The place comes first, so that no tokens are taken for a request that is not sent.

    Raises:
        SlotsUnavailable: not within `wait_seconds`, or Prefect refuses so many, or does not answer.
        LimitMissing: a limit was removed meanwhile.
    """
    deadline = time.monotonic() + wait_seconds
    held = ExitStack()
    try:
        if not _turn.acquire(timeout=wait_seconds):
            raise _unavailable(wait_seconds)
        try:
            held.enter_context(
                concurrency(
                    REQUESTS,
                    occupy=1,
                    timeout_seconds=_left(deadline),
                    lease_duration=_LEASE_SECONDS,
                    strict=True,
                    # A request that is paid for is worth more than a limit that is exact while Prefect's server restarts.
                    raise_on_lease_renewal_failure=False,
                )
            )
            rate_limit(TOKENS, occupy=tokens, timeout_seconds=_left(deadline), strict=True)
        except TimeoutError:
            raise _unavailable(wait_seconds) from None
        except ConcurrencySlotAcquisitionError as error:
            size = largest_request()
            raise SlotsUnavailable(f"Prefect gives no {tokens} slots of {TOKENS}, whose limit is {size}: {error}") from error
        except (httpx.HTTPError, PrefectException) as error:
            raise SlotsUnavailable(f"Prefect gives no slots of {REQUESTS} and {TOKENS}: {error}") from error
        finally:
            _turn.release()
        yield
    finally:
        try:
            held.close()
        except Exception:  # an answer that is paid for is worth more than a place, whose lease ends by itself
            logger.exception("the place among %s could not be given back", REQUESTS)


def _left(deadline: float) -> float:
    return max(_SHORTEST_WAIT_SECONDS, deadline - time.monotonic())


def _unavailable(wait_seconds: float) -> SlotsUnavailable:
    return SlotsUnavailable(f"no slot of Prefect's limits {REQUESTS} and {TOKENS} came free within {wait_seconds:.0f} s")
