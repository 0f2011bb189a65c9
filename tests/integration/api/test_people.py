"""What admins may do over the API, and what is noted of it."""

from string import Formatter
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

from api.app import create_app, list_routes
from keeper.audit import Action, Actor, Via, note
from keeper.domain.access import Scope
from keeper.maintain import Retention, maintain
from keeper.postgres.audit import AuditRow, select_entries
from keeper.settings import Settings
from tests.integration.api.conftest import ClientOf, MakePerson, Person, make_key_of
from tests.integration.makers import NOW

DEAL = {"asin": "B00OCMRV40", "marketplace": "DE", "price": 49.9, "title": "Cherry KC 6000"}
_NOBODY = 999_999


@pytest.fixture
def root(api_url: str, make_person: MakePerson) -> Person:
    return make_person(api_url, "root", is_admin=True)


def _entries(engine: Engine) -> list[AuditRow]:
    with engine.begin() as connection:
        return select_entries(connection)


def _noted(engine: Engine) -> list[tuple[str, str, str]]:
    """The oldest first."""
    return [(one.action, one.target, one.outcome) for one in reversed(_entries(engine))]


def test_what_only_admins_may_is_refused_to_others_and_the_try_is_noted(anna: Person, settings: Settings, engine: Engine) -> None:
    refused, targets = set(), []
    for method, path in list_routes(create_app(settings)):
        filled = path.format(**{name: str(_NOBODY) for _, name, _, _ in Formatter().parse(path) if name})
        answered = anna.ask(method, filled)
        if answered.status_code == 403 and answered.json()["type"].endswith(":scope-missing") and "/feeds/" not in path:
            refused.add(path.removeprefix("/api/v1"))
            targets.append(f"{method} {filled}")

    one_user = "/users/{user_id}"
    assert refused == {"/audit", "/users", one_user, f"{one_user}/api-keys", f"{one_user}/api-keys/{{key_id}}", "/reindex", "/deals/index"}
    noted = [one for one in reversed(_entries(engine)) if one.action == "admin.request"]
    assert [one.target for one in noted] == targets
    assert {(one.actor, one.user_id, one.outcome) for one in noted} == {("anna", anna.user_id, "refused")}


def test_refusals_of_one_key_do_not_fill_the_log(anna: Person, engine: Engine) -> None:
    assert {anna.ask("GET", "/api/v1/audit").status_code for _ in range(15)} == {403}

    assert len(_entries(engine)) == 10


def test_every_change_by_an_admin_is_noted_with_its_request(root: Person, deployed: str, engine: Engine) -> None:
    made = root.post("/api/v1/users", {"name": "carla"}, key="once")
    root.post("/api/v1/users", {"name": "carla"}, key="once")
    path = f"/api/v1/users/{made['id']}"
    key = root.get(f"{path}/api-keys")["api_keys"][0]["id"]
    own = root.post("/api/v1/api-keys", {"label": "hunter2", "scope": "admin"})
    for method, where, body in (
        ("PATCH", path, {"role": "admin"}),
        ("PATCH", path, {"role": "admin"}),
        ("DELETE", f"{path}/api-keys/{key}", None),
        ("DELETE", f"/api/v1/api-keys/{own['id']}", None),
        ("POST", "/api/v1/deals/index", DEAL),
        ("POST", "/api/v1/price/check-all", None),
        ("POST", "/api/v1/reindex", {"alias": "products"}),
    ):
        root.ask(method, where, json=body).raise_for_status()
    last = root.ask("DELETE", f"{path}/api-keys/{key}", headers={"X-Request-ID": "mine-7"})

    noted = _noted(engine)
    posted = noted.pop(5)
    assert noted == [
        ("user.add", "carla, user", "done"),
        ("key.add", f"key {own['id']} of root, admin", "done"),
        ("user.role", "carla to admin", "done"),
        ("key.revoke", f"key {key} of carla", "done"),
        ("key.revoke", f"key {own['id']} of root", "done"),
        ("run.start", "price-watch/tick", "done"),
        ("reindex", "products", "done"),
        ("key.revoke", f"key {key} of carla", "done"),
    ]
    assert posted[:2] == ("deal.post", posted[1]) and posted[1].startswith("B00OCMRV40-DE-NEW-")
    newest = root.get("/api/v1/audit", limit=1)["entries"][0]
    assert last.headers["x-request-id"] == newest["request_id"] == "mine-7"
    assert (newest["via"], newest["actor"], newest["user_id"], newest["key_id"]) == ("api", "root", root.user_id, 1)


