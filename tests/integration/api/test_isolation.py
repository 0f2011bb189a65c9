"""A user sees and changes only what is theirs, on every path there is."""

import json
from dataclasses import replace
from string import Formatter
from typing import Any

from sqlalchemy import Engine, text

from api.app import create_app, list_routes
from keeper.domain.report import ReportKind, encode_report
from keeper.postgres.reports import NewReport, insert_reports
from keeper.postgres.sinks import lock_routes
from keeper.report import ReportSettings, preview
from keeper.settings import Settings
from tests.integration.api.conftest import Person
from tests.integration.makers import NOW

ASIN = "B00OCMRV40"
_MARK = "annas-secret"


def _possessions(anna: Person, engine: Engine) -> dict[str, int]:
    """One of each thing a user can have, by the name of the parameter that names it in a path."""
    watch = anna.post("/api/v1/watches", {"asin": ASIN, "target": 10_000})
    channel = anna.post("/api/v1/channels", {"name": _MARK, "url": f"ntfy://127.0.0.1:9/{_MARK}"})
    key = anna.post("/api/v1/api-keys", {"label": _MARK})
    # The price is below the target, so that there is an alert.
    anna.post("/api/v1/price/check", {"asin": ASIN}, status=200)
    anna.ask("PUT", "/api/v1/seller-profile", json={"home": "FR", "preparation_minor": 4711}).raise_for_status()
    kept = anna.post("/api/v1/deals/filters", {"name": _MARK, "rules": {"words": _MARK}})
    rule = anna.post("/api/v1/opportunity-rules", {"name": _MARK})
    with engine.begin() as connection:
        report = preview(connection, anna.user_id, now=NOW, settings=ReportSettings())
        content = json.dumps(encode_report(replace(report, problems=(_MARK,))))
        new = NewReport(anna.user_id, ReportKind.DEALS, report.report_date, 0, content, is_told=True)
        report_id = insert_reports(connection, [new], now=NOW, routes=lock_routes(connection)).by_user[anna.user_id]
    return {
        "watch_id": watch["id"],
        "channel_id": channel["id"],
        "key_id": key["id"],
        "filter_id": kept["id"],
        "report_id": report_id,
        "rule_id": rule["id"],
    }


def _rows(engine: Engine, user_id: int) -> Any:
    """Everything that belongs to a user, but for when their key was used."""
    tables = {
        "watched_products": "user_id",
        "channels": "user_id",
        "api_keys": "user_id",
        "price_alerts": "user_id",
        "deal_filters": "user_id",
        "deal_reports": "user_id",
        "opportunity_rules": "user_id",
        "seller_profiles": "user_id",
        "users": "id",
    }
    with engine.begin() as connection:
        return {
            table: connection.execute(
                text(f"SELECT (to_jsonb(t) - 'last_used_at')::text FROM {table} t WHERE {column} = :user_id ORDER BY 1"),
                {"user_id": user_id},
            )
            .scalars()
            .all()
            for table, column in tables.items()
        }


def test_another_users_key_finds_and_changes_nothing_on_any_path(settings: Settings, anna: Person, ben: Person, engine: Engine) -> None:
    mine = _possessions(anna, engine)
    # So that what both may see, the prices of a product, is all that a check could change.
    bodies: dict[tuple[str, str], Any] = {("PATCH", "/api/v1/watches"): {"ids": [mine["watch_id"]], "is_paused": True}}
    # These make or ask something of ben's own, and are not to touch what is anna's.
    own: dict[tuple[str, str], Any] = {
        ("POST", "/api/v1/watches"): {"asin": ASIN, "target": 5},
        ("POST", "/api/v1/watches/import"): {"watches": [{"asin": "B08DG4C63H", "target": 7}]},
        ("PATCH", "/api/v1/users/me"): {"timezone": "UTC", "report_hour": 3},
        ("POST", "/api/v1/channels"): {"name": "bens", "url": "ntfy://127.0.0.1:9/bens"},
        ("POST", "/api/v1/api-keys"): {"label": "bens"},
        # A price is checked for everybody who watches it, so this one is of a product that anna does not.
        ("POST", "/api/v1/price/check"): {"asin": "B08DG4C63H"},
    }
    own[("PUT", "/api/v1/seller-profile")] = {"home": "IT"}
    own[("POST", "/api/v1/deals/filters")] = {"name": "bens", "rules": {"words": "tastatur"}}
    own[("POST", "/api/v1/opportunity-rules")] = {"name": "bens"}
    bodies[("PUT", "/api/v1/deals/filters/{filter_id}")] = {"name": "bens", "rules": {}}
    bodies[("PUT", "/api/v1/opportunity-rules/{rule_id}")] = {"name": "bens"}
    token = ben.post("/api/v1/api-keys", {"label": "feed", "scope": "feed"})["key"]
    queries: dict[tuple[str, str], Any] = {("DELETE", "/api/v1/watches"): {"id": mine["watch_id"]}}
    before = _rows(engine, anna.user_id)
    walked = 0
    for method, path in list_routes(create_app(settings)):
        names = [name for _, name, _, _ in Formatter().parse(path) if name]
        owned = [name for name in names if name in mine]
        filled = path.format(**{name: mine.get(name, token if name == "token" else ASIN) for name in names})
        body = (bodies | own).get((method, path), {} if method in ("POST", "PATCH") else None)

        answered = ben.ask(method, filled, json=body, params=queries.get((method, path)))

        assert answered.status_code < 500 or answered.status_code == 503, (method, path, answered.text)
        assert _MARK not in answered.text, (method, path)
        assert (method, path) not in own or answered.status_code in (200, 201), (method, path, answered.text)
        if owned or (method, path) in bodies or (method, path) in queries:
            assert answered.status_code == 404, (method, path, answered.text)
        walked += 1

    assert walked >= 20
    assert _rows(engine, anna.user_id) == before
    for path, name in (
        ("/api/v1/watches", "watches"),
        ("/api/v1/channels", "channels"),
        ("/api/v1/alerts", "alerts"),
        ("/api/v1/reports", "reports"),
    ):
        assert len(anna.get(path)[name]) == 1
    assert {one["asin"]: one["target"] for one in ben.get("/api/v1/watches")["watches"]} == {ASIN: 5.0, "B08DG4C63H": 7.0}
    assert [one["name"] for one in ben.get("/api/v1/channels")["channels"]] == ["bens"]
    assert [one["label"] for one in ben.get("/api/v1/api-keys")["api_keys"]] == ["first", "feed", "bens"]
    assert [one["name"] for one in ben.get("/api/v1/deals/filters")["filters"]] == ["bens"]
    assert anna.get("/api/v1/seller-profile")["profile"]["preparation_minor"] == 4711
    assert [one["name"] for one in ben.get("/api/v1/opportunity-rules")["rules"]] == ["bens"]
    assert [one["name"] for one in anna.get("/api/v1/opportunity-rules")["rules"]] == [_MARK]
    assert anna.get("/opportunities")["seller"] == "own"
    assert ben.get("/api/v1/alerts")["alerts"] == []
    assert ben.get("/api/v1/reports")["reports"] == []


def test_what_was_kept_for_another_users_key_is_not_replayed(anna: Person, ben: Person) -> None:
    anna.post("/api/v1/api-keys", {"label": _MARK}, key="shared")

    answered = ben.ask("POST", "/api/v1/api-keys", json={"label": "mine"}, headers={"Idempotency-Key": "shared"})

    assert answered.status_code == 201
    assert _MARK not in json.dumps(answered.json())
