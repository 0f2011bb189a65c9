"""A cluster whose nodes are small Python programs, to try what all clusters have in common.

`python -m tests.services.small_cluster <folder>` starts one node, says its pid, and waits for the end of standard input.
"""

import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.services.cluster import Cluster

# Listens, or says what Java says; a file `refuse` makes it fail once, as if somebody had taken the port a moment ago.
_PROGRAM = """
import pathlib, socket, sys
refuse = pathlib.Path("refuse")
if refuse.exists():
    refuse.unlink()
    sys.exit("Address already in use")
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    while True:
        server.accept()[0].close()
"""


class SmallCluster(Cluster):
    """Starts in a moment."""

    title = "Small"

    def address(self, node: int) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port(node, 'only')}"

    def _fetch_program(self) -> None:
        return

    def _port_names(self) -> Sequence[str]:
        return ("only",)

    def _start_nodes(self, nodes: Sequence[int]) -> None:
        for node in nodes:
            self.node_folder(node).mkdir(exist_ok=True)
            self.log(node).unlink(missing_ok=True)
            command = [sys.executable, "-c", _PROGRAM, str(self.port(node, "only"))]
            self._spawn(node, command, log=self.log(node), cwd=self.node_folder(node))
        self._wait_until_ready(nodes)

    def _is_ready(self, node: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port(node, "only"))) == 0


def main() -> None:
    """Start one, and end with it when told to."""
    cluster = SmallCluster(Path(sys.argv[1]), is_temporary=True)
    cluster.start()
    print(cluster.pid(1), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