def test_what_fails_is_noted_as_failed(root: Person, monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")

    assert root.ask("POST", "/api/v1/reindex", json={"alias": "products"}).status_code == 503

    assert _noted(engine) == [("reindex", "products", "failed")]


def test_no_key_password_or_body_reaches_the_log(root: Person, engine: Engine) -> None:
    made = root.post("/api/v1/users", {"name": "carla"})
    own = root.post("/api/v1/api-keys", {"label": "hunter2"})
    channel = root.post("/api/v1/channels", {"name": "phone", "url": "ntfy://127.0.0.1:9/hush-hush-topic"})
    root.ask("DELETE", f"/api/v1/channels/{channel['id']}").raise_for_status()

    with engine.begin() as connection:
        log = "\n".join(connection.execute(text("SELECT audit_log::text FROM audit_log")).scalars())
    assert "carla" in log
    assert [secret for secret in (made["key"], own["key"], root.key, "hunter2", "hush-hush-topic") if secret in log] == []


def test_the_log_is_read_by_pages_newest_first(root: Person, engine: Engine) -> None:
    with engine.begin() as connection:
        for step in range(5):
            note(connection, Actor(Via.COMMAND, "operator"), Action.REINDEX if step % 2 else Action.MIGRATE, str(step))
    read: list[str] = []
    path: str | None = "/api/v1/audit?limit=2"
    while path is not None:
        page: Any = root.get(path)
        read += [one["target"] for one in page["entries"]]
        path = page["next"]

    assert read == ["4", "3", "2", "1", "0"]
    assert [one["target"] for one in root.get("/api/v1/audit", action="reindex")["entries"]] == ["3", "1"]


@pytest.mark.parametrize("statement", ["UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log", "TRUNCATE audit_log"])
def test_what_was_noted_is_neither_changed_nor_taken_away(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        note(connection, Actor(Via.COMMAND, "operator"), Action.MIGRATE, "kept")

    with pytest.raises(ProgrammingError, match="audit_log is only added to"), engine.begin() as connection:
        connection.execute(text(statement))

    assert [one.target for one in _entries(engine)] == ["kept"]


def test_maintenance_forgets_what_is_older_than_the_setting(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO audit_log (at, via, actor, action, target, outcome) "
                "SELECT clock_timestamp() - make_interval(days => age), 'command', 'operator', 'migrate', age::text, 'done' "
                "FROM unnest(ARRAY[31, 29]) age"
            )
        )
    kept = Retention(events=7, calls=90, ingested=8, dead_letters=90, sightings=90, deals=400, opportunities=400, reports=400, audit=30)

    assert maintain(engine, now=NOW, retention=kept).audit_forgotten == 1

    assert [one.target for one in _entries(engine)] == ["29"]
    with pytest.raises(ProgrammingError), engine.begin() as connection:
        connection.execute(text("DELETE FROM audit_log"))


def test_an_admin_who_is_one_no_more_may_not_with_the_keys_of_before(
    root: Person, api_url: str, make_person: MakePerson, client_of: ClientOf, engine: Engine
) -> None:
    other = make_person(api_url, "other", is_admin=True)
    writer = client_of(api_url, make_key_of(engine, other, Scope.WRITE))
    assert other.ask("GET", "/api/v1/users").status_code == 200

    root.ask("PATCH", f"/api/v1/users/{other.user_id}", json={"role": "user"}).raise_for_status()

    assert other.ask("GET", "/api/v1/users").status_code == 403
    assert other.get("/api/v1/users/me")["scope"] == "write"
    assert other.ask("POST", "/api/v1/api-keys", json={"label": "back", "scope": "admin"}).status_code == 403
    assert writer.get("/api/v1/users/me").json()["scope"] == "write"


def test_nobody_takes_their_own_role_away(root: Person) -> None:
    answered = root.ask("PATCH", f"/api/v1/users/{root.user_id}", json={"role": "user"})

    assert (answered.status_code, answered.json()["type"]) == (409, "urn:keeper:problem:own-role")


def test_an_admin_revokes_the_key_of_somebody(root: Person, anna: Person, ben: Person) -> None:
    bens = root.get(f"/api/v1/users/{ben.user_id}/api-keys")["api_keys"][0]
    assert anna.ask("GET", "/api/v1/users/me").status_code == ben.ask("GET", "/api/v1/users/me").status_code == 200

    wrong = root.ask("DELETE", f"/api/v1/users/{anna.user_id}/api-keys/{bens['id']}")
    right = root.ask("DELETE", f"/api/v1/users/{ben.user_id}/api-keys/{bens['id']}")

    assert (wrong.status_code, right.status_code) == (404, 204)
    assert [one.ask("GET", "/api/v1/users/me").status_code for one in (anna, ben)] == [200, 401]


def test_everybody_is_listed_by_pages_and_nobody_twice(root: Person, anna: Person, ben: Person) -> None:
    first = root.get("/api/v1/users", limit=2)

    assert [one["name"] for one in first["users"] + root.get(first["next"])["users"]] == ["root", "anna", "ben"]
    assert root.ask("POST", "/api/v1/users", json={"name": "anna"}).json()["type"] == "urn:keeper:problem:user-exists"


def test_without_keys_a_user_who_is_no_admin_may_not_what_admins_may(make_api: Any, make_person: MakePerson, client_of: ClientOf) -> None:
    url = make_api(auth="off")
    make_person(url, "anna")

    assert client_of(url, None).get("/api/v1/audit").status_code == 403
