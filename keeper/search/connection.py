"""How Elasticsearch is reached, and what its errors mean.

KeeperError
├── SearchDown      nobody answers, too slow, overloaded, 5xx     (TransientError)
└── SearchRefused   what is asked, or who asks, is wrong; until somebody changes something

No text here holds the API key or the password; the addresses hold none.
"""

import logging
import re
import ssl
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from elasticsearch import (
    ApiError,
    ConnectionTimeout,
    Elasticsearch,
    SerializationError,
    SSLError,
    TransportError,
    UnsupportedProductError,
)

from keeper.domain.errors import KeeperError, TransientError

OLDEST_MAJOR: Final = 9
_PROBE_SECONDS = 3.0
_CONNECTION = re.compile(r"^.*[>)]: ", re.DOTALL)
_LONGEST_QUOTE = 300
_TOO_MANY_REQUESTS = 429
_MASK = "***"


class SearchDown(TransientError):
    """Elasticsearch cannot be used now."""


class SearchNotConfigured(KeeperError):
    """There is no Elasticsearch."""


class SearchRefused(KeeperError):
    """Elasticsearch answers and will not do it.

    Attributes:
        kind: Elasticsearch's own name of the error; empty where it gave none.
    """

    def __init__(self, message: str, *, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class SearchConnection:
    """Where Elasticsearch is and how its indices are made.

    Attributes:
        urls: of its nodes, without user and password; without a port the scheme's own.
        api_key: as Elasticsearch encodes it; goes before user and password.
        ca_file: PEM; trusted beside the certificates of the system.
        index_prefix: before the name of each index, alias and template.
        timeout_seconds: longest wait for an answer.
        replicas: copies of a shard beside the first.
    """

    urls: tuple[str, ...]
    api_key: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    index_prefix: str = ""
    timeout_seconds: float = 30.0
    shards: int = 1
    replicas: int = 0

    @property
    def place(self) -> str:
        """The addresses, for people."""
        return ", ".join(self.urls)

    def redact(self, text: str) -> str:
        """`text` with the secrets masked in every form they travel in, should a server or proxy echo them."""
        for secret in sorted(self._secrets(), key=len, reverse=True):
            text = text.replace(secret, _MASK)
        return text

    def _secrets(self) -> set[str]:
        found = {self.password or "", self.api_key or ""}
        if self.password:
            found.add(_encode(f"{self.username or ''}:{self.password}"))
        if self.api_key:
            # Elasticsearch hands out `id:key` and what that is encoded; the part behind the colon is the secret.
            plain = self.api_key if ":" in self.api_key else _decode(self.api_key)
            found |= {plain, plain.partition(":")[2], _encode(plain), _encode(plain).rstrip("=")}
        return found - {""}


def open_client(connection: SearchConnection) -> Elasticsearch:
    """The official client; asks nothing yet. Safe to share between threads; `close` it.

    A request whose connection breaks is sent once more per node, because each of ours may be repeated; one that takes too long is not.

    Raises:
        SearchRefused: a CA file that cannot be read, a user without password, an API key that can be none.
    """
    # Its loggers hold whole requests, and write a line for each.
    logging.getLogger("elastic_transport").setLevel(logging.ERROR)
    logging.getLogger("elastic_transport.node").propagate = False
    basic_auth = _basic_auth(connection)
    if connection.api_key is not None and not (connection.api_key.isascii() and connection.api_key.isprintable()):
        raise SearchRefused("KEEPER_ELASTICSEARCH_API_KEY holds characters that no API key has")
    try:
        trust = _trust(connection)
        return Elasticsearch(
            [_with_port(url) for url in connection.urls],
            api_key=connection.api_key,
            basic_auth=basic_auth,
            **trust,
            request_timeout=connection.timeout_seconds,
            max_retries=len(connection.urls),
            retry_on_timeout=False,
            retry_on_status=(),
        )
    except (OSError, ValueError) as error:
        text = connection.redact(str(error))
        raise SearchRefused(f"Elasticsearch at {connection.place} cannot be spoken to with these settings: {text}") from error


def probe(client: Elasticsearch, connection: SearchConnection) -> str:
    """One small question with a short wait. Returns the server's version.

    Raises:
        SearchDown: nobody answers.
        SearchRefused: not Elasticsearch, too old, or it does not know us.
    """
    seconds = min(_PROBE_SECONDS, connection.timeout_seconds)
    with plain_errors(connection, timeout_seconds=seconds):
        version = str(client.options(request_timeout=seconds).info(filter_path="version.number")["version"]["number"])
    if int(version.partition(".")[0]) < OLDEST_MAJOR:
        raise SearchRefused(f"Elasticsearch at {connection.place} is {version}; Keeper needs {OLDEST_MAJOR} or newer")
    return version


@contextmanager
def plain_errors(connection: SearchConnection, *, timeout_seconds: float | None = None) -> Iterator[None]:
    """The client's errors as ours.

    Args:
        timeout_seconds: where it is not the connection's.

    Raises:
        SearchDown: see there.
        SearchRefused: see there.
    """
    try:
        yield
    except ApiError as error:
        raise _refusal(error, connection) from error
    except TransportError as error:
        raise SearchDown(_outage(error, connection, timeout_seconds or connection.timeout_seconds)) from error


def _basic_auth(connection: SearchConnection) -> str | None:
    """Encoded here: the client knows ASCII only, and its error would show the password."""
    if connection.api_key is not None or connection.username is None:
        return None
    if connection.password is None:
        raise SearchRefused("Elasticsearch's user has no password; set KEEPER_ELASTICSEARCH_PASSWORD")
    return _encode(f"{connection.username}:{connection.password}")


def _encode(plain: str) -> str:
    return b64encode(plain.encode()).decode()


def _decode(encoded: str) -> str:
    """Empty where it is not base64 of a text."""
    try:
        return b64decode(encoded + "=" * (-len(encoded) % 4), validate=True).decode()
    except ValueError:
        return ""


def _trust(connection: SearchConnection) -> dict[str, Any]:
    if not any(url.startswith("https:") for url in connection.urls):
        return {}
    # Looked at here, because the client would first do so at a request.
    context = ssl.create_default_context(cafile=connection.ca_file)
    return {"ssl_context": context} if connection.ca_file is None else {"ca_certs": str(connection.ca_file)}


def _with_port(url: str) -> str:
    parts = urlsplit(url)
    if parts.port is not None:
        return url
    return parts._replace(netloc=f"{parts.netloc}:{443 if parts.scheme == 'https' else 80}").geturl()


def _outage(error: TransportError, connection: SearchConnection, timeout_seconds: float) -> str:
    if isinstance(error, ConnectionTimeout):
        return f"Elasticsearch at {connection.place} does not answer within {timeout_seconds:g} s"
    if isinstance(error, SerializationError):
        return f"Elasticsearch at {connection.place} answers something that cannot be read; is there a proxy between?"
    # urllib3 puts the connection's own repr before the cause.
    cause = connection.redact(_CONNECTION.sub("", error.message))[:_LONGEST_QUOTE]
    if isinstance(error, SSLError):
        return (
            f"Elasticsearch at {connection.place}: TLS fails ({cause}); "
            "KEEPER_ELASTICSEARCH_CA_FILE names the certificates that may sign a node's"
        )
    return f"Elasticsearch at {connection.place} cannot be reached ({cause})"


def _refusal(error: ApiError, connection: SearchConnection) -> KeeperError:
    status = error.meta.status
    kind, reason = _told(error)
    said = connection.redact(f"{kind}: {reason}" if reason else kind)[:_LONGEST_QUOTE]
    place = connection.place
    if isinstance(error, UnsupportedProductError):
        return SearchRefused(f"what answers at {place} is not Elasticsearch")
    if status == _TOO_MANY_REQUESTS:
        return SearchDown(f"Elasticsearch at {place} is overloaded (429 {said})")
    if status >= 500:
        return SearchDown(f"Elasticsearch at {place} fails ({status} {said})")
    if status == 401:
        return SearchRefused(
            f"Elasticsearch at {place} does not accept our credentials; set KEEPER_ELASTICSEARCH_API_KEY, "
            "or KEEPER_ELASTICSEARCH_USERNAME and KEEPER_ELASTICSEARCH_PASSWORD",
            kind=kind,
        )
    if status == 403:
        return SearchRefused(f"Elasticsearch at {place} does not allow it ({said})", kind=kind)
    if kind == "media_type_header_exception":
        return SearchRefused(f"Elasticsearch at {place} is too old; Keeper needs {OLDEST_MAJOR} or newer", kind=kind)
    return SearchRefused(f"Elasticsearch at {place} refuses the request ({status} {said})", kind=kind)


def _told(error: ApiError) -> tuple[str, str]:
    """Elasticsearch's name of the error and its reason."""
    body = error.body
    told = body.get("error") if isinstance(body, dict) else None
    if isinstance(told, dict):
        return str(told.get("type", "")), str(told.get("reason", ""))
    return "", str(told) if told is not None else ""
