from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser

import pytest

from keeper.domain.alert import PriceAlert
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_type import PriceType
from keeper.notify.message import compose_alert, compose_test

ALERT = PriceAlert(
    alert_id="0f5c",
    asin="B07W6JG6Z7",
    marketplace=Marketplace.DE,
    price_type=PriceType.BUY_BOX_SHIPPING,
    title='Tastatur "MX" <kabellos> & leise',
    price=Money(4999, "EUR"),
    previous_price=Money(5999, "EUR"),
    target=Money(5000, "EUR"),
    lowest_in_year=Money(4890, "EUR"),
    image_url="https://m.media-amazon.com/images/I/41.jpg?a=1&b=2",
    observed_at=datetime(2026, 2, 20, 13, 30, tzinfo=timezone(timedelta(hours=1))),
)
FACTS = ["49.99 €", "59.99 €", "16.67 %", "50.00 €", "48.90 €", "2026-02-20 12:30 UTC", "https://www.amazon.de/dp/B07W6JG6Z7"]


class Page(HTMLParser):
    """What a reader sees, and the tags with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.mark.parametrize("fact", [*FACTS, ALERT.title])
def test_text_and_html_hold_every_fact(fact: str) -> None:
    message = compose_alert(ALERT)
    assert fact in message.text
    assert fact in Page(message.html).text


def test_title_names_price_and_product() -> None:
    assert compose_alert(ALERT).title == '49.99 €: Tastatur "MX" <kabellos> & leise'


def test_html_shows_the_image_and_links_the_product() -> None:
    page = Page(compose_alert(ALERT).html)
    assert [image["src"] for image in page.named("img")] == [ALERT.image_url]
    assert {link["href"] for link in page.named("a")} == {ALERT.link}


def test_text_names_the_image() -> None:
    assert f"Image: {ALERT.image_url}" in compose_alert(ALERT).text


@pytest.mark.parametrize(
    "title",
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a' onmouseover='x", "</h2></body>", "&lt;b&gt; stays as written"],
)
def test_title_cannot_become_markup(title: str) -> None:
    page, plain = Page(compose_alert(replace(ALERT, title=title)).html), Page(compose_alert(ALERT).html)
    assert title in page.text
    assert [(tag, sorted(attributes)) for tag, attributes in page.tags] == [(tag, sorted(attributes)) for tag, attributes in plain.tags]


@pytest.mark.parametrize(
    "url", [None, "javascript:alert(1)", 'https://x/"onload="y', "https://x/" + "a" * 600, "data:image/png;base64,AA"], ids=repr
)
def test_image_that_is_none_or_unsafe_is_left_out(url: str | None) -> None:
    message = compose_alert(replace(ALERT, image_url=url))
    assert Page(message.html).named("img") == []
    assert "Image" not in message.text


def test_unknown_facts_are_not_invented() -> None:
    message = compose_alert(replace(ALERT, previous_price=None, lowest_in_year=None))
    assert "Before" not in message.text
    assert "Drop" not in message.text
    assert "Lowest in a year: not known" in message.text


def test_title_is_one_printable_line() -> None:
    message = compose_alert(replace(ALERT, title="Key\r\nBcc: thief@example.org\x00\u202eboard"))
    assert message.title == "49.99 €: Key Bcc: thief@example.org board"


def test_product_without_title_goes_by_its_asin() -> None:
    assert compose_alert(replace(ALERT, title=" \n")).title == "49.99 €: B07W6JG6Z7"


def test_longest_message_fits_discord_and_telegram() -> None:
    message = compose_alert(replace(ALERT, title="&" * 5000, image_url="https://x/" + "a" * 490, price=Money(10**11, "EUR")))
    assert len(message.title) + 2 + len(message.text) < 2000
    # Telegram counts after it has read the entities; even unread they stay below its limit.
    assert len(message.title.replace("&", "&amp;") + message.text.replace("&", "&amp;")) < 4096


def test_yen_have_no_decimals() -> None:
    alert = replace(
        ALERT, price=Money(4999, "JPY"), previous_price=None, marketplace=Marketplace.JP, observed_at=datetime(2026, 1, 1, tzinfo=UTC)
    )
    assert "Price now: 4,999 ¥" in compose_alert(alert).text


def test_test_message_names_the_channel_and_escapes_it() -> None:
    message = compose_test("mine & <yours>")
    assert "mine & <yours>" in message.text
    assert "mine &amp; &lt;yours&gt;" in message.html
    assert message.title == "Keeper test: mine & <yours>"
