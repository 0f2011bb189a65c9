import random
import threading
from collections.abc import Callable

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from keeper.domain.delivery import Turn
from keeper.domain.events import EventKind
from keeper.kafka.connection import KafkaConnection
from keeper.kafka.consumer import ReceivedMessage, TopicConsumer
from keeper.kafka.producer import KafkaSink
from keeper.kafka.topics import Group, Topic, TopicSettings, topic_name
from tests.integration.kafka.sending import deliver, make_message, read
from tests.services.waiting import wait_until

Member = Callable[..., TopicConsumer]


def _sequences(received: list[ReceivedMessage], key: str) -> list[int]:
    return [int(dict(one.headers)["sequence"] or b"") for one in received if one.key == key.encode()]


def test_acknowledged_message_is_in_its_topic_as_it_was_stored(sink: KafkaSink, member: Member, connection: KafkaConnection) -> None:
    message = make_message(7, body='{"product_title": "Größe", "n": 1.50}')
    outcomes, down = deliver(sink, [message])
    assert (down, [outcome.refusal for outcome in outcomes]) == (None, [None])
    (received,) = read(member(), 1)
    assert (received.topic, received.key, received.value) == (
        topic_name(connection, Topic.PRICE_UPDATES),
        message.key.encode(),
        message.body.encode(),
    )
    assert dict(received.headers) == {"event_id": str(message.event_id).encode(), "kind": b"price_update", "sequence": b"7"}


def test_request_that_set_it_off_is_a_header(sink: KafkaSink, member: Member) -> None:
    deliver(sink, [make_message(1)._replace(request_id="my-request.1")])
    (received,) = read(member(), 1)
    assert dict(received.headers)["request_id"] == b"my-request.1"


@pytest.mark.parametrize(
    ("kind", "topic"),
    [
        pytest.param(EventKind.DEAL_UPDATE, Topic.DEAL_UPDATES, id="deal"),
        pytest.param(EventKind.RAW_PRODUCT, Topic.RAW_PRODUCTS, id="raw product"),
        pytest.param(EventKind.RAW_DEAL, Topic.RAW_DEALS, id="raw deal"),
    ],
)
def test_kind_decides_the_topic(sink: KafkaSink, member: Member, kind: EventKind, topic: Topic) -> None:
    assert deliver(sink, [make_message(1, kind=kind)])[1] is None
    assert len(read(member(topic, Group.ENRICHMENT), 1)) == 1


