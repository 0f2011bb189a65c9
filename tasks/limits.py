"""Prefect's global limits, where a person sees and sets Keepa's budget: `keepa-requests` and `keepa-tokens`.

The ledger in PostgreSQL is the authority; after it has granted, a fetch also takes its tokens here. A missing limit is an error.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client

# Not exported by `prefect.concurrency.sync`, which raises it.
from prefect.concurrency._asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency, rate_limit
from prefect.exceptions import ObjectNotFound, PrefectException

from keeper.domain.errors import KeeperError

logger = logging.getLogger(__name__)

REQUESTS = "keepa-requests"
TOKENS = "keepa-tokens"
# The shortest Prefect allows: so long the slot of a killed process stays taken.
_LEASE_SECONDS = 60
_SHORTEST_WAIT_SECONDS = 0.1
# Prefect asks for one slot after the other in a process and counts each wait from its turn; here it counts from the call.
_turn = threading.Lock()


class LimitMissing(KeeperError):
    """A global limit Keeper counts on does not exist."""


class SlotsUnavailable(KeeperError):
    """No slot came free in time: somebody else holds them, the limit's decay was lowered, or Prefect does not answer."""


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
