"""From `bootstrap` and `prefect deploy` to prices in PostgreSQL, through a real process worker."""

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling

from deployments.stack import Stack, start_worker
from keeper.resources import SIMULATOR_KEY
from tests.services.installation import Installation
from tests.services.waiting import wait_until

RUN_SECONDS = 120
pytestmark = pytest.mark.slow


class Worker:
    """Deployments whose schedules rest, and a worker on their pools."""

    def __init__(self, installation: Installation, stack: Stack, client: SyncPrefectClient) -> None:
        self.installation = installation
        self.stack = stack
        self.client = client

    def trigger(self, deployment: str) -> UUID:
        """Ask for a run by the deployment's name."""
        found = self.client.read_deployment_by_name(deployment)
        return self.client.create_flow_run_from_deployment(found.id).id

    def run(self, run_id: UUID) -> FlowRun:
        """As the server knows it."""
        return self.client.read_flow_run(run_id)

    def is_over(self, run_id: UUID) -> bool:
        """Whether it has reached a last state."""
        state = self.run(run_id).state
        return state is not None and state.is_final()

    def end_of(self, run_id: UUID) -> tuple[str, str]:
        """The name and the message of its last state."""
        wait_until(lambda: self.is_over(run_id), f"the run does not end:\n{self.log}", longest_seconds=RUN_SECONDS)
        state = self.run(run_id).state
        assert state is not None
        return state.name or "", state.message or ""

    @property
    def log(self) -> str:
        """What the worker and its flows printed."""
        return (self.stack.run_folder / "worker.log").read_text()


@pytest.fixture
def worker(installation: Installation, tmp_path: Path) -> Iterator[Worker]:
    """As `make up` sets it up, but no schedule fires: each test asks for its own runs."""
    stack = Stack(
        tmp_path / "worker",
        installation.environment
        | {
            "KEEPER_KEEPA_BATCH_SIZE": "1",
            "KEEPER_KEEPA_REQUESTS_AT_ONCE": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_LOGGING_LEVEL": "DEBUG",
            "PREFECT_LOGGING_EXTRA_LOGGERS": "keeper,httpx,httpcore",
        },
    )
    stack.run("deployments.bootstrap")
    stack.run("prefect", "--no-prompt", "deploy", "--all")
    with installation.prefect.client() as client:
        for deployment in client.read_deployments():
            client.pause_deployment(deployment.id)
        start_worker(stack, "keeper-process", "keeper-heavy")
        yield Worker(installation, stack, client)
        stack.stop()
        for deployment in client.read_deployments():
            client.delete_deployment(deployment.id)  # with the place of a run that was killed


def test_price_watch_runs_through_a_worker_and_shows_no_key(worker: Worker) -> None:
    installation = worker.installation
    installation.watch(3)
    installation.tell_simulator("faults", kind="503", path="/product", next=1)

    run_id = worker.trigger("price-watch/tick")

    assert worker.end_of(run_id) == ("Completed", "checked 3, failed 0, 3 tokens")
    assert worker.run(run_id).name == "check prices: all that are due"
    assert installation.count("price_history") > 3
    assert installation.count("planned_checks WHERE last_checked_at IS NOT NULL") == 3
    shown = installation.prefect.logs(str(run_id))
    assert any("fetch-DE-1" in line for line in [*shown, worker.log])
    for told in ["\n".join(shown), worker.log, *installation.prefect.artifacts(str(run_id)).values()]:
        assert SIMULATOR_KEY not in told
        assert SIMULATOR_KEY[:20] not in told


def test_each_deployment_runs_green_with_its_own_parameters(worker: Worker) -> None:
    runs = [worker.trigger(one) for one in ("price-watch/every-6h", "price-watch/tick", "delivery/every-5min", "maintenance/daily")]

    assert [worker.end_of(run)[0] for run in runs] == ["Completed"] * 4


def test_second_run_of_a_deployment_gives_way(worker: Worker) -> None:
    worker.installation.watch(1)
    worker.installation.tell_simulator("faults", kind="slow", seconds=5, path="/product", next=1)

    runs = [worker.trigger("price-watch/tick") for _ in range(2)]

    assert sorted(worker.end_of(run)[0] for run in runs) == ["Cancelled", "Completed"]
    assert worker.installation.products_asked() == 1


def test_cancelled_run_gives_back_what_it_had_not_sent(worker: Worker) -> None:
    installation = worker.installation
    installation.watch(4)
    installation.tell_simulator("faults", kind="slow", seconds=3, path="/product", next=4)
    run_id = worker.trigger("price-watch/tick")
    wait_until(lambda: installation.products_asked() == 1, f"no request is under way:\n{worker.log}", longest_seconds=RUN_SECONDS)

    worker.client.set_flow_run_state(run_id, Cancelling())

    assert worker.end_of(run_id)[0] == "Cancelled"
    wait_until(lambda: installation.count("token_reservations") == 0, "reservations are left")
    assert installation.count("check_claims") <= 1
    assert installation.products_asked() == 1


def test_ended_worker_leaves_no_run_behind(worker: Worker) -> None:
    installation = worker.installation
    installation.watch(2)
    installation.tell_simulator("faults", kind="slow", seconds=20, path="/product", next=1)
    run_id = worker.trigger("price-watch/tick")
    wait_until(lambda: installation.products_asked() == 1, f"no request is under way:\n{worker.log}", longest_seconds=RUN_SECONDS)
    (pid,) = flow_processes(run_id)

    assert worker.stack.stop() == ["worker"]

    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the flow outlives its worker")


def flow_processes(run_id: UUID) -> list[int]:
    """Processes of this machine that run a flow run."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and str(run_id).encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]
