"""Score outcomes as a task."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from keeper import outcome as verb
from keeper.outcome import OutcomesScored
from keeper.resources import process_resources
from tasks.retries import on_database


@task(
    name="score-outcomes",
    retries=3,
    retry_delay_seconds=[1, 5, 20],
    retry_condition_fn=on_database,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def score_outcomes() -> OutcomesScored:
    """Note what has opened, and look again at what opened 1, 7 and 30 days ago. What a try before has done stays done."""
    resources = process_resources()
    return verb.score_outcomes(resources.engine, now=resources.now(), terms=resources.comparison_terms())
