"""Claims about the client: what it makes of each status and body, and what each call leaves behind."""

import json
import logging
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from keeper.domain.errors import TransientError
from keeper.domain.marketplace import Marketplace
from keeper.domain.tokens import KeepaCall
from keeper.keepa.client import KeepaClient
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

KEY = "k3y" * 21 + "Z"
ASIN = "B0CPV5YY7K"
NOW_MS = 1_780_000_000_000
TOKENS = {"timestamp": NOW_MS, "tokensLeft": 1199, "refillIn": 30_500, "refillRate": 20, "tokenFlowReduction": 0.0, "tokensConsumed": 1}
EMPTY = TOKENS | {"tokensLeft": -2, "tokensConsumed": 0}
ZERO = TOKENS | {"tokensLeft": 0, "refillIn": 0, "refillRate": 0, "tokensConsumed": 0}
REFUSED = {"error": {"type": "invalidParameter", "message": "You used an invalid parameter for this API call.", "details": ""}}
PRODUCTS = {"products": [{"asin": ASIN, "domainId": 3}]}

Handler = Callable[[httpx.Request], httpx.Response]


def client_of(handler: Handler, **options: Any) -> KeepaClient:
    return KeepaClient(KEY, transport=httpx.MockTransport(handler), **options)


def answering(status: int, body: object) -> Handler:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda _request: httpx.Response(status, content=content)


def raising(error: Exception) -> Handler:
    def handler(_request: httpx.Request) -> httpx.Response:
        raise error

    return handler


def breaking_off(error: Exception) -> Handler:
    def chunks() -> Iterator[bytes]:
        yield b'{"products": ['
        raise error

    return lambda _request: httpx.Response(200, content=chunks())


def failure_of(handler: Handler, **options: Any) -> KeepaError:
    with client_of(handler, **options) as client, pytest.raises(KeepaError) as caught:
        client.fetch_products([ASIN], Marketplace.DE, stats_days=30)
    return caught.value


def test_a_good_answer_gives_products_and_tokens() -> None:
    with client_of(answering(200, TOKENS | PRODUCTS)) as client:
        answer = client.fetch_products([ASIN, "B000000002"], Marketplace.DE)
    assert (list(answer.products), answer.missing, answer.tokens.tokens_left, answer.notice) == ([ASIN], ("B000000002",), 1199, None)


def test_each_product_keeps_keepas_own_bytes() -> None:
    with client_of(answering(200, TOKENS | PRODUCTS)) as client:
        answer = client.fetch_products([ASIN], Marketplace.DE)
    assert json.loads(answer.raw_product(ASIN)) == PRODUCTS["products"][0]


def test_an_error_beside_products_is_a_notice() -> None:
    with client_of(answering(200, TOKENS | PRODUCTS | REFUSED)) as client:
        answer = client.fetch_products([ASIN], Marketplace.DE)
    assert (list(answer.products), answer.notice) == ([ASIN], "invalidParameter: You used an invalid parameter for this API call.")


def test_an_answer_without_products_makes_all_asins_missing() -> None:
    with client_of(answering(200, TOKENS | {"tokensConsumed": 0})) as client:
        assert client.fetch_products([ASIN], Marketplace.DE).missing == (ASIN,)


def test_token_status_is_the_envelope() -> None:
    with client_of(answering(200, TOKENS | {"tokensConsumed": 0})) as client:
        answer = client.fetch_token_status()
    assert (answer.operation, answer.tokens.tokens_left, answer.tokens.refill_in_seconds) == ("token", 1199, 30.5)


def test_the_request_goes_to_the_product_path_with_key_gzip_and_no_body() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=TOKENS | PRODUCTS)

    with client_of(handler, base_url="http://127.0.0.1:9/keepa/") as client:
        client.fetch_products([ASIN], Marketplace.FR, stats_days=90)
    (request,) = seen
    assert (request.method, request.url.path, request.headers["accept-encoding"], dict(request.url.params), request.read()) == (
        "GET",
        "/keepa/product",
        "gzip",
        {"domain": "4", "asin": ASIN, "stats": "90", "history": "0", "key": KEY},
        b"",
    )


@pytest.mark.parametrize(("offers", "read"), [(None, 7.0), (20, 70.0)], ids=["plain", "offers"])
def test_requests_with_offers_wait_longer(offers: int | None, read: float) -> None:
    seen: list[dict[str, float]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["timeout"])
        return httpx.Response(200, json=TOKENS | PRODUCTS)

    with client_of(handler, connect_timeout_seconds=3.0, read_timeout_seconds=7.0, offers_read_timeout_seconds=70.0) as client:
        client.fetch_products([ASIN], Marketplace.DE, offers=offers)
    assert (seen[0]["connect"], seen[0]["read"]) == (3.0, read)


