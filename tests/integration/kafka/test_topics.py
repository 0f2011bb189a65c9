from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from confluent_kafka.admin import AdminClient

from keeper.domain.delivery import SinkDown
from keeper.kafka.connection import KafkaConnection, KafkaRefused
from keeper.kafka.topics import Topic, TopicSettings, ensure, topic_name


def test_second_ensure_makes_nothing_and_complains_of_nothing(connection: KafkaConnection) -> None:
    first, second = ensure(connection, TopicSettings()), ensure(connection, TopicSettings())
    assert set(first.made) == {topic_name(connection, topic) for topic in Topic}
    assert first.complaints == second.complaints == second.made == ()


def test_topic_that_is_there_otherwise_is_reported_and_left(connection: KafkaConnection) -> None:
    ensure(connection, TopicSettings(partitions=2, retention_days=3))
    ensured = ensure(connection, TopicSettings(partitions=5, retention_days=7))
    name = topic_name(connection, Topic.PRICE_UPDATES)
    complaint = next(text for text in ensured.complaints if f"topic {name} " in text)
    assert "partitions is 2, wanted 5" in complaint
    assert "retention.ms is 259200000, wanted 604800000" in complaint
    admin = AdminClient({"bootstrap.servers": connection.bootstrap_servers, "log_level": 0})
    assert len(admin.list_topics(timeout=10).topics[name].partitions) == 2


def test_two_at_once_do_not_disturb_one_another(connection: KafkaConnection) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: ensure(connection, TopicSettings()), range(4)))
    assert sorted(name for one in found for name in one.made) == sorted(topic_name(connection, topic) for topic in Topic)


def test_more_copies_than_brokers_say_what_to_do(connection: KafkaConnection) -> None:
    with pytest.raises(KafkaRefused, match=r"KEEPER_KAFKA_REPLICATION is 3.*lower it, or start more brokers"):
        ensure(connection, TopicSettings(replication=3))


def test_nobody_there_is_said_in_time() -> None:
    nowhere = KafkaConnection("127.0.0.1:1", connect_timeout_seconds=0.5)
    with pytest.raises(SinkDown, match=r"127\.0\.0\.1:1 does not answer.*refused"):
        ensure(nowhere, TopicSettings())


def test_broker_without_tls_is_not_spoken_to_with_it(connection: KafkaConnection) -> None:
    with pytest.raises(SinkDown, match=r"does not answer|TLS fails"):
        ensure(replace(connection, security_protocol="SSL", connect_timeout_seconds=1), TopicSettings())
