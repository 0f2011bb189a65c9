"""The verb `maintain`: partitions ahead, the dead written off, what has served its time removed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection, Engine

from keeper.domain.errors import KeeperError
from keeper.postgres import (
    audit,
    deals,
    idempotency,
    ingested,
    ledger,
    opportunities,
    outbox,
    partitions,
    product_changes,
    reports,
    scan,
    watches,
)
from keeper.postgres.partitions import PartitionsBusy
from keeper.postgres.sinks import lock_routes
from keeper.search.connection import SearchConnection, open_client
from keeper.search.indices import delete_older
from keeper.search.mapping import Alias

# Whoever waits for a partition's lock stops all who come after it.
_LOCK_SECONDS = 5.0
# Longer than any product waits for its turn in the compared stores.
_SCANS_KEPT = timedelta(days=30)
_DEALS_AT_ONCE = 2000
_OPPORTUNITIES_AT_ONCE = 5000


@dataclass(frozen=True, slots=True)
class Retention:
    """How long things are kept, days.

    Attributes:
        ingested: ids of recorded foreign events; to outlast their topics.
        deals, opportunities: from their end on.
    """

    events: int
    calls: int
    ingested: int
    dead_letters: int
    sightings: int
    deals: int
    opportunities: int
    reports: int
    audit: int = 400


@dataclass(frozen=True, slots=True)
class Maintained:
    """What one call did.

    Attributes:
        problem: why not all partitions that should be made or dropped were; empty where all were.
    """

    partitions_made: int
    event_days_dropped: int
    calls_removed: int
    ingested_forgotten: int
    dead_letters_removed: int
    answers_forgotten: int
    sightings_forgotten: int
    deals_forgotten: int
    opportunities_forgotten: int
    reports_forgotten: int
    audit_forgotten: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Retired:
    """What one call did to the indices.

    Attributes:
        documents: how many were deleted.
        problem: why not all that are old; empty where all were.
    """

    documents: int
    problem: str = ""


def maintain(engine: Engine, *, now: datetime, retention: Retention) -> Maintained:
    """Idempotent; meant to run once a day.

    In several transactions: each lock ends soon, and none is held while another kind is waited for.
    """
    with engine.begin() as connection:
        # Whoever claims products or settles a call holds the ledger; the partitions below are nobody's business there.
        ledger.lock_ledger(connection)
        watches.delete_dead_claims(connection)
        removed = ledger.delete_old_calls(connection, before=now - timedelta(days=retention.calls))
    with engine.begin() as connection:
        forgotten = ingested.delete_old(connection, days=retention.ingested)
        dead_letters = outbox.delete_old_dead_letters(connection, days=retention.dead_letters)
        answers = idempotency.delete_old(connection)
        old_entries = audit.delete_old(connection, days=retention.audit)
        old_reports = reports.delete_old(connection, before=now - timedelta(days=retention.reports))
        product_changes.forget_doubles(connection)
        sightings = deals.delete_old_sightings(connection, before=now - timedelta(days=retention.sightings))
        scan.delete_old(connection, before=now - _SCANS_KEPT)
    old_deals, _ = _until_done(engine, partial(_forget_deals, before=now - timedelta(days=retention.deals)))
    over = now - timedelta(days=retention.opportunities)
    old_opportunities, _ = _until_done(engine, partial(opportunities.delete_over, before=over, limit=_OPPORTUNITIES_AT_ONCE))
    made, made_problem = _until_done(engine, partial(partitions.make_partitions, now=now, at_most=1, lock_seconds=_LOCK_SECONDS))
    dropped, dropped_problem = _until_done(
        engine, partial(partitions.drop_event_days, keep_days=retention.events, at_most=1, lock_seconds=_LOCK_SECONDS)
    )
    return Maintained(
        partitions_made=made,
        event_days_dropped=dropped,
        calls_removed=removed,
        ingested_forgotten=forgotten,
        dead_letters_removed=dead_letters,
        answers_forgotten=answers,
        sightings_forgotten=sightings,
        deals_forgotten=old_deals,
        opportunities_forgotten=old_opportunities,
        reports_forgotten=old_reports,
        audit_forgotten=old_entries,
        problem=made_problem or dropped_problem,
    )


def _forget_deals(connection: Connection, *, before: datetime) -> int:
    return deals.delete_over(connection, before=before, limit=_DEALS_AT_ONCE, routes=lock_routes(connection))


def retire_documents(connection: SearchConnection, *, now: datetime, days: Mapping[Alias, int | None]) -> Retired:
    """Delete the documents that have served their time; None keeps an index's for good. Idempotent.

    An Elasticsearch that is down does so another day.
    """
    deleted = 0
    try:
        client = open_client(connection)
        try:
            for alias, kept_days in days.items():
                if kept_days is not None:
                    deleted += delete_older(client, connection, alias, before=now - timedelta(days=kept_days))
        finally:
            client.close()
    except KeeperError as error:
        return Retired(deleted, str(error))
    return Retired(deleted)


def _until_done(engine: Engine, step: Callable[[Connection], int]) -> tuple[int, str]:
    """A transaction for each step, until one finds nothing to do. Returns how much they did, and why not all."""
    total = 0
    while True:
        try:
            with engine.begin() as connection:
                done = step(connection)
        except PartitionsBusy as error:
            return total, str(error)
        if not done:
            return total, ""
        total += done
