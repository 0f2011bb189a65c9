"""Make what the deployments need in Prefect: the work pool and the global limits. Idempotent: `python -m deployments.bootstrap`.

A limit's values are written only when it is made, or when Keepa's refill rate has changed since: what a person sets in between stays.
"""

import argparse
import sys

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate, WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.variables import Variable
from sqlalchemy import Engine

from keeper.domain.errors import KeeperError
from keeper.postgres.installation import select_clock_speed
from keeper.postgres.ledger import read_ledger
from keeper.resources import Resources, open_resources
from tasks.limits import REQUESTS, TOKENS

# The refill rate the limit was last written for, so that a new one is noticed and a person's own values are left alone.
_RATE_VARIABLE = "keeper_refill_per_minute"


def bootstrap(resources: Resources) -> list[str]:
    """Make or mend everything. Returns a line per thing made or changed."""
    rate, speed = _rate(resources.engine)
    with get_client(sync_client=True) as client:
        changes = _work_pool(client, resources.settings.prefect.work_pool)
        changes += _limit(client, REQUESTS, limit=resources.settings.keepa.requests_at_once, decay=0.0, is_new_rate=False)
        known = str(Variable.get(_RATE_VARIABLE, default=""))
        wanted = f"{rate} x {speed:g}"
        changes += _limit(client, TOKENS, limit=rate * 60, decay=2 * rate / 60 * speed, is_new_rate=known not in ("", wanted))
    if known != wanted:
        Variable.set(_RATE_VARIABLE, wanted, overwrite=True)
    return changes


def _rate(engine: Engine) -> tuple[int, float]:
    with engine.begin() as connection:
        bucket = read_ledger(connection).bucket
        speed = select_clock_speed(connection)
    if bucket is None or bucket.refill_per_minute == 0:
        raise KeeperError("Keepa has not said its refill rate yet; `keeper tokens --refresh` asks")
    return bucket.refill_per_minute, speed


def _work_pool(client: SyncPrefectClient, name: str) -> list[str]:
    try:
        client.read_work_pool(name)
        return []
    except ObjectNotFound:
        pass
    try:
        client.create_work_pool(WorkPoolCreate(name=name, type="process", description="Keeper's flows, each in a process of its own"))
    except ObjectAlreadyExists:
        return []
    return [f"work pool {name} made"]


def _limit(client: SyncPrefectClient, name: str, *, limit: int, decay: float, is_new_rate: bool) -> list[str]:
    try:
        client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name=name, limit=limit, active=True, active_slots=0, slot_decay_per_second=decay)
        )
        return [f"limit {name} made: {limit}, decay {decay:g}/s"]
    if not is_new_rate:
        return []
    client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(limit=limit, slot_decay_per_second=decay))
    return [f"limit {name} changed with Keepa's refill rate: {limit}, decay {decay:g}/s"]


def main() -> None:
    """Run it and say what changed."""
    argparse.ArgumentParser(prog="python -m deployments.bootstrap", description=__doc__).parse_args()
    try:
        with open_resources() as resources:
            changes = bootstrap(resources)
    except KeeperError as error:
        sys.exit(f"bootstrap: {error}")
    print("\n".join(changes) or "everything is there already")


if __name__ == "__main__":
    main()
