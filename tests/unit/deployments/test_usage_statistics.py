"""Nothing Keeper ships reports its use to anybody, whatever stands in the environment of the person who runs it."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from prefect._internal.analytics.ci_detection import CI_ENV_VARS
from prefect._internal.analytics.enabled import is_telemetry_enabled
from prefect.settings.models.server.root import ServerSettings

from deployments.stack import ROOT, Stack

OFF = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
ON = {"PREFECT_SERVER_ANALYTICS_ENABLED": "true", "DO_NOT_TRACK": "0"}


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who reports elsewhere, and not from a CI, where Prefect is silent by itself."""
    for name in CI_ENV_VARS:
        monkeypatch.delenv(name, raising=False)
    for name, value in ON.items():
        monkeypatch.setenv(name, value)


def prefect_reports() -> tuple[bool, bool]:
    """Whether Prefect's server and its library would report from this environment."""
    return ServerSettings().analytics_enabled, is_telemetry_enabled()


@pytest.mark.usefixtures("person")
def test_make_switches_it_off_for_its_commands() -> None:
    done = subprocess.run(["make", "--silent", "--eval", "show: ; @env", "show"], cwd=ROOT, capture_output=True, text=True, check=True)

    environment = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert {name: environment.get(name) for name in OFF} == OFF


@pytest.mark.usefixtures("person")
def test_stack_switches_it_off_for_its_processes(tmp_path: Path) -> None:
    environment = Stack(tmp_path, {}).environment

    assert {name: environment.get(name) for name in OFF} == OFF


@pytest.mark.usefixtures("person")
def test_prefect_knows_both_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prefect_reports() == (True, True)

    for name, value in Stack(tmp_path, {}).environment.items():
        monkeypatch.setenv(name, value)

    assert prefect_reports() == (False, False)


def test_ci_only_calls_make() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]

    assert [step["run"] for step in steps if "run" in step and not step["run"].startswith("make ")] == []
    assert [one for one in [*jobs.values(), *steps] if OFF.keys() & one.get("env", {}).keys()] == []


def test_no_deployment_switches_it_on() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]

    assert [one["name"] for one in deployments if OFF.keys() & one["work_pool"].get("job_variables", {}).get("env", {}).keys()] == []


def test_tests_report_nothing() -> None:
    assert {name: os.environ.get(name) for name in OFF} == OFF
