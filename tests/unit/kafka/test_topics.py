import pytest

from keeper.domain.events import KINDS, EventKind, Sink
from keeper.kafka.connection import LARGEST_BODY_BYTES, KafkaConnection
from keeper.kafka.topics import DEAD_LETTERS, TOPICS, Group, Topic, TopicSettings, group_name, topic_config, topic_name

PREFIXED = KafkaConnection("127.0.0.1:1", topic_prefix="try-")
MEBIBYTE = 1024 * 1024


def test_every_kind_of_the_sink_has_a_topic() -> None:
    assert set(TOPICS) == set(KINDS[Sink.KAFKA])


def test_prefix_goes_before_topics_and_groups() -> None:
    assert topic_name(PREFIXED, TOPICS[EventKind.RAW_PRODUCT]) == "try-raw.keepa_updates"
    assert group_name(PREFIXED, Group.ENRICHMENT) == "try-enrichment-consumer"


@pytest.mark.parametrize("topic", [Topic.RAW_PRODUCTS, Topic.RAW_DEALS])
def test_raw_topics_take_four_mebibytes(topic: Topic) -> None:
    assert int(topic_config(topic, TopicSettings())["max.message.bytes"]) == 4 * MEBIBYTE < LARGEST_BODY_BYTES


@pytest.mark.parametrize(("source", "dead"), DEAD_LETTERS.items())
def test_dead_letter_topic_takes_any_original_and_keeps_it_longer(source: Topic, dead: Topic) -> None:
    settings = TopicSettings(retention_days=7)
    assert int(topic_config(dead, settings)["max.message.bytes"]) > int(topic_config(source, settings)["max.message.bytes"])
    assert int(topic_config(dead, settings)["retention.ms"]) > int(topic_config(source, settings)["retention.ms"])
    assert dead == f"{source}.dlq"


def test_settings_reach_the_topic() -> None:
    config = topic_config(Topic.PRICE_UPDATES, TopicSettings(min_insync=2, retention_days=1))
    assert config["min.insync.replicas"] == "2"
    assert config["retention.ms"] == "86400000"
