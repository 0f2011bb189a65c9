"""Compare as a task."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from keeper import compare as verb
from keeper.compare import Compared
from keeper.opportunity_alerts import ToldOpportunities
from keeper.resources import process_resources
from tasks.retries import on_database, on_transient_or_database

_WAITS_SECONDS: list[float] = [5, 30, 120]


@task(
    name="compare",
    retries=3,
    retry_delay_seconds=_WAITS_SECONDS,
    retry_condition_fn=on_transient_or_database,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def compare(*, is_full: bool = False) -> Compared:
    """Make the opportunities what the recorded prices say. What a try before has done stays done."""
    resources = process_resources()
    return verb.compare(
        resources.engine,
        now=resources.now(),
        terms=resources.comparison_terms(),
        is_full=is_full,
        on_changed=resources.revise_products,
    )


@task(
    name="tell-opportunities",
    retries=3,
    retry_delay_seconds=[1, 5, 20],
    retry_condition_fn=on_database,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def tell_opportunities() -> ToldOpportunities:
    """Tell the topic and the users whose rules want it of what is new. A retry tells nobody twice."""
    return process_resources().tell_opportunities()
