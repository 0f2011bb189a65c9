"""The client: what it asks, what it keeps, what it says when something is wrong."""

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from dashboard import client as module
from dashboard.client import ApiDown, ApiForeign, ApiRefused, KeeperClient, KeyRefused

KEY = "keeper_secret"
ME = {"name": "anna", "role": "user", "scope": "write"}
Answer = Callable[[httpx.Request], httpx.Response]


def client_of(answer: Answer, *, key: str | None = KEY) -> KeeperClient:
    return KeeperClient("http://127.0.0.1:8000/", key, transport=httpx.MockTransport(answer))


def fixed(body: Any, status: int = 200) -> Answer:
    return lambda _: httpx.Response(status, json=body)


def failing(error: Exception) -> Answer:
    def fail(_: httpx.Request) -> httpx.Response:
        raise error

    return fail


def test_key_is_sent_in_a_header_and_stands_in_no_address() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=ME)

    assert client_of(answer).fetch_me().name == "anna"
    assert seen[0].headers["Authorization"] == f"Bearer {KEY}"
    assert KEY not in str(seen[0].url)


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        pytest.param(failing(httpx.ConnectError("refused")), ApiDown, "Nothing answers at http://127.0.0.1:8000", id="nobody"),
        pytest.param(failing(httpx.ReadTimeout("slow")), ApiDown, "does not answer in time", id="slow"),
        pytest.param(lambda _: httpx.Response(502, text="<html>"), ApiDown, "answers with 502", id="proxy"),
        pytest.param(lambda _: httpx.Response(404, text="<html>"), ApiForeign, "not as Keeper's API does", id="another server"),
        pytest.param(lambda _: httpx.Response(200, text="<html>"), ApiForeign, "malformed", id="no JSON"),
        pytest.param(fixed({"nickname": "anna"}), ApiForeign, "name", id="another version"),
        pytest.param(fixed({"title": "Not authorised", "detail": "not known"}, 401), KeyRefused, "not known", id="key"),
        pytest.param(fixed({"title": "The database does not answer", "detail": "gone"}, 503), ApiRefused, "gone", id="database"),
    ],
)
def test_what_is_wrong_is_said_in_words_without_the_key(answer: Answer, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said) as caught:
        client_of(answer).fetch_me()

    assert type(caught.value) is kind
    assert KEY not in str(caught.value)


def test_hint_of_the_api_is_kept() -> None:
    with pytest.raises(ApiRefused) as caught:
        client_of(fixed({"title": "No such product yet", "detail": "none", "hint": "watch it"}, 404)).fetch_product("B07W6JG6Z7")

    assert (caught.value.status, caught.value.title, caught.value.hint) == (404, "No such product yet", "watch it")


class Counted:
    """Answers stats, and counts how often."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked += request.method == "GET"
        return httpx.Response(200 if request.method == "GET" else 204, json={"products": self.asked} if request.method == "GET" else None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_answers_are_kept_for_a_minute(clock: list[float]) -> None:
    client = client_of(counted := Counted())
    client.fetch_stats()
    clock[0] = 59.9
    client.fetch_stats()
    assert counted.asked == 1

    clock[0] = 60.0
    assert client.fetch_stats().products == 2


def test_a_change_forgets_what_was_kept(clock: list[float]) -> None:
    client = client_of(counted := Counted())
    client.fetch_stats()
    client.remove_watch(1)
    client.fetch_stats()

    assert counted.asked == 2


def test_a_fault_is_not_kept() -> None:
    answers = iter([httpx.Response(502, text=""), httpx.Response(200, json={"products": 1})])
    client = client_of(lambda _: next(answers))
    with pytest.raises(ApiDown):
        client.fetch_stats()

    assert client.fetch_stats().products == 1


def test_conditions_that_are_none_are_not_asked_for() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"opportunities": []})

    client_of(answer).fetch_opportunities(100, min_margin=0, source=["DE", "FR"], target=[], include_doubtful=None)

    assert seen[0].url.query == b"limit=100&min_margin=0&source=DE&source=FR"


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_KEPT", 3)
    client = client_of(fixed({"asin": "B07W6JG6Z7", "markets": {}}))
    for number in range(10):
        client.fetch_product(f"B00000000{number}")

    assert len(client._kept) == 3
