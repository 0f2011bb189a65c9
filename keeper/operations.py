"""The verb `operations`: how a day of Keeper went, section by section, for those who run it.

A section that cannot be answered says why and stops no other.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import httpx
from sqlalchemy import Engine

from keeper.domain.errors import KeeperError, TransientError
from keeper.domain.operations import OperationsReport, Section, encode_operations
from keeper.domain.report import ReportKind
from keeper.kafka.consumer import count_messages
from keeper.kafka.topics import Topic, topic_name
from keeper.postgres import operations, reports
from keeper.postgres.reports import Kept, NewReport
from keeper.postgres.sinks import lock_routes
from keeper.report import local_date
from keeper.resources import kafka_connection
from keeper.settings import Settings
from keeper.status import Condition, Status, list_sinks, look, warn_of_sinks

logger = logging.getLogger(__name__)

_DAY = timedelta(days=1)
_MINUTES_OF_DAY = 1440
_ASK_SECONDS = 10.0
_LONGEST_FAILURE = 300


class RunsUnknown(TransientError):
    """Prefect does not say which of its runs failed."""


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A run of Prefect's that failed or crashed."""

    name: str
    state: str
    message: str


# Asks Prefect, where Keeper runs inside it.
FailedRuns = Callable[[], Sequence[FailedRun]]


def compose_operations(
    settings: Settings,
    engine: Engine,
    *,
    now: datetime,
    ask_runs: FailedRuns | None = None,
    look_around: Callable[[Settings], Status] = look,
) -> OperationsReport:
    """Ask everything that works, and say what does not.

    Args:
        ask_runs: None where Keeper does not run inside Prefect.
        look_around: asks each system how it is.
    """
    since = now - _DAY
    seen: list[Status] = []

    def status() -> Status:
        """Asked once for all sections."""
        if not seen:
            seen.append(look_around(settings))
        return seen[0]

    asked: dict[str, Callable[[], Section]] = {
        "Deals": lambda: _deals(engine, since),
        "Told to people": lambda: _told(engine, since),
        "Tokens": lambda: _tokens(engine, since),
        "Elasticsearch against PostgreSQL": lambda: _indices(status()),
        "Kafka": lambda: _kafka(settings, status()),
        "Outbox": lambda: _outbox(engine, settings),
        "API": lambda: _api(settings),
        "Failures": lambda: _failures(engine, since),
        "Flow runs": lambda: _runs(ask_runs),
    }
    return OperationsReport(now, since, tuple(_answer(title, ask) for title, ask in asked.items()))


def keep_operations(engine: Engine, report: OperationsReport, *, now: datetime) -> Kept:
    """Send it to each administrator's channels, once on their day."""
    content = json.dumps(encode_operations(report), ensure_ascii=False)
    with engine.begin() as connection:
        routes = lock_routes(connection)
        new = [
            NewReport(one.user_id, ReportKind.OPERATIONS, local_date(now, one.timezone), 0, content, is_told=True)
            for one in operations.select_administrators(connection)
        ]
        return reports.insert_reports(connection, new, now=now, routes=routes)


def _answer(title: str, ask: Callable[[], Section]) -> Section:
    try:
        return ask()
    except KeeperError as error:
        return Section(title, failure=str(error)[:_LONGEST_FAILURE])
    except Exception as error:
        logger.exception("the section %s of the operations report failed", title)
        return Section(title, failure=f"{type(error).__name__} while asking; the log has more")


def _deals(engine: Engine, since: datetime) -> Section:
    with engine.begin() as connection:
        found = operations.select_collected(connection, since=since)
    facts, warnings = [], []
    for one in found:
        median = "none" if one.median_score is None else f"{one.median_score:.0f}"
        facts.append(
            (
                f"from {one.source}",
                f"{one.added} new of {one.seen:,} seen in {one.pages} pages; {one.glitches} suspected glitches; median score {median}",
            )
        )
        if one.counted:
            share = 100 * one.members / one.counted
            facts.append((f"of a product group, {one.source}", f"{share:.1f} % ({one.members:,} of {one.counted:,})"))
        if one.added and one.glitches > one.added / 2:
            warnings.append(f"{one.glitches} of {one.added} new deals from {one.source} may be glitches")
    if not sum(one.seen for one in found):
        warnings.append("no deals were collected; does deal-collection run?")
    return Section("Deals", tuple(facts), tuple(warnings))


def _told(engine: Engine, since: datetime) -> Section:
    with engine.begin() as connection:
        told = operations.select_told(connection, since=since)
        readers = len(reports.select_readers(connection))
    facts = (
        ("price alerts", f"{told.alerts:,}"),
        ("deals told at once", f"{told.deal_alerts:,}, and {told.held:,} held for the report"),
        ("reports", f"{told.reports:,} for {readers:,} readers, {told.empty_reports:,} without deals"),
        ("latest report", str(told.last_date or "none yet")),
    )
    return Section(
        "Told to people", facts, ("no report was made in a day; does reports/hourly run?",) if readers and not told.reports else ()
    )


