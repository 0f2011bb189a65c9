"""Check watched prices: plan, fetch side by side, record as answers come, tell at once."""

import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.futures import PrefectConcurrentFuture, as_completed
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote

from flows.artifacts import show_checks
from flows.events import KEEPA, TOKENS, systems_of, tell_changes
from keeper.check import Checked, give_back
from keeper.domain.errors import KeeperError
from keeper.domain.events import Sink
from keeper.keepa.answer import ProductAnswer
from keeper.keepa.errors import ServerDown
from keeper.plan import PlannedRequest
from keeper.postgres.jobs import hold_job
from keeper.resources import NoKeepa, configured_sinks, process_resources
from tasks.fetch import RequestExpired, fetch
from tasks.limits import LimitMissing, SlotsUnavailable, largest_request
from tasks.plan import plan
from tasks.record import note_failure, record
from tasks.relay import relay

_SHORT_INTERVAL = timedelta(minutes=5)
# Requests of one round per request in flight: answers are kept in memory until their round is through.
_ROUND_DEPTH = 4
# A short watch is overdue, but its tokens are not there or somebody else checks it: no use in asking at once again.
_SHORTEST_WAIT_SECONDS, _IDLE_SECONDS = 1.0, 15.0
_LONGEST_REASON = 300

Fetched = PrefectConcurrentFuture[ProductAnswer]


@dataclass(slots=True)
class _Run:
    """What a run did.

    Attributes:
        troubles: what keeps the run from being green; each once.
        notes: what does not.
        waiting: products whose requests were planned but not sent.
        unpaid: products that are overdue, but the budget allowed none of them when the run ended.
        seen: what is wrong with the tokens and with each system, as far as the run has seen it; None where all is well.
    """

    done: Checked = field(default_factory=Checked)
    troubles: dict[str, None] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    waiting: int = 0
    unpaid: int = 0
    seen: dict[str, str | None] = field(default_factory=dict)

    @property
    def state(self) -> State[Any]:
        parts = [self.done.sentence]
        if self.waiting:
            parts.append(f"{self.waiting} products wait for the next run")
        if self.unpaid:
            parts.append(f"{self.unpaid} products wait for tokens")
        parts += [*self.troubles, *self.notes]
        return (Failed if self.troubles else Completed)(message="; ".join(parts))


def _run_name() -> str:
    asked = flow_run.parameters
    which = f"every {asked['interval_minutes']:g} min" if asked.get("interval_minutes") else "all that are due"
    return f"check prices: {which}"


@flow(name="price-watch", flow_run_name=_run_name)
def price_watch(
    interval_minutes: float | None = None, ahead_minutes: float = 0, go_on_seconds: float = 0, longest_seconds: float = 1800
) -> State[Any]:
    """Check what is due and can be paid, oldest due first. What the budget cannot pay waits for the next run.

    Args:
        interval_minutes: only watches of this interval; empty for all that are due.
        ahead_minutes: also take watches that are due within so many minutes.
        go_on_seconds: where a watch has an interval below five minutes, go on checking for so long.
        longest_seconds: start no further round after so long.
    """
    started = time.monotonic()
    job = f"price-watch/{deployment.name or 'by-hand'}"
    interval = timedelta(minutes=interval_minutes) if interval_minutes else None
    resources = process_resources()
    with hold_job(resources.engine, job) as is_mine:
        if not is_mine:
            return Cancelled(message=f"another scheduler runs {job} on this database; remove one of the two deployments")
        run, checked_before = _Run(), 0
        while True:
            planned_at = resources.now()
            requests = _plan(interval, timedelta(minutes=ahead_minutes))
            done = _check(requests, run)
            if done.alerts or (done.checked and configured_sinks(resources.settings)):
                _tell(run)
            spent = time.monotonic() - started
            if done.checked and not run.waiting and spent < longest_seconds:
                continue
            wait_seconds = resources.seconds_until_short_watch(_SHORT_INTERVAL) if go_on_seconds else None
            if wait_seconds is not None and wait_seconds <= _SHORTEST_WAIT_SECONDS and run.done.checked == checked_before:
                wait_seconds = _IDLE_SECONDS
            if wait_seconds is None or spent + wait_seconds >= go_on_seconds:
                break
            checked_before, run.waiting = run.done.checked, 0
            time.sleep(wait_seconds)
        if not requests:
            # What has fallen due since waits for the next run, and for no tokens.
            run.unpaid = resources.count_overdue(interval, since=planned_at)
            if interval is None:
                run.seen[TOKENS] = f"{run.unpaid} products wait for tokens" if run.unpaid else None
        if run.done.checked:
            run.seen[KEEPA] = None
        show_checks(job, run.done)
        tell_changes(run.seen)
    return run.state


