"""What a run shows in the Prefect UI. An artifact that cannot be written never fails the run."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from prefect.artifacts import create_markdown_artifact
from sqlalchemy import Engine

from keeper.check import Checked
from keeper.collection import Gathered
from keeper.discover import Discovered
from keeper.domain.exchange import EURO
from keeper.domain.money import Money
from keeper.domain.operations import OperationsReport, write_markdown
from keeper.domain.opportunity_query import OpportunityQuery, OpportunitySort
from keeper.domain.report import Report
from keeper.postgres.deals import select_best
from keeper.postgres.opportunities import select_opportunities
from keeper.relay import Relayed
from keeper.report import Reported
from keeper.scan import Scanned

if TYPE_CHECKING:
    # numpy comes with it, and one flow of all compares.
    from keeper.compare import Compared

    # The clients of all systems come with it.
    from keeper.watchdog import Round

logger = logging.getLogger(__name__)
_MOST_FAILURES = 100
_MOST_READERS = 100
_MOST_DEALS = 20
_LONGEST_TITLE = 80


def show_checks(job: str, done: Checked) -> None:
    """The failures and the ten largest drops of a run."""
    lines = [f"## {done.sentence}", "", f"{done.changes} prices changed, {done.alerts} alerts", ""]
    if done.falls:
        lines += ["| Product | Price | Now | Before | Fall |", "|---|---|---|---|---|"]
        for fall in done.falls:
            now, before = Money(fall.amount_minor or 0, fall.currency), Money(fall.previous_minor or 0, fall.currency)
            pct = 100 * (before.amount_minor - now.amount_minor) / before.amount_minor
            lines.append(f"| {fall.asin} {fall.marketplace} | {fall.price_type} | {now} | {before} | {pct:.1f} % |")
        lines.append("")
    if done.failures:
        lines += ["| Failed | Why |", "|---|---|"]
        lines += [f"| {name} | {_cell(why)} |" for name, why in list(done.failures.items())[:_MOST_FAILURES]]
        if len(done.failures) > _MOST_FAILURES:
            lines.append(f"| and {len(done.failures) - _MOST_FAILURES} more | |")
    try:
        create_markdown_artifact("\n".join(lines), key=job.lower().replace("/", "-"), description=done.sentence)
    except Exception:
        logger.exception("the artifact of %s could not be written", job)


def show_deals(job: str, engine: Engine, gathered: Gathered) -> None:
    """The best of the deals that were found, and what went wrong."""
    lines = [f"## {gathered.sentence}", ""]
    if gathered.announced:
        with engine.begin() as connection:
            best = select_best(connection, gathered.announced, limit=_MOST_DEALS)
        lines += ["| Score | Deal | Price | List | Below median | |", "|---|---|---|---|---|---|"]
        for deal in best:
            price = Money(deal.amount_minor, deal.currency)
            listed = Money(deal.list_price_minor, deal.currency) if deal.list_price_minor else "–"
            below = "–" if deal.below_median_pct is None else f"{deal.below_median_pct:.0f} %"
            low = "all-time low" if deal.is_all_time_low else "low of the year" if deal.is_year_low else ""
            title = _cell(deal.title or deal.asin)[:_LONGEST_TITLE].replace("[", "(").replace("]", ")")
            lines.append(f"| {deal.deal_score:.0f} | [{title}]({deal.url}) {deal.marketplace} | {price} | {listed} | {below} | {low} |")
        lines.append("")
    for what, said in (("Failed", gathered.troubles), ("Noted", gathered.notes)):
        lines += [f"- {what}: {_cell(one)}" for one in list(said)[:_MOST_FAILURES]]
    try:
        create_markdown_artifact("\n".join(lines), key=job.lower().replace("/", "-"), description=gathered.sentence)
    except Exception:
        logger.exception("the artifact of %s could not be written", job)


def show_reports(job: str, done: Reported) -> None:
    """A row for each report that was made."""
    lines = [f"## {done.sentence}", ""]
    if done.users:
        lines += ["| User | Day | Deals | New or cheaper | Watched prices fell | Held back | Sent |", "|---|---|---|---|---|---|---|"]
        for one in done.users[:_MOST_READERS]:
            sent = f"{'yes' if one.is_told else 'empty'}, report {one.report_id}"
            cells = (_cell(one.user), one.report_date, one.deals, one.news, one.drops, one.held, sent)
            lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
        if len(done.users) > _MOST_READERS:
            lines.append(f"| and {len(done.users) - _MOST_READERS} more | | | | | | |")
    for report in done.examples:
        lines += ["", *_deals_of(report)]
    _write(job, lines, done.sentence)


def _deals_of(report: Report) -> list[str]:
    """The best of one report, so that one sees what people get."""
    lines = [f"### {_cell(report.user)}, {report.report_date}", "", "| Deal | Price | Median | | Filter |", "|---|---|---|---|---|"]
    for part in report.parts:
        for entry in part.entries[:_MOST_DEALS]:
            deal = entry.deal
            title = _cell(deal.title)[:_LONGEST_TITLE].replace("[", "(").replace("]", ")")
            lines.append(f"| [{title}]({deal.link}) | {deal.price} | {deal.median_90 or '–'} | {entry.mark} | {_cell(part.name)} |")
    return lines


def show_operations(job: str, report: OperationsReport) -> None:
    """The whole of it."""
    _write(job, write_markdown(report).splitlines(), f"{len(report.warnings)} things to look at")


def show_round(job: str, done: "Round") -> None:
    """What each check of the watchdog sees."""
    lines = [f"## {done.sentence}", "", "| Check | Sees | What to do |", "|---|---|---|"]
    for one in done.seen:
        lines += [f"| **{_cell(trouble.title)}** | {_cell(trouble.text)} | {_cell(trouble.remedy)} |" for trouble in one.troubles]
        lines += [] if one.troubles else [f"| {one.check} | {_cell(one.text)} | |"]
    lines += ["", *(f"- not told: {_cell(problem)}" for problem in done.untold), f"- heartbeat: {_cell(done.heartbeat)}"]
    _write(job, lines, done.sentence)


def show_discovered(job: str, discovered: Discovered) -> None:
    """How far the catalog has grown, and what went wrong."""
    counted = ("added", "catalog", "candidates", "lists", "waiting", "strangers", "failed", "tokens")
    lines = [f"## {discovered.sentence}", "", "| | |", "|---|---|", *(f"| {name} | {getattr(discovered, name)} |" for name in counted), ""]
    for what, said in (("Failed", discovered.troubles), ("Noted", discovered.notes)):
        lines += [f"- {what}: {_cell(one)}" for one in list(said)[:_MOST_FAILURES]]
    _write(job, lines, discovered.sentence)


def show_scan(job: str, engine: Engine, scanned: Scanned, compared: "Compared | None") -> None:
    """What each store answered, how far the tokens go, and the best that is to be had."""
    description = "; ".join([scanned.sentence, *([compared.sentence] if compared else [])])
    lines = [f"## {description}", ""]
    if scanned.stores:
        lines += ["| Store | Requests | Listings | Failed | Tokens |", "|---|---|---|---|---|"]
        lines += [f"| {name} | {one.requests} | {one.checked} | {one.failed} | {one.tokens} |" for name, one in scanned.stores.items()]
        lines.append("")
    if scanned.plan is not None:
        lines += [scanned.plan.sentence, "", "| At most so old | Products that can be held |", "|---|---|"]
        lines += [f"| {hours} h | {products} |" for hours, products in scanned.plan.held.items()]
        lines += ["", *(f"- {count} by {source}" for source, count in scanned.plan.by_source.items()), ""]
    lines += _best_opportunities(engine)
    for what, said in (("Failed", scanned.troubles), ("Noted", scanned.notes)):
        lines += [f"- {what}: {_cell(one)}" for one in list(said)[:_MOST_FAILURES]]
    _write(job, lines, description)


def _best_opportunities(engine: Engine) -> list[str]:
    with engine.begin() as connection:
        page = select_opportunities(connection, OpportunityQuery(sort=OpportunitySort.PROFIT, limit=_MOST_DEALS))
    if not page.found:
        return []
    lines = ["| Product | Buy | Sell | Gap | Profit | ROI | Score |", "|---|---|---|---|---|---|---|"]
    for found in page.found:
        one = found.opportunity
        title = _cell(found.title or one.asin)[:_LONGEST_TITLE].replace("[", "(").replace("]", ")")
        bought = f"[{one.source_market}]({found.source_link}) {Money(one.source_minor, one.source_market.currency)}"
        sold = f"[{one.target_market}]({found.target_link}) {Money(one.target_minor, one.target_market.currency)}"
        profit = "unknown" if one.profit_minor is None else str(Money(one.profit_minor, EURO))
        roi = "–" if one.roi_pct is None else f"{one.roi_pct} %"
        lines.append(f"| {title} | {bought} | {sold} | {one.margin_pct} % | {profit} | {roi} | {one.score} |")
    return [*lines, ""]


def show_delivery(job: str, by_sink: Mapping[str, Relayed]) -> None:
    """A row for each system."""
    delivered = sum(done.delivered for done in by_sink.values())
    lines = [f"## {delivered} delivered", "", "| To | Delivered | Refused | Given up | |", "|---|---|---|---|---|"]
    for sink, done in by_sink.items():
        left = "down: " + _cell(done.down) if done.down else "" if done.is_complete else "more waits for the next run"
        lines.append(f"| {sink} | {done.delivered} | {done.refused} | {done.dead} | {left} |")
    _write(job, lines, f"{delivered} delivered")


def show_counts(job: str, counted: Mapping[str, int], notes: Sequence[str] = ()) -> None:
    """A row for each count, and what there is to note."""
    description = ", ".join(f"{count} {name}" for name, count in counted.items() if count) or "nothing to do"
    lines = [f"## {description}", "", "| What | How many |", "|---|---|", *(f"| {name} | {count} |" for name, count in counted.items()), ""]
    _write(job, [*lines, *(f"- {_cell(note)}" for note in notes)], description)


def _write(job: str, lines: list[str], description: str) -> None:
    try:
        create_markdown_artifact("\n".join(lines), key=job.lower().replace("/", "-"), description=description)
    except Exception:
        logger.exception("the artifact of %s could not be written", job)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
