"""The two work pools on a real Prefect server."""

import asyncio
import json

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.workers.base import BaseJobConfiguration

from deployments.pools import HEAVY, PROCESS, ensure_pools, process_pools
from keeper.settings import PrefectSettings

CONTAINERS = PrefectSettings(docker_image="keeper:1", docker_network="quay", docker_pull="Never", docker_memory="700m")


def test_second_call_changes_nothing_in_containers_either(client: SyncPrefectClient) -> None:
    ensure_pools(client, CONTAINERS)

    assert ensure_pools(client, CONTAINERS) == []


def test_queue_that_a_person_has_moved_goes_back_to_its_place(client: SyncPrefectClient) -> None:
    ensure_pools(client, PrefectSettings())
    critical = client.read_work_queue_by_name("critical", PROCESS)
    client.update_work_queue(critical.id, priority=7)

    assert ensure_pools(client, PrefectSettings()) == [f"work queue {PROCESS}/critical changed, priority 1"]


def test_image_makes_heavy_runs_containers_and_leaves_the_others_processes(client: SyncPrefectClient) -> None:
    ensure_pools(client, CONTAINERS)

    said = {name: one.get("default") for name, one in client.read_work_pool(HEAVY).base_job_template["variables"]["properties"].items()}
    assert client.read_work_pool(HEAVY).type == "docker"
    assert (said["image"], said["networks"], said["image_pull_policy"], said["mem_limit"]) == ("keeper:1", ["quay"], "Never", "700m")
    assert said["auto_remove"] is True
    assert client.read_work_pool(PROCESS).type == "process"
    assert process_pools(CONTAINERS) == [PROCESS]


def job_of(client: SyncPrefectClient, pool: str) -> BaseJobConfiguration:
    """As its worker would start it, for a deployment that wants one thing otherwise."""
    template = client.read_work_pool(pool).base_job_template
    made = asyncio.run(BaseJobConfiguration.from_template_and_values(template, {"env": {"KEEPER_LOG_LEVEL": "DEBUG"}}))
    assert isinstance(made, BaseJobConfiguration)
    return made


def test_container_gets_the_settings_of_its_worker_and_prefect_stores_none(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEEPER_DATABASE_URL", "postgresql://keeper:secret@db/keeper")
    ensure_pools(client, CONTAINERS)

    environment = job_of(client, HEAVY).env

    assert environment["KEEPER_DATABASE_URL"] == "postgresql://keeper:secret@db/keeper"
    assert (environment["KEEPER_LOG_LEVEL"], environment["KEEPER_KEEPA_API_KEY"]) == ("DEBUG", "")
    assert "secret" not in json.dumps(client.read_work_pool(HEAVY).base_job_template)


def test_runs_of_both_pools_send_the_heartbeats_their_automation_waits_for(client: SyncPrefectClient) -> None:
    ensure_pools(client, CONTAINERS)

    assert [job_of(client, pool).env["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] for pool in (PROCESS, HEAVY)] == ["30", "30"]


def test_pool_of_another_type_is_made_anew_and_keeps_its_deployments(client: SyncPrefectClient) -> None:
    ensure_pools(client, PrefectSettings())
    flow_id = client.create_flow_from_name("price-watch")
    deployment_id = client.create_deployment(
        flow_id, "every-6h", work_pool_name=HEAVY, work_queue_name="critical", job_variables={"stream_output": False}, tags=["keeper"]
    )

    changes = ensure_pools(client, CONTAINERS)

    assert changes == [f"work pool {HEAVY} made anew, type docker instead of process; its worker has to be of that type, too"]
    kept = client.read_deployment(deployment_id)
    assert (kept.work_pool_name, kept.work_queue_name, kept.tags) == (HEAVY, "critical", ["keeper"])
    assert kept.job_variables == {"stream_output": False}
