"""The verb `relay`: from the outbox to one sink, in order per key, deleted only when the sink has acknowledged.

The promise: at least once. A message is repeated only where the process died, or lost its lock, between the far side's acknowledgement
and its storing, which follows at once; then with the same event id, so that Kafka's consumers, Elasticsearch and mail readers can tell.
"""

import gc
import logging
import random
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import PendingRollbackError, SQLAlchemyError

from keeper.domain.alert import AlertUnreadable, PriceAlert, decode_alert
from keeper.domain.delivery import Outcome, SinkDown, Turn
from keeper.domain.errors import KeeperError, TransientError
from keeper.domain.events import EventKind, OutboxMessage, Sink
from keeper.domain.opportunity_alert import decode_opportunity_alert
from keeper.domain.report import ReportUnreadable, decode_deal_alert
from keeper.notify.channels import ChannelCipher
from keeper.notify.message import Message
from keeper.notify.opportunity import compose_opportunity_alert
from keeper.notify.report import compose_content, compose_deal_alert
from keeper.notify.sender import ChannelRefused, ChannelSender, ChannelUnreachable
from keeper.postgres import alerts, outbox
from keeper.postgres.alerts import PendingDelivery
from keeper.postgres.engine import answering_within, is_away

logger = logging.getLogger(__name__)

_LONGEST_REASON = 500
_LONGEST_ROUND_SECONDS = 60.0
_LONGEST_RECONNECT_SECONDS = 30.0
_FIRST_FAULT_SECONDS = 1.0
_LONGEST_FAULT_SECONDS = 300.0
# How soon a relay that waits for work notices that it shall end.
_STOP_SECONDS = 0.5
# Read, sent and deleted together, and held together: fewer leave more to another relay.
_SHARDS_TOGETHER = 8
# Objects that may hold others, made and not dropped; some pages of messages have so many.
_COLLECT_EVERY = 50_000
_LOOK_SECONDS = 1.0
# What is asked on the connection of the locks is answered at once, or nobody is there.
_LOCK_ANSWER_SECONDS = 8.0
# The server's side of the same: it frees the shards of a relay that it has not heard of for so long, and that looks every second.
_LONGEST_SILENCE_SECONDS = 20.0
# How often a listener that hears nothing asks whether anybody is there.
_BELL_SECONDS = 15.0


class RelayBusy(TransientError):
    """Not everything could be delivered now."""


class DeliverySink(Protocol):
    """A system that takes events.

    Attributes:
        name: of its row in `sinks`.
        batch_size: messages it likes to take at once.
        shards_at_once: how many threads may call `deliver` at a time, each for a group of shards.
    """

    name: str
    batch_size: int
    shards_at_once: int

    def connect(self) -> None:
        """One cheap probe, before the first batch and after an outage; makes topics or indices that are missing.

        Raises:
            SinkDown: nobody is there.
        """

    def deliver(self, messages: Sequence[OutboxMessage], turn: Turn) -> Iterator[list[Outcome]]:
        """Outcomes as they become known; a message without one stays where it is.

        Within a key nothing is delivered after a refusal, or after a message without an outcome.

        Raises:
            SinkDown: nobody is there, said after the outcomes that are known.
        """

    def store(self, connection: Connection, outcome: Outcome, *, is_dead: bool) -> None:
        """Note what the sink keeps of an outcome, in the transaction that acknowledges it."""


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """How often and how long a message is tried.

    Attributes:
        most_tries: after so many refusals it goes to the dead letters.
        first_wait_seconds: after the first try in vain; doubled each time, with jitter of half of it.
        longest_wait_seconds: the ceiling.
        longest_unreachable_seconds: where nobody answers, it goes to the dead letters so long after its first try.
    """

    most_tries: int = 12
    first_wait_seconds: float = 15.0
    longest_wait_seconds: float = 3600.0
    longest_unreachable_seconds: float = 3 * 86400.0

    def wait_seconds(self, tries: int, retry_after_seconds: float | None) -> float:
        """Wait before the next try, after `tries` tries in vain (at least 1)."""
        backoff = min(self.longest_wait_seconds, self.first_wait_seconds * 2.0 ** min(tries - 1, 30))
        jittered: float = backoff * random.uniform(0.5, 1.0)
        return max(jittered, min(retry_after_seconds or 0.0, self.longest_wait_seconds))


