"""The verb `watchdog`: look at what Keeper brings about, and tell its operators of what is wrong, once, and once that it is over.

Each check looks at one result, whichever process is to bring it about. One that fails is a trouble of its own and stops no other. Troubles
are kept in the database and, as a copy, in a file of the data folder: with the database down, the file is what tells new from known.
"""

import contextlib
import fcntl
import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from cryptography import x509
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from keeper.doctor import host_of, noted_prefect_url, remedy_of
from keeper.domain.budget import forecast
from keeper.domain.errors import KeeperError
from keeper.domain.events import Sink
from keeper.domain.watchdog import (
    Clock,
    Followed,
    News,
    Seen,
    Trouble,
    follow,
    is_late,
    mark_told,
    merge,
    missing_documents,
    news_for,
    span,
)
from keeper.kafka.consumer import measure_old_lag
from keeper.kafka.topics import DEAD_LETTERS, Group, Topic, group_name, topic_name
from keeper.keepa.requests import ProductOptions, cost_upper_bound
from keeper.notify.watchdog import compose_news
from keeper.postgres import installation, ledger, partitions, sinks
from keeper.postgres import watchdog as database
from keeper.postgres.engine import is_outage
from keeper.postgres.jobs import hold_job
from keeper.postgres.outbox import Backlog
from keeper.reindex import is_rebuilding
from keeper.resources import Resources, channel_sender, embedded_server, kafka_connection, open_database, search_connection
from keeper.search.connection import open_client as open_search_client
from keeper.search.indices import count_matching, list_indices, refresh, select_complaints
from keeper.search.mapping import Alias, alias_name
from keeper.settings import Settings
from keeper.status import GROUPS, TABLES, impatient

logger = logging.getLogger(__name__)

DATABASE = "database"
_AT_ONCE = 6
_LONGEST_TEXT = 500
_MINUTE = 60.0
_AHEAD_MINUTES = 15
# Of fewer products a share says nothing.
_LEAST_PRODUCTS = 10
# Two rounds that were missed, and a scheduler that was ended is forgotten.
_SCHEDULER_SECONDS = 20 * _MINUTE
_METRICS_WINDOW = timedelta(days=1)
# More channels that give up are one trouble together: it is not each of them.
_FEW_CHANNELS = 3
_URLS = re.compile(r"[,\s]+(?=[A-Za-z][A-Za-z0-9+.-]*://)")


class NotThere(KeeperError):
    """What is to be looked at is missing; says what to do."""


@dataclass(slots=True)
class House:
    """What the checks of one round look at.

    Attributes:
        now: the machine's clock at the beginning.
        engine: None where the database cannot be used; `obstacle` says why.
    """

    settings: Settings
    now: datetime
    engine: Engine | None
    obstacle: str = ""
    _started: float = field(default_factory=time.monotonic)

    def machine_now(self) -> datetime:
        """The machine's clock."""
        return self.now + timedelta(seconds=time.monotonic() - self._started)

    @property
    def database(self) -> Engine:
        """For checks that are made only where there is one."""
        if self.engine is None:
            raise NotThere(self.obstacle)
        return self.engine

    def clock(self) -> Clock:
        """Business time."""
        with self.database.begin() as connection:
            return database.select_clocks(connection)[1]


@dataclass(frozen=True, slots=True)
class Check:
    """One look.

    Attributes:
        looks_at: in words, for `--explain`.
        settings: the names of its thresholds in `WatchdogSettings`.
        look: what is there, in words, and the troubles.
    """

    name: str
    looks_at: str
    settings: tuple[str, ...]
    remedy: str
    look: Callable[["Check", House], "Found"]
    needs_database: bool = True

    def trouble(self, text: str, about: str = "", *, remedy: str | None = None) -> Trouble:
        """One of this check's."""
        return Trouble(self.name, about, text, self.remedy if remedy is None else remedy)


Found = tuple[str, list[Trouble]]


@dataclass(frozen=True, slots=True)
class Round:
    """One call.

    Attributes:
        opened, ended: troubles that began and ended with it.
        told: messages that channels took.
        untold: why a channel did not take its message, each in words.
        is_heard: somebody knows of every trouble, or nobody is to be told; and what was told is kept.
        heartbeat: whether the heartbeat's address was asked; in words.
    """

    seen: tuple[Seen, ...]
    opened: tuple[Trouble, ...] = ()
    ended: tuple[Trouble, ...] = ()
    told: int = 0
    untold: tuple[str, ...] = ()
    is_heard: bool = True
    heartbeat: str = ""

    @property
    def troubles(self) -> list[Trouble]:
        """What is wrong now."""
        return [trouble for one in self.seen for trouble in one.troubles]

    @property
    def is_whole(self) -> bool:
        """Whether every check could look."""
        return all(one.is_judged and not one.is_foul for one in self.seen)

    @property
    def sentence(self) -> str:
        """In words."""
        count = len(self.troubles)
        many = f"{count} trouble{'s' if count != 1 else ''}: {', '.join(one.title for one in self.troubles)}" if count else "no trouble"
        return f"{many}; {len(self.opened)} new, {len(self.ended)} over, {self.told} messages told"


