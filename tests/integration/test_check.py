"""A check from the request to the recorded prices, against a Keepa that answers and one that does not."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import Engine, text

from keeper.check import Checked, check_due, check_products, record_answer
from keeper.domain.budget import Priority
from keeper.domain.marketplace import Marketplace
from keeper.domain.product import Product, ProductKind
from keeper.fetch import fetch
from keeper.keepa.answer import ProductAnswer
from keeper.keepa.client import KeepaClient
from keeper.keepa.errors import RequestInvalid, ServerDown
from keeper.plan import PlannedRequest
from keeper.postgres import installation, watches
from keeper.postgres.embedded import EmbeddedServer, temporary_server
from keeper.postgres.engine import open_engine
from keeper.postgres.installation import SIMULATOR
from keeper.postgres.migrate import migrate
from keeper.postgres.prices import Change
from keeper.resources import agree_on_clock, jump_clock
from keeper.simulator.server import Simulator
from keeper.tokens import TokenSettings, TokensUnavailable, learn_bucket, reserve
from tests.integration.makers import NOW, add_user, add_watch, one, rows

SETTINGS = TokenSettings()
KEY = "k" * 64


@dataclass(slots=True)
class House:
    """A database and the Keepa it asks, on one clock."""

    engine: Engine
    simulator: Simulator
    client: KeepaClient
    asins: list[str]

    def check(self, *asins: str, buybox: bool = False, wait: float = 0.0) -> Checked:
        return check_products(self.engine, self.client, asins, Marketplace.DE, buybox=buybox, settings=SETTINGS, max_wait_seconds=wait)

    def check_due(self, batch_size: int = 100) -> Checked:
        return check_due(self.engine, self.client, settings=SETTINGS, batch_size=batch_size, requests_at_once=5)

    def fault(self, kind: str, **more: object) -> None:
        httpx.post(f"{self.simulator.url}/_simulator/faults", json={"kind": kind, "path": "/product", **more}, timeout=10)

    def watch(self, user_id: int, *asins: str, target: int | None = None) -> None:
        with self.engine.begin() as connection:
            now = installation.select_now(connection)
        for asin in asins:
            add_watch(self.engine, user_id, target, asin=asin, now=now)


@pytest.fixture
def house(engine: Engine) -> Iterator[House]:
    """A full bucket of 1200 in real time."""
    with Simulator(key=KEY) as simulator, KeepaClient(KEY, base_url=simulator.url) as client:
        with engine.begin() as connection:
            installation.claim_source(connection, SIMULATOR)
        agree_on_clock(engine, simulator.url)
        learn_bucket(engine, client)
        yield House(engine, simulator, client, simulator.keepa.catalog.asins(0, 47))


def test_a_persons_check_records_a_year_of_prices(house: House) -> None:
    done = house.check(*house.asins[:3])
    assert (done.checked, done.failures) == (3, {})
    assert one(house.engine, "SELECT count(DISTINCT asin) FROM current_prices WHERE price_type = 'NEW'") == 3
    oldest, newest = one(house.engine, "SELECT min(observed_at), max(observed_at) FROM price_history")
    assert newest - oldest > timedelta(days=180)


def test_the_same_check_again_changes_no_price(house: House) -> None:
    house.check(*house.asins[:5])
    before = rows(house.engine, "SELECT price_history::text FROM price_history ORDER BY 1")
    done = house.check(*house.asins[:5])
    assert (done.changes, rows(house.engine, "SELECT price_history::text FROM price_history ORDER BY 1")) == (0, before)


def test_a_product_named_twice_is_asked_once(house: House) -> None:
    done = house.check(house.asins[0], house.asins[0])
    assert (done.checked, one(house.engine, "SELECT max(asin_count) FROM keepa_calls")) == (1, 1)


def test_more_than_a_request_takes_is_asked_in_several(house: House) -> None:
    unknown = [f"B{number:09d}" for number in range(110)]
    done = house.check(*unknown)
    assert done.checked + len(done.failures) == 110
    assert sorted(rows(house.engine, "SELECT asin_count FROM keepa_calls WHERE operation = 'product'")) == [10, 100]


def test_what_somebody_else_checks_is_named(house: House) -> None:
    busy, free = house.asins[:2]
    with house.engine.begin() as connection:
        watches.claim_products(connection, uuid4(), [busy], "DE", lease_seconds=60)
    done = house.check(busy, free)
    assert (done.checked, done.failures) == (1, {f"{busy} DE": "another check of it is under way"})


def test_when_somebody_else_checks_all_of_it_nothing_is_paid(house: House) -> None:
    with house.engine.begin() as connection:
        watches.claim_products(connection, uuid4(), house.asins[:2], "DE", lease_seconds=60)
    done = house.check(*house.asins[:2])
    assert (done.checked, len(done.failures), done.tokens) == (0, 2, 0)
    assert rows(house.engine, "SELECT 1 FROM token_reservations") == []


def test_a_failed_check_is_raised_and_its_products_are_free_again(house: House) -> None:
    house.watch(add_user(house.engine), house.asins[0])
    house.fault("503")
    with pytest.raises(ServerDown):
        house.check(house.asins[0])
    assert rows(house.engine, "SELECT 1 FROM check_claims") + rows(house.engine, "SELECT 1 FROM token_reservations") == []
    assert "503" in one(house.engine, "SELECT last_failure FROM planned_checks")
    assert house.check(house.asins[0]).checked == 1


def test_a_check_that_cannot_be_paid_claims_nothing(house: House) -> None:
    reserve(house.engine, operation="product", tokens=1200, priority=Priority.USER, max_wait_seconds=0, settings=SETTINGS)
    with pytest.raises(TokensUnavailable):
        house.check(house.asins[0])
    assert rows(house.engine, "SELECT 1 FROM check_claims") == []


def test_due_watches_are_checked_until_none_is_left(house: House) -> None:
    house.watch(add_user(house.engine), *house.asins)
    done = house.check_due(batch_size=10)
    assert (done.checked, done.failures, done.tokens) == (47, {}, 47)
    assert house.check_due().checked == 0


def test_one_failed_request_leaves_the_others_alone(house: House) -> None:
    house.watch(add_user(house.engine), *house.asins[:40])
    house.fault("500")
    done = house.check_due(batch_size=10)
    assert (done.checked, len(done.failures)) == (30, 10)
    assert one(house.engine, "SELECT count(*) FROM planned_checks WHERE last_failure IS NOT NULL") == 10


def test_a_missing_product_is_a_failure_of_its_own(house: House) -> None:
    house.watch(add_user(house.engine), *house.asins[:5])
    house.fault("missing_asin", asin=house.asins[2])
    done = house.check_due()
    assert (done.checked, list(done.failures)) == (4, [f"{house.asins[2]} DE"])


def test_days_later_only_what_changed_is_recorded(house: House) -> None:
    house.watch(add_user(house.engine), *house.asins, target=None)
    house.check_due()
    before = one(house.engine, "SELECT count(*) FROM price_history")
    jump_clock(house.engine, house.simulator.url, seconds=3 * 86_400)
    done = house.check_due()
    after = one(house.engine, "SELECT count(*) FROM price_history")
    assert done.checked == 47
    assert 0 < done.events <= done.changes <= after - before
    changed = "SELECT count(*) FROM events WHERE kind = 'price_update'"
    assert one(house.engine, changed) == one(house.engine, "SELECT count(*) FROM price_history WHERE event_id IS NOT NULL")


def test_history_follows_keepas_own_series_whatever_the_checks(house: House) -> None:
    """Checked every day for a week or once at the end: the same step function."""
    asin, user_id = house.asins[0], add_user(house.engine)
    house.watch(user_id, asin)
    for _ in range(7):
        house.check_due()
        jump_clock(house.engine, house.simulator.url, seconds=86_400)
    house.check_due()
    answer = house.client.fetch_products([asin], Marketplace.DE, history_days=6).products[asin]
    query = """
        SELECT extract(epoch FROM observed_at)::bigint / 60, amount_minor FROM price_history
        WHERE asin = :asin AND price_type = :kind ORDER BY 1
    """
    for kind in ("NEW", "AMAZON", "USED"):
        series = next((found for name, found in answer.series.items() if name == kind), None)
        if series is None:
            continue
        wanted = list(zip(series.minutes, series.amounts, strict=True))[1:]
        changes = [point for place, point in enumerate(wanted) if place == 0 or point[1] != wanted[place - 1][1]]
        kept = rows(house.engine, query, asin=asin, kind=kind)
        assert [point for point in changes[1:] if point not in kept] == []


def request_of(reservation_id: int, *asins: str) -> PlannedRequest:
    return PlannedRequest(uuid4(), reservation_id, Marketplace.DE, asins, False, 2, len(asins))


def test_a_request_keepa_could_only_refuse_gives_its_tokens_back(house: House) -> None:
    reservation_id = reserve(house.engine, operation="product", tokens=9, priority=Priority.USER, max_wait_seconds=0, settings=SETTINGS)
    with pytest.raises(RequestInvalid):
        fetch(house.engine, house.client, request_of(reservation_id, "not an asin"))
    assert rows(house.engine, "SELECT 1 FROM token_reservations") == []


def test_a_second_try_is_paid_from_its_own_reservation(house: House) -> None:
    first, second = (
        reserve(house.engine, operation="product", tokens=9, priority=Priority.USER, max_wait_seconds=0, settings=SETTINGS)
        for _ in range(2)
    )
    fetch(house.engine, house.client, request_of(first, house.asins[0]), reservation_id=second)
    assert rows(house.engine, "SELECT id FROM token_reservations") == [first]


def test_sums_keep_the_largest_falls() -> None:
    def fall(before: int, now: int | None) -> Change:
        return Change("B000000000", "DE", "NEW", "EUR", now, before, NOW)

    done = Checked(checked=2, falls=[fall(100, 90)], tokens=2)
    done.add(Checked(checked=1, failures={"B DE": "why"}, falls=[fall(100, 50), fall(100, None)], tokens=1))
    assert [change.amount_minor for change in done.falls] == [50, 90, None]
    assert done.sentence == "checked 3, failed 1, 3 tokens"


class _ServerStopper(httpx.BaseTransport):
    """Lets a request through and stops PostgreSQL before its answer arrives."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._transport = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._transport.handle_request(request)
        if request.url.path == "/product":
            self._server.stop()
        return response

    def close(self) -> None:
        self._transport.close()


