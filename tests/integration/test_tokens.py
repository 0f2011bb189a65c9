"""The token ledger against a Keepa that counts: reserve, settle, expire, learn, and notice who else spends."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import Engine, text

from keeper.domain.budget import Bucket, Priority
from keeper.domain.events import Sink
from keeper.domain.marketplace import Marketplace
from keeper.domain.tokens import KeepaCall, TokenStatus
from keeper.fetch import fetch
from keeper.keepa.answer import ProductAnswer
from keeper.keepa.client import KeepaClient
from keeper.keepa.errors import AnswerUnreadable, KeepaError, KeyRejected, OutOfTokens, ServerDown
from keeper.plan import PlannedRequest
from keeper.postgres import installation, ledger
from keeper.postgres.installation import SIMULATOR
from keeper.resources import agree_on_clock, jump_clock
from keeper.simulator.server import Simulator
from keeper.tokens import (
    TokenSettings,
    TokensUnaffordable,
    TokensUnavailable,
    ask_bucket,
    learn_bucket,
    release,
    renew,
    reserve,
    settle,
)
from tests.integration.makers import one, rows, use_sinks
from tests.services.waiting import wait_until

ROOT = Path(__file__).parents[2]
SETTINGS = TokenSettings(user_share_pct=5, lease_seconds=600)
KEY = "k" * 64


@dataclass(slots=True)
class House:
    """A ledger and the Keepa it counts for, on one clock."""

    engine: Engine
    simulator: Simulator
    client: KeepaClient
    asins: list[str]

    def reserve(self, tokens: int, priority: Priority = Priority.USER, *, wait: float = 0.0, lease: float = 600.0) -> int:
        settings = TokenSettings(SETTINGS.user_share_pct, lease)
        return reserve(self.engine, operation="product", tokens=tokens, priority=priority, max_wait_seconds=wait, settings=settings)

    def fetch(self, reservation_id: int, count: int = 1, *, buybox: bool = False) -> ProductAnswer:
        request = PlannedRequest(
            uuid4(), reservation_id, Marketplace.DE, tuple(self.asins[:count]), buybox, 2, count * (3 if buybox else 1)
        )
        return fetch(self.engine, self.client, request)

    def ask(self) -> None:
        ask_bucket(self.engine, self.client)

    def jump(self, **parts: float) -> None:
        jump_clock(self.engine, self.simulator.url, seconds=timedelta(**parts).total_seconds())

    def control(self, name: str, **body: Any) -> dict[str, Any]:
        answer = httpx.post(f"{self.simulator.url}/_simulator/{name}", json=body, timeout=10)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def statuses(self) -> dict[str, int]:
        found: dict[str, int] = httpx.get(f"{self.simulator.url}/_simulator/requests", timeout=10).json()["by_status"]
        return found

    @property
    def keepas_balance(self) -> int:
        [bucket] = self.control("speed", speed=self.simulator.keepa.clock.anchors.speed)["keys"].values()
        balance: int = bucket["tokens_left"]
        return balance

    @property
    def bucket(self) -> Bucket:
        with self.engine.begin() as connection:
            found = ledger.lock_ledger(connection).bucket
        assert found is not None
        return found

    @property
    def foreign(self) -> int:
        tokens: int = one(self.engine, "SELECT foreign_tokens FROM token_ledger")
        return tokens


def open_house(engine: Engine, simulator: Simulator, key: str) -> House:
    with engine.begin() as connection:
        installation.claim_source(connection, SIMULATOR)
    agree_on_clock(engine, simulator.url)
    client = KeepaClient(key, base_url=simulator.url)
    learn_bucket(engine, client)
    return House(engine, simulator, client, simulator.keepa.catalog.asins(0, 47))


@pytest.fixture
def house(engine: Engine) -> Iterator[House]:
    """A full bucket of 1200 in real time."""
    with Simulator(key=KEY) as simulator:
        found = open_house(engine, simulator, KEY)
        yield found
        found.client.close()


@pytest.fixture
def fast_house(engine: Engine) -> Iterator[House]:
    """A bucket that begins nearly empty, a minute in six milliseconds."""
    with Simulator(key=KEY, speed=10_000, tokens=30) as simulator:
        found = open_house(engine, simulator, KEY)
        yield found
        found.client.close()


def test_the_bucket_is_learned_from_keepa(house: House) -> None:
    assert (house.bucket.tokens, house.bucket.refill_per_minute, house.bucket.capacity) == (1200, 20, 1200)


def test_a_bucket_that_is_known_is_not_asked_again(house: House) -> None:
    learn_bucket(house.engine, house.client)
    assert len(rows(house.engine, "SELECT 1 FROM keepa_calls")) == 1


def test_what_a_request_did_not_cost_is_free_again(house: House) -> None:
    answer = house.fetch(house.reserve(100), 2)
    assert house.bucket.tokens == 1200 - answer.tokens.tokens_consumed == house.keepas_balance
    assert rows(house.engine, "SELECT * FROM token_reservations") == []


def test_reserved_tokens_are_not_given_twice(house: House) -> None:
    house.reserve(1000)
    with pytest.raises(TokensUnavailable, match="they will be there"):
        house.reserve(201)
    house.reserve(200)


def test_what_could_not_be_had_stays_not_reserved(house: House) -> None:
    house.reserve(1200)
    with pytest.raises(TokensUnavailable):
        house.reserve(1, wait=0.1)
    assert one(house.engine, "SELECT count(*) FROM token_reservations") == 1


def test_a_released_reservation_is_free_again(house: House) -> None:
    release(house.engine, house.reserve(1200))
    house.reserve(1200)


@pytest.mark.parametrize(("priority", "tokens"), [(Priority.USER, 1201), (Priority.WATCH, 1141)])
def test_more_than_the_bucket_holds_is_a_clear_error(house: House, priority: Priority, tokens: int) -> None:
    with pytest.raises(TokensUnaffordable, match=f"needs {tokens} tokens at once, the bucket holds 1200"):
        house.reserve(tokens, priority)


def test_without_a_word_from_keepa_nothing_is_reserved(engine: Engine) -> None:
    with pytest.raises(TokensUnavailable, match="not been asked"):
        reserve(engine, operation="product", tokens=1, priority=Priority.USER, max_wait_seconds=0, settings=SETTINGS)


def test_a_background_job_leaves_the_users_share(house: House) -> None:
    house.control("tokens", tokens=100)
    house.ask()
    with pytest.raises(TokensUnavailable):
        house.reserve(41, Priority.BACKGROUND)
    house.reserve(40, Priority.BACKGROUND)
    house.reserve(60, Priority.USER)


def test_a_request_that_does_not_fit_beside_those_in_flight_waits_for_them(house: House) -> None:
    """Together they cost more than the bucket ever holds, so no refill pays for it."""
    first = house.reserve(1200)
    house.jump(hours=2)
    with pytest.raises(TokensUnavailable):
        house.reserve(50, wait=0.2)
    release(house.engine, first)
    house.reserve(50)


@pytest.mark.parametrize("kind", ["dropped", "cut_off", "wrong_json", "broken_gzip"])
def test_a_request_whose_answer_is_lost_counts_as_spent_until_keepa_speaks(house: House, kind: str) -> None:
    house.control("faults", kind=kind)
    with pytest.raises((ServerDown, AnswerUnreadable)):
        house.fetch(house.reserve(100), 3)
    assert house.bucket.tokens == 1100
    house.ask()
    assert house.bucket.tokens == house.keepas_balance > 1190
    assert house.foreign == 0


@pytest.mark.parametrize(
    ("kind", "error"), [("429", OutOfTokens), ("500", ServerDown), ("503", ServerDown), ("400", KeepaError), ("in_body_error", KeepaError)]
)
def test_a_refused_request_costs_nothing_and_its_reservation_is_settled(house: House, kind: str, error: type[Exception]) -> None:
    house.control("faults", kind=kind)
    with pytest.raises(error):
        house.fetch(house.reserve(100))
    assert house.bucket.tokens == house.keepas_balance == 1200
    assert rows(house.engine, "SELECT * FROM token_reservations") == []


def test_a_request_that_found_nobody_costs_nothing(house: House) -> None:
    reservation_id = house.reserve(100)
    house.simulator.close()
    with pytest.raises(ServerDown):
        house.fetch(reservation_id)
    assert house.bucket.tokens == 1200


@pytest.mark.parametrize("kind", ["invalid_key", "402"])
def test_an_answer_about_the_key_says_nothing_of_the_bucket(house: House, kind: str) -> None:
    house.control("faults", kind=kind)
    before = house.bucket
    with pytest.raises(KeyRejected):
        house.fetch(house.reserve(10))
    assert house.bucket == before


def test_the_reservation_of_a_dead_process_is_written_off(house: House) -> None:
    house.reserve(200)
    with house.engine.begin() as connection:
        connection.execute(text("UPDATE token_reservations SET expires_at = clock_timestamp() - interval '1 second'"))
    assert house.bucket.tokens == 1000
    assert rows(house.engine, "SELECT * FROM token_reservations") == []


def test_a_dead_process_that_only_waited_costs_nothing(house: House) -> None:
    house.reserve(200)
    with house.engine.begin() as connection:
        connection.execute(text("UPDATE token_reservations SET is_granted = false, expires_at = clock_timestamp() - interval '1 second'"))
    assert house.bucket.tokens == 1200


def test_a_lease_starts_anew_while_it_is_there(house: House) -> None:
    reservation_id = house.reserve(10)
    assert renew(house.engine, reservation_id, SETTINGS)
    release(house.engine, reservation_id)
    assert not renew(house.engine, reservation_id, SETTINGS)


def test_an_answer_after_the_write_off_is_believed(house: House) -> None:
    reservation_id = house.reserve(200)
    with house.engine.begin() as connection:
        connection.execute(text("UPDATE token_reservations SET expires_at = clock_timestamp() - interval '1 second'"))
    assert house.bucket.tokens == 1000
    house.fetch(reservation_id)
    assert house.bucket.tokens == house.keepas_balance


def test_another_plan_is_learned_without_an_alarm(house: House) -> None:
    house.control("rate", refill_per_minute=5)
    house.jump(minutes=30)
    house.ask()
    assert (house.bucket.refill_per_minute, house.bucket.capacity, house.foreign) == (5, 300, 0)


def test_new_trackings_are_learned_without_an_alarm(house: House) -> None:
    empty(house)
    before = house.foreign
    house.control("rate", token_flow_reduction=15.0)
    house.jump(minutes=30)
    house.ask()
    assert (house.bucket.flow_reduction_per_minute, house.bucket.tokens, house.foreign) == (15.0, house.keepas_balance, before)


def test_another_key_forgets_the_bucket_of_the_old_one(house: House, simulator: Simulator) -> None:
    house.fetch(house.reserve(10), 5)
    with KeepaClient("o" * 64, base_url=simulator.url) as other:
        learn_bucket(house.engine, other)
        assert one(house.engine, "SELECT key_fingerprint FROM token_ledger") == other.key_fingerprint
    assert (house.bucket.tokens, house.foreign) == (1200, 0)


def test_the_refill_follows_business_time(house: House) -> None:
    house.control("tokens", tokens=0)
    house.ask()
    with pytest.raises(TokensUnavailable):
        house.reserve(100)
    house.jump(minutes=5)
    house.reserve(100)
    assert house.keepas_balance == 100


def test_a_foreign_spender_is_noticed_once(house: House) -> None:
    house.control("spend", tokens=150)
    for _ in range(3):
        house.ask()
    assert house.foreign == 150
    [told] = rows(house.engine, "SELECT payload FROM events WHERE kind = 'tokens_foreign'")
    assert told["tokens"] == 150


def test_a_foreign_spender_that_takes_little_at_a_time_is_noticed(house: House) -> None:
    for _ in range(5):
        house.fetch(house.reserve(10), 1)
        house.control("spend", tokens=10)
    house.ask()
    assert house.foreign > 20


def test_less_than_a_step_of_the_refill_is_no_spender(house: House) -> None:
    house.control("spend", tokens=20)
    house.ask()
    assert house.foreign == 0


def test_a_foreign_spender_leaves_the_ledger_right(house: House) -> None:
    house.control("spend", tokens=1100)
    house.ask()
    with pytest.raises(TokensUnavailable):
        house.reserve(101)


def test_our_own_concurrency_is_no_foreign_spender(fast_house: House) -> None:
    def work(number: int) -> None:
        for _ in range(25):
            fast_house.fetch(fast_house.reserve(12, Priority.WATCH, wait=60), 1 + number, buybox=number % 2 == 0)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert (fast_house.foreign, fast_house.statuses().get("429")) == (0, None)
    assert rows(fast_house.engine, "SELECT 1 FROM token_reservations") == []


def queue(house: House, tokens: int, priority: Priority, order: list[str], name: str) -> threading.Thread:
    """Wait for tokens in a thread and note the turn; the tokens stay taken."""
    waiting = one(house.engine, "SELECT count(*) FROM token_reservations")

    def work() -> None:
        house.reserve(tokens, priority, wait=30)
        order.append(name)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: bool(one(house.engine, "SELECT count(*) FROM token_reservations") > waiting), f"{name} does not queue")
    return thread


def empty(house: House) -> None:
    house.control("tokens", tokens=0)
    house.ask()


def test_a_user_goes_before_a_background_job_that_waits_longer(house: House) -> None:
    empty(house)
    order: list[str] = []
    job = queue(house, 40, Priority.BACKGROUND, order, "job")
    user = queue(house, 40, Priority.USER, order, "user")
    house.jump(minutes=2)
    user.join(20)
    assert order == ["user"]
    house.jump(minutes=10)
    job.join(20)
    assert order == ["user", "job"]


def test_a_dear_request_is_not_overtaken_by_cheap_ones_of_its_priority(house: House) -> None:
    empty(house)
    order: list[str] = []
    threads = [queue(house, 50, Priority.WATCH, order, "dear")]
    threads += [queue(house, 1, Priority.WATCH, order, "cheap") for _ in range(3)]
    house.jump(minutes=5)
    with pytest.raises(TokensUnavailable):
        house.reserve(1, Priority.WATCH)
    house.jump(minutes=1)
    threads[0].join(20)
    assert order == ["dear"]
    house.jump(minutes=1)
    for thread in threads:
        thread.join(20)
    assert order == ["dear", "cheap", "cheap", "cheap"]


def test_a_request_of_fifty_is_served_in_a_stream_of_ones(fast_house: House) -> None:
    done = threading.Event()

    def stream() -> None:
        while not done.is_set():
            fast_house.fetch(fast_house.reserve(1, Priority.WATCH, wait=60))

    with ThreadPoolExecutor(3) as pool:
        streams = [pool.submit(stream) for _ in range(3)]
        try:
            fast_house.fetch(fast_house.reserve(50, Priority.WATCH, wait=60), 47)
        finally:
            done.set()
        for one_ in streams:
            one_.result(60)
    assert "429" not in fast_house.statuses()


METRIC = {
    "timestamp", "operation", "tokens_consumed", "tokens_left", "refill_rate", "refill_in", "response_time_ms", "asin_count", "domain",
    "success", "error",
}  # fmt: skip


def test_a_call_leaves_its_row_and_its_event_with_the_settlement(house: House) -> None:
    use_sinks(house.engine, {Sink.SEARCH})
    house.fetch(house.reserve(10), 2)
    query = (
        "SELECT operation, marketplace, asin_count, tokens_left, refill_per_minute, success, error FROM keepa_calls WHERE asin_count > 0"
    )
    assert one(house.engine, query) == ("product", "DE", 2, house.keepas_balance, 20, True, None)
    call_id = one(house.engine, "SELECT id FROM keepa_calls WHERE asin_count > 0")
    key, payload = one(house.engine, "SELECT key, payload FROM events WHERE key = :key", key=str(call_id))
    assert set(payload) >= METRIC
    assert (payload["operation"], payload["domain"], payload["asin_count"], payload["success"]) == ("product", "DE", 2, True)
    assert payload["timestamp"].endswith("Z")
    assert rows(house.engine, "SELECT sink FROM outbox WHERE key = :key", key=key) == ["search"]


@pytest.mark.parametrize("kind", ["429", "503", "dropped", "invalid_key"])
def test_a_failed_call_leaves_its_row_and_event_too(house: House, kind: str) -> None:
    house.control("faults", kind=kind)
    with pytest.raises(KeepaError):
        house.fetch(house.reserve(10))
    call_id, error = one(house.engine, "SELECT id, error FROM keepa_calls WHERE NOT success")
    assert error
    assert one(house.engine, "SELECT payload FROM events WHERE key = :key", key=str(call_id))["success"] is False
    assert KEY not in one(house.engine, "SELECT string_agg(payload::text, '') FROM events") + error


def test_every_reservation_has_exactly_one_call(house: House) -> None:
    for number in range(3):
        house.fetch(house.reserve(10), number + 1)
    assert one(house.engine, "SELECT count(*) FROM keepa_calls WHERE operation = 'product'") == 3
    assert one(house.engine, "SELECT count(*) FROM events WHERE kind = 'keepa_call'") == 4


def said(house: House, tokens_left: int, at: datetime, *, consumed: int = 0, paid_by: int | None = None) -> None:
    """Settle an answer that says so, five seconds after it was asked for."""
    status = TokenStatus(at, tokens_left, 60.0, 20, 0.0, consumed)
    call = KeepaCall(at, "product", consumed, tokens_left, 20, 60_000, 1, 1, "DE", True)
    fingerprint = house.client.key_fingerprint
    settle(house.engine, paid_by, call, status, key_fingerprint=fingerprint, started=time.monotonic() - 5)


@pytest.mark.parametrize("skew", [timedelta(0), timedelta(hours=1), timedelta(hours=-1)], ids=["right", "ahead", "behind"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param((1140, 60, 2), (1000, 140, 3), id="in order"),
        pytest.param((1000, 140, 3), (1140, 60, 2), id="the other way round"),
        pytest.param((1140, 60, 3), (1000, 140, 2), id="with a clock read too early"),
        pytest.param((1000, 140, 2), (1140, 60, 3), id="the other way round, with a clock read too early"),
    ],
)
def test_two_requests_in_flight_together_are_both_counted(
    house: House, skew: timedelta, first: tuple[int, int, int], second: tuple[int, int, int]
) -> None:
    base = datetime.now(UTC) + skew
    paid_by = [house.reserve(first[1]), house.reserve(second[1])]
    for (left, consumed, seconds), reservation_id in zip((first, second), paid_by, strict=True):
        said(house, left, base + timedelta(seconds=seconds), consumed=consumed, paid_by=reservation_id)
    assert 800 <= house.bucket.tokens <= 1000
    said(house, 1000, base + timedelta(seconds=20))
    assert house.foreign == 0


def test_a_clock_of_keepas_that_was_set_back_is_believed_again(house: House) -> None:
    said(house, 500, datetime.now(UTC) + timedelta(days=3))
    said(house, 400, datetime.now(UTC))
    assert house.bucket.tokens == 400


def test_four_processes_never_meet_an_empty_bucket(engine: Engine, database: str) -> None:
    with Simulator(key=KEY, speed=3000, tokens=100) as simulator:
        house = open_house(engine, simulator, KEY)
        house.client.close()
        url = engine.url.render_as_string(hide_password=False)
        words = [sys.executable, "-m", "tests.integration.spender", url, simulator.url, KEY, "4"]
        workers = [subprocess.Popen([*words, str(seed)], cwd=ROOT, stdout=subprocess.PIPE, text=True) for seed in range(4)]
        said_last = [worker.communicate(timeout=120)[0] for worker in workers]
        assert [worker.returncode for worker in workers] == [0] * 4
        spent = [json.loads(line) for line in said_last]
        assert set(house.statuses()) == {"200"}
        assert house.foreign == 0
        assert all(one_["requests"] > 0 for one_ in spent)
        assert rows(engine, "SELECT * FROM token_reservations") == []
        assert one(engine, "SELECT sum(tokens_consumed) FROM keepa_calls") == sum(one_["tokens"] for one_ in spent)
