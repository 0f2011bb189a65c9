"""Keepa's budget as everybody sees it, and what a caller may still ask."""

from datetime import datetime, timedelta
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import Engine

from keeper.domain.budget import Bucket, Priority
from keeper.domain.tokens import KeepaCall
from keeper.postgres import ledger
from keeper.postgres.installation import select_now
from keeper.simulator.server import Simulator
from tests.integration.api.conftest import ClientOf, MakeApi, MakePerson, Person
from tests.integration.makers import ASIN, add_watch, rows

TOKENS = "/api/v1/tokens"
LIMITS = "/api/v1/rate-limit"


def fill(engine: Engine, tokens: int, *, refill: int = 20) -> datetime:
    """Keepa has just said so many."""
    with engine.begin() as connection:
        at = select_now(connection)
        seen = Bucket(tokens, refill, 0.0, at, at + timedelta(minutes=1))
        ledger.update_bucket(connection, seen, said_at=at, key_fingerprint="k", unexplained_tokens=0)
    return at


def test_tokens_are_asked_for_where_nobody_has(anna: Person) -> None:
    found = anna.get(TOKENS)

    assert (found["source"], found["tokens"], found["capacity"], found["refill_per_minute"]) == ("simulator", 1200, 1200, 20)
    assert (found["forecast"]["minutes_until_full"], found["forecast"]["watches_fit"]) == (0, True)


def test_tokens_that_are_known_are_not_asked_for(anna: Person, engine: Engine) -> None:
    fill(engine, 700)

    assert (anna.get(TOKENS)["tokens"], rows(engine, "SELECT 1 FROM keepa_calls")) == (700, [])


def test_without_keepa_the_first_question_is_told_why(make_api: MakeApi, make_person: MakePerson, simulator: Simulator) -> None:
    anna = make_person(make_api(), "anna")
    simulator.close()

    answered = anna.ask("GET", TOKENS)

    assert (answered.status_code, "retry-after" in answered.headers) == (503, True)


def test_tokens_tell_who_has_reserved_and_spent(anna: Person, engine: Engine) -> None:
    at = fill(engine, 600)
    with engine.begin() as connection:
        for tokens, is_granted in ((100, True), (20, False)):
            ledger.insert_reservation(
                connection, operation="product", tokens=tokens, priority=Priority.WATCH, is_granted=is_granted, lease_seconds=600
            )
        call = KeepaCall(at, "product", 1800, 100, 20, 1000, 50, 90, "DE", True)
        ledger.insert_call(connection, uuid4(), call, now=at - timedelta(minutes=1))
        failed = KeepaCall(None, "token", None, None, None, None, 50, 0, None, False, "ServerDown: 503")
        ledger.insert_call(connection, uuid4(), failed, now=at - timedelta(hours=2))

    found = anna.get(TOKENS)

    assert found["reserved"] == [{"operation": "product", "granted": 100, "waiting": 20}]
    assert found["last_hour"] == [{"operation": "product", "calls": 1, "failed": 0, "asins": 90, "tokens": 1800}]
    assert [(one["operation"], one["tokens"], one["failed"]) for one in found["last_day"]] == [("product", 1800, 0), ("token", 0, 1)]
    assert (len(found["hours"]), sum(one["tokens"] for one in found["hours"]), sum(one["failed"] for one in found["hours"])) == (
        24,
        1800,
        1,
    )
    assert (found["forecast"]["spent_per_minute"], found["forecast"]["minutes_until_empty_as_spent"]) == (30, 50)


def test_tokens_tell_whether_the_watches_fit(anna: Person, ben: Person, engine: Engine) -> None:
    fill(engine, 600)
    for person in (anna, ben):
        for number in range(30):
            add_watch(engine, person.user_id, asin=f"B{number:09d}", interval=timedelta(minutes=1))

    found = anna.get(TOKENS)

    assert (found["watched_products"], found["forecast"]["needed_pct"], found["forecast"]["watches_fit"]) == (30, 150, False)
    assert (found["forecast"]["planned_per_minute"], found["forecast"]["minutes_until_empty_as_planned"]) == (30, 60)


def test_tokens_tell_of_others_on_the_key(anna: Person, engine: Engine, simulator: Simulator) -> None:
    anna.get(TOKENS)
    httpx.post(f"{simulator.url}/_simulator/spend", json={"tokens": 300}, timeout=10).raise_for_status()
    anna.post("/api/v1/price/check", {"asin": simulator.keepa.catalog.asins(0, 1)[0]}, status=200)

    found = anna.get(TOKENS)

    assert found["others"]["tokens"] >= 300
    assert found["others"]["last_seen_at"].endswith("Z")


# --- what a caller may still ask


def test_a_caller_sees_their_own_limit(make_api: MakeApi, make_person: MakePerson) -> None:
    url = make_api(requests_per_minute=10)
    anna, ben = make_person(url, "anna"), make_person(url, "ben")
    anna.get(LIMITS)

    mine, theirs = anna.get(LIMITS)["api"], ben.get(LIMITS)["api"]

    assert (mine["limit"], mine["remaining"], theirs["remaining"]) == (10, 8, 9)
    assert 1 <= mine["reset_seconds"] <= 61


def test_the_limit_is_that_of_the_headers(anna: Person) -> None:
    answered = anna.ask("GET", LIMITS)

    told = answered.json()["api"]
    headers = [answered.headers[f"ratelimit-{name}"] for name in ("limit", "remaining", "reset")]
    assert headers == [str(told[name]) for name in ("limit", "remaining", "reset_seconds")]


def test_keepas_limit_is_told_as_far_as_it_is_known(anna: Person, engine: Engine) -> None:
    before = anna.get(LIMITS)["keepa"]
    fill(engine, 700)
    after = anna.get(LIMITS)["keepa"]

    assert before is None
    assert {name: after[name] for name in ("source", "tokens", "capacity", "refill_per_minute")} == {
        "source": "simulator",
        "tokens": 700,
        "capacity": 1200,
        "refill_per_minute": 20,
    }
    assert 0 < after["next_refill_seconds"] <= 60


def test_without_keys_nothing_is_counted(make_api: MakeApi, make_person: MakePerson, client_of: ClientOf) -> None:
    url = make_api(auth="off")
    make_person(url, "anna")

    assert client_of(url, None).get(LIMITS).json()["api"] is None


@pytest.mark.parametrize("path", [TOKENS, LIMITS])
def test_tokens_need_a_key(anna: Person, api_url: str, client_of: ClientOf, path: str) -> None:
    assert client_of(api_url, None).get(path).status_code == 401


def test_nobodys_watches_are_told_by_the_budget(anna: Person, ben: Person, engine: Engine) -> None:
    fill(engine, 600)
    add_watch(engine, ben.user_id, asin=ASIN)

    assert ASIN not in anna.ask("GET", TOKENS).text
