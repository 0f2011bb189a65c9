"""Claims about asking for deals: what is sent, and what the client makes of each answer."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from keeper.domain.deal import DealQuery
from keeper.domain.marketplace import Marketplace
from keeper.keepa.client import KeepaClient
from keeper.keepa.errors import AnswerUnreadable, KeepaError, KeyRejected, OutOfTokens, RequestInvalid, RequestRejected, ServerDown

KEY = "k3y" * 21 + "Z"
TOKENS = {"timestamp": 1_780_142_239_307, "tokensLeft": 1195, "refillIn": 59_147, "refillRate": 20, "tokensConsumed": 5}
EMPTY = TOKENS | {"tokensLeft": -2, "tokensConsumed": 0}
ZERO = TOKENS | {"tokensLeft": 0, "refillIn": 0, "refillRate": 0, "tokensConsumed": 0}
REFUSED = {"error": {"type": "invalidParameter", "message": "You used an invalid parameter.", "details": KEY}}
ROW = {"asin": "B0CPV5YY7K", "current": [699, 699], "currentSince": [8_099_742, 8_099_742], "lastUpdate": 8_105_024}
DEALS = {"deals": {"dr": [ROW, None]}, "dealsCached": False}
QUERY = DealQuery("fallen", Marketplace.DE)

Handler = Callable[[httpx.Request], httpx.Response]


def client_of(handler: Handler) -> KeepaClient:
    return KeepaClient(KEY, transport=httpx.MockTransport(handler))


def answering(status: int, body: object) -> Handler:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda _request: httpx.Response(status, content=content)


def failure_of(handler: Handler) -> KeepaError:
    with client_of(handler) as client, pytest.raises(KeepaError) as caught:
        client.fetch_deals(QUERY, 0)
    return caught.value


def test_a_page_of_deals_is_asked_by_post_with_the_key_in_the_address_only() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=TOKENS | DEALS)

    with client_of(handler) as client:
        client.fetch_deals(QUERY, 3)
    (request,) = seen
    body = request.read()
    assert (request.method, request.url.path, dict(request.url.params), request.headers["content-type"], json.loads(body)["page"]) == (
        "POST",
        "/deal",
        {"key": KEY},
        "application/json",
        3,
    )
    assert KEY.encode() not in body


def test_a_page_of_deals_gives_sightings_tokens_and_its_call() -> None:
    with client_of(answering(200, TOKENS | DEALS)) as client:
        answer = client.fetch_deals(QUERY)
    assert ([one.amount_minor for one in answer.sightings], answer.row_count, answer.is_last, list(answer.unreadable)) == (
        [699],
        2,
        True,
        [1],
    )
    assert (answer.call.operation, answer.call.domain, answer.call.asin_count, answer.call.tokens_consumed) == ("deal", "DE", 0, 5)
    assert json.loads(answer.raw_deal("B0CPV5YY7K")) == ROW


def test_a_full_page_is_not_the_last() -> None:
    with client_of(answering(200, TOKENS | {"deals": {"dr": [None] * 150}})) as client:
        assert not client.fetch_deals(QUERY).is_last


def test_an_error_beside_deals_is_a_notice_without_the_key() -> None:
    with client_of(answering(200, TOKENS | DEALS | REFUSED)) as client:
        answer = client.fetch_deals(QUERY)
    assert answer.notice == "invalidParameter: You used an invalid parameter. (***)"
    assert KEY not in repr(answer)


@pytest.mark.parametrize(
    ("status", "body", "kind", "may_have_cost"),
    [
        pytest.param(400, TOKENS | REFUSED, RequestRejected, False, id="400"),
        pytest.param(404, b"", RequestRejected, False, id="404"),
        pytest.param(200, TOKENS | REFUSED, RequestRejected, False, id="200 with an error"),
        pytest.param(400, ZERO | REFUSED, KeyRejected, False, id="400 with every token field 0"),
        pytest.param(200, ZERO | REFUSED | DEALS, KeyRejected, False, id="200 with every token field 0"),
        pytest.param(429, EMPTY, OutOfTokens, False, id="429"),
        pytest.param(200, EMPTY, OutOfTokens, False, id="200 of an empty bucket"),
        pytest.param(500, b"", ServerDown, True, id="500"),
        pytest.param(200, b"<html>", AnswerUnreadable, True, id="no JSON"),
        pytest.param(200, DEALS, AnswerUnreadable, True, id="no token fields"),
        pytest.param(200, {"deals": []}, AnswerUnreadable, True, id="no page, no token fields"),
        pytest.param(200, TOKENS | {"deals": []}, AnswerUnreadable, False, id="no page"),
        pytest.param(200, TOKENS, AnswerUnreadable, False, id="no deals"),
    ],
)
def test_each_answer_has_its_error(status: int, body: object, kind: type[KeepaError], may_have_cost: bool) -> None:
    error = failure_of(answering(status, body))
    assert (type(error), error.may_have_cost, error.endpoint, error.marketplace) == (kind, may_have_cost, "deal", Marketplace.DE)
    assert KEY not in f"{error!r} {error.call}"


def test_an_answer_that_cannot_be_read_still_says_what_it_cost() -> None:
    error = failure_of(answering(200, TOKENS | {"deals": []}))
    assert error.tokens is not None
    assert error.tokens.tokens_consumed == 5


@pytest.mark.parametrize(
    ("query", "page"),
    [
        pytest.param({}, -1, id="a page before the first"),
        pytest.param({}, 67, id="a page beyond the last"),
        pytest.param({"fall_pct_to": 5}, 0, id="a fall too small"),
        pytest.param({"fall_pct_from": 50, "fall_pct_to": 101}, 0, id="a fall of more than all"),
    ],
)
def test_what_keepa_could_only_refuse_is_not_sent(query: dict[str, Any], page: int) -> None:
    def handler(_request: httpx.Request) -> httpx.Response:
        raise AssertionError("a request was sent")

    with client_of(handler) as client, pytest.raises(RequestInvalid):
        client.fetch_deals(DealQuery("fallen", Marketplace.DE, **query), page)
