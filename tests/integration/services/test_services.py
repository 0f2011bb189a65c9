"""The real Kafka and Elasticsearch of the tests: they answer, come back where they were, and end alone."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.services.cluster import born_at
from tests.services.elasticsearch import ElasticsearchCluster, fetch_distribution
from tests.services.kafka import LARGEST_MESSAGE_BYTES, SASL_USERNAME, VERSION, KafkaCluster, fetch_jars
from tests.services.session import ElasticsearchService, KafkaService, lent_elasticsearch, lent_kafka

_SECONDS = 20


@pytest.fixture(scope="module")
def broker(kafka_jars: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """A broker of these tests' own, with every listener there is."""
    cluster = KafkaCluster(tmp_path_factory.mktemp("kafka"), tls=True, sasl=True, proxied=True)
    cluster.start()
    yield cluster
    cluster.remove()


def _send(topic: str, message: bytes, **settings: str) -> str | None:
    """Make the topic and send one message. Returns the broker's complaint, None where it was acknowledged."""
    complaints: list[str | None] = []
    admin = AdminClient({**settings, "log_level": 0})
    for made in admin.create_topics([NewTopic(topic, 1)], operation_timeout=_SECONDS).values():
        made.result(_SECONDS)
    producer = Producer({**settings, "acks": "all", "message.max.bytes": 2 * LARGEST_MESSAGE_BYTES, "log_level": 0})
    producer.produce(topic, message, on_delivery=lambda error, _message: complaints.append(None if error is None else error.name()))
    assert producer.flush(_SECONDS) == 0
    return complaints[0]


def _read_one(topic: str, **settings: str) -> bytes | None:
    consumer = Consumer({**settings, "group.id": topic, "auto.offset.reset": "earliest", "log_level": 0})
    try:
        consumer.subscribe([topic])
        message = consumer.poll(_SECONDS)
        return None if message is None else message.value()
    finally:
        consumer.close()


def test_what_the_broker_acknowledged_can_be_read(kafka: KafkaService) -> None:
    servers = {"bootstrap.servers": kafka.bootstrap_servers}
    assert _send(f"{kafka.prefix}prices", b"1999", **servers) is None
    assert _read_one(f"{kafka.prefix}prices", **servers) == b"1999"


def test_topics_of_a_test_are_gone_after_it(kafka_cluster: KafkaCluster) -> None:
    with lent_kafka(kafka_cluster) as lent:
        _send(f"{lent.prefix}prices", b"1", **{"bootstrap.servers": lent.bootstrap_servers})
    assert not [
        name
        for name in AdminClient({"bootstrap.servers": lent.bootstrap_servers}).list_topics(timeout=_SECONDS).topics
        if name.startswith(lent.prefix)
    ]


@pytest.mark.parametrize(
    ("size_bytes", "complaint"),
    [(6 * 1024 * 1024, None), (LARGEST_MESSAGE_BYTES + 1024, "MSG_SIZE_TOO_LARGE")],
    ids=["six MiB are taken", "more than the limit is refused"],
)
def test_size_of_messages(kafka: KafkaService, size_bytes: int, complaint: str | None) -> None:
    assert _send(f"{kafka.prefix}large", b"x" * size_bytes, **{"bootstrap.servers": kafka.bootstrap_servers}) == complaint


def test_tls_listener_shows_a_certificate_of_the_ca(broker: KafkaCluster) -> None:
    settings = {"security.protocol": "SSL", "ssl.ca.location": str(broker.ca_file)}
    assert _send("over-tls", b"1", **{"bootstrap.servers": broker.tls_bootstrap_servers}, **settings) is None


def test_sasl_listener_takes_the_password(broker: KafkaCluster) -> None:
    settings = {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(broker.ca_file),
        "sasl.mechanism": "PLAIN",
        "sasl.username": SASL_USERNAME,
        "sasl.password": broker.sasl_password,
    }
    assert _send("with-password", b"1", **{"bootstrap.servers": broker.sasl_bootstrap_servers}, **settings) is None


def test_client_of_a_proxied_broker_goes_through_the_proxy(broker: KafkaCluster) -> None:
    with broker.open_proxies() as (proxy,):
        assert _send("through-proxy", b"1", **{"bootstrap.servers": broker.proxied_bootstrap_servers}) is None
        assert proxy.passed_bytes > 0


