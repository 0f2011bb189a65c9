import time
from collections.abc import Callable

from keeper.kafka.connection import KafkaConnection
from keeper.kafka.consumer import ReceivedMessage, TopicConsumer, measure_lag
from keeper.kafka.producer import Publisher
from keeper.kafka.topics import Group, Topic
from tests.integration.kafka.sending import publish, read
from tests.services.waiting import wait_until

Member = Callable[..., TopicConsumer]


def _keys(count: int) -> list[bytes]:
    return [f"B{number:09d}".encode() for number in range(count)]


def _share(members: list[TopicConsumer], *, longest_seconds: float = 30) -> int:
    """Read until every member has partitions and all three are taken. Returns how many messages came meanwhile."""
    deadline = time.monotonic() + longest_seconds
    came = 0
    while not all(one.assigned for one in members) or sum(len(one.assigned) for one in members) < 3:
        assert time.monotonic() < deadline, "the members did not share the partitions"
        came += sum(len(one.read_batch(0.05)) for one in members)
    return came


def test_what_is_committed_does_not_come_again(publisher: Publisher, member: Member, connection: KafkaConnection) -> None:
    publish(publisher, connection, [b"1", b"2"])
    first = member()
    first.commit(read(first, 2))
    first.close()
    publish(publisher, connection, [b"3"])
    assert [one.value for one in read(member(), 1)] == [b"3"]


def test_what_is_not_committed_comes_again(publisher: Publisher, member: Member, connection: KafkaConnection) -> None:
    publish(publisher, connection, [b"1", b"2"])
    first = member(batch_size=1)
    written = read(first, 1)
    first.commit(written)
    assert [one.value for one in read(first, 1)] == [b"2"]
    first.close()
    assert [one.value for one in read(member(), 1)] == [b"2"]


def test_message_comes_whole(publisher: Publisher, member: Member, connection: KafkaConnection) -> None:
    publish(publisher, connection, [b"\xff\x00 not text"])
    (received,) = read(member(), 1)
    assert (received.key, received.value, received.headers) == (b"B0TEST0001", b"\xff\x00 not text", (("from", b"elsewhere"),))
    assert received.timestamp_ms


def test_batch_is_not_larger_than_asked(publisher: Publisher, member: Member, connection: KafkaConnection) -> None:
    publish(publisher, connection, [b"x"] * 100)
    consumer = member(batch_size=30)
    sizes: list[int] = []
    while sum(sizes) < 100:
        sizes.append(len(consumer.read_batch(1)))
    assert max(sizes) <= 30


def test_lag_falls_with_the_commit(publisher: Publisher, member: Member, connection: KafkaConnection) -> None:
    publish(publisher, connection, [b"x"] * 10)
    consumer = member()
    received = read(consumer, 10)
    before = consumer.lag()
    consumer.commit(received)
    assert (sum(before.values()), sum(consumer.lag().values())) == (10, 0)
    assert measure_lag(connection, Topic.PRICE_UPDATES, Group.PRICES) == {0: 0, 1: 0, 2: 0}


def test_lag_of_a_group_that_never_was_is_everything(publisher: Publisher, connection: KafkaConnection) -> None:
    publish(publisher, connection, [b"x"] * 10)
    assert sum(measure_lag(connection, Topic.PRICE_UPDATES, Group.PRICES).values()) == 10


def test_second_member_takes_over_partitions_and_nothing_committed_comes_twice(
    publisher: Publisher, member: Member, connection: KafkaConnection
) -> None:
    for key in _keys(30):
        publish(publisher, connection, [b"1"], key)
    first, second = member(), member()
    first.commit(read(first, 30))
    assert _share([first, second]) == 0
    for key in _keys(30):
        publish(publisher, connection, [b"2"], key)
    received: list[ReceivedMessage] = []
    while len(received) < 30:
        for one in (first, second):
            batch = one.read_batch(0.2)
            one.commit(batch)
            received += batch
    assert sorted(one.key or b"" for one in received) == _keys(30)
    assert {one.value for one in received} == {b"2"}


def test_batch_under_way_is_not_committed_for_partitions_that_were_lost(
    publisher: Publisher, member: Member, connection: KafkaConnection
) -> None:
    for key in _keys(30):
        publish(publisher, connection, [b"1"], key)
    first, second = member(), member()
    batch = read(first, 30)
    came = 0
    while not second.assigned:
        first.keep_alive()
        came += len(second.read_batch(0.1))
    first.commit(batch)
    lost = [one for one in batch if one.partition in second.assigned]
    assert lost
    assert came + len(read(second, len(lost) - came)) == len(lost)


def test_member_that_leaves_gives_its_partitions_to_the_others(publisher: Publisher, member: Member, connection: KafkaConnection) -> None:
    publish(publisher, connection, [b"x"])
    first, second = member(), member()
    _share([first, second])
    first.close()
    _share([second])


def test_member_that_keeps_alive_longer_than_the_longest_pause_stays(
    publisher: Publisher, member: Member, connection: KafkaConnection
) -> None:
    publish(publisher, connection, [b"1"])
    consumer = member(longest_pause_seconds=6)
    batch = read(consumer, 1)
    publish(publisher, connection, [b"2"])
    until = time.monotonic() + 7
    assigned = consumer.assigned

    def is_past() -> bool:
        consumer.keep_alive()
        return time.monotonic() > until

    wait_until(is_past, "time does not pass")
    consumer.commit(batch)
    assert consumer.assigned == assigned
    assert sum(consumer.lag().values()) == 1
    assert [one.value for one in read(consumer, 1)] == [b"2"]


def test_order_of_a_key_is_kept_over_many_batches(publisher: Publisher, member: Member, connection: KafkaConnection) -> None:
    values = [str(number).encode() for number in range(2000)]
    publish(publisher, connection, values)
    consumer = member(batch_size=70)
    received: list[bytes] = []
    while len(received) < len(values):
        batch = consumer.read_batch(1)
        consumer.commit(batch)
        received += [one.value or b"" for one in batch]
    assert received == values
