"""Maintain as tasks."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from keeper import maintain as verb
from keeper.maintain import Maintained, Retention, Retired
from keeper.ranking import rank_products as rank
from keeper.resources import now_of, process_resources
from keeper.search.mapping import Alias
from tasks.retries import on_database


@task(name="maintain", retries=3, retry_delay_seconds=[1, 5, 20], retry_condition_fn=on_database, cache_policy=NO_CACHE)
def maintain() -> Maintained:
    """Tidy the database."""
    resources = process_resources()
    keep = resources.settings.keep
    retention = Retention(
        events=keep.events_days,
        calls=keep.calls_days,
        ingested=resources.settings.kafka.retention_days + 1,
        dead_letters=keep.dead_letters_days,
        sightings=resources.settings.deals.sightings_days,
        deals=keep.deals_days,
        opportunities=keep.opportunities_days,
        reports=keep.reports_days,
        audit=keep.audit_days,
    )
    with resources.engine.begin() as connection:
        now = now_of(connection)
    return verb.maintain(resources.engine, now=now, retention=retention)


@task(name="retire-documents", retries=3, retry_delay_seconds=[1, 5, 20], retry_condition_fn=on_database, cache_policy=NO_CACHE)
def retire_documents() -> Retired:
    """Tidy Elasticsearch, where there is one."""
    resources = process_resources()
    search = resources.settings.elasticsearch
    if not search.url:
        return Retired(0)
    with resources.engine.begin() as connection:
        now = now_of(connection)
    days = {Alias.METRICS: search.metrics_days, Alias.PRICES: search.prices_days}
    return verb.retire_documents(resources.search_connection(), now=now, days=days)


@task(name="rank-products", retries=3, retry_delay_seconds=[1, 5, 20], retry_condition_fn=on_database, cache_policy=NO_CACHE)
def rank_products() -> int:
    """Rank all products by how well they sell. Returns how many scores are others than before."""
    resources = process_resources()
    return rank(resources.engine, now=resources.now())