class Circuit:
    """What is known of one sink's health: while it is open nothing is tried; then one probe decides. Safe to share between threads."""

    def __init__(self, *, first_wait_seconds: float = 0.5, longest_wait_seconds: float = 30.0) -> None:
        self._first_wait_seconds = first_wait_seconds
        self._longest_wait_seconds = longest_wait_seconds
        self._mutex = threading.Lock()
        self._is_closed = False
        self._failures = 0
        self._open_until = 0.0
        self._reason = ""

    def admit(self, connect: Callable[[], None]) -> None:
        """Let a batch through. Where the sink was not seen at work since it last failed, `connect` is the one probe.

        Raises:
            SinkDown: it was away a moment ago, or is now.
        """
        with self._mutex:
            if self._is_closed:
                return
            if (wait_seconds := self._open_until - time.monotonic()) > 0:
                raise SinkDown(f"{self._reason} (tried again in {wait_seconds:.0f} s)")
            try:
                connect()
            except SinkDown as error:
                self._open(error)
                raise
            self._is_closed = True

    def note_work(self) -> None:
        """The sink acknowledged something. Only that begins the waits anew: a probe may be answered by one that takes nothing."""
        with self._mutex:
            self._failures = 0

    def open(self, error: SinkDown) -> None:
        """The sink went away: nothing more until the wait, longer each time, with jitter, is over."""
        with self._mutex:
            self._open(error)

    def _open(self, error: SinkDown) -> None:
        backoff = min(self._longest_wait_seconds, self._first_wait_seconds * 2.0 ** min(self._failures, 30))
        self._is_closed = False
        self._failures += 1
        self._reason = str(error)
        self._open_until = time.monotonic() + backoff * random.uniform(0.5, 1.0)

    @property
    def wait_seconds(self) -> float:
        """Until the next probe, at least 0."""
        return max(0.0, self._open_until - time.monotonic()) if not self._is_closed else 0.0


@dataclass(slots=True)
class Relayed:
    """What one call of `relay` did.

    Attributes:
        down: why the sink could not be reached.
        is_complete: nothing deliverable was left, or others relay it.
    """

    delivered: int = 0
    refused: int = 0
    dead: int = 0
    down: str | None = None
    is_complete: bool = True
    shards_elsewhere: list[int] = field(default_factory=list)

    @property
    def known(self) -> int:
        """Messages with an outcome."""
        return self.delivered + self.refused + self.dead

    def add(self, other: "Relayed") -> None:
        """Sum up."""
        self.delivered += other.delivered
        self.refused += other.refused
        self.dead += other.dead
        self.down = self.down or other.down
        self.is_complete = self.is_complete and other.is_complete
        self.shards_elsewhere += other.shards_elsewhere


