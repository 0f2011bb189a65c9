"""Sends one message to one channel through Apprise, and says precisely how it went."""

import hashlib
import re
import smtplib
import ssl
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import requests
from apprise import Apprise, NotifyFormat
from apprise.common import OverflowMode
from apprise.plugins.slack import NotifySlack

from keeper.domain.alert import PriceAlert
from keeper.domain.errors import KeeperError, TransientError
from keeper.notify.apprise_log import CapturedLog, captured_log
from keeper.notify.channels import DEFAULT_SCHEMES, ChannelUrlRefused, check_channel_url, mask_secrets, mask_url, scheme_of
from keeper.notify.message import Message, compose_alert
from keeper.notify.plugins import MailChannel, NtfyChannel, Plugin, open_plugin

_REASON_LENGTH = 500
_STATUS = re.compile(r"\berror=(\d{3,5})\b")
_RETRY_AFTER = re.compile(r"[\"']retry_after[\"']: ?(\d+(?:\.\d+)?)")
_LATER_STATUSES = frozenset({408, 423, 425, 429})
# Slack answers a bot with status 200 and a word.
_LATER_WORDS = re.compile(r"ratelimited|rate_limited|internal_error|fatal_error|service_unavailable|request_timeout")
_PERMANENT_REQUESTS = (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader, requests.exceptions.InvalidSchema)
# Whose error pages a user may read: not those of a server a URL names, which could be one inside the network.
_TRUSTED_ANSWERS = frozenset({"discord", "slack"})
_NO_SLACK_COMMANDS = str.maketrans("<>", "‹›")
_SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ChannelRefused(KeeperError):
    """The far side, or the channel's own URL, says no: the same message will be refused again until somebody changes something.

    Attributes:
        channel: the masked URL.
        reason: what the far side said, masked.
    """

    def __init__(self, channel: str, reason: str) -> None:
        super().__init__(f"{channel} refused the message: {reason}; check the channel's URL and the account behind it")
        self.channel = channel
        self.reason = reason


