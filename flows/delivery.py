"""Sweep the outbox until it is empty: what the recording run left, and what is due for another try."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import deployment
from prefect.states import Cancelled, Completed, Failed

from flows.artifacts import show_delivery
from flows.events import systems_of, tell_changes
from keeper.domain.events import Sink
from keeper.postgres.jobs import hold_job
from keeper.resources import process_resources
from tasks.relay import relay


@flow(name="delivery", flow_run_name="deliver what waits in the outbox")
def delivery(longest_seconds: float = 240) -> State[Any]:
    """Deliver what waits. A message given up fails the run.

    One that was refused waits for its next try, and what waits for a system that is down is told by its event and the watchdog, once: a
    run that fails every five minutes until it is back would tell nobody more.

    Args:
        longest_seconds: stop after so long.
    """
    job = f"delivery/{deployment.name or 'by-hand'}"
    with hold_job(process_resources().engine, job) as is_mine:
        if not is_mine:
            return Cancelled(message=f"another scheduler runs {job} on this database; remove one of the two deployments")
        by_sink = relay(longest_seconds=longest_seconds)
        show_delivery(job, by_sink)
        tell_changes(systems_of(by_sink))
    parts = [
        f"{sink}: delivered {done.delivered}, refused {done.refused}, dead {done.dead}"
        for sink, done in by_sink.items()
        if done.known or sink == Sink.NOTIFY
    ]
    parts += [done.down for done in by_sink.values() if done.down]
    if not all(done.is_complete or done.down for done in by_sink.values()):
        parts.append("more waits for the next run")
    return (Failed if any(done.dead for done in by_sink.values()) else Completed)(message="; ".join(parts))
