"""Check watched prices: plan, fetch side by side, record as answers come, tell at once."""

import time
from datetime import timedelta

from prefect import flow, get_run_logger
from prefect.futures import as_completed
from prefect.runtime import deployment
from prefect.states import Cancelled, Completed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.artifacts import show_checks
from keeper.check import Checked, give_back
from keeper.plan import PlannedRequest
from keeper.postgres.jobs import hold_job
from keeper.resources import process_resources
from tasks.fetch import fetch
from tasks.limits import SlotsUnavailable, largest_request
from tasks.plan import plan
from tasks.record import note_failure, record
from tasks.relay import relay

_SHORT_INTERVAL = timedelta(minutes=5)


@flow(name="price-watch", flow_run_name="price-watch", task_runner=ThreadPoolTaskRunner(max_workers=5))
def price_watch(
    interval_minutes: float | None = Field(None, description="Only watches of this interval, minutes; empty for all that are due"),
    ahead_minutes: float = Field(0, description="Also take watches that are due within so many minutes"),
    go_on_seconds: float = Field(0, description="Where a watch has an interval below five minutes, go on checking for so long"),
    longest_seconds: float = Field(1800, description="Start no further round after so long"),
) -> State[object]:
    """Check what is due and can be paid, oldest due first. What the budget cannot pay waits for the next run."""
    started = time.monotonic()
    job = f"price-watch/{deployment.name or 'by-hand'}"
    resources = process_resources()
    with hold_job(resources.engine, job) as is_mine:
        if not is_mine:
            return Cancelled(message=f"another scheduler runs {job} on this database; remove one of the two deployments")
        done, failed_requests = Checked(), 0
        while True:
            requests = plan(
                interval=timedelta(minutes=interval_minutes) if interval_minutes else None,
                ahead=timedelta(minutes=ahead_minutes),
                **_bounds(),
            )
            round_done, round_failed = _check(requests)
            done.add(round_done)
            failed_requests += round_failed
            if round_done.alerts:
                relay(longest_seconds=60)
            spent = time.monotonic() - started
            if requests and spent < longest_seconds and not round_failed:
                continue
            wait_seconds = resources.seconds_until_short_watch(_SHORT_INTERVAL) if go_on_seconds else None
            if wait_seconds is None or spent + wait_seconds >= go_on_seconds:
                break
            time.sleep(wait_seconds)
        show_checks(job, done)
    state = Failed if failed_requests else Completed
    return state(message=done.sentence)


def _bounds() -> dict[str, int | None]:
    settings = process_resources().settings
    if not settings.prefect.limits:
        return {"batch_size": settings.keepa.batch_size, "largest_request": None}
    return {"batch_size": settings.keepa.batch_size, "largest_request": largest_request()}


def _check(requests: list[PlannedRequest]) -> tuple[Checked, int]:
    """Fetch all, record each as it comes; one that fails leaves the others alone."""
    logger = get_run_logger()
    done, failed = Checked(), 0
    futures = {fetch.submit(request): request for request in requests}
    for future in as_completed(list(futures)):
        request = futures[future]
        try:
            done.add(record(request, future.result()))
        except SlotsUnavailable as error:
            logger.warning("%s; %d products wait for the next run", error, len(request.asins))
            give_back(process_resources().engine, request)
            failed += 1
        except Exception as error:  # noqa: BLE001  one request may not stop the others; the run is not green
            logger.error("%d products of %s failed: %s", len(request.asins), request.marketplace, error)
            done.add(note_failure(request, str(error)))
            failed += 1
    return done, failed
