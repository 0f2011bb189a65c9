"""Once a day: partitions ahead, expired reservations, retention; Prefect's limits follow Keepa's refill rate."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import deployment
from prefect.states import Cancelled, Completed

from keeper.postgres.jobs import hold_job
from keeper.resources import process_resources
from tasks.limits import follow_rate
from tasks.maintain import maintain


@flow(name="maintenance", flow_run_name="maintenance")
def maintenance() -> State[Any]:
    """Keep the database in shape."""
    job = f"maintenance/{deployment.name or 'by-hand'}"
    with hold_job(process_resources().engine, job) as is_mine:
        if not is_mine:
            return Cancelled(message=f"another scheduler runs {job} on this database; remove one of the two deployments")
        done = maintain()
        changes = follow_rate()
    tidied = f"made {done.partitions_made} partitions, dropped {done.event_days_dropped} days of events, removed {done.calls_removed} calls"
    return Completed(message="; ".join([tidied, *changes]))
