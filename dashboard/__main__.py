"""`python -m dashboard`: serve the pages. `keeper dashboard` does, too, with Keeper's settings."""

import argparse
import ipaddress
import os
import socket
from pathlib import Path
from typing import Final

API_URL: Final = "KEEPER_DASHBOARD_API_URL"
CA_FILE: Final = "KEEPER_DASHBOARD_CA_FILE"
_SCRIPT = Path(__file__).with_name("app.py")
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m dashboard", description=__doc__)
    parser.add_argument("--host", default=os.environ.get("KEEPER_DASHBOARD_HOST") or "127.0.0.1", help="address to listen on")
    parser.add_argument(
        "--port", type=int, default=os.environ.get("KEEPER_DASHBOARD_PORT") or "8501", help="port to listen on; 0: any free one"
    )
    parser.add_argument("--api-url", default=os.environ.get(API_URL) or "http://127.0.0.1:8000", help="address of the REST API")
    parser.add_argument("--ca-file", default=os.environ.get(CA_FILE) or "", help="certificates (PEM) that may sign the API's")
    asked = parser.parse_args(arguments)
    os.environ[API_URL], os.environ[CA_FILE] = asked.api_url, asked.ca_file
    from streamlit.web import cli  # seconds, which `--help` shall not wait for

    cli.main(["run", str(_SCRIPT), *options(asked.host, asked.port or _free_port(asked.host))], prog_name="streamlit")


def options(host: str, port: int) -> list[str]:
    """What Streamlit is told, whatever a person's own files and variables say: no usage statistics, no error details on a page."""
    told: dict[str, str | tuple[str, ...]] = {
        "browser.gatherUsageStats": "false",
        "server.address": host,
        "server.port": str(port),
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "client.showErrorDetails": "none",
        "client.showErrorLinks": "false",
        "client.toolbarMode": "viewer",
    }
    if is_loopback(host):
        # No page of the web may reach it under a name of its own that leads to this machine.
        told["server.allowedHosts"] = _LOOPBACK_NAMES
    return [f"--{name}={one}" for name, value in told.items() for one in ([value] if isinstance(value, str) else value)]


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    main()