def test_two_threads_keep_the_order_of_every_key(sink: KafkaSink, member: Member) -> None:
    keys = [f"B{number:09d}" for number in range(40)]

    def run(own: list[str]) -> None:
        for start in range(0, 3000, 1000):
            outcomes, down = deliver(sink, [make_message(seq, own[seq % len(own)]) for seq in range(start, start + 1000)])
            assert down is None
            assert len(outcomes) == 1000

    threads = [threading.Thread(target=run, args=(own,)) for own in (keys[:20], keys[20:])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    received = read(member(), 6000)
    assert len(received) == 6000
    for key in keys:
        assert _sequences(received, key) == sorted(set(_sequences(received, key)))


def test_too_large_message_is_refused_for_good_and_later_ones_go(sink: KafkaSink, member: Member) -> None:
    # Does not compress, so that the broker refuses it, not the client.
    noise = "".join(random.Random(1).choices([chr(one) for one in range(0x4E00, 0x9000)], k=700_000))
    outcomes, down = deliver(sink, [make_message(1), make_message(2, body=noise), make_message(3), make_message(4, "B0TEST0002")])
    assert down is None
    assert [(outcome.message.seq, outcome.is_final) for outcome in outcomes if outcome.refusal] == [(2, True)]
    assert _sequences(read(member(), 3), "B0TEST0001") == [1, 3]


def test_more_than_the_client_takes_is_refused_for_good(sink: KafkaSink) -> None:
    outcomes, down = deliver(sink, [make_message(1, body="x" * 17_000_000), make_message(2)])
    assert down is None
    assert [(outcome.refusal is None, outcome.is_final) for outcome in outcomes] == [(False, True), (True, False)]


def test_what_compresses_well_may_be_larger_than_the_topics_limit(sink: KafkaSink) -> None:
    outcomes, down = deliver(sink, [make_message(1, kind=EventKind.RAW_PRODUCT, body='{"csv": [' + "1234567," * 1_000_000 + "0]}")])
    assert down is None
    assert outcomes[0].refusal is None


def test_kind_without_topic_is_refused_for_good(sink: KafkaSink) -> None:
    outcomes, down = deliver(sink, [make_message(1, kind=EventKind.ALERT), make_message(2)])
    assert down is None
    assert {outcome.message.seq: outcome.is_final for outcome in outcomes} == {1: True, 2: False}


def test_topic_with_a_smaller_limit_gets_smaller_batches_and_loses_nothing(connection: KafkaConnection, member: Member) -> None:
    sink = KafkaSink(connection, TopicSettings(partitions=1))
    sink.connect()
    name = topic_name(connection, Topic.PRICE_UPDATES)
    _lower_limit(connection, name, 50_000)
    noise = random.Random(2)
    probes = _probe_until_refused(connection, name, noise.randbytes(60_000))
    messages = [make_message(seq, body=noise.randbytes(2000).hex()) for seq in range(200)]
    waiting, rounds = messages, 0
    while waiting:
        rounds += 1
        assert rounds < 12
        outcomes, _down = deliver(sink, waiting)
        assert not [outcome for outcome in outcomes if outcome.refusal]
        known = {outcome.message.seq for outcome in outcomes}
        waiting = [message for message in waiting if message.seq not in known]
        sink.connect()
    sink.close()
    assert rounds > 1
    assert set(_sequences(read(member(), 200 + probes), "B0TEST0001")) == set(range(200))


def test_topic_that_was_deleted_is_made_again(connection: KafkaConnection) -> None:
    sink = KafkaSink(connection, TopicSettings())
    sink.connect()
    assert deliver(sink, [make_message(1)])[1] is None
    admin = AdminClient({"bootstrap.servers": connection.bootstrap_servers, "log_level": 0})
    faults: list[str] = []

    def is_refused() -> bool:
        faults.extend(str(down) for down in [deliver(sink, [make_message(2)])[1]] if down is not None)
        return bool(faults)

    def delete() -> str:
        for deleted in admin.delete_topics([topic_name(connection, Topic.PRICE_UPDATES)], operation_timeout=10).values():
            deleted.result(10)
        faults.clear()
        # The broker goes on taking messages for a moment.
        wait_until(is_refused, "the topic is still there")
        return faults[-1]

    fault = delete()
    if "handle destroyed" in fault:
        # librdkafka was just letting go of its broker, and told of that first: what is made again is deleted again.
        sink.connect()
        fault = delete()
    assert "has no topic" in fault
    sink.connect()
    assert [outcome.refusal for outcome in deliver(sink, [make_message(2)])[0]] == [None]
    sink.close()


def test_turn_that_is_over_sends_nothing(sink: KafkaSink, member: Member) -> None:
    assert deliver(sink, [make_message(1)], Turn(lambda: True, lambda: False)) == ([], None)
    assert deliver(sink, [make_message(2)])[1] is None
    assert _sequences(read(member(), 1), "B0TEST0001") == [2]


def test_turn_that_ends_meanwhile_finishes_what_is_under_way(sink: KafkaSink) -> None:
    asked = 0

    def is_over() -> bool:
        nonlocal asked
        asked += 1
        return asked > 1000

    outcomes, down = deliver(sink, [make_message(seq) for seq in range(5000)], Turn(is_over, lambda: False))
    assert down is None
    assert 0 < len(outcomes) < 5000
    assert [outcome.message.seq for outcome in outcomes] == list(range(len(outcomes)))


def _lower_limit(connection: KafkaConnection, name: str, limit: int) -> None:
    admin = AdminClient({"bootstrap.servers": connection.bootstrap_servers, "log_level": 0})
    entry = ConfigEntry("max.message.bytes", str(limit), incremental_operation=AlterConfigOpType.SET)
    for done in admin.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])]).values():
        done.result(10)


def _probe_until_refused(connection: KafkaConnection, name: str, value: bytes) -> int:
    """A broker obeys a new limit some time after it has confirmed it. Returns how many it took until then."""
    refusals: list[bool] = []
    producer = Producer({"bootstrap.servers": connection.bootstrap_servers, "log_level": 0})

    def is_refused() -> bool:
        producer.produce(name, value, on_delivery=lambda error, _message: refusals.append(error is not None))
        assert producer.flush(10) == 0
        return refusals[-1]

    wait_until(is_refused, "the lower limit is not obeyed")
    return refusals.count(False)
