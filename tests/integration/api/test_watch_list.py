"""Your whole list over the API: a file in, a file out, each fault by its line."""

import csv
import io
import json
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from keeper.domain.access import Scope
from tests.integration.api.conftest import ClientOf, Person, make_key_of

IMPORT, EXPORT = "/api/v1/watches/import", "/api/v1/watches/export"
ASIN, OTHER = "B00OCMRV40", "B08DG4C63H"
FILE = f"asin,marketplace,target,is_paused\n{ASIN},UK,49.90,\n{OTHER},,,true\n"


def _send(person: Person, content: str, *, form: str = "text/csv", key: str | None = None, **query: str) -> httpx.Response:
    headers = {"Content-Type": form} | ({"Idempotency-Key": key} if key else {})
    return person.ask("POST", IMPORT, content=content.encode(), headers=headers, params=query)


def _taken(person: Person, content: str, **rest: Any) -> Any:
    answered = _send(person, content, **rest)
    assert answered.status_code == 200, answered.text
    return answered.json()


def _listed(person: Person) -> list[Any]:
    watches: list[Any] = person.get("/api/v1/watches", state="all")["watches"]
    return watches


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("text/csv", FILE),
        ("text/csv; charset=utf-8", FILE.replace(",", ";").replace("49.90", "49,90")),
        ("application/json", json.dumps([{"asin": ASIN, "marketplace": "UK", "target": 49.9}, {"asin": OTHER, "is_paused": True}])),
        (
            "application/json",
            json.dumps({"watches": [{"asin": ASIN, "marketplace": "UK", "target": "49.90"}, {"asin": OTHER, "is_paused": True}]}),
        ),
    ],
    ids=["csv", "semicolons", "json", "json in an object"],
)
def test_a_file_becomes_watches(anna: Person, form: str, content: str) -> None:
    assert _taken(anna, content, form=form) == {"rows": 2, "added": 2, "updated": 0, "kept": 0, "rejected": []}
    assert [(one["asin"], one["marketplace"], one["target_minor"], one["is_paused"]) for one in _listed(anna)] == [
        (ASIN, "UK", 4990, False),
        (OTHER, "DE", None, True),
    ]


def test_rejected_rows_are_told_and_the_rest_is_written(anna: Person) -> None:
    done = _taken(anna, f"asin,target\n{ASIN},cheap\n{OTHER},5\n")

    assert done["added"] == 1
    assert done["rejected"] == [{"line": 2, "field": "target", "message": "'cheap' is not an amount; write it like 49.90"}]


def test_all_or_nothing_is_refused_with_every_line(anna: Person) -> None:
    answered = _send(anna, f"asin,target\n{ASIN},cheap\n{OTHER},5\n{OTHER},5,7\n", mode="all_or_nothing")

    assert (answered.status_code, answered.headers["content-type"]) == (422, "application/problem+json")
    assert [one["field"] for one in answered.json()["errors"]] == ["body.line2.target", "body.line4"]
    assert _listed(anna) == []


def test_all_or_nothing_takes_a_file_without_a_fault(anna: Person) -> None:
    assert _taken(anna, FILE, mode="all_or_nothing")["added"] == 2


@pytest.mark.parametrize(("existing", "target"), [("keep", None), ("update", 500)])
def test_what_is_there_is_kept_or_changed_as_asked(anna: Person, existing: str, target: int | None) -> None:
    anna.post("/api/v1/watches", {"asin": ASIN})

    _taken(anna, f"asin,target\n{ASIN},5\n", existing=existing)

    assert [one["target_minor"] for one in _listed(anna)] == [target]


@pytest.mark.parametrize(
    ("content", "form", "query", "status", "kind"),
    [
        pytest.param("asin,colour\n", "text/csv", {}, 422, "watch-list-unreadable", id="unknown columns"),
        pytest.param("", "text/csv", {}, 422, "watch-list-unreadable", id="nothing"),
        pytest.param("{}", "application/json", {}, 422, "watch-list-unreadable", id="no list"),
        pytest.param("[" * 100_000, "application/json", {}, 422, "watch-list-unreadable", id="deep"),
        pytest.param("asin\n" + f"{ASIN}\n" * 10_001, "text/csv", {}, 422, "watch-list-unreadable", id="too many rows"),
        pytest.param(FILE, "text/plain", {}, 415, "media-type", id="another type"),
        pytest.param(FILE, "text/csv", {"mode": "some"}, 422, "validation", id="no mode"),
        pytest.param(FILE, "text/csv", {"replace": "yes"}, 422, "validation", id="an unknown parameter"),
        pytest.param("asin\n" + "x" * (8 * 1024 * 1024), "text/csv", {}, 413, "body-too-large", id="too large"),
    ],
)
def test_what_cannot_be_taken_is_a_problem_in_words(
    anna: Person, content: str, form: str, query: dict[str, str], status: int, kind: str
) -> None:
    answered = _send(anna, content, form=form, **query)

    assert (answered.status_code, answered.headers["content-type"]) == (status, "application/problem+json")
    assert answered.json()["type"] == f"urn:keeper:problem:{kind}"
    assert _listed(anna) == []


