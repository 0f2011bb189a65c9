"""Relay as a task."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from keeper import relay as verb
from keeper.relay import Relayed
from keeper.resources import process_resources
from tasks.retries import on_database


@task(name="relay", retries=3, retry_delay_seconds=[1, 3, 10], retry_condition_fn=on_database, cache_policy=NO_CACHE, persist_result=False)
def relay(*, longest_seconds: float) -> dict[str, Relayed]:
    """Deliver what waits, to every system side by side. Returns what was done, by sink."""
    resources = process_resources()
    return verb.relay_all(
        resources.engine,
        resources.sinks(),
        settings=resources.relay_settings,
        longest_seconds=longest_seconds,
        circuits=resources.circuits,
    )
