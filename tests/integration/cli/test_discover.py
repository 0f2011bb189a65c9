"""`keeper discover`: what people see, what programs read, and what is wrong in plain words."""

from pathlib import Path

from keeper.postgres.engine import open_engine
from keeper.postgres.jobs import hold_job
from tests.integration.cli.terminal import Terminal

FILE = 'marketplace = "DE"\n[find]\nrank_from = 1\nmost = 50\n'


def test_a_person_reads_what_joined_and_what_it_cost(shell: Terminal, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(FILE, encoding="utf-8")
    said = shell.run("discover", "--most", "5", KEEPER_DISCOVERY_FILES=str(tmp_path))
    assert "products joined the catalog of" in said.stdout
    assert "5 products are one run's (KEEPER_DISCOVERY_MOST_PER_RUN)" in said.stdout


def test_a_program_reads_what_was_done(shell: Terminal, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(FILE, encoding="utf-8")
    found = shell.ask("discover", KEEPER_DISCOVERY_FILES=str(tmp_path))
    assert found["added"] == found["catalog"] > 20
    assert found["tokens"] == 11 + found["added"] + found["failed"]
    assert shell.ask("discover", "--no-lists")["tokens"] == 0


def test_the_shipped_files_can_be_asked(shell: Terminal) -> None:
    found = shell.ask("discover")
    assert (found["lists"], found["troubles"]) == (1, [])


def test_a_file_that_is_not_there_is_named_with_those_that_are(shell: Terminal) -> None:
    said = shell.run("discover", "--file", "keybords-de")
    assert "there is no file keybords-de; there is keyboards-de" in said.stderr


def test_a_broken_file_says_which_and_what(shell: Terminal, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('marketplace = "DE"\n[find]\nword = "x"\n', encoding="utf-8")
    said = shell.run("discover", KEEPER_DISCOVERY_FILES=str(tmp_path))
    assert "mine: word is unknown" in said.stderr


def test_nothing_is_discovered_where_the_settings_say_none(shell: Terminal) -> None:
    assert shell.ask("discover", KEEPER_DISCOVERY_FILES="none")["tokens"] == 0


def test_a_second_one_beside_it_is_told_so(shell: Terminal) -> None:
    shell.run("discover", "--most", "1")
    engine = open_engine(shell.environment["KEEPER_DATABASE_URL"])
    with hold_job(engine, "discovery"):
        said = shell.run("discover")
    engine.dispose()
    assert "another discovery is under way on this database" in said.stderr
