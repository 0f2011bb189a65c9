"""What you watch: added, listed, changed, removed, one and many; and nobody else's."""

from typing import Any

import pytest

from tests.integration.api.conftest import Person

ASINS = [f"B{number:09d}" for number in range(25)]


def _add(person: Person, count: int = 3, **rest: Any) -> list[int]:
    ids: list[int] = person.post("/api/v1/watches", [{"asin": asin} | rest for asin in ASINS[:count]])["ids"]
    return ids


def test_a_watch_is_added_with_its_defaults(anna: Person) -> None:
    watch = anna.post("/api/v1/watches", {"asin": "B00OCMRV40", "target": 49.9})

    assert watch["target"] == 49.9 and watch["target_minor"] == 4990 and watch["currency"] == "EUR"
    assert (watch["marketplace"], watch["price_type"], watch["interval_seconds"], watch["hysteresis_pct"]) == ("DE", "NEW", 21600, 2.0)
    assert watch["price"] is None and watch["is_paused"] is False and watch["link"] == "https://www.amazon.de/dp/B00OCMRV40"
    assert anna.get(f"/api/v1/watches/{watch['id']}") == watch


@pytest.mark.parametrize(("target", "minor"), [(0.07, 7), (19.99, 1999), (1, 100), (10_000_000, 1_000_000_000), (4.35, 435)])
def test_an_amount_is_exact_to_the_cent(anna: Person, target: float, minor: int) -> None:
    assert anna.post("/api/v1/watches", {"asin": "B00OCMRV40", "target": target, "marketplace": "UK"})["target_minor"] == minor


def test_what_is_watched_already_is_told(anna: Person) -> None:
    anna.post("/api/v1/watches", {"asin": "B00OCMRV40"})

    assert anna.post("/api/v1/watches", {"asin": "B00OCMRV40"}, status=409)["type"] == "urn:keeper:problem:watch-exists"
    assert anna.post("/api/v1/watches", [{"asin": "B00OCMRV40"}, {"asin": ASINS[0]}])["already_watched"] == 1


def test_pages_go_on_until_the_end(anna: Person) -> None:
    _add(anna, 25)
    seen: list[str] = []
    path, pages = "/api/v1/watches?limit=10", 0
    while path:
        page = anna.get(path)
        seen += [watch["asin"] for watch in page["watches"]]
        path, pages = page["next"], pages + 1

    assert seen == ASINS
    assert pages == 3


def test_a_list_is_narrowed(anna: Person) -> None:
    _add(anna, 3)
    _add(anna, 2, marketplace="IT")
    anna.ask("PATCH", f"/api/v1/watches/{anna.get('/api/v1/watches')['watches'][0]['id']}", json={"is_paused": True})

    def count(**query: Any) -> int:
        return len(anna.get("/api/v1/watches", **query)["watches"])

    assert (count(), count(state="paused"), count(state="all"), count(marketplace="IT"), count(asin=ASINS[1])) == (4, 1, 5, 2, 2)


PATCHES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "another target": ({"target": 12.5}, {"target_minor": 1250}),
    "no target": ({"target": None}, {"target_minor": None}),
    "an interval": ({"interval_seconds": 60}, {"interval_seconds": 60, "target_minor": 4990}),
    "a pause": ({"is_paused": True}, {"is_paused": True, "target_minor": 4990}),
    "nothing": ({}, {"target_minor": 4990, "interval_seconds": 21600}),
}


@pytest.mark.parametrize("case", PATCHES)
def test_a_watch_is_changed_in_what_is_named(anna: Person, case: str) -> None:
    patch, expected = PATCHES[case]
    watch = anna.post("/api/v1/watches", {"asin": "B00OCMRV40", "target": 49.9})

    answered = anna.ask("PATCH", f"/api/v1/watches/{watch['id']}", json=patch)

    assert answered.status_code == 200
    assert {name: answered.json()[name] for name in expected} == expected


def test_many_are_changed_each_in_its_currency(anna: Person) -> None:
    ids = [anna.post("/api/v1/watches", {"asin": "B00OCMRV40", "marketplace": store})["id"] for store in ("DE", "UK")]

    answered = anna.ask("PATCH", "/api/v1/watches", json={"ids": ids, "target": 10})

    assert answered.json() == {"changed": 2}
    assert [(one["target_minor"], one["currency"]) for one in anna.get("/api/v1/watches")["watches"]] == [(1000, "EUR"), (1000, "GBP")]


def test_many_are_changed_or_none(anna: Person, ben: Person) -> None:
    mine, theirs = _add(anna), _add(ben)

    answered = anna.ask("PATCH", "/api/v1/watches", json={"ids": [*mine, theirs[0]], "target": 10})

    assert answered.status_code == 404
    assert all(one["target"] is None for person in (anna, ben) for one in person.get("/api/v1/watches")["watches"])


def test_many_are_removed_or_none(anna: Person, ben: Person) -> None:
    mine, theirs = _add(anna), _add(ben)

    assert anna.ask("DELETE", "/api/v1/watches", params={"id": [*mine, theirs[0]]}).status_code == 404
    assert len(anna.get("/api/v1/watches")["watches"]) == 3
    assert anna.ask("DELETE", "/api/v1/watches", params={"id": mine[:2]}).status_code == 204
    assert [one["id"] for one in anna.get("/api/v1/watches", state="all")["watches"]] == mine[2:]
    assert len(ben.get("/api/v1/watches")["watches"]) == 3


def test_a_removed_watch_is_gone_and_may_come_back(anna: Person) -> None:
    watch = anna.post("/api/v1/watches", {"asin": "B00OCMRV40"})
    path = f"/api/v1/watches/{watch['id']}"

    assert anna.ask("DELETE", path).status_code == 204

    assert anna.ask("GET", path).status_code == 404
    assert anna.ask("PATCH", path, json={}).status_code == 404
    assert anna.ask("DELETE", path).status_code == 404
    assert anna.post("/api/v1/watches", {"asin": "B00OCMRV40"})["id"] != watch["id"]
