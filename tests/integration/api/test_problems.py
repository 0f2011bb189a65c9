"""What goes wrong is told as problem+json, with what to do, and without secrets."""

import gzip
import json
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from api.app import create_app
from keeper.settings import Settings
from tests.integration.api.conftest import ClientOf, MakeApi, MakePerson, Person
from tests.services.api import serve

SECRET = "ntfy://user:pass-w0rd@127.0.0.1:1/topic"


def problem_of(answered: httpx.Response, status: int) -> Any:
    assert answered.status_code == status, answered.text
    assert answered.headers["content-type"] == "application/problem+json"
    told = answered.json()
    assert told["status"] == status and told["type"].startswith("urn:keeper:problem:") and told["title"] and told["detail"]
    assert told["instance"] == answered.headers["x-request-id"]
    return told


BAD_WATCHES = {
    "no asin": ({}, "body.asin"),
    "an asin too short": ({"asin": "B00"}, "body.asin"),
    "a marketplace that is none": ({"asin": "B00OCMRV40", "marketplace": "XX"}, "body.marketplace"),
    "a price type that cannot be watched": ({"asin": "B00OCMRV40", "price_type": "SALES"}, "body.price_type"),
    "a target of nothing": ({"asin": "B00OCMRV40", "target": 0}, "body.target"),
    "a target finer than a cent": ({"asin": "B00OCMRV40", "target": 1.005}, "body.target"),
    "an interval too short": ({"asin": "B00OCMRV40", "interval_seconds": 1}, "body.interval_seconds"),
    "a field nobody knows": ({"asin": "B00OCMRV40", "targett": 1}, "body.targett"),
    "a list of nothing": ([], "body"),
}


@pytest.mark.parametrize("case", BAD_WATCHES)
def test_a_field_that_cannot_be_used_is_named(anna: Person, case: str) -> None:
    body, field = BAD_WATCHES[case]

    told = problem_of(anna.ask("POST", "/api/v1/watches", json=body), 422)

    assert any(one["field"].startswith(field) for one in told["errors"])


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"asin": NaN}'], ids=["empty", "cut", "bytes", "deep", "nan"])
def test_what_is_no_json_is_refused(anna: Person, body: bytes) -> None:
    answered = anna.ask("POST", "/api/v1/watches", content=body, headers={"Content-Type": "application/json"})

    assert answered.status_code in (400, 422)
    problem_of(answered, answered.status_code)


def test_a_query_parameter_nobody_reads_is_refused(anna: Person) -> None:
    told = problem_of(anna.ask("GET", "/api/v1/watches", params={"limt": 5}), 422)

    assert told["errors"][0]["field"] == "query.limt"
    assert "limit" in told["errors"][0]["message"]


@pytest.mark.parametrize("cursor", ["x", "aWQ6LTE", "aWQ6YQ", "ä", "=" * 50])
def test_a_cursor_that_is_none_is_refused(anna: Person, cursor: str) -> None:
    assert problem_of(anna.ask("GET", "/api/v1/watches", params={"cursor": cursor}), 422)["type"] == "urn:keeper:problem:cursor-invalid"


@pytest.mark.parametrize(
    "path", ["9" * 5000, "9" * 25, "0", "-1", "x"], ids=["thousands of digits", "too large", "zero", "negative", "a word"]
)
def test_an_id_that_is_none_is_no_fault_of_the_server(anna: Person, path: str) -> None:
    answered = anna.ask("GET", f"/api/v1/watches/{path}")

    assert answered.status_code in (404, 405, 422)
    problem_of(answered, answered.status_code)


@pytest.mark.parametrize("path", ["watches", "alerts", "channels", "api-keys", "products/search"])
def test_a_page_holds_up_to_a_thousand_rows(anna: Person, path: str) -> None:
    assert anna.ask("GET", f"/api/v1/{path}?limit=1000").status_code == 200
    problem_of(anna.ask("GET", f"/api/v1/{path}?limit=1001"), 422)


def test_a_path_nobody_knows_is_a_problem_too(anna: Person) -> None:
    assert problem_of(anna.ask("GET", "/api/v1/nothing"), 404)["type"] == "urn:keeper:problem:not-found"


