"""A price now: asked of Keepa, or the stored one."""

import threading
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from keeper.simulator.server import Simulator
from tests.integration.api.conftest import MakeApi, MakePerson, Person
from tests.services.waiting import wait_until

ASIN = "B00OCMRV40"


def _tell(simulator: Simulator, name: str, **body: Any) -> Any:
    answered = httpx.post(f"{simulator.url}/_simulator/{name}", json=body, timeout=10)
    answered.raise_for_status()
    return answered.json()


def _price(told: Any, price_type: str = "NEW") -> Any:
    return next(one for one in told["prices"] if one["price_type"] == price_type)


def test_a_check_asks_keepa_and_answers_with_the_price(anna: Person) -> None:
    told = anna.post("/api/v1/price/check", {"asin": ASIN}, status=200)

    assert told["is_stored"] is False and told["source"] == "simulator" and told["tokens"] >= 1
    price = _price(told)
    assert price["currency"] == "EUR" and price["price_minor"] == round(price["price"] * 100)
    assert 0 <= told["age_seconds"] < 60


def test_a_stored_price_that_is_young_enough_costs_nothing(anna: Person) -> None:
    first = anna.post("/api/v1/price/check", {"asin": ASIN}, status=200)

    again = anna.post("/api/v1/price/check", {"asin": ASIN, "max_age_seconds": 3600}, status=200)

    assert again["is_stored"] is True and again["tokens"] == 0
    assert _price(again)["price_minor"] == _price(first)["price_minor"]
    assert again["checked_at"] == first["checked_at"]


def test_a_price_seen_by_the_way_makes_the_others_no_younger(anna: Person, engine: Engine) -> None:
    anna.post("/api/v1/price/check", {"asin": ASIN}, status=200)
    with engine.begin() as connection:
        connection.execute(text("UPDATE products SET checked_at = checked_at - interval '3 days'"))

    assert anna.post("/api/v1/price/check", {"asin": ASIN, "max_age_seconds": 3600}, status=200)["is_stored"] is False


def test_a_stored_price_without_the_buy_box_does_not_stand_for_it(anna: Person) -> None:
    anna.post("/api/v1/price/check", {"asin": ASIN}, status=200)

    assert anna.post("/api/v1/price/check", {"asin": ASIN, "max_age_seconds": 3600, "buybox": True}, status=200)["is_stored"] is False


def test_a_check_is_recorded_for_everybody(anna: Person, engine: Engine) -> None:
    watch = anna.post("/api/v1/watches", {"asin": ASIN})

    anna.post("/api/v1/price/check", {"asin": ASIN}, status=200)

    seen = anna.get(f"/api/v1/watches/{watch['id']}")
    assert seen["price_minor"] and seen["last_checked_at"] and seen["title"]


def test_an_empty_budget_is_told_with_when_to_come_back(
    make_api: MakeApi, make_person: MakePerson, simulator: Simulator, engine: Engine
) -> None:
    anna = make_person(make_api(longest_check_wait_seconds=0), "anna")
    anna.post("/api/v1/price/check", {"asin": ASIN}, status=200)
    with engine.begin() as connection:
        connection.execute(text("UPDATE token_ledger SET tokens = -5"))

    answered = anna.ask("POST", "/api/v1/price/check", json={"asin": ASIN})

    assert answered.status_code == 503
    assert answered.json()["type"] == "urn:keeper:problem:tokens-unavailable"
    assert int(answered.headers["retry-after"]) >= 1
    assert anna.post("/api/v1/price/check", {"asin": ASIN, "max_age_seconds": 3600}, status=200)["is_stored"] is True


def test_a_keepa_that_is_down_is_told(anna: Person, simulator: Simulator) -> None:
    anna.post("/api/v1/price/check", {"asin": ASIN}, status=200)
    _tell(simulator, "faults", kind="503", path="/product", next=1)

    told = anna.post("/api/v1/price/check", {"asin": ASIN}, status=503)

    assert told["type"] == "urn:keeper:problem:keepa-down"
    anna.post("/api/v1/price/check", {"asin": ASIN}, status=200)


def test_slow_checks_leave_threads_for_everybody_else(make_api: MakeApi, make_person: MakePerson, simulator: Simulator) -> None:
    anna = make_person(make_api(threads=4), "anna")
    anna.post("/api/v1/price/check", {"asin": ASIN}, status=200)
    _tell(simulator, "faults", kind="slow", seconds=8, path="/product", next=2)
    answers: list[httpx.Response] = []
    # There is one place, so whichever comes second finds it taken.
    checks = [
        threading.Thread(target=lambda asin=asin: answers.append(anna.ask("POST", "/api/v1/price/check", json={"asin": asin})))
        for asin in (ASIN, "B08DG4C63H")
    ]
    for check in checks:
        check.start()
    try:
        wait_until(lambda: bool(answers), "neither check was turned away")
        assert answers[0].status_code == 503
        assert answers[0].json()["type"] == "urn:keeper:problem:places-taken"
        anna.get("/api/v1/watches")
        assert len(answers) == 1
    finally:
        for check in checks:
            check.join(60)
    assert answers[1].status_code == 200


def test_a_product_keepa_does_not_know_is_told(anna: Person) -> None:
    told = anna.post("/api/v1/price/check", {"asin": "ZZZZZZZZZZ"}, status=409)

    assert told["type"] == "urn:keeper:problem:not-checked" and "ZZZZZZZZZZ" in told["detail"]


def test_a_check_that_was_cut_short_is_told_with_what_is_known(anna: Person, engine: Engine) -> None:
    anna.post("/api/v1/price/check", {"asin": ASIN}, key="one", status=200)
    with engine.begin() as connection:
        connection.execute(text("UPDATE idempotent_requests SET status = NULL, answer = NULL"))

    told = anna.post("/api/v1/price/check", {"asin": ASIN}, key="one", status=409)

    assert told["type"] == "urn:keeper:problem:request-interrupted" and "stored is" in told["detail"] and "NEW" in told["detail"]


def test_an_alert_that_a_check_raises_is_delivered_at_once(anna: Person, engine: Engine) -> None:
    anna.post("/api/v1/channels", {"name": "dead", "url": "ntfy://127.0.0.1:9/topic"})
    anna.post("/api/v1/watches", {"asin": ASIN, "target": 10_000})

    anna.post("/api/v1/price/check", {"asin": ASIN}, status=200)

    def tried() -> bool:
        with engine.begin() as connection:
            return bool(connection.execute(text("SELECT count(*) FROM deliveries WHERE tries > 0")).scalar_one())

    wait_until(tried, "nobody tried to deliver")


def test_check_all_without_prefect_says_so(anna: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)

    assert anna.post("/api/v1/price/check-all", status=503)["type"] == "urn:keeper:problem:prefect-down"
