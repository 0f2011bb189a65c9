"""Apprise's plugins as Keeper uses them: its URL grammar and its protocols, with what a repeatable delivery needs added."""

import contextlib
import smtplib
import socket
import ssl
import warnings
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from typing import Any

from apprise import Apprise, AppriseAsset, NotifyBase, NotifyType, PersistentStoreMode
from apprise.plugins.discord import NotifyDiscord
from apprise.plugins.ntfy import NotifyNtfy
from apprise.plugins.slack import NotifySlack
from apprise.plugins.telegram import NotifyTelegram

# Apprise's mail plugin imports `imghdr` for PGP, which warns from Python 3.11 on that 3.13 has none.
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "'imghdr' is deprecated", DeprecationWarning)
    from apprise.plugins.email.base import NotifyEmail
    from apprise.plugins.email.common import SecureMailMode


def _asset() -> AppriseAsset:
    """No thread of Apprise's own (its log is read by thread), nothing on disk, no pictures of Apprise's."""
    return AppriseAsset(
        app_id="Keeper",
        app_desc="Keeper price alerts",
        app_url="",
        image_url_mask="",
        image_url_logo="",
        async_mode=False,
        secure_logging=True,
        http_redirects=False,
        storage_mode=PersistentStoreMode.MEMORY,
    )


class MailChannel(NotifyEmail):  # type: ignore[no-untyped-call]
    """Mail with our own text beside the HTML and a Message-ID of ours.

    Apprise's plugin makes a random Message-ID for each mail and offers no setting for it (a `+Message-ID` header would be
    a second one), and drops the server's answer. So the URL, the server defaults and the TLS modes are Apprise's, the
    conversation is this class's.
    """

    text: str = ""
    message_id: str = ""
    answer: str | None = None
    smtp: "_Smtp | None" = None

    @property
    def sends_password_in_clear(self) -> bool:
        """A login without TLS, to another machine."""
        host = str(self.smtp_host or self.host)
        is_here = host == "localhost" or host.startswith("127.") or host == "::1"
        return bool(self.password) and self.secure_mode == SecureMailMode.INSECURE and not is_here

    def abort(self) -> None:
        """Ends a conversation that takes too long, from another thread."""
        opened = self.smtp and self.smtp.sock
        if opened:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)

    def send(self, body: str, title: str = "", notify_type: NotifyType = NotifyType.INFO, attach: Any = None, **kwargs: Any) -> bool:  # noqa: ARG002
        """Sends one mail to the one recipient. The server's reply to the message is kept in `answer`."""
        try:
            with self._connected() as smtp:
                smtp.send_message(self._compose(title, body), str(self.from_addr[1]), [self.targets[0][1]])
                self.answer = smtp.answer
        except (OSError, smtplib.SMTPException, MessageError, ValueError) as error:
            # SMTP errors are OSErrors; a reply of the server is worth more than Apprise's words.
            self.logger.warning("%s", _smtp_reason(error))
            # A mail the server has taken stays taken when the goodbye fails.
            return self.answer is not None
        return True

    def _connected(self) -> "_Smtp":
        context = ssl.create_default_context()
        smtp: _Smtp = _SmtpSsl(context=context) if self.secure_mode == SecureMailMode.SSL else _Smtp()
        self.smtp = smtp
        smtp.timeouts = (self.socket_connect_timeout, self.socket_read_timeout)
        smtp.open(self.smtp_host or self.host, self.port or 0)
        try:
            if self.secure_mode == SecureMailMode.STARTTLS:
                smtp.starttls(context=context)
            if self.user and self.password:
                smtp.login(self.user, self.password)
        except BaseException:
            smtp.close()
            raise
        return smtp

    def _compose(self, title: str, html: str) -> EmailMessage:
        name, sender = str(self.from_addr[0] or ""), str(self.from_addr[1])
        mail = EmailMessage(policy=SMTP)
        mail["Subject"] = title
        mail["From"] = Address(display_name=name, addr_spec=sender)
        mail["To"] = Address(display_name=str(self.targets[0][0] or ""), addr_spec=self.targets[0][1])
        if self.reply_to:
            mail["Reply-To"] = ", ".join(sorted(self.reply_to))
        mail["Date"] = formatdate()
        mail["Message-ID"] = f"<{self.message_id}@{sender.rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(self.text, cte="quoted-printable")
        mail.add_alternative(html, subtype="html", cte="quoted-printable")
        return mail


