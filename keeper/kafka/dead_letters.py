"""Messages that cannot be read: kept in `<topic>.dlq` with the reason, looked at, and sent to their topic again.

Which ones were sent again is remembered by the offsets of the group `keeper-dlq`: everything before the offset, and the ones above it that
are listed in its metadata.
"""

import json
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from keeper.domain.delivery import SinkDown
from keeper.domain.errors import KeeperError
from keeper.kafka.connection import BrokerVoice, KafkaConnection, consumer_config, open_client, told
from keeper.kafka.consumer import ReceivedMessage, decode_message, select_bounds, select_committed, select_partitions
from keeper.kafka.line import Headers, Record, Refusal
from keeper.kafka.producer import Publisher
from keeper.kafka.topics import DEAD_LETTERS, Group, Topic, group_name, topic_name

RETRY_OF: Final = "keeper-retry-of"
REASON: Final = "keeper-reason"
TOPIC: Final = "keeper-topic"
PARTITION: Final = "keeper-partition"
OFFSET: Final = "keeper-offset"
TIMESTAMP: Final = "keeper-timestamp"
CUT_FROM: Final = "keeper-cut-from"
_OURS = frozenset((REASON, TOPIC, PARTITION, OFFSET, TIMESTAMP, CUT_FROM))
_LONGEST_REASON = 2000
# What a topic of any limit takes.
_CUT_BYTES = 100_000
_AT_ONCE = 500
_POLL_SECONDS = 0.2
# Kafka keeps 4096 bytes of metadata by default.
_MOST_METADATA_BYTES = 4000


class DeadLetterRefused(KeeperError):
    """Cannot be sent again, or is not there; the text says why."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be read.

    Attributes:
        partition, offset: where it lies among the dead letters.
        topic: full name of the topic it comes from; empty where somebody else put it here.
        source_partition, source_offset: where it was there; None where somebody else put it here.
        key, value: the original bytes.
        headers: those of the original.
        cut_from_bytes: the size of the original, where only its beginning was kept.
    """

    partition: int
    offset: int
    reason: str
    topic: str
    source_partition: int | None
    source_offset: int | None
    timestamp_ms: int | None
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    cut_from_bytes: int | None


def bury(publisher: Publisher, connection: KafkaConnection, topic: Topic, dead: Sequence[tuple[ReceivedMessage, str]]) -> None:
    """Keep messages of `topic`, each with the reason why it cannot be read. Returns when the brokers have them: commit after that.

    An original that is too large even there is cut.

    Raises:
        SinkDown: not all are known to be kept.
        KeeperError: the brokers do not take them.
    """
    name = topic_name(connection, DEAD_LETTERS[topic])
    for start in range(0, len(dead), _AT_ONCE):
        records = [_record(name, message, reason) for message, reason in dead[start : start + _AT_ONCE]]
        refusals = publisher.publish(records)
        too_large = [record for record, refusal in zip(records, refusals, strict=True) if refusal is not None and refusal.is_final]
        _raise_first([refusal for refusal in refusals if refusal is not None and not refusal.is_final])
        _raise_first(publisher.publish([_cut(record) for record in too_large]))


def list_dead_letters(connection: KafkaConnection, topic: Topic, *, limit: int = 1000, longest_seconds: float = 30.0) -> list[DeadLetter]:
    """The dead letters of `topic` that were not sent again, oldest first per partition, at most `limit`.

    Raises:
        SinkDown: no broker answers, or not all could be read in time.
    """
    with _opened(connection, topic) as drawer:
        return drawer.read(limit, longest_seconds)


def read_dead_letter(connection: KafkaConnection, topic: Topic, partition: int, offset: int) -> DeadLetter:
    """One of them, sent again or not.

    Raises:
        SinkDown: no broker answers in time.
        DeadLetterRefused: it is not there.
    """
    with _opened(connection, topic) as drawer:
        return drawer.read_one(partition, offset)


