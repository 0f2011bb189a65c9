"""One broker and one Elasticsearch node for a whole session of tests: started behind the tests' back, cleaned after each test."""

import secrets
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from confluent_kafka.admin import AdminClient

from tests.services import browser, elasticsearch, kafka, prometheus
from tests.services.cluster import Cluster
from tests.services.elasticsearch import ElasticsearchCluster
from tests.services.java import DownloadFailed, Say
from tests.services.kafka import KafkaCluster

_CLEANING_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Program:
    """What must be there before a service starts.

    Attributes:
        missing: says what must be installed first; None where nothing is missing.
        fetch: downloads it, where that has not been done.
    """

    title: str
    missing: Callable[[], str | None]
    fetch: Callable[[Say], Path]

    def obstacle(self, say: Say) -> str | None:
        """Download it. Returns why it cannot run here, in a few words; None where it can."""
        complaint = self.missing()
        if complaint is None:
            try:
                self.fetch(say)
            except DownloadFailed as error:
                say(f"{self.title}: {error}")
                return f"{self.title}, whose download failed"
        return complaint


# The fixture that every test of a service has among its fixtures.
PROGRAMS = {
    "kafka_jars": Program("Kafka", kafka.missing, kafka.fetch_jars),
    "elasticsearch_distribution": Program("Elasticsearch", elasticsearch.missing, elasticsearch.fetch_distribution),
}
# Likewise of what is no service.
TOOLS = {
    "chromium": Program("Chromium", browser.missing, browser.find),
    "prometheus": Program("Prometheus", prometheus.missing, prometheus.find),
}


@dataclass(frozen=True, slots=True)
class KafkaService:
    """The session's broker for one test.

    Attributes:
        prefix: of this test's own topics and consumer groups; topics that have it are deleted after the test.
    """

    bootstrap_servers: str
    prefix: str


@dataclass(frozen=True, slots=True)
class ElasticsearchService:
    """The session's node for one test.

    Attributes:
        prefix: of this test's own indices, templates and pipelines; those that have it are deleted after the test.
    """

    url: str
    prefix: str


class SessionCluster:
    """A cluster that starts in a thread of its own, from `begin` on, in a temporary folder; `end` ends and deletes it."""

    def __init__(self, title: str, make: Callable[[Path], Cluster]) -> None:
        self._title = title
        self._make = make
        self._cluster: Cluster | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def begin(self) -> None:
        """Start it, unless that has been done."""
        if self._thread is None:
            folder = Path(tempfile.mkdtemp(prefix=f"keeper-{self._title}-"))
            # For the account of Elasticsearch, where root runs the tests.
            folder.chmod(0o755)
            self._cluster = self._make(folder)
            self._thread = threading.Thread(target=self._start, daemon=True, name=f"starting {self._title}")
            self._thread.start()

    def running(self) -> Cluster:
        """The cluster, once it answers. A test that ended a node of it gets it back, too.

        Raises:
            KeeperError: it did not start.
        """
        self.begin()
        assert self._thread is not None
        assert self._cluster is not None
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        self._cluster.start()
        return self._cluster

    def end(self) -> None:
        """End it and delete its data; it may be starting just now."""
        if self._cluster is not None:
            self._cluster.remove()

    def _start(self) -> None:
        assert self._cluster is not None
        try:
            self._cluster.start()
        except BaseException as error:  # noqa: BLE001  raised again for the tests that wait
            self._failure = error


class SessionServices:
    """Both."""

    def __init__(self) -> None:
        self._kafka = SessionCluster("kafka", lambda folder: KafkaCluster(folder, is_temporary=True))
        self._elasticsearch = SessionCluster("elasticsearch", lambda folder: ElasticsearchCluster(folder, is_temporary=True))

    def begin(self, fixtures: Collection[str]) -> None:
        """Start those whose fixture is among the names of fixtures that tests ask for."""
        for name, cluster in (("kafka_cluster", self._kafka), ("elasticsearch_cluster", self._elasticsearch)):
            if name in fixtures:
                cluster.begin()

    def kafka(self) -> KafkaCluster:
        """The broker, running."""
        cluster = self._kafka.running()
        assert isinstance(cluster, KafkaCluster)
        return cluster

    def elasticsearch(self) -> ElasticsearchCluster:
        """The node, running."""
        cluster = self._elasticsearch.running()
        assert isinstance(cluster, ElasticsearchCluster)
        return cluster

    def end(self) -> None:
        """End what was begun."""
        self._kafka.end()
        self._elasticsearch.end()


@contextmanager
def lent_kafka(cluster: KafkaCluster) -> Iterator[KafkaService]:
    """The broker for one test; its topics are deleted afterwards."""
    lent = KafkaService(cluster.bootstrap_servers, _prefix())
    yield lent
    if cluster.is_running():
        admin = AdminClient({"bootstrap.servers": lent.bootstrap_servers, "log_level": 0})
        topics = [name for name in admin.list_topics(timeout=_CLEANING_SECONDS).topics if name.startswith(lent.prefix)]
        if topics:
            for deleted in admin.delete_topics(topics, operation_timeout=_CLEANING_SECONDS).values():
                deleted.result(_CLEANING_SECONDS)


@contextmanager
def lent_elasticsearch(cluster: ElasticsearchCluster) -> Iterator[ElasticsearchService]:
    """The node for one test; its indices, templates and pipelines are deleted afterwards."""
    lent = ElasticsearchService(cluster.url, _prefix())
    yield lent
    if cluster.is_running():
        with httpx.Client(base_url=lent.url, timeout=_CLEANING_SECONDS) as client:
            client.delete(f"/{lent.prefix}*?expand_wildcards=all").raise_for_status()
            for what in ("_index_template", "_component_template", "_ingest/pipeline"):
                answer = client.delete(f"/{what}/{lent.prefix}*")
                if answer.status_code != httpx.codes.NOT_FOUND:
                    answer.raise_for_status()


def _prefix() -> str:
    return f"t{secrets.token_hex(3)}-"
