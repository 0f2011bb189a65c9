"""Composes what a person reads: the title, the text and the HTML of an alert."""

import re
from dataclasses import dataclass
from datetime import UTC
from html import escape

from keeper.domain.alert import PriceAlert

# Discord takes 2,000 characters with the title, Telegram 4,096; a real title rarely has more than 250.
_TITLE_LENGTH = 300
_SUBJECT_TITLE_LENGTH = 90
_URL_LENGTH = 500

_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


@dataclass(frozen=True, slots=True)
class Message:
    """One message in the forms channels ask for.

    Attributes:
        title: one line, no control characters; the subject of a mail.
        text: the whole message as plain text; with the title below 2,000 characters when composed here.
        html: the same facts as HTML, for mail.
        chat: a shorter text for channels other than mail; empty where `text` is short enough for all.
    """

    title: str
    text: str
    html: str
    chat: str = ""


def compose_alert(alert: PriceAlert) -> Message:
    """The message of a price alert."""
    product = one_line(alert.title, _TITLE_LENGTH) or alert.asin
    image_url = shown_image(alert.image_url)
    rows = _rows(alert)
    text = [product, *(f"{label}: {value}" for label, value in rows), alert.link]
    if image_url:
        text.append(f"Image: {image_url}")
    link = escape(alert.link)
    picture = f'<img src="{escape(image_url)}" alt="{escape(product)}" width="240">' if image_url else ""
    image = f'<p><a href="{link}">{picture}</a></p>\n' if picture else ""
    cells = "".join(f"<tr><td>{escape(label)}</td><td><strong>{escape(value)}</strong></td></tr>\n" for label, value in rows)
    html = (
        f'<html><body>\n<h2><a href="{link}">{escape(product)}</a></h2>\n{image}<table cellpadding="4">\n{cells}</table>\n'
        f'<p><a href="{link}">{link}</a></p>\n</body></html>\n'
    )
    subject = f"{alert.price}: {one_line(alert.title, _SUBJECT_TITLE_LENGTH) or alert.asin}"
    return Message(title=subject, text="\n".join(text), html=html)


def compose_test(channel_name: str) -> Message:
    """The message of `keeper channel test`."""
    name = one_line(channel_name, _SUBJECT_TITLE_LENGTH)
    sentence = f"This is a test of the channel {name}. Price alerts will arrive here."
    return Message(title=f"Keeper test: {name}", text=sentence, html=f"<html><body>\n<p>{escape(sentence)}</p>\n</body></html>\n")


def _rows(alert: PriceAlert) -> list[tuple[str, str]]:
    rows = [("Price now", str(alert.price))]
    if alert.previous_price is not None:
        rows.append(("Before", str(alert.previous_price)))
    if alert.drop_pct is not None:
        rows.append(("Drop", f"{alert.drop_pct} %"))
    rows.append(("Your target", str(alert.target)))
    rows.append(("Lowest in a year", "not known" if alert.lowest_in_year is None else str(alert.lowest_in_year)))
    rows.append(("Store", f"{alert.marketplace.host} ({alert.price_type.value.replace('_', ' ').lower()})"))
    rows.append(("Since", f"{alert.observed_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"))
    return rows


def one_line(text: str, length: int) -> str:
    """Without line breaks, control and direction characters (a title must not forge a header or turn a line around), cut at `length`."""
    line = _UNPRINTABLE.sub(" ", text).strip()
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def shown_image(url: str | None) -> str | None:
    """The address of a picture, where it is one that may stand in a message."""
    if url is None or len(url) > _URL_LENGTH or not re.fullmatch(r"https?://[^\s<>\"]+", url):
        return None
    return url
