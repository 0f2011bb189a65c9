"""The verb `relay`: from the outbox to one sink, in order per key, deleted only when the sink has acknowledged.

The promise: at least once. A message is repeated only where the process died, or lost its lock, between the far side's acknowledgement
and its storing, which follows at once; then with the same event id, so that Kafka's consumers, Elasticsearch and mail readers can tell.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

import psycopg
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from keeper.domain.alert import AlertUnreadable, decode_alert
from keeper.domain.errors import KeeperError, TransientError
from keeper.domain.events import OutboxMessage, Sink
from keeper.notify.channels import ChannelCipher
from keeper.notify.sender import ChannelRefused, ChannelSender, ChannelUnreachable
from keeper.postgres import alerts, outbox

logger = logging.getLogger(__name__)

_LONGEST_REASON = 500
_LONGEST_ROUND_SECONDS = 60.0
_LONGEST_RECONNECT_SECONDS = 30.0
# How soon a relay that waits for work notices that it shall end.
_STOP_SECONDS = 0.5


class SinkDown(TransientError):
    """The whole sink cannot be reached: no message is refused, no try is counted."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one message.

    Attributes:
        refusal: None when the sink acknowledged it.
        receipt: what the far side said on acknowledgement.
        retry_after_seconds: how long the far side asked to wait.
        is_final: no further try can help.
        is_unreachable: nobody answered, or the answer was `later`: no refusal is counted.
    """

    message: OutboxMessage
    refusal: str | None = None
    receipt: str = ""
    retry_after_seconds: float | None = None
    is_final: bool = False
    is_unreachable: bool = False


class DeliverySink(Protocol):
    """A system that takes events."""

    name: Sink
    batch_size: int
    shards_at_once: int

    def deliver(self, messages: Sequence[OutboxMessage], is_over: Callable[[], bool]) -> Iterator[list[Outcome]]:
        """Outcomes as they become known; a message without one stays where it is. Called by up to `shards_at_once` threads at a time.

        Within a key nothing is delivered after a refusal, or after a message without an outcome.

        Args:
            is_over: once it is true nothing more is sent; what is under way is finished.

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

    def add(self, other: "Relayed") -> None:
        """Sum up."""
        self.delivered += other.delivered
        self.refused += other.refused
        self.dead += other.dead
        self.down = self.down or other.down
        self.is_complete = self.is_complete and other.is_complete
        self.shards_elsewhere += other.shards_elsewhere


def relay(
    engine: Engine, sink: DeliverySink, *, settings: RelaySettings, longest_seconds: float, stop: threading.Event | None = None
) -> Relayed:
    """Deliver what waits for `sink` until nothing is deliverable, the sink is down, or time is up.

    Shards go side by side as far as the sink allows, so that a key that answers slowly holds back no other shard. A shard has one relay
    at a time, by a session lock on a connection of its own; no transaction waits on the sink.

    Args:
        longest_seconds: machine time; the message under way is still finished.
        stop: ends it early, between messages.
    """
    deadline = time.monotonic() + longest_seconds
    halt = threading.Event()

    def is_over() -> bool:
        return time.monotonic() >= deadline or halt.is_set() or (stop is not None and stop.is_set())

    done = Relayed()
    with engine.connect() as lock_connection:
        shards = outbox.select_shards(lock_connection, sink.name)
        lock_connection.commit()
        if not shards:
            return done
        locks = _ShardLocks(lock_connection, sink.name)
        with ThreadPoolExecutor(min(sink.shards_at_once, len(shards)), thread_name_prefix=f"relay-{sink.name}") as pool:
            running = [pool.submit(_relay_shard, engine, locks, sink, shard, settings, is_over) for shard in shards]
            try:
                for future in as_completed(running):
                    done.add(future.result())
                    if done.down:
                        halt.set()
            finally:
                halt.set()
    return done


