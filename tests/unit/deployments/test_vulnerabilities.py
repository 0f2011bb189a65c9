"""What is locked is what is installed, and what was not asked for is not called safe."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deployments.vulnerabilities import Findings, read_findings

ROOT = Path(__file__).parents[3]
_SAFE = {"name": "idna", "version": "3.7", "vulns": []}
_KNOWN = {"name": "jinja2", "version": "3.1.0", "vulns": [{"id": "CVE-2024-22195", "fix_versions": ["3.1.3"]}]}
# As pip-audit 2.9.0 tells it, with exit code 0, behind a mirror without the pages it reads.
_SKIPPED = {"name": "idna", "skip_reason": "Dependency not found on PyPI and could not be audited: idna (3.6)"}


def test_every_package_of_the_lock_has_a_version_and_a_hash() -> None:
    lock = re.sub(r"\\\n", " ", (ROOT / "requirements.lock").read_text(encoding="utf-8"))
    packages = [line for line in lock.splitlines() if line.strip() and not line.lstrip().startswith("#")]

    wrong = [one for one in packages if not re.match(r"[a-z0-9._-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", one)]

    assert len(packages) > 100
    assert wrong == []


@pytest.mark.parametrize(
    ("told", "exit_code", "sentence"),
    [
        ([_SAFE], 0, "1 packages asked for, 0 known vulnerabilities"),
        ([_SAFE, _KNOWN], 1, "2 packages asked for, 1 known vulnerabilities"),
        ([_SAFE, _SKIPPED], 2, "NOT AUDITED: 1 packages"),
        ([], 2, "0 packages asked for"),
    ],
    ids=["nothing known", "something known", "one left out", "none asked for"],
)
def test_only_what_was_asked_for_is_called_safe(told: list[dict[str, Any]], exit_code: int, sentence: str) -> None:
    findings = read_findings(json.dumps({"dependencies": told, "fixes": []}), "")

    assert findings.exit_code == exit_code
    assert sentence in findings.sentence


def test_a_vulnerability_is_named_with_the_version_that_mends_it() -> None:
    findings = read_findings(json.dumps({"dependencies": [_KNOWN]}), "")

    assert findings == Findings(asked=1, known=("jinja2 3.1.0: CVE-2024-22195, mended in 3.1.3",))


def test_without_a_network_nothing_is_called_safe(tmp_path: Path) -> None:
    environment = os.environ | {"UV_OFFLINE": "1", "UV_CACHE_DIR": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-m", "deployments.vulnerabilities"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout[:12]) == (2, "NOT AUDITED:")
