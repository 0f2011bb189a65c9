import json
import logging
import socket
import ssl
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from apprise.plugins.discord import NotifyDiscord
from apprise.plugins.ntfy import NotifyNtfy
from apprise.plugins.slack import NotifySlack
from apprise.plugins.telegram import NotifyTelegram

from keeper.domain.errors import KeeperError
from keeper.domain.report import Report
from keeper.notify.message import Message, compose_alert
from keeper.notify.report import compose_report
from keeper.notify.sender import ChannelRefused, ChannelSender, ChannelUnreachable
from tests.integration.notify.alerts import ALERT
from tests.integration.notify.http_edge import HttpServer
from tests.unit.notify.reports import REPORT, full

TOKEN = "AAbbCCddEEffGGhhIIjjKKllMMnnOOppQQr"
HOOK_TOKEN = "abcdefghijklmnopqrstuvwxyz0123456789-abcdefghijklmnopqrstuvwxyz"
URLS = {
    "telegram": f"tgram://123456789:{TOKEN}/-100987",
    "discord": f"discord://1234567890123456789/{HOOK_TOKEN}",
    "slack": f"slack://T1JJ3T3L2/A1BRTD4JD/{TOKEN}/%23prices",
    "ntfy": "ntfy://secret-topic-of-bob",
}
SECRETS = {
    "telegram": (TOKEN, "123456789:"),
    "discord": (HOOK_TOKEN, "1234567890123456789"),
    "slack": (TOKEN, "A1BRTD4JD", "T1JJ3T3L2"),
    "ntfy": ("secret-topic-of-bob",),
}
SENDER = ChannelSender(connect_timeout_seconds=2, read_timeout_seconds=10)


@dataclass(frozen=True)
class Edge:
    server: HttpServer

    def send(self, service: str, message: Message | None = None, sender: ChannelSender = SENDER) -> str:
        return repr(sender.send(URLS[service], message or ALERT, message_id="delivery-7"))


@pytest.fixture
def edge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Edge]:
    """Apprise's fixed addresses, turned to a server of ours: what leaves this machine is what arrives there."""
    with HttpServer() as server:
        monkeypatch.setattr(NotifyTelegram, "notify_url", f"{server.url}/bot")
        monkeypatch.setattr(NotifyDiscord, "notify_url", f"{server.url}/api/webhooks")
        monkeypatch.setattr(NotifySlack, "webhook_url", f"{server.url}/services")
        monkeypatch.setattr(NotifyNtfy, "cloud_notify_url", server.url)
        yield Edge(server)


def shown(error: BaseException) -> str:
    return f"{error} {error!r} {vars(error)} {''.join(traceback.format_exception(error))}"


# What one message may have, by the services' own words.
LONGEST = {"telegram": ("text", 4096), "discord": ("content", 2000), "slack": ("attachments", 3000), "ntfy": ("message", 4096)}


@pytest.mark.parametrize("service", URLS)
@pytest.mark.parametrize("report", [REPORT, full(200, 5)], ids=["usual", "largest"])
def test_report_is_one_message_within_the_services_bounds(edge: Edge, service: str, report: Report) -> None:
    edge.server.body = b"ok" if service == "slack" else b"{}"
    edge.send(service, compose_report(report))

    [asked] = edge.server.asked
    said = asked.body.decode() if service == "ntfy" else json.dumps(asked.json.get(LONGEST[service][0], asked.json), ensure_ascii=False)
    assert len(said) <= LONGEST[service][1]
    assert "https://www.amazon.de/dp/" in said
    assert " more: `keeper report show`" in said


def test_telegram_gets_one_send_message_with_every_fact(edge: Edge) -> None:
    edge.send("telegram")
    [asked] = edge.server.asked
    assert (asked.method, asked.path) == ("POST", f"/bot123456789:{TOKEN}/sendMessage")
    assert asked.headers["Content-Type"] == "application/json"
    payload = asked.json
    assert payload["chat_id"] == -100987
    assert payload["parse_mode"] == "HTML"
    assert "&lt;" in payload["text"]
    assert "&amp; @everyone" in payload["text"]
    assert not [fact for fact in ("49.99 €", "59.99 €", "50.00 €", "48.90 €", "16.67 %", ALERT.link) if fact not in payload["text"]]
    assert len(payload["text"]) < 4096


