"""`deployments.bootstrap` and `prefect deploy` on a real Prefect server, twice."""

from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import DeploymentResponse

from deployments.bootstrap import bootstrap
from deployments.stack import free_port
from keeper.settings import ElasticsearchSettings, KafkaSettings
from tasks.limits import REQUESTS, TOKENS
from tests.services.installation import Installation
from tests.services.prefect import POOLS
from tests.services.session import ElasticsearchService, KafkaService
from tests.services.waiting import wait_until

SCHEDULER_SECONDS = 90


def test_first_call_makes_pools_limits_and_automations(installation: Installation, client: SyncPrefectClient) -> None:
    changes = bootstrap(installation.resources)

    assert [change.split(" ")[0] for change in changes] == [*["work"] * 4, *["limit"] * 2, *["automation"] * 7, "1"]
    for name in POOLS:
        assert client.read_work_pool(name).type == "process"
        queues = sorted(client.read_work_queues(work_pool_name=name), key=lambda queue: queue.priority or 0)
        assert [(queue.name, queue.priority) for queue in queues] == [("critical", 1), ("default", 2)]
    requests, tokens = installation.prefect.limit(REQUESTS), installation.prefect.limit(TOKENS)
    assert (requests.limit, requests.slot_decay_per_second) == (5, 0)
    assert tokens.limit == 1200
    assert tokens.slot_decay_per_second == pytest.approx(2 * 20 / 60)


def test_decay_follows_the_speed_of_business_time(installation: Installation, client: SyncPrefectClient) -> None:
    installation.set_speed(600)

    bootstrap(installation.resources)

    assert installation.prefect.limit(TOKENS).slot_decay_per_second == pytest.approx(2 * 20 / 60 * 600)


def test_second_call_changes_nothing(installation: Installation, client: SyncPrefectClient) -> None:
    bootstrap(installation.resources)
    before = [installation.prefect.limit(name).updated for name in (REQUESTS, TOKENS)]

    assert bootstrap(installation.resources) == []
    assert [installation.prefect.limit(name).updated for name in (REQUESTS, TOKENS)] == before


def test_values_a_person_set_stay(installation: Installation, client: SyncPrefectClient) -> None:
    bootstrap(installation.resources)
    client.update_global_concurrency_limit(TOKENS, GlobalConcurrencyLimitUpdate(limit=10, slot_decay_per_second=0.1))
    client.update_global_concurrency_limit(REQUESTS, GlobalConcurrencyLimitUpdate(limit=2))

    assert bootstrap(installation.resources) == []
    assert installation.prefect.limit(TOKENS).limit == 10
    assert installation.prefect.limit(TOKENS).slot_decay_per_second == pytest.approx(0.1)
    assert installation.prefect.limit(REQUESTS).limit == 2


def test_limit_is_written_anew_when_keepa_refills_at_another_rate(installation: Installation, client: SyncPrefectClient) -> None:
    bootstrap(installation.resources)
    with installation.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE token_ledger SET refill_per_minute = 60")

    (change,) = bootstrap(installation.resources)

    assert change.startswith(f"limit {TOKENS} changed")
    assert installation.prefect.limit(TOKENS).limit == 3600
    assert bootstrap(installation.resources) == []


def test_unknown_bucket_leaves_out_the_limits_alone_and_says_what_to_do(installation: Installation, client: SyncPrefectClient) -> None:
    with installation.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE token_ledger SET observed_at = NULL")

    changes = bootstrap(installation.resources)
    (left_out,) = [line for line in changes if line.startswith("limits left out")]
    assert "keeper tokens --refresh" in left_out
    assert {"keeper-process", "keeper-heavy"} <= {pool.name for pool in client.read_work_pools()}


def by_name(client: SyncPrefectClient) -> dict[str, DeploymentResponse]:
    """The deployments, by the function of their flow and their name."""
    return {f"{str(one.entrypoint).rpartition('.')[2]}/{one.name}": one for one in client.read_deployments()}


