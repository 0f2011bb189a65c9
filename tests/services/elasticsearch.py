"""A real Elasticsearch, as plain Java processes on 127.0.0.1."""

import hashlib
import json
import os
import pwd
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from keeper.postgres.embedded import ROOT_PLACE
from tests.services.cluster import Cluster
from tests.services.java import (
    DownloadFailed,
    Say,
    can_reach,
    download,
    downloads_folder,
    find_java_home,
    missing_programs,
    say_nothing,
)

VERSION: Final = "9.4.3"
_PROGRAM = f"elasticsearch-{VERSION}"
OLDEST_JAVA: Final = 21
_MODULES = ("jdk.attach", "jdk.jlink", "jdk.jdi")
# Elasticsearch refuses to run as root.
_ACCOUNT_FOR_ROOT = "nobody"
_LAUNCH_SECONDS = 240
_POLL_SECONDS = 0.05
_ANSWER_SECONDS = 5


def missing() -> str | None:
    """What must be installed before Elasticsearch runs here; None where nothing is missing."""
    return missing_programs(_PROGRAM, _account(), OLDEST_JAVA, _MODULES)


def fetch_distribution(say: Say = say_nothing) -> Path:
    """The folder of Elasticsearch itself; downloads it once and keeps a fifth of what came.

    Raises:
        DownloadFailed: see there.
    """
    return download(
        _PROGRAM,
        "elasticsearch.xml",
        ["dependency:unpack-dependencies", "-Dmdep.unpack.includes=sonarqube-*/elasticsearch/**"],
        folder=downloads_folder(_account(), say),
        finish=_distribution_of,
        say=say,
        size="0.9 GB, of which 0.2 GB are kept",
    )


