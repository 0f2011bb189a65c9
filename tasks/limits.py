"""Prefect's global limits, where a person sees and sets Keepa's budget: `keepa-requests` and `keepa-tokens`.

The ledger in PostgreSQL is the authority; after it has granted, a fetch also takes its tokens here. A missing limit is an error.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency, rate_limit
from prefect.exceptions import ObjectNotFound

from keeper.domain.errors import KeeperError

REQUESTS = "keepa-requests"
TOKENS = "keepa-tokens"


class LimitMissing(KeeperError):
    """A global limit Keeper counts on does not exist."""


class SlotsUnavailable(KeeperError):
    """No slot came free in time: somebody else holds them, or the limit's decay was lowered."""


def largest_request() -> int:
    """Tokens one request may take at once: the limit's size, where a person has lowered it below Keepa's own.

    Raises:
        LimitMissing: there is no such limit.
    """
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(REQUESTS)
            return int(client.read_global_concurrency_limit_by_name(TOKENS).limit)
        except ObjectNotFound:
            raise LimitMissing(
                f"Prefect has no global limits {REQUESTS} and {TOKENS}; `python -m deployments.bootstrap` makes them"
            ) from None


@contextmanager
def slots(tokens: int, *, wait_seconds: float) -> Iterator[None]:
    """Take `tokens` and a place among the requests in flight.

    Raises:
        SlotsUnavailable: not within `wait_seconds`.
    """
    try:
        rate_limit(TOKENS, occupy=tokens, timeout_seconds=wait_seconds, strict=True)
        held = concurrency(REQUESTS, occupy=1, timeout_seconds=wait_seconds, strict=True)
        held.__enter__()
    except TimeoutError:
        raise SlotsUnavailable(f"no slot of Prefect's limits {TOKENS} and {REQUESTS} came free within {wait_seconds:.0f} s") from None
    try:
        yield
    finally:
        held.__exit__(None, None, None)
