"""Every paid request settles its reservation, whatever it asked for."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from keeper.domain.budget import Priority
from keeper.domain.deal import DealQuery
from keeper.domain.marketplace import Marketplace
from keeper.fetch import fetch_bestsellers, fetch_categories, fetch_categories_named, fetch_deals, fetch_found
from keeper.keepa.answer import Answer
from keeper.keepa.client import KeepaClient
from keeper.keepa.errors import RequestInvalid, ServerDown
from keeper.keepa.requests import FinderQuery
from keeper.tokens import TokenSettings, learn_bucket, reserve
from tests.integration.makers import rows

TOKENS = {"timestamp": 1_780_142_239_307, "tokensLeft": 1200, "refillIn": 60_000, "refillRate": 20, "tokensConsumed": 0}
DEALS = DealQuery("any", Marketplace.DE)
FINDER = FinderQuery(Marketplace.DE, words=("toaster",))

Fetch = Callable[[Engine, KeepaClient, int], Answer]
EVERY = [
    pytest.param(lambda engine, client, paid: fetch_deals(engine, client, DEALS, 0, reservation_id=paid), "deal", id="deals"),
    pytest.param(
        lambda engine, client, paid: fetch_bestsellers(engine, client, Marketplace.DE, 7, reservation_id=paid),
        "bestsellers",
        id="bestsellers",
    ),
    pytest.param(lambda engine, client, paid: fetch_found(engine, client, FINDER, 0, reservation_id=paid), "query", id="finder"),
    pytest.param(
        lambda engine, client, paid: fetch_categories(engine, client, Marketplace.DE, [], reservation_id=paid), "category", id="categories"
    ),
    pytest.param(
        lambda engine, client, paid: fetch_categories_named(engine, client, Marketplace.DE, "toaster", reservation_id=paid),
        "search",
        id="search",
    ),
]


class Keepa(httpx.BaseTransport):
    """Has one answer for everything that costs."""

    def __init__(self) -> None:
        self.status = 200
        self.paid: dict[str, Any] = TOKENS | {
            "tokensLeft": 1193,
            "tokensConsumed": 7,
            "deals": {"dr": []},
            "asinList": [],
            "categories": {},
        }

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/token":
            return httpx.Response(200, json=TOKENS)
        return httpx.Response(self.status, json=self.paid) if self.status == 200 else httpx.Response(self.status)


@pytest.fixture
def keepa() -> Keepa:
    return Keepa()


@pytest.fixture
def client(engine: Engine, keepa: Keepa) -> Iterator[KeepaClient]:
    with KeepaClient("k" * 64, transport=keepa) as made:
        learn_bucket(engine, made)
        yield made


def reserved(engine: Engine) -> int:
    return reserve(engine, operation="any", tokens=50, priority=Priority.USER, max_wait_seconds=0, settings=TokenSettings())


def calls(engine: Engine) -> list[Any]:
    return rows(
        engine, "SELECT operation || ' ' || success || ' ' || coalesce(tokens_consumed, -1) FROM keepa_calls WHERE operation <> 'token'"
    )


@pytest.mark.parametrize(("ask", "operation"), EVERY)
def test_an_answer_settles_its_reservation(engine: Engine, client: KeepaClient, ask: Fetch, operation: str) -> None:
    answer = ask(engine, client, reserved(engine))
    assert (answer.tokens.tokens_consumed, calls(engine), rows(engine, "SELECT 1 FROM token_reservations")) == (
        7,
        [f"{operation} true 7"],
        [],
    )


@pytest.mark.parametrize(("ask", "operation"), EVERY)
def test_a_failure_settles_it_too(engine: Engine, client: KeepaClient, keepa: Keepa, ask: Fetch, operation: str) -> None:
    keepa.status = 503
    with pytest.raises(ServerDown):
        ask(engine, client, reserved(engine))
    assert (calls(engine), rows(engine, "SELECT 1 FROM token_reservations")) == ([f"{operation} false -1"], [])


def test_what_is_not_sent_gives_its_tokens_back(engine: Engine, client: KeepaClient) -> None:
    with pytest.raises(RequestInvalid):
        fetch_deals(engine, client, DEALS, 67, reservation_id=reserved(engine))
    assert (calls(engine), rows(engine, "SELECT 1 FROM token_reservations")) == ([], [])
