"""Discover as tasks: what pays for lists, claims candidates, and records them."""

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from keeper import discover as verb
from keeper import fetch as fetching
from keeper.discover import Kept
from keeper.domain.marketplace import Marketplace
from keeper.keepa.answer import AsinAnswer, ProductAnswer
from keeper.keepa.requests import BESTSELLERS_TOKENS, FinderQuery, finder_cost_upper_bound
from keeper.plan import PlannedRequest
from keeper.resources import Resources, process_resources
from tasks.fetch import taking_slots
from tasks.retries import on_database, on_keepa, on_unpaid

_WAITS_SECONDS: list[float] = [1, 5, 20]


@task(
    name="fetch-bestsellers",
    task_run_name="fetch-bestsellers-{marketplace}-{category_id}",
    tags=["keepa"],
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_jitter_factor=0.5,
    retry_condition_fn=on_unpaid,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def fetch_bestsellers(marketplace: Marketplace, category_id: int) -> AsinAnswer:
    """Send one request for a list of bestsellers. It is tried again only where the try before cannot have cost its 50 tokens."""
    resources = process_resources()
    client = resources.keepa
    reservation_id = _pay(resources, "bestsellers", BESTSELLERS_TOKENS)
    with taking_slots(resources, reservation_id, BESTSELLERS_TOKENS):
        return fetching.fetch_bestsellers(resources.engine, client, marketplace, category_id, reservation_id=reservation_id)


@task(
    name="fetch-found",
    task_run_name="fetch-found-{query.marketplace}",
    tags=["keepa"],
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_jitter_factor=0.5,
    retry_condition_fn=on_keepa,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def fetch_found(query: FinderQuery) -> AsinAnswer:
    """Send one request to the finder. Each further try pays anew."""
    resources = process_resources()
    client = resources.keepa
    tokens = finder_cost_upper_bound(query)
    reservation_id = _pay(resources, "query", tokens)
    with taking_slots(resources, reservation_id, tokens):
        return fetching.fetch_found(resources.engine, client, query, 0, reservation_id=reservation_id)


@task(
    name="plan-candidates",
    retries=3,
    retry_delay_seconds=_WAITS_SECONDS,
    retry_condition_fn=on_database,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def plan_candidates(most: int) -> PlannedRequest | None:
    """Claim and pay for the next candidates."""
    resources = process_resources()
    _ = resources.keepa
    return verb.plan_candidates(
        resources.engine,
        most=most,
        settings=resources.token_settings,
        max_wait_seconds=resources.discover_settings.max_wait_seconds,
    )


@task(
    name="keep-candidates",
    task_run_name="keep-candidates-{request.marketplace}-{request.size}",
    retries=3,
    retry_delay_seconds=_WAITS_SECONDS,
    retry_condition_fn=on_database,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def keep_candidates(request: PlannedRequest, answer: ProductAnswer) -> Kept:
    """Record what belongs. A retry here pays no token twice."""
    resources = process_resources()
    return verb.keep_candidates(resources.engine, request, answer, groups=resources.product_groups())


def _pay(resources: Resources, operation: str, tokens: int) -> int:
    return verb.pay(
        resources.engine,
        operation,
        tokens,
        settings=resources.token_settings,
        max_wait_seconds=resources.discover_settings.max_wait_seconds,
    )
