"""`make audit`: what is known against the packages of requirements.lock. Says so where nobody could be asked.

pip-audit by itself ends with "No known vulnerabilities found" where each package was left out, as behind a mirror that knows none of them.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[1]
_LOCK: Final = _ROOT / "requirements.lock"
# Not in the lock itself: it is asked for when somebody wants it, and nothing of Keeper works with it.
_TOOL: Final = "pip-audit==2.9.0"
_LONGEST_SECONDS: Final = 900
_FOUND, _NOT_ASKED = 1, 2


@dataclass(frozen=True, slots=True)
class Findings:
    """What was said.

    Attributes:
        known: a line for each vulnerability.
        skipped: packages that nothing was said of.
        problem: why nothing was said at all; empty where something was.
    """

    asked: int = 0
    known: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    problem: str = ""

    @property
    def exit_code(self) -> int:
        """0 only where every package was asked for and nothing is known against it."""
        return _FOUND if self.known else _NOT_ASKED if self.problem or self.skipped or not self.asked else 0

    @property
    def sentence(self) -> str:
        """For people."""
        if self.problem:
            return f"NOT AUDITED: {self.problem}"
        said = f"{self.asked} packages asked for, {len(self.known)} known vulnerabilities"
        if self.skipped:
            return (
                f"{said}; NOT AUDITED: {len(self.skipped)} packages, of which the service said nothing ({', '.join(self.skipped[:5])}, …)"
            )
        return said


def read_findings(answer: str, problem: str) -> Findings:
    """Of pip-audit's answer in JSON; of what it complained of where that is none."""
    try:
        told = json.loads(answer)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = [line for line in problem.splitlines() if line.strip()]
        return Findings(problem=f"pip-audit did not come to an answer ({lines[-1].strip()[:300] if lines else 'and said nothing'})")
    return Findings(
        asked=sum("skip_reason" not in one for one in told),
        known=tuple(
            f"{one['name']} {one['version']}: {known['id']}, mended in {', '.join(known['fix_versions']) or 'no version yet'}"
            for one in told
            for known in one.get("vulns", ())
        ),
        skipped=tuple(one["name"] for one in told if "skip_reason" in one),
    )


def find(lock: Path) -> Findings:
    """Ask pip-audit, which uv fetches for it."""
    command = [str(Path(sys.executable).with_name("uv")), "tool", "run", _TOOL, "--disable-pip", "--require-hashes", "-r", str(lock)]
    try:
        done = subprocess.run(
            [*command, "--format", "json", "--progress-spinner", "off"],
            capture_output=True,
            text=True,
            timeout=_LONGEST_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Findings(problem=f"pip-audit cannot be run ({type(error).__name__})")
    return read_findings(done.stdout, done.stderr)


def main() -> None:
    """Ends with 1 where something is known, with 2 where not everything could be asked for."""
    findings = find(_LOCK)
    for line in findings.known:
        print(line)
    print(findings.sentence)
    sys.exit(findings.exit_code)


if __name__ == "__main__":
    main()
