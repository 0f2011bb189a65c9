"""Fetch as a task: the only place where a request to Keepa is tried again."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import task_run
from prefect.tasks import exponential_backoff

from keeper import fetch as verb
from keeper.collection import pay_page
from keeper.domain.deal import DealQuery
from keeper.domain.errors import KeeperError
from keeper.keepa.answer import DealAnswer, ProductAnswer
from keeper.keepa.requests import DEAL_PAGE_TOKENS
from keeper.plan import PlannedRequest, renew_claims
from keeper.resources import Resources, process_resources
from keeper.tokens import release, renew, reserve
from tasks.limits import slots
from tasks.retries import on_keepa, on_transient


class RequestExpired(KeeperError):
    """A request waited so long for its turn that its tokens or its products went to somebody else."""


@task(
    name="fetch",
    task_run_name="fetch-{request.marketplace}-{request.size}",
    tags=["keepa"],
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_jitter_factor=0.5,
    retry_condition_fn=on_transient,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def fetch(request: PlannedRequest) -> ProductAnswer:
    """Send one paid request. Each further try has settled the one before and reserves anew.

    Raises:
        RequestExpired, SlotsUnavailable, LimitMissing: nothing was sent.
        KeepaError: as the client says.
    """
    resources = process_resources()
    reservation_id = _pay(resources, request)
    with taking_slots(resources, reservation_id, request.tokens, request):
        return verb.fetch(resources.engine, resources.keepa, request, reservation_id=reservation_id)


@task(
    name="fetch-deals",
    task_run_name="fetch-deals-{query.name}-{page}",
    tags=["keepa"],
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_jitter_factor=0.5,
    retry_condition_fn=on_keepa,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def fetch_deals(query: DealQuery, page: int) -> DealAnswer:
    """Send one request for a page of deals, paid from the share of collecting. Each further try pays anew.

    Raises:
        BudgetSpent, TokensUnavailable, SlotsUnavailable, LimitMissing: nothing was sent.
        KeepaError: as the client says.
    """
    resources = process_resources()
    settings = resources.settings
    client = resources.keepa
    reservation_id = pay_page(
        resources.engine,
        share_pct=settings.deals.share_pct,
        settings=resources.token_settings,
        max_wait_seconds=settings.tokens.longest_wait_seconds,
    )
    with taking_slots(resources, reservation_id, DEAL_PAGE_TOKENS):
        return verb.fetch_deals(resources.engine, client, query, page, reservation_id=reservation_id)


@contextmanager
def taking_slots(resources: Resources, reservation_id: int, tokens: int, claimed: PlannedRequest | None = None) -> Iterator[None]:
    """Hold Prefect's slots for a request that is paid for; its leases count anew from when they are there.

    Args:
        claimed: the request whose claims are renewed, too; None where it has none.

    Raises:
        RequestExpired, SlotsUnavailable, LimitMissing: nothing may be sent, and the reservation is given back.
    """
    limits = resources.settings.prefect
    with ExitStack() as held:
        try:
            if limits.limits:
                held.enter_context(slots(tokens, wait_seconds=limits.limit_wait_seconds))
            if claimed is not None:
                _renew_claims(resources, claimed)
            _renew_tokens(resources, reservation_id)
        except BaseException:
            release(resources.engine, reservation_id)
            raise
        yield


def _pay(resources: Resources, request: PlannedRequest) -> int:
    """The plan's reservation for the first try, one of its own for each further; the leases count anew, for the wait for slots."""
    settings = resources.token_settings
    if task_run.run_count > 1:
        _renew_claims(resources, request)
        return reserve(
            resources.engine,
            operation=request.operation,
            tokens=request.tokens,
            priority=request.priority,
            max_wait_seconds=resources.settings.tokens.longest_wait_seconds,
            settings=settings,
        )
    _renew_claims(resources, request)
    _renew_tokens(resources, request.reservation_id)
    return request.reservation_id


def _renew_tokens(resources: Resources, reservation_id: int) -> None:
    if not renew(resources.engine, reservation_id, resources.token_settings):
        raise RequestExpired("the tokens were written off while the request waited for its turn")


def _renew_claims(resources: Resources, request: PlannedRequest) -> None:
    if not renew_claims(resources.engine, request, resources.token_settings):
        raise RequestExpired("the products are being checked by somebody else by now")
