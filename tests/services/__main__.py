"""Real Kafka, Elasticsearch and PostgreSQL on this machine, without Docker, until `down`.

  up      start what is not running and print the settings to export (on standard output; progress goes to standard error):
              eval "$(python -m tests.services up)"
          The first start downloads Kafka (44 MB) and Elasticsearch (0.9 GB, of which 0.2 GB are kept) with Maven.
  down    end what `up` started, and only that; the data stay for the next `up`, unless --delete
  status  what runs, where it listens, which processes it is, and where it writes its log
  check   whether Kafka, Elasticsearch, Prometheus and the browser of the tests can run here; names what must be installed first

Needed: Maven, Java 17 or newer for Kafka, a JDK 21 or newer for Elasticsearch. A node takes about 300 MB (Kafka) or 800 MB (Elasticsearch).
Everything lies below .keeper/services/ and listens on free ports of 127.0.0.1, the same ones at the next start where they are free.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from keeper.domain.errors import KeeperError
from keeper.postgres.embedded import EmbeddedServer
from tests.services.cluster import Cluster
from tests.services.elasticsearch import ElasticsearchCluster
from tests.services.java import SERVICES_FOLDER, Say, ServiceMissing
from tests.services.kafka import KafkaCluster
from tests.services.session import PROGRAMS, TOOLS, Program

_SIZES = (1, 3)
_DATABASE = "keeper"


class OtherSizeRuns(KeeperError):
    """A cluster with another number of nodes is running."""


def check(programs: Mapping[str, Program] = PROGRAMS) -> None:
    """Whether the programs can run here.

    Raises:
        ServiceMissing: not all of them.
    """
    complaints = [f"{one.title} needs {complaint}" for one in programs.values() if (complaint := one.missing()) is not None]
    if complaints:
        raise ServiceMissing("; ".join(complaints))


def up(folder: Path, *, brokers: int, search_nodes: int, say: Say) -> dict[str, str]:
    """Start what is not running. Returns the settings to export.

    Raises:
        KeeperError: its subclasses say what is missing or did not start.
    """
    check()
    broker, search = _kafka(folder, brokers, say), _elasticsearch(folder, search_nodes, say)
    for wanted, sizes in ((broker, _kafkas(folder)), (search, _elasticsearches(folder))):
        for other in sizes:
            if other.folder != wanted.folder and _runs(other):
                raise OtherSizeRuns(f"{other.title} already runs with {len(other.nodes)} nodes; `make services-down` ends it")
    postgres = _postgres(folder)
    with ThreadPoolExecutor() as threads:
        starting = [threads.submit(start) for start in (broker.start, search.start, lambda: _start_postgres(postgres, say))]
    for one in starting:
        one.result()
    return {
        "KEEPER_DATABASE_URL": postgres.dsn(_DATABASE),
        "KEEPER_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "KEEPER_ELASTICSEARCH_URL": ",".join(search.urls),
    }


def down(folder: Path, *, is_deleting: bool = False) -> list[str]:
    """End what `up` started. Returns what ran."""
    ended = []
    for cluster in (*_kafkas(folder), *_elasticsearches(folder)):
        if cluster.folder.exists():
            nodes = cluster.stop_at_once() if is_deleting else cluster.stop()
            ended += [f"{cluster.title} node {node}" for node in nodes]
            if is_deleting:
                cluster.remove()
    postgres = _postgres(folder)
    if postgres.status().running:
        postgres.stop()
        ended.append("PostgreSQL")
    if is_deleting:
        postgres.remove()
    return ended


def status(folder: Path) -> list[str]:
    """A line for each node that runs."""
    lines = [
        f"{cluster.title} node {node}: {cluster.address(node)}, process {pid}, log {cluster.log(node)}"
        for cluster in (*_kafkas(folder), *_elasticsearches(folder))
        for node in cluster.nodes
        if (pid := cluster.pid(node)) is not None
    ]
    postgres = _postgres(folder).status()
    if postgres.running:
        lines.append(f"PostgreSQL: process {postgres.pid}. {postgres.explanation}")
    return lines


def _kafka(folder: Path, nodes: int, say: Say) -> KafkaCluster:
    return KafkaCluster(folder / f"kafka-{nodes}", nodes, keep=True, is_quick=False, say=say)


def _elasticsearch(folder: Path, nodes: int, say: Say) -> ElasticsearchCluster:
    return ElasticsearchCluster(folder / f"elasticsearch-{nodes}", nodes, keep=True, is_quick=False, say=say)


def _kafkas(folder: Path) -> list[Cluster]:
    return [_kafka(folder, nodes, _say) for nodes in _SIZES]


def _elasticsearches(folder: Path) -> list[Cluster]:
    return [_elasticsearch(folder, nodes, _say) for nodes in _SIZES]


def _runs(cluster: Cluster) -> bool:
    return any(cluster.is_running(node) for node in cluster.nodes)


def _postgres(folder: Path) -> EmbeddedServer:
    return EmbeddedServer(folder / "postgres", tcp_port=0)


def _start_postgres(server: EmbeddedServer, say: Say) -> None:
    if not server.status().running:
        say("PostgreSQL: starting...")
    server.start()
    server.create_database(_DATABASE, exist_ok=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(words: Sequence[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.services", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="up|down|status|check")
    of_up = commands.add_parser("up", help="start and print the settings to export")
    of_up.add_argument("--brokers", type=int, choices=_SIZES, default=1, help="Kafka brokers (3: replication 3, min in-sync 2)")
    of_up.add_argument("--search-nodes", type=int, choices=_SIZES, default=1, help="Elasticsearch nodes")
    of_down = commands.add_parser("down", help="end what up started")
    of_down.add_argument("--delete", action="store_true", help="and delete its data, PostgreSQL's too (the downloads stay)")
    commands.add_parser("status", help="what runs where")
    commands.add_parser("check", help="whether they can run here")
    arguments = parser.parse_args(words)
    try:
        if arguments.command == "up":
            settings = up(SERVICES_FOLDER, brokers=arguments.brokers, search_nodes=arguments.search_nodes, say=_say)
            for name, value in settings.items():
                print(f"export {name}='{value}'")
            _say("`make services-down` ends them. Alert channels also want a key with such a database: `keeper channel key`.")
        elif arguments.command == "down":
            _say(f"ended {', '.join(down(SERVICES_FOLDER, is_deleting=arguments.delete)) or 'nothing'}")
        elif arguments.command == "check":
            check(PROGRAMS | TOOLS)
            _say("Kafka, Elasticsearch, Prometheus and Chromium can run here")
        else:
            print("\n".join(status(SERVICES_FOLDER)) or "nothing runs; `make services` starts it")
    except KeeperError as error:
        sys.exit(f"{arguments.command}: {error}")


if __name__ == "__main__":
    main()