def test_a_paid_answer_outlives_a_database_that_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    with temporary_server(settings={"synchronous_commit": "on"}) as server, Simulator(key=KEY) as simulator:
        server.create_database("keeper")
        engine = open_engine(server.dsn("keeper"))
        migrate(engine, now=NOW)
        with engine.begin() as connection:
            installation.claim_source(connection, SIMULATOR)
        agree_on_clock(engine, simulator.url)
        # The wait before the second try is the time the server takes to come back.
        waits: list[float] = []

        def start_server(seconds: float) -> None:
            waits.append(seconds)
            server.start()

        sleep = SimpleNamespace(monotonic=time.monotonic, sleep=start_server)
        monkeypatch.setattr("keeper.fetch.time", sleep)
        with KeepaClient(KEY, base_url=simulator.url, transport=_ServerStopper(server)) as client:
            learn_bucket(engine, client)
            asin = simulator.keepa.catalog.asins(0, 1)[0]
            reservation_id = reserve(engine, operation="product", tokens=1, priority=Priority.USER, max_wait_seconds=0, settings=SETTINGS)
            request = PlannedRequest(uuid4(), reservation_id, Marketplace.DE, (asin,), False, 2, 1)
            answer = fetch(engine, client, request)
        calls = rows(engine, "SELECT tokens_consumed FROM keepa_calls WHERE operation = 'product'")
        left = rows(engine, "SELECT 1 FROM token_reservations")
        engine.dispose()
    assert list(answer.products) == [asin]
    assert len(waits) == 1
    assert calls == [1]
    assert left == []


