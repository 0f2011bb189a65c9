"""Watch as a task."""

from uuid import UUID

from prefect import task
from prefect.cache_policies import NO_CACHE

from keeper import watchdog as verb
from keeper.resources import machine_now
from keeper.settings import read_settings
from keeper.watchdog import Round


@task(name="watchdog", cache_policy=NO_CACHE, persist_result=False)
def watch(scheduler: tuple[UUID, str] | None) -> Round:
    """One round. Opens what it needs by itself, because what others open together may be what is down. No retry: the next is near."""
    return verb.watch(read_settings(), now=machine_now(), scheduler=scheduler)