def look(settings: Settings, *, now: datetime) -> list[Seen]:
    """What every check sees. Tells nobody and keeps nothing.

    Args:
        now: the machine's clock.
    """
    with _opened(settings, now) as house:
        return _look(house)


def watch(settings: Settings, *, now: datetime, scheduler: tuple[UUID, str] | None = None) -> Round:
    """Look, tell what is new, and ask for the heartbeat's address where the whole round ran.

    Args:
        now: the machine's clock.
        scheduler: the deployment that runs this and where it is from; None by hand or from cron.
    """
    with _opened(settings, now) as house:
        if scheduler is not None and house.engine is not None:
            with contextlib.suppress(SQLAlchemyError), house.engine.begin() as connection:
                database.note_scheduler(connection, *scheduler)
        seen = _look(house)
        try:
            done = _tell(house, seen)
        except SQLAlchemyError as error:
            # It went away meanwhile.
            done = _tell(replace(house, engine=None, obstacle=type(error).__name__), seen)
        return replace(done, heartbeat=_beat(settings, is_whole=done.is_whole and done.is_heard))


@contextmanager
def _opened(settings: Settings, now: datetime) -> Iterator[House]:
    settings = impatient(settings)
    engine, obstacle = None, ""
    try:
        if settings.database_url is None:
            # To look is not to start it: somebody may have ended it for a reason.
            status = embedded_server(settings).status()
            if status.major is None:
                raise NotThere("the embedded server has no data yet; the first command makes it")
            if not status.running:
                raise NotThere("the embedded server does not run; `make up` starts it, and so does any other command")
        engine = open_database(settings, application_name="keeper watchdog")
        with engine.begin() as connection:
            if not installation.check_schema(connection):
                raise NotThere("the database is not migrated to this version of Keeper; run `keeper migrate`")
    except KeeperError as error:
        obstacle = str(error)
    except Exception as error:  # noqa: BLE001  whatever keeps it from being used is what is to be told
        said = str(getattr(error, "orig", None) or type(error).__name__).strip().splitlines()
        obstacle = f"PostgreSQL does not answer: {said[0] if said else type(error).__name__}"
    try:
        yield House(settings, now, None if obstacle else engine, obstacle)
    finally:
        if engine is not None:
            engine.dispose()


def _look(house: House) -> list[Seen]:
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="watchdog") as pool:
        return list(pool.map(lambda check: _run(check, house), CHECKS))


def _run(check: Check, house: House) -> Seen:
    if check.needs_database and house.engine is None:
        return Seen(check.name, "not known: the database cannot be asked", is_judged=False)
    try:
        text, troubles = check.look(check, house)
    except KeeperError as error:
        said = str(error)[:_LONGEST_TEXT]
        return Seen(check.name, said, (check.trouble(said),))
    except Exception as error:
        if isinstance(error, SQLAlchemyError) and is_outage(error):
            return Seen(check.name, "not known: the database went away meanwhile", is_judged=False)
        logger.exception("the check %s failed in a way nobody foresaw", check.name)
        said = f"the check itself failed with {type(error).__name__}; the log of the watchdog has more"
        foul = Trouble("watchdog", check.name, said, "look into that log; the other checks go on")
        return Seen(check.name, said, (foul,), is_judged=False, is_foul=True)
    return Seen(check.name, text, tuple(troubles))


# --- the checks


def _database(check: Check, house: House) -> Found:
    if house.engine is None:
        return house.obstacle, [check.trouble(house.obstacle)]
    with house.engine.begin() as connection:
        version, name = database.select_server(connection)
    return f"{name} on PostgreSQL {version} answers", []


def _prices(check: Check, house: House) -> Found:
    settings, clock = house.settings.watchdog, house.clock()
    late_seconds = settings.price_late_minutes * _MINUTE
    with house.database.begin() as connection:
        waiting = database.select_late(connection, before=clock.now - timedelta(seconds=late_seconds * clock.speed))
    troubles = []
    for one in waiting:
        if not is_late(one, clock, late_pct=settings.price_late_pct, late_seconds=late_seconds):
            continue
        newest = "none was ever checked"
        if one.newest_checked_at is not None:
            newest = f"the newest price among them is {span((clock.now - one.newest_checked_at).total_seconds())} old"
        overdue = span(max(0.0, clock.overdue_seconds(one.oldest_due_at)))
        many = f"{'at least ' if one.is_cut else ''}{one.products:,} products"
        text = f"{many} that are to be checked every {span(one.interval_seconds)} are overdue, the first for {overdue}; {newest}"
        troubles.append(check.trouble(text, f"every {span(one.interval_seconds)}"))
    return ("no check is overdue for long" if not troubles else troubles[0].text), troubles


def _failing(check: Check, house: House) -> Found:
    clock = house.clock()
    with house.database.begin() as connection:
        found = database.select_due_next(connection, now=clock.now)
    text = f"{found.failed:,} of the {found.products:,} products due next failed at their last check"
    if found.products >= _LEAST_PRODUCTS and 100 * found.failed / found.products > house.settings.watchdog.failing_pct:
        return text, [check.trouble(f"{text}, most often: {found.failure}")]
    return text, []


