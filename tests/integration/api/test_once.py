"""A POST with an Idempotency-Key happens once."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text

from keeper.postgres import idempotency
from keeper.postgres.idempotency import KeptRequest
from tests.integration.api.conftest import Person
from tests.services.mail import MailServer

WATCH = {"asin": "B00OCMRV40", "target": 49.9}


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


def _count(engine: Engine, table: str) -> int:
    with engine.begin() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def test_the_same_request_again_is_answered_the_same_and_changes_nothing(anna: Person, engine: Engine) -> None:
    first = anna.post("/api/v1/watches", WATCH, key="one")

    again = anna.ask("POST", "/api/v1/watches", json=WATCH, headers={"Idempotency-Key": "one"})

    assert again.status_code == 201
    assert again.json() == first
    assert again.headers["idempotency-replayed"] == "true"
    assert _count(engine, "watched_products") == 1


def test_another_body_under_the_same_key_is_refused(anna: Person, engine: Engine) -> None:
    anna.post("/api/v1/watches", WATCH, key="one")

    refused = anna.post("/api/v1/watches", {"asin": "B08DG4C63H"}, key="one", status=422)

    assert refused["type"] == "urn:keeper:problem:idempotency-key-reused"
    assert _count(engine, "watched_products") == 1


def test_keys_belong_to_their_user_and_path(anna: Person, ben: Person) -> None:
    anna.post("/api/v1/watches", WATCH, key="one")

    assert ben.post("/api/v1/watches", WATCH, key="one")["asin"] == WATCH["asin"]
    assert anna.post("/api/v1/api-keys", {"label": "x"}, key="one")["label"] == "x"


def test_what_failed_may_be_sent_again_under_its_key(anna: Person) -> None:
    refused = anna.post("/api/v1/watches", {"asin": "B00OCMRV40", "marketplace": "JP", "target": 49.9}, key="one", status=422)
    assert refused["type"] == "urn:keeper:problem:amount-invalid"

    anna.post("/api/v1/watches", WATCH, key="one")


def test_a_repeated_key_is_told_without_its_secret(anna: Person, engine: Engine) -> None:
    first = anna.post("/api/v1/api-keys", {"label": "x"}, key="one")
    assert first["key"].startswith("keeper_")

    again = anna.post("/api/v1/api-keys", {"label": "x"}, key="one")

    assert again == first | {"key": None}
    with engine.begin() as connection:
        kept = connection.execute(text("SELECT answer::text FROM idempotent_requests")).scalar_one()
    assert first["key"] not in kept


def test_a_request_that_still_runs_is_told_so(anna: Person, engine: Engine) -> None:
    running = KeptRequest(anna.user_id, "POST", "/api/v1/watches", "one", b"x" * 32)
    with engine.begin() as connection:
        assert idempotency.try_lock(connection, running, until_commit=True)

        told = anna.post("/api/v1/watches", WATCH, key="one", status=409)

    assert told["type"] == "urn:keeper:problem:request-runs"
    anna.post("/api/v1/watches", WATCH, key="one")


def test_many_at_once_make_one_watch(anna: Person, engine: Engine) -> None:
    start = threading.Barrier(8)

    def send() -> int:
        start.wait(10)
        return anna.ask("POST", "/api/v1/watches", json=WATCH, headers={"Idempotency-Key": "one"}).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(future.result() for future in [pool.submit(send) for _ in range(8)])

    assert set(statuses) <= {201, 409} and 201 in statuses
    assert _count(engine, "watched_products") == 1


def test_a_message_is_sent_once(anna: Person, mail: MailServer) -> None:
    channel = anna.post("/api/v1/channels", {"name": "mail", "url": f"mailto://127.0.0.1:{mail.port}?from=a@example.org&to=b@example.org"})

    first = anna.post(f"/api/v1/channels/{channel['id']}/test", key="one", status=200)
    again = anna.post(f"/api/v1/channels/{channel['id']}/test", key="one", status=200)

    assert again == first
    assert len(mail.messages) == 1


def test_a_message_that_was_begun_and_not_finished_is_not_sent_again(anna: Person, mail: MailServer, engine: Engine) -> None:
    channel = anna.post("/api/v1/channels", {"name": "mail", "url": f"mailto://127.0.0.1:{mail.port}?from=a@example.org&to=b@example.org"})
    path = f"/api/v1/channels/{channel['id']}/test"
    anna.post(path, key="one", status=200)
    with engine.begin() as connection:
        connection.execute(text("UPDATE idempotent_requests SET status = NULL, answer = NULL"))

    told = anna.post(path, key="one", status=409)

    assert told["type"] == "urn:keeper:problem:request-interrupted"
    assert "look there" in told["detail"]
    assert len(mail.messages) == 1


def test_a_message_whose_answer_is_lost_is_not_sent_again(anna: Person, mail: MailServer) -> None:
    channel = anna.post("/api/v1/channels", {"name": "mail", "url": f"mailto://127.0.0.1:{mail.port}?from=a@example.org&to=b@example.org"})
    path = f"/api/v1/channels/{channel['id']}/test"
    mail.mode = "drop_after_data"
    assert anna.post(path, key="one", status=502)["type"] == "urn:keeper:problem:channel-unreachable"
    mail.mode = "accept"

    assert anna.post(path, key="one", status=409)["type"] == "urn:keeper:problem:request-interrupted"
    assert len(mail.messages) == 1


def test_a_message_that_was_refused_may_be_sent_again_under_its_key(anna: Person, mail: MailServer) -> None:
    channel = anna.post("/api/v1/channels", {"name": "mail", "url": f"mailto://127.0.0.1:{mail.port}?from=a@example.org&to=b@example.org"})
    path = f"/api/v1/channels/{channel['id']}/test"
    mail.mode = "refuse"
    assert anna.post(path, key="one", status=502)["type"] == "urn:keeper:problem:channel-refused"
    mail.mode = "accept"

    anna.post(path, key="one", status=200)

    assert len(mail.messages) == 1


@pytest.mark.parametrize("key", ["", "with space", "ä", "x" * 201])
def test_what_is_no_key_is_refused(anna: Person, key: str) -> None:
    answered = anna.ask("POST", "/api/v1/watches", json=WATCH, headers=[(b"Idempotency-Key", key.encode())])

    assert answered.status_code == 422
    assert answered.json()["errors"][0]["field"] == "header.Idempotency-Key"


def test_answers_are_forgotten_after_a_day(anna: Person, engine: Engine) -> None:
    for key in ("old", "new"):
        anna.post("/api/v1/api-keys", {"label": key}, key=key)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE idempotent_requests SET started_at = clock_timestamp() - interval '24 hours 1 minute' WHERE key = 'old'")
        )
        assert idempotency.delete_old(connection) == 1
        assert connection.execute(text("SELECT key FROM idempotent_requests")).scalars().all() == ["new"]
