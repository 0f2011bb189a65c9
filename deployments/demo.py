"""`make demo`: the main job for real, on this machine, in under a minute.

A Keepa (the simulator; the real one where KEEPER_KEEPA_API_KEY is set), a real PostgreSQL, a Prefect server that runs the flow, a real
mail server. The demo has a data folder of its own, made new each time, and free ports; what it started is ended, unless KEEP=1.
"""

import csv
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.sorting import FlowRunSort
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from deployments.stack import ROOT, Stack, free_port, start_prefect, start_simulator
from keeper.accounts import ReaderChange, add_channel, add_user, change_reader
from keeper.check import Checked
from keeper.domain.deal_filter import DealFilter
from keeper.domain.errors import KeeperError
from keeper.domain.exchange import EURO
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.opportunity import FoundOpportunity
from keeper.domain.opportunity_query import OpportunityQuery, OpportunitySort
from keeper.domain.watch import Watch
from keeper.postgres import alerts, watches
from keeper.postgres.deal_filters import insert_filter
from keeper.postgres.deals import BestDeal, select_best_running
from keeper.postgres.opportunities import select_opportunities
from keeper.postgres.opportunities import select_totals as select_opportunity_totals
from keeper.postgres.totals import Totals, select_largest_drops, select_totals
from keeper.resources import Resources, embedded_server, jump_clock, keepa_url, make_resources, now_of
from keeper.settings import Settings, read_settings

if TYPE_CHECKING:
    from tests.services.mail import MailServer

_JUMP_DAYS = 4
_REAL_KEYBOARDS = 3
_MOST_ROWS = 12
# Where the seeds hold no price.
_PRICE_UNSEEN = 40

# Set, not removed: what is not in the environment would come from the user's `.env`.
_OWN_SETTINGS = {
    "KEEPER_DATABASE_URL": "",
    "KEEPER_POSTGRES_PORT": "",
    "KEEPER_CHANNELS_KEYS": "",
    "KEEPER_CHANNELS_SCHEMES": "mailto",
    "KEEPER_KEEPA_SIMULATOR_URL": "",
    "KEEPER_KAFKA_BOOTSTRAP_SERVERS": "",
    "KEEPER_ELASTICSEARCH_URL": "",
    "KEEPER_DEALS_QUERIES": "",
    "KEEPER_DEALS_SEEDS": "",
    "KEEPER_DEALS_GROUPS": "",
    "KEEPER_DEALS_MARKETPLACES": "",
    "KEEPER_DEALS_SHARE_PCT": "",
    "KEEPER_ARBITRAGE_MARKETPLACES": "",
    "KEEPER_ARBITRAGE_PRICE_TYPE": "",
    "KEEPER_ARBITRAGE_LEAST_MARGIN_PCT": "",
    "KEEPER_ARBITRAGE_SELLER": "",
    "KEEPER_ARBITRAGE_TABLES": "",
    "KEEPER_ARBITRAGE_SHARE_PCT": "",
    "KEEPER_ARBITRAGE_CATEGORIES": "",
    "KEEPER_ARBITRAGE_FINDER": "",
}
_FILTER_NAME = "Good keyboards"
_FILTER = DealFilter(group="keyboards", score_from=20)
# With a key each token is somebody's money: no seeds, of the feed about a page, and four products in all stores.
_FRUGAL_SETTINGS = {"KEEPER_DEALS_SEEDS": "none", "KEEPER_DEALS_SHARE_PCT": "0.5", "KEEPER_ARBITRAGE_SHARE_PCT": "1"}

console = Console(width=None if sys.stdout.isatty() else 120)


def main() -> None:
    """Run it; the last line printed is one JSON object."""
    started = time.monotonic()
    folder = (read_settings().data / "demo").resolve()
    is_kept = os.environ.get("KEEP") == "1"
    try:
        _end_last_demo(folder)
        stack = Stack(folder, {})
        for environment in (os.environ, stack.environment):
            environment |= _OWN_SETTINGS | {"KEEPER_DATA": str(folder)}
        try:
            summary = _run(stack, folder)
        finally:
            if is_kept:
                console.print(
                    f"\nLeft running: Prefect at {stack.environment.get('PREFECT_API_URL', '').removesuffix('/api')}. `make down` ends it."
                )
            else:
                stack.stop()
                embedded_server(read_settings()).stop()
    except KeeperError as error:
        sys.exit(f"demo: {error}")
    summary["seconds"] = round(time.monotonic() - started, 1)
    print(json.dumps(summary))


