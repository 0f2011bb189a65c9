"""What Keeper made once and names no longer: deployments, schedules, automations, limits, aliases, topics.

Keeper's are a deployment and an automation with its tag, a schedule with a slug on such a deployment, a limit whose name begins with
`keepa-` or `keeper-`, an alias `keeper-…` whose template Keeper made, a topic whose name begins as Keeper's do. Each keeps running, or
costs, unseen: an old deployment spends tokens twice.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.flows import load_flow_arguments_from_entrypoint

from deployments.automations import TAG, read_ours, wanted_automations
from deployments.stack import ROOT
from keeper.domain.events import Sink
from keeper.kafka import topics
from keeper.resources import Resources
from keeper.search import indices
from tasks.limits import REQUESTS, TOKENS

FILE: Final = ROOT / "prefect.yaml"
_LIMITS: Final = ("keepa-", "keeper-")
_PAGE: Final = 200


@dataclass(frozen=True, slots=True)
class Unnamed:
    """One of them.

    Attributes:
        remove: None where Keeper never removes it.
    """

    what: str
    remove: Callable[[], object] | None


def list_unnamed(client: SyncPrefectClient, resources: Resources, *, answering: Collection[Sink], file: Path = FILE) -> list[Unnamed]:
    """All of them.

    Args:
        answering: of Kafka and Elasticsearch those that answer; the others are not asked.
    """
    found = [*_deployments(client, named_deployments(file)), *_automations(client), *_limits(client)]
    if Sink.SEARCH in answering:
        found += _aliases(resources)
    if Sink.KAFKA in answering:
        found += _topics(resources)
    return found


def prune(unnamed: list[Unnamed], *, is_removing: bool) -> list[str]:
    """Remove them, or say that they could be. Returns a line each."""
    lines = []
    for one in unnamed:
        if one.remove is None:
            lines.append(f"{one.what} is named no longer; Keeper never removes it")
        elif is_removing:
            one.remove()
            lines.append(f"{one.what} removed")
        else:
            lines.append(f"{one.what} is named no longer; --prune removes it")
    return lines


def named_deployments(file: Path = FILE) -> dict[str, set[str]]:
    """The slugs of each deployment of `prefect.yaml`, by `<flow>/<name>` as Prefect knows it."""
    read: Mapping[str, Any] = yaml.safe_load(file.read_text())
    return {
        f"{load_flow_arguments_from_entrypoint(one['entrypoint'])['name']}/{one['name']}": {entry["slug"] for entry in one["schedules"]}
        for one in read["deployments"]
    }


def _deployments(client: SyncPrefectClient, named: Mapping[str, set[str]]) -> list[Unnamed]:
    found = []
    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    offset = 0
    while page := client.read_deployments(deployment_filter=ours, limit=_PAGE, offset=offset):
        offset += len(page)
        for one in page:
            name = f"{client.read_flow(one.flow_id).name}/{one.name}"
            if name not in named:
                found.append(Unnamed(f"deployment {name}", partial(client.delete_deployment, one.id)))
                continue
            # One without a slug is a person's own.
            found += [
                Unnamed(f"schedule {schedule.slug} of {name}", partial(client.delete_deployment_schedule, one.id, schedule.id))
                for schedule in one.schedules
                if schedule.slug is not None and schedule.slug not in named[name]
            ]
    return found


def _automations(client: SyncPrefectClient) -> list[Unnamed]:
    named = {one.name for one in wanted_automations()}
    seen: set[str] = set()
    found = []
    for one in read_ours(client):
        # A name twice is one too many: Prefect allows it, and each of the two acts.
        if one.name not in named or one.name in seen:
            found.append(Unnamed(f"automation {one.name}", partial(client.delete_automation, one.id)))
        seen.add(one.name)
    return found


def _limits(client: SyncPrefectClient) -> list[Unnamed]:
    limits = client.read_global_concurrency_limits(limit=_PAGE, offset=0)
    return [
        Unnamed(f"limit {one.name}", partial(client.delete_global_concurrency_limit_by_name, one.name))
        for one in limits
        if one.name.startswith(_LIMITS) and one.name not in (REQUESTS, TOKENS)
    ]


def _aliases(resources: Resources) -> list[Unnamed]:
    client, connection = resources.search_client(), resources.search_connection()
    return [
        Unnamed(f"alias {name}", partial(indices.delete_alias, client, connection, name))
        for name in indices.list_unnamed(client, connection)
    ]


def _topics(resources: Resources) -> list[Unnamed]:
    return [Unnamed(f"topic {name}", None) for name in topics.list_unnamed(resources.kafka_connection())]
