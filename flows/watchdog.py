"""Every five minutes: look at what Keeper brings about, and tell the operators of what is wrong."""

import platform
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import deployment
from prefect.settings import get_current_settings
from prefect.states import Completed, Failed

from flows.artifacts import show_round
from tasks.watchdog import watch


@flow(name="watchdog", flow_run_name="watchdog")
def watchdog() -> State[Any]:
    """Look, and tell. A trouble is no failure of this run; a check that fails itself, or a message no channel takes, is.

    `keeper watchdog` from cron does the same without Prefect, and tells when Prefect is down; both together tell once.
    """
    done = watch(_scheduler())
    show_round(f"watchdog/{deployment.name or 'by-hand'}", done)
    foul = [one.check for one in done.seen if one.is_foul]
    problems = [*(f"the check {name} failed" for name in foul), *(() if done.is_heard else done.untold)]
    return Failed(message=f"{done.sentence}; {'; '.join(problems)}") if problems else Completed(message=done.sentence)


def _scheduler() -> tuple[UUID, str] | None:
    """This deployment, which no other Prefect database has, and where it is from."""
    if not deployment.id:
        return None
    parsed = urlsplit(get_current_settings().api.url or "")
    return UUID(str(deployment.id)), f"Prefect at {parsed.hostname}:{parsed.port}, run on {platform.node()}"


if __name__ == "__main__":
    watchdog()
