"""Members of a consumer group: batches in, offsets committed by the caller after the write.

What was read and not committed is delivered again, to this member or another one; nothing else is.
"""

import logging
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from keeper.domain.delivery import SinkDown
from keeper.domain.errors import KeeperError
from keeper.kafka.connection import BrokerVoice, KafkaConnection, KafkaRefused, check_connection, consumer_config, open_client, told
from keeper.kafka.topics import Group, Topic, TopicSettings, ensure, group_name, topic_name

logger = logging.getLogger(__name__)

# After the first message the others of a batch are waited for so long.
_GATHER_SECONDS = 0.05
_TRY_AGAIN_SECONDS = 1.0
_COMMIT_POLL_SECONDS = 0.005
_COORDINATOR_SECONDS = 0.1

_NOT_ALLOWED: Final = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)
_NO_TOPIC: Final = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)
_MOVING: Final = (*_NO_TOPIC, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.REPLICA_NOT_AVAILABLE)
# A group's coordinator begins, moves, or was never asked for before.
_NO_COORDINATOR: Final = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)
# Others have the partitions now.
_NO_MEMBER: Final = (
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError._ASSIGNMENT_LOST,
)


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message as the broker has it.

    Attributes:
        topic: full name.
        timestamp_ms: since 1970, as its producer or broker set it; None where there is none.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int | None


