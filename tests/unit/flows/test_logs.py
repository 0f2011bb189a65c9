"""What a run prints, in a process of its own: Prefect's logging is set up once in each."""

import os
import subprocess
import sys

import pytest

SECRET = "s3cret-of-keepa"
PROGRAM = f"""
import logging
import flows
log = logging.getLogger("prefect.flow_runs")
log.warning("asked with {SECRET}", extra={{"flow_run_name": "price-watch", "flow_name": "price-watch"}})
try:
    raise RuntimeError("https://keepa.example/product?key={SECRET}&domain=3")
except RuntimeError:
    log.exception("it failed", extra={{"flow_run_name": "price-watch", "flow_name": "price-watch"}})
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_secret_is_printed_in_either_form_not_even_in_a_traceback(form: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "KEEPER_KEEPA_API_KEY": SECRET, "KEEPER_LOG_FORMAT": form, "PREFECT_LOGGING_TO_API_ENABLED": "false"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    printed = done.stdout + done.stderr
    assert "asked with" in printed
    assert "RuntimeError: https://keepa.example/product?key=" in printed
    assert SECRET not in printed