def test_discord_gets_one_webhook_call_that_waits_and_pings_nobody(edge: Edge) -> None:
    edge.server.status, edge.server.body = 200, b'{"id": "99"}'
    edge.send("discord")
    [asked] = edge.server.asked
    address = urlsplit(asked.path)
    assert (asked.method, address.path) == ("POST", f"/api/webhooks/1234567890123456789/{HOOK_TOKEN}")
    assert parse_qs(address.query) == {"wait": ["true"]}
    assert asked.headers["Content-Type"] == "application/json; charset=utf-8"
    payload = asked.json
    message = compose_alert(ALERT)
    assert payload["content"] == f"{message.title}\r\n{message.text}"
    assert payload["allowed_mentions"] == {"parse": []}
    assert "avatar_url" not in payload
    assert len(payload["content"]) < 2000


def test_slack_gets_one_webhook_call_that_pings_nobody(edge: Edge) -> None:
    edge.server.body = b"ok"
    edge.send("slack")
    [asked] = edge.server.asked
    assert (asked.method, asked.path) == ("POST", f"/services/T1JJ3T3L2/A1BRTD4JD/{TOKEN}")
    assert asked.json["channel"] == "#prices"
    assert ALERT.link in asked.json["attachments"][0]["text"]
    assert b"<!channel>" not in asked.body
    assert "‹!channel›" in asked.json["attachments"][0]["text"]


def test_ntfy_gets_the_same_sequence_id_for_a_repeat(edge: Edge) -> None:
    edge.send("ntfy")
    edge.send("ntfy")
    assert [(asked.method, asked.path) for asked in edge.server.asked] == [("POST", "/?sequence-id=delivery-7")] * 2
    first, second = (asked.json for asked in edge.server.asked)
    assert first == second
    assert first["topic"] == "secret-topic-of-bob"
    assert ALERT.link in first["message"]


def test_ntfy_of_ones_own_gets_login_topic_and_sequence_id() -> None:
    with HttpServer() as server:
        SENDER.send(f"ntfy://bob:pa55word@127.0.0.1:{server.port}/alerts", ALERT, message_id="delivery-7")
    [asked] = server.asked
    assert (asked.path, asked.json["topic"]) == ("/?sequence-id=delivery-7", "alerts")
    assert asked.headers["Authorization"].startswith("Basic ")


SERVICES = pytest.mark.parametrize("service", ["telegram", "discord", "slack", "ntfy"])


@SERVICES
@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_status_that_passes_is_tried_again_later_and_asked_once(edge: Edge, service: str, status: int) -> None:
    edge.server.status = status
    with pytest.raises(ChannelUnreachable, match=f"error={status}"):
        edge.send(service)
    assert len(edge.server.asked) == 1


@SERVICES
@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_status_that_stays_refuses(edge: Edge, service: str, status: int) -> None:
    edge.server.status = status
    with pytest.raises(ChannelRefused, match=f"error={status}"):
        edge.send(service)
    assert len(edge.server.asked) == 1


@SERVICES
@pytest.mark.parametrize("status", [404, 500])
def test_error_page_that_is_no_json_is_judged_by_its_status(edge: Edge, service: str, status: int) -> None:
    edge.server.status, edge.server.body = status, b"<html>\xff</html>"
    with pytest.raises(ChannelRefused if status == 404 else ChannelUnreachable):
        edge.send(service)


@SERVICES
def test_redirect_is_not_followed(edge: Edge, service: str) -> None:
    edge.server.status, edge.server.headers = 307, {"Location": f"{edge.server.url}/inside"}
    with pytest.raises(ChannelRefused):
        edge.send(service)
    assert len(edge.server.asked) == 1


@pytest.mark.parametrize(
    ("service", "body", "seconds"),
    [
        ("telegram", b'{"ok":false,"error_code":429,"description":"Too Many Requests","parameters":{"retry_after":37}}', 37.0),
        ("discord", b'{"message": "You are being rate limited.", "retry_after": 1.5, "global": false}', 1.5),
    ],
)
def test_wait_that_the_far_side_asks_for_is_told(edge: Edge, service: str, body: bytes, seconds: float) -> None:
    edge.server.status, edge.server.body = 429, body
    edge.server.headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "99999999999"}
    with pytest.raises(ChannelUnreachable) as unreachable:
        edge.send(service)
    assert unreachable.value.retry_after_seconds == seconds


