"""Answers that are kept for a minute."""

from api.kept_answers import KEPT_SECONDS, KeptAnswers


class Clock:
    """A machine's clock that somebody turns."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_an_answer_is_kept_for_a_minute() -> None:
    clock = Clock()
    answers = KeptAnswers(clock=clock)
    answers.keep("key", b"body")
    clock.seconds = KEPT_SECONDS - 0.1
    young = answers.recall("key")
    clock.seconds = KEPT_SECONDS

    assert young is not None and young.body == b"body"
    assert answers.recall("key") is None


def test_the_oldest_answers_make_room() -> None:
    answers = KeptAnswers(most_bytes=5_000)
    for number in range(100):
        answers.keep(number, b"x" * 500)

    assert [number for number in range(100) if answers.recall(number) is not None] == [97, 98, 99]


def test_an_answer_larger_than_all_room_is_not_kept() -> None:
    answers = KeptAnswers(most_bytes=5_000)

    assert answers.keep("key", b"x" * 10_000).body == b"x" * 10_000
    assert answers.recall("key") is None


def test_an_answer_in_the_place_of_another_takes_its_room() -> None:
    answers = KeptAnswers(most_bytes=5_000)
    for _ in range(100):
        answers.keep("key", b"x" * 500)
    answers.keep("other", b"y")

    assert answers.recall("key") is not None and answers.recall("other") is not None
