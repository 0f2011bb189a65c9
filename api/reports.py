"""Your daily reports, as they were sent."""

from datetime import date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field

from api.access import Reader
from api.conditional import answer
from api.live import House
from api.paging import DEFAULT_PAGE, CursorText, Limit, decode_cursor, next_page
from api.problems import problems
from api.query import LEFT_OUT
from api.schemas import Answer, RowId
from keeper.domain.report import ReportKind
from keeper.notify.report import compose_content
from keeper.postgres import reports
from keeper.postgres.reports import ReportRow

router = APIRouter(tags=["reports"])

_HTML = "text/html"
# The page asks for pictures and nothing else, and runs nothing.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src https:; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox allow-popups"
}


class ReportDelivery(Answer):
    """What became of a report on one channel."""

    channel: str = Field(description="What you call it", examples=["phone"])
    status: str = Field(description="`pending`, `delivered`, or `dead` after the last try", examples=["delivered"])
    last_failure: str | None = Field(description="Why the last try failed; null once it is delivered")


class ReportSummary(Answer):
    """A day's report."""

    id: int
    kind: ReportKind = Field(description="`deals`; administrators also get `operations`")
    report_date: date = Field(description="Of your own day")
    deal_count: int = Field(description="Different deals in it", examples=[12])
    created_at: datetime
    html: str = Field(description="Path of its page", examples=["/api/v1/reports/7.html"])
    deliveries: list[ReportDelivery] = Field(description="By channel; empty for a day without anything to tell, which was not sent")


class Report(ReportSummary):
    """A report with what it told."""

    content: dict[str, Any] = Field(
        description="As it was composed, and never changed: of deals the `parts` by filter, the `drops` of your watches, and what was "
        "`held` back; amounts in minor units"
    )


class Reports(Answer):
    """One page."""

    reports: list[ReportSummary]
    next: str | None


def _fields(row: ReportRow) -> dict[str, Any]:
    return {
        "id": row.report_id,
        "kind": row.kind,
        "report_date": row.report_date,
        "deal_count": row.deal_count,
        "created_at": row.created_at,
        "html": f"/api/v1/reports/{row.report_id}.html",
        "deliveries": [ReportDelivery(channel=name, status=status, last_failure=failure) for name, status, failure in row.statuses],
    }


@router.get("/reports", responses=problems())
def list_reports(
    caller: Reader,
    live: House,
    request: Request,
    kind: Annotated[Annotated[ReportKind | None, LEFT_OUT], Query(description="Only of this kind")] = None,
    limit: Limit = DEFAULT_PAGE,
    cursor: CursorText = None,
) -> Reports:
    """Your reports, newest first, each with what became of it on every channel."""
    with live.begin() as connection:
        found = reports.select_reports(connection, user_id=caller.user_id, kind=kind, before_id=decode_cursor(cursor), limit=limit)
    shown = [ReportSummary(**_fields(row)) for row in found]
    return Reports(reports=shown, next=next_page(request, shown[-1].id if shown else None, is_full=len(shown) == limit))


@router.get(
    "/reports/{report_id:row}.html",
    responses={**problems(404), 200: {"content": {_HTML: {"schema": {"type": "string"}}}, "description": "The page"}},
    response_class=Response,
)
def show_report(report_id: RowId, caller: Reader, live: House, request: Request) -> Response:
    """One of your reports as the page that was mailed."""
    with live.begin() as connection:
        _, content = reports.find_report(connection, caller.user_id, report_id)
    page = answer(request, compose_content(content).html.encode(), media_type=f"{_HTML}; charset=utf-8")
    page.headers.update(_PAGE_HEADERS)
    return page


@router.get("/reports/{report_id:row}", responses=problems(404), response_model=Report)
def get_report(report_id: RowId, caller: Reader, live: House, request: Request) -> Response:
    """One of your reports with all it told."""
    with live.begin() as connection:
        row, content = reports.find_report(connection, caller.user_id, report_id)
    return answer(request, Report(**_fields(row), content=content))