@pytest.mark.parametrize(
    ("service", "body", "reason"),
    [
        ("telegram", b'{"ok":false,"error_code":400,"description":"Bad Request: chat not found"}', "chat not found"),
        ("discord", b'{"message": "Unknown Webhook", "code": 10015}', "Unknown Webhook"),
        ("slack", b"no_active_hooks", "no_active_hooks"),
        ("ntfy", b'{"code":40301,"http":403,"error":"forbidden"}', "forbidden"),
    ],
)
def test_reason_holds_what_the_far_side_said(edge: Edge, service: str, body: bytes, reason: str) -> None:
    edge.server.status, edge.server.body = 400, body
    with pytest.raises(ChannelRefused) as refused:
        edge.send(service)
    assert reason in refused.value.reason


def test_ntfys_own_code_for_too_many_requests_is_tried_again_later(edge: Edge) -> None:
    edge.server.status, edge.server.body = 429, b'{"code":42901,"http":429,"error":"limit reached"}'
    with pytest.raises(ChannelUnreachable, match="limit reached"):
        edge.send("ntfy")


def test_reason_of_a_server_named_by_a_url_holds_nothing_of_its_page() -> None:
    with HttpServer(status=500, body=b"database password: hunter2") as server, pytest.raises(ChannelUnreachable) as unreachable:
        SENDER.send(f"ntfy://127.0.0.1:{server.port}/alerts", ALERT, message_id="1")
    assert "hunter2" not in shown(unreachable.value)


@SERVICES
def test_silent_server_is_unreachable_within_the_read_timeout(edge: Edge, service: str) -> None:
    edge.server.hang = True
    with pytest.raises(ChannelUnreachable, match="Timeout"):
        edge.send(service, sender=ChannelSender(connect_timeout_seconds=2, read_timeout_seconds=0.2))


def test_closed_port_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setattr(NotifyDiscord, "notify_url", f"http://127.0.0.1:{free.getsockname()[1]}/api/webhooks")
    with pytest.raises(ChannelUnreachable, match="ConnectionError") as unreachable:
        SENDER.send(URLS["discord"], ALERT, message_id="1")
    assert HOOK_TOKEN not in shown(unreachable.value)


@SERVICES
@pytest.mark.parametrize("failure", ["none", "429", "500", "404", "timeout"])
def test_no_send_shows_a_secret(edge: Edge, service: str, failure: str, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("", "apprise", "urllib3", "urllib3.connectionpool", "requests"):
        caplog.set_level(logging.NOTSET, name)
    edge.server.status = int(failure) if failure.isdigit() else 200
    edge.server.hang = failure == "timeout"
    # A far side that repeats what it was asked.
    echo = " ".join(SECRETS[service])
    edge.server.body = b"ok" if failure == "none" else f'{{"message": "{echo}", "description": "{echo}", "error": "{echo}"}}'.encode()
    try:
        said = edge.send(service, sender=ChannelSender(connect_timeout_seconds=2, read_timeout_seconds=0.2))
    except KeeperError as error:
        said = shown(error)
        assert failure != "none"
    assert not [secret for secret in SECRETS[service] if secret in said or secret in caplog.text]
    assert len(edge.server.asked) == 1


def test_untrusted_certificate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise requests.exceptions.SSLError(ssl.SSLCertVerificationError("certificate verify failed"))

    monkeypatch.setattr(requests, "post", fail)
    with pytest.raises(ChannelRefused, match="SSLError"):
        SENDER.send(URLS["discord"], ALERT, message_id="1")


def test_other_threads_requests_are_still_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "urllib3.connectionpool")
    with HttpServer() as server:
        SENDER.send(f"ntfy://127.0.0.1:{server.port}/alerts", ALERT, message_id="1")
    assert caplog.text == ""
    logging.getLogger("urllib3.connectionpool").debug("somebody else's request")
    assert "somebody else's request" in caplog.text
