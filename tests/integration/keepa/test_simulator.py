"""Claims about the client against the simulator, over real HTTP: each way an answer can break, and that it says what it cost."""

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.keepa.client import KeepaClient
from keeper.keepa.errors import (
    AnswerUnreadable,
    KeepaError,
    KeyRejected,
    OutOfTokens,
    PaymentRequired,
    RequestRejected,
    ServerDown,
)
from keeper.keepa.requests import ProductOptions, cost_upper_bound
from keeper.simulator.server import Simulator

KEY = "51mulat0rK3y" * 5 + "1234"


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(refill_per_minute=20, products=60) as running:
        yield running


@pytest.fixture
def client(simulator: Simulator) -> Iterator[KeepaClient]:
    with KeepaClient(KEY, base_url=simulator.url, read_timeout_seconds=5.0) as keepa:
        yield keepa


@pytest.fixture
def asins(simulator: Simulator) -> list[str]:
    listed = simulator.keepa.control("GET", "products", {"start": "0", "count": "5"}).body["asins"]
    assert isinstance(listed, list)
    return [str(asin) for asin in listed]


def order(simulator: Simulator, kind: str, **wish: object) -> None:
    simulator.keepa.control("POST", "faults", {"kind": kind, "next": 1} | wish)


def test_products_come_with_prices_and_history(client: KeepaClient, asins: list[str]) -> None:
    answer = client.fetch_products(asins, Marketplace.DE, stats_days=90, history_days=365)
    assert (set(answer.products), answer.missing, answer.unreadable) == (set(asins), (), {})
    for product in answer.products.values():
        assert product.stats is not None
        assert (product.dropped, PriceType.NEW in product.stats.current, PriceType.NEW in product.series) == ((), True, True)


def test_an_answer_says_what_it_cost(client: KeepaClient, asins: list[str]) -> None:
    answer = client.fetch_products(asins, Marketplace.DE)
    assert (answer.tokens.tokens_consumed, answer.tokens.tokens_left, answer.tokens.refill_per_minute) == (5, 1195, 20)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(ProductOptions(stats_days=30), id="plain"),
        pytest.param(ProductOptions(stats_days=30, buybox=True, rating=True), id="buy box and rating"),
        pytest.param(ProductOptions(update_hours=0), id="asking Amazon now"),
        pytest.param(ProductOptions(offers=20), id="offers"),
    ],
)
def test_no_answer_costs_more_than_its_upper_bound(client: KeepaClient, asins: list[str], options: ProductOptions) -> None:
    answer = client.fetch_products(
        asins,
        Marketplace.IT,
        stats_days=options.stats_days,
        buybox=options.buybox,
        rating=options.rating,
        update_hours=options.update_hours,
        offers=options.offers,
    )
    assert 0 < answer.tokens.tokens_consumed <= cost_upper_bound(len(asins), options)


def test_the_token_status_is_free(client: KeepaClient) -> None:
    tokens = client.fetch_token_status().tokens
    assert (tokens.tokens_left, tokens.tokens_consumed) == (1200, 0)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("429", OutOfTokens),
        ("500", ServerDown),
        ("503", ServerDown),
        ("402", PaymentRequired),
        ("400", RequestRejected),
        ("in_body_error", RequestRejected),
        ("invalid_key", KeyRejected),
        ("cut_off", AnswerUnreadable),
        ("dropped", ServerDown),
        ("broken_gzip", AnswerUnreadable),
        ("wrong_json", AnswerUnreadable),
    ],
)
def test_each_fault_has_its_error(simulator: Simulator, client: KeepaClient, asins: list[str], fault: str, kind: type[KeepaError]) -> None:
    order(simulator, fault)
    with pytest.raises(KeepaError) as caught:
        client.fetch_products(asins, Marketplace.DE)
    assert type(caught.value) is kind


