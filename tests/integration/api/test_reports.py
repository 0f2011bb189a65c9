"""Reports over the API: everybody's own, as JSON and as the page that was mailed."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from keeper.domain.report import decode_report
from keeper.notify.report import render_report
from keeper.report import ReportSettings, report
from tests.integration.api.conftest import Person
from tests.integration.deals import add_deal, add_filter
from tests.integration.makers import NOW, one

REPORTS = "/api/v1/reports"


@pytest.fixture
def reported(anna: Person, engine: Engine) -> int:
    """Anna's report of one deal with a hostile title. Returns its id."""
    add_filter(engine, anna.user_id, "Keys")
    add_deal(engine, title="Tastatur <script>alert(1)</script>")
    report(engine, now=NOW, settings=ReportSettings())
    report_id: int = one(engine, "SELECT id FROM deal_reports WHERE user_id = :user_id", user_id=anna.user_id)
    return report_id


def test_reports_are_listed_newest_first(anna: Person, reported: int, engine: Engine) -> None:
    report(engine, now=NOW + timedelta(days=1), settings=ReportSettings())

    first = anna.get(REPORTS, limit=1)
    second = anna.get(first["next"])

    assert [one["report_date"] for page in (first, second) for one in page["reports"]] == ["2026-11-21", "2026-11-20"]
    assert second["reports"][0] == {
        "id": reported, "kind": "deals", "report_date": "2026-11-20", "deal_count": 1, "created_at": f"{NOW:%Y-%m-%dT%H:%M:%SZ}",
        "html": f"/api/v1/reports/{reported}.html", "deliveries": [],
    }  # fmt: skip
    assert anna.get(REPORTS, kind="operations")["reports"] == []


def test_report_is_told_as_it_was_composed(anna: Person, reported: int) -> None:
    told = anna.get(f"{REPORTS}/{reported}")

    [part] = told["content"]["parts"]
    assert (part["name"], part["entries"][0]["deal"]["price_minor"], part["entries"][0]["mark"]) == ("Keys", 6990, "new")
    assert decode_report(told["content"]).deal_count == told["deal_count"] == 1


def test_page_is_the_one_that_was_mailed_and_runs_nothing(anna: Person, reported: int) -> None:
    page = anna.ask("GET", f"{REPORTS}/{reported}.html")

    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.text == render_report(decode_report(anna.get(f"{REPORTS}/{reported}")["content"]))
    assert "Tastatur &lt;script&gt;" in page.text
    assert "<script" not in page.text


@pytest.mark.parametrize("ending", ["", ".html"])
def test_who_has_it_already_is_told_so(anna: Person, reported: int, ending: str) -> None:
    first = anna.ask("GET", f"{REPORTS}/{reported}{ending}")
    again = anna.ask("GET", f"{REPORTS}/{reported}{ending}", headers={"If-None-Match": first.headers["etag"]})

    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("ending", ["", ".html"])
def test_report_of_another_user_is_none(ben: Person, reported: int, ending: str) -> None:
    answered = ben.ask("GET", f"{REPORTS}/{reported}{ending}")
    assert (answered.status_code, answered.json()["type"]) == (404, "urn:keeper:problem:report-unknown")


def test_time_of_the_report_can_be_changed(anna: Person) -> None:
    changed = anna.ask("PATCH", "/api/v1/users/me", json={"timezone": "Pacific/Auckland", "report_hour": 5, "wants_empty_reports": True})

    assert changed.status_code == 200
    me = anna.get("/api/v1/users/me")
    assert (me["timezone"], me["report_hour"], me["wants_empty_reports"]) == ("Pacific/Auckland", 5, True)
    assert changed.json() == me


def test_null_hour_ends_the_reports_and_what_is_left_out_stays(anna: Person) -> None:
    anna.ask("PATCH", "/api/v1/users/me", json={"report_hour": None})
    me = anna.ask("PATCH", "/api/v1/users/me", json={"wants_empty_reports": True}).json()

    assert (me["timezone"], me["report_hour"], me["wants_empty_reports"]) == ("Europe/Berlin", None, True)


@pytest.mark.parametrize(
    "body",
    [
        {"timezone": "Europe/Bremen"},
        {"timezone": ""},
        {"timezone": "../etc/passwd"},
        {"report_hour": 24},
        {"report_hour": "7"},
        {"hour": 7},
    ],
)
def test_what_cannot_be_is_refused(anna: Person, body: dict[str, object]) -> None:
    before = anna.get("/api/v1/users/me")
    assert anna.ask("PATCH", "/api/v1/users/me", json=body).status_code == 422
    assert anna.get("/api/v1/users/me") == before
