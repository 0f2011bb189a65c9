"""Brokers that are stopped, killed or behind TLS, on a broker of these tests' own."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from uuid import uuid4

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from keeper.domain.delivery import SinkDown, Turn
from keeper.domain.events import EventKind
from keeper.kafka.connection import KafkaConnection
from keeper.kafka.consumer import TopicConsumer
from keeper.kafka.line import Record
from keeper.kafka.producer import KafkaSink, Publisher
from keeper.kafka.topics import Group, Topic, TopicSettings, ensure, topic_name
from tests.integration.kafka.sending import deliver, make_message, publish, read
from tests.services.kafka import SASL_USERNAME, KafkaCluster
from tests.services.waiting import wait_until


@pytest.fixture
def impatient(own_cluster: KafkaCluster) -> Iterator[KafkaConnection]:
    """A connection that waits for nobody; the broker answers again afterwards."""
    yield KafkaConnection(
        own_cluster.bootstrap_servers, topic_prefix=f"{uuid4().hex[:8]}-", connect_timeout_seconds=1, delivery_timeout_seconds=2
    )
    own_cluster.resume(1)
    own_cluster.start()


@pytest.fixture
def sink(impatient: KafkaConnection) -> Iterator[KafkaSink]:
    """A connected sink that has delivered."""
    opened = KafkaSink(impatient, TopicSettings())
    _connect(opened)
    assert _delivered(opened, 1) == [1]
    yield opened
    opened.close()


def _connect(sink: KafkaSink) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            sink.connect()
        except SinkDown:
            assert time.monotonic() < deadline
        else:
            return


def _delivered(sink: KafkaSink, seq: int) -> list[int]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        outcomes, down = deliver(sink, [make_message(seq)])
        if down is None:
            return [outcome.message.seq for outcome in outcomes if outcome.refusal is None]
        _connect(sink)
    return []


def test_broker_that_says_nothing_is_down_and_later_works(own_cluster: KafkaCluster, sink: KafkaSink) -> None:
    own_cluster.suspend(1)
    outcomes, down = deliver(sink, [make_message(2), make_message(3)])
    assert (outcomes, type(down)) == ([], SinkDown)
    with pytest.raises(SinkDown, match="does not answer"):
        sink.connect()
    own_cluster.resume(1)
    _connect(sink)
    assert _delivered(sink, 2) == [2]


def test_broker_that_was_killed_is_down_and_later_works(own_cluster: KafkaCluster, sink: KafkaSink) -> None:
    own_cluster.kill(1)
    outcomes, down = deliver(sink, [make_message(2)])
    assert (outcomes, type(down)) == ([], SinkDown)
    with pytest.raises(SinkDown, match="refused"):
        sink.connect()
    own_cluster.start()
    _connect(sink)
    assert _delivered(sink, 2) == [2]


def test_lost_turn_sends_nothing_of_what_waits_and_acknowledges_nothing(own_cluster: KafkaCluster, impatient: KafkaConnection) -> None:
    with own_cluster.open_proxies() as (proxy,):
        proxied = replace(impatient, bootstrap_servers=own_cluster.proxied_bootstrap_servers, delivery_timeout_seconds=30)
        sink = KafkaSink(proxied, TopicSettings())
        _connect(sink)
        assert _delivered(sink, 1) == [1]
        proxy.cut()
        asked: list[bool] = []

        def is_lost() -> bool:
            asked.append(len(asked) > 60)
            return asked[-1]

        assert deliver(sink, [make_message(seq) for seq in range(2, 500)], Turn(lambda: False, is_lost)) == ([], None)
        # Once told, it ends; it does not wait for the delivery's own end.
        assert 1 <= asked.count(True) <= 2
        proxy.restore()
        _connect(sink)
        assert _delivered(sink, 500) == [500]
        sink.close()
    consumer = TopicConsumer(impatient, Topic.PRICE_UPDATES, Group.PRICES, TopicSettings())
    received = read(consumer, 2)
    consumer.close()
    assert [dict(one.headers)["sequence"] for one in received] == [b"1", b"500"]


def test_consumer_goes_on_by_itself_when_the_broker_is_back(own_cluster: KafkaCluster, impatient: KafkaConnection) -> None:
    publisher = Publisher(impatient, TopicSettings())
    with own_cluster.open_proxies() as (proxy,):
        proxied = replace(impatient, bootstrap_servers=own_cluster.proxied_bootstrap_servers)
        consumer = TopicConsumer(proxied, Topic.PRICE_UPDATES, Group.PRICES, TopicSettings())
        proxy.cut()
        assert consumer.read_batch(0.5) == []
        proxy.restore()
        wait_until(lambda: consumer.read_batch(0.2) == [] and bool(consumer.assigned), "the consumer did not come in")
        publish(publisher, impatient, [b"1"])
        batch = read(consumer, 1)
        proxy.cut()
        # Nothing answers before the proxy is restored, so that both return at all is the claim.
        consumer.commit(batch)
        assert consumer.read_batch(0.5) == []
        publish(publisher, impatient, [b"2"])
        proxy.restore()
        assert [one.value for one in read(consumer, 1)] == [b"2"]
        wait_until(lambda: consumer.read_batch(0.2) == [] and sum(consumer.lag().values()) == 1, "the first was never committed")
        consumer.close()
    publisher.close()


def test_tls_with_the_brokers_ca(own_cluster: KafkaCluster, impatient: KafkaConnection) -> None:
    behind_tls = replace(
        impatient, bootstrap_servers=own_cluster.tls_bootstrap_servers, security_protocol="SSL", ca_file=own_cluster.ca_file
    )
    sink = KafkaSink(behind_tls, TopicSettings())
    _connect(sink)
    assert _delivered(sink, 1) == [1]
    sink.close()
    consumer = TopicConsumer(behind_tls, Topic.PRICE_UPDATES, Group.PRICES, TopicSettings())
    assert len(read(consumer, 1)) == 1
    consumer.close()


def test_broker_of_an_unknown_ca_is_refused_with_a_hint(own_cluster: KafkaCluster, impatient: KafkaConnection) -> None:
    behind_tls = replace(impatient, bootstrap_servers=own_cluster.tls_bootstrap_servers, security_protocol="SSL")
    with pytest.raises(SinkDown, match=r"TLS fails.*KEEPER_KAFKA_CA_FILE"):
        KafkaSink(behind_tls, TopicSettings()).connect()


def _with_password(own_cluster: KafkaCluster, connection: KafkaConnection, password: str) -> KafkaConnection:
    return replace(
        connection,
        bootstrap_servers=own_cluster.sasl_bootstrap_servers,
        security_protocol="SASL_SSL",
        sasl_mechanism="PLAIN",
        sasl_username=SASL_USERNAME,
        sasl_password=password,
        ca_file=own_cluster.ca_file,
    )


@pytest.fixture
def forbid(own_cluster: KafkaCluster) -> Callable[[str, AclOperation], Callable[[], None]]:
    """Forbids Keeper's user something on a topic; what it returns allows it again."""
    admin = AdminClient({"bootstrap.servers": own_cluster.bootstrap_servers, "log_level": 0})

    def make(topic: str, operation: AclOperation) -> Callable[[], None]:
        place = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, f"User:{SASL_USERNAME}", "*", operation, AclPermissionType.DENY)
        for future in admin.create_acls([AclBinding(*place)]).values():
            future.result(10)

        def allow() -> None:
            for future in admin.delete_acls([AclBindingFilter(*place)]).values():
                future.result(10)

        return allow

    return make