class ElasticsearchCluster(Cluster):
    """Nodes, 1 or 3, without security. Indices are never made by themselves, a full disk blocks nothing, nothing is sent outward.

    Started by root, the nodes run as `nobody`; where that account cannot reach `folder`, all of it lives in another one.

    Args:
        heap: of one node, as Java writes it.
        options: more settings of elasticsearch.yml.
    """

    title = "Elasticsearch"

    def __init__(
        self,
        folder: Path,
        nodes: int = 1,
        *,
        heap: str = "512m",
        options: dict[str, str] | None = None,
        keep: bool = False,
        is_temporary: bool = False,
        is_quick: bool = True,
        say: Say = say_nothing,
    ) -> None:
        super().__init__(_reachable(folder), nodes, keep=keep, is_temporary=is_temporary, is_quick=is_quick, say=say)
        self._heap = heap
        self._options = options or {}
        self._home: Path | None = None

    @property
    def url(self) -> str:
        """The first node."""
        return self.address(1)

    @property
    def urls(self) -> tuple[str, ...]:
        """Every node."""
        return tuple(self.address(node) for node in self.nodes)

    def address(self, node: int) -> str:
        """URL of one node."""
        return f"http://127.0.0.1:{self.port(node, 'http')}"

    def _fetch_program(self) -> None:
        self._home = fetch_distribution(self._say)

    def _port_names(self) -> Sequence[str]:
        return ("http", "transport")

    def _start_nodes(self, nodes: Sequence[int]) -> None:
        self._say(f"Elasticsearch: starting {len(nodes)} of {len(self.nodes)}...")
        if self._home is None:
            self._fetch_program()
        is_first_start = not any((self.node_folder(node) / "data" / "_state").exists() for node in self.nodes)
        launchers = {}
        for node in nodes:
            self._prepare(node, is_first_start=is_first_start)
            launchers[node] = self._launch(node)
        self._await_launchers(launchers)
        self._wait_until_ready(nodes)
        self._say(f"Elasticsearch: ready at {self.url}")

    def _prepare(self, node: int, *, is_first_start: bool) -> None:
        folder = self.node_folder(node)
        for name in ("config", "data", "logs", "tmp"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "pid").unlink(missing_ok=True)
        log = self.log(node)
        if log.exists():
            log.replace(log.with_suffix(".old"))
        assert self._home is not None
        (folder / "config" / "elasticsearch.yml").write_text(self._settings(node, is_first_start=is_first_start))
        (folder / "config" / "log4j2.properties").write_text(_LOGGING)
        (folder / "config" / "jvm.options").write_text("\n".join([*self._java_options(node), ""]))
        account = _account()
        if account is not None:
            for path in (folder, *folder.rglob("*")):
                shutil.chown(path, account, pwd.getpwuid(account).pw_gid)

    def _java_options(self, node: int) -> list[str]:
        folder = self.node_folder(node)
        return [
            f"-Xms{self._heap}",
            f"-Xmx{self._heap}",
            *self.java_options,
            f"-XX:ErrorFile={folder / 'logs' / 'hs_err.log'}",
            f"-Djava.io.tmpdir={folder / 'tmp'}",
        ]

    def _launch(self, node: int) -> subprocess.Popen[bytes]:
        """What bin/elasticsearch does, which is missing in this copy; the launcher ends when the node is up."""
        folder = self.node_folder(node)
        home, java_home = self._home, find_java_home(OLDEST_JAVA, _MODULES)
        assert home is not None
        assert java_home is not None
        java = java_home / "bin" / "java"
        return self._spawn(
            node,
            [
                java,
                *("-Xmx64m", *self.java_options),
                *("-cp", f"{home}/lib/tools/server-launcher/*", "org.elasticsearch.server.launcher.ServerLauncher"),
                *("-d", "-p", folder / "pid"),
            ],
            environment={
                "HOME": str(folder),
                "ES_HOME": str(home),
                "ES_PATH_CONF": str(folder / "config"),
                "ES_TMPDIR": str(folder / "tmp"),
                "ES_JAVA_HOME": str(java_home),
                "JAVA": str(java),
                "JAVA_TYPE": "ES_JAVA_HOME",
                "ES_DISTRIBUTION_TYPE": "zip",
                "CLI_JAVA_OPTS": "-Xmx64m",
            },
            account=_account(),
            log=self.log(node),
            # It looks for its modules where it stands.
            cwd=home,
        )

    def _await_launchers(self, launchers: dict[int, subprocess.Popen[bytes]]) -> None:
        """Until each has ended well; the node's own process is noted as soon as it is known."""
        unknown = set(launchers)
        deadline = time.monotonic() + _LAUNCH_SECONDS
        while any(launcher.poll() is None for launcher in launchers.values()) or unknown:
            for node in list(unknown):
                note = self.node_folder(node) / "pid"
                if note.exists() and (pid := note.read_text().strip()):
                    self._note(node, int(pid))
                    unknown.remove(node)
            for node, launcher in launchers.items():
                if launcher.poll() not in (None, 0):
                    raise self._failure(node, f"did not start ({launcher.returncode})")
            if time.monotonic() > deadline:
                raise self._failure(next(iter(launchers)), f"was not up after {_LAUNCH_SECONDS} s")
            time.sleep(_POLL_SECONDS)

    def _is_ready(self, node: int) -> bool:
        """The node answers, in a cluster of ours that has as many nodes as there are processes; where all are there, with all documents."""
        living = sum(self.is_running(one) for one in self.nodes)
        wanted = f"wait_for_nodes={living}" + ("&wait_for_status=yellow" if living == len(self.nodes) else "")
        health = _get(f"{self.address(node)}/_cluster/health?timeout=1s&{wanted}")
        return health is not None and health["cluster_name"] == self._cluster_name and not health["timed_out"]

    @property
    def _cluster_name(self) -> str:
        return f"keeper-{hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]}"

    def _settings(self, node: int, *, is_first_start: bool) -> str:
        folder = self.node_folder(node)
        lines = {
            "cluster.name": self._cluster_name,
            "node.name": f"n{node}",
            "path.data": str(folder / "data"),
            "path.logs": str(folder / "logs"),
            "network.host": "127.0.0.1",
            "http.port": str(self.port(node, "http")),
            "transport.port": str(self.port(node, "transport")),
            "node.store.allow_mmap": "false",
            "action.auto_create_index": "false",
            "action.destructive_requires_name": "false",
            "cluster.routing.allocation.disk.threshold_enabled": "false",
            # With a small heap and a serial collector, garbage counts as use: once full, everything is answered 429 and nothing collects.
            "indices.breaker.total.use_real_memory": "false",
            "xpack.security.enabled": "false",
        }
        if len(self.nodes) == 1:
            lines["discovery.type"] = "single-node"
        else:
            lines["discovery.seed_hosts"] = json.dumps([f"127.0.0.1:{self.port(one, 'transport')}" for one in self.nodes])
            if is_first_start:
                lines["cluster.initial_master_nodes"] = json.dumps([f"n{one}" for one in self.nodes])
        return "".join(f"{name}: {value}\n" for name, value in (lines | self._options).items())


_LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%c{1.}] %m%n
appender.file.type = File
appender.file.name = file
appender.file.fileName = ${sys:es.logs.base_path}/elasticsearch.log
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = [%d{ISO8601}][%-5p][%c{1.}] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
rootLogger.appenderRef.file.ref = file
"""


def _account() -> int | None:
    """Whom the nodes run as; None: the account of this process."""
    return pwd.getpwnam(_ACCOUNT_FOR_ROOT).pw_uid if os.getuid() == 0 else None


def _reachable(folder: Path) -> Path:
    """The folder, or another one where the nodes' account cannot reach it (the temporary folders of root's tests, say)."""
    account = _account()
    folder = folder.absolute()
    nearest = next(one for one in (folder, *folder.parents) if one.exists())
    if account is None or can_reach(nearest, account):
        return folder
    return ROOT_PLACE / f"elasticsearch-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"


def _distribution_of(output: Path) -> Path:
    found = list(output.glob("sonarqube-*/elasticsearch"))
    if len(found) != 1 or not (found[0] / "lib" / f"elasticsearch-{VERSION}.jar").exists():
        raise DownloadFailed(f"Elasticsearch {VERSION} is not in what Maven brought")
    return found[0]


def _get(url: str) -> dict[str, Any] | None:
    """A JSON answer; None where there is none."""
    try:
        with urllib.request.urlopen(url, timeout=_ANSWER_SECONDS) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except (urllib.error.URLError, OSError, ValueError):
        return None
