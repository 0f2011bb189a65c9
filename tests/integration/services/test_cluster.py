"""What Kafka's and Elasticsearch's clusters have in common, tried with nodes that start in a moment."""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.stack import ROOT
from tests.services.cluster import NodeFailed, born_at
from tests.services.small_cluster import SmallCluster
from tests.services.waiting import wait_until


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SmallCluster]:
    """Two nodes, running."""
    started = SmallCluster(tmp_path / "cluster", 2)
    started.start()
    yield started
    started.remove()


def _ports(cluster: SmallCluster) -> list[int]:
    return [cluster.port(node, "only") for node in cluster.nodes]


def _pids(cluster: SmallCluster) -> list[int | None]:
    return [cluster.pid(node) for node in cluster.nodes]


def test_second_start_starts_nothing(cluster: SmallCluster) -> None:
    before = _pids(cluster)
    SmallCluster(cluster.folder, 2).start()
    assert _pids(cluster) == before


def test_starters_at_once_start_one_cluster(tmp_path: Path) -> None:
    clusters = [SmallCluster(tmp_path / "cluster", 2) for _ in range(4)]
    threads = [threading.Thread(target=one.start) for one in clusters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert len(clusters[0].processes()) == 2
        assert clusters[0].is_running()
    finally:
        for one in clusters:
            one.stop()


def test_killed_node_comes_back_alone_on_its_port(cluster: SmallCluster) -> None:
    ports, pids = _ports(cluster), _pids(cluster)
    cluster.kill(2)
    assert [cluster.is_running(node) for node in cluster.nodes] == [True, False]
    cluster.start_node(2)
    assert cluster.is_running()
    assert (_ports(cluster), _pids(cluster)[0]) == (ports, pids[0])
    assert _pids(cluster)[1] != pids[1]


def test_stopped_cluster_comes_back_on_its_ports(cluster: SmallCluster) -> None:
    ports = _ports(cluster)
    assert cluster.stop() == [1, 2]
    cluster.start()
    assert _ports(cluster) == ports


def test_stopped_cluster_keeps_its_folder_even_if_temporary(tmp_path: Path) -> None:
    cluster = SmallCluster(tmp_path / "cluster", is_temporary=True)
    cluster.start()
    cluster.stop()
    assert cluster.log(1).exists()


def test_port_somebody_took_meanwhile_is_replaced(cluster: SmallCluster) -> None:
    first, second = _ports(cluster)
    cluster.stop()
    with socket.create_server(("127.0.0.1", first)):
        cluster.start()
        assert cluster.is_running()
        assert _ports(cluster)[0] != first
        assert _ports(cluster)[1] == second


def test_port_lost_in_a_race_is_replaced(cluster: SmallCluster) -> None:
    before = _ports(cluster)
    cluster.stop()
    (cluster.node_folder(1) / "refuse").touch()
    cluster.start()
    assert cluster.is_running()
    assert _ports(cluster) != before


def test_node_that_ends_at_once_is_reported_with_its_log(cluster: SmallCluster) -> None:
    cluster.kill(1)
    (cluster.node_folder(1) / "refuse").touch()
    with pytest.raises(NodeFailed, match=r"Small node 1 ended at once(.|\n)*Address already in use"):
        cluster.start_node(1)


def test_another_process_stops_what_this_one_started(cluster: SmallCluster) -> None:
    assert SmallCluster(cluster.folder, 2).stop() == [1, 2]
    assert not cluster.is_running(1)


def test_pid_of_another_birth_is_left_alone(cluster: SmallCluster) -> None:
    note = cluster.folder / "processes.json"
    noted = note.read_text()
    note.write_text(json.dumps([one | {"born": f"9{one['born']}"} for one in json.loads(noted)]))
    assert not cluster.is_running(1)
    cluster.kill(1)
    note.write_text(noted)
    assert cluster.is_running()


def test_suspended_node_is_ended_all_the_same(cluster: SmallCluster) -> None:
    cluster.suspend(1)
    assert cluster.stop() == [1, 2]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, None], ids=["SIGKILL", "SIGINT", "its own end"])
def test_nodes_and_temporary_folder_end_with_the_process_that_started_them(tmp_path: Path, number: signal.Signals | None) -> None:
    folder = tmp_path / "cluster"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.services.small_cluster", folder],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert born_at(pid) is not None
        if number is not None:
            starter.send_signal(number)
        starter.communicate()
    wait_until(lambda: born_at(pid) is None, "the node outlives its starter")
    wait_until(lambda: not folder.exists(), "the folder outlives its starter")


def test_kept_nodes_outlive_the_process_that_started_them(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    program = (
        "import sys, pathlib; from tests.services.small_cluster import SmallCluster as S; S(pathlib.Path(sys.argv[1]), keep=True).start()"
    )
    subprocess.run([sys.executable, "-c", program, folder], cwd=ROOT, check=True, timeout=60)
    cluster = SmallCluster(folder)
    assert cluster.is_running()
    assert cluster.stop() == [1]