def retry(
    publisher: Publisher,
    connection: KafkaConnection,
    topic: Topic,
    *,
    only: tuple[int, int] | None = None,
    limit: int = 1000,
    longest_seconds: float = 30.0,
) -> int:
    """Send dead letters to their topic again as they were, with the header `keeper-retry-of`; then note that.

    A crash between the two sends them once more. One that still cannot be read comes back as a new dead letter.

    Args:
        only: partition and offset of a single one; None means all that were not sent again, at most `limit`.

    Returns:
        How many were sent.

    Raises:
        SinkDown: no broker answers, or not all are known to have arrived.
        DeadLetterRefused: it is not there, or was cut, or the topic does not take it.
    """
    with _opened(connection, topic) as drawer:
        letters = drawer.read(limit, longest_seconds) if only is None else [drawer.read_one(*only)]
        # What was cut is no original any more; asked for all, the others go.
        whole = [letter for letter in letters if letter.cut_from_bytes is None]
        if only is not None and not whole:
            raise DeadLetterRefused(f"dead letter {only[0]}/{only[1]} of {drawer.name} was too large to be kept whole")
        drawer.check_room(whole)
        target = topic_name(connection, topic)
        sent = 0
        for start in range(0, len(whole), _AT_ONCE):
            part = whole[start : start + _AT_ONCE]
            refusals = publisher.publish([_original(target, drawer.name, letter) for letter in part])
            taken = [letter for letter, refusal in zip(part, refusals, strict=True) if refusal is None]
            drawer.note_retried(taken)
            sent += len(taken)
            _raise_first(refusals)
    return sent


class _Drawer:
    """The dead letters of one topic, and which of them were sent again."""

    def __init__(self, connection: KafkaConnection, name: str) -> None:
        self.name = name
        self._committed: list[KafkaError | None] = []
        self._voice = BrokerVoice(connection)
        config = consumer_config(connection, group_name(connection, Group.DEAD_LETTERS))
        config |= {"enable.partition.eof": True, "on_commit": self._on_commit}
        self._client = open_client(connection, Consumer, config, self._voice)
        self._seconds = connection.connect_timeout_seconds
        self._next: dict[int, int] = {}
        self._above: dict[int, set[int]] = {}

    def open(self, connection: KafkaConnection) -> None:
        """Ask what was sent again."""
        numbers = select_partitions(self._client, connection, self._voice, self.name)
        try:
            asked = [TopicPartition(self.name, number) for number in numbers]
            for one in select_committed(self._client, asked, deadline=time.monotonic() + self._seconds):
                self._next[one.partition] = max(0, one.offset)
                self._above[one.partition] = _decode_above(one.metadata)
        except KafkaException as error:
            raise self._voice.down(told(error)) from error

    def close(self) -> None:
        self._client.close()

    def read(self, limit: int, longest_seconds: float) -> list[DeadLetter]:
        deadline = time.monotonic() + longest_seconds
        starts, ends = {}, {}
        for number, offset in self._next.items():
            oldest, end = self._bounds(number)
            if max(oldest, offset) < end:
                starts[number], ends[number] = max(oldest, offset), end
        letters: list[DeadLetter] = []
        for message in self._messages(starts, ends, deadline):
            if message.offset not in self._above[message.partition]:
                letters.append(_decode(message))
                if len(letters) >= limit:
                    break
        return sorted(letters, key=lambda letter: (letter.partition, letter.offset))

    def read_one(self, partition: int, offset: int) -> DeadLetter:
        if partition in self._next:
            oldest, end = self._bounds(partition)
            if oldest <= offset < end:
                deadline = time.monotonic() + self._seconds
                for message in self._messages({partition: offset}, {partition: offset + 1}, deadline):
                    if message.offset == offset:
                        return _decode(message)
        raise DeadLetterRefused(f"there is no dead letter {partition}/{offset} in {self.name}")

    def check_room(self, letters: Collection[DeadLetter]) -> None:
        """Before anything is sent.

        Raises:
            DeadLetterRefused: too many single ones were sent again before.
        """
        for number, offset, above in self._noted(letters):
            if len(_encode_above(above)) > _MOST_METADATA_BYTES:
                raise DeadLetterRefused(
                    f"too many single dead letters of {self.name} were sent again out of order; begin with the oldest, {number}/{offset}"
                )

    def note_retried(self, letters: Collection[DeadLetter]) -> None:
        offsets = []
        for number, offset, above in self._noted(letters):
            self._next[number], self._above[number] = offset, above
            offsets.append(TopicPartition(self.name, number, offset, _encode_above(above)))
        if offsets:
            self._commit(offsets)

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._committed += [error or one.error for one in partitions]

    def _commit(self, offsets: list[TopicPartition]) -> None:
        # librdkafka's own waiting has no bound.
        self._committed.clear()
        deadline = time.monotonic() + self._seconds
        try:
            self._client.commit(offsets=offsets, asynchronous=True)
            while len(self._committed) < len(offsets) and time.monotonic() < deadline:
                self._client.poll(_POLL_SECONDS)
        except KafkaException as error:
            raise self._voice.down(told(error)) from error
        failure = next((error for error in self._committed if error is not None), None)
        if failure is not None or len(self._committed) < len(offsets):
            raise self._voice.down(failure)

    def _noted(self, letters: Collection[DeadLetter]) -> Iterator[tuple[int, int, set[int]]]:
        for number in {letter.partition for letter in letters}:
            above = self._above[number] | {letter.offset for letter in letters if letter.partition == number}
            offset = max(self._next[number], self._bounds(number)[0])
            while offset in above:
                offset += 1
            yield number, offset, {one for one in above if one > offset}

    def _bounds(self, partition: int) -> tuple[int, int]:
        return select_bounds(self._client, self._voice, self.name, partition, deadline=time.monotonic() + self._seconds)

    def _messages(self, starts: dict[int, int], ends: dict[int, int], deadline: float) -> Iterator[ReceivedMessage]:
        """From each start up to what was the end when it was asked for, or until the deadline."""
        unread = set(starts)
        self._client.assign([TopicPartition(self.name, number, offset) for number, offset in starts.items()])
        try:
            while unread:
                if time.monotonic() >= deadline:
                    raise SinkDown(f"the dead letters of {self.name} could not all be read in time")
                for message in self._client.consume(_AT_ONCE, timeout=_POLL_SECONDS):
                    number, error = int(message.partition() or 0), message.error()
                    if error is not None:
                        if error.code() != KafkaError._PARTITION_EOF:
                            raise self._voice.down(error)
                        unread.discard(number)
                        continue
                    received = decode_message(message)
                    if received.offset < ends[number]:
                        yield received
                    if received.offset >= ends[number] - 1:
                        unread.discard(number)
        finally:
            self._client.unassign()


