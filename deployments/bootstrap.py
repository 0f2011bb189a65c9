"""Make what the deployments need: work pool and limits in Prefect, topics, indices. Idempotent: `python -m deployments.bootstrap`.

A Kafka or an Elasticsearch that does not answer is left out and named; whoever connects to it first makes what it lacks.
A limit's values are written only when it is made, or when Keepa's refill rate has changed since: what a person sets in between stays.
"""

import argparse
import sys

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from sqlalchemy import Engine

from deployments.kibana.importing import bring_dashboards
from keeper.domain.errors import KeeperError
from keeper.exchange import load_seeds
from keeper.kafka import topics
from keeper.postgres.installation import select_clock_speed
from keeper.postgres.ledger import read_ledger
from keeper.resources import Resources, open_resources
from keeper.search import indices
from keeper.trade_files import read_seed_rates
from tasks.limits import write_limits


def bootstrap(resources: Resources) -> list[str]:
    """Make or mend everything. Returns a line per thing made or changed."""
    rate, speed = _rate(resources.engine)
    with get_client(sync_client=True) as client:
        changes = _work_pool(client, resources.settings.prefect.work_pool)
    changes += write_limits(rate, speed, resources.settings.keepa.requests_at_once)
    changes += _exchange_rates(resources) + _topics(resources) + _indices(resources)
    return changes + bring_dashboards(resources.settings)


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


def _exchange_rates(resources: Resources) -> list[str]:
    """What the file says of days on which nobody has published anything."""
    try:
        loaded = load_seeds(resources.engine, read_seed_rates(resources.settings.arbitrage.tables))
    except KeeperError as error:
        return [f"exchange rates left out: {error}"]
    return [f"{loaded} exchange rates read from exchange_rates.csv"] if loaded else []


def _topics(resources: Resources) -> list[str]:
    """Made, otherwise than wanted, or left out."""
    if resources.settings.kafka.bootstrap_servers is None:
        return []
    try:
        ensured = topics.ensure(resources.kafka_connection(), resources.topic_settings())
    except KeeperError as error:
        return [f"topics left out: {error}"]
    return [*(f"topic {name} made" for name in ensured.made), *ensured.complaints]


def _indices(resources: Resources) -> list[str]:
    """Likewise."""
    if not resources.settings.elasticsearch.url:
        return []
    try:
        return indices.connect(resources.search_client(), resources.search_connection())
    except KeeperError as error:
        return [f"indices left out: {error}"]


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
