"""Keeper's side of the real broker."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keeper.kafka.connection import KafkaConnection
from keeper.kafka.consumer import TopicConsumer
from keeper.kafka.producer import KafkaSink, Publisher
from keeper.kafka.topics import Group, Topic, TopicSettings
from tests.services.kafka import KafkaCluster
from tests.services.session import KafkaService


@pytest.fixture
def connection(kafka: KafkaService) -> KafkaConnection:
    """The session's broker, with this test's prefix."""
    return KafkaConnection(kafka.bootstrap_servers, topic_prefix=kafka.prefix, connect_timeout_seconds=10, delivery_timeout_seconds=20)


@pytest.fixture
def sink(connection: KafkaConnection) -> Iterator[KafkaSink]:
    """A connected sink."""
    opened = KafkaSink(connection, TopicSettings())
    opened.connect()
    yield opened
    opened.close()


@pytest.fixture
def publisher(connection: KafkaConnection) -> Iterator[Publisher]:
    """A connected publisher."""
    opened = Publisher(connection, TopicSettings())
    opened.connect()
    yield opened
    opened.close()


@pytest.fixture
def member(connection: KafkaConnection) -> Iterator[Callable[..., TopicConsumer]]:
    """Makes members of `keeper-consumer-group` on `price-updates`."""
    opened: list[TopicConsumer] = []

    def make(topic: Topic = Topic.PRICE_UPDATES, group: Group = Group.PRICES, **options: float) -> TopicConsumer:
        opened.append(TopicConsumer(connection, topic, group, TopicSettings(), **options))  # type: ignore[arg-type]
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@pytest.fixture(scope="module")
def own_cluster(kafka_jars: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """A broker that tests may stop and kill, with listeners for TLS and passwords."""
    cluster = KafkaCluster(tmp_path_factory.mktemp("kafka") / "cluster", tls=True, sasl=True, proxied=True)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()
