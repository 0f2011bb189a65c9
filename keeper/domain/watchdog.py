"""What the watchdog sees, when that is a trouble, and who was told of it. All times here are the machine's."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

# An end that could not be told for so long is not told any more.
_TELLS_END_FOR = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something a person must look at.

    Attributes:
        about: what of the check's subject it is: a sink, a group, an index; empty where there is only one. With `check` it says which
            trouble it is; the text may change from round to round.
        remedy: what to do.
    """

    check: str
    about: str
    text: str
    remedy: str

    @property
    def key(self) -> tuple[str, str]:
        """The same for the same trouble."""
        return self.check, self.about

    @property
    def title(self) -> str:
        """What it is about, in a few words."""
        return f"{self.check}: {self.about}" if self.about else self.check


@dataclass(frozen=True, slots=True)
class Seen:
    """What one check saw.

    Attributes:
        text: in words.
        is_judged: False where it could not look, which another trouble tells of; then none of its own begins or ends.
        is_foul: the check itself failed in a way nobody foresaw; that is the one trouble here, and not of its own name.
    """

    check: str
    text: str
    troubles: tuple[Trouble, ...] = ()
    is_judged: bool = True
    is_foul: bool = False


@dataclass(frozen=True, slots=True)
class Followed:
    """A trouble over time.

    Attributes:
        seen_at: when it was last there.
        told: the channels that took its message, `told_end` those that took the message of its end.
    """

    trouble: Trouble
    opened_at: datetime
    seen_at: datetime
    ended_at: datetime | None = None
    told: frozenset[str] = frozenset()
    told_end: frozenset[str] = frozenset()


def follow(known: Iterable[Followed], seen: Sequence[Seen], *, now: datetime, calm: timedelta) -> list[Followed]:
    """What is known after a round: new troubles, those that last, and those that have ended.

    Args:
        calm: a trouble has ended only when it was not seen for so long, so that one that comes and goes is told once.
    """
    there = {trouble.key: trouble for one in seen for trouble in one.troubles}
    unjudged = {one.check for one in seen if not one.is_judged}
    after = []
    for one in known:
        if one.ended_at is not None:
            # Known until then, so that a copy of the memory that does not know of the end cannot bring it back.
            if now - one.ended_at < _TELLS_END_FOR:
                after.append(one)
        elif (trouble := there.pop(one.trouble.key, None)) is not None:
            after.append(replace(one, trouble=trouble, seen_at=now))
        elif one.trouble.check in unjudged or now - one.seen_at < calm:
            after.append(one)
        else:
            after.append(replace(one, ended_at=now))
    return after + [Followed(trouble, now, now) for trouble in there.values()]


def merge(ours: Iterable[Followed], theirs: Iterable[Followed]) -> list[Followed]:
    """Two memories of the same troubles as one: what either was told is told, what either saw end has ended."""
    found: dict[object, Followed] = {}
    for one in [*ours, *theirs]:
        place = (one.trouble.key, one.opened_at)
        found[place] = _joined(found[place], one) if place in found else one
    open_: dict[object, Followed] = {}
    for one in found.values():
        if one.ended_at is None:
            key = one.trouble.key
            open_[key] = _joined(open_[key], one) if key in open_ else one
    return [one for one in found.values() if one.ended_at is not None] + list(open_.values())


def _joined(one: Followed, other: Followed) -> Followed:
    latest = max(one, other, key=lambda followed: followed.seen_at)
    return replace(
        latest,
        opened_at=min(one.opened_at, other.opened_at),
        ended_at=one.ended_at or other.ended_at,
        told=one.told | other.told,
        told_end=one.told_end | other.told_end,
    )


@dataclass(frozen=True, slots=True)
class News:
    """What one channel has not been told yet."""

    opened: tuple[Followed, ...]
    ended: tuple[Followed, ...]

    def __bool__(self) -> bool:
        return bool(self.opened or self.ended)


def news_for(channel: str, followed: Iterable[Followed]) -> News:
    """Each trouble once, and once its end where the channel knows of its beginning."""
    followed = list(followed)
    return News(
        tuple(one for one in followed if one.ended_at is None and channel not in one.told),
        tuple(one for one in followed if one.ended_at is not None and channel in one.told and channel not in one.told_end),
    )


def mark_told(followed: Iterable[Followed], news: News, channel: str) -> list[Followed]:
    """The channel has taken the message."""
    opened, ended = {id(one) for one in news.opened}, {id(one) for one in news.ended}
    return [
        replace(one, told=one.told | {channel})
        if id(one) in opened
        else replace(one, told_end=one.told_end | {channel})
        if id(one) in ended
        else one
        for one in followed
    ]


@dataclass(frozen=True, slots=True)
class Clock:
    """How business time runs beside the machine's.

    Attributes:
        now: business time.
        speed: business seconds in a second of the machine.
        since_jump_seconds: of the machine, since a simulator's clock was last moved; None where it never was. What a jump made overdue
            is overdue only since then.
    """

    now: datetime
    speed: float = 1.0
    since_jump_seconds: float | None = None

    def overdue_seconds(self, due_at: datetime) -> float:
        """Seconds of the machine for which something has been due; negative before."""
        seconds = (self.now - due_at).total_seconds() / self.speed
        return seconds if self.since_jump_seconds is None else min(seconds, self.since_jump_seconds)


@dataclass(frozen=True, slots=True)
class LateInterval:
    """Products of one interval whose checks are overdue.

    Attributes:
        oldest_due_at: business time.
        newest_checked_at: the newest price among them; None where none was ever checked.
        is_cut: there are more.
    """

    interval_seconds: int
    products: int
    oldest_due_at: datetime
    newest_checked_at: datetime | None
    is_cut: bool = False


def is_late(late: LateInterval, clock: Clock, *, late_pct: float, late_seconds: float) -> bool:
    """Whether they wait longer than a share of their interval, and longer than anything may wait."""
    allowed = max(late_seconds, late.interval_seconds / clock.speed * late_pct / 100)
    return clock.overdue_seconds(late.oldest_due_at) > allowed


def missing_documents(*, documents: int, rows: int, waiting: int, tolerated_pct: float) -> int:
    """Documents that an index lacks (or, negative, has too many), beyond what is on its way and what is tolerated; else 0."""
    missing = rows - documents
    tolerated = rows * tolerated_pct / 100
    if missing > 0:
        return missing if missing - waiting > tolerated else 0
    return missing if -missing > tolerated + waiting else 0


def span(seconds: float) -> str:
    """A duration in words: `45 s`, `12 min`, `1.5 h`, `3 days`."""
    for size, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            amount = seconds / size
            shown = f"{amount:.0f}" if amount >= 10 else f"{round(amount, 1):g}"
            return "1 day" if (shown, name) == ("1", "days") else f"{shown} {name}"
    return f"{seconds:.0f} s"
