"""`keeper metrics`: what Prometheus scrapes."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from keeper.cli_common import HOUSE, Json, end_by_signal, log_to_stderr, read_settings, show_json

if TYPE_CHECKING:
    from keeper.metrics import PrefectServer
    from keeper.settings import Settings


def add_commands(app: typer.Typer) -> None:
    """Put them on the program's command line."""
    app.command(rich_help_panel=HOUSE)(metrics)


def metrics(
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Instead of KEEPER_METRICS_PORT; 0: any free one", show_default=False)
    ] = None,
    is_json: Json = False,
) -> None:
    """Serve /metrics for Prometheus until SIGTERM or Ctrl-C: budget, watches, outbox, deliveries, lag, runs, read from the database.

    Example: [bold]keeper metrics --port 9464[/bold]
    """
    from keeper.exporter import export
    from keeper.terminal import say

    settings = read_settings()
    log_to_stderr(settings)
    ended = end_by_signal()
    host = settings.metrics.host
    wanted = settings.metrics.port if port is None else port
    with export(settings, _prefect(settings), host=host, port=wanted) as bound:
        url = f"http://{host}:{bound}/metrics"
        if is_json:
            show_json({"metrics": "serving", "url": url})
        else:
            say(f"{url}; Ctrl-C ends it.")
        sys.stdout.flush()
        ended.wait()


def _prefect(settings: "Settings") -> "PrefectServer | None":
    """Where it is, where anybody says so."""
    from keeper.metrics import PrefectServer

    url = settings.prefect.api_url or os.environ.get("PREFECT_API_URL", "")
    if not url:
        return None
    given = settings.prefect.api_auth.get_secret_value() if settings.prefect.api_auth else os.environ.get("PREFECT_API_AUTH_STRING", "")
    user, _, password = given.partition(":")
    return PrefectServer(url, (user, password) if user else None)
