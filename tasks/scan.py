"""Scan as tasks: what pays for lists and requests in the compared stores."""

from collections.abc import Sequence

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from keeper import fetch as fetching
from keeper import scan as verb
from keeper.competitors import with_offers
from keeper.domain.marketplace import Marketplace
from keeper.keepa.answer import AsinAnswer
from keeper.keepa.requests import BESTSELLERS_TOKENS, FinderQuery, finder_cost_upper_bound
from keeper.plan import PlannedRequest
from keeper.resources import Resources, process_resources
from tasks.fetch import taking_slots
from tasks.retries import on_database, on_keepa, on_unpaid

_WAITS_SECONDS: list[float] = [1, 5, 20]


@task(
    name="exchange-rates",
    retries=3,
    retry_delay_seconds=_WAITS_SECONDS,
    retry_condition_fn=on_database,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def know_exchange_rates() -> list[str]:
    """Know the exchange rates of the day, as far as anybody says them. Returns what there is to say of it."""
    return process_resources().know_exchange_rates()


@task(
    name="fetch-compared-bestsellers",
    task_run_name="fetch-compared-bestsellers-{marketplace}-{category_id}",
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
    reservation_id = _pay(resources, BESTSELLERS_TOKENS)
    with taking_slots(resources, reservation_id, BESTSELLERS_TOKENS):
        return fetching.fetch_bestsellers(resources.engine, client, marketplace, category_id, reservation_id=reservation_id)


@task(
    name="fetch-compared-found",
    task_run_name="fetch-compared-found-{query.marketplace}",
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
    reservation_id = _pay(resources, tokens)
    with taking_slots(resources, reservation_id, tokens):
        return fetching.fetch_found(resources.engine, client, query, 0, reservation_id=reservation_id)


@task(
    name="plan-listings",
    task_run_name="plan-listings-{marketplace}",
    retries=3,
    retry_delay_seconds=_WAITS_SECONDS,
    retry_condition_fn=on_database,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def plan_listings(asins: Sequence[str], marketplace: Marketplace, history_days: int) -> PlannedRequest | None:
    """Claim and pay for one request."""
    resources = process_resources()
    _ = resources.keepa
    return verb.plan_listings(
        resources.engine,
        asins,
        marketplace,
        history_days,
        settings=resources.scan_settings(),
        token_settings=resources.token_settings,
    )


@task(
    name="plan-sellers",
    task_run_name="plan-sellers-{marketplace}",
    retries=3,
    retry_delay_seconds=_WAITS_SECONDS,
    retry_condition_fn=on_database,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def plan_sellers(asins: Sequence[str], marketplace: Marketplace) -> PlannedRequest | None:
    """Claim and pay for one request for sellers, of the scan's share."""
    resources = process_resources()
    return verb.plan_listings(
        resources.engine, asins, marketplace, 1, settings=with_offers(resources.scan_settings()), token_settings=resources.token_settings
    )


def _pay(resources: Resources, tokens: int) -> int:
    return verb.pay_list(resources.engine, tokens, settings=resources.scan_settings(), token_settings=resources.token_settings)