def _canary(check: Check, house: House) -> Found:
    settings = house.settings.watchdog
    if settings.canary is None:
        return "no canary: KEEPER_WATCHDOG_CANARY is unset", []
    asin, _, marketplace = settings.canary.partition(":")
    clock = house.clock()
    with house.database.begin() as connection:
        found = database.find_canary(connection, asin, marketplace)
    if found is None:
        return f"{settings.canary} is not watched", [check.trouble(f"the canary {settings.canary} is watched by nobody")]
    interval = timedelta(seconds=found.interval_seconds)
    due_at = found.next_check_at if found.checked_at is None else found.checked_at + interval
    age = "never checked" if found.checked_at is None else f"{span(max(0.0, (clock.now - found.checked_at).total_seconds()))} old"
    text = f"the price of {settings.canary} is {age}, its interval is {span(found.interval_seconds)}"
    if clock.overdue_seconds(due_at) <= settings.canary_late_minutes * _MINUTE:
        return text, []
    return text, [check.trouble(f"{text}{f'; its last check failed: {found.last_failure}' if found.last_failure else ''}")]


def _runs(check: Check, house: House) -> Found:
    prefect = house.settings.prefect
    url = (prefect.api_url or os.environ.get("PREFECT_API_URL") or noted_prefect_url(house.settings) or "").rstrip("/")
    if not url:
        return "not asked: KEEPER_PREFECT_API_URL is unset and `make up` has left no address", []
    given = prefect.api_auth.get_secret_value() if prefect.api_auth else os.environ.get("PREFECT_API_AUTH_STRING", "")
    user, _, password = given.partition(":")
    late_at = house.machine_now() - timedelta(minutes=house.settings.watchdog.runs_late_minutes)

    def count(client: httpx.Client, condition: dict[str, str]) -> int:
        answer = client.post(
            f"{url}/flow_runs/count",
            json={
                "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": condition},
                "deployments": {"tags": {"all_": ["keeper"]}},
            },
        )
        answer.raise_for_status()
        return int(answer.json())

    try:
        with httpx.Client(timeout=house.settings.watchdog.timeout_seconds, auth=(user, password) if user else None) as client:
            # Every five minutes there is one: those of tomorrow were made before the scheduler stopped.
            soon = house.machine_now() + timedelta(minutes=_AHEAD_MINUTES)
            ahead = count(client, {"after_": house.machine_now().isoformat(), "before_": soon.isoformat()})
            late = count(client, {"before_": late_at.isoformat()})
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, TypeError) as error:
        # The URL may hold a password; its host is enough.
        text = f"Prefect's API at {host_of(url)} does not answer as it should ({type(error).__name__})"
        return text, [check.trouble(text, remedy="start Prefect's server (`make up`, or its container), or correct KEEPER_PREFECT_API_URL")]
    allowed = house.settings.watchdog.runs_late_minutes
    text = (
        f"{ahead:,} runs are scheduled for the next {_AHEAD_MINUTES} minutes, {late:,} wait for a worker for more than {allowed:g} minutes"
    )
    troubles = []
    if not ahead:
        troubles.append(check.trouble(f"no run of Keeper's deployments is scheduled for the next {_AHEAD_MINUTES} minutes", "ahead"))
    if late:
        remedy = "see that a worker of their work pool runs, and that neither the pool nor its queue is paused"
        troubles.append(check.trouble(text, "late", remedy=remedy))
    return text, troubles


def _api(check: Check, house: House) -> Found:
    url = (house.settings.reports.api_url or "").rstrip("/")
    if not url:
        return "not asked: KEEPER_REPORTS_API_URL is unset", []
    try:
        status = httpx.get(f"{url}/health", timeout=house.settings.watchdog.timeout_seconds, verify=_trusting()).status_code
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        text = f"the REST API at {host_of(url)} does not answer ({type(error).__name__})"
        return text, [check.trouble(text)]
    text = f"the REST API at {host_of(url)} answers with status {status}"
    return text, [] if status == httpx.codes.OK else [check.trouble(text)]


def _outbox(check: Check, house: House) -> Found:
    allowed, most = house.settings.watchdog.outbox_minutes, house.settings.relay.largest_backlog
    with house.database.begin() as connection:
        queues = database.select_queues(connection, most=most)
    troubles = []
    for one in queues:
        if (one.oldest_seconds or 0) > allowed * _MINUTE or one.messages > most:
            many = f"more than {most:,}" if one.messages > most else f"{one.messages:,}"
            text = f"{many} messages wait for {one.sink}, the first for {span(one.oldest_seconds or 0)}"
            troubles.append(check.trouble(text, one.sink))
    waiting = [f"{one.messages:,} for {one.sink}" for one in queues if one.messages]
    return (f"waiting: {', '.join(waiting)}" if waiting else "nothing waits"), troubles


