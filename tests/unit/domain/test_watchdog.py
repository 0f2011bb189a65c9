"""Troubles over time: each is told once to each channel, and its end once to whoever knows of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from keeper.domain.watchdog import (
    Clock,
    Followed,
    LateInterval,
    Seen,
    Trouble,
    follow,
    is_late,
    mark_told,
    merge,
    missing_documents,
    news_for,
)

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
CALM = timedelta(minutes=10)
TROUBLE = Trouble("outbox", "kafka", "12 messages wait", "start Kafka")
BAD = [Seen("outbox", "", (TROUBLE,))]
GOOD = [Seen("outbox", "nothing waits")]


def later(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def test_a_trouble_that_lasts_keeps_its_beginning_and_has_its_newest_words() -> None:
    opened = follow([], BAD, now=NOW, calm=CALM)
    [one] = follow(opened, [Seen("outbox", "", (replace(TROUBLE, text="99 messages wait"),))], now=later(5), calm=CALM)
    assert (one.opened_at, one.seen_at, one.trouble.text) == (NOW, later(5), "99 messages wait")


def test_a_trouble_is_over_only_when_it_was_not_seen_for_a_while() -> None:
    opened = follow([], BAD, now=NOW, calm=CALM)
    [calm] = follow(opened, GOOD, now=later(5), calm=CALM)
    [over] = follow([calm], GOOD, now=later(10), calm=CALM)
    assert (calm.ended_at, over.ended_at) == (None, later(10))


def test_what_could_not_be_looked_at_neither_begins_nor_ends() -> None:
    opened = follow([], BAD, now=NOW, calm=CALM)
    assert follow(opened, [Seen("outbox", "not known", is_judged=False)], now=later(60), calm=CALM) == opened


def test_a_check_that_fails_itself_is_told_and_ends_none_of_its_own() -> None:
    foul = Trouble("watchdog", "outbox", "the check itself failed", "")
    seen = [Seen("outbox", "", (foul,), is_judged=False, is_foul=True)]
    followed = follow(follow([], BAD, now=NOW, calm=CALM), seen, now=later(60), calm=CALM)
    assert [(one.trouble.title, one.ended_at) for one in followed] == [("outbox: kafka", None), ("watchdog: outbox", None)]
    after = follow(followed, GOOD, now=later(120), calm=CALM)
    assert [one.ended_at for one in after] == [later(120)] * 2


def test_a_trouble_of_a_check_that_is_no_more_ends() -> None:
    [over] = follow(follow([], BAD, now=NOW, calm=CALM), [], now=later(10), calm=CALM)
    assert over.ended_at == later(10)


def test_each_channel_is_told_once_and_of_the_end_only_if_it_knows() -> None:
    followed = follow([], BAD, now=NOW, calm=CALM)
    followed = mark_told(followed, news_for("mail", followed), "mail")
    assert not news_for("mail", followed)
    assert news_for("chat", followed).opened
    over = follow(followed, GOOD, now=later(10), calm=CALM)
    assert (len(news_for("mail", over).ended), bool(news_for("chat", over))) == (1, False)
    assert not news_for("mail", mark_told(over, news_for("mail", over), "mail"))


def test_a_trouble_that_comes_back_after_its_end_is_told_again() -> None:
    over = follow(
        mark_told(opened := follow([], BAD, now=NOW, calm=CALM), news_for("mail", opened), "mail"), GOOD, now=later(10), calm=CALM
    )
    again = follow(over, BAD, now=later(20), calm=CALM)
    news = news_for("mail", again)
    assert ([one.opened_at for one in news.opened], len(news.ended)) == ([later(20)], 1)


def test_two_memories_are_one_what_either_told_is_told() -> None:
    ours = [Followed(TROUBLE, NOW, NOW, told=frozenset({"channel:1"}))]
    theirs = [Followed(TROUBLE, NOW, later(5), later(5), frozenset({"url:a"}), frozenset({"url:a"}))]
    [one] = merge(ours, theirs)
    assert (one.ended_at, sorted(one.told), sorted(one.told_end)) == (later(5), ["channel:1", "url:a"], ["url:a"])


def test_one_open_trouble_is_not_two_because_two_machines_saw_it_begin() -> None:
    [one] = merge([Followed(TROUBLE, later(1), later(1))], [Followed(TROUBLE, NOW, NOW)])
    assert one.opened_at == NOW


@pytest.mark.parametrize(
    ("interval_hours", "overdue_minutes", "late"),
    [
        pytest.param(6, 100, False, id="a share of a long interval may pass"),
        pytest.param(6, 181, True, id="more than that may not"),
        pytest.param(0.1, 15, False, id="anything may wait a while"),
        pytest.param(0.1, 25, True, id="and no longer"),
    ],
)
def test_lateness_is_measured_by_the_interval(interval_hours: float, overdue_minutes: float, late: bool) -> None:
    waiting = LateInterval(round(interval_hours * 3600), 1, NOW - timedelta(minutes=overdue_minutes), None)
    assert is_late(waiting, Clock(NOW), late_pct=50, late_seconds=1200) is late


def test_what_a_jump_of_the_simulator_made_overdue_is_overdue_since_the_jump() -> None:
    waiting = LateInterval(3600, 1, NOW - timedelta(days=3), None)
    assert not is_late(waiting, Clock(NOW, since_jump_seconds=60), late_pct=50, late_seconds=1200)
    assert is_late(waiting, Clock(NOW, since_jump_seconds=7200), late_pct=50, late_seconds=1200)


def test_time_that_runs_fast_is_counted_on_the_machines_clock() -> None:
    assert Clock(NOW, speed=600).overdue_seconds(NOW - timedelta(hours=1)) == 6


@pytest.mark.parametrize(
    ("documents", "rows", "waiting", "missing"),
    [
        pytest.param(100, 100, 0, 0, id="equal"),
        pytest.param(99, 100, 0, 0, id="tolerated"),
        pytest.param(90, 100, 0, 10, id="missing"),
        pytest.param(90, 100, 10, 0, id="on their way"),
        pytest.param(110, 100, 0, -10, id="too many"),
        pytest.param(0, 0, 0, 0, id="nothing"),
        pytest.param(0, 1, 0, 1, id="the only one"),
    ],
)
def test_documents_are_counted_against_rows(documents: int, rows: int, waiting: int, missing: int) -> None:
    assert missing_documents(documents=documents, rows=rows, waiting=waiting, tolerated_pct=1) == missing
