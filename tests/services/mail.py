"""A real SMTP server on loopback that keeps what it gets; for tests and the demo. Needs nothing but aiosmtpd."""

import asyncio
import re
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

Mode = Literal["accept", "refuse", "refuse_later", "refuse_recipient", "hang", "drop_after_data"]

_REPLIES = {
    "refuse": "550 5.7.1 refused by policy",
    "refuse_later": "451 4.7.1 greylisted, come back later",
}


@dataclass(frozen=True, slots=True)
class Delivered:
    """One mail as it came in: who it was from and for, and the bytes."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes

    @property
    def mail(self) -> EmailMessage:
        """Parsed; headers decoded."""
        parsed = message_from_bytes(self.content, policy=default)
        assert isinstance(parsed, EmailMessage)
        return parsed


class MailServer:
    """Listens on a free port of 127.0.0.1 from `__enter__` to `__exit__`.

    Modes: `accept` takes every mail; `refuse` answers 550 and `refuse_later` 451 after the data; `refuse_recipient` answers 550
    to the recipient; `hang` takes the connection and never says a word; `drop_after_data` takes the mail and cuts the
    connection without an answer.
    """

    def __init__(
        self,
        *,
        save_to: Path | None = None,
        mode: Mode = "accept",
        user: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """With a user and a password the server demands AUTH; with `tls` it speaks TLS from the first byte; `save_to` gets .eml files."""
        self.mode: Mode = mode
        self.port = 0
        self.delivered: list[Delivered] = []
        self._save_to = save_to
        self._login = None if user is None or password is None else (user.encode(), password.encode())
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="mail-server", daemon=True)
        self._started = threading.Event()
        self._connections: set[asyncio.BaseTransport] = set()

    @property
    def messages(self) -> list[EmailMessage]:
        """The mails so far, parsed, in order of arrival."""
        return [delivered.mail for delivered in self.delivered]

    def __enter__(self) -> Self:
        if self._save_to is not None:
            self._save_to.mkdir(parents=True, exist_ok=True)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(self._loop.create_server(self._protocol, sock=self._socket, ssl=self._tls))
        self._loop.call_soon(self._started.set)
        self._loop.run_forever()
        server.close()
        for transport in self._connections:
            transport.close()
        waiting = asyncio.all_tasks(self._loop)
        for task in waiting:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*waiting, return_exceptions=True))
        self._loop.run_until_complete(server.wait_closed())
        self._loop.close()

    def _protocol(self) -> asyncio.BaseProtocol:
        if self.mode == "hang":
            return _Silent(self._connections.add)
        # aiosmtpd warns of a demanded login without TLS, which is what a test on loopback wants: handle_MAIL demands it instead.
        return SMTP(
            self,
            loop=self._loop,
            hostname="mail.test",
            enable_SMTPUTF8=True,
            authenticator=self._authenticate if self._login else None,
            auth_require_tls=False,
        )

    def _authenticate(self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any) -> AuthResult:
        # Not handled: aiosmtpd then answers 535 itself.
        return AuthResult(success=isinstance(data, LoginPassword) and (data.login, data.password) == self._login, handled=False)

    async def handle_MAIL(self, _server: SMTP, session: Session, envelope: Envelope, address: str, _options: list[str]) -> str:
        """Called by aiosmtpd with the sender."""
        if self._login is not None and not session.authenticated:
            return "530 5.7.0 Authentication required"
        envelope.mail_from = address
        return "250 2.1.0 OK"

    async def handle_RCPT(self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]) -> str:
        """Called by aiosmtpd for each recipient."""
        if self.mode == "refuse_recipient":
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:
        """Called by aiosmtpd with the whole mail."""
        if self.mode in _REPLIES:
            return _REPLIES[self.mode]
        assert isinstance(envelope.content, bytes)
        self.delivered.append(Delivered(envelope.mail_from or "", tuple(envelope.rcpt_tos), envelope.content))
        number = len(self.delivered)
        if self._save_to is not None:
            subject = re.sub(r"[^A-Za-z0-9]+", "-", str(self.messages[-1]["Subject"])).strip("-")[:60]
            (self._save_to / f"{number:04d}-{subject}.eml").write_bytes(envelope.content)
        if self.mode == "drop_after_data":
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
        return f"250 2.0.0 OK queued as {number:04d}"


class _Silent(asyncio.Protocol):
    def __init__(self, note: Callable[[asyncio.BaseTransport], None]) -> None:
        self._note = note

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._note(transport)
