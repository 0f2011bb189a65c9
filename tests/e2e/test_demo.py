"""`make demo` as a new user sees it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.stack import ROOT

DEMO_SECONDS = 280


def run_demo(folder: Path) -> tuple[str, dict[str, object]]:
    """What it printed, and its last line."""
    environment = {**os.environ, "KEEPER_DATA": str(folder), "KEEPER_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/of-the-user"}
    done = subprocess.run(
        [sys.executable, "-m", "deployments.demo"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(2 * DEMO_SECONDS + 60)
def test_the_demo_runs_again_and_again_and_ends_what_it_started(tmp_path: Path) -> None:
    for _ in range(2):
        shown, summary = run_demo(tmp_path)
        assert list(summary) == [
            "source", "watches", "checked", "price_points", "alerts", "delivered", "deals", "reports", "opportunities",
            "tokens_spent", "tokens_per_check", "seconds",
        ]  # fmt: skip
        assert (summary["source"], summary["watches"], summary["checked"], summary["tokens_per_check"]) == ("simulator", 47, 94, 1.0)
        assert summary["alerts"] != 0
        assert summary["deals"] != 0
        assert summary["opportunities"] != 0
        assert "price gaps, by what is left of them" in shown
        assert (summary["reports"], summary["delivered"]) == (1, int(str(summary["alerts"])) + 1)
        assert "Subject:" in shown
        mails = list((tmp_path / "demo" / "mail").glob("*.eml"))
        assert len(mails) == summary["delivered"]
        assert not (tmp_path / "demo" / "run" / "processes.json").exists()
