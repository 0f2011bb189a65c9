"""Record as a task, and what to do with a request that brought nothing."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from keeper import check as verb
from keeper.check import Checked
from keeper.keepa.answer import ProductAnswer
from keeper.plan import PlannedRequest
from keeper.resources import process_resources
from tasks.retries import on_database


@task(name="record", retries=3, retry_delay_seconds=[1, 5, 20], retry_condition_fn=on_database, cache_policy=NO_CACHE, persist_result=False)
def record(request: PlannedRequest, answer: ProductAnswer) -> Checked:
    """Record one answer. A retry here pays no token twice."""
    resources = process_resources()
    return verb.record_answer(resources.engine, request, answer, now=resources.now())


@task(
    name="note-failure",
    retries=3,
    retry_delay_seconds=[1, 5, 20],
    retry_condition_fn=on_database,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def note_failure(request: PlannedRequest, failure: str) -> Checked:
    """Note why a request brought nothing."""
    resources = process_resources()
    return verb.note_failure(resources.engine, request, failure, now=resources.now())