@pytest.mark.parametrize(("path", "allowed"), [(IMPORT, "POST"), (EXPORT, "GET")])
def test_a_file_is_no_watch_of_that_name(anna: Person, path: str, allowed: str) -> None:
    answered = anna.ask("PATCH", path, json={})

    assert (answered.status_code, answered.headers["allow"]) == (405, allowed)


def test_ten_thousand_rows_are_taken(anna: Person, engine: Engine) -> None:
    assert _taken(anna, "asin\n" + "".join(f"B{number:09d}\n" for number in range(10_000)))["added"] == 10_000
    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM watched_products WHERE is_active")).scalar_one() == 10_000


def test_an_import_under_a_key_happens_once(anna: Person) -> None:
    first = _taken(anna, FILE, key="one")

    again = _send(anna, FILE, key="one")

    assert (again.json(), again.headers["idempotency-replayed"], len(_listed(anna))) == (first, "true", 2)


@pytest.mark.parametrize(("content", "query"), [(FILE, {"existing": "update"}), ("asin\n", {})], ids=["another query", "another body"])
def test_another_import_under_the_same_key_is_refused(anna: Person, content: str, query: dict[str, str]) -> None:
    _taken(anna, FILE, key="one")

    refused = _send(anna, content, key="one", **query)

    assert (refused.status_code, refused.json()["type"]) == (422, "urn:keeper:problem:idempotency-key-reused")


def test_a_refused_import_may_be_mended_under_its_key(anna: Person) -> None:
    assert _send(anna, "asin\nwrong\n", key="one", mode="all_or_nothing").status_code == 422
    assert _taken(anna, FILE, key="one", mode="all_or_nothing")["added"] == 2


def test_an_export_as_csv_is_a_file(anna: Person) -> None:
    _taken(anna, FILE)

    answered = anna.ask("GET", EXPORT)

    assert answered.headers["content-type"] == "text/csv; charset=utf-8"
    assert answered.headers["content-disposition"] == 'attachment; filename="watches.csv"'
    assert [row["asin"] for row in csv.DictReader(io.StringIO(answered.text))] == [ASIN, OTHER]


def test_an_export_as_json_is_an_object_with_a_list(anna: Person) -> None:
    _taken(anna, FILE)

    assert [(one["asin"], one["target"], one["currency"]) for one in anna.get(EXPORT, format="json")["watches"]] == [
        (ASIN, "49.90", "GBP"),
        (OTHER, None, "EUR"),
    ]


@pytest.mark.parametrize(("format", "form"), [("csv", "text/csv"), ("json", "application/json")])
def test_what_went_out_changes_nothing_when_it_comes_in(anna: Person, format: str, form: str) -> None:
    _taken(anna, FILE)
    before = _listed(anna)

    done = _taken(anna, anna.ask("GET", EXPORT, params={"format": format}).text, form=form, mode="all_or_nothing", existing="update")

    assert (done["kept"], _listed(anna)) == (2, before)


def test_a_long_list_goes_out_whole(anna: Person) -> None:
    asins = [f"B{number:09d}" for number in range(2500)]
    _taken(anna, "asin\n" + "\n".join(asins))

    assert [row["asin"] for row in csv.DictReader(io.StringIO(anna.ask("GET", EXPORT).text))] == asins


def test_an_export_holds_only_ones_own(anna: Person, ben: Person) -> None:
    _taken(anna, FILE)

    assert ben.get(EXPORT, format="json") == {"watches": []}
    assert _taken(ben, FILE)["added"] == 2


def test_a_key_that_only_reads_takes_nothing_in(anna: Person, api_url: str, client_of: ClientOf, engine: Engine) -> None:
    client = client_of(api_url, make_key_of(engine, anna, Scope.READ))

    assert client.post(IMPORT, content=FILE, headers={"Content-Type": "text/csv"}).status_code == 403
    assert client.get(EXPORT).status_code == 200
