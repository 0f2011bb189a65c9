"""Roles, keys and the audit log on the command line."""

import getpass
import json
from typing import Any

import typer
from sqlalchemy import Engine, text

from keeper.cli import app
from keeper.postgres.installation import SCHEMA_REVISION
from tests.integration.cli.terminal import Terminal

SECRET = "hush-hush-topic"
# What is noted is asserted below or with the commands' own tests; these read, or are people's daily business with what is their own.
NOTED = {
    "user add", "user set", "user role", "key add", "key revoke", "channel add", "channel remove", "channel test", "channel rotate",
    "seller set", "seller reset", "alerts retry", "sink on", "sink off", "sink retry", "dlq retry", "reindex", "simulator jump",
    "simulator speed", "migrate", "collect", "discover", "compare", "report run", "backup", "restore",
}  # fmt: skip
NOT_NOTED = {
    "user list", "key list", "channel list", "channel key", "audit", "settings", "doctor", "status", "tokens", "history", "alerts",
    "dashboard", "simulator", "simulator status", "forecast", "ranking", "search", "relay", "consume", "check",
    "watch add", "watch list", "watch remove", "watch target", "watch pause", "watch resume", "watch import", "watch export",
    "filter add", "filter preview", "filter list", "filter show", "filter remove", "deals search",
    "opportunities list", "opportunities explain", "opportunities outcome",
    "opportunities rules add", "opportunities rules list", "opportunities rules remove",
    "report preview", "report list", "report show", "report operations", "seller show", "fx show", "fx refresh",
    "sink list", "sink dead", "dlq list", "dlq show", "metrics", "watchdog",
}  # fmt: skip


def _commands(group: Any, before: str = "") -> set[str]:
    """Of a group and those in it; a group that does something by itself is one, too."""
    found = set()
    for name, command in group.commands.items():
        inner = hasattr(command, "commands")
        if not inner or command.invoke_without_command:
            found.add(f"{before}{name}")
        if inner:
            found |= _commands(command, f"{before}{name} ")
    return found


def _noted(shell: Terminal) -> list[tuple[str, str, str]]:
    return [(one["action"], one["target"], one["outcome"]) for one in reversed(shell.ask("audit"))]


def test_of_every_command_it_is_said_whether_it_is_noted() -> None:
    assert _commands(typer.main.get_group(app)) == NOTED | NOT_NOTED


def test_what_concerns_others_is_noted_without_its_secrets(shell: Terminal, engine: Engine) -> None:
    shown = [shell.ask("user", "add", "anna")["api_key"]]
    shell.ask("user", "role", "anna", "admin")
    shell.ask("user", "role", "anna", "admin")
    shell.ask("user", "set", "anna", "--report-hour", "7")
    made = shell.ask("key", "add", "hunter2", "--scope", "admin", "--days", "2")
    shown.append(made["api_key"])
    shell.ask("key", "revoke", str(made["key_id"]))
    shell.ask("key", "revoke", "--all")
    shell.ask("channel", "add", "phone", f"ntfy://127.0.0.1:1/{SECRET}")
    shell.run("channel", "test", "phone")
    shell.ask("channel", "rotate")
    shell.ask("channel", "remove", "phone")
    shell.ask("seller", "reset")
    shell.ask("sink", "on", "kafka", "--from", "now")
    shell.ask("sink", "off", "kafka", "--yes")
    shell.ask("simulator", "jump", "1h")
    shell.ask("migrate")
    shell.ask("report", "run")
    shell.run("compare", "--no-scan")

    noted = _noted(shell)
    assert noted.pop(-2) == ("run.start", "report run", "done")
    assert noted == [
        ("user.add", "anna, user", "done"),
        ("user.role", "anna to admin", "done"),
        ("user.set", "anna", "done"),
        ("key.add", "key 2 of anna, admin", "done"),
        ("key.revoke", "key 2 of anna", "done"),
        ("key.revoke", "key 1 of anna", "done"),
        ("channel.add", "channel 1 of anna", "done"),
        ("channel.test", "channel 1 of anna", "failed"),
        ("channel.rotate", "1 channels", "done"),
        ("channel.remove", "channel 1 of anna", "done"),
        ("seller.set", "anna to the default", "done"),
        ("sink.on", "kafka", "done"),
        ("sink.off", "kafka", "done"),
        ("clock.move", "3600 s ahead", "done"),
        ("migrate", f"schema {SCHEMA_REVISION}", "done"),
        ("run.start", "compare", "done"),
    ]
    with engine.begin() as connection:
        log = "\n".join(connection.execute(text("SELECT audit_log::text FROM audit_log")).scalars())
    assert [secret for secret in (*shown, "hunter2", SECRET) if secret in log] == []
    assert {one["actor"] for one in shell.ask("audit", "--actor", getpass.getuser(), "--limit", "3")} == {getpass.getuser()}


def test_a_command_that_fails_changes_nothing_and_notes_nothing(shell: Terminal) -> None:
    shell.ask("user", "add", "anna")

    assert shell.run("user", "add", "anna").exit_code == 1
    assert shell.run("key", "revoke", "99").exit_code == 1

    assert _noted(shell) == [("user.add", "anna, user", "done")]


def test_only_an_admin_has_a_key_of_scope_admin(anna: Terminal) -> None:
    refused = anna.run("key", "add", "root", "--scope", "admin", "--json")

    assert refused.exit_code == 1
    assert json.loads(refused.stderr)["error"].startswith("a user of role user cannot have a key of scope admin")
    assert [(one["scope"], one["revoked_at"]) for one in anna.ask("key", "list")] == [("write", None)]
