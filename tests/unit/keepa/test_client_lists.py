"""Claims about asking for lists of ASINs and for categories: what is sent, and what the client makes of each answer."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from keeper.domain.category import Category
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.keepa.client import KeepaClient
from keeper.keepa.errors import AnswerUnreadable, KeepaError, OutOfTokens, RequestInvalid, RequestRejected
from keeper.keepa.requests import FinderQuery, finder_cost_upper_bound, finder_request

KEY = "k3y" * 21 + "Z"
TOKENS = {"timestamp": 1_780_142_239_307, "tokensLeft": 1195, "refillIn": 59_147, "refillRate": 20, "tokensConsumed": 50}
EMPTY = TOKENS | {"tokensLeft": 0, "tokensConsumed": 0}
REFUSED = {"error": {"type": "invalidParameter", "message": "You used an invalid parameter.", "details": KEY}}
ASINS = ["B000000001", "B000000002", "B000000003"]
WORDS = FinderQuery(Marketplace.DE, words=("toaster",))

Ask = Callable[[KeepaClient], Any]
BESTSELLERS: Ask = lambda client: client.fetch_bestsellers(Marketplace.DE, 562066)  # noqa: E731
FIND: Ask = lambda client: client.find_asins(WORDS)  # noqa: E731
SEARCH: Ask = lambda client: client.search_products(Marketplace.DE, "toaster")  # noqa: E731
CATEGORIES: Ask = lambda client: client.fetch_categories(Marketplace.DE, [562066])  # noqa: E731
NAMED: Ask = lambda client: client.search_categories(Marketplace.DE, "küche haushalt")  # noqa: E731
EVERY = [
    pytest.param(BESTSELLERS, id="bestsellers"),
    pytest.param(FIND, id="finder"),
    pytest.param(SEARCH, id="search"),
    pytest.param(CATEGORIES, id="categories"),
    pytest.param(NAMED, id="search for categories"),
]


def answer_to(ask: Ask, body: object, status: int = 200) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with KeepaClient(KEY, transport=httpx.MockTransport(lambda _request: httpx.Response(status, content=content))) as client:
        return ask(client)


def request_of(ask: Ask) -> httpx.Request:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        request.read()
        seen.append(request)
        return httpx.Response(200, json=TOKENS | {"asinList": [], "categories": {}})

    with KeepaClient(KEY, transport=httpx.MockTransport(handler)) as client:
        ask(client)
    return seen[0]


@pytest.mark.parametrize(
    ("ask", "path", "parameters"),
    [
        pytest.param(BESTSELLERS, "/bestsellers", {"domain": "3", "category": "562066"}, id="bestsellers"),
        pytest.param(FIND, "/query", {"domain": "3"}, id="finder"),
        pytest.param(SEARCH, "/search", {"domain": "3", "type": "product", "term": "toaster", "asins-only": "1"}, id="search"),
        pytest.param(CATEGORIES, "/category", {"domain": "3", "category": "562066", "parents": "0"}, id="categories"),
        pytest.param(
            lambda client: client.fetch_categories(Marketplace.FR),
            "/category",
            {"domain": "4", "category": "0", "parents": "0"},
            id="every root",
        ),
        pytest.param(NAMED, "/search", {"domain": "3", "type": "category", "term": "küche haushalt"}, id="search for categories"),
    ],
)
def test_each_question_has_its_path_and_parameters(ask: Ask, path: str, parameters: dict[str, str]) -> None:
    request = request_of(ask)
    assert (request.url.path, dict(request.url.params)) == (path, parameters | {"key": KEY})


def test_the_finder_is_asked_for_what_was_wished() -> None:
    query = FinderQuery(
        Marketplace.DE,
        root_category_id=562066,
        categories=(7, 8),
        words=("mechanische tastatur", "TKL"),
        brands=("Keychron",),
        price_from_minor=2000,
        price_to_minor=9000,
        rank_from=1,
        rank_to=50_000,
        rating_from_tenths=40,
        reviews_from=25,
        per_page=200,
    )
    assert json.loads(finder_request(query, 1).body or b"") == {
        "rootCategory": [562066],
        "categories_include": [7, 8],
        "title": '"mechanische tastatur" TKL',
        "brand": ["Keychron"],
        "current_NEW_gte": 2000,
        "current_NEW_lte": 9000,
        "current_SALES_gte": 1,
        "current_SALES_lte": 50_000,
        "current_RATING_gte": 40,
        "current_COUNT_REVIEWS_gte": 25,
        "productType": [0],
        "sort": [["current_SALES", "asc"]],
        "page": 1,
        "perPage": 200,
    }


@pytest.mark.parametrize(("per_page", "tokens"), [(50, 11), (100, 11), (101, 12), (10_000, 110)])
def test_a_page_of_the_finder_costs_ten_and_one_a_hundred(per_page: int, tokens: int) -> None:
    assert finder_cost_upper_bound(FinderQuery(Marketplace.DE, per_page=per_page)) == tokens


@pytest.mark.parametrize(
    "fields",
    [
        {"per_page": 49},
        {"per_page": 10_001},
        {"price_from_minor": -1},
        {"price_from_minor": 5, "price_to_minor": 4},
        {"rank_to": 2**31},
        {"rating_from_tenths": 51},
        {"reviews_from": -1},
        {"categories": tuple(range(1, 52))},
        {"brands": ("x",) * 51},
        {"words": ('"',)},
        {"words": (" ",)},
        {"price_type": PriceType.SALES},
    ],
    ids=str,
)
def test_what_cannot_be_found_by_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(RequestInvalid):
        FinderQuery(Marketplace.DE, **fields)


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda client: client.find_asins(FinderQuery(Marketplace.DE)), id="nothing to find by"),
        pytest.param(lambda client: client.find_asins(WORDS, -1), id="a page before the first"),
        pytest.param(lambda client: client.find_asins(WORDS, 11), id="a page beyond the last"),
        pytest.param(lambda client: client.fetch_bestsellers(Marketplace.BR, 1), id="bestsellers of BR"),
        pytest.param(lambda client: client.fetch_bestsellers(Marketplace.DE, 0), id="bestsellers of nothing"),
        pytest.param(lambda client: client.fetch_bestsellers(Marketplace.DE, 2**63 - 1), id="bestsellers of the unknown"),
        pytest.param(lambda client: client.fetch_categories(Marketplace.DE, list(range(1, 12))), id="eleven categories"),
        pytest.param(lambda client: client.fetch_categories(Marketplace.DE, [1, 1]), id="a category twice"),
        pytest.param(lambda client: client.fetch_categories(Marketplace.BR), id="roots of BR"),
        pytest.param(lambda client: client.search_categories(Marketplace.DE, "ab"), id="a word too short"),
        pytest.param(lambda client: client.search_categories(Marketplace.DE, " "), id="no words"),
        pytest.param(lambda client: client.search_products(Marketplace.DE, ""), id="no term"),
    ],
)
def test_what_keepa_could_only_refuse_is_not_sent(ask: Ask) -> None:
    def handler(_request: httpx.Request) -> httpx.Response:
        raise AssertionError("a request was sent")

    with KeepaClient(KEY, transport=httpx.MockTransport(handler)) as client, pytest.raises(RequestInvalid):
        ask(client)


def test_bestsellers_are_in_keepas_order_with_the_time_of_the_list() -> None:
    listed = {"domainId": 3, "lastUpdate": 8_105_024, "categoryId": 562066, "asinList": ASINS}
    answer = answer_to(BESTSELLERS, TOKENS | {"bestSellersList": listed})
    assert (answer.asins, answer.listed_at, answer.call.operation, answer.tokens.tokens_consumed) == (
        tuple(ASINS),
        datetime(2026, 5, 30, 11, 44, tzinfo=UTC),
        "bestsellers",
        50,
    )


@pytest.mark.parametrize(
    ("body", "asins", "unreadable"),
    [
        pytest.param({"asinList": ASINS}, ASINS, 0, id="a bare list"),
        pytest.param({"bestSellersList": None}, [], 0, id="null"),
        pytest.param({}, [], 0, id="no list, as Keepa charges nothing"),
        pytest.param({"bestSellersList": {"asinList": None}}, [], 0, id="a list of nothing"),
        pytest.param({"bestSellersList": {"asinList": [*ASINS, None, 7, "x", ASINS[0]]}}, ASINS, 3, id="a list with holes"),
        pytest.param({"bestSellersList": {"asinList": ASINS, "lastUpdate": "x"}}, ASINS, 0, id="no time"),
    ],
)
def test_a_list_of_bestsellers_may_have_holes(body: dict[str, Any], asins: list[str], unreadable: int) -> None:
    answer = answer_to(BESTSELLERS, TOKENS | body)
    assert (answer.asins, answer.unreadable_count) == (tuple(asins), unreadable)


def test_the_finder_says_how_many_there_are() -> None:
    answer = answer_to(FIND, TOKENS | {"asinList": ASINS, "totalResults": 4711})
    assert (answer.asins, answer.total_count) == (tuple(ASINS), 4711)


@pytest.mark.parametrize("found", [{"totalResults": 0}, {"asinList": [], "totalResults": 0}, {"asinList": []}], ids=str)
def test_the_finder_may_find_nothing(found: dict[str, Any]) -> None:
    assert answer_to(FIND, TOKENS | found).asins == ()


def test_categories_are_values() -> None:
    kitchen = {"domainId": 3, "catId": 3167641, "name": "K&uuml;che", "parent": 0, "children": [5, 0], "productCount": 99, "topBrands": []}
    deep = {"catId": 2**63 - 2, "name": "Toaster", "parent": 3167641, "children": None, "productCount": -1}
    answer = answer_to(CATEGORIES, TOKENS | {"categories": {"3167641": kitchen, str(2**63 - 2): deep}})
    assert answer.categories == (
        Category(3167641, Marketplace.DE, "Küche", None, (5,), 99),
        Category(2**63 - 2, Marketplace.DE, "Toaster", 3167641, (), None),
    )


def test_a_category_with_holes_costs_itself_or_a_field() -> None:
    sent: dict[str, Any] = {
        "1": {"catId": 1, "name": "a", "children": "x", "productCount": {}},
        "2": None,
        "3": [],
        "4": {"catId": 4},
        "5": {"name": "e"},
    }
    answer = answer_to(CATEGORIES, TOKENS | {"categories": sent})
    assert (answer.categories, sorted(answer.unreadable)) == ((Category(1, Marketplace.DE, "a"),), ["3", "4", "5"])


def test_a_search_for_categories_may_find_nothing() -> None:
    assert answer_to(NAMED, TOKENS | {"categories": None}).categories == ()


@pytest.mark.parametrize("ask", EVERY)
@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        pytest.param(TOKENS | REFUSED, 200, RequestRejected, id="200 with an error"),
        pytest.param(TOKENS | REFUSED, 400, RequestRejected, id="400"),
        pytest.param(EMPTY, 200, OutOfTokens, id="200 of an empty bucket"),
        pytest.param(TOKENS | {"asinList": {}, "bestSellersList": 7, "categories": []}, 200, AnswerUnreadable, id="another shape"),
        pytest.param(b"[", 200, AnswerUnreadable, id="no JSON"),
    ],
)
def test_each_answer_has_its_error_and_shows_no_key(ask: Ask, body: object, status: int, kind: type[KeepaError]) -> None:
    with pytest.raises(KeepaError) as caught:
        answer_to(ask, body, status)
    assert (type(caught.value), KEY in f"{caught.value!r} {caught.value.call}") == (kind, False)


@pytest.mark.parametrize("ask", [FIND, CATEGORIES], ids=["finder", "categories"])
def test_an_answer_without_what_was_asked_still_says_what_it_cost(ask: Ask) -> None:
    with pytest.raises(AnswerUnreadable) as caught:
        answer_to(ask, TOKENS)
    assert caught.value.tokens is not None
    assert (caught.value.tokens.tokens_consumed, caught.value.may_have_cost) == (50, False)
