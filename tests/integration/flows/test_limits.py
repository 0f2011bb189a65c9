"""Prefect's global limits on a real server: they hold Keeper back, and a missing one is no free pass."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from deployments.stack import free_port
from keeper.postgres.embedded import EmbeddedServer
from keeper.simulator.server import Simulator
from tasks.limits import REQUESTS, TOKENS
from tests.services.installation import Installation, make_installation
from tests.services.waiting import wait_until

JOB = "price_watch.price_watch"
SLOT_FREE_SECONDS = 120


def is_fetching(installation: Installation) -> bool:
    """Whether a flow has reached its fetch task."""
    with installation.prefect.client() as client:
        return bool(client.request("POST", "/task_runs/filter", json={"task_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}).json())


@pytest.mark.parametrize("name", [REQUESTS, TOKENS])
def test_missing_limit_is_an_error_that_says_what_to_do(installation: Installation, name: str) -> None:
    installation.watch(2)
    installation.prefect.remove_limit(name)

    end = installation.run(JOB)

    assert end.state == "Failed"
    assert "`python -m deployments.bootstrap` makes them" in end.message
    assert installation.products_asked() == 0
    assert installation.count("token_reservations") == installation.count("check_claims") == 0


def test_without_limits_by_setting_nothing_is_asked_of_prefect(installation: Installation) -> None:
    installation.watch(2)
    installation.prefect.remove_limits()
    installation.environment["KEEPER_PREFECT_LIMITS"] = "false"

    assert installation.run(JOB).message == "checked 2, failed 0, 2 tokens"


def test_fetch_takes_its_tokens_from_the_limit_and_gives_its_place_back(installation: Installation) -> None:
    installation.prefect.set_limits(decay=0.0001)
    installation.watch(3)

    installation.run(JOB)

    assert installation.prefect.limit(TOKENS).active_slots == 3
    assert installation.prefect.limit(REQUESTS).active_slots == 0


def test_foreign_flow_that_holds_every_place_delays_ours(installation: Installation) -> None:
    installation.watch(2)
    with installation.prefect.hold_slots(REQUESTS, 5):
        running = installation.start(JOB)
        wait_until(lambda: installation.count("token_reservations") == 1, "nothing is planned")
        wait_until(lambda: is_fetching(installation), "no fetch runs")
        assert installation.products_asked() == 0

    assert installation.end_of(running).message == "checked 2, failed 0, 2 tokens"


@pytest.mark.parametrize(("name", "slots"), [(REQUESTS, 5), (TOKENS, 1200)])
def test_slots_that_do_not_come_free_leave_the_watches_due(installation: Installation, name: str, slots: int) -> None:
    installation.prefect.set_limits(decay=0.0001)
    installation.environment["KEEPER_PREFECT_LIMIT_WAIT_SECONDS"] = "1"
    installation.watch(2)
    with installation.prefect.hold_slots(name, slots):
        end = installation.run(JOB)

    assert end.state == "Failed"
    assert end.message.startswith("checked 0, failed 0, 0 tokens; 2 products wait for the next run; no slot of Prefect's limits")
    assert installation.products_asked() == 0
    assert installation.count("token_reservations") == installation.count("check_claims") == 0
    assert installation.rows("SELECT count(*) FROM planned_checks WHERE next_check_at <= keeper_now() AND last_failure IS NULL")[0][0] == 2
    assert installation.prefect.limit(REQUESTS).active_slots == 0

    installation.prefect.set_limits()
    assert installation.run(JOB).message == "checked 2, failed 0, 2 tokens"


def test_lower_limit_cuts_batches(installation: Installation) -> None:
    installation.prefect.set_limits(tokens=10, decay=1000)
    installation.watch(47)

    end = installation.run(JOB)

    assert end.message == "checked 47, failed 0, 47 tokens"
    assert sorted((call.asin_count for call in installation.paid_calls()), reverse=True) == [10, 10, 10, 10, 7]


def test_lower_decay_slows_keeper(installation: Installation) -> None:
    installation.prefect.set_limits(tokens=10, decay=0.0001)
    installation.environment["KEEPER_PREFECT_LIMIT_WAIT_SECONDS"] = "1"
    installation.watch(20)

    end = installation.run(JOB)

    assert end.state == "Failed"
    assert end.message.startswith("checked 10, failed 0, 10 tokens; 10 products wait for the next run; ")


def test_prefect_that_does_not_answer_gives_no_slots_and_says_so() -> None:
    script = (
        "from tasks.limits import SlotsUnavailable, largest_request, slots\n"
        "for take in (largest_request, slots(1, wait_seconds=30).__enter__):\n"
        "    try:\n"
        "        take()\n"
        "    except SlotsUnavailable as error:\n"
        "        print(error)\n"
    )
    nobody = {"PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api", "PREFECT_SERVER_EPHEMERAL_ENABLED": "false"}

    done = subprocess.run([sys.executable, "-c", script], env=os.environ | nobody, capture_output=True, text=True, timeout=90, check=True)

    assert done.stdout.count("Prefect's API does not answer") == 2


@pytest.fixture
def simulator(request: pytest.FixtureRequest) -> Iterator[Simulator]:
    """A bucket of 1200 tokens, or of 60 times the rate a test asks for."""
    with Simulator(refill_per_minute=getattr(request, "param", 20), products=200) as running:
        yield running


@pytest.mark.parametrize("simulator", [1], indirect=True, ids=["60-tokens"])
def test_two_flows_in_two_processes_never_exceed_the_budget(installation: Installation) -> None:
    installation.prefect.set_limits(tokens=60, decay=2 / 60)
    installation.environment["KEEPER_KEEPA_BATCH_SIZE"] = "4"
    watched = installation.watch(100)
    running = [installation.start(JOB, deployment=name) for name in ("every-6h", "tick")]

    ends = [installation.end_of(one) for one in running]

    assert {end.state for end in ends} == {"Completed"}
    said = installation.simulator_says("requests", last=1000)
    assert "429" not in said["by_status"]
    asked = [asin for call in said["calls"] if call["path"] == "/product" for asin in call["parameters"]["asin"].split(",")]
    assert len(asked) == len(set(asked)) == said["tokens_consumed"]
    assert 50 <= said["tokens_consumed"] <= 60 < len(watched)


@pytest.mark.parametrize("simulator", [1], indirect=True, ids=["60-tokens"])
def test_two_installations_on_one_key_share_the_limit(
    installation: Installation, simulator: Simulator, postgres: EmbeddedServer, tmp_path: Path
) -> None:
    postgres.create_database("keeper_other", template="template_keeper")
    with make_installation(
        installation.prefect, simulator, postgres.dsn("keeper_other"), tmp_path / "other", Fernet.generate_key().decode()
    ) as other:
        installation.prefect.set_limits(tokens=60, decay=0.0001)
        both = (installation, other)
        for one in both:
            one.environment |= {"KEEPER_KEEPA_BATCH_SIZE": "4", "KEEPER_PREFECT_LIMIT_WAIT_SECONDS": "15"}
            one.watch(48)  # whole batches of four only, so that sixty tokens are fifteen of them, whoever takes which
        running = [one.start(JOB) for one in both]
        ends = [one.end_of(flow) for one, flow in zip(both, running, strict=True)]
    postgres.drop_database("keeper_other")

    said = installation.simulator_says("requests")
    assert "429" not in said["by_status"]
    assert said["tokens_consumed"] == 60
    assert "Failed" in {end.state for end in ends}


@pytest.mark.slow
def test_place_of_a_holder_killed_with_the_server_is_free_within_two_minutes(installation: Installation) -> None:
    prefect = installation.prefect
    installation.watch(1)
    installation.tell_simulator("faults", kind="slow", seconds=60, path="/product", next=1)
    running = installation.start(JOB)
    wait_until(lambda: installation.products_asked() == 1, "no request is under way")
    assert prefect.limit(REQUESTS).active_slots == 1

    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    prefect.kill()
    prefect.start()

    assert prefect.limit(REQUESTS).active_slots == 1
    wait_until(lambda: prefect.limit(REQUESTS).active_slots == 0, "the place is still taken", longest_seconds=SLOT_FREE_SECONDS)
