"""SECURITY.md names what there is."""

import re
from pathlib import Path

import typer

from keeper.cli import app
from keeper.settings import list_fields

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def test_every_file_that_defends_something_is_there() -> None:
    named = re.findall(r"`([a-z_]+/[\w./]*|[\w.]+\.(?:lock|md))`", TEXT)

    assert len(named) > 20
    assert [one for one in named if not (ROOT / one).exists()] == []


def test_every_name_that_stands_with_a_file_is_in_it() -> None:
    named = re.findall(r"`([\w/]+\.py)` `(\w+)`", TEXT)

    assert len(named) >= 3
    assert [one for one in named if one[1] not in (ROOT / one[0]).read_text(encoding="utf-8")] == []


def test_every_setting_and_command_is_one() -> None:
    groups = typer.main.get_group(app).commands
    settings = set(re.findall(r"KEEPER_[A-Z_]+[A-Z]", TEXT))
    commands = set(re.findall(r"`keeper ([a-z]+) ([a-z]+)", TEXT))

    assert settings - {name for name, _, _ in list_fields()} == set()
    assert [one for one in commands if one[1] not in getattr(groups[one[0]], "commands", {})] == []
