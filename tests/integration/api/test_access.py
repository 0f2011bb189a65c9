"""Who may ask what."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, text

from deployments.stack import free_port
from keeper.domain.access import Scope
from tests.integration.api.conftest import ClientOf, MakeApi, MakePerson, Person, make_key_of
from tests.services.waiting import wait_until

PATHS = ("/api/v1/users/me", "/api/v1/watches", "/api/v1/channels", "/api/v1/api-keys", "/api/v1/status")


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/docs", "/openapi.json"])
def test_probes_and_documentation_need_no_key(api_url: str, client_of: ClientOf, path: str) -> None:
    assert client_of(api_url, None).get(path).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_without_a_key_nothing_is_told(api_url: str, client_of: ClientOf, path: str) -> None:
    answered = client_of(api_url, None).get(path)

    assert answered.status_code == 401
    assert answered.headers["www-authenticate"] == "Bearer"
    assert answered.json()["type"] == "urn:keeper:problem:key-refused"


def test_a_key_works_in_either_header(anna: Person, api_url: str, client_of: ClientOf) -> None:
    assert anna.get("/api/v1/users/me")["name"] == "anna"
    assert client_of(api_url, None).get("/api/v1/users/me", headers={"X-API-Key": anna.key}).json()["name"] == "anna"


@pytest.mark.parametrize("key", ["", "keeper_", "keeper_" + "a" * 43, "x" * 10_000, "keeper_ä" + "a" * 42])
def test_what_is_no_key_is_refused(api_url: str, client_of: ClientOf, key: str) -> None:
    assert client_of(api_url, None).get("/api/v1/watches", headers=[(b"X-API-Key", key.encode())]).status_code == 401


def test_a_revoked_key_is_refused_at_once(anna: Person) -> None:
    made = anna.post("/api/v1/api-keys", {"label": "short", "scope": "write"})
    headers = {"Authorization": f"Bearer {made['key']}"}
    assert anna.client.get("/api/v1/users/me", headers=headers).status_code == 200

    assert anna.ask("DELETE", f"/api/v1/api-keys/{made['id']}").status_code == 204

    assert anna.client.get("/api/v1/users/me", headers=headers).status_code == 401


def test_a_key_that_another_process_revoked_is_refused_within_moments(anna: Person, engine: Engine) -> None:
    anna.get("/api/v1/users/me")
    with engine.begin() as connection:
        connection.execute(text("UPDATE api_keys SET revoked_at = clock_timestamp()"))

    wait_until(lambda: anna.ask("GET", "/api/v1/users/me").status_code == 401, "it is still good", longest_seconds=10)


def test_an_expired_key_is_refused(anna: Person, engine: Engine) -> None:
    made = anna.post("/api/v1/api-keys", {"label": "short", "expires_in_days": 1})
    assert datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC) > timedelta(hours=23)
    with engine.begin() as connection:
        connection.execute(text("UPDATE api_keys SET expires_at = clock_timestamp() WHERE id = :id"), {"id": made["id"]})

    assert anna.client.get("/api/v1/users/me", headers={"Authorization": f"Bearer {made['key']}"}).status_code == 401


def test_a_key_is_stored_hashed_and_its_use_noted(anna: Person, engine: Engine) -> None:
    anna.get("/api/v1/users/me")

    with engine.begin() as connection:
        row = connection.execute(text("SELECT api_keys::text AS all_of_it, last_used_at FROM api_keys")).one()
    assert anna.key not in row.all_of_it and anna.key.removeprefix("keeper_") not in row.all_of_it
    assert row.last_used_at is not None


def test_a_reader_changes_nothing(anna: Person, engine: Engine, api_url: str, client_of: ClientOf) -> None:
    reader = client_of(api_url, make_key_of(engine, anna, Scope.READ))

    assert reader.get("/api/v1/watches").status_code == 200
    answered = reader.post("/api/v1/watches", json={"asin": "B00OCMRV40"})

    assert answered.status_code == 403
    assert answered.json()["type"] == "urn:keeper:problem:scope-missing"


@pytest.mark.parametrize("path", PATHS)
def test_a_token_of_a_feed_opens_nothing_else(anna: Person, engine: Engine, api_url: str, client_of: ClientOf, path: str) -> None:
    assert client_of(api_url, make_key_of(engine, anna, Scope.FEED)).get(path).status_code == 403


def test_a_key_makes_none_that_may_do_more(anna: Person) -> None:
    answered = anna.ask("POST", "/api/v1/api-keys", json={"label": "root", "scope": "admin"})

    assert answered.status_code == 403
    assert answered.json()["type"] == "urn:keeper:problem:scope-too-wide"


def test_an_admin_makes_keys_of_every_scope(api_url: str, make_person: MakePerson) -> None:
    root = make_person(api_url, "root", is_admin=True)

    for scope in Scope:
        assert root.post("/api/v1/api-keys", {"label": scope, "scope": scope})["scope"] == scope


def test_without_keys_this_machine_sees_its_only_user(make_api: MakeApi, make_person: MakePerson, client_of: ClientOf) -> None:
    url = make_api(auth="off")
    make_person(url, "anna")

    assert client_of(url, None).get("/api/v1/users/me").json()["name"] == "anna"


def test_without_keys_a_page_of_another_name_is_not_answered(make_api: MakeApi, make_person: MakePerson, client_of: ClientOf) -> None:
    url = make_api(auth="off")
    make_person(url, "anna")

    assert client_of(url, None).get("/api/v1/users/me", headers={"Host": "evil.example"}).status_code == 403


FOREIGN = {
    "a page of somebody else's": {"Origin": "https://evil.example"},
    "a form of somebody else's": {"Sec-Fetch-Site": "cross-site"},
    "a proxy": {"X-Forwarded-For": "192.0.2.7"},
    "another name": {"Host": "evil.example:8000"},
}


@pytest.mark.parametrize("case", FOREIGN)
def test_without_keys_nobody_is_answered_through_somebody_else(
    make_api: MakeApi, make_person: MakePerson, client_of: ClientOf, case: str
) -> None:
    url = make_api(auth="off")
    make_person(url, "anna")

    answered = client_of(url, None).post("/api/v1/price/check-all", headers=FOREIGN[case])

    assert answered.status_code == 403
    assert answered.json()["type"] == "urn:keeper:problem:not-loopback"


def test_without_keys_its_own_page_is_answered(make_api: MakeApi, make_person: MakePerson, client_of: ClientOf) -> None:
    url = make_api(auth="off")
    make_person(url, "anna")

    assert client_of(url, None).get("/api/v1/users/me", headers={"Origin": url, "Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_without_keys_it_listens_nowhere_else() -> None:
    environment = os.environ | {"KEEPER_API_AUTH": "off", "KEEPER_API_HOST": "0.0.0.0"}

    done = subprocess.run([sys.executable, "-m", "api"], env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    assert "KEEPER_API_AUTH=off would let everybody in who reaches 0.0.0.0" in done.stderr


def test_keys_in_a_path_are_masked_in_the_log_of_the_process(tmp_path: Path) -> None:
    key, port = "keeper_" + "a" * 43, free_port()
    environment = os.environ | {"KEEPER_API_PORT": str(port), "KEEPER_DATABASE_URL": "postgresql://keeper@127.0.0.1:9/keeper"}
    log = tmp_path / "log"
    with log.open("wb") as output:
        serving = subprocess.Popen([sys.executable, "-m", "api"], env=environment, stdout=output, stderr=output)
    try:
        wait_until(lambda: _status_of(f"http://127.0.0.1:{port}/feeds/{key}/deals.atom") == 404, "it does not serve", longest_seconds=60)
        wait_until(lambda: b"deals.atom" in log.read_bytes(), "the request is not logged")
    finally:
        serving.terminate()
        serving.wait(30)

    assert key not in log.read_text() and "/feeds/keeper_********/deals.atom" in log.read_text()


def _status_of(url: str) -> int | None:
    try:
        return httpx.get(url, timeout=10).status_code
    except httpx.HTTPError:
        return None