class _Smtp(smtplib.SMTP):
    """Two timeouts, and the reply to the message kept: smtplib throws it away on success."""

    timeouts: tuple[float, float] = (10.0, 20.0)
    answer: str | None = None

    def open(self, host: str, port: int) -> None:
        # smtplib takes the name for SNI and certificate checks only in its constructor, which would already connect.
        self._host = host
        code, reply = self.connect(host, port)
        if code != 220:
            self.close()
            raise smtplib.SMTPConnectError(code, reply)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:  # noqa: ARG002
        opened: socket.socket = super()._get_socket(host, port, self.timeouts[0])  # type: ignore[misc]
        opened.settimeout(self.timeouts[1])
        return opened

    def data(self, msg: Any) -> tuple[int, bytes]:
        code, reply = super().data(msg)
        if code == 250:
            self.answer = f"{code} {reply.decode(errors='replace')}"
        return code, reply


class _SmtpSsl(_Smtp, smtplib.SMTP_SSL):
    pass


def _smtp_reason(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "; ".join(f"{code} {reply.decode(errors='replace')}" for code, reply in error.recipients.values())
    if isinstance(error, smtplib.SMTPResponseException):
        reply = error.smtp_error
        return f"{error.smtp_code} {reply.decode(errors='replace') if isinstance(reply, bytes) else reply}"
    return str(error) or type(error).__name__


class DiscordChannel(NotifyDiscord):  # type: ignore[no-untyped-call]
    """Discord with a confirmation, no pings, and no second try of its own.

    Without the query `wait=true` Discord answers before it has stored the message and does not tell of a failure
    (Discord, "Execute Webhook"); Apprise puts `wait` into the body, where Discord does not read it.
    """

    def _send(
        self, payload: dict[str, Any], attach: Any = None, params: dict[str, str] | None = None, rate_limit: int = 0, **kwargs: Any
    ) -> bool:
        payload["allowed_mentions"] = {"parse": []}
        return super()._send(payload, attach=attach, params={**(params or {}), "wait": "true"}, rate_limit=rate_limit, **kwargs)


class NtfyChannel(NotifyNtfy):  # type: ignore[no-untyped-call]
    """ntfy with a sequence id: a repeat replaces the first notification instead of standing beside it.

    ntfy 2.16 and newer (ntfy, "Updating notifications"); an older server ignores the parameter.
    """

    def stamp(self, sequence_id: str) -> None:
        """Adds the id to the address that is posted to; ntfy reads it from the query as well as from a header."""
        query = f"/?sequence-id={sequence_id}"
        self.cloud_notify_url = f"{self.cloud_notify_url}{query}"
        port = f":{self.port}" if isinstance(self.port, int) else ""
        self.host, self.port = f"{self.host}{port}{query}", None


PLUGINS: dict[str, type[NotifyBase]] = {
    "mailto": MailChannel,
    "mailtos": MailChannel,
    "tgram": NotifyTelegram,
    "discord": DiscordChannel,
    "ntfy": NtfyChannel,
    "ntfys": NtfyChannel,
    "slack": NotifySlack,
}


# Apprise types its plugins in part, and the attributes read here are those of single ones.
Plugin = Any


def open_plugin(url: str, scheme: str) -> Plugin:
    """The plugin of one channel URL, None when Apprise cannot make sense of it. Call it under `captured_log`."""
    plugin_class = PLUGINS.get(scheme)
    # Apprise's parsers trip over some half URLs instead of refusing them.
    try:
        if plugin_class is None:
            return Apprise.instantiate(url, asset=_asset())
        parsed = plugin_class.parse_url(url)
        return plugin_class(**{**parsed, "asset": _asset()}) if parsed else None
    except (TypeError, ValueError, LookupError, AttributeError):
        return None