def test_a_method_the_path_does_not_know_is_told_with_those_it_knows(anna: Person) -> None:
    answered = anna.ask("PUT", "/api/v1/users/me")

    assert problem_of(answered, 405)["type"] == "urn:keeper:problem:method-not-allowed"
    assert "GET" in answered.headers["allow"]


def test_a_large_body_is_refused_before_it_is_read(make_api: MakeApi, make_person: MakePerson) -> None:
    anna = make_person(make_api(largest_body_bytes=2000), "anna")

    told = problem_of(anna.ask("POST", "/api/v1/watches", content=b" " * 3000), 413)

    assert told["type"] == "urn:keeper:problem:body-too-large"


def test_a_large_body_of_unknown_length_is_refused(make_api: MakeApi, make_person: MakePerson) -> None:
    anna = make_person(make_api(largest_body_bytes=2000), "anna")

    told = problem_of(anna.ask("POST", "/api/v1/watches", content=(b" " * 500 for _ in range(10))), 413)

    assert told["type"] == "urn:keeper:problem:body-too-large"


@pytest.mark.parametrize("url", [SECRET, "gopher://user:pass-w0rd@example.org", "pass-w0rd", "ntfy://" + "pass-w0rd" * 400])
def test_a_channels_url_is_never_repeated(anna: Person, engine: Engine, url: str, caplog: pytest.LogCaptureFixture) -> None:
    answered = anna.ask("POST", "/api/v1/channels", json={"name": "x", "url": url})

    assert "pass-w0rd" not in answered.text + str(answered.headers) + caplog.text
    with engine.begin() as connection:
        assert "pass-w0rd" not in connection.execute(text("SELECT coalesce(json_agg(c), '[]')::text FROM channels c")).scalar_one()


def test_a_caller_may_name_the_request(anna: Person) -> None:
    assert anna.ask("GET", "/health", headers={"X-Request-ID": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert "\n" not in anna.ask("GET", "/health", headers={"X-Request-ID": "a b"}).headers["x-request-id"]


def test_answers_are_packed_for_those_who_unpack(anna: Person) -> None:
    with anna.client.stream("GET", "/openapi.json", headers={"Accept-Encoding": "gzip"}) as answered:
        packed = b"".join(answered.iter_raw())

    assert answered.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(packed))["info"]["title"] == "Keeper"


def test_a_slow_query_is_cancelled_and_told(make_api: MakeApi, make_person: MakePerson, engine: Engine) -> None:
    anna = make_person(make_api(statement_timeout_seconds=0.2), "anna")
    anna.get("/api/v1/watches")
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE watched_products IN ACCESS EXCLUSIVE MODE"))
        answered = anna.ask("GET", "/api/v1/watches")

    assert problem_of(answered, 503)["type"] == "urn:keeper:problem:slow-query"
    assert int(answered.headers["retry-after"]) >= 1
    anna.get("/api/v1/watches")


def test_a_page_of_an_allowed_origin_may_call(make_api: MakeApi, client_of: ClientOf) -> None:
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    allowed = client_of(make_api(cors_origins=("https://shop.example",)), None).options("/api/v1/watches", headers=asked)
    others = client_of(make_api(), None).options("/api/v1/watches", headers=asked)

    assert allowed.status_code == 200 and allowed.headers["access-control-allow-origin"] == "https://shop.example"
    assert "access-control-allow-origin" not in others.headers


def test_an_unmigrated_database_is_told_and_the_process_lives(
    settings: Settings, make_api: MakeApi, client_of: ClientOf, engine: Engine
) -> None:
    url = make_api()
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))

    assert client_of(url, None).get("/health").status_code == 200
    told = problem_of(client_of(url, None).get("/health/ready"), 503)

    assert told["type"] == "urn:keeper:problem:not-migrated" and "keeper migrate" in told["detail"]


def test_what_nobody_foresaw_is_told_with_its_id_and_without_its_text(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(settings)

    @app.get("/boom")
    def boom() -> None:
        raise RuntimeError("password=pass-w0rd")

    with serve(app) as url:
        answered = httpx.get(f"{url}/boom", headers={"X-Request-ID": "mine-2"}, timeout=30)

    told = problem_of(answered, 500)
    assert told["type"] == "urn:keeper:problem:unforeseen" and told["instance"] == "mine-2"
    assert "pass-w0rd" not in answered.text
    assert "mine-2" in caplog.text
