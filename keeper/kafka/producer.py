"""The sink `kafka`: events to topics, and the publisher for everything else that is sent."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from keeper.domain.delivery import Outcome, SinkDown, Turn
from keeper.domain.events import OutboxMessage, Sink
from keeper.kafka.connection import KafkaConnection
from keeper.kafka.line import Headers, Lines, Record, Refusal
from keeper.kafka.topics import TOPICS, TopicSettings, topic_name

_LONGEST_REASON = 500
_WITHOUT_END: Final = Turn(lambda: False, lambda: False)


class KafkaSink:
    """Events to Kafka. Opening it asks nothing of the network.

    Every message has its key, the stored body as it is, and the headers `event_id`, `kind` and `sequence`, which rises with the order of a
    key's events, so that a reader can tell a late repeat; where a request to the API set it off, also `request_id`.

    Raises:
        KafkaRefused: settings that cannot work, such as a CA file that is missing.
    """

    name: str = Sink.KAFKA.value

    def __init__(self, connection: KafkaConnection, settings: TopicSettings, *, batch_size: int = 4000, shards_at_once: int = 2) -> None:
        self.batch_size = batch_size
        self.shards_at_once = shards_at_once
        self._lines = Lines(connection, settings)
        self._topics = {kind: (topic_name(connection, topic), ("kind", kind.value)) for kind, topic in TOPICS.items()}

    def connect(self) -> None:
        """A cheap probe; the first time and after each outage also makes topics that are missing.

        Raises:
            SinkDown: no broker answers, or they cannot be used.
        """
        self._lines.connect()

    def deliver(self, messages: Sequence[OutboxMessage], turn: Turn) -> Iterator[list[Outcome]]:
        """Outcomes once all are known, or every half second; each on the broker's acknowledgement of that message.

        A later message of a key may have reached the broker although an earlier one did not. It has no outcome then and is sent again after
        the earlier one, so that readers end with the newest.

        Raises:
            SinkDown: what is left cannot be known; said after all that is.
        """
        fit = [message for message in messages if message.kind in self._topics]
        if len(fit) < len(messages) and not turn.is_over():
            unfit = (message for message in messages if message.kind not in self._topics)
            yield [Outcome(message, refusal=f"events of kind {message.kind} have no topic", is_final=True) for message in unfit]
        if not fit or turn.is_over():
            return
        line = self._lines.current()
        queue = _Queue(fit)
        try:
            for verdicts in line.send([self._record(message) for message in fit], turn):
                if outcomes := queue.take(verdicts):
                    yield outcomes
        finally:
            if line.fault is not None:
                self._lines.retire(line)

    def store(self, connection: object, outcome: Outcome, *, is_dead: bool) -> None:
        """Nothing: the broker has the message."""

    def close(self) -> None:
        """Drop what is still under way."""
        self._lines.close()

    def _record(self, message: OutboxMessage) -> Record:
        topic, kind = self._topics[message.kind]
        headers: Headers = [("event_id", message.event_id), kind, ("sequence", str(message.seq))]
        if message.request_id is not None:
            headers.append(("request_id", message.request_id))
        return Record(topic, message.key, message.body, headers)


class _Queue:
    """The messages of one batch that have no outcome yet, in order."""

    def __init__(self, messages: Sequence[OutboxMessage]) -> None:
        self._waiting = dict(enumerate(messages))
        self._verdicts: dict[int, Refusal | None] = {}
        self._refused: set[str] = set()

    def take(self, verdicts: Mapping[int, Refusal | None]) -> list[Outcome]:
        """The outcomes that may be told now: within a key none after a message without one, or after one that is refused for now."""
        if len(verdicts) == len(self._waiting) and not self._refused and not any(verdicts.values()):
            outcomes = [Outcome(message) for message in self._waiting.values()]
            self._waiting.clear()
            return outcomes
        self._verdicts.update(verdicts)
        held = set(self._refused)
        outcomes = []
        for place, message in list(self._waiting.items()):
            if message.key in held:
                continue
            if place not in self._verdicts:
                held.add(message.key)
                continue
            del self._waiting[place]
            refusal = self._verdicts[place]
            if refusal is None:
                outcomes.append(Outcome(message))
                continue
            outcomes.append(
                Outcome(
                    message,
                    refusal=refusal.reason[:_LONGEST_REASON],
                    is_final=refusal.is_final,
                    is_unreachable=refusal.is_unreachable,
                )
            )
            if not refusal.is_final:
                held.add(message.key)
                self._refused.add(message.key)
        return outcomes


class Publisher:
    """Sends records and waits until each is acknowledged. Safe to share between threads; opening it asks nothing of the network.

    Raises:
        KafkaRefused: settings that cannot work.
    """

    def __init__(self, connection: KafkaConnection, settings: TopicSettings) -> None:
        self._lines = Lines(connection, settings)

    def connect(self) -> None:
        """A cheap probe; the first time and after each outage also makes topics that are missing.

        Raises:
            SinkDown: no broker answers, or they cannot be used.
        """
        self._lines.connect()

    def publish(self, records: Sequence[Record]) -> list[Refusal | None]:
        """Returns for each record None, or why the brokers do not take it. Waits as long as a delivery may take.

        The first time and after each trouble it connects by itself, so a topic that is gone is there again at the next call.

        Raises:
            SinkDown: some are not known to have arrived, or their topic takes none of ours; sending all again may repeat some.
        """
        if not records:
            return []
        line = self._lines.ready()
        known: dict[int, Refusal | None] = {}
        try:
            for verdicts in line.send(records, _WITHOUT_END):
                known.update(verdicts)
        finally:
            if line.fault is not None:
                self._lines.retire(line)
        if len(known) < len(records):
            raise SinkDown(f"{len(records) - len(known)} of {len(records)} records were not acknowledged")
        for refusal in known.values():
            if refusal is not None and refusal.is_unreachable:
                raise SinkDown(refusal.reason)
        return [known[place] for place in range(len(records))]

    def close(self) -> None:
        """End it."""
        self._lines.close()
