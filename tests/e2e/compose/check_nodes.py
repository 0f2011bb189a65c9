"""The settings of compose.nodes.yaml, run as plain processes: three brokers, three Elasticsearch nodes, and Keeper on them.

All but what a place decides (names, addresses, folders) is what compose would give the containers. Part of `make test-compose`.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from deployments.stack import ROOT
from keeper.kafka import topics
from keeper.resources import kafka_connection, search_connection, topic_settings
from keeper.search import indices
from keeper.search.connection import open_client
from keeper.settings import Settings, read_settings
from tests.services.elasticsearch import ElasticsearchCluster
from tests.services.engine import Engine, run
from tests.services.kafka import KafkaCluster
from tests.services.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

_PLACE_OF_A_BROKER = {
    *("node.id", "listeners", "advertised.listeners", "controller.quorum.voters", "listener.security.protocol.map"),
    *("controller.listener.names", "inter.broker.listener.name", "log.dirs", "heap.opts"),
}
_PLACE_OF_A_NODE = {"node.name", "cluster.name", "discovery.seed_hosts", "cluster.initial_master_nodes", "ES_JAVA_OPTS"}


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    """As compose reads both files."""
    engine = Engine()
    ran = engine.is_running()
    engine.start()
    words = ["docker", "compose", "--file", "compose.yaml", "--file", "compose.nodes.yaml", "config", "--format", "json"]
    read = run(words, environment=engine.environment | {"COMPOSE_PROFILES": "core,stream,search"}, cwd=ROOT)
    if not ran:
        engine.stop()
    found: dict[str, dict[str, Any]] = json.loads(read)["services"]
    return found


def broker_options(environment: dict[str, str]) -> dict[str, str]:
    """KAFKA_MIN_INSYNC_REPLICAS as min.insync.replicas, without what a place decides."""
    named = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value for name, value in environment.items() if name.startswith("KAFKA_")
    }
    return {name: value for name, value in named.items() if name not in _PLACE_OF_A_BROKER}


@pytest.fixture(scope="module")
def settings(services: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Keeper's own, of the API's container, with the addresses of processes that run with the containers' settings."""
    folder = tmp_path_factory.mktemp("nodes")
    folder.chmod(0o755)
    brokers = KafkaCluster(folder / "kafka", 3, is_temporary=True, options=broker_options(services["kafka-2"]["environment"]))
    options = {name: value for name, value in services["elasticsearch-2"]["environment"].items() if name not in _PLACE_OF_A_NODE}
    nodes = ElasticsearchCluster(folder / "elasticsearch", 3, is_temporary=True, options=options)
    own = {
        name: value for name, value in services["api"]["environment"].items() if name.startswith(("KEEPER_KAFKA_", "KEEPER_ELASTICSEARCH_"))
    }
    try:
        with ThreadPoolExecutor() as threads:
            for started in [threads.submit(brokers.start), threads.submit(nodes.start)]:
                started.result()
        own |= {"KEEPER_KAFKA_BOOTSTRAP_SERVERS": brokers.bootstrap_servers, "KEEPER_ELASTICSEARCH_URL": ",".join(nodes.urls)}
        with pytest.MonkeyPatch.context() as environment:
            for name, value in own.items():
                environment.setenv(name, value)
            yield read_settings()
    finally:
        brokers.remove()
        nodes.remove()


def test_all_brokers_are_given_the_same_but_their_place(services: dict[str, dict[str, Any]]) -> None:
    first, second, third = (broker_options(services[name]["environment"]) for name in ("kafka", "kafka-2", "kafka-3"))

    assert first == second == third
    assert (first["default.replication.factor"], first["min.insync.replicas"]) == ("3", "2")


def test_each_topic_has_three_copies_two_of_which_must_have_a_message(settings: Settings) -> None:
    made = topics.ensure(kafka_connection(settings), topic_settings(settings))
    assert made.complaints == ()

    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    described = admin.list_topics(timeout=15).topics
    wanted = [str(topic) for topic in topics.Topic]
    assert {len(partition.replicas) for name in wanted for partition in described[name].partitions.values()} == {3}
    configs = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in wanted])
    assert {future.result(15)["min.insync.replicas"].value for future in configs.values()} == {"2"}


def test_each_shard_has_a_copy_on_another_node(settings: Settings, tmp_path: Path) -> None:
    connection = search_connection(settings)
    client = open_client(connection)
    try:
        indices.connect(client, connection)
    finally:
        client.close()

    def health() -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(f"{settings.elasticsearch.url[0]}/_cluster/health", timeout=15).raise_for_status().json()
        return answer

    wait_until(lambda: health()["status"] == "green", "the copies are not there", longest_seconds=60)
    assert health()["number_of_nodes"] == 3
    assert health()["active_shards"] == 2 * health()["active_primary_shards"] > 0
