"""Make what the deployments need: work pools, limits and automations in Prefect, topics, indices. Idempotent.

`python -m deployments.bootstrap`, then `prefect --no-prompt deploy --all`. What Keeper made once and names no longer is listed, and
removed with `--prune`, after the deploying.

A Kafka or an Elasticsearch that does not answer is left out and named; whoever connects to it first makes what it lacks.
A limit's values are written only when it is made, or when Keepa's refill rate has changed since: what a person sets in between stays.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, temporary_settings

from deployments.automations import ensure_automations
from deployments.kibana.importing import bring_dashboards
from deployments.pools import ensure_pools
from deployments.prune import list_unnamed, prune
from keeper.domain.errors import KeeperError
from keeper.domain.events import Sink
from keeper.exchange import load_seeds
from keeper.kafka import topics
from keeper.postgres.installation import select_clock_speed
from keeper.postgres.ledger import read_ledger
from keeper.resources import Resources, open_resources
from keeper.search import indices
from keeper.settings import PrefectSettings
from keeper.trade_files import read_seed_rates
from tasks.limits import write_limits


def bootstrap(resources: Resources, *, is_pruning: bool = False) -> list[str]:
    """Make or mend everything. Returns a line per thing made or changed, and per thing that is named no longer.

    Args:
        is_pruning: what is named no longer is removed; else it is only listed.
    """
    settings = resources.settings.prefect
    with get_client(sync_client=True) as client:
        changes = ensure_pools(client, settings)
        changes += _limits(resources)
        changes += ensure_automations(client, settings)
        changes += _exchange_rates(resources)
        answering: set[Sink] = set()
        changes += _topics(resources, answering) + _indices(resources, answering)
        changes += bring_dashboards(resources.settings)
        return changes + prune(list_unnamed(client, resources, answering=answering), is_removing=is_pruning)


def _limits(resources: Resources) -> list[str]:
    """Made, written anew, or left out while nobody knows Keepa's rate: the rest is needed all the same, for people to see what is wrong."""
    try:
        # Asks, where the rate is not known yet.
        _ = resources.keepa
    except KeeperError as error:
        return [f"limits left out: {error}; run this again when Keepa answers (maintenance/daily makes them, too)"]
    with resources.engine.begin() as connection:
        bucket = read_ledger(connection).bucket
        speed = select_clock_speed(connection)
    if bucket is None or bucket.refill_per_minute == 0:
        return ["limits left out: Keepa has not said its refill rate yet; `keeper tokens --refresh` asks, then run this again"]
    return write_limits(bucket.refill_per_minute, speed, resources.settings.keepa.requests_at_once)


def _exchange_rates(resources: Resources) -> list[str]:
    """What the file says of days on which nobody has published anything."""
    try:
        loaded = load_seeds(resources.engine, read_seed_rates(resources.settings.arbitrage.tables))
    except KeeperError as error:
        return [f"exchange rates left out: {error}"]
    return [f"{loaded} exchange rates read from exchange_rates.csv"] if loaded else []


def _topics(resources: Resources, answering: set[Sink]) -> list[str]:
    """Made, otherwise than wanted, or left out."""
    if resources.settings.kafka.bootstrap_servers is None:
        return []
    try:
        ensured = topics.ensure(resources.kafka_connection(), resources.topic_settings())
    except KeeperError as error:
        return [f"topics left out: {error}"]
    answering.add(Sink.KAFKA)
    return [*(f"topic {name} made" for name in ensured.made), *ensured.complaints]


def _indices(resources: Resources, answering: set[Sink]) -> list[str]:
    """Likewise."""
    if not resources.settings.elasticsearch.url:
        return []
    try:
        changes = indices.connect(resources.search_client(), resources.search_connection())
    except KeeperError as error:
        return [f"indices left out: {error}"]
    answering.add(Sink.SEARCH)
    return changes


@contextmanager
def _authenticated(settings: PrefectSettings) -> Iterator[None]:
    """Keeper's own setting serves where Prefect's is not set."""
    if settings.api_auth is None or PREFECT_API_AUTH_STRING.value() is not None:
        yield
        return
    with temporary_settings({PREFECT_API_AUTH_STRING: settings.api_auth.get_secret_value()}):
        yield


def main() -> None:
    """Run it and say what changed."""
    parser = argparse.ArgumentParser(prog="python -m deployments.bootstrap", description=__doc__)
    parser.add_argument("--prune", action="store_true", help="remove what Keeper made once and names no longer; topics never")
    arguments = parser.parse_args()
    try:
        with open_resources(keepa=False) as resources, _authenticated(resources.settings.prefect):
            changes = bootstrap(resources, is_pruning=arguments.prune)
    except KeeperError as error:
        sys.exit(f"bootstrap: {error}")
    print("\n".join(changes) or "everything is there already")


if __name__ == "__main__":
    main()
