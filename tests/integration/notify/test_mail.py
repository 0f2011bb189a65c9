import email
import logging
import socket
import ssl
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.policy import default
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from keeper.notify.message import compose_test
from keeper.notify.sender import ChannelRefused, ChannelSender, ChannelUnreachable
from tests.integration.notify.alerts import ALERT
from tests.services.mail import MailServer, Mode

PASSWORD = "pa55-w0rd-of-bob"
SENDER = ChannelSender(connect_timeout_seconds=2, read_timeout_seconds=10)


def url_of(port: int, login: str = "", options: str = "", scheme: str = "mailto") -> str:
    return f"{scheme}://{login}127.0.0.1:{port}/reader@example.net?from=keeper@example.org{options}"


def shown(error: BaseException) -> str:
    return f"{error} {error!r} {vars(error)} {''.join(traceback.format_exception(error))}"


def test_mail_arrives_with_text_html_and_link() -> None:
    with MailServer() as server:
        receipt = SENDER.send(url_of(server.port), ALERT, message_id="delivery-7")
        [mail] = server.messages
    assert mail["Subject"] == '49.99 €: Tastatur "MX" <!channel> & @everyone'
    assert (mail["From"], mail["To"]) == ("keeper@example.org", "reader@example.net")
    assert mail.get_content_type() == "multipart/alternative"
    text, html = (mail.get_body((kind,)) for kind in ("plain", "html"))
    assert text is not None
    assert html is not None
    assert "Price now: 49.99 €" in text.get_content()
    assert ALERT.link in text.get_content().splitlines()
    assert f'<a href="{ALERT.link}">' in html.get_content()
    assert f'<img src="{ALERT.image_url}"' in html.get_content()
    assert receipt.answer == "250 2.0.0 OK queued as 0001"
    assert (receipt.channel, receipt.message_id) == ("mailto://r…@example.net", "delivery-7")
    assert receipt.elapsed_seconds > 0


def test_envelope_names_the_one_recipient() -> None:
    with MailServer() as server:
        SENDER.send(url_of(server.port), ALERT, message_id="1")
    assert [(mail.sender, mail.recipients) for mail in server.delivered] == [("keeper@example.org", ("reader@example.net",))]


def test_repeat_carries_the_same_message_id_and_another_message_another() -> None:
    with MailServer() as server:
        for message_id in ("delivery-7", "delivery-7", "delivery-8"):
            SENDER.send(url_of(server.port), ALERT, message_id=message_id)
    assert [mail.get_all("Message-ID") for mail in server.messages] == [
        ["<delivery-7@example.org>"],
        ["<delivery-7@example.org>"],
        ["<delivery-8@example.org>"],
    ]


def test_message_id_of_any_text_is_one_safe_header() -> None:
    with MailServer() as server:
        for _ in range(2):
            SENDER.send(url_of(server.port), ALERT, message_id="alert 7\r\nBcc: thief@example.org <é>")
    first, second = (str(mail["Message-ID"]) for mail in server.messages)
    assert first == second
    assert first.isascii()
    assert [mail["Bcc"] for mail in server.messages] == [None, None]


def test_test_message_arrives() -> None:
    with MailServer() as server:
        SENDER.send(url_of(server.port), compose_test("home"), message_id="test")
    assert [mail["Subject"] for mail in server.messages] == ["Keeper test: home"]


def test_login_is_used_where_the_url_has_one() -> None:
    with MailServer(user="bob", password=PASSWORD) as server:
        SENDER.send(url_of(server.port, f"bob:{PASSWORD}@"), ALERT, message_id="1")
    [delivered] = server.delivered
    assert PASSWORD.encode() not in delivered.content


@pytest.mark.parametrize(("login", "reply"), [("bob:wr0ng-pa55w0rd@", "535"), ("", "530")], ids=["wrong password", "no password"])
def test_server_that_wants_another_login_refuses(login: str, reply: str) -> None:
    with MailServer(user="bob", password=PASSWORD) as server, pytest.raises(ChannelRefused) as refused:
        SENDER.send(url_of(server.port, login), ALERT, message_id="1")
    assert refused.value.reason.startswith(reply)
    assert "wr0ng-pa55w0rd" not in shown(refused.value)
    assert server.messages == []


@pytest.mark.parametrize(
    ("mode", "reason"),
    [("refuse", "550 5.7.1 refused by policy"), ("refuse_recipient", "550 5.1.1 no such mailbox")],
    ids=["message", "recipient"],
)
def test_permanent_reply_refuses_with_the_servers_words(mode: Mode, reason: str) -> None:
    with MailServer(mode=mode) as server, pytest.raises(ChannelRefused) as refused:
        SENDER.send(url_of(server.port), ALERT, message_id="1")
    assert reason in refused.value.reason


def test_temporary_reply_is_tried_again_later() -> None:
    with MailServer(mode="refuse_later") as server, pytest.raises(ChannelUnreachable, match="greylisted"):
        SENDER.send(url_of(server.port), ALERT, message_id="1")


