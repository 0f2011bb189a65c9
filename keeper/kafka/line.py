"""Idempotent producers: a line is one of them, from its making to the first trouble; then the next one is made.

A message counts as delivered on the broker's acknowledgement of that message. Keys keep their order, because the producer numbers what
it sends and a key has one partition. What it cannot say for sure (a time-out, a purge) is not told, and whoever sent it sends it again.
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from keeper.domain.delivery import SinkDown, Turn
from keeper.domain.errors import KeeperError
from keeper.kafka.connection import BrokerVoice, KafkaConnection, KafkaRefused, check_connection, open_client, producer_config, told
from keeper.kafka.topics import TopicSettings, ensure

logger = logging.getLogger(__name__)

# Below the limit of any topic that was not given a smaller one.
_BATCH_BYTES = 1_000_000
_SMALLEST_BATCH_BYTES = 1_000
_POLL_EVERY = 500
_POLL_SECONDS = 0.005
# A slow batch is told in parts.
_TELL_SECONDS = 0.5
# Purged messages come back at once.
_PURGE_SECONDS = 2.0

_TOO_LARGE: Final = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_MSG_SIZE)
# The brokers say no to this very message.
_REFUSED: Final = (KafkaError.INVALID_RECORD, KafkaError.INVALID_TIMESTAMP, KafkaError.POLICY_VIOLATION)
# Nothing is wrong with it: it travelled with one that was refused, or was called back.
_TRAVELLED_WITH_REFUSED = KafkaError._INVALID_DIFFERENT_RECORD  # type: ignore[attr-defined]  # the stubs are older
_UNKNOWN: Final = (_TRAVELLED_WITH_REFUSED, KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)
_NO_TOPIC: Final = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)

Headers = list[tuple[str, str | bytes]]


class Record(NamedTuple):
    """What is sent; a tuple, because it is made for every message and thrice as fast.

    Attributes:
        topic: full name.
        key: decides the partition; None goes to any.
    """

    topic: str
    key: str | bytes | None
    value: str | bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class Refusal:
    """The brokers do not take a message.

    Attributes:
        is_final: it can never be taken as it is.
        is_unreachable: its topic takes none of ours until somebody does something: not the message's fault.
    """

    reason: str
    is_final: bool
    is_unreachable: bool = False


class Line:
    """One idempotent producer. Safe to share between threads.

    Attributes:
        batch_bytes: a message of at least so many bytes travels alone.
        next_batch_bytes: what the next line shall have.
        fault: why it cannot be used any more.
    """

    def __init__(self, connection: KafkaConnection, *, batch_bytes: int = _BATCH_BYTES) -> None:
        self.batch_bytes = self.next_batch_bytes = batch_bytes
        self.fault: SinkDown | None = None
        self._connection = connection
        self._voice = BrokerVoice(connection)
        self._producer = open_client(connection, Producer, producer_config(connection, batch_bytes=batch_bytes), self._voice)

    def probe(self) -> None:
        """One question to any broker.

        Raises:
            SinkDown: none answers in time.
        """
        try:
            self._producer.list_topics(timeout=self._connection.connect_timeout_seconds)
        except KafkaException as error:
            self._producer.poll(0)
            raise self._voice.down(told(error)) from error
        self._voice.forget()

    def send(self, records: Sequence[Record], turn: Turn) -> Iterator[Mapping[int, Refusal | None]]:
        """Send, and tell by place in `records` what became of them: None is the acknowledgement. What is not told is not known.

        Raises:
            SinkDown: what is left cannot be known; said after all that is.
        """
        flight = _Flight()
        try:
            for place, record in enumerate(records):
                if place % _POLL_EVERY == 0:
                    self._poll(0)
                if not self._produce(flight, place, record, turn):
                    break
            give_up_at, tell_at = None, time.monotonic() + _TELL_SECONDS
            while not turn.is_lost():
                is_whole = flight.is_whole
                if is_whole or time.monotonic() >= tell_at:
                    tell_at = time.monotonic() + _TELL_SECONDS
                    if verdicts := self._verdicts(flight, records):
                        yield verdicts
                if is_whole:
                    break
                self._poll(_POLL_SECONDS)
                if self._is_failing(flight):
                    give_up_at = give_up_at or time.monotonic() + _PURGE_SECONDS
                    self._producer.purge(blocking=False)
                    if time.monotonic() >= give_up_at:
                        break
        finally:
            if not flight.is_whole:
                self.discard()
        if self.fault is not None and not turn.is_lost():
            raise self.fault

    def discard(self, fault: SinkDown | None = None) -> None:
        """Drop what is queued and under way; nothing of it is acknowledged to anybody any more."""
        self.fault = self.fault or fault or SinkDown("the producer was thrown away while it was sending")
        self._producer.purge(blocking=False)
        self._producer.poll(0)

    def _poll(self, seconds: float) -> None:
        self._producer.poll(seconds)
        if self._voice.is_fatal and self.fault is None:
            self.fault = self._voice.down()

    def _produce(self, flight: "_Flight", place: int, record: Record, turn: Turn) -> bool:
        """False when there is no going on."""
        while self.fault is None and not turn.is_over():
            try:
                self._producer.produce(
                    record.topic, record.value, record.key, on_delivery=partial(flight.note, place), headers=record.headers
                )
            except BufferError:
                self._poll(_POLL_SECONDS)
                continue
            except KafkaException as error:
                flight.note(place, told(error), None)
            flight.sent += 1
            return True
        return False

    def _is_failing(self, flight: "_Flight") -> bool:
        return self.fault is not None or any(error.code() not in _JUDGED for error in list(flight.errors.values()))

    def _verdicts(self, flight: "_Flight", records: Sequence[Record]) -> dict[int, Refusal | None]:
        """What has come in since the last call. Sets `fault`."""
        verdicts: dict[int, Refusal | None] = {}
        for place in flight.take():
            error = flight.errors.get(place)
            if error is None:
                verdicts[place] = None
            elif (refusal := self._judge(error, records[place])) is not None:
                verdicts[place] = refusal
        if verdicts:
            self._voice.forget()
        return verdicts

    def _judge(self, error: KafkaError, record: Record) -> Refusal | None:
        code = error.code()
        if code in _TOO_LARGE:
            size = _size(record)
            if size >= self.batch_bytes or self.batch_bytes < _SMALLEST_BATCH_BYTES:
                return Refusal(f"{size} bytes are too large for topic {record.topic} ({error.str()})", is_final=True)
            # The whole batch was refused, and this one may be small. Smaller batches will tell.
            self.next_batch_bytes = self.batch_bytes // 2
            self._fail(SinkDown(f"topic {record.topic} takes no batch of {self.batch_bytes} bytes; trying smaller ones"))
        elif code in _REFUSED:
            return Refusal(f"topic {record.topic} does not take it ({error.str()})", is_final=False)
        elif code in _NO_TOPIC:
            self._fail(SinkDown(f"Kafka at {self._connection.place} has no topic {record.topic}; it is made at the next connect"))
        elif code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            reason = f"Kafka at {self._connection.place} does not let us write to topic {record.topic} ({error.str()})"
            return Refusal(reason, is_final=False, is_unreachable=True)
        elif code == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
            self._fail(SinkDown(f"Kafka at {self._connection.place} does not let us write ({error.str()})"))
        elif code not in _UNKNOWN:
            self._fail(self._voice.down(error))
        return None

    def _fail(self, fault: SinkDown) -> None:
        self.fault = self.fault or fault


_JUDGED: Final = frozenset((*_REFUSED, *_UNKNOWN, *_TOO_LARGE, KafkaError.TOPIC_AUTHORIZATION_FAILED))


class _Flight:
    """The records of one `send` under way. librdkafka's callbacks fill it, from whichever thread polls, so they only append."""

    def __init__(self) -> None:
        self.sent = 0
        self.errors: dict[int, KafkaError] = {}
        self._answered: list[int] = []
        self._taken = 0

    @property
    def is_whole(self) -> bool:
        """Everything sent was answered."""
        return len(self._answered) == self.sent

    def note(self, place: int, error: KafkaError | None, _message: Message | None) -> None:
        if error is not None:
            self.errors[place] = error
        self._answered.append(place)

    def take(self) -> list[int]:
        """The places answered since the last call."""
        taken = self._answered[self._taken :]
        self._taken += len(taken)
        return taken