def record_changed(house: House, products: dict[str, Product], **facts: object) -> tuple[ProductAnswer, Checked]:
    """Recorded as if Keepa had answered the first five products with `products` among them."""
    asins = house.asins[:5]
    answer = house.client.fetch_products(asins, Marketplace.DE)
    answer = replace(answer, products=dict(answer.products) | products, **facts)  # type: ignore[arg-type]
    return answer, record_answer(house.engine, request_of(0, *asins), answer, now=NOW)


@pytest.mark.parametrize(
    "fact",
    [
        pytest.param({"unit_count": 2**33}, id="DataError of COPY"),
        pytest.param({"title": None}, id="IntegrityError of a statement"),
    ],
)
def test_a_product_the_database_refuses_costs_only_itself(house: House, fact: dict[str, object]) -> None:
    house.watch(add_user(house.engine), *house.asins[:5])
    odd = house.asins[1]
    product = house.client.fetch_products([odd], Marketplace.DE).products[odd]
    with house.engine.begin() as connection:
        connection.execute(text("ALTER TABLE products ADD CHECK (title IS NOT NULL)"))
    _, done = record_changed(house, {odd: replace(product, **fact)})  # type: ignore[arg-type]
    why = "Keepa's answer holds a value of this product that Keeper cannot record"
    assert (done.checked, done.failures) == (4, {f"{odd} DE": why})
    assert rows(house.engine, "SELECT asin, last_failure FROM planned_checks WHERE last_failure IS NOT NULL") == [(odd, why)]
    assert rows(house.engine, "SELECT asin FROM products ORDER BY 1") == sorted({*house.asins[:5]} - {odd})


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (ProductKind.INACCESSIBLE, "Keepa cannot see this product"),
        (ProductKind.INVALID, "Keepa does not know this ASIN"),
        (ProductKind.VARIATION_PARENT, "this ASIN groups variations; watch one of them"),
    ],
)
def test_a_product_that_can_have_no_price_is_a_failure_and_due_an_interval_later(house: House, kind: ProductKind, why: str) -> None:
    house.watch(add_user(house.engine), *house.asins[:5])
    odd = house.asins[1]
    product = house.client.fetch_products([odd], Marketplace.DE).products[odd]
    _, done = record_changed(house, {odd: replace(product, kind=kind)})
    assert (done.checked, done.failures) == (4, {f"{odd} DE": why})
    query = "SELECT last_failure, next_check_at FROM planned_checks WHERE asin = :asin"
    assert one(house.engine, query, asin=odd) == (why, NOW + timedelta(hours=6))


def test_what_an_answer_loses_is_logged_once(house: House, caplog: pytest.LogCaptureFixture) -> None:
    odd = house.asins[1]
    product = house.client.fetch_products([odd], Marketplace.DE).products[odd]
    lossy = replace(product, dropped=tuple(f"field{number}: is odd" for number in range(5)))
    with caplog.at_level(logging.WARNING, "keeper.check"):
        record_changed(house, {odd: lossy}, unasked=("B000000009",), notice="slow down")
    names = "; ".join(f"{odd} field{number}: is odd" for number in range(3))
    assert [entry.getMessage() for entry in caplog.records] == [
        f"Keepa's answer on 5 products in DE: 5 values not understood ({names}; ...), 1 products nobody asked for (B000000009), "
        "a notice: slow down"
    ]


def test_an_answer_that_loses_nothing_is_not_logged(house: House, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "keeper.check"):
        record_changed(house, {})
    assert caplog.records == []
