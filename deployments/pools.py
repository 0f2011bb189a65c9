"""The two work pools: what runs every five minutes in processes, the rest in containers where there is an image for them.

The pools' job templates belong to Keeper and are written anew when the settings change; what a person wants otherwise for one
deployment goes into its job variables. A template holds the names of Keeper's settings and no value: a docker worker puts those of
its own environment in, so that no secret is in Prefect's database.
"""

from dataclasses import dataclass
from typing import Any, Final

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName
from prefect.client.schemas.objects import WorkPool
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from keeper.settings import PrefectSettings, list_fields

PROCESS: Final = "keeper-process"
HEAVY: Final = "keeper-heavy"
# By priority: of two late runs that of the lower number starts first.
QUEUES: Final = {"critical": 1, "default": 2}
# The shortest Prefect allows. The rule that takes a silent run for dead counts on it, so it is no matter of the worker's environment.
HEARTBEAT_SECONDS: Final = 30

_TEXT: Final[dict[str, Any]] = {"type": "string"}
_FLAG: Final[dict[str, Any]] = {"type": "boolean"}
_TEXTS: Final[dict[str, Any]] = {"type": "array", "items": _TEXT}
_BY_NAME: Final[dict[str, Any]] = {"type": "object", "additionalProperties": _TEXT}
_ANY_JOB: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "command": ("The command of a run; empty: Prefect's own", _TEXT),
    "env": ("Environment variables of a run", _BY_NAME),
    "labels": ("Labels of what the worker makes for a run", _BY_NAME),
    "name": ("Name of what the worker makes for a run", _TEXT),
    "stream_output": ("Whether the worker shows what a run prints", _FLAG),
}
_PROCESS_JOB: Final = _ANY_JOB | {"working_dir": ("Folder of a run; empty: one of its own", _TEXT)}
_DOCKER_JOB: Final = _ANY_JOB | {
    "image": ("Keeper's image", _TEXT),
    "image_pull_policy": ("When the image is pulled", {"type": "string", "enum": ["Never", "IfNotPresent", "Always", "IfPossible"]}),
    "networks": ("Networks of the container", _TEXTS),
    "auto_remove": ("Whether the container goes with the run", _FLAG),
    "volumes": ("What is mounted: path on the Docker host:path in the container", _TEXTS),
    "mem_limit": ("Most memory of the container", _TEXT),
    "container_create_kwargs": ("What else Docker is told of the container", {"type": "object"}),
}


@dataclass(frozen=True, slots=True)
class Pool:
    """A work pool as it should be."""

    name: str
    kind: str
    description: str
    template: dict[str, Any]


def wanted_pools(settings: PrefectSettings) -> list[Pool]:
    """Both pools, by the settings."""
    heartbeat = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)}
    process = _template(_PROCESS_JOB, {"env": heartbeat, "stream_output": True})
    pools = [Pool(PROCESS, "process", "Keeper's flows of every five minutes, each run in a process of its own", process)]
    if settings.docker_image is None:
        return [*pools, Pool(HEAVY, "process", "Keeper's hourly, daily and heavy flows, each run in a process of its own", process)]
    docker = _template(
        _DOCKER_JOB,
        {
            # Empty in the worker's environment is empty in the container's, and so unset.
            "env": {name: f"{{{{ ${name} }}}}" for name, _, _ in list_fields()} | heartbeat,
            "image": settings.docker_image,
            "image_pull_policy": settings.docker_pull,
            "networks": [settings.docker_network],
            "auto_remove": True,
            "mem_limit": settings.docker_memory,
            "container_create_kwargs": {
                "cap_drop": ["ALL"],
                "security_opt": ["no-new-privileges:true"],
                "read_only": True,
                "tmpfs": {"/tmp": ""},  # noqa: S108 - in the container
                "init": True,
                "healthcheck": {"test": ["NONE"]},
            },
            "stream_output": True,
        },
    )
    return [*pools, Pool(HEAVY, "docker", "Keeper's hourly, daily and heavy flows, each run in a container of its own", docker)]


def process_pools(settings: PrefectSettings) -> list[str]:
    """The pools whose runs are processes."""
    return [pool.name for pool in wanted_pools(settings) if pool.kind == "process"]


def _template(job: dict[str, tuple[str, dict[str, Any]]], defaults: dict[str, Any]) -> dict[str, Any]:
    properties = {}
    for name, (description, kind) in job.items():
        properties[name] = {"title": name.replace("_", " ").title(), "description": description, **kind}
        if name in defaults:
            properties[name]["default"] = defaults[name]
    return {"job_configuration": {name: f"{{{{ {name} }}}}" for name in job}, "variables": {"type": "object", "properties": properties}}


def ensure_pools(client: SyncPrefectClient, settings: PrefectSettings) -> list[str]:
    """Make or mend both pools and their queues. Returns a line per thing made or changed."""
    changes = []
    for pool in wanted_pools(settings):
        changes += _ensure_pool(client, pool)
        changes += _ensure_queues(client, pool.name)
    return changes


def _ensure_pool(client: SyncPrefectClient, pool: Pool) -> list[str]:
    try:
        there = client.read_work_pool(pool.name)
    except ObjectNotFound:
        return [f"work pool {pool.name} made, type {pool.kind}"] if _make(client, pool) else []
    if there.type != pool.kind:
        return _change_kind(client, there, pool)
    if (there.base_job_template, there.description) == (pool.template, pool.description):
        return []
    client.update_work_pool(pool.name, WorkPoolUpdate(base_job_template=pool.template, description=pool.description))
    return [f"work pool {pool.name} changed, with its settings"]


def _make(client: SyncPrefectClient, pool: Pool) -> bool:
    try:
        client.create_work_pool(
            WorkPoolCreate(name=pool.name, type=pool.kind, description=pool.description, base_job_template=pool.template)
        )
    except ObjectAlreadyExists:
        return False
    return True


def _change_kind(client: SyncPrefectClient, there: WorkPool, pool: Pool) -> list[str]:
    """A pool's type never changes, so it is made anew; deleting it takes its queues from its deployments, which get them back."""
    of_pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool.name]))
    queues = {one.id: one.work_queue_name for one in client.read_deployments(work_pool_filter=of_pool)}
    client.delete_work_pool(pool.name)
    _make(client, pool)
    _ensure_queues(client, pool.name)
    for deployment_id, queue in queues.items():
        client.update_deployment(deployment_id, DeploymentUpdate(work_pool_name=pool.name, work_queue_name=queue))
    return [f"work pool {pool.name} made anew, type {pool.kind} instead of {there.type}; its worker has to be of that type, too"]


def _ensure_queues(client: SyncPrefectClient, pool: str) -> list[str]:
    there = {queue.name for queue in client.read_work_queues(work_pool_name=pool)}
    changes = []
    for name, priority in QUEUES.items():
        if name not in there:
            client.create_work_queue(name, work_pool_name=pool, priority=priority)
            changes.append(f"work queue {pool}/{name} made, priority {priority}")
    # Read again, because a new one pushes the others back.
    for queue in client.read_work_queues(work_pool_name=pool):
        wanted = QUEUES.get(queue.name, queue.priority)
        if wanted is not None and queue.priority != wanted:
            client.update_work_queue(queue.id, priority=wanted)
            changes.append(f"work queue {pool}/{queue.name} changed, priority {wanted}")
    return changes