@pytest.mark.parametrize("operation", [AclOperation.WRITE, AclOperation.DESCRIBE], ids=["may not be written", "is hidden"])
def test_topic_that_is_forbidden_holds_back_its_own_keys_only(
    own_cluster: KafkaCluster,
    impatient: KafkaConnection,
    forbid: Callable[[str, AclOperation], Callable[[], None]],
    operation: AclOperation,
) -> None:
    ensure(impatient, TopicSettings())
    allow = forbid(topic_name(impatient, Topic.DEAL_UPDATES), operation)
    sink = KafkaSink(_with_password(own_cluster, impatient, own_cluster.sasl_password), TopicSettings())
    _connect(sink)
    deal = make_message(2, "B0TEST0002", kind=EventKind.DEAL_UPDATE)

    def outcomes() -> dict[int, tuple[bool, bool]]:
        told, down = deliver(sink, [make_message(1), deal, make_message(3, "B0TEST0002"), make_message(4)])
        assert down is None
        return {one.message.seq: (one.refusal is None, one.is_unreachable) for one in told}

    # The broker hears of a new rule a moment later.
    wait_until(lambda: outcomes() == {1: (True, False), 2: (False, True), 4: (True, False)}, "the topic is still allowed")
    allow()
    wait_until(lambda: outcomes() == dict.fromkeys(range(1, 5), (True, False)), "the topic is still forbidden")
    sink.close()


def test_publisher_whose_topic_is_forbidden_is_down(
    own_cluster: KafkaCluster, impatient: KafkaConnection, forbid: Callable[[str, AclOperation], Callable[[], None]]
) -> None:
    ensure(impatient, TopicSettings())
    name = topic_name(impatient, Topic.ENRICHED_PRODUCTS)
    forbid(name, AclOperation.WRITE)
    publisher = Publisher(_with_password(own_cluster, impatient, own_cluster.sasl_password), TopicSettings())

    def is_down() -> bool:
        try:
            assert publisher.publish([Record(name, "B0TEST0001", b"{}", [])]) == [None]
        except SinkDown as down:
            return "does not let us write to topic" in str(down)
        return False

    wait_until(is_down, "the topic is still allowed")
    publisher.close()


@pytest.mark.parametrize("is_right", [True, False], ids=["right password", "wrong password"])
def test_password_is_sent_and_never_told(own_cluster: KafkaCluster, impatient: KafkaConnection, is_right: bool) -> None:
    password = own_cluster.sasl_password if is_right else "wrong-one"
    known = _with_password(own_cluster, impatient, password)
    sink = KafkaSink(known, TopicSettings())
    if is_right:
        _connect(sink)
        assert _delivered(sink, 1) == [1]
        sink.close()
        return
    with pytest.raises(SinkDown, match="KEEPER_KAFKA_SASL_PASSWORD") as down:
        sink.connect()
    assert password not in str(down.value)
