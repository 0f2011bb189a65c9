"""A system that is away: the answers stay clear, the process recovers by itself, and nothing that was accepted is lost."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime

import httpx
import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import OperationalError

from api.app import create_app
from api.live import Live
from keeper.postgres.embedded import EmbeddedServer, temporary_server
from keeper.postgres.engine import open_engine
from keeper.postgres.migrate import migrate
from keeper.resources import DatabaseUnreachable
from keeper.settings import Settings
from tests.integration.api.conftest import ClientOf, MakeApi, MakePerson, Person
from tests.services.api import serve
from tests.services.proxy import Proxy
from tests.services.waiting import wait_until

_OUTAGE_SECONDS = 10.0
_NOBODY = "127.0.0.1:9"


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedServer]:
    """One that listens on TCP, as a proxy needs it."""
    with temporary_server(tcp_port=0) as server:
        server.create_database("template_keeper")
        engine = open_engine(server.dsn("template_keeper"))
        migrate(engine, now=datetime.now(UTC))
        engine.dispose()
        yield server


@pytest.fixture
def proxy(postgres: EmbeddedServer) -> Iterator[Proxy]:
    """Between the API and PostgreSQL."""
    with Proxy(postgres.address().port) as between:
        yield between


@pytest.fixture
def settings(settings: Settings, proxy: Proxy) -> Settings:
    """Of an API behind the proxy."""
    assert settings.database_url is not None
    direct = make_url(settings.database_url.get_secret_value())
    behind = direct.set(port=int(proxy.address.rpartition(":")[2])).render_as_string(hide_password=False)
    return settings.model_copy(update={"database_url": SecretStr(behind)})


def _load(people: list[Person], stop: threading.Event, seen: list[tuple[str, int, str]], accepted: list[str]) -> list[threading.Thread]:
    """Two clients that list watches and two that add some, as fast as they are answered."""

    def list_them(person: Person) -> None:
        while not stop.is_set():
            answered = person.ask("GET", "/api/v1/watches?limit=10")
            seen.append(("GET", answered.status_code, answered.headers["content-type"]))

    def add_them(person: Person, first: str) -> None:
        number = 0
        while not stop.is_set():
            asin = f"{first}{number:09d}"
            answered = person.ask("POST", "/api/v1/watches", json={"asin": asin}, headers={"Idempotency-Key": asin})
            seen.append(("POST", answered.status_code, answered.headers["content-type"]))
            if answered.status_code == 201:
                accepted.append(asin)
                number += 1

    threads = [threading.Thread(target=list_them, args=(person,)) for person in people]
    threads += [threading.Thread(target=add_them, args=(person, first)) for person, first in zip(people, "AB", strict=True)]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.slow
def test_a_database_gone_for_ten_seconds_under_load_loses_nothing(
    make_api: MakeApi, make_person: MakePerson, proxy: Proxy, engine: Engine
) -> None:
    url = make_api()
    people = [make_person(url, name) for name in ("anna", "ben")]
    stop, seen, accepted = threading.Event(), list[tuple[str, int, str]](), list[str]()
    threads = _load(people, stop, seen, accepted)
    try:
        wait_until(lambda: len(accepted) > 20, "nothing was accepted before the outage")
        proxy.cut()
        gone_at, seen_before = time.monotonic(), len(seen)
        wait_until(lambda: time.monotonic() - gone_at > _OUTAGE_SECONDS, "the outage never ended", longest_seconds=60)
        during = seen[seen_before:]
        health = [httpx.get(f"{url}/health{path}", timeout=30).status_code for path in ("", "/ready")]
        proxy.restore()
        accepted_before = len(accepted)
        wait_until(lambda: len(accepted) > accepted_before + 20, "it did not recover by itself")
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)

    assert {status for _, status, _ in seen} <= {200, 201, 409, 503}
    assert all(kind == "application/problem+json" for _, status, kind in seen if status >= 400)
    assert Counter(status for _, status, _ in during)[503] > 20
    assert health == [200, 503]
    with engine.begin() as connection:
        stored = connection.execute(text("SELECT asin FROM watched_products WHERE is_active ORDER BY id")).scalars().all()
    assert len(stored) == len(set(stored))
    # One whose answer was lost is there beside those that were told.
    assert set(accepted) <= set(stored)


def test_a_database_that_says_nothing_any_more_is_told(make_api: MakeApi, make_person: MakePerson, proxy: Proxy) -> None:
    anna = make_person(make_api(statement_timeout_seconds=1), "anna")
    anna.get("/api/v1/watches")

    proxy.half_open()
    answered = anna.ask("GET", "/api/v1/watches")
    proxy.restore()

    assert answered.status_code == 503
    wait_until(lambda: anna.ask("GET", "/api/v1/watches").status_code == 200, "it did not recover by itself")


def test_the_api_starts_before_its_database(make_api: MakeApi, client_of: ClientOf, proxy: Proxy) -> None:
    proxy.cut()
    client = client_of(make_api(), None)

    assert client.get("/health").status_code == 200
    assert client.get("/health/ready").json()["type"] == "urn:keeper:problem:database-down"

    proxy.restore()
    wait_until(lambda: client.get("/health/ready").status_code == 200, "it did not see that the database came")


def test_without_kafka_and_elasticsearch_all_else_goes_on(settings: Settings, make_person: MakePerson, engine: Engine) -> None:
    away = {
        "kafka": {"bootstrap_servers": _NOBODY, "connect_timeout_seconds": 1},
        "elasticsearch": {"url": (f"http://{_NOBODY}",), "timeout_seconds": 1},
    }
    changed = {name: getattr(settings, name).model_copy(update=parts) for name, parts in away.items()}
    with serve(create_app(settings.model_copy(update=changed))) as url:
        anna = make_person(url, "anna")
        watch = anna.post("/api/v1/watches", {"asin": "B00OCMRV40", "target": 10_000})
        anna.post("/api/v1/price/check", {"asin": "B00OCMRV40"}, status=200)

        assert anna.get(f"/api/v1/watches/{watch['id']}")["price_minor"]
        assert anna.get("/api/v1/alerts")["alerts"]
        search = anna.ask("GET", "/api/v1/products/search?text=tastatur")
        assert search.status_code == 503 and search.json()["type"] == "urn:keeper:problem:search-down"
        assert int(search.headers["retry-after"]) >= 1
        told = {one["name"]: one for one in anna.get("/api/v1/status")["systems"]}
        assert told["Kafka"]["last_error"] and told["Kafka"]["last_error_at"] == told["Kafka"]["since"]
        assert told["PostgreSQL"]["last_error"] is None

    assert [one["condition"] for name, one in told.items() if name in ("Kafka", "Elasticsearch")] == ["down", "down"]
    assert [one["condition"] for name, one in told.items() if name == "PostgreSQL"] == ["up"]
    with engine.begin() as connection:
        waiting = dict(connection.execute(text("SELECT sink, count(*) FROM outbox GROUP BY sink")).tuples().all())
    assert waiting["kafka"] >= 1 and waiting["search"] >= 1


TROUBLES = {
    "a deadlock": (psycopg.errors.DeadlockDetected(), False),
    "a cancelled query": (psycopg.errors.QueryCanceled(), False),
    "a lock not had in time": (psycopg.errors.LockNotAvailable(), False),
    "a server that goes down": (psycopg.errors.AdminShutdown(), True),
    "a connection that breaks": (psycopg.OperationalError(), True),
}


@pytest.mark.parametrize("case", TROUBLES)
def test_only_what_everybody_meets_turns_the_others_away(case: str) -> None:
    trouble, is_outage = TROUBLES[case]
    live = Live(Settings())
    with pytest.raises(OperationalError), live.noting_outage():
        raise OperationalError("", {}, trouble)

    with pytest.raises(DatabaseUnreachable) if is_outage else nullcontext(), live.noting_outage():
        pass