def test_a_wrong_asin_is_refused_without_a_request() -> None:
    def handler(_request: httpx.Request) -> httpx.Response:
        raise AssertionError("a request was sent")

    with client_of(handler) as client, pytest.raises(RequestInvalid):
        client.fetch_products(["nonsense"], Marketplace.DE)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        pytest.param(400, TOKENS | REFUSED, RequestRejected, id="400"),
        pytest.param(400, b"<html>", RequestRejected, id="400 without JSON"),
        pytest.param(404, b"", RequestRejected, id="404"),
        pytest.param(405, TOKENS | REFUSED, RequestRejected, id="405"),
        pytest.param(418, b"", RequestRejected, id="another 4xx"),
        pytest.param(200, TOKENS | REFUSED, RequestRejected, id="200 with an error"),
        pytest.param(400, ZERO | REFUSED, KeyRejected, id="400 with every token field 0"),
        pytest.param(200, ZERO | REFUSED, KeyRejected, id="200 with every token field 0"),
        pytest.param(401, b"", KeyRejected, id="401"),
        pytest.param(403, b"", KeyRejected, id="403"),
        pytest.param(402, TOKENS | REFUSED, PaymentRequired, id="402"),
        pytest.param(429, EMPTY, OutOfTokens, id="429"),
        pytest.param(429, EMPTY | REFUSED, OutOfTokens, id="429 with an error"),
        pytest.param(429, b"", OutOfTokens, id="429 without a body"),
        pytest.param(200, EMPTY, OutOfTokens, id="200 of an empty bucket, as seen in 2020"),
        pytest.param(500, TOKENS | REFUSED, ServerDown, id="500"),
        pytest.param(503, EMPTY, ServerDown, id="503"),
        pytest.param(502, b"<html>", ServerDown, id="another 5xx"),
        pytest.param(200, b"<html>", AnswerUnreadable, id="no JSON"),
        pytest.param(200, [], AnswerUnreadable, id="a list"),
        pytest.param(200, {}, AnswerUnreadable, id="an empty object"),
        pytest.param(200, TOKENS | {"products": {}}, AnswerUnreadable, id="products are no list"),
        pytest.param(200, PRODUCTS, AnswerUnreadable, id="no token fields"),
        pytest.param(204, b"", AnswerUnreadable, id="another 2xx"),
        pytest.param(302, b"", AnswerUnreadable, id="a redirect"),
    ],
)
def test_each_status_and_body_has_its_error(status: int, body: object, kind: type[KeepaError]) -> None:
    assert type(failure_of(answering(status, body))) is kind


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        pytest.param(raising(httpx.ConnectError("refused")), ServerDown, id="no connection"),
        pytest.param(raising(httpx.ConnectTimeout("slow")), ServerDown, id="connecting takes too long"),
        pytest.param(raising(httpx.ReadTimeout("slow")), ServerDown, id="answering takes too long"),
        pytest.param(raising(httpx.PoolTimeout("busy")), ServerDown, id="no connection came free"),
        pytest.param(raising(httpx.RemoteProtocolError("gone")), ServerDown, id="closed without an answer"),
        pytest.param(breaking_off(httpx.ReadTimeout("slow")), ServerDown, id="the body takes too long"),
        pytest.param(breaking_off(httpx.RemoteProtocolError("gone")), AnswerUnreadable, id="cut off"),
        pytest.param(breaking_off(httpx.ReadError("reset")), AnswerUnreadable, id="reset"),
        pytest.param(
            lambda _request: httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"no gzip")),
            AnswerUnreadable,
            id="broken gzip",
        ),
    ],
)
def test_each_broken_exchange_has_its_error(handler: Handler, kind: type[KeepaError]) -> None:
    assert type(failure_of(handler)) is kind


def test_an_answer_beyond_the_limit_is_not_read_to_its_end() -> None:
    read: list[int] = []

    def chunks() -> Iterator[bytes]:
        for number in range(1000):
            read.append(number)
            yield b" " * 1000

    error = failure_of(lambda _request: httpx.Response(200, content=chunks()), max_answer_bytes=10_000)
    assert (type(error), len(read) < 20) == (AnswerUnreadable, True)


def test_an_answer_that_drips_for_too_long_is_given_up() -> None:
    error = failure_of(lambda _request: httpx.Response(200, content=iter([b" "] * 1000)), total_timeout_seconds=0.0)
    assert type(error) is ServerDown


@pytest.mark.parametrize("kind", [OutOfTokens, ServerDown, AnswerUnreadable])
def test_errors_that_may_pass_are_transient(kind: type[KeepaError]) -> None:
    assert issubclass(kind, TransientError)


@pytest.mark.parametrize("kind", [RequestRejected, KeyRejected, PaymentRequired])
def test_errors_that_stay_are_not_transient(kind: type[KeepaError]) -> None:
    assert not issubclass(kind, TransientError)


def test_an_error_carries_the_facts_of_its_call() -> None:
    error = failure_of(answering(500, TOKENS | REFUSED))
    assert error.tokens is not None
    facts = (error.endpoint, error.marketplace, error.asin_count, error.status_code, error.tokens.tokens_left)
    assert (facts, error.elapsed_seconds > 0) == (("product", Marketplace.DE, 1, 500, 1199), True)