def test_broker_started_again_behind_open_proxies_is_where_they_look(broker: KafkaCluster) -> None:
    with broker.open_proxies() as (proxy,):
        broker.stop()
        broker.start()
        assert f"127.0.0.1:{proxy.port}" == broker.proxied_bootstrap_servers
        assert _send("proxied-again", b"1", **{"bootstrap.servers": broker.proxied_bootstrap_servers}) is None


def test_killed_broker_comes_back_on_its_port_with_its_messages(broker: KafkaCluster) -> None:
    servers = {"bootstrap.servers": broker.bootstrap_servers}
    assert _send("kept", b"1", **servers) is None
    broker.kill(1)
    assert not broker.is_running(1)
    broker.start_node(1)
    assert broker.bootstrap_servers == servers["bootstrap.servers"]
    assert _read_one("kept", **servers) == b"1"


def test_stop_ends_only_its_own(kafka_cluster: KafkaCluster, broker: KafkaCluster) -> None:
    others, ours = kafka_cluster.pid(1), broker.pid(1)
    assert others is not None
    assert ours is not None
    assert broker.stop() == [1]
    assert born_at(ours) is None
    assert born_at(others) is not None
    broker.start_node(1)
    assert broker.is_running()


def test_search_node_answers_with_its_version(elasticsearch: ElasticsearchService) -> None:
    assert httpx.get(elasticsearch.url, timeout=_SECONDS).json()["version"]["number"].startswith("9.4.")


def test_index_nobody_made_is_not_made_by_writing(elasticsearch: ElasticsearchService) -> None:
    answer = httpx.put(f"{elasticsearch.url}/{elasticsearch.prefix}new/_doc/1", json={"title": "Tent"}, timeout=_SECONDS)
    assert answer.status_code == httpx.codes.NOT_FOUND


def test_indices_and_templates_of_a_test_are_gone_after_it(elasticsearch_cluster: ElasticsearchCluster) -> None:
    with lent_elasticsearch(elasticsearch_cluster) as lent, httpx.Client(base_url=lent.url, timeout=_SECONDS) as client:
        client.put(f"/{lent.prefix}products").raise_for_status()
        client.put(f"/_index_template/{lent.prefix}all", json={"index_patterns": [f"{lent.prefix}*"]}).raise_for_status()
    with httpx.Client(base_url=elasticsearch_cluster.url, timeout=_SECONDS) as client:
        assert client.get(f"/_cat/indices/{lent.prefix}*").text == ""
        assert client.get(f"/_index_template/{lent.prefix}all").status_code == httpx.codes.NOT_FOUND


def test_killed_search_node_comes_back_on_its_port_with_its_documents(
    elasticsearch_cluster: ElasticsearchCluster, elasticsearch: ElasticsearchService
) -> None:
    # The session's own: a node takes too long to start to have another one here. The fixture brings it back, whatever happens.
    index = f"{elasticsearch.url}/{elasticsearch.prefix}kept"
    httpx.put(index, timeout=_SECONDS).raise_for_status()
    httpx.put(f"{index}/_doc/1", json={"title": "Tent"}, timeout=_SECONDS).raise_for_status()
    elasticsearch_cluster.kill(1)
    elasticsearch_cluster.start_node(1)
    assert elasticsearch_cluster.url == elasticsearch.url
    assert httpx.get(f"{index}/_doc/1", timeout=_SECONDS).json()["_source"] == {"title": "Tent"}


def test_suspended_search_node_says_nothing_until_resumed(elasticsearch_cluster: ElasticsearchCluster) -> None:
    elasticsearch_cluster.suspend(1)
    try:
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(elasticsearch_cluster.url, timeout=0.5)
    finally:
        elasticsearch_cluster.resume(1)
    assert httpx.get(elasticsearch_cluster.url, timeout=_SECONDS).status_code == httpx.codes.OK


@pytest.mark.usefixtures("kafka_jars", "elasticsearch_distribution")
def test_second_start_downloads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setenv("PATH", "")
    began = time.monotonic()
    assert fetch_jars(said.append).name == f"kafka-{VERSION}"
    assert fetch_distribution(said.append).exists()
    assert not [line for line in said if "downloading" in line]
    assert time.monotonic() - began < _SECONDS
