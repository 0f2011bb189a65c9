"""The REST API as the pages use it: one client, typed answers, errors in plain words.

ApiError
├── ApiDown        nothing answers, or not in time: try again
├── ApiRefused     the API says no, and why
│   └── KeyRefused it does not know the key
└── ApiForeign     what answers is not the API this dashboard knows
"""

import ssl
import time
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import httpx
import msgspec

from dashboard.bodies import (
    DealPage,
    Explanation,
    FoundProducts,
    HouseStatus,
    Me,
    OpportunityPage,
    PriceForecast,
    PriceHistory,
    Problem,
    ProductPage,
    Stats,
    Tokens,
    Watch,
    WatchPage,
)

KEPT_SECONDS: Final = 60.0
_TIMEOUT = httpx.Timeout(20, connect=3)
_MOST_KEPT = 300
_LARGEST_PAGE = 1000
# What a proxy or a server that is ending answers in the API's place.
_AWAY = frozenset({502, 503, 504})

T = TypeVar("T")


class ApiError(Exception):
    """The API did not give what was asked for."""


class ApiDown(ApiError):
    """Nothing answers at the address, or not in time."""


class ApiForeign(ApiError):
    """An answer nobody here understands."""


class ApiRefused(ApiError):
    """The API's own no.

    Attributes:
        title: the kind of problem in a few words.
        hint: what to do; None where the API knows nothing.
    """

    def __init__(self, status: int, problem: Problem) -> None:
        super().__init__(problem.detail or problem.title or f"HTTP {status}")
        self.status = status
        self.title = problem.title
        self.hint = problem.hint


class KeyRefused(ApiRefused):
    """The key is not known, not any more, or none was sent."""


class KeeperClient:
    """Asks with one person's key. Answers are kept for a minute, each person's for themselves; a change forgets them."""

    def __init__(self, url: str, key: str | None, *, ca_file: str | None = None, transport: httpx.BaseTransport | None = None) -> None:
        """Nothing is asked yet.

        Args:
            ca_file: certificates that may sign the API's; None for those of the system.
        """
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        verify = ssl.create_default_context(cafile=ca_file) if ca_file else True
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=_TIMEOUT, transport=transport, trust_env=False, verify=verify)
        self._kept: dict[tuple[object, ...], tuple[float, Any]] = {}

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def forget(self) -> None:
        """Ask anew from now on."""
        self._kept.clear()

    def fetch_me(self) -> Me:
        """Whose key it is."""
        return self._ask("GET", "/api/v1/users/me", Me)

    def fetch_stats(self) -> Stats:
        """Everything in a few figures."""
        return self._get("/api/v1/stats", Stats)

    def fetch_opportunities(self, limit: int, **asked: Any) -> OpportunityPage:
        """Open opportunities, best first, up to `limit`; conditions that are None or empty are left out."""
        return self._get("/api/v1/opportunities", OpportunityPage, limit=limit, **asked)

    def explain(self, opportunity_id: int) -> Explanation:
        """The profit of one, part by part."""
        return self._get(f"/api/v1/opportunities/{opportunity_id}/explain", Explanation)

    def fetch_product(self, asin: str) -> ProductPage:
        """A product over all stores."""
        return self._get(f"/api/v1/products/{asin}", ProductPage)

    def search_products(self, text: str, marketplace: str) -> FoundProducts:
        """Products of a store by words."""
        return self._get("/api/v1/products/search", FoundProducts, text=text, marketplace=marketplace, limit=20)

    def fetch_history(self, asin: str, marketplace: str, price_type: str, *, days: int, points: int) -> PriceHistory:
        """A price over time, thinned to `points`, its lows and highs among them."""
        return self._get(
            f"/api/v1/prices/{asin}/history", PriceHistory, marketplace=marketplace, price_type=price_type, days=days, points=points
        )

    def fetch_forecast(self, asin: str, marketplace: str, price_type: str, *, target: float | None) -> PriceForecast:
        """Where a price may go, and the chance that it is at the target or below until then."""
        return self._get(f"/api/v1/prices/{asin}/forecast", PriceForecast, marketplace=marketplace, price_type=price_type, target=target)

    def fetch_watches(self) -> list[Watch]:
        """All of the person's, paused ones too: up to a thousand."""
        return self._get("/api/v1/watches", WatchPage, state="all", limit=_LARGEST_PAGE).watches

    def add_watch(self, **fields: Any) -> Watch:
        """Watch a price."""
        return self._change("POST", "/api/v1/watches", Watch, fields)

    def change_watch(self, watch_id: int, **fields: Any) -> Watch:
        """Change, pause or resume one."""
        return self._change("PATCH", f"/api/v1/watches/{watch_id}", Watch, fields)

    def remove_watch(self, watch_id: int) -> None:
        """Stop watching."""
        self._change("DELETE", f"/api/v1/watches/{watch_id}", None)

    def search_deals(self, **asked: Any) -> DealPage:
        """Deals by words and conditions; those that are None or empty are left out."""
        body = _left_in(asked)
        return self._keep(("deals", msgspec.json.encode(body, order="deterministic")), "POST", "/api/v1/deals/search", DealPage, json=body)

    def fetch_tokens(self) -> Tokens:
        """The budget."""
        return self._get("/api/v1/tokens", Tokens)

    def fetch_status(self) -> HouseStatus:
        """How every system is."""
        return self._get("/api/v1/status", HouseStatus)

    def _get(self, path: str, kind: type[T], **asked: Any) -> T:
        query = _left_in(asked)
        return self._keep((path, repr(sorted(query.items()))), "GET", path, kind, params=query)

    def _keep(self, name: tuple[object, ...], method: str, path: str, kind: type[T], **rest: Any) -> T:
        now = time.monotonic()
        known = self._kept.get(name)
        if known is not None and now - known[0] < KEPT_SECONDS:
            answer: T = known[1]
            return answer
        found = self._ask(method, path, kind, **rest)
        self._kept.pop(name, None)
        while len(self._kept) >= _MOST_KEPT:
            self._kept.pop(next(iter(self._kept)))
        self._kept[name] = (now, found)
        return found

    def _change(self, method: str, path: str, kind: type[T] | None, body: Mapping[str, Any] | None = None) -> T:
        try:
            return self._ask(method, path, kind, json=body)
        finally:
            self.forget()

    def _ask(self, method: str, path: str, kind: type[T] | None, **rest: Any) -> T:
        try:
            answered = self._http.request(method, path, **rest)
        except httpx.TimeoutException as error:
            raise ApiDown(f"{self.url} does not answer in time") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ApiDown(f"Nothing answers at {self.url}") from error
        if not answered.is_success:
            raise self._refusal(answered)
        try:
            return msgspec.json.decode(answered.content or b"null", type=kind or type(None))  # type: ignore[return-value]
        except msgspec.DecodeError as error:
            raise ApiForeign(f"{self.url}{path}: {error}") from error

    def _refusal(self, answered: httpx.Response) -> ApiError:
        try:
            problem = msgspec.json.decode(answered.content, type=Problem)
        except msgspec.DecodeError:
            if answered.status_code in _AWAY:
                return ApiDown(f"{self.url} answers with {answered.status_code}")
            return ApiForeign(f"{self.url} answers with {answered.status_code}, and not as Keeper's API does")
        kind = KeyRefused if answered.status_code == httpx.codes.UNAUTHORIZED else ApiRefused
        return kind(answered.status_code, problem)


def _left_in(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if value is not None and value != [] and value != ""}
