"""What people write: an ASIN or the link of its page, a kind of price, a span of time."""

import re

from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import WATCHABLE, PriceType

_ASIN = re.compile(r"[A-Z0-9]{10}")
_ASIN_IN_LINK = re.compile(r"/(?:dp|gp/product|gp/aw/d)/([A-Z0-9]{10})(?:[/?#]|$)", re.IGNORECASE)
_STORE_IN_LINK = re.compile(r"(?:^|//|\.)(amazon\.[a-z.]{2,6})/", re.IGNORECASE)
_STORES = {one.host.removeprefix("www."): one for one in Marketplace}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(sec|s|min|m|h|d|w)", re.IGNORECASE)
_SPAN_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
# No link and no span is longer; the patterns would take their time for a megabyte.
_LONGEST = 2000
_LONGEST_SPAN = 50
_MOST_SECONDS = 100 * 366 * 86400
_SHOWN = 60


class WordsUnclear(KeeperError):
    """A text that does not say what it should; its own says how to write it."""


def shown(text: object) -> str:
    """A text in quotes and on one line, cut where it is long."""
    whole = repr(text)
    return whole if len(whole) <= _SHOWN else f"{whole[:_SHOWN]}…"


def read_asin(text: str) -> str:
    """An ASIN, or the one in the link of a product's page; small letters are taken too.

    Raises:
        WordsUnclear: neither.
    """
    found = _ASIN_IN_LINK.search(text) if len(text) <= _LONGEST else None
    asin = (found.group(1) if found else text[:_LONGEST]).strip().upper()
    if not _ASIN.fullmatch(asin):
        raise WordsUnclear(f"{shown(text)} is not an ASIN: ten letters or digits, like B00OCMRV40, or a link to the product's page")
    return asin


def find_store(text: str) -> Marketplace | None:
    """The store that a link leads to; None for what is no link to one."""
    found = _STORE_IN_LINK.search(text[:_LONGEST])
    return _STORES.get(found.group(1).lower()) if found else None


def read_marketplace(text: str) -> Marketplace:
    """The two letters of a store, in any case.

    Raises:
        WordsUnclear: another text.
    """
    try:
        return Marketplace(text.strip().upper())
    except ValueError:
        raise WordsUnclear(f"{shown(text)} is no marketplace; choose one of {', '.join(Marketplace)}") from None


def read_price_type(text: str) -> PriceType:
    """A kind of price that can be watched, as people write it: `new`, `Lightning-Deal`, `buybox`.

    Raises:
        WordsUnclear: another text.
    """
    name = text.strip().upper().replace("-", "_").replace(" ", "_")
    if name in ("BUYBOX", "BUY_BOX"):
        return PriceType.BUY_BOX_SHIPPING
    if name not in WATCHABLE:
        raise WordsUnclear(f"{shown(text)} cannot be watched; choose one of {', '.join(WATCHABLE)}, or buybox")
    return PriceType(name)


def read_span_seconds(text: str) -> float:
    """`90s`, `30m`, `6h`, `3d`, `1w`, and sums of them like `1d12h`.

    Raises:
        WordsUnclear: another text, or longer than a century.
    """
    parts = _SPAN.findall(text) if len(text) <= _LONGEST_SPAN else []
    if not parts or _SPAN.sub("", text).strip():
        raise WordsUnclear(f"{shown(text)} is not a duration; write it like 90s, 30m, 6h, 3d or 1d12h")
    seconds = sum(float(amount) * _SPAN_SECONDS[unit.lower()] for amount, unit in parts)
    if seconds > _MOST_SECONDS:
        raise WordsUnclear(f"{shown(text)} is more than a century")
    return seconds


def write_span(seconds: int) -> str:
    """Exactly so many seconds, as `read_span_seconds` takes them: `6h`, `1d12h`, `90s` as `1m30s`."""
    parts = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        if seconds >= size:
            parts.append(f"{seconds // size}{unit}")
            seconds %= size
    return "".join(parts) or "0s"
