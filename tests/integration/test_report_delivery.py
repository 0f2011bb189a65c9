"""Reports and alerts of deals on their way: a real mail server gets both parts, chats the short form; receipts, tries and dead letters."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from sqlalchemy import Engine

from keeper.deal_alerts import tell_deals
from keeper.domain.report import decode_report
from keeper.notify.report import compose_report, render_report
from keeper.notify.sender import ChannelSender
from keeper.postgres.sinks import lock_routes
from keeper.relay import AlertSink, Relayed, RelaySettings, relay
from keeper.report import ReportSettings, report
from tests.integration.deals import add_deal, add_filter, add_reader
from tests.integration.makers import CIPHER, NOW, one, rows
from tests.services.mail import MailServer

PASSWORD = "s3cret-of-the-channel"
QUICK = RelaySettings(most_tries=2, first_wait_seconds=0.01, longest_wait_seconds=0.01)


def mail_url(port: int) -> str:
    return f"mailto://127.0.0.1:{port}/anna@example.net?from=keeper@example.org"


def deliver(engine: Engine, *, settings: RelaySettings = QUICK, schemes: tuple[str, ...] = ("mailto", "ntfy", "jsons", "json")) -> Relayed:
    sender = ChannelSender(connect_timeout_seconds=2, read_timeout_seconds=10, allowed_schemes=schemes)
    return relay(engine, AlertSink(engine, sender, CIPHER), settings=settings, longest_seconds=30)


def compose(engine: Engine, *urls: str, days: int = 0) -> None:
    """A report of two deals, one with a hostile title and an umlaut, for one user."""
    if not rows(engine, "SELECT 1 FROM users"):
        add_filter(engine, add_reader(engine, channels=urls, wants_empty=True), "Tastaturen für Anna")
        add_deal(engine, 0, title="Tastatur <script>alert(1)</script> grün")
        add_deal(engine, 1)
    report(engine, now=NOW + timedelta(days=days), settings=ReportSettings())


def test_mail_of_a_report_has_both_parts_as_they_are_rendered(engine: Engine) -> None:
    with MailServer() as server:
        compose(engine, mail_url(server.port))
        done = deliver(engine)
        [mail], [raw] = server.messages, server.delivered

    told = compose_report(decode_report(one(engine, "SELECT content FROM deal_reports")))
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None
    assert html is not None
    assert done.delivered == 1
    assert mail.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    assert [part.get_content_charset() for part in mail.iter_parts()] == ["utf-8", "utf-8"]
    assert text.get_content().replace("\r\n", "\n") == told.text
    assert html.get_content().replace("\r\n", "\n") == told.html
    assert "Tastatur &lt;script&gt;alert(1)&lt;/script&gt; grün" in html.get_content()
    assert (mail["Subject"], mail["From"], mail["To"]) == (told.title, "keeper@example.org", "anna@example.net")
    assert mail["Message-ID"] == f"<{one(engine, 'SELECT event_id FROM events')}@example.org>"
    assert (mail["Auto-Submitted"], mail["MIME-Version"]) == ("auto-generated", "1.0")
    assert max(len(line) for line in raw.content.splitlines()) <= 998


def test_receipt_of_a_report_is_kept(engine: Engine) -> None:
    with MailServer() as server:
        compose(engine, mail_url(server.port))
        deliver(engine)

    assert rows(engine, "SELECT status, tries, receipt, report_id IS NOT NULL FROM deliveries") == [
        ("delivered", 1, "250 2.0.0 OK queued as 0001", True)
    ]
    assert rows(engine, "SELECT 1 FROM outbox") == []


def test_report_that_is_sent_again_has_the_same_message_id_and_content(engine: Engine) -> None:
    with MailServer(mode="drop_after_data") as server:
        compose(engine, mail_url(server.port))
        first = deliver(engine)
        server.mode = "accept"
        while rows(engine, "SELECT 1 FROM outbox"):
            deliver(engine)
        lost, kept = server.messages

    assert first.refused == 1
    assert (lost["Message-ID"], lost.get_body(("html",)).get_content()) == (  # type: ignore[union-attr]
        kept["Message-ID"], kept.get_body(("html",)).get_content(),  # type: ignore[union-attr]
    )  # fmt: skip


def test_refused_report_goes_to_the_dead_letters_and_lets_the_next_day_pass(engine: Engine) -> None:
    with MailServer(mode="refuse") as server:
        compose(engine, mail_url(server.port))
        while rows(engine, "SELECT 1 FROM outbox"):
            deliver(engine)
        server.mode = "accept"
        compose(engine, days=1)
        deliver(engine)

    assert rows(engine, "SELECT status, tries, last_failure FROM deliveries ORDER BY id") == [
        ("dead", 2, "550 5.7.1 refused by policy"), ("delivered", 1, None),
    ]  # fmt: skip
    assert rows(engine, "SELECT sink, kind FROM dead_letters") == [("notify", "report")]
    assert len(server.messages) == 1


def test_channel_gets_its_reports_in_their_order(engine: Engine) -> None:
    with MailServer(mode="refuse_later") as server:
        for days in range(3):
            compose(engine, mail_url(server.port), days=days)
        deliver(engine, settings=RelaySettings(most_tries=9, first_wait_seconds=0.01, longest_wait_seconds=0.01))
        server.mode = "accept"
        while rows(engine, "SELECT 1 FROM outbox"):
            deliver(engine)

    assert [str(mail["Subject"])[:19] for mail in server.messages] == ["Keeper, Fri 20 Nov:", "Keeper, Sat 21 Nov:", "Keeper, Sun 22 Nov:"]


def test_alert_of_a_deal_is_mailed_and_its_receipt_kept(engine: Engine) -> None:
    with MailServer() as server:
        add_filter(engine, add_reader(engine, channels=[mail_url(server.port)]), "Instant & good", is_instant=True)
        key = add_deal(engine)
        with engine.begin() as connection:
            tell_deals(connection, [key], now=NOW, routes=lock_routes(connection), most_per_hour=5)
        deliver(engine)
        [mail] = server.messages

    html = mail.get_body(("html",))
    assert html is not None
    assert str(mail["Subject"]) == "69.90 €: Keychron K0 mechanische Tastatur · 30 % below its median"
    assert "Instant &amp; good" in html.get_content()
    assert mail["Message-ID"] == f"<{one(engine, 'SELECT event_id FROM events')}@example.org>"
    assert rows(engine, "SELECT status, deal_alert_id IS NOT NULL FROM deliveries") == [("delivered", True)]


def test_report_that_cannot_be_read_is_dead_at_once_and_says_why(engine: Engine) -> None:
    with MailServer() as server:
        compose(engine, mail_url(server.port))
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE deal_reports SET content = '{}'")
        done = deliver(engine)

    assert done.dead == 1
    assert "written by another version" in one(engine, "SELECT last_failure FROM deliveries")


def test_report_that_was_deleted_is_not_sent(engine: Engine) -> None:
    with MailServer() as server:
        compose(engine, mail_url(server.port))
        with engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM deal_reports")
        deliver(engine)

    assert (server.messages, rows(engine, "SELECT 1 FROM outbox")) == ([], [])


@contextmanager
def chat_server() -> Iterator[tuple[int, list[Any]]]:
    """Takes posts of JSON."""
    posts: list[Any] = []

    class Taker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posts.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Taker) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, posts
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("scheme", ["ntfy", "json"])
def test_chats_get_the_short_form(engine: Engine, scheme: str) -> None:
    with chat_server() as (port, posts):
        compose(engine, f"{scheme}://127.0.0.1:{port}/{'topic' if scheme == 'ntfy' else ''}")
        deliver(engine)
    [post] = posts

    told = compose_report(decode_report(one(engine, "SELECT content FROM deal_reports")))
    said = post if scheme == "ntfy" else json.loads(post)["message"]
    assert "https://www.amazon.de/dp/B0DEAL0000" in said
    assert "median of 90 days" not in said
    assert told.chat.splitlines()[0] in said


def test_secrets_of_channels_are_in_no_log_and_no_table(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with MailServer(mode="refuse") as server:
        compose(engine, f"mailto://anna:{PASSWORD}@127.0.0.1:{server.port}/anna@example.net?from=keeper@example.org&mode=insecure")
        deliver(engine)

    assert PASSWORD not in caplog.text
    for table in ("deliveries", "outbox", "dead_letters", "events", "deal_reports"):
        assert PASSWORD not in "".join(rows(engine, f"SELECT {table}::text FROM {table}"))


def test_kept_report_renders_the_same_page_whenever_it_is_shown(engine: Engine) -> None:
    compose(engine, "ntfy://127.0.0.1:9/x")
    first = render_report(decode_report(one(engine, "SELECT content FROM deal_reports")))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE collected_deals SET amount_minor = 1, ended_at = now()")
        connection.exec_driver_sql("UPDATE products SET title = 'another'")
    assert render_report(decode_report(one(engine, "SELECT content FROM deal_reports"))) == first