def keep_relaying(
    engine: Engine,
    sinks: Sequence[DeliverySink],
    *,
    settings: RelaySettings,
    stop: threading.Event,
    sweep_seconds: float = 30.0,
    on_listening: Callable[[], None] = lambda: None,
    on_relayed: Callable[[Sink, Relayed], None] = lambda _sink, _done: None,
) -> None:
    """Relay until `stop` is set: when a recording transaction calls, when a postponed message is due, and every `sweep_seconds`.

    A database that goes away is waited for, with growing pauses.

    Args:
        on_listening: called after each (new) connection has begun to listen.
        on_relayed: told after each round, empty ones included.
    """
    losses = 0
    while not stop.is_set():
        try:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as bell:
                try:
                    outbox.listen(bell)
                    on_listening()
                    while not stop.is_set():
                        wait_seconds = sweep_seconds
                        for sink in sinks:
                            done = relay(engine, sink, settings=settings, longest_seconds=_LONGEST_ROUND_SECONDS, stop=stop)
                            on_relayed(sink.name, done)
                            wait_seconds = min(wait_seconds, _seconds_to_next(engine, sink.name, done, sweep_seconds))
                        losses = 0
                        _wait(bell, stop, wait_seconds)
                finally:
                    # Back in the pool it would go on listening.
                    bell.invalidate()
        except (DBAPIError, psycopg.OperationalError) as error:
            if isinstance(error, DBAPIError) and not error.connection_invalidated and not isinstance(error.orig, psycopg.OperationalError):
                raise
            losses += 1
            pause_seconds = min(_LONGEST_RECONNECT_SECONDS, 0.5 * 2 ** min(losses, 10)) * random.uniform(0.5, 1.0)
            logger.warning("PostgreSQL does not answer (%s); trying again in %.0f s", type(error).__name__, pause_seconds)
            stop.wait(pause_seconds)


def _seconds_to_next(engine: Engine, sink: Sink, done: Relayed, sweep_seconds: float) -> float:
    if done.down is not None:
        return sweep_seconds
    if not done.is_complete:
        return 0.0
    with engine.begin() as connection:
        due_seconds = outbox.next_try_in_seconds(connection, sink)
    # What is overdue and still there is held by another relay, or by an earlier message of its key.
    return sweep_seconds if due_seconds is None else max(1.0, due_seconds)


