"""The simulator speaks Keepa's protocol to others too: the client `keepa` of the package index reads what ours reads.

It needs pandas, so it lives in an environment of its own below `.keeper/`, made on first use, and never in our lock file.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.stack import ROOT
from keeper.simulator.server import Simulator

CLIENT = "keepa==1.6.0"
SCRIPT = Path(__file__).with_name("third_party_client.py")
KEY = "k" * 64
GERMANY = 3
# Its names for Keepa's columns.
AMAZON, NEW, USED, SALES_RANK = ("AMAZON", 0), ("NEW", 1), ("USED", 2), ("SALES", 3)
MONEY = [AMAZON, NEW, USED]


@pytest.fixture(scope="module")
def their_python() -> Path:
    """An interpreter that has the client."""
    folder = ROOT / ".keeper" / "third-party" / CLIENT.replace("==", "-")
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python
    uv = Path(sys.executable).with_name("uv")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        for words in (["venv", "--python", sys.executable, str(folder)], ["pip", "install", "--python", str(python), CLIENT]):
            subprocess.run([uv, "--quiet", *words], cwd=ROOT, check=True, capture_output=True, text=True, timeout=240)
    except (OSError, subprocess.SubprocessError) as error:
        why = f"{CLIENT} cannot be installed: {getattr(error, 'stderr', '') or error}"
        if os.environ.get("KEEPER_REQUIRE_SERVICES") == "1":
            pytest.fail(why)
        pytest.skip(why)
    (folder / "complete").touch()
    return python


@pytest.fixture(scope="module")
def answers(their_python: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What their client makes of three products, and what the simulator says of them."""
    with Simulator() as simulator:
        asins: list[str] = httpx.get(f"{simulator.url}/_simulator/products", params={"count": 3}, timeout=10).json()["asins"]
        wanted: dict[str, str | int] = {"key": KEY, "domain": GERMANY, "asin": ",".join(asins), "stats": 90}
        done = subprocess.run(
            [their_python, SCRIPT, simulator.url, *asins],
            env=os.environ | {"NO_PROXY": "*"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        raw: dict[str, Any] = httpx.get(f"{simulator.url}/product", params=wanted, timeout=10).json()
    return json.loads(done.stdout), raw


def pairs(answers: tuple[dict[str, Any], dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each product, as they understand it and as it was sent."""
    theirs, raw = answers
    sent = {one["asin"]: one for one in raw["products"]}
    return [(one, sent[one["asin"]]) for one in theirs["products"]]


def test_their_client_counts_its_tokens(answers: tuple[dict[str, Any], dict[str, Any]]) -> None:
    theirs, raw = answers
    assert (theirs["before"], theirs["after"], raw["tokensLeft"]) == (1200, 1197, 1194)


def test_their_client_finds_every_product(answers: tuple[dict[str, Any], dict[str, Any]]) -> None:
    found = pairs(answers)

    assert len({theirs["asin"] for theirs, _ in found}) == len(answers[1]["products"]) == 3
    assert [theirs["title"] for theirs, _ in found] == [sent["title"] for _, sent in found]
    assert all(theirs["title"] for theirs, _ in found)


@pytest.mark.parametrize(("name", "column"), [AMAZON, NEW, USED, SALES_RANK], ids=str)
def test_their_client_reads_the_whole_history(answers: tuple[dict[str, Any], dict[str, Any]], name: str, column: int) -> None:
    lengths = [(theirs["lengths"].get(name, 0), len(sent["csv"][column] or []) // 2) for theirs, sent in pairs(answers)]

    assert [theirs for theirs, _ in lengths] == [sent for _, sent in lengths]
    assert max(sent for _, sent in lengths) > 50


@pytest.mark.parametrize(("name", "column"), MONEY, ids=str)
def test_their_client_sees_the_current_prices(answers: tuple[dict[str, Any], dict[str, Any]], name: str, column: int) -> None:
    seen = [(theirs["current"].get(name), sent["stats"]["current"][column]) for theirs, sent in pairs(answers)]

    assert [None if price is None else round(price * 100) for price, _ in seen] == [minor if minor >= 0 else None for _, minor in seen]
    assert any(price is not None for price, _ in seen)
