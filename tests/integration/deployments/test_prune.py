"""What Keeper made once and names no longer, on real systems: listed by `bootstrap`, removed with `--prune`."""

from datetime import timedelta

import httpx
from confluent_kafka.admin import AdminClient, NewTopic
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, GlobalConcurrencyLimitCreate
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.events.actions import DoNothing
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from deployments.bootstrap import bootstrap
from deployments.prune import named_deployments
from keeper.settings import ElasticsearchSettings, KafkaSettings
from tests.services.installation import Installation
from tests.services.session import ElasticsearchService, KafkaService

SILENT = EventTrigger(posture=Posture.Reactive, expect={"nobody.emits.this"})


def by_cron(slug: str | None) -> DeploymentScheduleCreate:
    """A schedule that does not fire while a test runs."""
    return DeploymentScheduleCreate(schedule=CronSchedule(cron="2 4 1 1 *", timezone="UTC"), slug=slug, active=False)


def test_schedules_are_those_of_the_file_by_the_names_prefect_knows() -> None:
    named = named_deployments()

    assert named["price-watch/tick"] == {"tick"}
    assert named["operations-report/morning"] == {"operations-morning"}
    assert named["reindex/by-hand"] == set()


def test_zombies_are_listed_then_removed_and_what_is_named_or_foreign_stays(installation: Installation, client: SyncPrefectClient) -> None:
    bootstrap(installation.resources)
    watch, foreign = client.create_flow_from_name("price-watch"), client.create_flow_from_name("theirs")
    schedules = [
        by_cron("tick"),
        by_cron("every-minute"),
        DeploymentScheduleCreate(schedule=IntervalSchedule(interval=timedelta(days=300))),
    ]
    kept = client.create_deployment(watch, "tick", tags=["keeper", "keepa"], schedules=schedules)
    client.create_deployment(watch, "every-minute", tags=["keeper"], schedules=[by_cron("every-minute")], concurrency_limit=1)
    client.create_deployment(foreign, "every-minute", tags=["theirs"])
    for name, tags in (("keeper: an old rule", ["keeper"]), ("a person's rule", [])):
        client.create_automation(AutomationCore(name=name, tags=tags, trigger=SILENT, actions=[DoNothing()]))
    for name in ("keepa-searches", "theirs"):
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1, active=True, active_slots=0))
    try:
        zombies = [
            "deployment price-watch/every-minute",
            "schedule every-minute of price-watch/tick",
            "automation keeper: an old rule",
            "limit keepa-searches",
        ]

        assert sorted(bootstrap(installation.resources)) == sorted(f"{zombie} is named no longer; --prune removes it" for zombie in zombies)
        assert sorted(bootstrap(installation.resources, is_pruning=True)) == sorted(f"{zombie} removed" for zombie in zombies)
        assert bootstrap(installation.resources, is_pruning=True) == []

        assert {one.tags[0] for one in client.read_deployments()} == {"keeper", "theirs"}
        assert {one.slug for one in client.read_deployment(kept).schedules} == {"tick", None}
        assert "a person's rule" in {one.name for one in client.read_automations()}
        limits = client.read_global_concurrency_limits(limit=50, offset=0)
        assert {one.name for one in limits} == {"keepa-requests", "keepa-tokens", "theirs"}
    finally:
        client.delete_global_concurrency_limit_by_name("theirs")


def test_alias_goes_without_its_documents_and_a_topic_never(
    installation: Installation, client: SyncPrefectClient, kafka: KafkaService, elasticsearch: ElasticsearchService
) -> None:
    resources = installation.resources
    resources.settings = resources.settings.model_copy(
        update={
            "kafka": KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=kafka.prefix),
            "elasticsearch": ElasticsearchSettings(url=(elasticsearch.url,), index_prefix=elasticsearch.prefix),
        }
    )
    alias, topic = f"{elasticsearch.prefix}keeper-sellers", f"{kafka.prefix}seller-updates"
    bootstrap(resources)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    for made in admin.create_topics([NewTopic(topic, 1, 1)]).values():
        made.result(10)
    with httpx.Client(base_url=elasticsearch.url, timeout=20) as search:
        template = {"index_patterns": [f"{alias}-v*"], "_meta": {"made_by": "keeper"}, "template": {}}
        search.put(f"/_index_template/{alias}", json=template).raise_for_status()
        search.put(f"/{alias}-v1-000001", json={"aliases": {alias: {}}}).raise_for_status()

        listed = bootstrap(resources)
        removed = bootstrap(resources, is_pruning=True)

        assert search.head(f"/_alias/{alias}").status_code == httpx.codes.NOT_FOUND
        assert search.head(f"/{alias}-v1-000001").status_code == httpx.codes.OK
        assert search.head(f"/_alias/{elasticsearch.prefix}keeper-deals").status_code == httpx.codes.OK
    stays = f"topic {topic} is named no longer; Keeper never removes it"
    assert listed == [f"alias {alias} is named no longer; --prune removes it", stays]
    assert removed == [f"alias {alias} removed", stays]
    assert bootstrap(resources) == [stays]
