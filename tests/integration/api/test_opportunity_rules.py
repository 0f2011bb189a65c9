"""Rules of opportunities over HTTP."""

from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests.integration.api.conftest import Person
from tests.integration.opportunities import add_opportunities, opportunity

PATH = "/api/v1/opportunity-rules"
WANTED = {
    "name": "To Italy",
    "least_roi_pct": 30,
    "least_profit_minor": 500,
    "least_margin_pct": 12.5,
    "sources": ["DE"],
    "targets": ["IT"],
    "categories": ["books"],
}


def test_a_rule_is_kept_shown_changed_and_removed(anna: Person) -> None:
    made = anna.post(PATH, WANTED)
    assert {name: made[name] for name in WANTED} == WANTED and made["is_active"]
    assert anna.get(PATH) == {"rules": [made]}

    changed = anna.ask("PUT", f"{PATH}/{made['id']}", json={"name": "Any", "is_active": False}).json()
    assert (changed["id"], changed["least_roi_pct"], changed["sources"], changed["is_active"]) == (made["id"], None, [], False)
    assert anna.get(f"{PATH}/{made['id']}") == changed

    assert anna.ask("DELETE", f"{PATH}/{made['id']}").status_code == 204
    assert anna.ask("GET", f"{PATH}/{made['id']}").json()["type"] == "urn:keeper:problem:rule-unknown"


def test_another_name_leaves_a_rule_as_old_as_it_is(anna: Person) -> None:
    made = anna.post(PATH, WANTED)

    renamed = anna.ask("PUT", f"{PATH}/{made['id']}", json=WANTED | {"name": "Italy"}).json()

    assert (renamed["name"], renamed["changed_at"]) == ("Italy", made["changed_at"])


def test_a_name_is_taken_once(anna: Person, ben: Person) -> None:
    first, second = anna.post(PATH, {"name": "one"}), anna.post(PATH, {"name": "two"})

    assert anna.ask("POST", PATH, json={"name": "one"}).json()["type"] == "urn:keeper:problem:rule-exists"
    assert anna.ask("PUT", f"{PATH}/{second['id']}", json={"name": "one"}).status_code == 409
    assert [one["id"] for one in anna.get(PATH)["rules"]] == [first["id"], second["id"]]
    ben.post(PATH, {"name": "one"})


def test_a_rule_sent_twice_under_one_key_is_kept_once(anna: Person) -> None:
    assert anna.post(PATH, WANTED, key="twice") == anna.post(PATH, WANTED, key="twice")
    assert len(anna.get(PATH)["rules"]) == 1


def test_there_are_as_many_rules_as_there_may_be(anna: Person, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO opportunity_rules (user_id, name, changed_at, created_at) "
                "SELECT :id, 'r' || n, now(), now() FROM generate_series(1, 50) n"
            ),
            {"id": anna.user_id},
        )

    assert anna.ask("POST", PATH, json={"name": "one more"}).json()["type"] == "urn:keeper:problem:too-many-rules"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"targets": ["DE"]}, "body.targets"),
        ({"name": ""}, "body.name"),
        ({"least_roi_pct": "30"}, "body.least_roi_pct"),
        ({"sources": ["DE", "DE"]}, "body.sources"),
        ({"colour": "red"}, "body.colour"),
    ],
    ids=["one store", "no name", "a text", "named twice", "unknown"],
)
def test_a_rule_that_cannot_be_names_its_field(anna: Person, change: dict[str, Any], field: str) -> None:
    answered = anna.ask("POST", PATH, json=WANTED | change)

    assert answered.status_code == 422
    assert [one["field"] for one in answered.json()["errors"]] == [field]


def test_a_profile_that_is_put_counts_at_once(anna: Person, engine: Engine) -> None:
    add_opportunities(engine, opportunity())
    before = anna.get("/opportunities")
    anna.ask("PUT", "/api/v1/seller-profile", json={"home": "DE"}).raise_for_status()
    own = anna.get("/opportunities")
    anna.ask("DELETE", "/api/v1/seller-profile").raise_for_status()

    assert (before["seller"], before["opportunities"][0]["profit_minor"]) == ("default", 1054)
    assert (own["seller"], own["opportunities"][0]["profit_minor"]) == ("own", None)
    assert "preparation" in own["opportunities"][0]["unknown"]
    assert anna.get("/opportunities") == before
