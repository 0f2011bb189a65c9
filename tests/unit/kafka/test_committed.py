"""The committed offsets of a group whose coordinator is not ready yet."""

import time
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from keeper.kafka.consumer import select_committed


class Coordinator:
    """A client whose brokers say no so many times."""

    def __init__(self, code: int, refusals: int) -> None:
        self._code = code
        self._refusals = refusals

    def committed(self, partitions: list[Any], timeout: float) -> list[Any]:  # noqa: ARG002
        if self._refusals > 0:
            self._refusals -= 1
            raise KafkaException(KafkaError(self._code))
        return partitions

    def poll(self, timeout: float) -> None:
        """Nothing comes."""


@pytest.mark.parametrize("code", [KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS])
def test_a_coordinator_that_is_not_ready_is_asked_again(code: int) -> None:
    client: Any = Coordinator(code, 2)
    assert select_committed(client, [], deadline=time.monotonic() + 10) == []


@pytest.mark.parametrize(
    ("code", "seconds"), [(KafkaError.NOT_COORDINATOR, 0), (KafkaError.GROUP_AUTHORIZATION_FAILED, 10)], ids=["too late", "not allowed"]
)
def test_what_will_not_come_is_not_asked_for_again(code: int, seconds: float) -> None:
    client: Any = Coordinator(code, 1)
    with pytest.raises(KafkaException):
        select_committed(client, [], deadline=time.monotonic() + seconds)
