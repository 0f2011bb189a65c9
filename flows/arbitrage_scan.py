"""Look at the same products in all compared stores, then say where to buy and where to sell."""

from typing import Any, cast

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled, Completed, Failed
from prefect.utilities.annotations import quote

from flows.artifacts import show_scan
from keeper.check import Checked
from keeper.compare import Compared
from keeper.competitors import see_competitors
from keeper.domain.errors import KeeperError
from keeper.keepa.answer import ProductAnswer
from keeper.plan import PlannedRequest
from keeper.postgres.jobs import hold_job
from keeper.resources import process_resources
from keeper.scan import JOB, Scanned, scan
from tasks.compare import compare, tell_opportunities
from tasks.fetch import fetch
from tasks.limits import largest_request
from tasks.outcome import score_outcomes
from tasks.record import record
from tasks.relay import relay
from tasks.scan import fetch_bestsellers, fetch_found, know_exchange_rates, plan_listings, plan_sellers

_LONGEST_REASON = 300


def _run_name() -> str:
    asked = flow_run.parameters
    first = "look at all stores, then compare" if asked.get("is_with_scan", True) else "compare"
    return f"{first} {'every product' if asked.get('is_full') else 'what has changed'}"


@flow(name="arbitrage-scan", flow_run_name=_run_name)
def arbitrage_scan(is_with_scan: bool = True, is_full: bool = False) -> State[Any]:
    """Look at the stores as far as the share of the tokens goes, and compare. What it does not reach waits for the next run.

    Args:
        is_with_scan: ask Keepa; without, what is recorded is compared.
        is_full: compare every product, whatever has changed.
    """
    resources = process_resources()
    with hold_job(resources.engine, JOB) as is_mine:
        if not is_mine:
            return Cancelled(message=f"another scheduler runs {JOB}/{deployment.name or 'by-hand'} on this database; it goes on alone")
        scanned = Scanned()
        _know_rates(scanned)
        if is_with_scan:
            _see_competitors(scanned)
            _scan(scanned)
        compared = _compare(scanned, is_full=is_full)
        _look_back(scanned)
        if compared is not None:
            _announce(scanned)
        _tell(scanned)
        show_scan(JOB, resources.engine, scanned, compared)
    parts = [*([scanned.sentence] if is_with_scan else []), *([compared.sentence] if compared else []), *scanned.troubles, *scanned.notes]
    return (Failed if scanned.troubles else Completed)(message="; ".join(parts))


def _know_rates(scanned: Scanned) -> None:
    """Old rates and none at all are told, and stop nothing."""
    try:
        scanned.notes |= dict.fromkeys(know_exchange_rates())
    except KeeperError as error:
        scanned.troubles[f"exchange rates: {error}"[:_LONGEST_REASON]] = None


def _see_competitors(scanned: Scanned) -> None:
    """Who sells what the last comparison found worth buying, before the share is spent on prices."""
    resources = process_resources()
    # As below: without the bucket there is no share of it.
    _ = resources.keepa
    try:
        seen = see_competitors(
            resources.engine,
            settings=resources.scan_settings(),
            least_roi_pct=float(resources.settings.arbitrage.least_roi_pct),
            plan=plan_sellers,
            check=_check,
        )
    except KeeperError as error:
        scanned.troubles[f"sellers: {error}"[:_LONGEST_REASON]] = None
        return
    scanned.tokens += seen.tokens
    scanned.troubles |= {trouble[:_LONGEST_REASON]: None for trouble in seen.troubles}
    if seen.products:
        scanned.notes[seen.sentence] = None


def _check(request: PlannedRequest) -> Checked:
    # Quoted, as in the price watch: Prefect looks for futures in every number of an answer otherwise.
    return record(request, cast(ProductAnswer, quote(fetch(request))))


def _scan(scanned: Scanned) -> None:
    resources = process_resources()
    # Before anything is planned: without the bucket there is no share of it.
    _ = resources.keepa
    scan(
        resources.engine,
        settings=resources.scan_settings(),
        fetch_list=fetch_bestsellers,
        fetch_found=fetch_found,
        plan=plan_listings,
        check=_check,
        scanned=scanned,
        largest_request=largest_request() if resources.settings.prefect.limits else None,
    )


def _compare(scanned: Scanned, *, is_full: bool) -> Compared | None:
    """What was just looked at, and what others have recorded since the last comparison."""
    try:
        return compare(is_full=is_full)
    except KeeperError as error:
        scanned.troubles[f"not compared: {error}"[:_LONGEST_REASON]] = None
        return None


def _look_back(scanned: Scanned) -> None:
    """What has just opened is noted with its score, and what opened some days ago is held against it."""
    try:
        done = score_outcomes()
    except KeeperError as error:
        scanned.troubles[f"outcomes not scored: {error}"[:_LONGEST_REASON]] = None
        return
    if done.noted or done.scored:
        scanned.notes[done.sentence] = None


def _announce(scanned: Scanned) -> None:
    """New opportunities that are worth it become events and alerts; whoever cannot be told now is at the next run."""
    try:
        told = tell_opportunities()
    except KeeperError as error:
        scanned.troubles[f"nobody was told of new opportunities: {error}"[:_LONGEST_REASON]] = None
        return
    scanned.notes |= dict.fromkeys(told.troubles)
    if told.announced or told.told:
        scanned.notes[f"{told.announced} opportunities announced, {told.told} told to users"] = None


def _tell(scanned: Scanned) -> None:
    """Deliver what was just recorded. What cannot be delivered waits in the outbox for `flows.delivery`."""
    try:
        by_sink = relay(longest_seconds=60)
    except Exception as error:  # noqa: BLE001  the prices are recorded
        scanned.notes[f"events wait in the outbox: {type(error).__name__}"] = None
        return
    for sink, done in by_sink.items():
        if done.down:
            scanned.notes[f"events for {sink} wait in the outbox: {done.down[:_LONGEST_REASON]}"] = None


if __name__ == "__main__":
    arbitrage_scan()
