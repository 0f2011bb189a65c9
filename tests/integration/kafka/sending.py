"""Messages for the real broker, and reading back what arrived."""

import time
from typing import Final
from uuid import uuid4

from keeper.domain.delivery import Outcome, SinkDown, Turn
from keeper.domain.events import EventKind, OutboxMessage
from keeper.kafka.connection import KafkaConnection
from keeper.kafka.consumer import ReceivedMessage, TopicConsumer
from keeper.kafka.line import Record
from keeper.kafka.producer import KafkaSink, Publisher
from keeper.kafka.topics import Topic, topic_name

ALWAYS: Final = Turn(lambda: False, lambda: False)


def make_message(seq: int, key: str = "B0TEST0001", *, kind: EventKind = EventKind.PRICE_UPDATE, body: str | None = None) -> OutboxMessage:
    """A message as the outbox has it."""
    return OutboxMessage(seq, str(uuid4()), kind, key, 1, body if body is not None else f'{{"seq": {seq}}}')


def deliver(sink: KafkaSink, messages: list[OutboxMessage], turn: Turn = ALWAYS) -> tuple[list[Outcome], SinkDown | None]:
    """All outcomes, and why there are no more."""
    outcomes: list[Outcome] = []
    try:
        for part in sink.deliver(messages, turn):
            outcomes += part
    except SinkDown as error:
        return outcomes, error
    return outcomes, None


def publish(publisher: Publisher, connection: KafkaConnection, values: list[bytes], key: bytes = b"B0TEST0001") -> None:
    """Put foreign messages into `price-updates`."""
    name = topic_name(connection, Topic.PRICE_UPDATES)
    assert publisher.publish([Record(name, key, value, [("from", b"elsewhere")]) for value in values]) == [None] * len(values)


def read(consumer: TopicConsumer, count: int, *, longest_seconds: float = 30) -> list[ReceivedMessage]:
    """Read until so many have come."""
    received: list[ReceivedMessage] = []
    deadline = time.monotonic() + longest_seconds
    while len(received) < count:
        assert time.monotonic() < deadline, f"{len(received)} of {count} messages came in {longest_seconds:.0f} s"
        received += consumer.read_batch(0.2)
    return received
