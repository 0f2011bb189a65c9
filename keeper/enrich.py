"""The verb `enrich`: a product's document over all marketplaces, composed whole from PostgreSQL, to the index and to Kafka.

It is called in one of two ways, never both: with Kafka by the consumer of `raw.keepa_updates`, without it by the sink below, from the
outbox. A document's version is the product's revision, so any order and any repeat end in the newest document.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sqlalchemy import Connection, Engine

from keeper.domain.delivery import Outcome, Turn
from keeper.domain.events import OutboxMessage, Sink, enriched_event_id
from keeper.postgres.catalog import ProductDocument, select_documents


class ProductIndex(Protocol):
    """Where product documents are searched."""

    def connect(self) -> None:
        """One cheap probe; makes what is missing.

        Raises:
            SinkDown: nobody is there.
        """

    def write(self, documents: Iterable[tuple[str, int, bytes]]) -> Mapping[str, str]:
        """Write (ASIN, version, body). Returns why a document can never be written, by ASIN.

        Raises:
            SinkDown: nobody is there, or some were not taken now.
        """


class ProductTopic(Protocol):
    """Where product documents are published."""

    def publish(self, messages: Sequence[tuple[str, bytes]]) -> Mapping[str, str]:
        """Produce (ASIN, value) and wait for every acknowledgement. Returns why a message can never be produced, by ASIN.

        Raises:
            SinkDown: nobody is there, or not all were acknowledged.
        """


@dataclass(slots=True)
class Enriched:
    """What one call did.

    Attributes:
        refused: why a document can never be written or published, by ASIN.
    """

    documents: int = 0
    refused: dict[str, str] = field(default_factory=dict)


def enrich(engine: Engine, asins: Iterable[str], *, index: ProductIndex | None, topic: ProductTopic | None) -> Enriched:
    """Write and publish the documents of these ASINs. Idempotent; unknown ASINs are passed over.

    Raises:
        SinkDown: the index or the broker is away; calling again is harmless.
    """
    wanted = sorted(set(asins))
    with engine.begin() as connection:
        documents = select_documents(connection, wanted)
    done = Enriched(documents=len(documents))
    if index is not None and documents:
        done.refused |= index.write((one.asin, one.revision, one.body.encode()) for one in documents)
    if topic is not None and documents:
        done.refused |= topic.publish([(one.asin, _message(one)) for one in documents])
    return done


def _message(document: ProductDocument) -> bytes:
    """The document with what makes it an event."""
    timestamp = f"{document.changed_at:%Y-%m-%dT%H:%M:%SZ}"
    event_id = enriched_event_id(document.asin, document.revision)
    return f'{document.body[:-1]},"event_id":"{event_id}","timestamp":"{timestamp}","event_type":"product_enriched"}}'.encode()


class EnrichSink:
    """Products that changed, from the outbox to the index: the way without Kafka.

    Args:
        name: of its row in `sinks`; a rebuild has one of its own.
    """

    batch_size = 500
    shards_at_once = 2

    def __init__(self, engine: Engine, index: ProductIndex, *, name: str = Sink.ENRICH) -> None:
        self.name = str(name)
        self._engine = engine
        self._index = index

    def connect(self) -> None:
        """Ask the index."""
        self._index.connect()

    def deliver(self, messages: Sequence[OutboxMessage], turn: Turn) -> Iterator[list[Outcome]]:
        """One write for the whole batch: several events of an ASIN are one document."""
        if turn.is_over():
            return
        done = enrich(self._engine, [message.key for message in messages], index=self._index, topic=None)
        if not turn.is_lost():
            yield [Outcome(message, refusal=done.refused.get(message.key), is_final=message.key in done.refused) for message in messages]

    def store(self, connection: Connection, outcome: Outcome, *, is_dead: bool) -> None:
        """Nothing: the document is the note."""