def _dead_letters(check: Check, house: House) -> Found:
    allowed = house.settings.watchdog.dead_letters
    with house.database.begin() as connection:
        queues = [one for one in database.select_queues(connection, most=0) if one.dead_letters]
        by_channel = database.count_dead_letters(connection, Sink.NOTIFY)
    troubles = []
    for one in queues:
        remedy = remedy_of(Backlog(one.sink, 0, 0, None, one.dead_letters))
        noisy = [(key, dead) for key, dead in by_channel.items() if dead > allowed][:_FEW_CHANNELS] if one.sink == Sink.NOTIFY else []
        # Each its own trouble, so that what one person never mends hides nobody else's.
        for key, dead in noisy:
            troubles.append(check.trouble(f"{dead:,} messages to channel {key} were given up", f"channel {key}", remedy=remedy))
        if (rest := one.dead_letters - sum(dead for _, dead in noisy)) > allowed:
            others = " in other channels" if noisy else ""
            troubles.append(check.trouble(f"{rest:,} messages to {one.sink} were given up{others}", one.sink, remedy=remedy))
    said = [f"{one.dead_letters:,} for {one.sink}" for one in queues]
    if house.settings.kafka.bootstrap_servers is not None:
        connection_ = kafka_connection(house.settings)
        for topic, drawer in DEAD_LETTERS.items():
            # A topic that is not there is the lag's trouble.
            with contextlib.suppress(KeeperError):
                dead = measure_old_lag(connection_, drawer, Group.DEAD_LETTERS, sent_before=house.machine_now())
                said += [f"{dead:,} of {topic}"] if dead else []
                if dead > allowed:
                    name = topic_name(connection_, drawer)
                    remedy = "`keeper dlq list` shows them with their reasons, `keeper dlq retry` brings them back"
                    troubles.append(check.trouble(f"{dead:,} messages in {name} were given up by their consumers", name, remedy=remedy))
    return (f"given up: {', '.join(said)}" if said else "nothing was given up"), troubles


def _lag(check: Check, house: House) -> Found:
    if house.settings.kafka.bootstrap_servers is None:
        return "Kafka is off", []
    connection, minutes = kafka_connection(house.settings), house.settings.watchdog.lag_minutes
    sent_before = house.machine_now() - timedelta(minutes=minutes)

    def measure(pair: tuple[Group, Topic]) -> int:
        return measure_old_lag(connection, pair[1], pair[0], sent_before=sent_before)

    with ThreadPoolExecutor(len(GROUPS), thread_name_prefix="lag") as pool:
        counted = list(zip(GROUPS, pool.map(measure, GROUPS), strict=True))
    troubles = []
    for (group, topic), lag in counted:
        name = group_name(connection, group)
        if lag:
            text = f"{lag:,} messages of {topic_name(connection, topic)} have waited for {name} for more than {minutes:g} minutes"
            troubles.append(check.trouble(text, name))
    return (troubles[0].text if troubles else f"no group is more than {minutes:g} minutes behind"), troubles


def _tokens(check: Check, house: House) -> Found:
    settings = house.settings.watchdog
    with house.database.begin() as connection:
        state = ledger.read_ledger(connection)
        if state.bucket is None:
            return "Keepa has not been asked for its tokens yet", []
        spent = ledger.select_spending(connection, since=state.now - timedelta(hours=1))
        demand = database.select_demand(
            connection,
            now=state.now,
            plain_tokens=cost_upper_bound(1, ProductOptions()),
            buybox_tokens=cost_upper_bound(1, ProductOptions(buybox=True)),
        )
    bucket = state.bucket
    ahead = forecast(
        bucket,
        now=state.now,
        reserved=sum(one.tokens for one in state.reservations if one.is_granted),
        planned_per_minute=demand,
        spent_per_minute=sum(one.tokens for one in spent) / 60,
    )
    balance = bucket.tokens_at(state.now)
    text = (
        f"{balance:,} of {bucket.capacity:,} tokens, refill {bucket.net_per_minute:g} a minute; the watches ask for {demand:.1f}, "
        f"{ahead.spent_per_minute:.1f} were spent a minute in the last hour"
    )
    short, troubles = ahead.minutes_until_empty_as_planned, []
    if bucket.net_per_minute <= 0:
        troubles.append(check.trouble(f"{text}; trackings on this key eat the whole refill", "refill", remedy="end trackings at Keepa"))
    elif short is not None and short < settings.tokens_hours * 60:
        troubles.append(check.trouble(f"{text}; they will be short in {span(short * _MINUTE)}", "forecast"))
    if balance < bucket.capacity * settings.tokens_pct / 100:
        remedy = "`keeper tokens` says who spends them; watches wait for the refill"
        troubles.append(check.trouble(text, "balance", remedy=remedy))
    return text, troubles


