"""Product documents to `products.enriched`."""

from collections.abc import Mapping, Sequence

from keeper.kafka.line import Record
from keeper.kafka.producer import Publisher
from keeper.kafka.topics import Topic


class EnrichedTopic:
    """Publishes product documents. Safe to share between threads."""

    def __init__(self, publisher: Publisher, topic_prefix: str = "") -> None:
        self._publisher = publisher
        self._topic = f"{topic_prefix}{Topic.ENRICHED_PRODUCTS}"

    def publish(self, messages: Sequence[tuple[str, bytes]]) -> Mapping[str, str]:
        """Produce (ASIN, value) and wait for every acknowledgement. Returns why a message can never be produced, by ASIN.

        Raises:
            SinkDown: some are not known to have arrived; producing all again is harmless.
        """
        records = [Record(self._topic, asin, value, [("kind", b"product_enriched")]) for asin, value in messages]
        refusals = self._publisher.publish(records)
        return {asin: refusal.reason for (asin, _), refusal in zip(messages, refusals, strict=True) if refusal is not None}
