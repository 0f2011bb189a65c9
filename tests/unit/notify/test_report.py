"""A report as mail clients and chats get it."""

import re
from dataclasses import replace

import pytest

from keeper.domain.report import DealAlert, decode_report, encode_report
from keeper.notify.report import compose_deal_alert, compose_report, render_report
from tests.unit.notify.reports import EMPTY, HOSTILE, REPORT, deal, full
from tests.unit.notify.test_message import Page

# Gmail shows no more of a mail.
_GMAIL_BYTES = 102 * 1024
FACTS = [
    "69.90 €", "30 % below its median", "median of 90 days 99.90 €", "low of the year 64.90 €", "list price 129.00 €", "★ 4.6 (1,847)",
    "rank 1,200", "cheaper, was 89.90 €", "dearer, was 59.90 €", "all-time low", "lowest in a year", "between 69.90 € and 99.90 €",
    "Split & ergonomic <all>", "104.50 €", "139.90 €", "25.30 %", "your target 100.00 €", "Wooting 60HE+ Modul", "Instant: Wooting",
    "4 new, 1 cheaper, 1 dearer, 2 gone", "Logitech MX Keys S Plus",
]  # fmt: skip


@pytest.mark.parametrize("fact", FACTS)
def test_text_and_html_hold_every_fact(fact: str) -> None:
    message = compose_report(REPORT)

    assert fact in message.text
    assert fact in " ".join(Page(message.html).text.split())


def test_report_looks_the_same_when_it_is_read_back() -> None:
    assert compose_report(decode_report(encode_report(REPORT))) == compose_report(REPORT)


def test_hostile_title_is_text_everywhere() -> None:
    hostile = HOSTILE.replace(" \u202e", " ")  # which would turn the rest of the line around
    page = Page(compose_report(REPORT).html)

    assert [tag for tag, _ in page.tags if tag == "script"] == []
    assert [one for tag, one in page.tags if any(name.startswith("on") for name in one)] == []
    assert hostile in page.text
    assert any(one["alt"] == hostile[:79].rstrip() + "…" or one["alt"] == hostile for one in page.named("img"))
    assert "\u202e" not in compose_report(REPORT).text


def test_page_has_no_script_and_asks_only_for_pictures_at_absolute_addresses() -> None:
    page = Page(compose_report(REPORT).html)

    assert {tag for tag, _ in page.tags} <= {
        "html", "head", "meta", "title", "style", "body", "div", "table", "tr", "td", "h1", "h2", "a", "img", "span",
    }  # fmt: skip
    assert all(str(one["src"]).startswith("https://m.media-amazon.com/images/I/") for one in page.named("img"))
    assert all(str(one["href"]).startswith("https://www.amazon.de/dp/B0") for one in page.named("a"))
    assert not re.search(r"url\(|@import|<link|javascript:", compose_report(REPORT).html)


def test_pictures_have_a_size_and_a_text_in_their_place() -> None:
    pictures = Page(compose_report(REPORT).html).named("img")

    assert len(pictures) == 5
    assert all(one["width"] == one["height"] and one["alt"] for one in pictures)


@pytest.mark.parametrize("url", ["javascript:alert(1)", "//m.media-amazon.com/x.jpg", 'https://x/"onerror="y', "ftp://x/y.jpg", None])
def test_what_is_no_picture_is_not_shown(url: str | None) -> None:
    html = compose_deal_alert(DealAlert("x", deal(image_url=url))).html
    assert Page(html).named("img") == []


def test_picture_of_another_house_is_asked_for_as_it_is() -> None:
    html = compose_deal_alert(DealAlert("x", deal(image_url="https://images.example.org/a.jpg"))).html
    assert [one["src"] for one in Page(html).named("img")] == ["https://images.example.org/a.jpg"]


@pytest.mark.parametrize(("parts", "deals"), [(3, 10), (1, 10), (1, 100), (20, 10), (200, 5)])
def test_page_is_not_cut_by_gmail(parts: int, deals: int) -> None:
    assert len(render_report(full(parts, deals)).encode()) < _GMAIL_BYTES


def test_what_has_no_room_is_counted() -> None:
    text = Page(render_report(full(20, 10))).text
    assert "and 5 more filters" in text
    assert re.search(r"and \d+ more\n", text)


def test_deal_that_two_filters_found_is_shown_large_once() -> None:
    page = Page(compose_report(REPORT).html)
    assert len([one for one in page.named("a") if one["href"] == "https://www.amazon.de/dp/B0DEAL0001"]) == 4  # picture, title, button; row


@pytest.mark.parametrize("report", [REPORT, EMPTY, full(), full(200, 5)], ids=["usual", "empty", "full", "many filters"])
def test_chat_form_fits_into_a_discord_message(report: object) -> None:
    message = compose_report(report)  # type: ignore[arg-type]
    assert message.chat
    assert len((message.title + message.chat).encode("utf-16-le")) // 2 < 2000


def test_chat_form_fits_with_titles_of_signs_that_count_twice() -> None:
    part = REPORT.parts[0]
    entries = tuple(replace(one, deal=replace(one.deal, title="🎹" * 300)) for one in part.entries)
    message = compose_report(replace(REPORT, parts=(replace(part, entries=entries),)))
    assert len((message.title + message.chat).encode("utf-16-le")) // 2 < 2000


def test_chat_form_tells_the_best_five_news_first_and_how_many_more() -> None:
    chat = compose_report(REPORT).chat

    links = re.findall(r"https://www.amazon.de/dp/(\S+)", chat)
    assert links == ["B0DEAL0001", "B0DEAL0002", "B0DEAL0003", "B0DEAL0008", "B0DEAL0004", "B0WATCH001"]
    assert chat.endswith("and 6 more: `keeper report show`")


def test_subject_says_what_is_new_and_the_best() -> None:
    title = compose_report(REPORT).title
    assert title.startswith(
        "Keeper, Sat 21 Nov: 5 new deals, 3 watched prices fell, 2 held back, 1 filter to mend; best 69.90 € Keychron K1 Pro"
    )


def test_subject_of_hostile_titles_is_one_line() -> None:
    part = REPORT.parts[0]
    entries = tuple(replace(one, deal=replace(one.deal, title="a\r\nBcc: x@y\u2028z")) for one in part.entries)
    assert len(compose_report(replace(REPORT, parts=(replace(part, entries=entries),))).title.splitlines()) == 1


def test_empty_day_says_so() -> None:
    message = compose_report(EMPTY)
    assert message.title == "Keeper, Sat 21 Nov: nothing today"
    assert "Nothing matched your filters today" in message.text
    assert "Nothing matched your filters today" in message.html
    assert "Nothing matched your filters today" in message.chat


def test_discount_of_a_fictitious_list_price_is_not_praised() -> None:
    message = compose_deal_alert(DealAlert("x", deal(median_90=None, below_median_pct=None, is_list_price_fiction=True)))
    assert "% below" not in message.text
    assert "list price never asked" in message.html


def test_alert_of_a_deal_holds_its_facts() -> None:
    message = compose_deal_alert(DealAlert("Below 100 €", deal()))
    assert message.title == "69.90 €: Keychron K0 Pro kabellose mechanische Tastatur, QWERTZ, Hot-Swap, RGB · 30 % below its median"
    for fact in ("69.90 €", "Below 100 €", "https://www.amazon.de/dp/B0DEAL0000"):
        assert fact in message.text
        assert fact in message.html
