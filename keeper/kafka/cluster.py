"""What the brokers say of themselves, asked without making anything."""

from dataclasses import dataclass

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from keeper.kafka.connection import BrokerVoice, KafkaConnection, client_config, open_client, told
from keeper.kafka.topics import Topic, topic_name


@dataclass(frozen=True, slots=True)
class Cluster:
    """The brokers that are there.

    Attributes:
        missing: full names of Keeper's topics that nobody has made yet.
    """

    brokers: int
    missing: tuple[str, ...]


def fetch_cluster(connection: KafkaConnection) -> Cluster:
    """Ask, as long as a connection may take.

    Raises:
        SinkDown: no broker answers.
        KafkaRefused: settings that cannot work.
    """
    voice = BrokerVoice(connection)
    admin = open_client(connection, AdminClient, client_config(connection), voice)
    try:
        found = admin.list_topics(timeout=connection.connect_timeout_seconds)
    except KafkaException as error:
        # What librdkafka said of the reason waits to be fetched.
        admin.poll(0)
        raise voice.down(told(error)) from error
    there = {name for name, topic in found.topics.items() if topic.error is None}
    names = [topic_name(connection, topic) for topic in Topic]
    return Cluster(len(found.brokers), tuple(name for name in names if name not in there))
