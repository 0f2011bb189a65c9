"""The API key: known to the transport, hidden from everything else."""

import hashlib
import logging
from urllib.parse import quote

from keeper.keepa.errors import RequestInvalid

_MASK = "***"
# A filter sees only what is logged on its own logger, not below it, so each is named.
_WIRE_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy", "httpcore.socks")


class ApiKey:
    """A Keepa key that shows itself only to `reveal`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        if not value or not value.isascii() or not value.isprintable() or " " in value:
            raise RequestInvalid("the Keepa API key is empty or holds characters that no key has; set KEEPER_KEEPA_API_KEY")
        self._value = value

    def reveal(self) -> str:
        return self._value

    @property
    def fingerprint(self) -> str:
        """Tells keys apart without showing one: the first 12 hex digits of its SHA-256."""
        return hashlib.sha256(self._value.encode()).hexdigest()[:12]

    def redact(self, text: str) -> str:
        """`text` with the key masked, plain or as it stands in a URL."""
        return text.replace(self._value, _MASK).replace(quote(self._value, safe=""), _MASK)

    def __repr__(self) -> str:
        return f"ApiKey({self.fingerprint})"

    def __reduce__(self) -> str:
        raise TypeError("an API key is not pickled")


class RedactKey(logging.Filter):
    """Masks the key in what the HTTP libraries log, should a server or proxy echo it in a header."""

    def __init__(self, key: ApiKey) -> None:
        super().__init__()
        self._key = key

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        redacted = self._key.redact(text)
        if redacted != text:
            record.msg, record.args = redacted, ()
        return True

    def install(self) -> None:
        for name in _WIRE_LOGGERS:
            logging.getLogger(name).addFilter(self)

    def remove(self) -> None:
        for name in _WIRE_LOGGERS:
            logging.getLogger(name).removeFilter(self)
