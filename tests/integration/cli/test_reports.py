"""`keeper report` and `keeper user set` in somebody's shell."""

from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from tests.integration.cli.terminal import Terminal
from tests.integration.deals import add_deal, add_filter
from tests.integration.makers import one
from tests.services.mail import MailServer


@pytest.fixture
def reader(anna: Terminal, mail: MailServer, engine: Engine) -> Terminal:
    """Anna, whose report is due at once, with a filter, a channel and two deals."""
    anna.ask("channel", "add", "mail", f"mailto://127.0.0.1:{mail.port}/anna@example.net?from=keeper@example.org&mode=insecure")
    anna.ask("user", "set", "anna", "--timezone", "UTC", "--report-hour", "0")
    add_filter(engine, one(engine, "SELECT id FROM users"), "Keys")
    for number in range(2):
        add_deal(engine, number)
    return anna


def test_due_reports_are_made_and_sent_once(reader: Terminal, mail: MailServer) -> None:
    first, second = (reader.ask("report", "run") for _ in range(2))

    assert [(one["user"], one["deals"], one["is_told"]) for one in first["reports"]] == [("anna", 2, True)]
    assert (first["delivered"], second["reports"], len(mail.messages)) == (1, [], 1)


def test_report_that_is_refused_is_told_and_fails_the_command(reader: Terminal, mail: MailServer) -> None:
    mail.mode = "refuse"
    ended = reader.run("report", "run")

    assert ended.exit_code == 1
    assert "anna, " in ended.stdout
    assert "`keeper report list` says what each channel answered" in ended.stderr
    assert "mail pending (550 5.7.1 refused by policy)" in " ".join(reader.run("report", "list", COLUMNS="300").stdout.split())


def test_kept_report_is_shown_as_text_page_and_json(reader: Terminal, tmp_path: Path) -> None:
    reader.ask("report", "run")
    page = tmp_path / "report.html"

    shown = reader.run("report", "show")
    reader.run("report", "show", "--html", str(page))

    assert "== Keys ==" in shown.stdout
    assert "69.90 €" in page.read_text(encoding="utf-8")
    assert reader.ask("report", "show")["parts"][0]["name"] == "Keys"
    assert [(row["deal_count"], row["kind"]) for row in reader.ask("report", "list")] == [(2, "deals")]


def test_preview_keeps_and_sends_nothing(reader: Terminal, mail: MailServer, tmp_path: Path) -> None:
    page = tmp_path / "preview.html"
    assert reader.run("report", "preview", "--html", str(page)).exit_code == 0

    assert "Keychron K1" in page.read_text(encoding="utf-8")
    assert (reader.ask("report", "list"), mail.messages) == ([], [])


def test_report_nobody_has_is_one_line(anna: Terminal) -> None:
    ended = anna.run("report", "show")
    assert (ended.exit_code, ended.stderr) == (1, "keeper: you have no report yet\n")


def test_operations_report_is_shown_and_sent_to_administrators_once_a_day(reader: Terminal, mail: MailServer, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE users SET role = 'admin'"))

    shown = reader.run("report", "operations").stdout
    told = [reader.ask("report", "operations", "--send") for _ in range(2)]

    assert "### Tokens" in shown
    assert [one["deliveries"] for one in told] == [1, 0]
    assert [str(one["Subject"]).startswith("Keeper's operations, ") for one in mail.messages] == [True]


def test_time_of_reports_is_set_and_shown(anna: Terminal) -> None:
    said = anna.run("user", "set", "anna", "--timezone", "Europe/Vienna", "--report-hour", "6", "--empty-reports").stdout
    kept = anna.ask("user", "set", "anna")
    none = anna.ask("user", "set", "anna", "--no-reports")

    assert said.strip() == "anna: the daily report at 06:00 Europe/Vienna, on days without deals too"
    assert (kept["timezone"], kept["report_hour"], kept["wants_empty_reports"]) == ("Europe/Vienna", 6, True)
    assert none["report_hour"] is None


@pytest.mark.parametrize("words", [("--timezone", "Europe/Bremen"), ("--report-hour", "24"), ("--report-hour", "soon")])
def test_time_that_cannot_be_is_refused(anna: Terminal, words: tuple[str, ...]) -> None:
    assert anna.run("user", "set", "anna", *words).exit_code != 0
    assert anna.ask("user", "set", "anna")["timezone"] == "Europe/Berlin"
