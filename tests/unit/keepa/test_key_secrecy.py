"""Claims about the API key: whatever fails, and however loud the logs are, it does not come out."""

import json
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from urllib.parse import quote

import httpx
import pytest

from keeper.domain.deal import DealQuery
from keeper.domain.marketplace import Marketplace
from keeper.keepa.client import KeepaClient
from keeper.keepa.errors import KeepaError
from keeper.keepa.key import ApiKey
from keeper.keepa.requests import FinderQuery

# With characters that look different in a URL.
KEY = "s3cr3t/K+y" * 6 + "=end"
SHAPES = (KEY, quote(KEY, safe=""), quote(KEY), KEY[:20], quote(KEY, safe="")[:20])
TOKENS = {"timestamp": 1_780_000_000_000, "tokensLeft": 5, "refillIn": 1, "refillRate": 20, "tokensConsumed": 0}

Handler = Callable[[httpx.Request], httpx.Response]


def echo(status: int) -> Handler:
    """A server that says the key in every place it can."""

    def handler(request: httpx.Request) -> httpx.Response:
        error = {"type": str(request.url), "message": KEY, "details": quote(KEY, safe="")}
        headers = {"Location": str(request.url), "X-Echo": quote(KEY, safe="")}
        return httpx.Response(status, headers=headers, content=json.dumps(TOKENS | {"error": error}).encode())

    return handler


def raising(kind: type[httpx.TransportError]) -> Handler:
    def handler(request: httpx.Request) -> httpx.Response:
        raise kind(f"could not reach {request.url}", request=request)

    return handler


def cutting(request: httpx.Request) -> httpx.Response:
    def chunks() -> Iterator[bytes]:
        yield b"{"
        raise httpx.ReadError(f"lost {request.url}", request=request)

    return httpx.Response(200, content=chunks())


def breaking_gzip(_request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(KEY.encode()))


def no_json(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=f"<html>{request.url}{KEY}".encode())


ASKS = [
    pytest.param(lambda client: client.fetch_products(["B0CPV5YY7K"], Marketplace.DE), id="products"),
    pytest.param(lambda client: client.fetch_deals(DealQuery("any", Marketplace.DE), 0), id="deals"),
    pytest.param(lambda client: client.find_asins(FinderQuery(Marketplace.DE, words=("toaster",))), id="finder"),
    pytest.param(lambda client: client.fetch_categories(Marketplace.DE), id="categories"),
]
FAILURES = [
    *(pytest.param(echo(status), id=str(status)) for status in (200, 302, 400, 401, 402, 404, 405, 429, 500, 503)),
    *(
        pytest.param(raising(kind), id=kind.__name__)
        for kind in (
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.ReadTimeout,
            httpx.PoolTimeout,
            httpx.RemoteProtocolError,
            httpx.ProxyError,
        )
    ),
    pytest.param(cutting, id="cut off"),
    pytest.param(breaking_gzip, id="broken gzip"),
    pytest.param(no_json, id="no JSON"),
]


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def frames_of(error: BaseException) -> str:
    """The names and values a traceback viewer would show, beyond the frame of this test."""
    shown = []
    frame = error.__traceback__.tb_next if error.__traceback__ else None
    while frame is not None:
        shown.append(repr(frame.tb_frame.f_locals))
        frame = frame.tb_next
    return "\n".join(shown)


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("handler", FAILURES)
def test_no_failure_shows_the_key(handler: Handler, ask: Callable[[KeepaClient], object], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with (
        KeepaClient(KEY, base_url="http://keepa.test", transport=httpx.MockTransport(handler)) as client,
        pytest.raises(KeepaError) as caught,
    ):
        ask(client)
    error = caught.value
    logging.getLogger("any").error("failed", exc_info=error)
    shown = "\n".join(
        [
            caplog.text,
            *(f"{link} {link!r} {link.args}" for link in chain_of(error)),
            *traceback.format_exception(error),
            frames_of(error),
            repr(vars(error)),
            repr(error.call),
            str(pickle.dumps(error)),
            repr(client),
        ]
    )
    assert "B0CPV5YY7K" in caplog.text or "failed" in caplog.text
    assert [shape for shape in SHAPES if shape in shown] == []


def test_nothing_of_httpx_hangs_on_an_error() -> None:
    with KeepaClient(KEY, transport=httpx.MockTransport(raising(httpx.ReadTimeout))) as client, pytest.raises(KeepaError) as caught:
        client.fetch_token_status()
    assert list(chain_of(caught.value)) == [caught.value]


def test_a_good_answer_shows_no_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    body = json.dumps(TOKENS).encode()
    with KeepaClient(KEY, transport=httpx.MockTransport(lambda _request: httpx.Response(200, content=body))) as client:
        answer = client.fetch_token_status()
    shown = f"{caplog.text} {answer!r} {client!r} {vars(client)!r}"
    assert ("HTTP Request: GET" in caplog.text, [shape for shape in SHAPES if shape in shown]) == (True, [])


@pytest.mark.parametrize("name", ["httpx", "httpcore.http11", "httpcore.connection", "httpcore.proxy"])
@pytest.mark.parametrize("said", [KEY, quote(KEY, safe="")], ids=["plain", "quoted"])
def test_what_the_http_libraries_log_is_masked(name: str, said: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with KeepaClient(KEY, transport=httpx.MockTransport(echo(200))):
        logging.getLogger(name).debug("headers %r", [(b"Location", said.encode())])
    assert ("***" in caplog.text, said in caplog.text) == (True, False)


def test_a_key_cannot_be_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(ApiKey(KEY))


@pytest.mark.parametrize(
    "show", [str, repr, lambda key: f"{key}", lambda key: json.dumps([key], default=str)], ids=["str", "repr", "f", "json"]
)
def test_a_key_shows_only_its_fingerprint(show: Callable[[ApiKey], str]) -> None:
    assert KEY[:12] not in show(ApiKey(KEY))
