"""Collect as tasks: a page of the feed, the seeds, what is over."""

from dataclasses import replace

from prefect import task
from prefect.cache_policies import NO_CACHE

from keeper import collection as verb
from keeper.collect import Collected
from keeper.collection import Gathered
from keeper.domain.deal import DealQuery
from keeper.domain.deal_files import Seeds
from keeper.domain.marketplace import Marketplace
from keeper.keepa.answer import DealAnswer
from keeper.plan import PlannedRequest
from keeper.resources import process_resources
from tasks.retries import on_database, on_transient

_WAITS_SECONDS: list[float] = [1, 5, 20]


@task(
    name="plan-seeds",
    task_run_name="plan-seeds-{marketplace}",
    retries=3,
    retry_delay_seconds=_WAITS_SECONDS,
    retry_condition_fn=on_database,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def plan_seeds(seeds: Seeds, marketplace: Marketplace, *, queries: int) -> list[PlannedRequest]:
    """Claim and pay for the seeds nobody has checked lately."""
    resources = process_resources()
    _ = resources.keepa
    settings = resources.collect_settings
    return verb.plan_seeds(
        resources.engine,
        seeds,
        marketplace,
        fresh_for=settings.seeds_fresh_for,
        share_pct=settings.share_pct,
        queries=queries,
        settings=resources.token_settings,
        max_wait_seconds=settings.max_wait_seconds,
    )


@task(
    name="collect-seeds",
    task_run_name="collect-seeds-{marketplace}",
    retries=3,
    retry_delay_seconds=_WAITS_SECONDS,
    retry_condition_fn=on_database,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def collect_seeds(seeds: Seeds, marketplace: Marketplace) -> Gathered:
    """Deals among the seeds, by their recorded prices."""
    resources = process_resources()
    return verb.collect_seeds(
        resources.engine,
        seeds,
        marketplace,
        groups=resources.product_groups(),
        least_fall_pct=resources.collect_settings.least_fall_pct,
        instant_per_hour=resources.collect_settings.instant_per_hour,
    )


@task(
    name="collect",
    task_run_name="collect-{query.name}-{page}",
    retries=3,
    retry_delay_seconds=_WAITS_SECONDS,
    retry_condition_fn=on_database,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def collect(query: DealQuery, page: int, answer: DealAnswer, *, most_pages: int) -> tuple[Collected, int | None]:
    """Record one page. A retry here pays no token twice."""
    resources = process_resources()
    settings = replace(resources.collect_settings, most_pages=most_pages)
    return verb.keep_page(
        resources.engine,
        query,
        page,
        answer,
        groups=resources.product_groups(),
        full_pass_every=settings.full_pass_every,
        instant_per_hour=settings.instant_per_hour,
    )


@task(
    name="end-deals",
    retries=3,
    retry_delay_seconds=_WAITS_SECONDS,
    retry_condition_fn=on_transient,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def end_deals() -> int:
    """End the deals that are over."""
    resources = process_resources()
    return verb.end_overdue(resources.engine, ends_after=resources.collect_settings.ends_after)
