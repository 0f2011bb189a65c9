"""How Kafka's brokers are reached, and what librdkafka says about them.

KeeperError
├── SinkDown        no broker answers, now (TransientError)
└── KafkaRefused    a setting that cannot work, or something the brokers do not allow

No text here holds the password.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException

from keeper.domain.delivery import SinkDown
from keeper.domain.errors import KeeperError

logger = logging.getLogger(__name__)

# Larger than any topic of ours takes, because the client measures before compression and the broker after it.
LARGEST_BODY_BYTES: Final = 16 * 1024 * 1024
_LARGEST_QUEUE_KILOBYTES = 64 * 1024
_LONGEST_QUOTE = 300
_MASK = "***"
# How soon a topic that is not there is said to be unknown; new topics are known everywhere well before.
_UNKNOWN_TOPIC_MS = 5_000
_SESSION_MS = 10_000
_LARGEST_FETCH_KILOBYTES = 16 * 1024

Client = TypeVar("Client")


class KafkaRefused(KeeperError):
    """Will not work until somebody changes a setting, a permission or a topic; the text says which."""


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """Where Kafka is and how it is spoken to.

    Attributes:
        bootstrap_servers: host:port, comma separated.
        topic_prefix: before the name of each topic and consumer group.
        ca_file: PEM; None means the certificates of the system.
        cert_file: PEM of our own certificate, for brokers that ask for one.
        connect_timeout_seconds: longest wait for a broker's answer.
        delivery_timeout_seconds: longest wait for a message's acknowledgement, retries included.
    """

    bootstrap_servers: str
    topic_prefix: str = ""
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    compression: str = "lz4"
    connect_timeout_seconds: float = 5.0
    delivery_timeout_seconds: float = 30.0

    @property
    def place(self) -> str:
        """The addresses, for people."""
        return self.bootstrap_servers

    def redact(self, text: str) -> str:
        """`text` with the password masked."""
        return text.replace(self.sasl_password, _MASK) if self.sasl_password else text


class BrokerVoice:
    """What librdkafka said last about the brokers; it goes on trying by itself, so most of it is no error of ours.

    Attributes:
        is_down: no broker could be reached, and none has answered since.
        is_fatal: the client cannot be used any more.
    """

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection
        self._code: int | None = None
        self._said = ""
        self.is_down = False
        self.is_fatal = False

    def hear(self, error: KafkaError) -> None:
        """Called by librdkafka, from whichever thread polls."""
        self.is_fatal = self.is_fatal or error.fatal()
        # "All brokers are down" follows the reason and says less.
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.is_down = True
        else:
            self._code, self._said = error.code(), error.str()
        logger.debug("%s", self._connection.redact(error.str()))

    def forget(self) -> None:
        """The brokers answer."""
        self._code, self._said = None, ""
        self.is_down = False

    def down(self, error: KafkaError | None = None) -> SinkDown:
        """Why no broker can be used, in words for people."""
        place = self._connection.place
        said = self._connection.redact(self._said or (error.str() if error is not None else ""))[:_LONGEST_QUOTE]
        if self._code == KafkaError._AUTHENTICATION:
            return SinkDown(
                f"Kafka at {place} does not accept our credentials ({said}); see KEEPER_KAFKA_SASL_MECHANISM, "
                "KEEPER_KAFKA_SASL_USERNAME and KEEPER_KAFKA_SASL_PASSWORD"
            )
        # The same failure comes as one of the connection now and then.
        if self._code == KafkaError._SSL or "SSL routines" in said:
            return SinkDown(
                f"Kafka at {place}: TLS fails ({said}); KEEPER_KAFKA_CA_FILE names the certificates that may sign a broker's, "
                "KEEPER_KAFKA_SECURITY_PROTOCOL says whether there is TLS at all"
            )
        return SinkDown(f"Kafka at {place} does not answer ({said})" if said else f"Kafka at {place} does not answer")


def told(error: KafkaException) -> KafkaError:
    """What is inside."""
    inner = error.args[0]
    return inner if isinstance(inner, KafkaError) else KafkaError(KafkaError._FAIL, str(inner))


def check_connection(connection: KafkaConnection) -> None:
    """Find settings that cannot work together before anything is asked.

    Raises:
        KafkaRefused: names the setting.
    """
    protocol = connection.security_protocol
    if protocol.startswith("SASL"):
        for name in ("sasl_mechanism", "sasl_username", "sasl_password"):
            if not getattr(connection, name):
                raise KafkaRefused(f"KEEPER_KAFKA_SECURITY_PROTOCOL is {protocol}: set {_setting(name)} too")
    elif connection.sasl_username or connection.sasl_password:
        raise KafkaRefused(
            f"KEEPER_KAFKA_SECURITY_PROTOCOL is {protocol}, which sends no password: set SASL_SSL or SASL_PLAINTEXT, "
            "or unset KEEPER_KAFKA_SASL_USERNAME and KEEPER_KAFKA_SASL_PASSWORD"
        )
    for name in ("ca_file", "cert_file", "key_file"):
        path: Path | None = getattr(connection, name)
        if path is not None:
            if not protocol.endswith("SSL"):
                raise KafkaRefused(f"{_setting(name)} is set, but KEEPER_KAFKA_SECURITY_PROTOCOL is {protocol}, which is without TLS")
            try:
                path.open("rb").close()
            except OSError as error:
                raise KafkaRefused(f"{_setting(name)} cannot be read: {path} ({error.strerror})") from error
    if (connection.cert_file is None) != (connection.key_file is None):
        raise KafkaRefused("KEEPER_KAFKA_CERT_FILE and KEEPER_KAFKA_KEY_FILE belong together: set both or none")


def client_config(connection: KafkaConnection) -> dict[str, Any]:
    """What every client of librdkafka is told."""
    config: dict[str, Any] = {
        "bootstrap.servers": connection.bootstrap_servers,
        "client.id": "keeper",
        "security.protocol": connection.security_protocol,
        "socket.connection.setup.timeout.ms": max(1000, _ms(connection.connect_timeout_seconds)),
        "socket.keepalive.enable": True,
        "reconnect.backoff.max.ms": 2000,
        "log.connection.close": False,
        "message.max.bytes": LARGEST_BODY_BYTES,
    }
    optional = {
        "sasl.mechanism": connection.sasl_mechanism if connection.security_protocol.startswith("SASL") else None,
        "sasl.username": connection.sasl_username,
        "sasl.password": connection.sasl_password,
        "ssl.ca.location": connection.ca_file,
        "ssl.certificate.location": connection.cert_file,
        "ssl.key.location": connection.key_file,
    }
    return config | {name: str(value) for name, value in optional.items() if value is not None}


def producer_config(connection: KafkaConnection, *, batch_bytes: int) -> dict[str, Any]:
    """A producer that keeps order and repeats nothing, and counts a message as delivered when all replicas in sync have it.

    Args:
        batch_bytes: a batch of several messages is not larger, before compression; a larger message travels alone.
    """
    delivery_ms = max(1000, _ms(connection.delivery_timeout_seconds))
    return client_config(connection) | {
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": connection.compression,
        "delivery.timeout.ms": delivery_ms,
        # A broker that says nothing is asked again within the message's time.
        "request.timeout.ms": min(30_000, delivery_ms),
        "socket.timeout.ms": min(30_000, delivery_ms),
        "linger.ms": 5,
        "batch.size": batch_bytes,
        "queue.buffering.max.kbytes": _LARGEST_QUEUE_KILOBYTES,
        "topic.metadata.propagation.max.ms": _UNKNOWN_TOPIC_MS,
        # As Java's clients do, so that whoever produces, a key has one partition.
        "partitioner": "murmur2_random",
    }


def consumer_config(connection: KafkaConnection, group: str, *, longest_pause_seconds: float = 300.0) -> dict[str, Any]:
    """A member of a group; it commits nothing by itself.

    Args:
        group: full name.
        longest_pause_seconds: a member that does not ask for so long loses its partitions.
    """
    return client_config(connection) | {
        "group.id": group,
        "partition.assignment.strategy": "cooperative-sticky",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "session.timeout.ms": min(_SESSION_MS, _ms(longest_pause_seconds)),
        # A member hears by it that others come or go.
        "heartbeat.interval.ms": 1000,
        "max.poll.interval.ms": _ms(longest_pause_seconds),
        # A topic that is made again, or comes late, is seen so soon.
        "topic.metadata.refresh.interval.ms": 10_000,
        "fetch.wait.max.ms": 100,
        "socket.timeout.ms": 10_000,
        "queued.max.messages.kbytes": _LARGEST_FETCH_KILOBYTES,
        "isolation.level": "read_committed",
    }


def open_client(connection: KafkaConnection, kind: Callable[..., Client], config: Mapping[str, Any], voice: BrokerVoice) -> Client:
    """Make a client of librdkafka; this asks nothing of the network.

    Raises:
        KafkaRefused: settings it cannot work with.
    """
    check_connection(connection)
    try:
        return kind({**config, "error_cb": voice.hear}, logger=_QuietLogger(connection))
    except (KafkaException, ValueError, TypeError) as error:
        said = told(error).str() if isinstance(error, KafkaException) else str(error)
        text = connection.redact(said)[:_LONGEST_QUOTE]
        raise KafkaRefused(f"Kafka at {connection.place} cannot be spoken to with the settings KEEPER_KAFKA_*: {text}") from error


class _QuietLogger(logging.Logger):
    """librdkafka writes a line per attempt to connect; what matters comes as an error of ours."""

    def __init__(self, connection: KafkaConnection) -> None:
        super().__init__(__name__)
        self._connection = connection

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:  # noqa: ARG002
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s", self._connection.redact(str(msg) % args))


def _setting(name: str) -> str:
    return f"KEEPER_KAFKA_{name.upper()}"


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
