"""`keeper report …`: the daily reports, on demand and looked at."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keeper.cli_common import MARKET, CommandFailed, Json, make_group, open_resources, show_json

if TYPE_CHECKING:
    from keeper.domain.operations import OperationsReport
    from keeper.notify.message import Message
    from keeper.relay import Relayed
    from keeper.resources import Resources

report_app = make_group("The daily reports: make what is due, look at them, and how Keeper works.")

UserName = Annotated[str | None, typer.Option("--user", "-u", help="Whose; not needed while there is only one user")]
ReportId = Annotated[int | None, typer.Argument(help="Which, as `keeper report list` shows them; the newest without")]
HtmlFile = Annotated[Path | None, typer.Option("--html", help="Write the page to this file")]
_RELAY_SECONDS = 60.0


def add_commands(app: typer.Typer) -> None:
    """To the program."""
    app.add_typer(report_app, name="report", rich_help_panel=MARKET)


@report_app.command("run")
def report_run(is_json: Json = False) -> None:
    """Make and send the reports whose hour has come and that are not there yet.

    Example: [bold]keeper report run[/bold]
    """
    from keeper.audit import Action, noting, operator
    from keeper.report import report
    from keeper.terminal import say

    with open_resources() as resources, noting(resources.engine, operator(), Action.RUN_START, "report run"):
        done = report(resources.engine, now=resources.now(), settings=resources.report_settings)
        sent = _send(resources) if done.deliveries else None
    if is_json:
        show_json(
            {"reports": done.users, "deliveries": done.deliveries, "published": done.published, "delivered": sent.delivered if sent else 0}
        )
    else:
        for one in done.users:
            what = f"{one.deals} deals, {one.news} new or cheaper, {one.drops} watched prices fell" if one.is_told else "empty, not sent"
            say(f"{one.user}, {one.report_date}: {what} (report {one.report_id})")
        say(f"{done.sentence}{f'; delivered {sent.delivered}' if sent else ''}")
    _complain(sent)


@report_app.command("preview")
def report_preview(user: UserName = None, html: HtmlFile = None, is_json: Json = False) -> None:
    """What a user's report would be now. Nothing is kept or sent.

    Example: [bold]keeper report preview --html report.html[/bold]
    """
    from keeper.domain.report import encode_report
    from keeper.notify.report import compose_report
    from keeper.postgres.users import find_user
    from keeper.report import preview

    with open_resources() as resources, resources.engine.begin() as connection:
        found = preview(connection, find_user(connection, user), now=resources.now(), settings=resources.report_settings)
    _show(encode_report(found), lambda: compose_report(found), html, is_json=is_json)


@report_app.command("list")
def report_list(
    user: UserName = None, limit: Annotated[int, typer.Option(min=1, max=1000, help="So many")] = 20, is_json: Json = False
) -> None:
    """The newest reports, with what each channel made of them."""
    from keeper.postgres.reports import select_reports
    from keeper.postgres.users import find_user
    from keeper.terminal import show_table

    with open_resources() as resources, resources.engine.begin() as connection:
        found = select_reports(connection, user_id=find_user(connection, user) if user else None, limit=limit)
    if is_json:
        show_json(found)
        return
    show_table(
        ["Report", "User", "Day", "Of", "Deals", "Channels"],
        [
            (
                one.report_id,
                one.user,
                one.report_date,
                one.kind,
                one.deal_count,
                ", ".join(_delivery(*each) for each in one.statuses) or "not sent",
            )
            for one in found
        ],
        right=["Report", "Deals"],
    )


@report_app.command("show")
def report_show(report_id: ReportId = None, user: UserName = None, html: HtmlFile = None, is_json: Json = False) -> None:
    """One report as it was sent.

    Example: [bold]keeper report show --html report.html[/bold]
    """
    from keeper.notify.report import compose_content
    from keeper.postgres.reports import find_report
    from keeper.postgres.users import find_user

    with open_resources() as resources, resources.engine.begin() as connection:
        _, content = find_report(connection, find_user(connection, user), report_id)
    _show(content, lambda: compose_content(content), html, is_json=is_json)


@report_app.command("operations")
def report_operations(
    is_sent: Annotated[bool, typer.Option("--send", help="Also to the channels of the administrators, once a day")] = False,
    is_json: Json = False,
) -> None:
    """How the last day of Keeper went: deals, tokens, indices, Kafka, outbox, API, failures.

    Example: [bold]keeper report operations --send[/bold]
    """
    from keeper.domain.operations import encode_operations, write_markdown
    from keeper.operations import compose_operations, keep_operations
    from keeper.terminal import say

    with open_resources() as resources:
        now = resources.now()
        found: OperationsReport = compose_operations(resources.settings, resources.engine, now=now)
        kept = keep_operations(resources.engine, found, now=now) if is_sent else None
        sent = _send(resources) if kept and kept.deliveries else None
    if is_json:
        show_json(encode_operations(found) | {"deliveries": kept.deliveries if kept else 0})
    else:
        print(write_markdown(found))
        if kept is not None:
            say(f"{len(kept.by_user)} administrators, {kept.deliveries} channels")
    _complain(sent)


def _send(resources: "Resources") -> "Relayed":
    from keeper.relay import relay

    return relay(resources.engine, resources.alert_sink(), settings=resources.relay_settings, longest_seconds=_RELAY_SECONDS)


def _complain(sent: "Relayed | None") -> None:
    if sent is not None and (sent.dead or sent.refused or sent.down):
        raise CommandFailed(
            f"not everything was delivered: {sent.down or f'{sent.refused} refused and tried again, {sent.dead} given up'}; "
            "`keeper report list` says what each channel answered"
        )


def _show(content: Any, compose: "Callable[[], Message]", html: Path | None, *, is_json: bool) -> None:
    from keeper.terminal import say

    if html is not None:
        html.write_text(compose().html, encoding="utf-8")
    if is_json:
        show_json(content)
    elif html is not None:
        say(f"Written to {html}")
    else:
        print(compose().text)


def _delivery(channel: str, status: str, failure: str | None) -> str:
    return f"{channel} {status}{f' ({failure})' if failure else ''}"
