"""Relay as a task."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from keeper import relay as verb
from keeper.relay import Relayed
from keeper.resources import process_resources
from tasks.retries import on_database


@task(name="relay", retries=3, retry_delay_seconds=[1, 3, 10], retry_condition_fn=on_database, cache_policy=NO_CACHE, persist_result=False)
def relay(*, longest_seconds: float) -> Relayed:
    """Deliver what waits for people's channels."""
    resources = process_resources()
    return verb.relay(resources.engine, resources.alert_sink(), settings=resources.relay_settings, longest_seconds=longest_seconds)
