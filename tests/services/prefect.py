"""A real Prefect server in a process of its own, for the tests of flows and deployments."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.client.schemas.sorting import LogSort
from prefect.exceptions import ObjectNotFound

from deployments.stack import Stack, free_port, start_prefect
from tasks.limits import REQUESTS, TOKENS
from tests.services.waiting import wait_until

POOLS = ("keeper-process", "keeper-heavy")


class PrefectServer:
    """A server on a free port with its database in PostgreSQL, from `start` to `stop`; settings in `stack.environment`."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.stack = Stack(folder, {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url, "PREFECT_SERVER_LOGGING_LEVEL": "WARNING"})
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"

    def start(self) -> None:
        """Start it, or start it again on the same port and database."""
        start_prefect(self.stack, self.port)

    def stop(self) -> None:
        """End it and whatever else the stack started."""
        self.stack.stop()

    def kill(self) -> None:
        """SIGKILL for the server and its children."""
        for one in self.stack.processes():
            if one.name == "prefect-server":
                os.killpg(one.pid, signal.SIGKILL)
        wait_until(lambda: not self.stack.is_running("prefect-server"), "the server outlives SIGKILL")

    def environment(self, **more: str) -> dict[str, str]:
        """What a process that talks to this server needs in its environment."""
        return {**self.stack.environment, **more}

    def client(self) -> SyncPrefectClient:
        """A client; use as a context manager."""
        return SyncPrefectClient(self.url)

    def set_limits(self, *, requests: int = 5, tokens: int = 1200, decay: float = 2 / 3) -> None:
        """Make Keeper's two limits anew, with nothing taken."""
        self.remove_limits()
        with self.client() as client:
            for name, limit, slot_decay in ((REQUESTS, requests, 0.0), (TOKENS, tokens, decay)):
                client.create_global_concurrency_limit(
                    GlobalConcurrencyLimitCreate(name=name, limit=limit, active=True, active_slots=0, slot_decay_per_second=slot_decay)
                )

    def remove_limits(self) -> None:
        """Remove both."""
        for name in (REQUESTS, TOKENS):
            self.remove_limit(name)

    def remove_limit(self, name: str) -> None:
        """Remove one, if it is there."""
        with self.client() as client:
            try:
                client.delete_global_concurrency_limit_by_name(name)
            except ObjectNotFound:
                return

    def limit(self, name: str) -> GlobalConcurrencyLimitResponse:
        """One of them as it stands."""
        with self.client() as client:
            return client.read_global_concurrency_limit_by_name(name)

    @contextmanager
    def hold_slots(self, name: str, slots: int) -> Iterator[None]:
        """Hold slots of a limit, as somebody else's flow would."""
        with self.client() as client:
            held = client.increment_concurrency_slots_with_lease([name], slots, "concurrency", lease_duration=300)
            yield
            client.release_concurrency_slots_with_lease(UUID(held.json()["lease_id"]))

    def empty(self) -> None:
        """Remove what `bootstrap`, `prefect deploy` and runs leave, but limits; automations would act on the runs of other tests."""
        with self.client() as client:
            for deployment in client.read_deployments():
                client.delete_deployment(deployment.id)
            for automation in client.read_automations():
                client.delete_automation(automation.id)
            for pool in client.read_work_pools():
                if pool.name in POOLS:
                    client.delete_work_pool(pool.name)
            for variable in client.read_variables():
                client.delete_variable_by_name(variable.name)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Events whose name begins so, oldest first."""
        with self.client() as client:
            asked = {"filter": {"event": {"prefix": [name]}, "order": "ASC"}, "limit": 50}
            found: list[dict[str, Any]] = client.request("POST", "/events/filter", json=asked).json()["events"]
            return found

    def wait_for_event(self, name: str, run_id: str) -> None:
        """Until a run has told it; events arrive behind a run's end."""

        def is_there() -> bool:
            return any(
                f"prefect.flow-run.{run_id}" in {one["prefect.resource.id"] for one in told["related"]} for told in self.events(name)
            )

        wait_until(is_there, f"the run has not told {name}")

    def flow_run(self, run_id: str) -> FlowRun:
        """A run as the server knows it."""
        with self.client() as client:
            return client.read_flow_run(UUID(run_id))

    def logs(self, run_id: str) -> list[str]:
        """The messages of a run, oldest first."""
        with self.client() as client:
            wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[UUID(run_id)]))
            return [one.message for one in client.read_logs(log_filter=wanted, sort=LogSort.TIMESTAMP_ASC)]

    def artifacts(self, run_id: str) -> Mapping[str, str]:
        """What a run shows, by key."""
        with self.client() as client:
            found = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(run_id)])))
            return {one.key or "": str(one.data) for one in found}
