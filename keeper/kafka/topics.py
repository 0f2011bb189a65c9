"""The topics, how they are made, and which event goes where."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType, TopicMetadata

from keeper.domain.delivery import SinkDown
from keeper.domain.events import EventKind
from keeper.kafka.connection import BrokerVoice, KafkaConnection, KafkaRefused, client_config, open_client, told

_DAY_MS = 86_400_000
_LOOK_SECONDS = 0.05
_LARGEST_MESSAGE_BYTES = 1024 * 1024
_LARGEST_RAW_BYTES = 4 * 1024 * 1024
# A dead letter is the original and why it died.
_ENVELOPE_BYTES = 64 * 1024
# Somebody has to find the time to look at it.
_DEAD_LETTER_RETENTIONS = 4


_CANNOT_LOOK: Final = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART)
_NOT_ALLOWED: Final = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.POLICY_VIOLATION)


class Topic(StrEnum):
    """The names, without the prefix."""

    PRICE_UPDATES = "price-updates"
    DEAL_UPDATES = "deal-updates"
    RAW_DEALS = "keepa-raw-deals"
    RAW_PRODUCTS = "raw.keepa_updates"
    ENRICHED_PRODUCTS = "products.enriched"
    ARBITRAGE_ALERTS = "arbitrage.alerts"
    DEAD_PRICE_UPDATES = "price-updates.dlq"
    DEAD_DEAL_UPDATES = "deal-updates.dlq"
    DEAD_RAW_PRODUCTS = "raw.keepa_updates.dlq"


class Group(StrEnum):
    """The consumer groups, without the prefix."""

    PRICES = "keeper-consumer-group"
    DEALS = "keeper-consumer-group-deals"
    ENRICHMENT = "enrichment-consumer"
    DEAD_LETTERS = "keeper-dlq"


TOPICS: Final[Mapping[EventKind, Topic]] = {
    EventKind.PRICE_UPDATE: Topic.PRICE_UPDATES,
    EventKind.DEAL_UPDATE: Topic.DEAL_UPDATES,
    EventKind.RAW_PRODUCT: Topic.RAW_PRODUCTS,
    EventKind.RAW_DEAL: Topic.RAW_DEALS,
    EventKind.ARBITRAGE_ALERT: Topic.ARBITRAGE_ALERTS,
}

DEAD_LETTERS: Final[Mapping[Topic, Topic]] = {
    Topic.PRICE_UPDATES: Topic.DEAD_PRICE_UPDATES,
    Topic.DEAL_UPDATES: Topic.DEAD_DEAL_UPDATES,
    Topic.RAW_PRODUCTS: Topic.DEAD_RAW_PRODUCTS,
}


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """How a topic is made.

    Attributes:
        min_insync: copies that must have a message before it counts as delivered.
    """

    partitions: int = 3
    replication: int = 1
    min_insync: int = 1
    retention_days: int = 7


@dataclass(frozen=True, slots=True)
class Ensured:
    """What `ensure` did and found.

    Attributes:
        made: full names.
        complaints: one sentence per topic that is there and is not as the settings say; it was left so.
    """

    made: tuple[str, ...]
    complaints: tuple[str, ...]


def topic_name(connection: KafkaConnection, topic: Topic) -> str:
    """With the prefix."""
    return f"{connection.topic_prefix}{topic}"


def group_name(connection: KafkaConnection, group: Group) -> str:
    """With the prefix."""
    return f"{connection.topic_prefix}{group}"


def wanted_config(topic: Topic, settings: TopicSettings) -> dict[str, str]:
    """All that `ensure` compares."""
    return {"partitions": str(settings.partitions), "replication": str(settings.replication)} | topic_config(topic, settings)


def topic_config(topic: Topic, settings: TopicSettings) -> dict[str, str]:
    """What the broker is told of a topic."""
    is_dead_letters = topic in DEAD_LETTERS.values()
    source = next((source for source, dead in DEAD_LETTERS.items() if dead is topic), topic)
    largest = _LARGEST_RAW_BYTES if source in (Topic.RAW_PRODUCTS, Topic.RAW_DEALS) else _LARGEST_MESSAGE_BYTES
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(settings.retention_days * _DAY_MS * (_DEAD_LETTER_RETENTIONS if is_dead_letters else 1)),
        "min.insync.replicas": str(settings.min_insync),
        "max.message.bytes": str(largest + (_ENVELOPE_BYTES if is_dead_letters else 0)),
    }


def ensure(connection: KafkaConnection, settings: TopicSettings, *, longest_seconds: float | None = None) -> Ensured:
    """Make the topics that are missing; look at the others and change nothing. Idempotent, also side by side with another one.

    Args:
        longest_seconds: of waiting for any broker's first answer, where less than the connection's. The whole takes at most a few times
            the connection's.

    Raises:
        SinkDown: no broker answers, or not in time.
        KafkaRefused: the brokers do not make the topics; the text says what to do.
    """
    voice = BrokerVoice(connection)
    admin = open_client(connection, AdminClient, client_config(connection), voice)
    try:
        seconds = connection.connect_timeout_seconds
        cluster = admin.list_topics(timeout=seconds if longest_seconds is None else min(seconds, longest_seconds))
        partitions = {name: there.partitions for name, there in cluster.topics.items() if there.error is None}
        known = [topic for topic in Topic if topic_name(connection, topic) in partitions]
        made, hidden = _make(admin, connection, settings, [topic for topic in Topic if topic not in known])
        if hidden and not (made or known):
            raise KafkaRefused(_need(connection, told(next(iter(hidden.values()))).str()))
        _wait_for_leaders(admin, made, longest_seconds=seconds)
        # One topic that we may not see holds up no other; whether we may write to it the first message tells.
        complaints = [
            f"topic {name} is missing, or hidden from us: {_need(connection, told(error).str())}" for name, error in hidden.items()
        ]
        for topic, configured in _select_configs(admin, connection, known).items():
            there = partitions[topic_name(connection, topic)]
            copies = max((len(one.replicas) for one in there.values()), default=0)
            found = {"partitions": str(len(there)), "replication": str(copies)} | configured
            if others := _differences(found, wanted_config(topic, settings)):
                complaints.append(f"topic {topic_name(connection, topic)} was left as it is: {others}; change it, or the settings")
        return Ensured(tuple(made), tuple(complaints))
    except KafkaException as error:
        raise _plain(admin, error, connection, voice) from error
    except FutureTimeout as error:
        raise voice.down() from error


def list_unnamed(connection: KafkaConnection) -> list[str]:
    """Topics whose names begin as Keeper's do and that this Keeper does not know, sorted. Where there is a prefix, it decides.

    Raises:
        SinkDown: no broker answers.
        KafkaRefused: we may not.
    """
    begins = (connection.topic_prefix,) if connection.topic_prefix else ("keepa-", "keeper-", *(f"{topic}." for topic in Topic))
    named = {topic_name(connection, topic) for topic in Topic}
    voice = BrokerVoice(connection)
    admin = open_client(connection, AdminClient, client_config(connection), voice)
    try:
        there = admin.list_topics(timeout=connection.connect_timeout_seconds).topics
    except KafkaException as error:
        raise _plain(admin, error, connection, voice) from error
    return sorted(name for name in there if name.startswith(begins) and name not in named)


def _make(
    admin: AdminClient, connection: KafkaConnection, settings: TopicSettings, topics: Sequence[Topic]
) -> tuple[list[str], dict[str, KafkaException]]:
    """The full names of those that were made, and of those that we may not make, with what was said."""
    if not topics:
        return [], {}
    wanted = [
        NewTopic(topic_name(connection, topic), settings.partitions, settings.replication, config=topic_config(topic, settings))
        for topic in topics
    ]
    seconds = connection.connect_timeout_seconds
    made = []
    hidden = {}
    for name, future in admin.create_topics(wanted, operation_timeout=seconds, request_timeout=seconds).items():
        try:
            future.result(2 * seconds)
        except KafkaException as error:
            code = told(error).code()
            if code == KafkaError.TOPIC_ALREADY_EXISTS:
                continue
            if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                hidden[name] = error
                continue
            if code == KafkaError.INVALID_REPLICATION_FACTOR:
                raise KafkaRefused(
                    f"Kafka at {connection.place} cannot make topic {name}: KEEPER_KAFKA_REPLICATION is {settings.replication} "
                    f"({told(error).str()}); lower it, or start more brokers"
                ) from error
            raise
        made.append(name)
    return made, hidden


def _wait_for_leaders(admin: AdminClient, names: Sequence[str], *, longest_seconds: float) -> None:
    """The brokers need a moment until all know a new topic; without it the first to ask would be told that there is none."""
    deadline = time.monotonic() + longest_seconds
    while names and time.monotonic() < deadline:
        there = admin.list_topics(timeout=longest_seconds).topics
        if all(name in there and there[name].partitions and _has_leaders(there[name]) for name in names):
            return
        # It has nothing to tell; so this is the pause.
        admin.poll(_LOOK_SECONDS)


def _has_leaders(topic: TopicMetadata) -> bool:
    return all(partition.leader >= 0 for partition in topic.partitions.values())


def _select_configs(admin: AdminClient, connection: KafkaConnection, topics: Sequence[Topic]) -> dict[Topic, dict[str, str]]:
    """What the brokers say of topics; one that may not be looked at, or was deleted just now, is left out."""
    if not topics:
        return {}
    seconds = connection.connect_timeout_seconds
    asked = {topic: ConfigResource(ResourceType.TOPIC, topic_name(connection, topic)) for topic in topics}
    futures = admin.describe_configs(list(asked.values()), request_timeout=seconds)
    found = {}
    for topic, resource in asked.items():
        try:
            entries = futures[resource].result(2 * seconds)
        except KafkaException as error:
            if told(error).code() not in _CANNOT_LOOK:
                raise
            continue
        found[topic] = {name: str(entry.value) for name, entry in entries.items()}
    return found


def _differences(found: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    return ", ".join(f"{name} is {found[name]}, wanted {value}" for name, value in wanted.items() if found.get(name, value) != value)


def _plain(admin: AdminClient, error: KafkaException, connection: KafkaConnection, voice: BrokerVoice) -> SinkDown | KafkaRefused:
    # What librdkafka said of the reason waits to be fetched.
    admin.poll(0)
    if told(error).code() in _NOT_ALLOWED:
        return KafkaRefused(_need(connection, told(error).str()))
    return voice.down(told(error))


def _need(connection: KafkaConnection, said: str) -> str:
    return (
        f"Kafka at {connection.place} does not allow it ({said}): Keeper's user needs Create, Describe and "
        f"DescribeConfigs on {', '.join(topic_name(connection, topic) for topic in Topic)}"
    )
