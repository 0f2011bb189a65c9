"""Reindex as a task."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from keeper import reindex as verb
from keeper.reindex import Reindexed
from keeper.resources import process_resources
from keeper.search.mapping import Alias


@task(name="reindex", cache_policy=NO_CACHE)
def reindex(alias: str) -> Reindexed:
    """Build one index anew. Not tried again: what was begun is taken back, and whoever asked for it asks again."""
    resources = process_resources()
    search = resources.settings.elasticsearch
    return verb.reindex(
        resources.engine,
        Alias(alias),
        client=resources.search_client(),
        connection=resources.search_connection(),
        settings=resources.relay_settings,
        now=resources.now(),
        prices_days=search.prices_days,
        metrics_days=search.metrics_days,
    )
