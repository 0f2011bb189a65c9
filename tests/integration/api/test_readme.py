"""The curl lines of the README work as they stand there."""

import csv
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.integration.api.conftest import MakeApi, MakePerson

README = Path(__file__).parents[3] / "README.md"


def lines_of_readme() -> list[str]:
    """The commands of the block, each with the exports before it."""
    section = README.read_text().partition("## The REST API")[2].partition("\n## ")[0]
    block = re.search(r"```bash\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return [line for line in block.group(1).splitlines() if line.strip() and not line.startswith("#")]


def test_every_curl_line_works_as_it_stands(make_api: MakeApi, make_person: MakePerson, tmp_path: Path) -> None:
    url = make_api()
    anna = make_person(url, "anna")
    export, *commands = lines_of_readme()
    environment = os.environ | {"KEEPER_KEY": anna.key, "KEEPER_URL": url}
    shared = export.replace("KEEPER_URL=http://127.0.0.1:8000 ", "")
    assert "8000" not in shared

    for command in commands:
        done = subprocess.run(
            ["bash", "-euc", f"{shared}\n{command}"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert done.stdout or "-o watches.csv" in command, command

    assert len(commands) >= 15
    assert "B00OCMRV40" in (tmp_path / "watches.csv").read_text()
    assert anna.get("/api/v1/watches", state="paused")["watches"][0]["asin"] == "B00OCMRV40"


def test_words_that_are_searched_for_are_in_titles_of_the_seeds() -> None:
    said = re.findall(r"\"(?:text|words)\": \"([^\"]+)\"|[?&]text=([a-z+]+)", "\n".join(lines_of_readme()))
    with (README.parent / "seeds" / "keyboards.csv").open(encoding="utf-8") as rows:
        titles = [row["title"].lower().split() for row in csv.DictReader(rows)]

    assert said
    for words in (one or other for one, other in said):
        assert any(set(words.split()) <= set(title) for title in titles), words


@pytest.mark.parametrize("command", [line for line in lines_of_readme() if line.startswith("curl")])
def test_every_curl_line_fails_loudly(command: str) -> None:
    assert command.startswith("curl -fsS ")
