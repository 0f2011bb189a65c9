"""Asks a Keepa with the client of others: `python third_party_client.py ADDRESS ASIN...`, in an environment that holds it.

Imports nothing of Keeper's. Prints a JSON object: tokens left before and after, and what the client makes of each product.
"""

import json
import sys
from typing import Any
from unittest.mock import patch

import keepa  # type: ignore[import-not-found,unused-ignore]
import requests  # type: ignore[import-untyped,unused-ignore]

ITS_ADDRESS = "https://api.keepa.com"


class Elsewhere(requests.adapters.HTTPAdapter):  # type: ignore[misc,unused-ignore]
    """The client knows one address only; what it sends there goes to ours, else nowhere."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address

    def send(self, request: Any, *arguments: Any, **named: Any) -> Any:
        if not request.url.startswith(f"{ITS_ADDRESS}/"):
            raise ValueError(f"the client asks {request.url.partition('?')[0]}")
        request.url = self._address + request.url.removeprefix(ITS_ADDRESS)
        return super().send(request, *arguments, **named)


def main(address: str, asins: list[str]) -> None:
    """Ask, then print."""
    with patch.object(requests.Session, "get_adapter", lambda _session, url: Elsewhere(address)):  # noqa: ARG005
        client = keepa.Keepa("k" * 64, timeout=30)
        client.update_status()
        before = client.tokens_left
        products = client.query(asins, domain="DE", stats=90, progress_bar=False)
    print(json.dumps({"before": before, "after": client.tokens_left, "products": [told(one) for one in products]}))


def told(product: dict[str, Any]) -> dict[str, Any]:
    """What the client understood: columns by name, prices in units of the currency."""
    columns = {name: values for name, values in product["data"].items() if not name.startswith("df_") and not name.endswith("_time")}
    return {
        "asin": product["asin"],
        "title": product["title"],
        "lengths": {name: len(values) for name, values in columns.items()},
        "current": product["stats_parsed"]["current"],
    }


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