def test_answer_lost_after_the_data_is_unreachable_though_the_mail_is_there() -> None:
    with MailServer(mode="drop_after_data") as server, pytest.raises(ChannelUnreachable):
        SENDER.send(url_of(server.port), ALERT, message_id="1")
    assert len(server.messages) == 1


def test_silent_server_is_unreachable_within_the_read_timeout() -> None:
    sender = ChannelSender(connect_timeout_seconds=2, read_timeout_seconds=0.2)
    with MailServer(mode="hang") as server, pytest.raises(ChannelUnreachable, match="timed out"):
        sender.send(url_of(server.port, options="&rto=600&cto=600"), ALERT, message_id="1")


def test_closed_port_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ChannelUnreachable, match="Connection refused"):
        SENDER.send(url_of(port), ALERT, message_id="1")


def test_server_that_never_finishes_its_greeting_is_given_up_after_the_total_timeout() -> None:
    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(0.05)
            while True:
                try:
                    connection.sendall(b"220-welcome\r\n")
                    if not connection.recv(1):
                        return
                except TimeoutError:
                    continue
                except OSError:
                    return

    sender = ChannelSender(connect_timeout_seconds=2, read_timeout_seconds=5, total_timeout_seconds=0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=drip, args=(listener,))
        server.start()
        with pytest.raises(ChannelUnreachable, match=r"no complete answer within 0\.5 seconds"):
            sender.send(url_of(listener.getsockname()[1]), ALERT, message_id="1")
        server.join()


@pytest.mark.parametrize("mode", ["accept", "refuse", "refuse_later", "refuse_recipient", "drop_after_data"])
def test_no_mode_of_failure_shows_the_password(mode: Mode, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("", "apprise", "smtplib", "urllib3"):
        caplog.set_level(logging.NOTSET, name)
    errors: list[BaseException] = []
    with MailServer(mode=mode, user="bob", password=PASSWORD) as server:
        try:
            said = repr(SENDER.send(url_of(server.port, f"bob:{PASSWORD}@"), ALERT, message_id="1"))
        except (ChannelRefused, ChannelUnreachable) as error:
            errors.append(error)
            said = shown(error)
    # The server's own log is not ours.
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("mail", "asyncio"))]
    assert PASSWORD not in said
    assert not [line for line in ours if PASSWORD in line or "reader" in line]
    assert (mode == "accept") == (not errors)


def test_url_that_is_not_allowed_any_more_is_refused_at_the_send() -> None:
    sender = ChannelSender(allowed_schemes=["discord"])
    with MailServer() as server, pytest.raises(ChannelRefused, match="the scheme mailto is not allowed") as refused:
        sender.send(url_of(server.port, f"bob:{PASSWORD}@"), ALERT, message_id="1")
    assert PASSWORD not in shown(refused.value)
    assert server.messages == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2120, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "certificate.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "certificate.pem", folder / "key.pem"


@pytest.fixture
def tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def test_mail_arrives_over_tls_at_a_server_whose_certificate_is_trusted(
    tls: ssl.SSLContext, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with MailServer(tls=tls) as server:
        SENDER.send(url_of(server.port, options="&mode=ssl", scheme="mailtos"), ALERT, message_id="1")
    assert len(server.messages) == 1


def test_server_with_an_untrusted_certificate_is_refused(tls: ssl.SSLContext) -> None:
    with MailServer(tls=tls) as server, pytest.raises(ChannelRefused, match="certificate verify failed"):
        SENDER.send(url_of(server.port, options="&mode=ssl", scheme="mailtos"), ALERT, message_id="1")


def test_server_without_the_tls_the_url_demands_is_refused_and_told_no_password() -> None:
    with MailServer(user="bob", password=PASSWORD) as server, pytest.raises(ChannelRefused, match="STARTTLS"):
        SENDER.send(url_of(server.port, f"bob:{PASSWORD}@", scheme="mailtos"), ALERT, message_id="1")
    assert server.messages == []


def test_server_saves_each_mail_as_eml(tmp_path: Path) -> None:
    with MailServer(save_to=tmp_path / "mail") as server:
        SENDER.send(url_of(server.port), compose_test("home"), message_id="1")
        SENDER.send(url_of(server.port), compose_test("home"), message_id="2")
    saved = sorted((tmp_path / "mail").iterdir())
    assert [path.name for path in saved] == ["0001-Keeper-test-home.eml", "0002-Keeper-test-home.eml"]
    assert email.message_from_bytes(saved[0].read_bytes(), policy=default)["Message-ID"] == "<1@example.org>"


def test_sends_of_several_threads_keep_their_reasons_apart() -> None:
    def reason_of(port: int) -> str:
        try:
            return SENDER.send(url_of(port), ALERT, message_id="1").answer[:3]
        except (ChannelRefused, ChannelUnreachable) as error:
            return error.reason[:3]

    with (
        MailServer() as taking,
        MailServer(mode="refuse") as refusing,
        MailServer(mode="refuse_later") as waiting,
        ThreadPoolExecutor(6) as pool,
    ):
        replies = list(pool.map(reason_of, [taking.port, refusing.port, waiting.port] * 6))
    assert replies == ["250", "550", "451"] * 6