def _tokens(engine: Engine, since: datetime) -> Section:
    with engine.begin() as connection:
        calls = operations.select_calls(connection, since=since)
        refill = operations.select_refill(connection)
    spent, possible = sum(one.tokens for one in calls), refill * _MINUTES_OF_DAY
    facts = [
        (one.operation, f"{one.tokens:,} tokens in {one.calls:,} calls, {one.failed:,} failed; median {one.median_ms:.0f} ms")
        for one in calls
    ]
    if possible:
        facts.append(("refill used", f"{100 * spent / possible:.1f} % ({spent:,} of {possible:,})"))
    failed = sum(one.failed for one in calls)
    return Section("Tokens", tuple(facts), (f"{failed:,} calls to Keepa failed",) if failed else ())


def _indices(status: Status) -> Section:
    title = "Elasticsearch against PostgreSQL"
    if not status.indices:
        said = [one.text for one in status.systems if one.name == "Elasticsearch"]
        return Section(title, (("not asked", said[0] if said else "there is nothing to compare with"),))
    facts, warnings = [], []
    for one in status.indices:
        rows = "unknown" if one.rows is None else f"{one.rows:,}"
        facts.append((one.alias, f"{one.documents:,} documents, {rows} rows"))
        if one.problem:
            warnings.append(f"{one.alias}: {one.problem}")
    return Section(title, tuple(facts), tuple(warnings))


def _kafka(settings: Settings, status: Status) -> Section:
    if settings.kafka.bootstrap_servers is None:
        return Section("Kafka", (("not asked", "KEEPER_KAFKA_BOOTSTRAP_SERVERS is unset"),))
    connection = kafka_connection(settings)
    facts = []
    for topic in Topic:
        try:
            said = f"{count_messages(connection, topic):,} messages"
        except KeeperError as error:
            said = f"unknown: {error}"
        facts.append((topic_name(connection, topic), said))
    facts += [
        (f"{one.group} on {one.topic}", f"{one.lag:,} behind" if one.lag is not None else f"unknown: {one.problem}")
        for one in status.groups
    ]
    down = [one.text for one in status.systems if one.name == "Kafka" and one.condition is Condition.DOWN]
    return Section("Kafka", tuple(facts), tuple(down))


def _outbox(engine: Engine, settings: Settings) -> Section:
    found = list_sinks(engine, settings)
    facts = tuple(
        (
            one.name,
            f"{one.messages:,} wait, {one.postponed:,} of them for another try"
            + (f", the oldest for {one.oldest_seconds:,.0f} s" if one.oldest_seconds is not None else ""),
        )
        for one in found
    )
    return Section("Outbox", facts, tuple(warn_of_sinks(found, settings)))


def _api(settings: Settings) -> Section:
    asked = settings.reports
    if not asked.api_url:
        return Section("API", (("not asked", "KEEPER_REPORTS_API_URL is unset"),))
    times: list[float] = []
    with httpx.Client(base_url=asked.api_url, timeout=_ASK_SECONDS) as client:
        for _ in range(asked.api_asks):
            started = time.monotonic()
            try:
                answer = client.get("/health")
            except httpx.HTTPError as error:
                return Section("API", failure=f"it does not answer ({type(error).__name__})")
            if answer.status_code != httpx.codes.OK:
                return Section("API", failure=f"it answers with status {answer.status_code}")
            times.append(1000 * (time.monotonic() - started))
    times.sort()
    return Section("API", (("answer time", f"median {times[len(times) // 2]:.1f} ms, longest {times[-1]:.1f} ms of {len(times)}"),))


def _failures(engine: Engine, since: datetime) -> Section:
    with engine.begin() as connection:
        found = operations.select_failures(connection, since=since)
    facts = [(f"dead letters of {sink}", f"{dead:,}") for sink, dead in found.dead_letters]
    facts += [
        ("deliveries given up", f"{found.dead_deliveries:,}"),
        ("deliveries tried again", f"{found.pending_deliveries:,}"),
        ("products whose last check failed", f"{found.failed_checks:,}"),
    ]
    facts += [(f"query {name}", why[:_LONGEST_FAILURE]) for name, why in found.queries]
    warnings = [f"{dead:,} messages to {sink} were given up" for sink, dead in found.dead_letters]
    warnings += [f"{found.failed_checks:,} products could not be checked"] if found.failed_checks else []
    warnings += [f"{len(found.queries)} queries of the feed failed"] if found.queries else []
    return Section("Failures", tuple(facts), tuple(warnings))


def _runs(ask: FailedRuns | None) -> Section:
    if ask is None:
        return Section("Flow runs", (("not asked", "this is no flow run"),))
    failed = ask()
    facts = tuple((one.name, f"{one.state}: {one.message[:_LONGEST_FAILURE]}") for one in failed)
    return Section("Flow runs", facts or (("failed", "none"),), (f"{len(failed)} runs failed",) if failed else ())