@pytest.mark.parametrize("fault", ["429", "500", "cut_off", "dropped", "broken_gzip", "wrong_json"])
def test_the_client_works_on_after_a_fault(simulator: Simulator, client: KeepaClient, asins: list[str], fault: str) -> None:
    order(simulator, fault)
    with pytest.raises(KeepaError):
        client.fetch_products(asins, Marketplace.DE)
    assert set(client.fetch_products(asins, Marketplace.DE).products) == set(asins)


def test_an_answer_slower_than_the_timeout_is_given_up(simulator: Simulator, asins: list[str]) -> None:
    order(simulator, "slow", seconds=30)
    with KeepaClient(KEY, base_url=simulator.url, read_timeout_seconds=0.2) as client, pytest.raises(ServerDown) as caught:
        client.fetch_products(asins, Marketplace.DE)
    assert (caught.value.status_code, caught.value.may_have_cost) == (None, True)


def test_an_empty_bucket_says_when_it_is_refilled(simulator: Simulator, client: KeepaClient, asins: list[str]) -> None:
    client.fetch_token_status()  # the key has a bucket from its first call on
    simulator.keepa.control("POST", "tokens", {"tokens": 0})
    with pytest.raises(OutOfTokens) as caught:
        client.fetch_products(asins, Marketplace.DE)
    assert 0 < caught.value.refill_in_seconds <= 60


def test_a_key_the_server_does_not_know_is_no_empty_bucket(asins: list[str]) -> None:
    with (
        Simulator(key="0" * 64) as other,
        KeepaClient(KEY, base_url=other.url) as client,
        pytest.raises(KeyRejected) as caught,
    ):
        client.fetch_products(asins, Marketplace.DE)
    assert caught.value.tokens is None


def test_a_product_the_answer_lacks_is_missing(simulator: Simulator, client: KeepaClient, asins: list[str]) -> None:
    order(simulator, "missing_asin", asin=asins[2])
    answer = client.fetch_products(asins, Marketplace.DE)
    assert (answer.missing, len(answer.products)) == ((asins[2],), 4)


def test_fields_nobody_knows_change_nothing(simulator: Simulator, client: KeepaClient, asins: list[str]) -> None:
    order(simulator, "extra_fields")
    answer = client.fetch_products(asins, Marketplace.DE, stats_days=30)
    assert [product.dropped for product in answer.products.values()] == [()] * 5


def test_an_asin_keepa_does_not_know_costs_the_others_nothing(client: KeepaClient, asins: list[str]) -> None:
    answer = client.fetch_products([*asins, "B000000000"], Marketplace.DE, stats_days=30)
    unknown = answer.products.get("B000000000")
    assert (set(asins) <= answer.products.keys(), unknown is None or not unknown.kind.has_prices) == (True, True)


def test_one_client_serves_many_threads(client: KeepaClient, asins: list[str]) -> None:
    together = threading.Barrier(8)

    def fetch(asin: str) -> str:
        together.wait(timeout=30)
        return next(iter(client.fetch_products([asin], Marketplace.DE).products))

    wanted = [asins[number % len(asins)] for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(fetch, wanted)) == wanted


def test_nobody_listening_is_a_server_down_that_cost_nothing(simulator: Simulator, asins: list[str]) -> None:
    url = simulator.url
    simulator.close()
    with KeepaClient(KEY, base_url=url) as client, pytest.raises(ServerDown) as caught:
        client.fetch_products(asins, Marketplace.DE)
    assert caught.value.may_have_cost is False


@pytest.mark.parametrize("fault", [None, "429", "500", "400", "invalid_key", "cut_off", "dropped", "broken_gzip", "wrong_json"])
def test_the_key_is_in_no_log_of_a_real_exchange(
    simulator: Simulator, client: KeepaClient, asins: list[str], fault: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    if fault is not None:
        order(simulator, fault)
    try:
        client.fetch_products(asins, Marketplace.DE)
    except KeepaError:
        logging.getLogger("any").exception("failed")
    assert ("httpcore" in {record.name.partition(".")[0] for record in caplog.records}, KEY in caplog.text, KEY[:16] in caplog.text) == (
        True,
        False,
        False,
    )