class TopicConsumer:
    """One member of a group on one topic. For one thread; opening it asks nothing of the network.

    Brokers that go away are waited for: batches are empty meanwhile, with one warning, and go on by themselves.

    Args:
        batch_size: most messages in a batch.
        longest_pause_seconds: a member that neither reads nor keeps alive for so long loses its partitions.

    Raises:
        KafkaRefused: settings that cannot work.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        topic: Topic,
        group: Group,
        settings: TopicSettings,
        *,
        batch_size: int = 500,
        longest_pause_seconds: float = 300.0,
    ) -> None:
        check_connection(connection)
        self.batch_size = batch_size
        self._connection = connection
        self._name = topic_name(connection, topic)
        self._group = group_name(connection, group)
        self._settings = settings
        self._longest_pause_seconds = longest_pause_seconds
        self._voice = BrokerVoice(connection)
        self._client: Consumer | None = None
        self._is_ensured = False
        self._ensure_at = 0.0
        self._assigned: set[int] = set()
        # Written by the caller and not committed yet: the offset to go on from.
        self._written: dict[int, int] = {}
        self._asked = self._answered = 0
        self._asked_at = 0.0
        self._commit_refusal: KafkaError | None = None
        # Came while something else was waited for.
        self._early: list[Message] = []
        self._is_paused = False
        self._warning = ""

    @property
    def assigned(self) -> frozenset[int]:
        """The partitions this member has."""
        return frozenset(self._assigned)

    def read_batch(self, longest_seconds: float) -> list[ReceivedMessage]:
        """The next messages, in order per partition; empty when none came in time, or no broker answers.

        Raises:
            KafkaRefused: the brokers do not let us read.
        """
        deadline = time.monotonic() + longest_seconds
        client = self._ready(longest_seconds)
        if client is None:
            # The caller asks again at once.
            time.sleep(max(0.0, min(deadline, self._ensure_at) - time.monotonic()))
            return []
        if self._written and time.monotonic() >= self._asked_at + _TRY_AGAIN_SECONDS:
            self._ask_commit(client)
        if self._is_paused:
            client.resume(self._partitions(self._assigned))
            self._is_paused = False
        messages, self._early = self._early[: self.batch_size], self._early[self.batch_size :]
        messages = messages or client.consume(1, timeout=max(0.0, deadline - time.monotonic()))
        if messages and len(messages) < self.batch_size:
            gather_seconds = max(0.0, min(_GATHER_SECONDS, deadline - time.monotonic()))
            messages += client.consume(self.batch_size - len(messages), timeout=gather_seconds)
        received = self._received(messages)
        if received:
            self._note_answer()
        elif self._voice.is_down:
            self._warn(str(self._voice.down()))
        return received

    def commit(self, batch: Iterable[ReceivedMessage]) -> None:
        """The batch is written: go on after it, whoever reads next. Partitions that others have by now are left to them.

        Returns when the brokers have answered; where none does in time, later calls say it again, and until then a crash repeats the batch.

        Raises:
            KafkaRefused: the brokers do not let us.
        """
        for message in batch:
            if message.partition in self._assigned:
                self._written[message.partition] = max(message.offset + 1, self._written.get(message.partition, 0))
        if self._client is None or not self._written:
            return
        self._ask_commit(self._client)
        deadline = time.monotonic() + self._connection.connect_timeout_seconds
        # librdkafka's own waiting has no bound, so the answer is fetched like a message.
        while self._answered < self._asked and len(self._early) < self.batch_size:
            if time.monotonic() >= deadline:
                self._warn(f"offsets of group {self._group} cannot be committed now; trying again")
                break
            self._early += self._client.consume(1, timeout=_COMMIT_POLL_SECONDS)
        if self._commit_refusal is not None:
            raise self._refusal(self._commit_refusal)

    def keep_alive(self) -> None:
        """Stay a member while a batch cannot be written for long; nothing is fetched until the next `read_batch`.

        Partitions may be lost meanwhile: writing the batch after all is harmless, and `commit` leaves them to others.
        """
        if self._client is None:
            return
        if not self._is_paused:
            self._is_paused = True
            self._client.pause(self._partitions(self._assigned))
        # Mostly none: what was just assigned, before it was paused.
        self._early += self._client.consume(self.batch_size, timeout=0)

    def lag(self) -> dict[int, int]:
        """Messages not committed yet, by partition of this member.

        Raises:
            SinkDown: no broker answers in time.
        """
        return _measure_lag(self._connection, self._name, self._group, self._assigned) if self._assigned else {}

    def close(self) -> None:
        """Leave the group at once, so that others take over; what was not committed is theirs."""
        if self._client is not None:
            client, self._client = self._client, None
            # Brokers that say nothing are not waited for; they find out by themselves.
            leaving = threading.Thread(target=client.close, daemon=True, name="leaving a group")
            leaving.start()
            leaving.join(self._connection.connect_timeout_seconds)
            self._assigned.clear()
            self._written.clear()
            self._early.clear()

    def _ready(self, longest_seconds: float) -> Consumer | None:
        """The client, subscribed; None when no broker answers."""
        if self._voice.is_fatal:
            self._warn(str(self._voice.down()))
            self.close()
            self._voice = BrokerVoice(self._connection)
        if not self._is_ensured and time.monotonic() >= self._ensure_at:
            self._ensure(longest_seconds)
        if self._client is None and self._is_ensured:
            config = consumer_config(self._connection, self._group, longest_pause_seconds=self._longest_pause_seconds)
            config["on_commit"] = self._on_commit
            client = open_client(self._connection, Consumer, config, self._voice)
            client.subscribe([self._name], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
            self._client, self._is_paused, self._asked, self._answered = client, False, 0, 0
        return self._client

    def _ensure(self, longest_seconds: float) -> None:
        self._ensure_at = time.monotonic() + _TRY_AGAIN_SECONDS
        try:
            ensured = ensure(self._connection, self._settings, longest_seconds=longest_seconds)
        except KeeperError as error:
            self._warn(str(error))
            return
        self._is_ensured = True
        self._note_answer()
        for name in ensured.made:
            logger.info("made topic %s", name)
        for complaint in ensured.complaints:
            logger.warning("%s", complaint)

    def _on_assign(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        client.incremental_assign(partitions)
        self._assigned |= {one.partition for one in partitions}
        if self._is_paused:
            client.pause(partitions)

    def _on_revoke(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        revoked = {one.partition for one in partitions}
        if revoked & self._written.keys():
            self._ask_commit(client)
        self._forget(revoked)

    def _on_lost(self, _client: Consumer, partitions: list[TopicPartition]) -> None:
        self._forget({one.partition for one in partitions})

    def _forget(self, partitions: set[int]) -> None:
        self._assigned -= partitions
        self._early = [message for message in self._early if message.partition() not in partitions]
        for partition in partitions:
            self._written.pop(partition, None)

    def _ask_commit(self, client: Consumer) -> None:
        self._asked_at = time.monotonic()
        try:
            client.commit(offsets=[TopicPartition(self._name, *one) for one in self._written.items()], asynchronous=True)
        except KafkaException as error:
            self._judge_commit(told(error), set(self._written))
        else:
            self._asked += 1

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._answered += 1
        for one in partitions:
            failure = error or one.error
            if failure is not None:
                self._judge_commit(failure, {one.partition})
            elif self._written.get(one.partition) == one.offset:
                del self._written[one.partition]
                self._note_answer()

    def _judge_commit(self, error: KafkaError, partitions: set[int]) -> None:
        if error.code() in _NOT_ALLOWED:
            self._commit_refusal = error
        elif error.code() in _NO_MEMBER:
            logger.info("partitions %s of %s were given to others; their last batch comes again", sorted(partitions), self._name)
            for partition in partitions:
                self._written.pop(partition, None)
        else:
            self._warn(f"offsets of group {self._group} cannot be committed now ({error.str()}); trying again")

    def _received(self, messages: Sequence[Message]) -> list[ReceivedMessage]:
        received = []
        for message in messages:
            error = message.error()
            if error is not None:
                self._judge(error)
            elif message.partition() in self._assigned:
                received.append(decode_message(message))
        return received

    def _judge(self, error: KafkaError) -> None:
        if error.code() in _NOT_ALLOWED:
            raise self._refusal(error)
        if error.code() in _NO_TOPIC:
            self._is_ensured = False
        self._warn(f"topic {self._name}: {error.str()}")

    def _refusal(self, error: KafkaError) -> KafkaRefused:
        return KafkaRefused(
            f"Kafka at {self._connection.place} does not let us read topic {self._name} with group {self._group} ({error.str()})"
        )

    def _warn(self, text: str) -> None:
        if text != self._warning:
            self._warning = text
            logger.warning("%s", text)

    def _note_answer(self) -> None:
        self._warning = ""
        self._voice.forget()

    def _partitions(self, numbers: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._name, number) for number in numbers]


def measure_lag(connection: KafkaConnection, topic: Topic, group: Group) -> dict[int, int]:
    """Messages a group has not committed yet, by partition; asks without becoming a member.

    Raises:
        SinkDown: no broker answers in time, or the topic is not there.
    """
    return _measure_lag(connection, topic_name(connection, topic), group_name(connection, group), None)


def measure_old_lag(connection: KafkaConnection, topic: Topic, group: Group, *, sent_before: datetime) -> int:
    """Messages sent before then that a group has not committed yet; asks without becoming a member.

    Raises:
        SinkDown: no broker answers in time, or the topic is not there.
    """
    name, group_id = topic_name(connection, topic), group_name(connection, group)
    return sum(_measure_lag(connection, name, group_id, None, sent_before=sent_before).values())


def count_messages(connection: KafkaConnection, topic: Topic) -> int:
    """How many messages a topic holds at present.

    Raises:
        SinkDown: no broker answers in time, or the topic is not there.
    """
    voice = BrokerVoice(connection)
    name = topic_name(connection, topic)
    client = open_client(connection, Consumer, consumer_config(connection, f"{name}-count"), voice)
    deadline = time.monotonic() + connection.connect_timeout_seconds
    try:
        bounds = [
            select_bounds(client, voice, name, partition, deadline=deadline)
            for partition in select_partitions(client, connection, voice, name)
        ]
    except KafkaException as error:
        raise voice.down(told(error)) from error
    finally:
        client.close()
    return sum(end - oldest for oldest, end in bounds)


def select_partitions(client: Consumer, connection: KafkaConnection, voice: BrokerVoice, name: str) -> list[int]:
    """The partitions of a topic.

    Raises:
        SinkDown: no broker answers in time, or the topic is not there.
    """
    try:
        topic = client.list_topics(name, timeout=connection.connect_timeout_seconds).topics[name]
    except KafkaException as error:
        client.poll(0)
        raise voice.down(told(error)) from error
    if topic.error is not None:
        raise SinkDown(f"Kafka at {connection.place} has no topic {name}; it is made when something is sent or read")
    return sorted(topic.partitions)


def select_committed(client: Consumer, partitions: list[TopicPartition], *, deadline: float) -> list[TopicPartition]:
    """What the client's group has committed; where its coordinator is not ready yet, it is asked again until the deadline.

    Raises:
        KafkaException: not in time.
    """
    while True:
        try:
            return client.committed(partitions, timeout=max(0.1, deadline - time.monotonic()))
        except KafkaException as error:
            if told(error).code() not in _NO_COORDINATOR or time.monotonic() >= deadline:
                raise
        client.poll(_COORDINATOR_SECONDS)


def select_bounds(client: Consumer, voice: BrokerVoice, name: str, partition: int, *, deadline: float) -> tuple[int, int]:
    """The oldest offset there is, and the one the next message will have.

    Args:
        deadline: by `time.monotonic`.

    Raises:
        SinkDown: no broker answers in time.
    """
    while True:
        # At least a moment, so that a slow answer is told apart from none.
        seconds = max(0.1, deadline - time.monotonic())
        try:
            return client.get_watermark_offsets(TopicPartition(name, partition), timeout=seconds)
        except KafkaException as error:
            # A partition that is new or moves has no leader for a moment.
            if told(error).code() not in _MOVING or time.monotonic() >= deadline:
                raise voice.down(told(error)) from error
        client.poll(_GATHER_SECONDS)


def decode_message(message: Message) -> ReceivedMessage:
    """The client's message as ours."""
    _, timestamp_ms = message.timestamp()
    return ReceivedMessage(
        str(message.topic()),
        int(message.partition() or 0),
        int(message.offset() or 0),
        message.key(),
        message.value(),
        tuple(message.headers() or ()),
        timestamp_ms if timestamp_ms > 0 else None,
    )