@pytest.mark.parametrize(
    ("body", "seconds"),
    [pytest.param(EMPTY, 30.5, id="as Keepa says"), pytest.param(b"", 60.0, id="a minute where it does not")],
)
def test_an_empty_bucket_says_when_it_is_refilled(body: object, seconds: float) -> None:
    error = failure_of(answering(429, body))
    assert isinstance(error, OutOfTokens)
    assert error.refill_in_seconds == seconds


@pytest.mark.parametrize("status", [200, 400])
def test_a_rejected_key_says_nothing_of_a_bucket(status: int) -> None:
    assert failure_of(answering(status, ZERO | REFUSED)).tokens is None


@pytest.mark.parametrize(
    ("handler", "may_have_cost"),
    [
        pytest.param(raising(httpx.ConnectError("refused")), False, id="never connected"),
        pytest.param(raising(httpx.ReadTimeout("slow")), True, id="no answer in time"),
        pytest.param(breaking_off(httpx.ReadError("reset")), True, id="cut off"),
        pytest.param(answering(500, b""), True, id="server error that says nothing"),
        pytest.param(answering(500, TOKENS), False, id="server error that says what it cost"),
        pytest.param(answering(429, b""), False, id="empty bucket"),
        pytest.param(answering(400, b""), False, id="refused"),
    ],
)
def test_an_error_says_whether_it_may_have_cost_tokens_unseen(handler: Handler, may_have_cost: bool) -> None:
    assert failure_of(handler).may_have_cost is may_have_cost


def test_an_error_survives_pickling_with_its_facts() -> None:
    error = failure_of(answering(429, EMPTY))
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_a_good_call_leaves_a_record() -> None:
    with client_of(answering(200, TOKENS | PRODUCTS)) as client:
        answer = client.fetch_products([ASIN], Marketplace.DE)
    assert answer.call == KeepaCall(
        timestamp=answer.tokens.at,
        operation="product",
        tokens_consumed=1,
        tokens_left=1199,
        refill_rate=20,
        refill_in=30_500,
        response_time_ms=round(answer.elapsed_seconds * 1000),
        asin_count=1,
        domain="DE",
        success=True,
    )


def test_a_failed_call_leaves_a_record() -> None:
    error = failure_of(answering(404, b""))
    assert error.call == KeepaCall(
        timestamp=None,
        operation="product",
        tokens_consumed=None,
        tokens_left=None,
        refill_rate=None,
        refill_in=None,
        response_time_ms=round(error.elapsed_seconds * 1000),
        asin_count=1,
        domain="DE",
        success=False,
        error="RequestRejected: Keepa answered 404",
    )


@pytest.mark.parametrize(
    "base_url",
    ["ftp://api.keepa.com", "api.keepa.com", "https://", "https://user:secret@api.keepa.com", "https://api.keepa.com?key=x"],
)
def test_an_address_that_cannot_be_keepas_is_refused(base_url: str) -> None:
    with pytest.raises(RequestInvalid):
        KeepaClient(KEY, base_url=base_url)


@pytest.mark.parametrize("key", ["", "with space", "line\nbreak", "ümlaut"])
def test_a_key_that_cannot_be_one_is_refused(key: str) -> None:
    with pytest.raises(RequestInvalid):
        KeepaClient(key)


@pytest.mark.parametrize(
    ("base_url", "proxied"),
    [("https://api.keepa.com", True), ("http://localhost:8080", False)],
    ids=["https goes through the proxy of the environment", "plain http would show the proxy the key"],
)
def test_the_proxy_of_the_environment_is_used_only_where_it_cannot_read_the_key(
    base_url: str, proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "https_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    given: list[str | None] = []

    def transport(*, proxy: str | None, **_options: object) -> httpx.BaseTransport:
        given.append(proxy)
        return httpx.MockTransport(answering(200, {}))

    monkeypatch.setattr(httpx, "HTTPTransport", transport)
    KeepaClient(KEY, base_url=base_url).close()
    assert [proxy is not None for proxy in given] == [proxied]


def test_closing_takes_the_clients_log_filters_along() -> None:
    before = list(logging.getLogger("httpx").filters)
    client = client_of(answering(200, {}))
    client.close()
    client.close()
    assert logging.getLogger("httpx").filters == before


def test_the_fingerprint_tells_keys_apart_and_shows_none() -> None:
    with client_of(answering(200, {})) as one, KeepaClient("other", transport=httpx.MockTransport(answering(200, {}))) as other:
        assert (one.key_fingerprint != other.key_fingerprint, len(one.key_fingerprint), KEY[:12] == one.key_fingerprint) == (
            True,
            12,
            False,
        )


@pytest.mark.parametrize("address", ["http://api.keepa.com", "http://192.0.2.1:8080"])
def test_the_key_is_not_sent_in_clear_to_another_machine(address: str) -> None:
    with pytest.raises(RequestInvalid, match="must be https"):
        KeepaClient("k" * 64, base_url=address)


def test_a_simulator_may_be_asked_in_clear_wherever_it_is() -> None:
    with KeepaClient("k" * 64, base_url="http://simulator:8100", has_secret_key=False) as client:
        assert len(client.key_fingerprint) == 12
