"""Whether a container does its work, for Docker's health checks: ends with 0 where all of its arguments hold.

    healthy.py http://127.0.0.1:8000/health     the address answers with 200
    healthy.py connected:5432                   a process in here holds a connection to that port of somebody else

The second is for what serves no port: a relay or a consumer that works has its connection, and one that cannot get it has none.
"""

import http.client
import sys
from pathlib import Path
from urllib.parse import urlsplit

_TIMEOUT_SECONDS = 8
# As the kernel writes it.
_ESTABLISHED = "01"
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


def main(checks: list[str]) -> int:
    """The exit code; what does not hold is printed, `docker inspect` shows it."""
    failed = [check for check in checks if not holds(check)]
    print(f"does not hold: {', '.join(failed)}" if failed else "well")
    return 1 if failed or not checks else 0


def holds(check: str) -> bool:
    """Whether one check does."""
    kind, _, rest = check.partition(":")
    return is_connected(int(rest)) if kind == "connected" else answers(check)


def answers(url: str) -> bool:
    """Whether a GET comes back with 200."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def is_connected(port: int) -> bool:
    """Whether one of the container's connections leads to this port."""
    return any(
        words[3] == _ESTABLISHED and int(words[2].rpartition(":")[2], 16) == port
        for table in _TABLES
        if table.exists()
        for words in map(str.split, table.read_text().splitlines()[1:])
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
