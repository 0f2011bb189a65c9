"""How it is served: to this machine alone, and reporting to nobody."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from dashboard.__main__ import options

FILE = Path(__file__).parents[3] / "dashboard" / ".streamlit" / "config.toml"


def test_usage_statistics_are_off_whoever_starts_it() -> None:
    assert "--browser.gatherUsageStats=false" in options("127.0.0.1", 8501)
    assert tomllib.loads(FILE.read_text())["browser"]["gatherUsageStats"] is False


def test_file_and_command_say_the_same() -> None:
    sections = tomllib.loads(FILE.read_text())
    written = [
        f"--{section}.{name}={str(one).lower() if isinstance(one, bool) else one}"
        for section, fields in sections.items()
        for name, value in fields.items()
        for one in (value if isinstance(value, list) else [value])
    ]

    assert sorted(written) == sorted(options("127.0.0.1", 8501))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_loopback_no_other_name_of_this_machine_is_answered(host: str) -> None:
    assert "--server.allowedHosts=127.0.0.1" in options(host, 8501)


def test_elsewhere_it_is_asked_for_by_any_name() -> None:
    assert not any("allowedHosts" in one for one in options("0.0.0.0", 8501))


def test_flows_load_nothing_of_the_dashboard() -> None:
    """What another library loads by itself where it finds it, no contract of imports can see."""
    script = (
        "import importlib, pkgutil, sys, flows\n"
        "for one in pkgutil.iter_modules(flows.__path__): importlib.import_module(f'flows.{one.name}')\n"
        "print(sorted({'streamlit', 'pandas', 'plotly', 'pyarrow', 'dashboard'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)

    assert done.stdout.strip() == "[]"