class ChannelUnreachable(TransientError):
    """No answer, or one that says later.

    Attributes:
        channel: the masked URL.
        reason: what is known, masked.
        retry_after_seconds: how long the far side asked to wait, None when it did not say.
    """

    def __init__(self, channel: str, reason: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{channel} did not take the message now: {reason}; it is tried again later")
        self.channel = channel
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class Receipt:
    """The far side has acknowledged a message.

    Attributes:
        channel: the masked URL.
        message_id: as given to `send`.
        answer: what the far side said, as far as Apprise tells, masked; for mail the server's reply.
        elapsed_seconds: from the start of the connection to the answer, on the machine's clock.
    """

    channel: str
    message_id: str
    answer: str
    elapsed_seconds: float


class ChannelSender:
    """Sends to channels, one at a time; may be shared by threads, as each send has an Apprise of its own."""

    def __init__(
        self,
        *,
        connect_timeout_seconds: float = 10.0,
        read_timeout_seconds: float = 20.0,
        total_timeout_seconds: float = 90.0,
        allowed_schemes: Collection[str] = DEFAULT_SCHEMES,
    ) -> None:
        """Timeouts hold whatever a URL says (`cto`, `rto`).

        Args:
            connect_timeout_seconds: for each connection.
            read_timeout_seconds: for each wait for bytes.
            total_timeout_seconds: for the whole send; a far side that answers drop by drop would never meet the other two.
            allowed_schemes: looked at again at each send, so a scheme taken off the list stops its channels.
        """
        self._connect_timeout_seconds = connect_timeout_seconds
        self._read_timeout_seconds = read_timeout_seconds
        self._total_timeout_seconds = total_timeout_seconds
        self._allowed_schemes = tuple(allowed_schemes)

    def send(self, url: str, content: PriceAlert | Message, *, message_id: str) -> Receipt:
        """Sends once, without a retry of its own.

        Args:
            url: of the channel, as `check_channel_url` accepts it.
            content: an alert, composed here, or a composed message.
            message_id: the same for every repeat of this message to this channel; a mail's Message-ID is made of it.

        Raises:
            ChannelRefused: a repeat would be refused as well.
            ChannelUnreachable: later may do. After a lost answer the far side may have the message nevertheless.
        """
        channel = mask_url(url)
        try:
            url = check_channel_url(url, self._allowed_schemes)
        except ChannelUrlRefused as error:
            raise ChannelRefused(channel, str(error)) from None
        message = compose_alert(content) if isinstance(content, PriceAlert) else content
        with captured_log():
            plugin = open_plugin(url, scheme_of(url) or "")
        self._prepare(plugin, message, message_id)
        started = time.monotonic()
        outcome = self._notify(plugin, message)
        elapsed_seconds = time.monotonic() - started
        # Raised outside of any except block and unchained: the causes hold the URL.
        if outcome is None:
            raise ChannelUnreachable(channel, f"no complete answer within {self._total_timeout_seconds:g} seconds")
        sent, log = outcome
        if not sent:
            raise _failure(channel, url, log)
        answer = plugin.answer if isinstance(plugin, MailChannel) else (log.lines[-1] if log.lines else "")
        return Receipt(channel, message_id, mask_secrets(answer or "", url)[:_REASON_LENGTH], elapsed_seconds)

    def _notify(self, plugin: Plugin, message: Message) -> tuple[bool, CapturedLog] | None:
        """Apprise's answer and log; None when the total time ran out.

        In a thread of its own, because nothing else ends a request whose answer comes drop by drop. A thread given up holds no lock
        and ends with its connection.
        """
        outcomes: list[tuple[bool, CapturedLog]] = []

        def run() -> None:
            sent: bool | None = False
            with captured_log() as log:
                try:
                    apprise = Apprise(asset=plugin.asset)
                    apprise.add(plugin)
                    if isinstance(plugin, MailChannel):
                        sent = apprise.notify(body=message.html, title=message.title, body_format=NotifyFormat.HTML)
                    else:
                        sent = apprise.notify(body=_chat_text(plugin, message), title=message.title, body_format=NotifyFormat.TEXT)
                finally:
                    outcomes.append((bool(sent), log))

        worker = threading.Thread(target=run, name="keeper-notify", daemon=True)
        worker.start()
        worker.join(self._total_timeout_seconds)
        if outcomes:
            return outcomes[0]
        if isinstance(plugin, MailChannel):
            plugin.abort()
        # What the abort makes of it comes too late.
        return None

    def _prepare(self, plugin: Plugin, message: Message, message_id: str) -> None:
        plugin.socket_connect_timeout = self._connect_timeout_seconds
        plugin.socket_read_timeout = self._read_timeout_seconds
        # One request, its failure visible, checked certificates, in the form the service's own plugin prefers.
        plugin.retry, plugin.wait, plugin.optional = 0, 0.0, False
        plugin.verify_certificate, plugin.redirects = True, False
        plugin.notify_format, plugin.overflow_mode = type(plugin).notify_format, OverflowMode.TRUNCATE
        plugin.interpret_emojis = False
        if isinstance(plugin, MailChannel):
            plugin.text, plugin.message_id = message.text, _safe_id(message_id)
        if isinstance(plugin, NtfyChannel):
            plugin.stamp(_safe_id(message_id))


def _chat_text(plugin: Plugin, message: Message) -> str:
    """The text; for Slack without < and >, of which Apprise makes pings and links, also where a product's title has them."""
    text = message.chat or message.text
    return text.translate(_NO_SLACK_COMMANDS) if isinstance(plugin, NotifySlack) else text


def _safe_id(message_id: str) -> str:
    """The id itself where it may stand in a header and a URL, else a hash of it: the same for the same id in both cases."""
    return message_id if _SAFE_ID.fullmatch(message_id) else hashlib.sha256(message_id.encode()).hexdigest()[:32]


def _failure(channel: str, url: str, log: CapturedLog) -> KeeperError:
    # Masked before anything is cut: half a token would not be found any more.
    reason = mask_secrets(_reason(log, scheme_of(url)), url)[:_REASON_LENGTH]
    retry_after = next((float(found.group(1)) for line in log.lines if (found := _RETRY_AFTER.search(line))), None)
    if _is_permanent(log):
        return ChannelRefused(channel, reason)
    return ChannelUnreachable(channel, reason, retry_after)


def _reason(log: CapturedLog, scheme: str | None) -> str:
    said = list(dict.fromkeys(" ".join(line.split()) for line in log.warnings)) or ["Apprise gave no reason"]
    if scheme in _TRUSTED_ANSWERS:
        said += [" ".join(line.split()) for line in log.lines if line.startswith("Response Details")]
    # A mail's warning is the server's reply already.
    causes = [type(error).__name__ for error in _network_errors(log) if not isinstance(error, smtplib.SMTPResponseException)]
    return "; ".join(said) + (f" ({', '.join(dict.fromkeys(causes))})" if causes else "")


def _network_errors(log: CapturedLog) -> list[OSError]:
    """Without the parse errors Apprise meets, and logs, when an error page is no JSON."""
    return [error for error in log.errors if isinstance(error, OSError)]


def _is_permanent(log: CapturedLog) -> bool:
    errors = _network_errors(log)
    if errors:
        return _is_permanent_error(errors[-1])
    statuses = [int(found) for line in log.warnings for found in _STATUS.findall(line)]
    if not statuses:
        # Nothing was asked of the network: the message or the URL cannot be sent.
        return True
    status = statuses[-1]
    if status >= 10_000:
        # ntfy's own codes are the HTTP status and two digits.
        status //= 100
    if status < 300:
        return not any(_LATER_WORDS.search(line) for line in log.lines)
    return status not in _LATER_STATUSES and status < 500


def _is_permanent_error(error: OSError) -> bool:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(code >= 500 for code, _ in error.recipients.values())
    if isinstance(error, smtplib.SMTPResponseException):
        return error.smtp_code >= 500
    if isinstance(error, (smtplib.SMTPNotSupportedError, *_PERMANENT_REQUESTS)):
        return True
    return any(isinstance(link, ssl.SSLCertVerificationError) for link in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[object] = []
    waiting: list[object] = [error]
    while waiting:
        link = waiting.pop()
        if isinstance(link, BaseException) and link not in seen:
            seen.append(link)
            yield link
            # urllib3 keeps the true cause in `reason`, requests in its first argument.
            waiting += [link.__cause__, link.__context__, getattr(link, "reason", None), *link.args]