def _size(record: Record) -> int:
    return sum(len(part.encode() if isinstance(part, str) else part) for part in (record.key, record.value) if part is not None)


@dataclass(slots=True)
class Lines:
    """The line in use: makes topics and lines as they are needed. Safe to share between threads.

    Raises:
        KafkaRefused: settings that cannot work.
    """

    connection: KafkaConnection
    settings: TopicSettings
    _line: Line | None = None
    _batch_bytes: int = _BATCH_BYTES
    _is_ensured: bool = False
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        check_connection(self.connection)

    def connect(self) -> None:
        """A cheap probe; the first time and after each trouble also makes topics that are missing.

        Raises:
            SinkDown: no broker answers, or they cannot be used.
        """
        with self._mutex:
            try:
                if self._is_ensured:
                    self._opened().probe()
                    return
                ensured = ensure(self.connection, self.settings)
                self._opened()
            except SinkDown:
                self._is_ensured = False
                raise
            except KeeperError as error:
                raise SinkDown(str(error)) from error
            self._is_ensured = True
        for name in ensured.made:
            logger.info("made topic %s", name)
        for complaint in ensured.complaints:
            logger.warning("%s", complaint)

    def current(self) -> Line:
        """The line to send on.

        Raises:
            SinkDown: the settings do not work any more.
        """
        with self._mutex:
            try:
                return self._opened()
            except KafkaRefused as error:
                raise SinkDown(str(error)) from error

    def ready(self) -> Line:
        """The line to send on; the first time and after each trouble only once the topics were looked at.

        Raises:
            SinkDown: no broker answers, or they cannot be used.
        """
        if not self._is_ensured:
            self.connect()
        return self.current()

    def retire(self, line: Line) -> None:
        """The next one is another, after the topics were looked at again."""
        line.discard()
        with self._mutex:
            if self._line is line:
                self._line = None
                self._batch_bytes = line.next_batch_bytes
                self._is_ensured = False

    def close(self) -> None:
        """Drop what is still under way."""
        with self._mutex:
            line, self._line = self._line, None
        if line is not None:
            line.discard()

    def _opened(self) -> Line:
        if self._line is None or self._line.fault is not None:
            if self._line is not None:
                self._batch_bytes = self._line.next_batch_bytes
            self._line = Line(self.connection, batch_bytes=self._batch_bytes)
        return self._line
