"""Which outcomes the sink tells, given what the producer says of each message."""

from collections.abc import Iterator, Mapping, Sequence
from uuid import uuid4

import pytest

from keeper.domain.delivery import SinkDown, Turn
from keeper.domain.events import EventKind, OutboxMessage
from keeper.kafka.connection import KafkaConnection
from keeper.kafka.line import Record, Refusal
from keeper.kafka.producer import KafkaSink
from keeper.kafka.topics import TopicSettings

Verdicts = Mapping[int, Refusal | None]
NOT_NOW = Refusal("not now", is_final=False)
NEVER = Refusal("never", is_final=True)
ALWAYS = Turn(lambda: False, lambda: False)


class ScriptedLine:
    """A line that says what it is told to."""

    def __init__(self, script: Sequence[Verdicts], fault: SinkDown | None) -> None:
        self.fault = fault
        self._script = script

    def send(self, _records: Sequence[Record], _turn: Turn) -> Iterator[Verdicts]:
        yield from self._script
        if self.fault is not None:
            raise self.fault


class ScriptedLines:
    """Has one scripted line."""

    def __init__(self, line: ScriptedLine) -> None:
        self.line = line
        self.retired: list[ScriptedLine] = []

    def current(self) -> ScriptedLine:
        return self.line

    def retire(self, line: ScriptedLine) -> None:
        self.retired.append(line)


def _told(monkeypatch: pytest.MonkeyPatch, keys: str, script: Sequence[Verdicts], fault: SinkDown | None = None) -> list[list[int]]:
    """The places of the messages in each part of the outcomes; a letter of `keys` is the key of one message."""
    sink = KafkaSink(KafkaConnection("127.0.0.1:1"), TopicSettings())
    lines = ScriptedLines(ScriptedLine(script, fault))
    monkeypatch.setattr(sink, "_lines", lines)
    messages = [OutboxMessage(seq, str(uuid4()), EventKind.PRICE_UPDATE, key, 1, "{}") for seq, key in enumerate(keys)]
    told: list[list[int]] = []
    try:
        told.extend([outcome.message.seq for outcome in outcomes] for outcomes in sink.deliver(messages, ALWAYS))
    except SinkDown:
        assert fault is not None
    assert lines.retired == ([lines.line] if fault else [])
    return told


@pytest.mark.parametrize(
    ("keys", "script", "told"),
    [
        pytest.param("ab", [{0: None, 1: None}], [[0, 1]], id="all at once"),
        pytest.param("ab", [{1: None}, {0: None}], [[1], [0]], id="keys do not wait for one another"),
        pytest.param("aab", [{1: None}, {0: None, 2: None}], [[0, 1, 2]], id="a later one waits for the earlier of its key"),
        pytest.param("aab", [{0: NOT_NOW, 1: None, 2: None}], [[0, 2]], id="nothing after a refusal for now"),
        pytest.param("aab", [{0: NOT_NOW}, {1: None, 2: None}], [[0], [2]], id="nor later"),
        pytest.param("aa", [{0: NEVER, 1: None}], [[0, 1]], id="a dead one lets the next go"),
    ],
)
def test_outcomes_keep_the_order_of_a_key(
    monkeypatch: pytest.MonkeyPatch, keys: str, script: list[Verdicts], told: list[list[int]]
) -> None:
    assert _told(monkeypatch, keys, script) == told


def test_what_is_known_is_told_before_the_sink_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _told(monkeypatch, "aba", [{1: None, 2: None}], SinkDown("gone")) == [[1]]
