"""Fetch as a task: the only place where a request to Keepa is tried again."""

from contextlib import nullcontext

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import task_run
from prefect.tasks import exponential_backoff

from keeper import fetch as verb
from keeper.domain.budget import Priority
from keeper.keepa.answer import ProductAnswer
from keeper.plan import PlannedRequest
from keeper.resources import process_resources
from keeper.tokens import release, renew, reserve
from tasks.limits import SlotsUnavailable, slots
from tasks.retries import on_transient


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
    """Send one paid request. Each further try has settled the one before and reserves anew."""
    resources = process_resources()
    settings = resources.settings
    reservation_id = request.reservation_id
    if task_run.run_count > 1 or not renew(resources.engine, reservation_id, resources.token_settings):
        reservation_id = reserve(
            resources.engine,
            operation="product",
            tokens=request.tokens,
            priority=Priority.WATCH,
            max_wait_seconds=settings.tokens.longest_wait_seconds,
            settings=resources.token_settings,
        )
    held = slots(request.tokens, wait_seconds=settings.prefect.limit_wait_seconds) if settings.prefect.limits else nullcontext()
    try:
        held.__enter__()
    except SlotsUnavailable:
        release(resources.engine, reservation_id)
        raise
    try:
        return verb.fetch(resources.engine, resources.keepa, request, sinks=resources.sinks, reservation_id=reservation_id)
    finally:
        held.__exit__(None, None, None)
