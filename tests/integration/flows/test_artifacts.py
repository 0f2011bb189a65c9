"""What a run shows in the Prefect UI, written to a real server by a process of its own."""

import subprocess
import sys

from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from deployments.stack import ROOT
from tests.services.prefect import PrefectServer


def show(server: PrefectServer, job: str, failures: dict[str, str]) -> str:
    """Call `show_checks` in a flow. Returns what was printed."""
    script = (
        "from prefect import flow\n"
        "from flows.artifacts import show_checks\n"
        "from keeper.check import Checked\n"
        f"flow(show_checks, validate_parameters=False)({job!r}, Checked(failures={failures!r}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=server.environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def shown(server: PrefectServer, key: str) -> str:
    """The artifact of a key."""
    with server.client() as client:
        (found,) = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
        return str(found.data)


def test_failures_are_rows_whatever_their_text_holds(prefect_server: PrefectServer) -> None:
    show(prefect_server, "job/rows", {"B07W6JG6Z7 DE": "first | second\nthird"})

    assert "| B07W6JG6Z7 DE | first / second third |" in shown(prefect_server, "job-rows")


def test_only_the_first_hundred_failures_are_listed(prefect_server: PrefectServer) -> None:
    show(prefect_server, "job/many", {f"B{number:09d} DE": "no answer" for number in range(103)})

    text = shown(prefect_server, "job-many")
    assert text.count("| no answer |") == 100
    assert "| and 3 more | |" in text


def test_artifact_that_cannot_be_written_fails_nothing(prefect_server: PrefectServer) -> None:
    printed = show(prefect_server, "a key with spaces!", {})

    assert "the artifact of a key with spaces! could not be written" in printed
    assert "Completed" in printed