def _documents(check: Check, house: House) -> Found:
    if not house.settings.elasticsearch.url:
        return "Elasticsearch is off", []
    known = search_connection(house.settings)
    search = replace(known, timeout_seconds=min(known.timeout_seconds, house.settings.watchdog.timeout_seconds))
    settings, clock = house.settings.watchdog, house.clock()
    # The same products all day, so that what some of them lack is one trouble and not one that comes and goes.
    start = hashlib.sha256(house.now.date().isoformat().encode()).hexdigest()[:10].upper()
    with house.database.begin() as connection:
        asins = database.select_sample(connection, start=f"B0{start[:8]}", limit=settings.documents_asins)
        names = [one.name for one in sinks.select_sinks(connection)]
    said, troubles = [], []
    client = open_search_client(search)
    try:
        complaints = select_complaints(client, search)
        troubles += [check.trouble(one.text, f"{alias_name(search, one.alias)} itself", remedy="") for one in complaints]
        for alias in Alias:
            name = alias_name(search, alias)
            if is_rebuilding(search, alias, names):
                said.append(f"{name} is being rebuilt")
                continue
            if not any(one.is_live for one in list_indices(client, search, alias)):
                troubles.append(
                    check.trouble(f"there is no index behind {name}", name, remedy="the first relay makes it, and so does `make up`")
                )
                continue
            kept_days = {Alias.PRICES: house.settings.elasticsearch.prices_days}.get(alias)
            since = clock.now - _METRICS_WINDOW if alias is Alias.METRICS else clock.now - timedelta(days=kept_days) if kept_days else None
            # In this order: what is recorded meanwhile is no document that is missing.
            with house.database.begin() as connection:
                rows = database.count_documents(connection, TABLES[alias], asins, since=since)
            with house.database.begin() as connection:
                queues = {one.sink: one.messages for one in database.select_queues(connection, most=house.settings.relay.largest_backlog)}
            refresh(client, search, name)
            documents = count_matching(client, search, name, asins=None if alias is Alias.METRICS else asins, since=since)
            if documents > rows:
                with house.database.begin() as connection:
                    rows = database.count_documents(connection, TABLES[alias], asins, since=since)
            waiting = queues.get(Sink.SEARCH, 0)
            if alias is Alias.PRODUCTS:
                waiting = queues.get(Sink.ENRICH, 0) + queues.get(Sink.KAFKA, 0) + _enrichment_lag(house)
            missing = missing_documents(documents=documents, rows=rows, waiting=waiting, tolerated_pct=settings.documents_pct)
            of = "of the last day" if alias is Alias.METRICS else f"over {len(asins):,} products"
            text = f"{name} holds {documents:,} documents, PostgreSQL {rows:,} rows, {of}"
            said.append(text)
            if missing:
                what = f"{missing:,} documents are missing" if missing > 0 else f"{-missing:,} documents are too many"
                troubles.append(check.trouble(f"{text}: {what}", name, remedy=f"`keeper reindex {alias}` builds it anew from PostgreSQL"))
    finally:
        client.close()
    return "; ".join(said), troubles


def _enrichment_lag(house: House) -> int:
    """0 where that cannot be learned, which the lag's own check tells."""
    if house.settings.kafka.bootstrap_servers is None:
        return 0
    with contextlib.suppress(KeeperError):
        connection = kafka_connection(house.settings)
        return measure_old_lag(connection, Topic.RAW_PRODUCTS, Group.ENRICHMENT, sent_before=house.machine_now())
    return 0


def _scheduler(check: Check, house: House) -> Found:
    with house.database.begin() as connection:
        found = database.select_schedulers(connection, within_seconds=_SCHEDULER_SECONDS)
        state = ledger.read_ledger(connection)
    troubles = []
    places = ", ".join(f"{one.deployment_id} of {one.place}" for one in found)
    if len(found) > 1:
        troubles.append(check.trouble(f"{len(found)} schedulers run Keeper's jobs on this database: {places}", "schedulers"))
    since = timedelta(hours=house.settings.watchdog.foreign_hours)
    if state.foreign_seen_at is not None and state.now - state.foreign_seen_at < since:
        text = (
            f"somebody else spends tokens of this key: {state.foreign_tokens:,} so far, last seen "
            f"{state.foreign_seen_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        )
        remedy = "find the other program (an older system that was never removed?), or give Keeper a key of its own"
        troubles.append(check.trouble(text, "tokens", remedy=remedy))
    return (f"scheduled by {places}" if found else "no scheduler has run the watchdog of late"), troubles


def _disk(check: Check, house: House) -> Found:
    said, troubles = [], []
    for folder in dict.fromkeys([house.settings.data.resolve(), *(Path(word) for word in house.settings.watchdog.disks)]):
        there = next((one for one in (folder, *folder.parents) if one.exists()), folder)
        usage = shutil.disk_usage(there)
        text = f"{100 * usage.free / usage.total:.1f} % of the disk of {folder} is free, {usage.free / 1e9:,.1f} GB"
        said.append(text)
        if 100 * usage.free / usage.total < house.settings.watchdog.disk_free_pct:
            troubles.append(check.trouble(text, str(folder)))
    return "; ".join(said), troubles


def _clock(check: Check, house: House) -> Found:
    with house.database.begin() as connection:
        before = house.machine_now()
        theirs, _ = database.select_clocks(connection)
        ours = before + (house.machine_now() - before) / 2
    apart = (theirs - ours).total_seconds()
    text = f"the database's clock is {abs(apart):.1f} s {'ahead of' if apart > 0 else 'behind'} this machine's"
    return text, [check.trouble(text)] if abs(apart) > house.settings.watchdog.clock_seconds else []


def _certificates(check: Check, house: House) -> Found:
    kafka, search = house.settings.kafka, house.settings.elasticsearch
    own = house.settings.api.tls_cert
    words = [str(path) for path in (own, kafka.ca_file, kafka.cert_file, search.ca_file) if path is not None]
    words += [url for url in search.url if url.startswith("https:")]
    said, troubles = [], []
    for word in dict.fromkeys([*words, *house.settings.watchdog.certificates]):
        try:
            ends_at = _ends_at(word, house.settings.watchdog.timeout_seconds)
        except (OSError, ValueError) as error:
            text = f"the certificate of {_place_of(word)} cannot be read ({type(error).__name__})"
            troubles.append(check.trouble(text, _place_of(word), remedy="see that it is there, and KEEPER_WATCHDOG_CERTIFICATES names it"))
            continue
        left = (ends_at - house.machine_now()).total_seconds()
        how = f"expires in {span(left)}" if left > 0 else f"expired {span(-left)} ago"
        text = f"the certificate of {_place_of(word)} {how}, on {ends_at:%Y-%m-%d}"
        said.append(text)
        if left < house.settings.watchdog.certificate_days * 86400:
            troubles.append(check.trouble(text, _place_of(word)))
    return "; ".join(said) or "no certificate is named", troubles


def _ends_at(word: str, timeout_seconds: float) -> datetime:
    """When the first of the certificates in a file, or that of a server, expires."""
    if not word.startswith("https:"):
        return min(one.not_valid_after_utc for one in x509.load_pem_x509_certificates(Path(word).read_bytes()))
    parsed = urlsplit(word)
    context = _trusting()
    with (
        socket.create_connection((parsed.hostname or "", parsed.port or 443), timeout=timeout_seconds) as opened,
        context.wrap_socket(opened, server_hostname=parsed.hostname) as secured,
    ):
        return x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"").not_valid_after_utc


