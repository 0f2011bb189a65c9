"""Reports: everybody's when their hour has come, and the operators' in the morning."""

from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.runtime import deployment
from prefect.states import Cancelled, Completed, Failed

from flows.artifacts import show_operations, show_reports
from keeper.domain.events import Sink
from keeper.operations import FailedRun
from keeper.postgres.jobs import hold_job
from keeper.resources import process_resources
from tasks.relay import relay
from tasks.report import report, report_operations

_MOST_RUNS = 100
_LONGEST_REASON = 300


@flow(name="reports", flow_run_name="report to everybody whose hour has come")
def reports(is_sent: bool = True, relay_seconds: float = 120) -> State[Any]:
    """Make the report of everybody whose local hour has come, each once a day, and send them.

    Args:
        is_sent: send at once; else what was made waits for the delivery flow.
        relay_seconds: how long to send at most; what is left waits for the delivery flow.
    """
    job = f"reports/{deployment.name or 'by-hand'}"
    with hold_job(process_resources().engine, job) as is_mine:
        if not is_mine:
            return Cancelled(message=f"another scheduler runs {job} on this database; remove one of the two deployments")
        done = report()
        trouble = _send(relay_seconds) if is_sent and done.deliveries else ""
        show_reports(job, done)
    return Failed(message=f"{done.sentence}; {trouble}") if trouble else Completed(message=done.sentence)


@flow(name="operations-report", flow_run_name="report to the administrators")
def operations_report(is_sent: bool = True, relay_seconds: float = 60) -> State[Any]:
    """Tell the administrators how the last day of Keeper went.

    Args:
        is_sent: to their channels, once on their day; else it is only shown here.
        relay_seconds: how long to send at most; what is left waits for the delivery flow.
    """
    job = f"operations-report/{deployment.name or 'by-hand'}"
    with hold_job(process_resources().engine, job) as is_mine:
        if not is_mine:
            return Cancelled(message=f"another scheduler runs {job} on this database; remove one of the two deployments")
        failed, problem = _failed_runs()
        composed, deliveries = report_operations(failed, problem, is_sent=is_sent)
        trouble = _send(relay_seconds) if deliveries else ""
        show_operations(job, composed)
    count = len(composed.warnings)
    told = f"{count} thing{'s' if count != 1 else ''} to look at, told to {deliveries} channels"
    return Failed(message=f"{told}; {trouble}") if trouble else Completed(message=told)


def _send(longest_seconds: float) -> str:
    """Deliver what was just made. Returns what is wrong; what cannot be delivered waits in the outbox for `flows.delivery`."""
    try:
        done = relay(longest_seconds=longest_seconds).get(Sink.NOTIFY.value)
    except Exception as error:  # noqa: BLE001  the reports are kept
        get_run_logger().error("reports wait in the outbox: %s", type(error).__name__)
        return f"reports wait in the outbox: {type(error).__name__}"
    if done is not None and done.dead:
        return f"{done.dead} messages were given up; `keeper alerts` and `keeper report list` say why"
    return f"reports wait in the outbox: {done.down[:_LONGEST_REASON]}" if done is not None and done.down else ""


def _failed_runs() -> tuple[list[FailedRun], str]:
    """Those of the last day, newest first, and why they are not known where Prefect does not say."""
    since = datetime.now(UTC) - timedelta(days=1)  # noqa: TID251  Prefect's runs are on the machine's clock
    failed = [StateType.FAILED, StateType.CRASHED]
    try:
        with get_client(sync_client=True) as client:
            runs = client.read_flow_runs(
                flow_run_filter=FlowRunFilter(
                    state=FlowRunFilterState(type=FlowRunFilterStateType(any_=failed)), end_time=FlowRunFilterEndTime(after_=since)
                ),
                sort=FlowRunSort.END_TIME_DESC,
                limit=_MOST_RUNS,
            )
    except Exception as error:  # noqa: BLE001  one section of the report may not stop the others
        return [], f"Prefect does not say ({type(error).__name__})"
    return [FailedRun(run.name, run.state_name or "Failed", (run.state.message if run.state else None) or "") for run in runs], ""


if __name__ == "__main__":
    reports()