@contextmanager
def _opened(connection: KafkaConnection, topic: Topic) -> Iterator[_Drawer]:
    drawer = _Drawer(connection, topic_name(connection, DEAD_LETTERS[topic]))
    try:
        drawer.open(connection)
        yield drawer
    finally:
        drawer.close()


def _record(name: str, message: ReceivedMessage, reason: str) -> Record:
    headers: list[tuple[str, Any]] = [
        *(header for header in message.headers if header[0] not in _OURS),
        (REASON, reason[:_LONGEST_REASON]),
        (TOPIC, message.topic),
        (PARTITION, str(message.partition)),
        (OFFSET, str(message.offset)),
    ]
    if message.timestamp_ms is not None:
        headers.append((TIMESTAMP, str(message.timestamp_ms)))
    return Record(name, message.key, message.value, headers)


def _cut(record: Record) -> Record:
    value = record.value or b""
    headers: Headers = [(name, told) for name, told in record.headers if name in _OURS]
    return Record(record.topic, (record.key or b"")[:1000], value[:_CUT_BYTES], [*headers, (CUT_FROM, str(len(value)))])


def _original(target: str, drawer: str, letter: DeadLetter) -> Record:
    headers: list[tuple[str, Any]] = [header for header in letter.headers if header[0] != RETRY_OF]
    return Record(target, letter.key, letter.value, [*headers, (RETRY_OF, f"{drawer}/{letter.partition}/{letter.offset}")])


def _decode(message: ReceivedMessage) -> DeadLetter:
    noted = {name: (value or b"").decode(errors="replace") for name, value in message.headers if name in _OURS}
    return DeadLetter(
        partition=message.partition,
        offset=message.offset,
        reason=noted.get(REASON, ""),
        topic=noted.get(TOPIC, ""),
        source_partition=_number(noted.get(PARTITION)),
        source_offset=_number(noted.get(OFFSET)),
        timestamp_ms=_number(noted.get(TIMESTAMP)),
        key=message.key,
        value=message.value,
        headers=tuple(header for header in message.headers if header[0] not in _OURS),
        cut_from_bytes=_number(noted.get(CUT_FROM)),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _encode_above(offsets: Collection[int]) -> str:
    """Offsets as ranges, because they mostly lie side by side."""
    ranges: list[list[int]] = []
    for offset in sorted(offsets):
        if ranges and ranges[-1][1] == offset - 1:
            ranges[-1][1] = offset
        else:
            ranges.append([offset, offset])
    return json.dumps(ranges, separators=(",", ":"))


def _decode_above(metadata: str | None) -> set[int]:
    if not metadata:
        return set()
    return {offset for first, last in json.loads(metadata) for offset in range(first, last + 1)}


def _raise_first(refusals: Sequence[Refusal | None]) -> None:
    for refusal in refusals:
        if refusal is not None:
            raise DeadLetterRefused(refusal.reason)
