"""Whole lists on the command line: in from a file, out to a file, paused and resumed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli.terminal import Terminal

ASIN, OTHER = "B08DG4C63H", "B00OCMRV40"
FILE = f"asin,marketplace,target,is_paused\n{ASIN},UK,49.90,\n{OTHER},,,true\n"


def listed(shell: Terminal, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = shell.ask("watch", "list", *options)
    return found


def test_a_file_is_taken_in_from_standard_input(anna: Terminal) -> None:
    done = anna.ask("watch", "import", "-", typed=FILE)
    assert done == {"rows": 2, "added": 2, "updated": 0, "kept": 0, "rejected": []}
    assert [(one["asin"], one["target_minor"], one["is_paused"]) for one in listed(anna, "--all")] == [
        (ASIN, 4990, False),
        (OTHER, None, True),
    ]


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("watches.csv", FILE, []),
        ("watches.JSON", json.dumps([{"asin": ASIN}, {"asin": OTHER}]), []),
        ("watches.txt", FILE, []),
        ("watches.txt", json.dumps({"watches": [{"asin": ASIN}, {"asin": OTHER}]}), []),
        ("watches.json", FILE, ["--format", "csv"]),
    ],
    ids=["csv", "json", "csv by its content", "json by its content", "csv by option"],
)
def test_the_form_of_a_file_is_known(anna: Terminal, tmp_path: Path, name: str, content: str, options: list[str]) -> None:
    file = tmp_path / name
    file.write_text(content)
    assert anna.ask("watch", "import", str(file), *options)["added"] == 2


def test_rejected_rows_are_shown_by_line_and_the_rest_is_written(anna: Terminal) -> None:
    result = anna.run("watch", "import", "-", typed=f"asin,target\n{ASIN},5\n{OTHER},cheap\n")
    assert (result.exit_code, "1 of 2 rows were rejected" in result.stderr) == (1, True)
    assert "Added 1, changed 0, left 0 as they were." in result.stdout
    assert re.search(r"3 +target +'cheap' is not an amount", result.stdout)
    assert len(listed(anna)) == 1


def test_rejected_rows_are_json_for_a_program(anna: Terminal) -> None:
    result = anna.run("watch", "import", "-", "--json", typed="asin\nwrong\n")
    [problem] = json.loads(result.stdout)["rejected"]
    assert (result.exit_code, problem["line"], problem["field"]) == (1, 2, "asin")
    assert "1 of 1 rows were rejected" in json.loads(result.stderr)["error"]


def test_all_or_nothing_writes_nothing(anna: Terminal) -> None:
    result = anna.run("watch", "import", "-", "--all-or-nothing", typed=f"asin\n{ASIN}\nwrong\n")
    assert (result.exit_code, "nothing was written" in result.stderr, listed(anna)) == (1, True, [])


@pytest.mark.parametrize(("existing", "target"), [("keep", None), ("update", 500)])
def test_what_is_there_is_kept_or_changed_as_asked(anna: Terminal, existing: str, target: int | None) -> None:
    anna.ask("watch", "add", ASIN)
    anna.ask("watch", "import", "-", "--existing", existing, typed=f"asin,target\n{ASIN},5\n")
    assert [one["target_minor"] for one in listed(anna)] == [target]


def test_a_file_that_says_nothing_is_an_error_in_one_line(anna: Terminal) -> None:
    result = anna.run("watch", "import", "-", typed="asin,colour\n")
    assert (result.exit_code, result.stderr.count("\n"), "unknown columns: 'colour'" in result.stderr) == (1, 1, True)


def test_a_file_that_is_not_there_is_an_error_in_one_line(anna: Terminal, tmp_path: Path) -> None:
    result = anna.run("watch", "import", str(tmp_path / "none.csv"))
    assert (result.exit_code, result.stderr) == (1, f"keeper: {tmp_path / 'none.csv'} cannot be read: No such file or directory\n")


def test_many_faults_are_cut_in_a_table_and_whole_for_a_program(anna: Terminal) -> None:
    typed = "asin\n" + "wrong\n" * 150
    result = anna.run("watch", "import", "-", typed=typed)
    assert ("first 100 faults" in result.stderr, result.stdout.count("'wrong'")) == (True, 100)
    assert len(json.loads(anna.run("watch", "import", "-", "--json", typed=typed).stdout)["rejected"]) == 150


@pytest.mark.parametrize("form", ["csv", "json"])
def test_what_was_exported_changes_nothing_when_imported(anna: Terminal, tmp_path: Path, form: str) -> None:
    anna.ask("watch", "import", "-", typed=FILE)
    before = listed(anna, "--all")
    file = tmp_path / f"watches.{form}"
    assert anna.ask("watch", "export", str(file)) == {"file": str(file), "watches": 2}
    assert anna.ask("watch", "import", str(file), "--existing", "update")["kept"] == 2
    assert listed(anna, "--all") == before


def test_an_export_goes_to_standard_output(anna: Terminal) -> None:
    anna.ask("watch", "import", "-", typed=FILE)
    assert anna.run("watch", "export").stdout.splitlines()[1:] == [
        f"{ASIN},UK,NEW,49.90,6h,2,false,,,GBP",
        f"{OTHER},DE,NEW,,6h,2,true,,,EUR",
    ]


def test_an_export_is_json_where_asked(anna: Terminal) -> None:
    anna.ask("watch", "import", "-", typed=FILE)
    as_json = anna.ask("watch", "export")
    assert [one["target"] for one in as_json["watches"]] == ["49.90", None]
    assert json.loads(anna.run("watch", "export", "--format", "json").stdout) == as_json


def test_an_export_holds_only_the_users_own(anna: Terminal) -> None:
    anna.ask("user", "add", "ben")
    anna.ask("watch", "add", ASIN, "--user", "anna")
    assert anna.ask("watch", "export", "--user", "ben") == {"watches": []}


def test_a_file_that_cannot_be_written_stays_as_it_was(anna: Terminal, tmp_path: Path) -> None:
    missing = tmp_path / "no-folder" / "watches.csv"
    result = anna.run("watch", "export", str(missing))
    assert (result.exit_code, f"{missing} cannot be written" in result.stderr) == (1, True)


def test_a_link_to_a_file_stays_a_link(anna: Terminal, tmp_path: Path) -> None:
    link, file = tmp_path / "link.csv", tmp_path / "file.csv"
    file.write_text("before")
    link.symlink_to(file)
    anna.ask("watch", "export", str(link))
    assert (link.is_symlink(), file.read_text().startswith("asin,"), sorted(tmp_path.glob("*.part"))) == (True, True, [])


def test_a_paused_watch_waits_and_a_resumed_one_is_due(anna: Terminal) -> None:
    ids = [str(watch_id) for watch_id in anna.ask("watch", "add", ASIN, OTHER)["watch_ids"]]
    assert anna.ask("watch", "pause", *ids) == {"paused": [int(watch_id) for watch_id in ids]}
    assert anna.ask("check")["checked"] == 0
    anna.ask("watch", "resume", ids[0])
    assert anna.ask("check")["checked"] == 1


def test_paused_watches_are_listed_where_asked(anna: Terminal) -> None:
    ids = anna.ask("watch", "add", ASIN, OTHER)["watch_ids"]
    anna.ask("watch", "pause", str(ids[0]))
    found = [[one["watch_id"] for one in listed(anna, *options)] for options in ([], ["--paused"], ["--all"])]
    assert found == [[ids[1]], [ids[0]], ids]
    assert "paused" in anna.run("watch", "list", "--all").stdout


def test_a_paused_watch_is_not_added_again_and_says_how_to_go_on(anna: Terminal) -> None:
    (watch_id,) = anna.ask("watch", "add", ASIN)["watch_ids"]
    anna.ask("watch", "pause", str(watch_id))
    assert f"`keeper watch resume {watch_id}`" in anna.run("watch", "add", ASIN).stderr


def test_pausing_an_unknown_watch_pauses_none(anna: Terminal) -> None:
    (watch_id,) = anna.ask("watch", "add", ASIN)["watch_ids"]
    result = anna.run("watch", "pause", str(watch_id), "999")
    assert (result.exit_code, "no watch 999 of yours" in result.stderr, len(listed(anna))) == (1, True, 1)