def _plan(interval: timedelta | None, ahead: timedelta) -> list[PlannedRequest]:
    try:
        requests: list[PlannedRequest] = plan(interval=interval, ahead=ahead, **_bounds())
    except (ServerDown, NoKeepa) as error:
        tell_changes({KEEPA: _reason(error)})
        raise
    return requests


def _bounds() -> dict[str, Any]:
    settings = process_resources().settings
    return {
        "batch_size": settings.keepa.batch_size,
        "largest_request": largest_request() if settings.prefect.limits else None,
        "most_requests": _ROUND_DEPTH * settings.keepa.requests_at_once,
    }


def _check(requests: list[PlannedRequest], run: _Run) -> Checked:
    """Fetch all, record each as it comes; one that fails leaves the others alone. Returns what this round did."""
    done = Checked()
    if not requests:
        return done
    with ThreadPoolTaskRunner[ProductAnswer](max_workers=process_resources().settings.keepa.requests_at_once) as runner:
        futures: dict[Fetched, PlannedRequest] = {runner.submit(fetch, {"request": request}): request for request in requests}
        try:
            for future in as_completed(list(futures)):
                done.add(_settle(cast(Fetched, future), futures.pop(cast(Fetched, future)), run))
        except BaseException:
            # Ended from outside, or the database is gone: what was not sent is free at once, not when its leases end.
            for future, request in futures.items():
                if future.wrapped_future.cancel():
                    give_back(process_resources().engine, request)
            raise
        finally:
            run.done.add(done)
    return done


def _settle(future: Fetched, request: PlannedRequest, run: _Run) -> Checked:
    """Record an answer, give back what was not sent, note why a request brought nothing."""
    logger = get_run_logger()
    try:
        # Quoted, because Prefect looks for futures in every number of an answer otherwise: a second of CPU for 100 products.
        return record(request, cast(ProductAnswer, quote(future.result())))
    except (SlotsUnavailable, LimitMissing, RequestExpired) as error:
        logger.warning("%s; %d products wait for the next run", error, request.size)
        give_back(process_resources().engine, request)
        run.waiting += request.size
        run.troubles[_reason(error)] = None
        return Checked()
    except Exception as error:  # noqa: BLE001  one request may not stop the others; the run is not green
        reason = _reason(error)
        if isinstance(error, ServerDown):
            run.seen[KEEPA] = reason
        logger.error("%d products of %s failed: %s", request.size, request.marketplace, reason)
        run.troubles[reason] = None
        return note_failure(request, reason)


def _tell(run: _Run) -> None:
    """Deliver what was just recorded, to people, Kafka and search. What cannot be delivered waits in the outbox for `flows.delivery`."""
    try:
        by_sink = relay(longest_seconds=60)
    except Exception as error:  # noqa: BLE001  the prices are recorded; checking goes on
        get_run_logger().error("events wait in the outbox: %s", _reason(error))
        run.troubles[f"events wait in the outbox: {_reason(error)}"] = None
        return
    run.seen |= systems_of(by_sink)
    for sink, done in by_sink.items():
        what = "alerts" if sink == Sink.NOTIFY else f"events for {sink}"
        if done.dead:
            run.troubles[f"{what} were given up; `keeper {'alerts' if sink == Sink.NOTIFY else 'status'}` says why"] = None
        if done.down:
            # People wait for alerts; what waits for another system is no failure of the check.
            notes = run.troubles if sink == Sink.NOTIFY else run.notes
            notes[f"{what} wait in the outbox: {done.down[:_LONGEST_REASON]}"] = None


def _reason(error: Exception) -> str:
    """What people read: ours are written for them, of any other only its kind and first line (SQLAlchemy adds the whole statement)."""
    if isinstance(error, KeeperError):
        return str(error)[:_LONGEST_REASON]
    lines = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *lines[:1]])[:_LONGEST_REASON]


if __name__ == "__main__":
    price_watch()