def test_deploying_twice_keeps_schedules_and_runs_are_scheduled(installation: Installation, client: SyncPrefectClient) -> None:
    bootstrap(installation.resources)
    stack = installation.prefect.stack

    stack.run("prefect", "--no-prompt", "deploy", "--all")
    first = by_name(client)
    stack.run("prefect", "--no-prompt", "deploy", "--all")
    second = by_name(client)

    assert set(first) == {
        "price_watch/every-6h", "price_watch/tick", "delivery/every-5min", "maintenance/daily", "deal_collection/hourly",
        "reports/hourly", "operations_report/morning", "arbitrage_scan/every-2h", "discovery/weekly", "reindex/by-hand",
        "watchdog/every-5min",
    }  # fmt: skip
    assert {name: one.id for name, one in first.items()} == {name: one.id for name, one in second.items()}
    assert schedule_ids(first) == schedule_ids(second)
    for deployment in second.values():
        assert deployment.global_concurrency_limit is not None
        assert deployment.global_concurrency_limit.limit == 1
        assert deployment.concurrency_options is not None
        assert deployment.concurrency_options.collision_strategy.value == "CANCEL_NEW"
        assert deployment.concurrency_options.grace_period_seconds == 60

        # What is off by default, or by hand, has no run ahead.
        if not any(schedule.active for schedule in deployment.schedules):
            assert deployment.name in ("weekly", "by-hand")
            continue
        wait_until(
            partial(is_scheduled, client, deployment.id), f"no run of {deployment.name} is scheduled", longest_seconds=SCHEDULER_SECONDS
        )


def test_pausing_a_schedule_survives_a_deploy(installation: Installation, client: SyncPrefectClient) -> None:
    bootstrap(installation.resources)
    stack = installation.prefect.stack
    stack.run("prefect", "--no-prompt", "deploy", "--name", "tick")
    (deployed,) = client.read_deployments()
    client.update_deployment_schedule(deployed.id, deployed.schedules[0].id, active=False)

    stack.run("prefect", "--no-prompt", "deploy", "--name", "tick")

    assert [schedule.active for schedule in client.read_deployments()[0].schedules] == [False]


def test_topics_and_indices_are_made_once(
    installation: Installation, client: SyncPrefectClient, kafka: KafkaService, elasticsearch: ElasticsearchService
) -> None:
    switch_on(
        installation,
        kafka=KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=kafka.prefix),
        elasticsearch=ElasticsearchSettings(url=(elasticsearch.url,), index_prefix=elasticsearch.prefix),
    )

    changes = bootstrap(installation.resources)

    assert f"topic {kafka.prefix}price-updates made" in changes
    assert f"made index {elasticsearch.prefix}products-v2-000001 behind alias {elasticsearch.prefix}products" in changes
    assert bootstrap(installation.resources) == []


def test_what_does_not_answer_is_left_out_and_named(installation: Installation, client: SyncPrefectClient) -> None:
    switch_on(
        installation,
        kafka=KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}", connect_timeout_seconds=1),
        elasticsearch=ElasticsearchSettings(url=(f"http://127.0.0.1:{free_port()}",)),
    )

    changes = bootstrap(installation.resources)

    assert client.read_work_pool(POOLS[0]).type == "process"
    assert [change.split(":")[0] for change in changes[-2:]] == ["topics left out", "indices left out"]


def switch_on(installation: Installation, **systems: Any) -> None:
    """Let this process's resources have more systems."""
    installation.resources.settings = installation.resources.settings.model_copy(update=systems)


def is_scheduled(client: SyncPrefectClient, deployment_id: UUID) -> bool:
    """Whether the deployment has a run to come."""
    return bool(
        client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id])),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))),
        )
    )


def schedule_ids(deployments: Mapping[str, DeploymentResponse]) -> dict[str, list[UUID]]:
    """By deployment."""
    return {name: [schedule.id for schedule in one.schedules] for name, one in deployments.items()}