def _measure_lag(
    connection: KafkaConnection, name: str, group: str, partitions: Collection[int] | None, *, sent_before: datetime | None = None
) -> dict[int, int]:
    """Of all partitions where None are named; of all messages where no time is."""
    voice = BrokerVoice(connection)
    # A client of its own: a member's questions wait in line behind its fetches.
    client = open_client(connection, Consumer, consumer_config(connection, group), voice)
    deadline = time.monotonic() + connection.connect_timeout_seconds
    lag = {}
    try:
        numbers = select_partitions(client, connection, voice, name) if partitions is None else sorted(partitions)
        asked = [TopicPartition(name, number) for number in numbers]
        for one in select_committed(client, asked, deadline=deadline):
            oldest, end = select_bounds(client, voice, name, one.partition, deadline=deadline)
            if sent_before is not None and end > max(oldest, one.offset):
                wanted = TopicPartition(name, one.partition, round(sent_before.timestamp() * 1000))
                [first] = client.offsets_for_times([wanted], timeout=max(0.1, deadline - time.monotonic()))
                # Negative where no message is as young.
                end = first.offset if first.offset >= 0 else end
            lag[one.partition] = max(0, end - max(oldest, one.offset))
    except KafkaException as error:
        raise voice.down(told(error)) from error
    finally:
        client.close()
    return lag
