"""Report as tasks: everybody's day, and how Keeper works."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from keeper import operations
from keeper import report as verb
from keeper.domain.operations import OperationsReport
from keeper.operations import FailedRun
from keeper.report import Reported
from keeper.resources import process_resources
from tasks.retries import on_database


@task(name="report", retries=3, retry_delay_seconds=[1, 5, 20], retry_condition_fn=on_database, cache_policy=NO_CACHE, persist_result=False)
def report() -> Reported:
    """Compose and keep what is due. A retry makes none twice."""
    resources = process_resources()
    return verb.report(resources.engine, now=resources.now(), settings=resources.report_settings)


@task(
    name="report-operations",
    retries=3,
    retry_delay_seconds=[1, 5, 20],
    retry_condition_fn=on_database,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def report_operations(failed_runs: list[FailedRun], problem: str, *, is_sent: bool) -> tuple[OperationsReport, int]:
    """Compose it, and send it to the administrators where wanted. Returns it and the number of deliveries.

    Args:
        problem: why Prefect's failed runs are not known; empty where they are.
    """
    resources = process_resources()
    now = resources.now()

    def ask_runs() -> list[FailedRun]:
        if problem:
            raise operations.RunsUnknown(problem)
        return failed_runs

    composed = operations.compose_operations(resources.settings, resources.engine, now=now, ask_runs=ask_runs)
    kept = operations.keep_operations(resources.engine, composed, now=now) if is_sent else None
    return composed, kept.deliveries if kept else 0