def _wait(bell: Connection, stop: threading.Event, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not stop.is_set() and (left := deadline - time.monotonic()) > 0:
        if outbox.wait_for_notice(bell, longest_seconds=min(left, _STOP_SECONDS)):
            return


class _ShardLocks:
    """The session locks of one call of `relay`, all on one connection that its threads share."""

    def __init__(self, connection: Connection, sink: Sink) -> None:
        self._connection = connection
        self._sink = sink
        self._mutex = threading.Lock()

    @contextmanager
    def hold(self, shard: int) -> Iterator[bool]:
        """Yields False at once when another relay has the shard."""
        with self._mutex:
            held = outbox.try_lock_shard(self._connection, self._sink, shard)
            self._connection.commit()
        try:
            yield held
        finally:
            # With the connection the lock is gone, and the error that says so is under way already.
            with self._mutex, suppress(SQLAlchemyError):
                if held and not self._connection.invalidated:
                    outbox.unlock_shard(self._connection, self._sink, shard)
                    self._connection.commit()

    def check(self) -> None:
        """A lost connection, and with it a lost lock, shows here, before anything more is delivered."""
        with self._mutex:
            self._connection.execute(text("SELECT 1"))
            self._connection.commit()


def _relay_shard(
    engine: Engine, locks: _ShardLocks, sink: DeliverySink, shard: int, settings: RelaySettings, is_over: Callable[[], bool]
) -> Relayed:
    done = Relayed()
    with locks.hold(shard) as held:
        if not held:
            done.shards_elsewhere.append(shard)
            return done
        try:
            _deliver_shard(engine, locks, sink, shard, settings, is_over, done)
        except SinkDown as error:
            done.down = str(error)
            done.is_complete = False
    return done


def _deliver_shard(
    engine: Engine,
    locks: _ShardLocks,
    sink: DeliverySink,
    shard: int,
    settings: RelaySettings,
    is_over: Callable[[], bool],
    done: Relayed,
) -> None:
    after_id = 0
    while True:
        if is_over():
            done.is_complete = False
            return
        locks.check()
        with engine.begin() as connection:
            messages = outbox.select_messages(connection, sink.name, shard, after_id=after_id, limit=sink.batch_size)
        if not messages:
            return
        _deliver_batch(engine, sink, shard, messages, settings, is_over, done)
        after_id = messages[-1].id


def _deliver_batch(
    engine: Engine,
    sink: DeliverySink,
    shard: int,
    messages: Sequence[OutboxMessage],
    settings: RelaySettings,
    is_over: Callable[[], bool],
    done: Relayed,
) -> None:
    """Where one acknowledgement cannot be stored, the others under way are stored as far as they can be: each lost one is a repeat."""
    failures: list[SQLAlchemyError] = []
    try:
        for outcomes in sink.deliver(messages, lambda: bool(failures) or is_over()):
            try:
                with engine.begin() as connection:
                    _acknowledge(connection, sink, shard, outcomes, settings, done)
            except SQLAlchemyError as error:
                failures.append(error)
    finally:
        if failures:
            raise failures[0]


def _acknowledge(
    connection: Connection, sink: DeliverySink, shard: int, outcomes: Iterable[Outcome], settings: RelaySettings, done: Relayed
) -> None:
    taken = []
    for outcome in outcomes:
        tries = outcome.message.tries + 1
        is_dead = outcome.refusal is not None and _is_dead(outcome, settings)
        sink.store(connection, outcome, is_dead=is_dead)
        if outcome.refusal is None:
            taken.append(outcome.message.id)
        elif is_dead:
            outbox.bury_message(connection, sink.name, shard, outcome.message.id, reason=outcome.refusal)
            done.dead += 1
            logger.error("%s: message %s is dead after %d tries: %s", sink.name, outcome.message.event_id, tries, outcome.refusal)
        else:
            wait_seconds = settings.wait_seconds(tries, outcome.retry_after_seconds)
            outbox.postpone_message(
                connection,
                sink.name,
                shard,
                outcome.message.id,
                wait_seconds=wait_seconds,
                failure=outcome.refusal,
                is_refusal=not outcome.is_unreachable,
            )
            done.refused += 1
            logger.warning("%s: message %s not taken (try %d): %s", sink.name, outcome.message.event_id, tries, outcome.refusal)
    if taken:
        outbox.delete_messages(connection, sink.name, shard, taken)
        done.delivered += len(taken)


def _is_dead(outcome: Outcome, settings: RelaySettings) -> bool:
    """Refusals are counted; an outage is not the message's fault and ends it by age only."""
    if outcome.is_unreachable:
        return outcome.message.failing_seconds >= settings.longest_unreachable_seconds
    return outcome.is_final or outcome.message.refusals + 1 >= settings.most_tries


class AlertSink:
    """Alerts to people's channels, one message each; channels side by side, each channel in order."""

    name = Sink.NOTIFY
    batch_size = 200
    shards_at_once = outbox.SHARDS

    def __init__(self, engine: Engine, sender: ChannelSender, cipher: ChannelCipher, *, at_once: int = 8) -> None:
        self._engine = engine
        self._sender = sender
        self._cipher = cipher
        self._at_once = at_once

    def deliver(self, messages: Sequence[OutboxMessage], is_over: Callable[[], bool]) -> Iterator[list[Outcome]]:
        """One outcome at a time, as each far side answers."""
        unread: list[SQLAlchemyError] = []
        waiting: dict[str, list[OutboxMessage]] = {}
        for message in messages:
            waiting.setdefault(message.key, []).append(message)
        with ThreadPoolExecutor(max_workers=min(self._at_once, len(waiting))) as pool:
            running = {pool.submit(self._send, queue.pop(0), is_over): key for key, queue in waiting.items()}
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
                        running[pool.submit(self._send, waiting[key].pop(0), is_over)] = key
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

    def _send(self, message: OutboxMessage, is_over: Callable[[], bool]) -> Outcome | None:
        # Asked here, because what was submitted may have waited long for a thread.
        if is_over():
            return None
        with self._engine.begin() as connection:
            pending = alerts.select_delivery(connection, message.payload["delivery_id"])
        if pending is None:
            return Outcome(message, receipt="the channel was deleted")
        if pending.status == "delivered":
            return Outcome(message, receipt="delivered before")
        try:
            receipt = self._sender.send(
                self._cipher.decrypt(pending.url_encrypted), decode_alert(message.payload["alert"]), message_id=str(message.event_id)
            )
        except ChannelUnreachable as error:
            return Outcome(
                message, refusal=error.reason[:_LONGEST_REASON], retry_after_seconds=error.retry_after_seconds, is_unreachable=True
            )
        except ChannelRefused as error:
            return Outcome(message, refusal=error.reason[:_LONGEST_REASON])
        except AlertUnreadable as error:
            return Outcome(message, refusal=str(error)[:_LONGEST_REASON], is_final=True)
        except KeeperError as error:
            return Outcome(message, refusal=str(error)[:_LONGEST_REASON])
        except Exception as error:
            logger.exception("delivery %s failed in a way nobody foresaw", message.event_id)
            return Outcome(message, refusal=f"{type(error).__name__} while sending")
        return Outcome(message, receipt=receipt.answer)