def relay(
    engine: Engine,
    sink: DeliverySink,
    *,
    settings: RelaySettings,
    longest_seconds: float,
    stop: threading.Event | None = None,
    circuit: Circuit | None = None,
) -> Relayed:
    """Deliver what waits for `sink` until nothing is deliverable, the sink is down, or time is up.

    As many groups of shards go side by side as the sink allows, so that a key that answers slowly holds back no other group; a group's
    messages travel together, because a sink takes a thousand at once at the cost of a few. A shard has one relay at a time, by a session
    lock on a connection of its own; no transaction waits on the sink.

    Args:
        longest_seconds: machine time; the message under way is still finished.
        stop: ends it early, between messages.
        circuit: what earlier calls in this process learned of the sink.
    """
    circuit = circuit or Circuit()
    deadline = time.monotonic() + longest_seconds
    halt, lost = threading.Event(), threading.Event()

    def is_over() -> bool:
        return time.monotonic() >= deadline or halt.is_set() or lost.is_set() or (stop is not None and stop.is_set())

    done = Relayed()
    with _lock_connection(engine) as lock_connection:
        shards = outbox.select_shards(lock_connection, sink.name)
        if not shards:
            return done
        try:
            circuit.admit(sink.connect)
        except SinkDown as error:
            return Relayed(down=str(error), is_complete=False)
        locks = _ShardLocks(lock_connection, sink.name)
        turn = Turn(is_over, lost.is_set)
        with (
            answering_within(lock_connection, _LOCK_ANSWER_SECONDS),
            locks.watch(lost),
            ThreadPoolExecutor(min(sink.shards_at_once, len(shards)), thread_name_prefix=f"relay-{sink.name}") as pool,
        ):
            groups = max(-(-len(shards) // _SHARDS_TOGETHER), min(sink.shards_at_once, len(shards)))
            running = [
                pool.submit(_relay_shards, engine, locks, sink, shards[first::groups], settings, turn, circuit) for first in range(groups)
            ]
            failures = []
            try:
                for future in as_completed(running):
                    # The other groups go on: the sink failed in a way nobody foresaw over what was in this one.
                    if (failed := future.exception()) is not None:
                        failures.append(failed)
                    else:
                        done.add(future.result())
                    if done.down or any(is_away(one) for one in failures):
                        halt.set()
            finally:
                halt.set()
            if failures:
                raise failures[0]
    return done


def relay_all(
    engine: Engine,
    sinks: Sequence[DeliverySink],
    *,
    settings: RelaySettings,
    longest_seconds: float,
    circuits: Mapping[str, Circuit] | None = None,
) -> dict[str, Relayed]:
    """`relay` for each sink, side by side: one that is down or slow delays no other. Returns what was done, by sink.

    Raises:
        SQLAlchemyError: the database failed one of them; the others were still waited for.
    """

    def relay_one(sink: DeliverySink) -> Relayed:
        return relay(engine, sink, settings=settings, longest_seconds=longest_seconds, circuit=(circuits or {}).get(sink.name))

    with ThreadPoolExecutor(max(1, len(sinks)), thread_name_prefix="relay") as pool:
        running = {sink.name: pool.submit(relay_one, sink) for sink in sinks}
    return {name: future.result() for name, future in running.items()}


def keep_relaying(
    engine: Engine,
    sinks: Sequence[DeliverySink],
    *,
    settings: RelaySettings,
    stop: threading.Event,
    sweep_seconds: float = 30.0,
    circuits: Mapping[str, Circuit] | None = None,
    on_listening: Callable[[], None] = lambda: None,
    on_relayed: Callable[[str, Relayed], None] = lambda _sink, _done: None,
) -> None:
    """Relay until `stop` is set: when a recording transaction calls, when a postponed message is due, and every `sweep_seconds`.

    Each sink has a thread of its own, so that one that is down or slow delays no other. A database that goes away is waited for, with
    growing pauses; so is a sink that fails in a way nobody foresaw, which is told in the log.

    Args:
        on_listening: called after each (new) connection has begun to listen.
        on_relayed: told after each round, empty ones included.
    """
    rings = {sink.name: threading.Event() for sink in sinks}
    end = threading.Event()  # of the threads: `stop`, or the listener has failed

    def keep_one(sink: DeliverySink) -> None:
        circuit = (circuits or {}).get(sink.name) or Circuit()
        ring = rings[sink.name]
        faults = _Faults(sink.name)

        def relay_round() -> None:
            ring.clear()
            done = relay(engine, sink, settings=settings, longest_seconds=_LONGEST_ROUND_SECONDS, stop=stop, circuit=circuit)
            on_relayed(sink.name, done)
            faults.forget()
            wait_seconds = circuit.wait_seconds if done.down else _seconds_to_next(engine, sink.name, done, sweep_seconds)
            if done.down:
                _wait_for_one((end, stop), wait_seconds)
            else:
                ring.wait(wait_seconds)

        def outlive_faults() -> None:
            try:
                relay_round()
            except Exception as error:
                if is_away(error):
                    raise
                _wait_for_one((end, stop), faults.note(error))

        try:
            _while_database_lives(outlive_faults, (end, stop))
        finally:
            end.set()

    def listen_round() -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as bell:
            try:
                outbox.listen(bell)
                on_listening()
                while not (end.is_set() or stop.is_set()):
                    _ring_all(rings)
                    _wait_for_notice(bell, (end, stop))
            finally:
                # Back in the pool it would go on listening.
                bell.invalidate()

    with _collecting_seldom(), ThreadPoolExecutor(len(sinks), thread_name_prefix="keep-relaying") as pool:
        running = [pool.submit(keep_one, sink) for sink in sinks]
        try:
            _while_database_lives(listen_round, (end, stop))
        finally:
            end.set()
            _ring_all(rings)
    for future in running:
        future.result()


def drain(engine: Engine, sink: DeliverySink, *, settings: RelaySettings, longest_seconds: float, then: Callable[[], None]) -> Relayed:
    """Hold every shard of `sink`, deliver all that waits, call `then`, and deliver what has come meanwhile, before letting go.

    Raises:
        SinkDown: it went away; `then` may or may not have been called.
        RelayBusy: somebody else holds a shard, or refused messages wait for a later try.
    """
    deadline = time.monotonic() + longest_seconds
    done, lost = Relayed(), threading.Event()
    turn = Turn(lambda: time.monotonic() >= deadline or lost.is_set(), lost.is_set)
    shards = range(outbox.SHARDS)
    with _lock_connection(engine) as lock_connection, answering_within(lock_connection, _LOCK_ANSWER_SECONDS):
        locks = _ShardLocks(lock_connection, sink.name)
        with locks.hold(shards) as held, locks.watch(lost):
            if len(held) < len(shards):
                raise RelayBusy(f"another relay delivers to {sink.name}")
            for is_last in (False, True):
                _deliver_shards(engine, locks, sink, shards, settings, turn, done)
                if done.refused or not done.is_complete:
                    raise RelayBusy(
                        f"{done.refused} messages were not taken by {sink.name}" if done.refused else f"{sink.name} is too slow"
                    )
                if not is_last:
                    then()
    return done


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Let the collector alone with what is there now, which stays until the end of the service, and with what a page makes and drops.

    As it is set by itself it looked at the whole program with every few thousand messages, which took longer than the messages.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _ring_all(rings: Mapping[str, threading.Event]) -> None:
    for ring in rings.values():
        ring.set()


def _while_database_lives(work: Callable[[], None], ends: Sequence[threading.Event]) -> None:
    """Repeat `work` until one of `ends` is set; where the database goes away, after a pause."""
    losses = 0
    while not any(end.is_set() for end in ends):
        try:
            work()
            losses = 0
        except Exception as error:
            if not is_away(error):
                raise
            losses += 1
            pause_seconds = min(_LONGEST_RECONNECT_SECONDS, 0.5 * 2 ** min(losses, 10)) * random.uniform(0.5, 1.0)
            logger.warning("PostgreSQL does not answer (%s); trying again in %.0f s", type(error).__name__, pause_seconds)
            _wait_for_one(ends, pause_seconds)


class _Faults:
    """How often in a row a sink has failed in a way nobody foresaw: such a sink is tried ever more rarely, and ends no other."""

    def __init__(self, sink: str) -> None:
        self._sink = sink
        self._told = ""
        self._number = 0

    def note(self, error: Exception) -> float:
        """Tell it, with its traceback unless that was told before. Returns the seconds until the next try."""
        self._number += 1
        longest = min(_LONGEST_FAULT_SECONDS, _FIRST_FAULT_SECONDS * 2.0 ** min(self._number - 1, 30))
        wait_seconds = longest * random.uniform(0.5, 1.0)
        trace = _trace_of(error)
        told = "" if trace == self._told else f"\n{trace}"
        self._told = trace
        name = type(error).__name__
        logger.error("%s failed in a way nobody foresaw (%s); trying again in %.0f s%s", self._sink, name, wait_seconds, told)
        return wait_seconds

    def forget(self) -> None:
        """It works."""
        self._number = 0


def _trace_of(error: BaseException) -> str:
    """Where an error came from, the first cause first. The names of errors only: their texts may hold what was sent, or a secret."""
    parts = []
    known: BaseException | None = error
    while known is not None:
        parts.append("".join(traceback.format_tb(known.__traceback__)) + type(known).__qualname__)
        known = known.__cause__ or (None if known.__suppress_context__ else known.__context__)
    return "\n".join(reversed(parts))


def _wait_for_one(ends: Sequence[threading.Event], longest_seconds: float) -> None:
    deadline = time.monotonic() + longest_seconds
    while (left := deadline - time.monotonic()) > 0 and not any(end.is_set() for end in ends):
        ends[0].wait(min(left, _STOP_SECONDS))


def _seconds_to_next(engine: Engine, sink: str, done: Relayed, sweep_seconds: float) -> float:
    if not done.is_complete:
        return 0.0
    with engine.begin() as connection:
        due_seconds = outbox.next_try_in_seconds(connection, sink)
    # What is overdue and still there is held by another relay, or by an earlier message of its key.
    return sweep_seconds if due_seconds is None else min(sweep_seconds, max(1.0, due_seconds))


def _wait_for_notice(bell: Connection, ends: Sequence[threading.Event]) -> None:
    asked_at = time.monotonic()
    while not any(end.is_set() for end in ends):
        if outbox.wait_for_notice(bell, longest_seconds=_STOP_SECONDS):
            return
        if time.monotonic() - asked_at > _BELL_SECONDS:
            # That nobody calls and that nobody is there sound the same.
            bell.execute(text("SELECT 1"))
            asked_at = time.monotonic()


def _lock_connection(engine: Engine) -> Connection:
    """For session locks; nothing of it belongs into a transaction."""
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


class _ShardLocks:
    """The session locks of one call of `relay`, all on one connection that its threads share."""

    def __init__(self, connection: Connection, sink: str) -> None:
        self._connection = connection
        self._sink = sink
        self._mutex = threading.Lock()

    @contextmanager
    def hold(self, shards: Sequence[int]) -> Iterator[list[int]]:
        """Yields at once those that no other relay has."""
        with self._mutex:
            held = outbox.try_lock_shards(self._alive(), self._sink, shards)
        try:
            yield held
        finally:
            with self._mutex:
                if held and not self._connection.invalidated:
                    self._unlock(held)

    def check(self) -> None:
        """A lost connection, and with it a lost lock, shows here, before anything more is delivered."""
        with self._mutex:
            self._alive().execute(text("SELECT 1"))

    def _alive(self) -> Connection:
        """The connection, unless it has gone: SQLAlchemy would open another one, which has no locks."""
        if self._connection.invalidated:
            raise PendingRollbackError("the connection that held the locks has gone")
        return self._connection

    def _unlock(self, shards: Sequence[int]) -> None:
        try:
            outbox.unlock_shards(self._connection, self._sink, shards)
        except SQLAlchemyError:
            # Ended, if it has not gone by itself: back in the pool it would hold the locks for good.
            self._connection.invalidate()

    @contextmanager
    def watch(self, lost: threading.Event) -> Iterator[None]:
        """Look every second, so that a lost lock ends even a delivery that waits for the far side; sets `lost` then.

        A look has an end of its own: a server behind a proxy that acknowledges for it would be waited for without one.
        """
        over = threading.Event()

        def look() -> None:
            while not over.wait(_LOOK_SECONDS):
                try:
                    self.check()
                except SQLAlchemyError:
                    lost.set()
                    return

        watcher = threading.Thread(target=look, name="relay-locks")
        self._limit_silence(_LONGEST_SILENCE_SECONDS)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            with suppress(SQLAlchemyError):
                self._limit_silence(None)

    def _limit_silence(self, seconds: float | None) -> None:
        with self._mutex:
            connection = self._alive()
            try:
                outbox.limit_silence(connection, seconds=seconds)
            except SQLAlchemyError:
                connection.invalidate()
                raise


def _relay_shards(
    engine: Engine, locks: _ShardLocks, sink: DeliverySink, shards: Sequence[int], settings: RelaySettings, turn: Turn, circuit: Circuit
) -> Relayed:
    done = Relayed()
    with locks.hold(shards) as held:
        done.shards_elsewhere += [shard for shard in shards if shard not in held]
        if not held:
            return done
        try:
            _deliver_group(engine, locks, sink, held, settings, turn, done)
        except SinkDown as error:
            circuit.open(error)
            done.down = str(error)
            done.is_complete = False
        else:
            if done.delivered:
                circuit.note_work()
    return done


def _deliver_group(
    engine: Engine, locks: _ShardLocks, sink: DeliverySink, shards: Sequence[int], settings: RelaySettings, turn: Turn, done: Relayed
) -> None:
    try:
        _deliver_shards(engine, locks, sink, shards, settings, turn, done)
    except SinkDown:
        raise
    except Exception as error:
        if len(shards) == 1 or is_away(error):
            raise
        # A message over which the sink fails in a way nobody foresaw stops its own shard only.
        for shard in shards:
            try:
                _deliver_shards(engine, locks, sink, [shard], settings, turn, done)
            except SinkDown:
                raise
            except Exception as failed:
                if is_away(failed):
                    raise
        raise


def _deliver_shards(
    engine: Engine, locks: _ShardLocks, sink: DeliverySink, shards: Sequence[int], settings: RelaySettings, turn: Turn, done: Relayed
) -> None:
    after = dict.fromkeys(shards, 0)
    while True:
        if turn.is_over():
            done.is_complete = False
            return
        locks.check()
        with engine.begin() as connection:
            page = outbox.select_messages(connection, sink.name, after, limit=sink.batch_size)
        if page.gone:
            with engine.begin() as connection:
                outbox.delete_messages(connection, sink.name, page.gone)
            done.dead += len(page.gone)
            logger.error("%s: %d events are not kept any more and cannot be delivered", sink.name, len(page.gone))
        if not page.messages:
            if page.gone:
                continue
            return
        known = _deliver_batch(engine, sink, page.messages, settings, turn, done)
        if not known:
            done.is_complete = False
            return
        # Not one that is dead: its row is gone, and nothing would hold a later page's messages of its key behind those it has here.
        refused = {outcome.message.key for outcome in known.values() if outcome.refusal is not None and not _is_dead(outcome, settings)}
        is_whole = len(known) == len(page.messages) or all(message.seq in known or message.key in refused for message in page.messages)
        # Else read once more: neither past what has no outcome, nor past what may still come to light.
        if is_whole and page.is_settled:
            after.update((message.shard, message.seq) for message in page.messages)


def _deliver_batch(
    engine: Engine,
    sink: DeliverySink,
    messages: Sequence[OutboxMessage],
    settings: RelaySettings,
    turn: Turn,
    done: Relayed,
) -> dict[int, Outcome]:
    """Returns the outcomes by number.

    Where one acknowledgement cannot be stored, the others under way are stored as far as they can be: each lost one is a repeat.
    """
    known: dict[int, Outcome] = {}
    failures: list[SQLAlchemyError] = []

    def is_over() -> bool:
        return bool(failures) or turn.is_over()

    try:
        for outcomes in sink.deliver(messages, Turn(is_over, turn.is_lost)):
            known.update((outcome.message.seq, outcome) for outcome in outcomes)
            try:
                with engine.begin() as connection:
                    _acknowledge(connection, sink, outcomes, settings, done)
            except SQLAlchemyError as error:
                failures.append(error)
    finally:
        if failures:
            raise failures[0]
    return known


def _acknowledge(connection: Connection, sink: DeliverySink, outcomes: Iterable[Outcome], settings: RelaySettings, done: Relayed) -> None:
    taken = []
    for outcome in map(_storable, outcomes):
        message = outcome.message
        if outcome.refusal is None:
            sink.store(connection, outcome, is_dead=False)
            taken.append((message.shard, message.seq))
            continue
        tries = message.tries + 1
        is_dead = _is_dead(outcome, settings)
        sink.store(connection, outcome, is_dead=is_dead)
        if is_dead:
            outbox.bury_message(connection, sink.name, message.shard, message.seq, reason=outcome.refusal)
            done.dead += 1
            logger.error("%s: message %s is dead after %d tries: %s", sink.name, message.event_id, tries, outcome.refusal)
        else:
            wait_seconds = settings.wait_seconds(tries, outcome.retry_after_seconds)
            outbox.postpone_message(
                connection,
                sink.name,
                message.shard,
                message.seq,
                wait_seconds=wait_seconds,
                failure=outcome.refusal,
                is_refusal=not outcome.is_unreachable,
            )
            done.refused += 1
            logger.warning("%s: message %s not taken (try %d): %s", sink.name, message.event_id, tries, outcome.refusal)
    if taken:
        outbox.delete_messages(connection, sink.name, taken)
        done.delivered += len(taken)


def _storable(outcome: Outcome) -> Outcome:
    """PostgreSQL's texts have no NUL. Whoever answers one would have his message sent to him for ever, its outcome never being stored."""
    if "\0" not in outcome.receipt and (outcome.refusal is None or "\0" not in outcome.refusal):
        return outcome
    return outcome._replace(receipt=outcome.receipt.replace("\0", ""), refusal=outcome.refusal and outcome.refusal.replace("\0", ""))


def _is_dead(outcome: Outcome, settings: RelaySettings) -> bool:
    """Refusals are counted; an outage is not the message's fault and ends it by age only."""
    if outcome.is_unreachable:
        return outcome.message.failing_seconds >= settings.longest_unreachable_seconds
    return outcome.is_final or outcome.message.refusals + 1 >= settings.most_tries


class UnusableSink:
    """Stands for a sink whose settings cannot work: down until somebody mends them."""

    batch_size = 1
    shards_at_once = 1

    def __init__(self, name: str, reason: str) -> None:
        self.name = str(name)
        self._reason = reason

    def connect(self) -> None:
        """Say why."""
        raise SinkDown(self._reason)

    def deliver(self, messages: Sequence[OutboxMessage], turn: Turn) -> Iterator[list[Outcome]]:  # noqa: ARG002
        """Say why."""
        raise SinkDown(self._reason)

    def store(self, connection: Connection, outcome: Outcome, *, is_dead: bool) -> None:
        """There is no outcome."""


class AlertSink:
    """Alerts and reports to people's channels, one message each; channels side by side, each channel in order."""

    name: str = Sink.NOTIFY.value
    batch_size = 200
    shards_at_once = outbox.SHARDS

    def __init__(self, engine: Engine, sender: ChannelSender, cipher: ChannelCipher, *, at_once: int = 8) -> None:
        self._engine = engine
        self._sender = sender
        self._cipher = cipher
        self._at_once = at_once

    def connect(self) -> None:
        """Channels are reached one by one."""

    def deliver(self, messages: Sequence[OutboxMessage], turn: Turn) -> Iterator[list[Outcome]]:
        """One outcome at a time, as each far side answers."""
        unread: list[SQLAlchemyError] = []
        waiting: dict[str, list[OutboxMessage]] = {}
        for message in messages:
            waiting.setdefault(message.key, []).append(message)
        with ThreadPoolExecutor(max_workers=min(self._at_once, len(waiting))) as pool:
            running = {pool.submit(self._send, queue.pop(0), turn): key for key, queue in waiting.items()}
            while running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    key = running.pop(future)
                    try:
                        outcome = future.result()
                    except SQLAlchemyError as error:
                        unread.append(error)
                        continue
                    if outcome is None:
                        continue
                    # Acknowledged before the channel's next message leaves, so that a crash repeats at most one.
                    yield [outcome]
                    if outcome.refusal is None and waiting[key]:
                        running[pool.submit(self._send, waiting[key].pop(0), turn)] = key
        if unread:
            # Not passed over in silence: a later batch would let the channel's next message overtake.
            raise SinkDown(f"{len(unread)} deliveries could not be read from the database ({type(unread[0]).__name__})") from unread[0]

    def store(self, connection: Connection, outcome: Outcome, *, is_dead: bool) -> None:
        """The channel's receipt, or why there is none."""
        delivery_id = outcome.message.payload["delivery_id"]
        if outcome.refusal is None:
            alerts.mark_delivered(connection, delivery_id, receipt=outcome.receipt)
        else:
            alerts.mark_failed(connection, delivery_id, failure=outcome.refusal, is_dead=is_dead)

    def _send(self, message: OutboxMessage, turn: Turn) -> Outcome | None:
        # Asked here, because what was submitted may have waited long for a thread.
        if turn.is_over():
            return None
        with self._engine.begin() as connection:
            pending = alerts.select_delivery(connection, message.payload["delivery_id"])
        if pending is None:
            return Outcome(message, receipt="the channel was deleted")
        if pending.status == "delivered":
            return Outcome(message, receipt="delivered before")
        try:
            receipt = self._sender.send(self._cipher.decrypt(pending.url_encrypted), _told(message, pending), message_id=message.event_id)
        except ChannelUnreachable as error:
            return Outcome(
                message, refusal=error.reason[:_LONGEST_REASON], retry_after_seconds=error.retry_after_seconds, is_unreachable=True
            )
        except ChannelRefused as error:
            return Outcome(message, refusal=error.reason[:_LONGEST_REASON])
        except (AlertUnreadable, ReportUnreadable) as error:
            return Outcome(message, refusal=str(error)[:_LONGEST_REASON], is_final=True)
        except KeeperError as error:
            return Outcome(message, refusal=str(error)[:_LONGEST_REASON])
        except Exception as error:
            logger.exception("delivery %s failed in a way nobody foresaw", message.event_id)
            return Outcome(message, refusal=f"{type(error).__name__} while sending")
        return Outcome(message, receipt=receipt.answer)


def _told(message: OutboxMessage, pending: PendingDelivery) -> PriceAlert | Message:
    """What the channel is told: by the event itself, or by the row it points to, which never changes.

    Raises:
        AlertUnreadable, ReportUnreadable: another version of Keeper wrote it.
    """
    if message.kind is EventKind.ALERT:
        return decode_alert(message.payload["alert"])
    content = pending.content or {}
    if message.kind is EventKind.DEAL_ALERT:
        return compose_deal_alert(decode_deal_alert(content))
    if message.kind is EventKind.OPPORTUNITY_ALERT:
        return compose_opportunity_alert(decode_opportunity_alert(content))
    return compose_content(content)
