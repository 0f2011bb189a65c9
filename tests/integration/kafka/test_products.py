"""Product documents to `products.enriched`, from the consumer that makes them."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from keeper.consume import Rejected, consume
from keeper.domain.delivery import SinkDown
from keeper.kafka.connection import KafkaConnection
from keeper.kafka.consumer import ReceivedMessage, TopicConsumer
from keeper.kafka.producer import Publisher
from keeper.kafka.products import EnrichedTopic
from keeper.kafka.topics import Group, Topic, TopicSettings, ensure
from tests.integration.kafka.sending import publish, read

Member = Callable[..., TopicConsumer]


def test_documents_whose_topic_is_refused_are_published_once_that_is_mended(
    connection: KafkaConnection, publisher: Publisher, member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings ask for more copies than there are brokers; somebody makes the topics. The batch waits and nothing of it is buried."""
    monkeypatch.setattr("keeper.consume._FIRST_WAIT_SECONDS", 0.01)
    publish(publisher, connection, [b"1"])
    elsewhere = replace(connection, topic_prefix=f"{connection.topic_prefix}other-")
    refused = Publisher(elsewhere, TopicSettings(replication=3))
    topic = EnrichedTopic(refused, elsewhere.topic_prefix)
    stop, faults, buried = threading.Event(), list[str](), list[str]()

    def work(batch: Sequence[ReceivedMessage]) -> Rejected[ReceivedMessage]:
        try:
            assert topic.publish([("B0TEST0001", b'{"asin":"B0TEST0001"}')]) == {}
        except SinkDown as error:
            faults.append(str(error))
            if len(faults) == 2:
                ensure(elsewhere, TopicSettings())
            raise
        stop.set()
        return ()

    source = member()
    consume(source, work, lambda dead: buried.extend(reason for _, reason in dead), stop=stop)
    assert (len(faults), buried, sum(source.lag().values())) == (2, [], 0)
    assert all("KEEPER_KAFKA_REPLICATION is 3" in fault for fault in faults)
    refused.close()
    consumer = TopicConsumer(elsewhere, Topic.ENRICHED_PRODUCTS, Group.PRICES, TopicSettings())
    assert [(one.key, one.value) for one in read(consumer, 1)] == [(b"B0TEST0001", b'{"asin":"B0TEST0001"}')]
    consumer.close()
