"""What an operator reads when something is wrong, and when it is right again."""

from datetime import UTC, datetime
from html import escape

from keeper.domain.watchdog import Followed, News, span
from keeper.notify.message import Message, one_line

_LONGEST_TEXT = 600
_LONGEST_SUBJECT = 120
# Discord takes 2,000 with the title.
_CHAT_LENGTH = 1_600


def compose_news(news: News, *, now: datetime) -> Message:
    """One message for everything a channel has not been told yet: troubles with what to do, and ends."""
    blocks = [_opened(one) for one in news.opened] + [_ended(one, now) for one in news.ended]
    subject = one_line(f"Keeper: {_subject(news)}", _LONGEST_SUBJECT)
    text = "\n\n".join("\n".join(lines) for lines in blocks) + "\n"
    html = "".join(f"<h3>{escape(lines[0])}</h3>\n" + "".join(f"<p>{escape(line)}</p>\n" for line in lines[1:]) for lines in blocks)
    return Message(subject, text, f"<html><body>\n{html}</body></html>\n", _chat(blocks))


def _subject(news: News) -> str:
    said = []
    if news.opened:
        first = news.opened[0].trouble.title
        said.append(f"trouble with {first}" if len(news.opened) == 1 else f"{len(news.opened)} troubles, {first} and others")
    if news.ended:
        first = news.ended[0].trouble.title
        said.append(f"{first} is over" if len(news.ended) == 1 else f"{len(news.ended)} troubles are over")
    return "; ".join(said)


def _opened(one: Followed) -> list[str]:
    trouble = one.trouble
    lines = [f"Trouble: {one_line(trouble.title, 200)}", one_line(trouble.text, _LONGEST_TEXT)]
    lines += [f"What to do: {one_line(trouble.remedy, _LONGEST_TEXT)}"] if trouble.remedy else []
    return [*lines, f"Since {one.opened_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC. You are told once, and when it is over."]


def _ended(one: Followed, now: datetime) -> list[str]:
    lasted = span(((one.ended_at or now) - one.opened_at).total_seconds())
    return [f"Over: {one_line(one.trouble.title, 200)}", f"It lasted {lasted}. It was: {one_line(one.trouble.text, _LONGEST_TEXT)}"]


def _chat(blocks: list[list[str]]) -> str:
    """As many as a chat takes."""
    kept: list[str] = []
    for number, lines in enumerate(blocks):
        block = "\n".join(lines[:3])
        if kept and sum(map(len, kept)) + len(block) > _CHAT_LENGTH:
            return "\n\n".join([*kept, f"and {len(blocks) - number} more: `keeper watchdog`"])
        kept.append(block[:_CHAT_LENGTH])
    return "\n\n".join(kept)
