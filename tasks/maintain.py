"""Maintain as a task."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from keeper import maintain as verb
from keeper.maintain import Maintained
from keeper.resources import now_of, process_resources
from tasks.retries import on_database


@task(name="maintain", retries=3, retry_delay_seconds=[1, 5, 20], retry_condition_fn=on_database, cache_policy=NO_CACHE)
def maintain() -> Maintained:
    """Tidy the database."""
    resources = process_resources()
    keep = resources.settings.keep
    with resources.engine.begin() as connection:
        now = now_of(connection)
    return verb.maintain(resources.engine, now=now, events_days=keep.events_days, calls_days=keep.calls_days)
