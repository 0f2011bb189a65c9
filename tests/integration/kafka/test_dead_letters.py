from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient

from keeper.domain.delivery import SinkDown
from keeper.kafka.connection import KafkaConnection
from keeper.kafka.consumer import ReceivedMessage, TopicConsumer
from keeper.kafka.dead_letters import RETRY_OF, DeadLetter, DeadLetterRefused, bury, list_dead_letters, read_dead_letter, retry
from keeper.kafka.producer import Publisher
from keeper.kafka.topics import Topic, TopicSettings, ensure, topic_name
from tests.integration.kafka.sending import publish, read
from tests.services.waiting import wait_until

Member = Callable[..., TopicConsumer]
GARBAGE = b"\xff\xfe{"


@pytest.fixture
def buried(publisher: Publisher, member: Member, connection: KafkaConnection) -> list[ReceivedMessage]:
    """Three messages of one key that were read, buried and committed."""
    publish(publisher, connection, [GARBAGE, b"[]", b"null"])
    consumer = member()
    dead = read(consumer, 3)
    bury(publisher, connection, Topic.PRICE_UPDATES, [(message, f"is no event: {message.offset}") for message in dead])
    consumer.commit(dead)
    consumer.close()
    return dead


def _listed(connection: KafkaConnection) -> list[DeadLetter]:
    return list_dead_letters(connection, Topic.PRICE_UPDATES)


def test_buried_message_is_kept_with_reason_place_and_bytes(buried: list[ReceivedMessage], connection: KafkaConnection) -> None:
    letter = _listed(connection)[0]
    assert letter.reason == "is no event: 0"
    assert (letter.topic, letter.source_partition, letter.source_offset) == (buried[0].topic, buried[0].partition, 0)
    assert (letter.key, letter.value, letter.timestamp_ms) == (b"B0TEST0001", GARBAGE, buried[0].timestamp_ms)
    assert letter.headers == (("from", b"elsewhere"),)
    assert letter == read_dead_letter(connection, Topic.PRICE_UPDATES, letter.partition, letter.offset)


def test_nothing_dead_is_an_empty_list(publisher: Publisher, connection: KafkaConnection) -> None:
    assert _listed(connection) == []
    assert retry(publisher, connection, Topic.PRICE_UPDATES) == 0


def test_retried_messages_come_again_as_they_were_and_are_listed_no_more(
    buried: list[ReceivedMessage], publisher: Publisher, member: Member, connection: KafkaConnection
) -> None:
    assert retry(publisher, connection, Topic.PRICE_UPDATES) == 3
    again = read(member(), 3)
    assert [one.value for one in again] == [one.value for one in buried]
    assert dict(again[0].headers).keys() == {"from", RETRY_OF}
    assert _listed(connection) == []
    assert retry(publisher, connection, Topic.PRICE_UPDATES) == 0


def test_single_one_is_retried_and_the_others_stay(
    buried: list[ReceivedMessage], publisher: Publisher, connection: KafkaConnection
) -> None:
    letters = _listed(connection)
    middle = letters[1]
    assert retry(publisher, connection, Topic.PRICE_UPDATES, only=(middle.partition, middle.offset)) == 1
    assert _listed(connection) == [letters[0], letters[2]]
    assert retry(publisher, connection, Topic.PRICE_UPDATES) == 2
    assert _listed(connection) == []


def test_list_stops_at_its_limit(buried: list[ReceivedMessage], connection: KafkaConnection) -> None:
    assert len(list_dead_letters(connection, Topic.PRICE_UPDATES, limit=2)) == 2


@pytest.mark.parametrize("place", [(0, 10_000), (99, 0)], ids=["offset", "partition"])
def test_dead_letter_that_is_not_there_is_said(publisher: Publisher, connection: KafkaConnection, place: tuple[int, int]) -> None:
    with pytest.raises(DeadLetterRefused, match="there is no dead letter"):
        read_dead_letter(connection, Topic.PRICE_UPDATES, *place)


def test_original_that_is_too_large_even_there_is_cut_and_cannot_be_retried(publisher: Publisher, connection: KafkaConnection) -> None:
    huge = ReceivedMessage("price-updates", 0, 5, b"B0TEST0001", b"x" * 17_000_000, (), None)
    bury(publisher, connection, Topic.PRICE_UPDATES, [(huge, "too large")])
    (letter,) = _listed(connection)
    assert letter.cut_from_bytes == 17_000_000
    assert len(letter.value or b"") == 100_000
    with pytest.raises(DeadLetterRefused, match="too large to be kept whole"):
        retry(publisher, connection, Topic.PRICE_UPDATES, only=(letter.partition, letter.offset))


def test_message_without_key_and_value_is_kept(publisher: Publisher, connection: KafkaConnection) -> None:
    bury(publisher, connection, Topic.PRICE_UPDATES, [(ReceivedMessage("price-updates", 0, 5, None, None, (("h", None),), None), "empty")])
    (letter,) = _listed(connection)
    assert (letter.key, letter.value, letter.headers) == (None, None, (("h", None),))


def test_topic_that_was_deleted_is_made_again_by_whoever_goes_on_burying(publisher: Publisher, connection: KafkaConnection) -> None:
    drawer = topic_name(connection, Topic.DEAD_PRICE_UPDATES)
    faults: list[str] = []

    def is_buried() -> bool:
        message = ReceivedMessage("price-updates", 0, 5, b"B0TEST0001", GARBAGE, (), None)
        try:
            bury(publisher, connection, Topic.PRICE_UPDATES, [(message, "is no event")])
        except SinkDown as down:
            faults.append(str(down))
            return False
        return True

    assert is_buried()
    admin = AdminClient({"bootstrap.servers": connection.bootstrap_servers, "log_level": 0})
    for deleted in admin.delete_topics([drawer], operation_timeout=10).values():
        deleted.result(10)
    # The broker goes on taking messages for a moment.
    wait_until(lambda: not is_buried(), "the topic is still there")
    assert drawer in faults[-1]
    wait_until(is_buried, "nobody made the topic again")
    assert ensure(connection, TopicSettings()).made == ()
    assert len(_listed(connection)) == 1
