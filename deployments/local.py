"""`make up` and `make down`: the long-running program on this machine, without Docker."""

import argparse
import json
import sys
from pathlib import Path

from deployments.pools import HEAVY, process_pools
from deployments.stack import Stack, start_api, start_consumer, start_dashboard, start_prefect, start_relay, start_simulator, start_worker
from keeper.domain.errors import KeeperError
from keeper.domain.events import Sink
from keeper.resources import NoKeepa, configured_sinks, embedded_server, fetch_simulator_state, make_resources, simulator_note
from keeper.settings import Settings, read_settings

_PREFECT_PORT = 4200
_CONSUMERS = ("prices", "deals", "enrich")


def up(settings: Settings, *, prefect_port: int) -> Stack:
    """Start whatever is not running yet: database, simulator where there is no key, Prefect, deployments, worker, and all that serves."""
    stack = Stack(settings.data, prefect_auth(settings))
    if settings.is_simulated and not settings.keepa.simulator_url:
        print(f"simulator       {_live_simulator(settings) or _simulator(stack, settings)}")
    resources = make_resources(settings)
    resources.close()
    if settings.database_url is None:
        server = embedded_server(settings)
        server.create_database("prefect", exist_ok=True)
        stack.environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = server.asyncpg_dsn("prefect")
        print(f"PostgreSQL      {server.status().explanation}")
    note = stack.run_folder / "prefect.url"
    if stack.is_running("prefect-server"):
        stack.environment["PREFECT_API_URL"] = note.read_text()
    else:
        note.write_text(start_prefect(stack, prefect_port))
    api = note.read_text()
    print(f"Prefect         {api.removesuffix('/api')}")
    print("bootstrap       " + stack.run("deployments.bootstrap").strip().replace("\n", "\n                "))
    stack.run("prefect", "--no-prompt", "deploy", "--all")
    print("deployments     from prefect.yaml")
    address = _api(stack, settings)
    # The operations report, which runs in a worker, asks it how fast it answers.
    stack.environment["KEEPER_REPORTS_API_URL"] = settings.reports.api_url or address
    pools = process_pools(settings.prefect)
    if not stack.is_running("worker"):
        start_worker(stack, *pools)
    print(f"worker          for {' and '.join(pools)}")
    if HEAVY not in pools:
        print(f"                {HEAVY} needs one with Docker: prefect worker start --pool {HEAVY} --type docker")
    if not stack.is_running("relay"):
        start_relay(stack)
    print(f"relay           delivers to {_receivers(settings)} as events come")
    print(f"API             {address}/docs")
    print(f"dashboard       {_dashboard(stack, settings, address)}")
    if settings.kafka.bootstrap_servers is not None:
        for what in _CONSUMERS:
            if not stack.is_running(f"consume-{what}"):
                start_consumer(stack, what)
        print(f"consumers       {', '.join(_CONSUMERS)}")
    print(f"\nLogs are in {stack.run_folder}. `make down` ends it all. For Prefect's own commands:\n\nexport PREFECT_API_URL={api}")
    return stack


def prefect_auth(settings: Settings) -> dict[str, str]:
    """What Prefect's server asks for, and its clients say. In the environment of our own processes, never among their arguments."""
    if settings.prefect.api_auth is None:
        return {}
    said = settings.prefect.api_auth.get_secret_value()
    return {"PREFECT_SERVER_API_AUTH_STRING": said, "PREFECT_API_AUTH_STRING": said}


def _api(stack: Stack, settings: Settings) -> str:
    address = stack.run_folder / "api.url"
    if not stack.is_running("api"):
        stack.environment["KEEPER_PREFECT_API_URL"] = settings.prefect.api_url or stack.environment["PREFECT_API_URL"]
        address.write_text(start_api(stack, settings.api.host, settings.api.port, is_tls=settings.api.tls_cert is not None))
    return address.read_text()


def _dashboard(stack: Stack, settings: Settings, api_url: str) -> str:
    address = stack.run_folder / "dashboard.url"
    if not stack.is_running("dashboard"):
        asked = settings.dashboard
        address.write_text(start_dashboard(stack, asked.host, asked.port, asked.api_url or api_url))
    return address.read_text()


def _receivers(settings: Settings) -> str:
    configured = configured_sinks(settings)
    names = {"people's channels": True, "Kafka": Sink.KAFKA in configured, "Elasticsearch": Sink.SEARCH in configured}
    return ", ".join(name for name, is_there in names.items() if is_there)


def _simulator(stack: Stack, settings: Settings) -> str:
    url = start_simulator(stack, "--speed", "1")
    simulator_note(settings).write_text(json.dumps({"url": url}))
    return url


def _live_simulator(settings: Settings) -> str | None:
    """Address of the simulator whose note is there, ours or that of `keeper simulator`; None where it does not answer."""
    try:
        url = str(json.loads(simulator_note(settings).read_text())["url"])
        fetch_simulator_state(url)
    except (OSError, ValueError, KeyError, TypeError, NoKeepa):
        return None
    return url


def down(settings: Settings) -> None:
    """End what `up` or a kept demo started, the embedded server last."""
    demo = settings.data / "demo"
    for folder in (settings.data, demo):
        if not (folder / "run").exists():
            continue
        ended = Stack(folder, {}).stop()
        server = embedded_server(settings.model_copy(update={"data": folder}))
        if server.status().running:
            server.stop()
            ended.append("PostgreSQL")
        of_folder = settings.model_copy(update={"data": folder})
        if _live_simulator(of_folder) is None:
            simulator_note(of_folder).unlink(missing_ok=True)
        for name in ("prefect.url", "api.url", "dashboard.url"):
            (folder / "run" / name).unlink(missing_ok=True)
        print(f"ended {', '.join(ended) or 'nothing'} ({folder})")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m deployments.local", description=__doc__)
    parser.add_argument("command", choices=["up", "down"])
    parser.add_argument("--prefect-port", type=int, default=_PREFECT_PORT)
    arguments = parser.parse_args()
    try:
        settings = read_settings()
        Path(settings.data).mkdir(parents=True, exist_ok=True)
        if arguments.command == "up":
            up(settings, prefect_port=arguments.prefect_port)
        else:
            down(settings)
    except KeeperError as error:
        sys.exit(f"{arguments.command}: {error}")


if __name__ == "__main__":
    main()