def _end_last_demo(folder: Path) -> None:
    if folder.exists():
        Stack(folder, {}).stop()
        server = embedded_server(read_settings().model_copy(update={"data": folder}))
        if server.status().running:
            server.stop()
        server.remove()
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _run(stack: Stack, folder: Path) -> dict[str, Any]:
    # aiosmtpd belongs to the development dependencies, like everything under tests/.
    from tests.services.mail import MailServer

    settings = read_settings()
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True) as progress:
        step = progress.add_task("starting Prefect's server", total=None)
        if not settings.is_simulated:
            for environment in (os.environ, stack.environment):
                environment |= _FRUGAL_SETTINGS
        else:
            os.environ["KEEPER_KEEPA_SIMULATOR_URL"] = start_simulator(stack, "--products", "47", "--seed", "7")
            stack.environment["KEEPER_KEEPA_SIMULATOR_URL"] = os.environ["KEEPER_KEEPA_SIMULATOR_URL"]
        start_prefect(stack, free_port())
        os.environ |= {name: value for name, value in stack.environment.items() if name.startswith("PREFECT_")}
        progress.update(step, description="starting PostgreSQL, migrating")
        settings = read_settings()
        resources = make_resources(settings)
        try:
            with MailServer(save_to=folder / "mail") as mail:
                return _watch(stack, resources, mail, progress, step)
        finally:
            resources.close()


def _watch(stack: Stack, resources: Resources, mail: "MailServer", progress: Progress, step: Any) -> dict[str, Any]:
    settings = resources.settings
    _import_watches(resources, mail.port)
    progress.update(step, description="making Prefect's limits")
    stack.run("deployments.bootstrap")
    progress.update(step, description="first check: prices and a year of history")
    first = _check(stack, resources)
    done = first
    if settings.is_simulated:
        progress.update(step, description=f"{_JUMP_DAYS} days later: second check")
        jump_clock(resources.engine, keepa_url(settings), seconds=timedelta(days=_JUMP_DAYS).total_seconds())
        second = _check(stack, resources)
        done = Checked()
        done.add(first)
        done.add(second)
    else:
        second = first
    progress.update(step, description="collecting deals")
    _run_flow(stack, "flows.deal_collection")
    progress.update(step, description="looking at the same products in five stores")
    _run_flow(stack, "flows.arbitrage_scan")
    progress.update(step, description="making the report of the day")
    _run_flow(stack, "flows.reports")
    progress.stop()
    return _show(resources, mail, first, second, done)


def _import_watches(resources: Resources, mail_port: int) -> None:
    with (ROOT / "seeds" / "keyboards.csv").open(encoding="utf-8") as rows:
        keyboards = list(csv.DictReader(rows))
    if not resources.settings.is_simulated:
        keyboards = keyboards[:_REAL_KEYBOARDS]
    with resources.engine.begin() as connection:
        user = add_user(connection, "anna")
        add_channel(
            connection,
            resources.cipher(),
            user.user_id,
            name="mail",
            url=f"mailto://127.0.0.1:{mail_port}/anna@example.org?from=keeper@example.org&mode=insecure",
            schemes=("mailto",),
        )
        wanted = [
            Watch(
                row["asin"],
                Marketplace.DE if resources.settings.is_simulated else Marketplace(row["seen_on"]),
                target=Money(round(float(row["price_seen"] or _PRICE_UNSEEN) * 90), _currency(resources.settings, row["seen_on"])),
            )
            for row in keyboards
        ]
        watches.insert_watches(connection, user.user_id, wanted, now=now_of(connection))
        insert_filter(connection, user.user_id, _FILTER_NAME, _FILTER, is_active=True, is_instant=False, now=now_of(connection))
        # Of the day in UTC that has begun, so that the hour of the report has come whenever somebody runs this.
        change_reader(connection, user.user_id, ReaderChange(timezone="UTC", report_hour=0))
    console.print(
        f"User anna with API key {user.shown_key[:12]}… and {len(wanted)} keyboards to watch, targets 10 % below the prices last seen"
    )


def _currency(settings: Settings, seen_on: str) -> str:
    return "EUR" if settings.is_simulated else Marketplace(seen_on).currency


def _run_flow(stack: Stack, flow: str) -> None:
    """One run of a flow in a process of its own; Prefect's server says how it ended."""
    stack.run(flow)
    # Not `get_client`: Prefect read its settings when it was imported, knows of no server, and would start one of its own.
    with SyncPrefectClient(stack.environment["PREFECT_API_URL"], auth_string=os.environ.get("PREFECT_API_AUTH_STRING")) as client:
        run = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]
    if run.state is None or not run.state.is_completed():
        raise KeeperError(f"the run {run.name} ended {run.state_name}: {run.state and run.state.message}")
    console.print(f"Prefect: run [bold]{run.name}[/bold] {run.state_name}, {run.state.message}")


def _check(stack: Stack, resources: Resources) -> Checked:
    """One run of the price watch."""
    before = _totals(resources)
    _run_flow(stack, "flows.price_watch")
    after = _totals(resources)
    return Checked(
        checked=after.checks - before.checks,
        tokens=after.tokens - before.tokens,
        history_points=after.price_points - before.price_points,
        alerts=after.alerts - before.alerts,
    )


def _totals(resources: Resources) -> Totals:
    with resources.engine.begin() as connection:
        return select_totals(connection)


