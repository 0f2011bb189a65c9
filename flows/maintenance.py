"""Once a day: partitions ahead, expired reservations, retention, the ranking of products; Prefect's limits follow Keepa's refill rate."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import deployment
from prefect.states import Cancelled, Completed

from flows.artifacts import show_counts
from keeper.postgres.jobs import hold_job
from keeper.resources import process_resources
from tasks.limits import follow_rate
from tasks.maintain import maintain, rank_products, retire_documents


@flow(name="maintenance", flow_run_name="tidy database and indices")
def maintenance() -> State[Any]:
    """Keep the database and the indices in shape. An Elasticsearch that is down is a note, not a failure."""
    job = f"maintenance/{deployment.name or 'by-hand'}"
    with hold_job(process_resources().engine, job) as is_mine:
        if not is_mine:
            return Cancelled(message=f"another scheduler runs {job} on this database; remove one of the two deployments")
        done = maintain()
        retired = retire_documents()
        ranked = rank_products()
        changes = follow_rate()
        counted = {
            "partitions made": done.partitions_made,
            "days of events dropped": done.event_days_dropped,
            "calls removed": done.calls_removed,
            "dead letters removed": done.dead_letters_removed,
            "ids of foreign events removed": done.ingested_forgotten,
            "kept answers of the API removed": done.answers_forgotten,
            "sightings of deals removed": done.sightings_forgotten,
            "deals that are over removed": done.deals_forgotten,
            "opportunities that are over removed": done.opportunities_forgotten,
            "reports removed": done.reports_forgotten,
            "documents removed": retired.documents,
            "products ranked anew": ranked,
        }
        notes = [done.problem] if done.problem else []
        notes += [f"old documents are left for another day: {retired.problem}"] if retired.problem else []
        show_counts(job, counted, [*notes, *changes])
    tidied = (
        f"made {done.partitions_made} partitions, dropped {done.event_days_dropped} days of events, removed {done.calls_removed} calls, "
        f"{done.dead_letters_removed} dead letters, {done.ingested_forgotten} ids of foreign events, "
        f"{done.answers_forgotten} kept answers of the API, {done.sightings_forgotten} sightings of deals, "
        f"{done.deals_forgotten} deals and {done.opportunities_forgotten} opportunities that are over, "
        f"{done.reports_forgotten} reports, {done.audit_forgotten} entries of the audit log, {retired.documents} documents, "
        f"ranked {ranked} products anew"
    )
    return Completed(message="; ".join([tidied, *notes, *changes]))