def _trusting() -> ssl.SSLContext:
    """Whether a certificate is trusted is another question; one that has expired is to be read, too. Nothing secret is sent."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _place_of(word: str) -> str:
    return host_of(word) if word.startswith("https:") else word


def _partitions(check: Check, house: House) -> Found:
    days = house.settings.watchdog.partition_days
    with house.database.begin() as connection:
        missing = partitions.select_missing(connection, now=installation.select_now(connection), days_ahead=days)
        # A simulator's clock may be months ahead by tonight; its rows are well in the default partition.
        judged = ("events",) if house.settings.is_simulated else ("events", "price_history")
        missing = [name for name in missing if name.startswith(judged)]
        astray = [name for name in judged if database.has_rows_outside(connection, name)]
    troubles = [check.trouble(f"missing for the next {days} days: {', '.join(missing)}", "ahead")] if missing else []
    troubles += [check.trouble(f"new rows of {name} are in its default partition, because there was no other", name) for name in astray]
    return (troubles[0].text if troubles else f"all are there for {days} days ahead"), troubles


def _channels(check: Check, house: House) -> Found:
    found, unreadable = _channels_of(house)
    text = "; ".join([f"{len(found)} channels are told" if found else "nobody is told of any trouble", *unreadable])
    return text, [check.trouble(text)] if unreadable or not found else []


CHECKS = (
    Check(
        DATABASE,
        "whether PostgreSQL answers and has this version's schema",
        (),
        "start it, or correct KEEPER_DATABASE_URL",
        _database,
        needs_database=False,
    ),
    Check(
        "prices",
        "how long checks of prices are overdue, by interval, and how old the newest price is",
        ("price_late_minutes", "price_late_pct"),
        "see that Prefect's worker runs and that tokens are left (`keeper doctor`, `keeper tokens`); `keeper check` checks what is due now",
        _prices,
    ),
    Check(
        "failing",
        "how many of the 1,000 products due next failed at their last check",
        ("failing_pct",),
        "`keeper doctor` says whether Keepa answers; `keeper watch list` says what failed",
        _failing,
    ),
    Check(
        "canary",
        "the price of one watch you name",
        ("canary", "canary_late_minutes"),
        "see that it is watched (`keeper watch add`) and that Keepa answers (`keeper doctor`)",
        _canary,
    ),
    Check(
        "runs",
        "scheduled runs ahead, and those that wait for a worker, by Prefect's API",
        ("runs_late_minutes", "timeout_seconds"),
        "`prefect deploy --all` makes the schedules; see in Prefect's UI that they are active, and start the server again",
        _runs,
        needs_database=False,
    ),
    Check(
        "api",
        "whether the REST API answers",
        ("timeout_seconds",),
        "start it (`make up`, or its container), or correct KEEPER_REPORTS_API_URL; its log says why it ended",
        _api,
        needs_database=False,
    ),
    Check(
        "outbox",
        "the oldest message that waits for each system, and how many wait",
        ("outbox_minutes",),
        "`keeper status` says which system is down; `keeper relay` delivers",
        _outbox,
    ),
    Check(
        "lag",
        "messages of Kafka's that the consumers have not worked on",
        ("lag_minutes",),
        "see that `keeper consume` runs and that Kafka answers (`keeper status`)",
        _lag,
        needs_database=False,
    ),
    Check("dead letters", "messages given up, for a system or by a consumer", ("dead_letters",), "`keeper doctor` says why", _dead_letters),
    Check(
        "tokens",
        "the balance at Keepa, and when it will be short",
        ("tokens_pct", "tokens_hours"),
        "watch less or less often, or take a larger plan; `keeper tokens` says who spends them",
        _tokens,
    ),
    Check(
        "documents",
        "how many documents the indices hold, and how many PostgreSQL would make",
        ("documents_pct", "documents_asins", "timeout_seconds"),
        "start Elasticsearch, or correct KEEPER_ELASTICSEARCH_URL; events wait meanwhile",
        _documents,
    ),
    Check(
        "scheduler",
        "whether one scheduler alone runs the jobs, and Keeper alone spends its tokens",
        ("foreign_hours",),
        "end the one that is not wanted and remove its deployments; both spend tokens",
        _scheduler,
    ),
    Check(
        "disk",
        "how much of each disk is free",
        ("disk_free_pct", "disks"),
        "make room, or KEEPER_KEEP_* days shorter",
        _disk,
        needs_database=False,
    ),
    Check("clock", "the database's clock beside the machine's", ("clock_seconds",), "let both follow a time server", _clock),
    Check(
        "certificates",
        "when certificates expire",
        ("certificate_days", "certificates", "timeout_seconds"),
        "renew it, and restart what has loaded it",
        _certificates,
        needs_database=False,
    ),
    Check(
        "partitions",
        "whether the partitions of the days ahead are there",
        ("partition_days",),
        "see that the flow maintenance runs each night, or run it by hand in Prefect's UI; nothing is lost meanwhile",
        _partitions,
    ),
    Check(
        "channels",
        "whether anybody would be told",
        ("apprise_urls",),
        "`keeper user add NAME --admin` and `keeper channel add` for them, or set KEEPER_WATCHDOG_APPRISE_URLS",
        _channels,
        needs_database=False,
    ),
)


# --- telling


@dataclass(frozen=True, slots=True)
class _Channel:
    """Where one operator is told.

    Attributes:
        key: by which it is remembered; says nothing of the URL.
    """

    key: str
    url: str = field(repr=False)


def _channels_of(house: House) -> tuple[list[_Channel], list[str]]:
    """The administrators' own, where they can be read, and those of the settings; none twice. And which cannot be, in words.

    Raises:
        KeeperError: there is no key to read any with.
    """
    unreadable = []
    given = house.settings.watchdog.apprise_urls
    urls = [] if given is None else [url.strip() for url in _URLS.split(given.get_secret_value()) if url.strip()]
    found = [_Channel(f"url:{hashlib.sha256(url.encode()).hexdigest()[:12]}", url) for url in dict.fromkeys(urls)]
    if house.engine is not None:
        with house.engine.begin() as connection:
            stored = database.select_operator_channels(connection)
        if stored:
            cipher = Resources(house.settings, house.engine, None, "").cipher()
            for one in stored:
                try:
                    url = cipher.decrypt(one.url_encrypted)
                except KeeperError as error:
                    unreadable.append(f"channel {one.channel_id} cannot be read: {error}"[:_LONGEST_TEXT])
                    continue
                if url not in urls:
                    found.append(_Channel(f"channel:{one.channel_id}", url))
    return found, unreadable


def _tell(house: House, seen: Sequence[Seen]) -> Round:
    memory = _Memory(house)
    with _held(house) as is_mine:
        if not is_mine:
            # It saw the same, and tells.
            return Round(tuple(seen))
        known = memory.read()
        calm = timedelta(minutes=house.settings.watchdog.calm_minutes)
        followed = follow(known, seen, now=house.now, calm=calm)
        before = {one.trouble.key for one in known if one.ended_at is None}
        opened = [one.trouble for one in followed if one.ended_at is None and one.trouble.key not in before]
        ended = [one.trouble for one in followed if one.ended_at == house.now]
        for trouble in opened:
            logger.warning("trouble with %s: %s", trouble.title, trouble.text)
        for trouble in ended:
            logger.warning("trouble with %s is over", trouble.title)
        problems, refused = memory.write(followed), []
        told = 0
        try:
            channels, unreadable = _channels_of(house)
            refused += unreadable
        except (KeeperError, SQLAlchemyError) as error:
            problems.append(f"the administrators' channels cannot be read: {str(error).splitlines()[0][:_LONGEST_TEXT]}")
            channels, _ = _channels_of(replace(house, engine=None))
        sender = channel_sender(house.settings)
        for channel in channels:
            news = news_for(channel.key, followed)
            if not news:
                continue
            try:
                sender.send(channel.url, compose_news(news, now=house.now), message_id=_message_id(channel, news))
            except KeeperError as error:
                logger.warning("an operator was not told: %s", error)
                refused.append(str(error)[:_LONGEST_TEXT])
                continue
            except Exception as error:  # noqa: BLE001  one channel may not stop the others, and its traceback may hold its URL
                logger.error("an operator was not told: %s while sending to %s", type(error).__name__, channel.key)
                refused.append(f"{type(error).__name__} while sending to {channel.key}")
                continue
            told += 1
            # After each, so that a crash repeats one message at most.
            followed = mark_told(followed, news, channel.key)
            problems += memory.write(followed)
    # One channel that refuses for weeks is seen in each round; it is no failure of the rounds while another one takes the message.
    is_heard = not problems and (not refused or all(one.told for one in followed if one.ended_at is None))
    return Round(tuple(seen), tuple(opened), tuple(ended), told, tuple(dict.fromkeys([*problems, *refused])), is_heard)


@contextmanager
def _held(house: House) -> Iterator[bool]:
    """One tells at a time, so that cron and the flow together tell once. Without the database each data folder tells for itself."""
    if house.engine is None:
        with _held_folder(house.settings.data) as is_mine:
            yield is_mine
        return
    with hold_job(house.engine, "watchdog/telling") as is_mine:
        yield is_mine


@contextmanager
def _held_folder(folder: Path) -> Iterator[bool]:
    """A folder that cannot be written is held, too: to tell twice is better than not to tell."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "watchdog.lock").open("w")
    except OSError:
        yield True
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def _message_id(channel: _Channel, news: News) -> str:
    """The same when the same is told again, because an answer was lost."""
    parts = [channel.key]
    parts += [f"{one.trouble.key} {one.opened_at.isoformat()} {one.ended_at is None}" for one in (*news.opened, *news.ended)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


class _Memory:
    """What is known of troubles: the table, and a file that is a copy of it."""

    def __init__(self, house: House) -> None:
        self._engine = house.engine
        self._file = house.settings.data / "watchdog.json"

    def read(self) -> list[Followed]:
        """Of both; what the file has from a time without the database is told and known, too."""
        noted = self._read_file()
        if self._engine is None:
            return noted
        with self._engine.begin() as connection:
            kept = database.select_troubles(connection)
        # An end that the table knows has no part in what the file still thinks open.
        over = {(one.trouble.key, one.opened_at) for one in kept if one.ended_at is not None}
        return merge(kept, [one for one in noted if (one.trouble.key, one.opened_at) not in over])

    def write(self, followed: Sequence[Followed]) -> list[str]:
        """Returns what could not be kept, in words."""
        problems = []
        if self._engine is not None:
            try:
                with self._engine.begin() as connection:
                    database.save_troubles(connection, followed)
            except SQLAlchemyError as error:
                problems.append(f"what was told is not kept in the database ({type(error).__name__})")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            new = self._file.with_suffix(".new")
            new.write_text(json.dumps([_encode(one) for one in followed], ensure_ascii=False), encoding="utf-8")
            new.replace(self._file)
        except OSError as error:
            problems.append(f"what was told is not kept in {self._file} ({type(error).__name__}): see KEEPER_DATA")
        return problems

    def _read_file(self) -> list[Followed]:
        try:
            return [_decode(one) for one in json.loads(self._file.read_text(encoding="utf-8"))]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s cannot be read (%s); open troubles may be told again", self._file, type(error).__name__)
            return []


def _encode(one: Followed) -> dict[str, object]:
    trouble = one.trouble
    return {
        "check": trouble.check,
        "about": trouble.about,
        "text": trouble.text,
        "remedy": trouble.remedy,
        "opened_at": one.opened_at.isoformat(),
        "seen_at": one.seen_at.isoformat(),
        "ended_at": one.ended_at and one.ended_at.isoformat(),
        "told": sorted(one.told),
        "told_end": sorted(one.told_end),
    }


def _decode(one: dict[str, str]) -> Followed:
    return Followed(
        Trouble(one["check"], one["about"], one["text"], one["remedy"]),
        datetime.fromisoformat(one["opened_at"]),
        datetime.fromisoformat(one["seen_at"]),
        datetime.fromisoformat(one["ended_at"]) if one["ended_at"] else None,
        frozenset(one["told"]),
        frozenset(one["told_end"]),
    )


def _beat(settings: Settings, *, is_whole: bool) -> str:
    """Ask for the heartbeat's address, which is a secret: past httpx, which logs addresses."""
    given = settings.watchdog.heartbeat_url
    if given is None:
        return "none: KEEPER_WATCHDOG_HEARTBEAT_URL is unset"
    if not is_whole:
        return "not sent: the round was not whole"
    parsed = urlsplit(given.get_secret_value())
    kind = http.client.HTTPSConnection if parsed.scheme == "https" else http.client.HTTPConnection
    try:
        opened = kind(parsed.hostname or "", parsed.port, timeout=settings.watchdog.timeout_seconds)
        try:
            opened.request("GET", (parsed.path or "/") + (f"?{parsed.query}" if parsed.query else ""))
            status = opened.getresponse().status
        finally:
            opened.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        logger.warning("the heartbeat's address does not answer (%s)", type(error).__name__)
        return f"failed ({type(error).__name__})"
    if not http.client.OK <= status < http.client.MULTIPLE_CHOICES:
        logger.warning("the heartbeat's address answers with status %d", status)
        return f"failed (status {status})"
    return "sent"
