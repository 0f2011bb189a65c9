"""The client of the Keepa API: one per process, shared by its threads."""

import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

import httpx

from keeper.domain.deal import DealQuery
from keeper.domain.marketplace import Marketplace
from keeper.domain.tokens import TokenStatus
from keeper.keepa.answer import Answer, AsinAnswer, CategoryAnswer, DealAnswer, ProductAnswer
from keeper.keepa.deal_wire import decode_deals
from keeper.keepa.errors import (
    AnswerUnreadable,
    KeepaError,
    KeyRejected,
    OutOfTokens,
    PaymentRequired,
    RequestInvalid,
    RequestRejected,
    ServerDown,
)
from keeper.keepa.key import ApiKey, RedactKey
from keeper.keepa.list_wire import decode_asins, decode_categories
from keeper.keepa.requests import (
    FinderQuery,
    ProductOptions,
    Request,
    bestsellers_request,
    categories_request,
    category_search_request,
    deal_request,
    finder_request,
    product_request,
    product_search_request,
    token_request,
)
from keeper.keepa.wire import Envelope, NotAnAnswer, decode_envelope, decode_products

DEFAULT_BASE_URL = "https://api.keepa.com"
_LONGEST_QUOTE = 300

D = TypeVar("D")


class KeepaClient:
    """Asks Keepa. Waits for nobody's tokens and tries nothing twice: that is the caller's.

    A context manager; `close` ends its connections. Safe to share between threads.

    Args:
        key: the API key; shown by nothing here, see `key_fingerprint`.
        base_url: another server that speaks Keepa's protocol, such as the simulator.
        has_secret_key: whether the key is somebody's, so that it goes over TLS or stays on this machine.
        transport: replaces the network; given, the system's proxy settings are not looked at.
        read_timeout_seconds: the longest silence of the server.
        offers_read_timeout_seconds: the same for requests with `offers`, for which Keepa asks Amazon while we wait.
        total_timeout_seconds: the longest an answer may take from sending to its last byte, however lively the server is.
        max_connections: at once; a further thread waits for one to come free.
        max_answer_bytes: of one answer, uncompressed.
    """

    def __init__(
        self,
        key: str,
        *,
        base_url: str = DEFAULT_BASE_URL,
        has_secret_key: bool = True,
        transport: httpx.BaseTransport | None = None,
        connect_timeout_seconds: float = 10.0,
        read_timeout_seconds: float = 30.0,
        offers_read_timeout_seconds: float = 120.0,
        total_timeout_seconds: float = 300.0,
        max_connections: int = 5,
        max_answer_bytes: int = 256 * 1024 * 1024,
    ) -> None:
        self._key = ApiKey(key)
        self._base_url = _checked_base_url(base_url)
        self._connect_timeout_seconds = connect_timeout_seconds
        self._read_timeout_seconds = read_timeout_seconds
        self._offers_read_timeout_seconds = offers_read_timeout_seconds
        self._total_timeout_seconds = total_timeout_seconds
        self._max_answer_bytes = max_answer_bytes
        if transport is None:
            if has_secret_key:
                _check_privacy(self._base_url)
            limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections, keepalive_expiry=60.0)
            transport = httpx.HTTPTransport(limits=limits, proxy=_system_proxy(self._base_url))
        self._http = httpx.Client(
            base_url=self._base_url,
            transport=_KeyAppendingTransport(transport, self._key),
            headers={"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "keeper"},
            follow_redirects=False,
            trust_env=False,
        )
        self._redact_key = RedactKey(self._key)
        self._redact_key.install()

    def __repr__(self) -> str:
        return f"KeepaClient({self._base_url}, key {self.key_fingerprint})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections. Closing twice is fine."""
        self._http.close()
        self._redact_key.remove()

    @property
    def base_url(self) -> str:
        return self._base_url

    @property
    def key_fingerprint(self) -> str:
        """Names the key without showing it, for the token ledger: the first 12 hex digits of its SHA-256."""
        return self._key.fingerprint

    def fetch_products(
        self,
        asins: Sequence[str],
        marketplace: Marketplace,
        *,
        stats_days: int | None = None,
        history_days: int | None = None,
        buybox: bool = False,
        rating: bool = False,
        update_hours: int | None = None,
        offers: int | None = None,
    ) -> ProductAnswer:
        """Asks for up to 100 products of one marketplace. The options are those of `ProductOptions`, which also says what they cost.

        Raises:
            RequestInvalid: a wrong ASIN or option; nothing was sent.
            KeepaError: as drawn in `keeper.keepa.errors`.
        """
        options = ProductOptions(
            stats_days=stats_days,
            history_days=history_days,
            buybox=buybox,
            rating=rating,
            update_hours=update_hours,
            offers=offers,
        )
        request = product_request(asins, marketplace, options)
        received, decoded = self._ask(request, lambda body: decode_products(body, asins, marketplace))
        return ProductAnswer(
            operation=request.endpoint,
            marketplace=marketplace,
            asin_count=request.asin_count,
            tokens=self._accepted(received, decoded.envelope, has_payload=decoded.has_payload),
            status_code=200,
            elapsed_seconds=received.elapsed_seconds,
            body=received.body,
            products=decoded.products,
            raw=decoded.raw,
            missing=decoded.missing,
            unreadable=decoded.unreadable,
            unasked=decoded.unasked,
            notice=self._quoted(decoded.envelope),
        )

    def fetch_deals(self, query: DealQuery, page: int = 0) -> DealAnswer:
        """Asks for one page of the feed of deals, the newest first: 5 tokens.

        Raises:
            RequestInvalid: no such page, or a query Keepa could only refuse; nothing was sent.
            KeepaError: as drawn in `keeper.keepa.errors`.
        """
        request = deal_request(query, page)
        received, decoded = self._ask(request, lambda body: decode_deals(body, query.marketplace, query.price_type))
        return DealAnswer(
            operation=request.endpoint,
            marketplace=query.marketplace,
            asin_count=0,
            tokens=self._accepted(received, decoded.envelope, has_payload=decoded.has_payload, must_have_payload=True),
            status_code=200,
            elapsed_seconds=received.elapsed_seconds,
            body=received.body,
            sightings=decoded.sightings,
            raw=decoded.raw,
            row_count=decoded.row_count,
            is_cached=decoded.is_cached,
            unreadable=decoded.unreadable,
            skipped=decoded.skipped,
            dropped=decoded.dropped,
            roots=decoded.roots,
            notice=self._quoted(decoded.envelope),
        )

    def fetch_bestsellers(self, marketplace: Marketplace, category_id: int) -> AsinAnswer:
        """Asks for the bestsellers of a category, the best first: 50 tokens, nothing where Keepa has no list.

        Raises:
            RequestInvalid: no category, or none of this marketplace; nothing was sent.
            KeepaError: as drawn in `keeper.keepa.errors`.
        """
        return self._ask_asins(bestsellers_request(marketplace, category_id), must_have_payload=False)

    def find_asins(self, query: FinderQuery, page: int = 0) -> AsinAnswer:
        """Asks the product finder for one page: 10 tokens and 1 for each hundred ASINs.

        Raises:
            RequestInvalid: no such page, or nothing to find by; nothing was sent.
            KeepaError: as drawn in `keeper.keepa.errors`.
        """
        return self._ask_asins(finder_request(query, page), must_have_payload=True)

    def search_products(self, marketplace: Marketplace, term: str) -> AsinAnswer:
        """Asks for what Amazon's own search finds first: 10 tokens.

        Raises:
            RequestInvalid: nothing to search for; nothing was sent.
            KeepaError: as drawn in `keeper.keepa.errors`.
        """
        return self._ask_asins(product_search_request(marketplace, term), must_have_payload=False)

    def fetch_categories(self, marketplace: Marketplace, category_ids: Sequence[int] = ()) -> CategoryAnswer:
        """Asks for up to ten categories, or for every root: 1 token.

        Raises:
            RequestInvalid: too many, or none of this marketplace; nothing was sent.
            KeepaError: as drawn in `keeper.keepa.errors`.
        """
        return self._ask_categories(categories_request(marketplace, category_ids), marketplace, must_have_payload=True)

    def search_categories(self, marketplace: Marketplace, term: str) -> CategoryAnswer:
        """Asks for categories by words of their names, each of three letters or more: 1 token.

        Raises:
            RequestInvalid: no such words; nothing was sent.
            KeepaError: as drawn in `keeper.keepa.errors`.
        """
        return self._ask_categories(category_search_request(marketplace, term), marketplace, must_have_payload=False)

    def fetch_token_status(self) -> Answer:
        """Asks for the state of the bucket (`.tokens`). Free, but every other answer says the same.

        Raises:
            KeepaError: as drawn in `keeper.keepa.errors`.
        """
        request = token_request()
        received = self._send(request)
        try:
            envelope = decode_envelope(received.body)
        except NotAnAnswer as error:
            raise received.failed(AnswerUnreadable, f"Keepa's answer cannot be read: {error}") from error
        return Answer(
            operation=request.endpoint,
            marketplace=None,
            asin_count=0,
            tokens=self._accepted(received, envelope, has_payload=envelope.error is None),
            status_code=200,
            elapsed_seconds=received.elapsed_seconds,
            body=received.body,
        )

    def _ask_asins(self, request: Request, *, must_have_payload: bool) -> AsinAnswer:
        received, decoded = self._ask(request, decode_asins)
        return AsinAnswer(
            operation=request.endpoint,
            marketplace=request.marketplace,
            asin_count=0,
            tokens=self._accepted(received, decoded.envelope, has_payload=decoded.has_payload, must_have_payload=must_have_payload),
            status_code=200,
            elapsed_seconds=received.elapsed_seconds,
            body=received.body,
            asins=decoded.asins,
            unreadable_count=decoded.unreadable_count,
            total_count=decoded.total_count,
            listed_at=decoded.listed_at,
            notice=self._quoted(decoded.envelope),
        )

    def _ask_categories(self, request: Request, marketplace: Marketplace, *, must_have_payload: bool) -> CategoryAnswer:
        received, decoded = self._ask(request, lambda body: decode_categories(body, marketplace))
        return CategoryAnswer(
            operation=request.endpoint,
            marketplace=marketplace,
            asin_count=0,
            tokens=self._accepted(received, decoded.envelope, has_payload=decoded.has_payload, must_have_payload=must_have_payload),
            status_code=200,
            elapsed_seconds=received.elapsed_seconds,
            body=received.body,
            categories=decoded.categories,
            unreadable=decoded.unreadable,
            notice=self._quoted(decoded.envelope),
        )

    def _ask(self, request: Request, decode: Callable[[bytes], D]) -> "tuple[_Received, D]":
        received = self._send(request)
        try:
            return received, decode(received.body)
        except NotAnAnswer as error:
            raise received.failed(
                AnswerUnreadable, f"Keepa's answer cannot be read: {error}", tokens=_tokens_in(received.body), may_have_cost=True
            ) from error

    def _accepted(self, received: "_Received", envelope: Envelope, *, has_payload: bool, must_have_payload: bool = False) -> TokenStatus:
        """What a 200 says of the bucket; an `error` beside a payload is the caller's to see, without one it is raised."""
        tokens, quoted = envelope.tokens, self._quoted(envelope)
        if envelope.is_all_zero:
            raise received.failed(KeyRejected, _no_key(quoted))
        if tokens is None:
            raise received.failed(AnswerUnreadable, "Keepa's answer says nothing of the token bucket", may_have_cost=True)
        if has_payload:
            return tokens
        if quoted:
            raise received.failed(RequestRejected, f"Keepa refused the request: {quoted}", tokens=tokens)
        if tokens.tokens_left <= 0 and tokens.tokens_consumed == 0:
            raise received.failed(OutOfTokens, _no_tokens(tokens), tokens=tokens)
        if must_have_payload:
            raise received.failed(AnswerUnreadable, "Keepa's answer holds nothing of what was asked", tokens=tokens)
        return tokens

    def _send(self, request: Request) -> "_Received":
        """One exchange, of which only a 200 comes back."""
        received, failure = self._exchange(request)
        # Raised out here, so that nothing of httpx hangs on the exception.
        if failure is not None:
            raise received.failed(failure.kind, failure.message, may_have_cost=failure.may_have_cost)
        status_code = received.status_code or 0
        if status_code == 200:
            return received
        envelope = _envelope_in(received.body)
        tokens, quoted = (envelope.tokens, self._quoted(envelope)) if envelope else (None, None)
        said = f"Keepa answered {status_code}" + (f": {quoted}" if quoted else "")
        if status_code == 429:
            raise received.failed(OutOfTokens, _no_tokens(tokens), tokens=tokens)
        if status_code == 402:
            raise received.failed(PaymentRequired, f"{said}; the key has no paid access to the API")
        if status_code in (401, 403) or (status_code < 500 and envelope is not None and envelope.is_all_zero and quoted):
            raise received.failed(KeyRejected, _no_key(quoted))
        if status_code >= 500:
            raise received.failed(ServerDown, said, tokens=tokens, may_have_cost=True)
        if status_code >= 400:
            raise received.failed(RequestRejected, said, tokens=tokens)
        raise received.failed(AnswerUnreadable, f"{said}, which is no answer of Keepa's")

    def _exchange(self, request: Request) -> "tuple[_Received, _Failure | None]":
        """Sends, and reads the whole body within its limits. Everything of httpx stays in here."""
        begun = time.perf_counter()
        status_code: int | None = None
        chunks: list[bytes] = []
        failure: _Failure | None = None
        try:
            with self._http.stream(
                "GET" if request.body is None else "POST",
                request.endpoint,
                params=request.parameters,
                content=request.body,
                headers={} if request.body is None else {"Content-Type": "application/json"},
                timeout=self._timeout(request),
            ) as response:
                status_code = response.status_code
                size = 0
                for chunk in response.iter_bytes():
                    chunks.append(chunk)
                    size += len(chunk)
                    if size > self._max_answer_bytes:
                        failure = _Failure(AnswerUnreadable, f"the answer is larger than {self._max_answer_bytes} bytes", True)
                        break
                    if time.perf_counter() - begun > self._total_timeout_seconds:
                        failure = _Failure(ServerDown, f"the answer took longer than {self._total_timeout_seconds:g} s", True)
                        break
        except httpx.DecodingError:
            failure = _Failure(AnswerUnreadable, "the answer's compression is broken", True)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
            failure = _Failure(ServerDown, f"no connection to {self._base_url}: {self._described(error)}", False)
        except httpx.TimeoutException as error:
            failure = _Failure(ServerDown, f"no answer in time: {self._described(error)}", True)
        except httpx.TransportError as error:
            if status_code is None:
                failure = _Failure(ServerDown, f"the connection broke: {self._described(error)}", True)
            else:
                failure = _Failure(AnswerUnreadable, f"the answer was cut off: {self._described(error)}", True)
        received = _Received(request, status_code, b"".join(chunks), time.perf_counter() - begun)
        return received, failure

    def _timeout(self, request: Request) -> httpx.Timeout:
        read = self._offers_read_timeout_seconds if request.is_slow else self._read_timeout_seconds
        return httpx.Timeout(read, connect=self._connect_timeout_seconds, pool=self._offers_read_timeout_seconds)

    def _described(self, error: httpx.TransportError) -> str:
        return self._key.redact(f"{type(error).__name__} {error}".strip())[:_LONGEST_QUOTE]

    def _quoted(self, envelope: Envelope) -> str | None:
        return self._key.redact(envelope.error)[:_LONGEST_QUOTE] if envelope.error else None


class _KeyAppendingTransport(httpx.BaseTransport):
    """Adds the key on the wire only, so that no request, response, exception or log line of httpx's client ever holds it."""

    def __init__(self, transport: httpx.BaseTransport, key: ApiKey) -> None:
        self._transport = transport
        self._key = key

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._transport.handle_request(
            httpx.Request(
                request.method,
                request.url.copy_merge_params({"key": self._key.reveal()}),
                headers=request.headers,
                stream=request.stream,
                extensions=request.extensions,
            )
        )

    def close(self) -> None:
        self._transport.close()


@dataclass(frozen=True, slots=True)
class _Failure:
    kind: type[KeepaError]
    message: str
    may_have_cost: bool


@dataclass(frozen=True, slots=True)
class _Received:
    request: Request
    status_code: int | None
    body: bytes = field(repr=False)
    elapsed_seconds: float

    def failed(self, kind: type[KeepaError], message: str, *, tokens: TokenStatus | None = None, may_have_cost: bool = False) -> KeepaError:
        return kind(
            message,
            endpoint=self.request.endpoint,
            marketplace=self.request.marketplace,
            asin_count=self.request.asin_count,
            status_code=self.status_code,
            tokens=tokens,
            elapsed_seconds=self.elapsed_seconds,
            may_have_cost=may_have_cost and tokens is None,
        )


def _envelope_in(body: bytes) -> Envelope | None:
    try:
        return decode_envelope(body)
    except NotAnAnswer:
        return None


def _tokens_in(body: bytes) -> TokenStatus | None:
    envelope = _envelope_in(body)
    return envelope.tokens if envelope else None


def _no_key(quoted: str | None) -> str:
    return f"Keepa does not accept the API key{f' ({quoted})' if quoted else ''}; check KEEPER_KEEPA_API_KEY"


def _no_tokens(tokens: TokenStatus | None) -> str:
    if tokens is None:
        return "Keepa's token bucket is empty"
    return f"Keepa's token bucket is empty ({tokens.tokens_left} left); the next refill is in {tokens.refill_in_seconds:g} s"


def _checked_base_url(base_url: str) -> str:
    url = httpx.URL(base_url)
    if url.scheme not in ("http", "https") or not url.host or url.query or url.userinfo:
        raise RequestInvalid("Keepa's address must be http(s)://host[:port][/path], without user, password or query")
    return str(url).rstrip("/")


def _check_privacy(base_url: str) -> None:
    url = httpx.URL(base_url)
    if url.scheme == "http" and url.host not in ("localhost", "::1") and not url.host.startswith("127."):
        raise RequestInvalid("Keepa's address must be https, because the key is in every request; plain http is for this machine only")


def _system_proxy(base_url: str) -> str | None:
    """The proxy of the environment for https. Over plain http a proxy would read the key, so there is none."""
    url = httpx.URL(base_url)
    if url.scheme != "https" or urllib.request.proxy_bypass(url.host):
        return None
    return urllib.request.getproxies().get("https")
