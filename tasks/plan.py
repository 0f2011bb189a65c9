"""Plan as a task."""

from datetime import timedelta

from prefect import task
from prefect.cache_policies import NO_CACHE

from keeper import plan as verb
from keeper.plan import PlannedRequest
from keeper.resources import now_of, process_resources
from tasks.retries import on_database


@task(name="plan", retries=3, retry_delay_seconds=[1, 3, 10], retry_condition_fn=on_database, cache_policy=NO_CACHE)
def plan(
    *, interval: timedelta | None, ahead: timedelta, batch_size: int, largest_request: int | None, most_requests: int
) -> list[PlannedRequest]:
    """Claim and pay for what is due and affordable."""
    resources = process_resources()
    # Before anything is paid for: without the bucket there is nothing to plan, and the simulator sets the clock.
    _ = resources.keepa
    with resources.engine.begin() as connection:
        now = now_of(connection)
        return verb.plan(
            connection,
            now=now,
            until=now + ahead,
            interval=interval,
            batch_size=batch_size,
            largest_request=largest_request,
            most_requests=most_requests,
            settings=resources.token_settings,
        )
