"""`keeper collect`: what people see, what programs read, and what is wrong in plain words."""

from pathlib import Path

from tests.integration.cli.terminal import Terminal

QUERY = 'marketplace = "DE"\nprice_types = ["NEW"]\ndate_range = "month"\n'


def test_the_seeds_become_deals_with_the_best_in_a_table(shell: Terminal) -> None:
    said = shell.run("collect", "--no-feed")
    assert "The best of the new deals" in said.stdout
    assert "0 pages, 47 tokens" in said.stdout


def test_a_program_reads_what_was_done(shell: Terminal, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(QUERY, encoding="utf-8")
    found = shell.ask("collect", "--no-seeds", KEEPER_DEALS_QUERIES=str(tmp_path))
    assert found["pages"] >= 1
    assert found["added"] == found["kept"] > 0
    assert found["tokens"] == 5 * found["pages"]
    assert found["best"][0]["url"].startswith("https://www.amazon.de/dp/")


def test_one_query_can_be_asked_alone(shell: Terminal, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text(QUERY, encoding="utf-8")
    found = shell.ask("collect", "--no-seeds", "--query", "one", "--pages", "1", KEEPER_DEALS_QUERIES=str(tmp_path))
    assert found["pages"] == 1


def test_a_query_that_is_not_there_is_named_with_those_that_are(shell: Terminal) -> None:
    said = shell.run("collect", "--query", "keybords-de")
    assert "there is no query keybords-de; there is keyboards-de" in said.stderr


def test_a_broken_file_says_which_and_what(shell: Terminal, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('marketplace = "DE"\nprice_form = 3\n', encoding="utf-8")
    said = shell.run("collect", "--no-seeds", KEEPER_DEALS_QUERIES=str(tmp_path))
    assert "mine: price_form is unknown" in said.stderr


def test_a_broken_file_costs_no_other_and_the_command_says_so_at_its_end(shell: Terminal, tmp_path: Path) -> None:
    (tmp_path / "good.toml").write_text(QUERY, encoding="utf-8")
    (tmp_path / "grouped.toml").write_text(QUERY + 'group = "broken"\n', encoding="utf-8")
    (tmp_path / "empty.csv").write_text("asin\n", encoding="utf-8")
    (tmp_path / "mine.csv").write_text("asin\nB08DG4C63H\n", encoding="utf-8")
    (tmp_path / "groups").mkdir()
    (tmp_path / "groups" / "broken.toml").write_text("name = 3\n", encoding="utf-8")
    said = shell.run(
        "collect",
        KEEPER_DEALS_QUERIES=str(tmp_path),
        KEEPER_DEALS_SEEDS=str(tmp_path),
        KEEPER_DEALS_GROUPS=f"{tmp_path / 'groups'},no/such/folder",
    )
    assert said.exit_code != 0
    assert "1 pages, 6 tokens" in said.stdout
    for trouble in ("product group broken", "no such folder", "grouped.toml: there is no product group", "empty.csv: no line of it"):
        assert trouble.replace("no such folder", "no/such/folder") in said.stderr


def test_files_of_the_same_name_are_refused_with_both_paths(shell: Terminal, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.toml").write_text(QUERY, encoding="utf-8")
    (tmp_path / "a" / "other.toml").write_text(QUERY, encoding="utf-8")
    said = shell.run("collect", "--no-seeds", KEEPER_DEALS_QUERIES=f"{tmp_path}/a,{tmp_path}/b,{tmp_path}/a/other.toml")
    assert f"{tmp_path}/a/mine.toml and {tmp_path}/b/mine.toml have the same name" in said.stderr
    assert "1 pages" in said.stdout


def test_a_folder_that_is_not_there_is_named_with_its_setting(shell: Terminal) -> None:
    said = shell.run("collect", KEEPER_DEALS_SEEDS="no/such/folder")
    assert "there is no file or folder no/such/folder; the settings KEEPER_DEALS_*" in said.stderr


def test_nothing_is_collected_where_the_settings_say_none(shell: Terminal) -> None:
    found = shell.ask("collect", KEEPER_DEALS_SEEDS="none", KEEPER_DEALS_QUERIES="none")
    assert (found["tokens"], found["seen"]) == (0, 0)


def test_bad_lines_of_seeds_are_named_and_the_rest_is_collected(shell: Terminal, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("asin\nB08DG4C63H\nhello\n", encoding="utf-8")
    said = shell.run("collect", "--no-feed", KEEPER_DEALS_SEEDS=str(tmp_path / "mine.csv"))
    assert "mine.csv, line 3: 'hello' is not an ASIN" in said.stdout
    assert "1 tokens" in said.stdout
