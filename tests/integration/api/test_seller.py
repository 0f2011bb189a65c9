"""A seller's profile over HTTP: the default until one has one's own, and errors that name the field."""

from typing import Any

import pytest

from keeper.domain.access import Scope
from tests.integration.api.conftest import ClientOf, Person, make_key_of

PATH = "/api/v1/seller-profile"
MINE: dict[str, Any] = {
    "home": "FR",
    "registered": ["DE", "FR"],
    "reclaims_purchase_vat": True,
    "currency": "EUR",
    "preparation_minor": 20,
    "storage_minor": None,
    "return_allowance_pct": 2.5,
    "inbound": [{"source": "DE", "target": None, "up_to_g": 500, "cost_minor": 90}],
    "wanted_roi_pct": 30,
}


def put(person: Person, **changes: Any) -> Any:
    answered = person.ask("PUT", PATH, json=MINE | changes)
    assert answered.status_code == 200, answered.text
    return answered.json()


def test_the_operators_default_counts_until_there_is_an_own_one(anna: Person) -> None:
    found = anna.get(PATH)
    assert (found["seller"], found["profile"]["home"], found["profile"]["preparation_minor"]) == ("default", "DE", 50)


def test_an_own_profile_is_kept_as_it_was_sent(anna: Person) -> None:
    sent = put(anna)
    assert (sent["seller"], sent == anna.get(PATH)) == ("own", True)
    assert sent["profile"] == MINE


def test_what_is_left_out_is_not_known(anna: Person) -> None:
    anna.ask("PUT", PATH, json={"home": "IT"}).raise_for_status()
    assert anna.get(PATH)["profile"] == MINE | {
        "home": "IT",
        "registered": [],
        "reclaims_purchase_vat": False,
        "preparation_minor": None,
        "return_allowance_pct": None,
        "inbound": [],
        "wanted_roi_pct": None,
    }


def test_after_its_removal_the_default_counts_again(anna: Person) -> None:
    put(anna)
    assert [anna.ask("DELETE", PATH).status_code for _ in range(2)] == [204, 204]
    assert anna.get(PATH)["seller"] == "default"


def test_everybody_has_their_own(anna: Person, ben: Person) -> None:
    put(anna)
    assert ben.get(PATH)["seller"] == "default"


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        pytest.param({"home": "GB"}, "body.home", "UK for the United Kingdom", id="country"),
        pytest.param({"registered": []}, "body.reclaims_purchase_vat", "registered for VAT somewhere", id="contradiction"),
        pytest.param({"inbound": 2 * MINE["inbound"]}, "body.inbound", "two prices for up to 500 g", id="band twice"),
        pytest.param({"home": 5}, "body.home", "valid string", id="shape"),
        pytest.param({"return_allowance_pct": 2.555}, "body.return_allowance_pct", "2 decimal places", id="too fine"),
        pytest.param({"preparation_minor": "20"}, "body.preparation_minor", "must be a number", id="text"),
        pytest.param({"colour": "red"}, "body.colour", "not permitted", id="unknown"),
    ],
)
def test_an_error_names_the_field_and_changes_nothing(anna: Person, changes: dict[str, Any], field: str, said: str) -> None:
    put(anna)
    answered = anna.ask("PUT", PATH, json=MINE | {"preparation_minor": 21} | changes)
    (problem,) = answered.json()["errors"]
    assert (answered.status_code, problem["field"], said in problem["message"]) == (422, field, True), problem
    assert anna.get(PATH)["profile"]["preparation_minor"] == 20


def test_a_contradiction_has_a_type_of_its_own(anna: Person) -> None:
    answered = anna.ask("PUT", PATH, json=MINE | {"home": "GB"})
    assert answered.json()["type"] == "urn:keeper:problem:seller-profile-invalid"


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_key_that_only_reads_changes_nothing(anna: Person, api_url: str, client_of: ClientOf, engine: Any, method: str) -> None:
    reader = client_of(api_url, make_key_of(engine, anna, Scope.READ))
    assert reader.request(method, PATH, json=MINE if method == "PUT" else None).status_code == 403
    assert anna.get(PATH)["seller"] == "default"