def _show(resources: Resources, mail: "MailServer", first: Checked, second: Checked, done: Checked) -> dict[str, Any]:
    totals = _totals(resources)
    with resources.engine.begin() as connection:
        rows = alerts.select_alerts(connection, limit=_MOST_ROWS)
        drops = select_largest_drops(connection, limit=_MOST_ROWS)
        best = select_best_running(connection, limit=_MOST_ROWS)
        gaps = select_opportunities(connection, OpportunityQuery(sort=OpportunitySort.PROFIT, limit=_MOST_ROWS))
        opportunities = select_opportunity_totals(connection).open
    _show_deals(best)
    _show_opportunities(gaps.found, opportunities)
    table = Table(title="Largest drops")
    for heading in ("ASIN", "Keyboard", "Before", "Now", "Fall", "Since"):
        table.add_column(heading, justify="right" if heading in ("Before", "Now", "Fall") else "left", no_wrap=True)
    for row in drops:
        fall = 100 * (row.previous_minor - row.amount_minor) / row.previous_minor
        table.add_row(
            row.asin,
            (row.title or "")[:44],
            str(Money(row.previous_minor, row.currency)),
            str(Money(row.amount_minor, row.currency)),
            f"{fall:.1f} %",
            f"{row.observed_at:%d %b %H:%M}",
        )
    console.print(table)
    table = Table(title=f"Alerts, delivered to a mail server on 127.0.0.1:{mail.port}")
    for heading in ("ASIN", "Price", "Target", "Delivered"):
        table.add_column(heading, justify="right" if heading in ("Price", "Target") else "left")
    for alert in rows:
        table.add_row(
            alert.asin,
            str(Money(alert.amount_minor, alert.currency)),
            str(Money(alert.target_minor, alert.currency)),
            f"{alert.status} after {alert.tries} tries" if alert.tries != 1 else str(alert.status),
        )
    console.print(table)
    alert_mails = [message for message in mail.messages if not _is_report(message)]
    if alert_mails:
        _show_mail(alert_mails[-1], resources.settings.data / "mail", len(mail.messages))
    for message in mail.messages:
        if _is_report(message):
            page = resources.settings.data / "report.html"
            page.write_text(_html_of(message), encoding="utf-8")
            console.print(f"The report of the day, [bold]{message['subject']}[/bold], as a page: {page}")
    tokens_per_check = round(done.tokens / max(1, done.checked), 2)
    console.print(
        f"{done.tokens} tokens for {done.checked} checks ({tokens_per_check} each): {first.tokens} for the first with a year of history"
        + (f", {second.tokens} for the second" if second is not first else "")
        + ("" if resources.settings.is_simulated else "; this is what the real Keepa charged")
    )
    return {
        "source": resources.source,
        "watches": totals.watches,
        "checked": done.checked,
        "price_points": totals.price_points,
        "alerts": totals.alerts,
        "delivered": totals.delivered,
        "deals": totals.deals,
        "reports": totals.reports,
        "opportunities": opportunities,
        "tokens_spent": totals.tokens,
        "tokens_per_check": tokens_per_check,
    }


def _show_deals(best: list[BestDeal]) -> None:
    table = Table(title="The best deals")
    for heading in ("Score", "Keyboard", "Price", "List", "Below its median", ""):
        table.add_column(heading, justify="left" if heading in ("Keyboard", "") else "right", no_wrap=True)
    for deal in best:
        table.add_row(
            f"{deal.deal_score:.0f}",
            (deal.title or deal.asin)[:44],
            str(Money(deal.amount_minor, deal.currency)),
            str(Money(deal.list_price_minor, deal.currency)) if deal.list_price_minor else "",
            "" if deal.below_median_pct is None else f"{deal.below_median_pct:.0f} %",
            "lowest ever" if deal.is_all_time_low else "lowest of the year" if deal.is_year_low else "",
        )
    console.print(table)


def _show_opportunities(best: Sequence[FoundOpportunity], count: int) -> None:
    table = Table(title=f"The best of {count} price gaps, by what is left of them for the seller in seeds/seller.toml (an assumption)")
    for heading in ("Keyboard", "Buy", "Price", "Sell", "Price ", "Gap", "Profit", "ROI"):
        table.add_column(heading, justify="left" if heading in ("Keyboard", "Buy", "Sell") else "right", no_wrap=True)
    for found in best:
        one = found.opportunity
        table.add_row(
            (found.title or one.asin)[:44],
            one.source_market,
            str(Money(one.source_minor, one.source_market.currency)),
            one.target_market,
            str(Money(one.target_minor, one.target_market.currency)),
            f"{one.margin_pct} %",
            "unknown" if one.profit_minor is None else str(Money(one.profit_minor, EURO)),
            "" if one.roi_pct is None else f"{one.roi_pct} %",
        )
    console.print(table)


def _html_of(message: EmailMessage) -> str:
    body = message.get_body(("html",))
    return "" if body is None else str(body.get_content())


def _is_report(message: EmailMessage) -> bool:
    return _FILTER_NAME in _html_of(message)


def _show_mail(message: EmailMessage, folder: Path, count: int) -> None:
    body = message.get_body(("plain",))
    console.rule(f"The last of {count} mails, saved in {folder}")
    console.print(f"Subject: {message['subject']}", markup=False, highlight=False)
    if body is not None:
        console.print(body.get_content().strip(), markup=False, highlight=False)
    console.rule()


if __name__ == "__main__":
    main()
