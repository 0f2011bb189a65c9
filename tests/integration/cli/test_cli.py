"""The commands against a real database, a real simulator and a real mail server."""

import hashlib
import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text
from typer.testing import Result

from keeper.notify.channels import make_key
from keeper.postgres.embedded import EmbeddedServer
from keeper.simulator.server import Simulator
from tests.integration.cli.terminal import Terminal, lines_of
from tests.services.mail import MailServer

ASIN, OTHER = "B08DG4C63H", "B00OCMRV40"
SECRET = "hush-hush-topic"


def mail_url(mail: MailServer) -> str:
    return f"mailto://127.0.0.1:{mail.port}/anna@example.org?from=keeper@example.org&mode=insecure"


# --- people


def test_an_api_key_is_stored_as_a_hash_only(shell: Terminal, engine: Engine) -> None:
    key = shell.ask("user", "add", "anna")["api_key"]
    with engine.begin() as connection:
        assert connection.execute(text("SELECT key_hash FROM api_keys")).scalar_one() == hashlib.sha256(key.encode()).digest()


def test_users_are_listed_with_what_they_have(anna: Terminal) -> None:
    anna.ask("watch", "add", ASIN)
    (user,) = anna.ask("user", "list")
    assert (user["name"], user["watches"], user["channels"], user["api_keys"]) == ("anna", 1, 0, 1)


def test_a_named_error_is_one_line_and_no_traceback(anna: Terminal) -> None:
    result = anna.run("user", "add", "anna")
    assert (result.exit_code, result.stderr) == (1, "keeper: there is a user anna already\n")


def test_a_named_error_is_json_where_json_was_asked(anna: Terminal) -> None:
    result = anna.run("user", "add", "anna", "--json")
    assert json.loads(result.stderr) == {"error": "there is a user anna already"}


@pytest.mark.parametrize(
    "add",
    [
        lambda shell, url: shell.run("channel", "add", "phone", url),
        lambda shell, url: shell.run("channel", "add", "phone", "--url-stdin", typed=f"{url}\n"),
        lambda shell, url: shell.run("channel", "add", "phone", KEEPER_CHANNEL_URL=url),
    ],
    ids=["argument", "standard input", "environment"],
)
def test_a_channel_never_shows_its_secret(anna: Terminal, add: Callable[[Terminal, str], Result]) -> None:
    added = add(anna, f"ntfy://127.0.0.1:1/{SECRET}")
    listed = anna.run("channel", "list")
    tested = anna.run("channel", "test", "phone")
    assert ([added.exit_code, listed.exit_code, tested.exit_code], SECRET in added.output + listed.output + tested.output) == (
        [0, 0, 1],
        False,
    )


def test_a_channel_is_stored_encrypted(anna: Terminal, engine: Engine) -> None:
    anna.ask("channel", "add", "phone", f"ntfy://127.0.0.1:1/{SECRET}")
    with engine.begin() as connection:
        assert SECRET not in repr(connection.execute(text("SELECT * FROM channels")).one())


def test_a_scheme_that_is_not_allowed_is_refused(anna: Terminal) -> None:
    result = anna.run("channel", "add", "inside", f"json://127.0.0.1/{SECRET}")
    assert (result.exit_code, "not allowed" in result.stderr, SECRET in result.output) == (1, True, False)


def test_a_channel_test_reaches_the_mail_server(anna: Terminal, mail: MailServer) -> None:
    anna.ask("channel", "add", "mail", mail_url(mail))
    anna.ask("channel", "test", "mail")
    assert [message["subject"] for message in mail.messages] == ["Keeper test: mail"]


def test_rotated_channels_open_with_the_new_key_alone(anna: Terminal, mail: MailServer) -> None:
    anna.ask("channel", "add", "mail", mail_url(mail))
    new, old = anna.run("channel", "key").stdout.strip(), anna.environment["KEEPER_CHANNELS_KEYS"]
    anna.ask("channel", "rotate", KEEPER_CHANNELS_KEYS=f"{new},{old}")
    anna.ask("channel", "test", "mail", KEEPER_CHANNELS_KEYS=new)
    assert len(mail.messages) == 1


def test_after_rotation_the_old_key_is_refused(anna: Terminal) -> None:
    new, old = make_key(), anna.environment["KEEPER_CHANNELS_KEYS"]
    anna.ask("channel", "add", "phone", f"ntfy://127.0.0.1:1/{SECRET}")
    anna.ask("channel", "rotate", KEEPER_CHANNELS_KEYS=f"{new},{old}")
    assert anna.run("channel", "test", "phone").exit_code == 1


def test_a_removed_channel_is_gone(anna: Terminal) -> None:
    anna.ask("channel", "add", "phone", f"ntfy://127.0.0.1:1/{SECRET}")
    anna.ask("channel", "remove", "phone")
    assert anna.ask("channel", "list") == []


# --- watches


def test_a_watch_keeps_what_was_asked(anna: Terminal) -> None:
    anna.ask(
        "watch", "add", ASIN, "--marketplace", "uk", "--target", "49,90", "--price-type", "buybox", "--every", "30m", "--hysteresis", "5"
    )
    (watch,) = anna.ask("watch", "list")
    names = ("asin", "marketplace", "price_type", "target_minor", "currency", "interval_seconds", "hysteresis_pct")
    assert [watch[name] for name in names] == [ASIN, "UK", "BUY_BOX_SHIPPING", 4990, "GBP", 1800, 5.0]


def test_many_watches_at_once_skip_those_that_exist(anna: Terminal) -> None:
    anna.ask("watch", "add", ASIN)
    assert anna.ask("watch", "add", ASIN, OTHER)["already_watched"] == 1


def test_the_same_watch_again_is_refused(anna: Terminal) -> None:
    anna.ask("watch", "add", ASIN)
    assert anna.run("watch", "add", ASIN).exit_code == 1


def test_removing_an_unknown_watch_removes_none(anna: Terminal) -> None:
    (watch_id,) = anna.ask("watch", "add", ASIN)["watch_ids"]
    anna.run("watch", "remove", str(watch_id), "999")
    assert len(anna.ask("watch", "list")) == 1


def test_a_removed_watch_is_listed_no_more(anna: Terminal) -> None:
    (watch_id,) = anna.ask("watch", "add", ASIN)["watch_ids"]
    anna.ask("watch", "remove", str(watch_id))
    assert anna.ask("watch", "list") == []


@pytest.mark.parametrize(("amount", "target_minor"), [("44.90", 4490), ("none", None)])
def test_a_target_is_changed(anna: Terminal, amount: str, target_minor: int | None) -> None:
    (watch_id,) = anna.ask("watch", "add", ASIN, "--target", "50")["watch_ids"]
    anna.ask("watch", "target", str(watch_id), amount)
    assert anna.ask("watch", "list")[0]["target_minor"] == target_minor


def test_with_several_users_a_watch_needs_one_named(anna: Terminal) -> None:
    anna.ask("user", "add", "ben")
    assert "say which user with --user: anna, ben" in anna.run("watch", "add", ASIN).stderr


# --- checks


def test_a_check_of_what_is_due_delivers_the_alert(anna: Terminal, mail: MailServer) -> None:
    anna.ask("channel", "add", "mail", mail_url(mail))
    anna.ask("watch", "add", ASIN, OTHER, "--target", "9999")
    done = anna.ask("check")
    assert (done["checked"], done["tokens"], done["alerts"], done["delivered"], len(mail.messages)) == (2, 2, 2, 2, 2)


def test_an_alert_is_listed_with_the_far_sides_receipt(anna: Terminal, mail: MailServer) -> None:
    anna.ask("channel", "add", "mail", mail_url(mail))
    anna.ask("watch", "add", ASIN, "--target", "9999")
    anna.ask("check")
    (alert,) = anna.ask("alerts")
    assert (alert["status"], alert["channel"], alert["receipt"][:3]) == ("delivered", "mail", "250")


def test_a_second_check_finds_nothing_due(anna: Terminal) -> None:
    anna.ask("watch", "add", ASIN)
    anna.ask("check")
    assert "Nothing is due; the next check is in" in anna.run("check").stdout


def test_a_named_check_needs_no_watch(anna: Terminal) -> None:
    assert anna.ask("check", ASIN, "--marketplace", "it")["checked"] == 1


def test_a_named_check_pays_the_buy_box_where_it_is_watched(anna: Terminal) -> None:
    anna.ask("watch", "add", ASIN, "--price-type", "buybox")
    assert anna.ask("check", ASIN, OTHER)["tokens"] == 4


def test_a_failed_check_says_so_and_ends_with_1(anna: Terminal, simulator: Simulator) -> None:
    anna.ask("watch", "add", ASIN)
    httpx.post(f"{simulator.url}/_simulator/faults", json={"kind": "500", "next": 1, "path": "/product"}).raise_for_status()
    result = anna.run("check")
    assert (result.exit_code, f"{ASIN} DE: " in result.stdout, "1 products were not checked" in result.stderr) == (1, True, True)


def test_alerts_that_cannot_be_sent_are_recorded_all_the_same(anna: Terminal) -> None:
    anna.ask("watch", "add", ASIN, "--target", "9999")
    result = anna.run("check", KEEPER_CHANNELS_KEYS="")
    assert (result.exit_code, len(anna.ask("alerts"))) == (1, 1)


def test_alerts_of_earlier_checks_are_sent_by_one_that_brings_none(
    anna: Terminal, mail: MailServer, alert_waits: Callable[[], None]
) -> None:
    alert_waits()
    done = anna.ask("check", OTHER)
    assert (done["alerts"], done["delivered"], len(mail.messages)) == (0, 1, 1)


def test_alerts_are_sent_though_the_check_fails(
    anna: Terminal, mail: MailServer, simulator: Simulator, alert_waits: Callable[[], None]
) -> None:
    alert_waits()
    httpx.post(f"{simulator.url}/_simulator/faults", json={"kind": "500", "next": 1, "path": "/product"}).raise_for_status()
    assert (anna.run("check", OTHER).exit_code, len(mail.messages)) == (1, 1)


@pytest.fixture
def given_up(anna: Terminal, engine: Engine, mail: MailServer, alert_waits: Callable[[], None]) -> int:
    """The id of an alert that its channel refused for good, and would take now."""
    alert_waits()
    mail.mode = "refuse"
    assert anna.run("relay", "--once", KEEPER_CHANNELS_MOST_TRIES="1").exit_code == 1
    mail.mode = "accept"
    (alert,) = anna.ask("alerts")
    assert alert["status"] == "dead"
    return int(alert["alert_id"])


@pytest.mark.parametrize("is_event_kept", [True, False], ids=["event kept", "event dropped"])
@pytest.mark.parametrize("is_all", [True, False], ids=["all", "by id"])
def test_an_alert_given_up_is_sent_by_a_retry(
    anna: Terminal, engine: Engine, mail: MailServer, given_up: int, *, is_event_kept: bool, is_all: bool
) -> None:
    with engine.begin() as connection:
        event_id = connection.execute(text("SELECT event_id FROM dead_letters")).scalar_one()
        if not is_event_kept:
            connection.execute(text("DELETE FROM events"))
    assert anna.ask("alerts", "retry", "--all" if is_all else str(given_up)) == {"retried": 1}
    assert [alert["status"] for alert in anna.ask("alerts")] == ["pending"]
    assert anna.ask("relay", "--once")["delivered"] == 1
    assert [alert["status"] for alert in anna.ask("alerts")] == ["delivered"]
    assert str(event_id) in str(mail.messages[-1]["Message-ID"])
    with engine.begin() as connection:
        left = connection.execute(text("SELECT (SELECT count(*) FROM dead_letters), (SELECT count(*) FROM outbox)")).one()
        events = connection.execute(text("SELECT count(*) FROM events WHERE event_id = :id"), {"id": event_id}).scalar_one()
    assert (tuple(left), events) == ((0, 0), 1)


def test_a_retry_of_an_alert_that_was_not_given_up_is_an_error(anna: Terminal, given_up: int) -> None:
    result = anna.run("alerts", "retry", str(given_up + 1))
    assert (result.exit_code, len(anna.ask("alerts"))) == (1, 1)


def test_the_doctor_names_what_was_given_up(anna: Terminal, given_up: int) -> None:
    assert given_up
    result = anna.run("doctor", "--json")
    (found,) = [one for one in json.loads(result.stdout)["findings"] if one["about"] == "outbox notify"]
    assert (result.exit_code, found["health"], "keeper alerts retry" in found["remedy"]) == (1, "broken", True)


def test_the_doctor_asks_the_prefect_that_make_up_started(anna: Terminal, tmp_path: Path) -> None:
    note = tmp_path / "data" / "run" / "prefect.url"
    note.parent.mkdir(parents=True)
    note.write_text("http://127.0.0.1:1/api\n")
    (found,) = [one for one in anna.ask("doctor", PREFECT_API_URL="")["findings"] if one["about"] == "prefect"]
    assert (found["health"], "127.0.0.1:1 does not answer" in found["text"]) == ("note", True)


def test_a_simulator_says_that_the_databases_clock_wins(anna: Terminal) -> None:
    with anna.start("simulator", "--speed", "60") as started:
        lines_of(started.stdout).readline()
        started.send_signal(signal.SIGTERM)
        assert "`keeper simulator speed 60`" in lines_of(started.stderr).read()


def test_a_history_is_drawn_with_low_and_high(anna: Terminal) -> None:
    anna.ask("check", ASIN)
    drawn = anna.run("history", ASIN, "--days", "365").stdout
    assert [word in drawn for word in ("┤", "lowest", "highest", "now")] == [True] * 4


def test_a_history_is_points_for_a_program(anna: Terminal) -> None:
    anna.ask("check", ASIN)
    points = anna.ask("history", ASIN, "--days", "365")["points"]
    assert len(points) > 1 and points == sorted(points, key=lambda point: point["observed_at"])


def test_a_history_nobody_recorded_is_an_error_that_says_how(anna: Terminal) -> None:
    assert f"`keeper check {OTHER} --marketplace FR`" in anna.run("history", OTHER, "-m", "fr").stderr


def test_tokens_are_told_by_operation(anna: Terminal) -> None:
    anna.ask("check", ASIN, OTHER)
    report = anna.ask("tokens")
    assert (report["tokens"], report["capacity"], report["last_day"][0]["operation"], report["last_day"][0]["tokens"]) == (
        1198,
        1200,
        "product",
        2,
    )


def test_tokens_tell_what_the_watches_need_and_when_it_was_spent(anna: Terminal) -> None:
    anna.ask("watch", "add", ASIN, "--every", "1h")
    anna.ask("check", ASIN, OTHER)
    report = anna.ask("tokens")
    assert (report["watched_products"], report["forecast"]["needed_pct"], report["forecast"]["watches_fit"]) == (
        1,
        pytest.approx(100 / 60 / 20),
        True,
    )
    assert (len(report["hours"]), sum(hour["tokens"] for hour in report["hours"])) == (24, 2)


def test_tokens_are_a_table_for_a_person(anna: Terminal) -> None:
    anna.ask("watch", "add", ASIN, "--every", "1h")
    anna.ask("check", ASIN, OTHER)
    shown = anna.run("tokens").stdout
    words = ("1198 of 1200 tokens", "refill 20 a minute", "Reserved", "Hour (UTC)", "the watches (1 product) need 0.017 tokens a minute")
    assert [word for word in words if word not in shown] == []


def test_tokens_say_that_the_watches_ask_for_too_much(anna: Terminal) -> None:
    asins = [f"B{number:09d}" for number in range(40)]
    anna.ask("check", ASIN)
    anna.ask("watch", "add", *asins, "--every", "1min")
    assert "need 40.0 tokens a minute, 200 % of the refill: more than refills, empty in " in anna.run("tokens").stdout


def test_tokens_show_what_others_spent(anna: Terminal, simulator: Simulator) -> None:
    anna.ask("check", ASIN)
    httpx.post(f"{simulator.url}/_simulator/spend", json={"tokens": 300}).raise_for_status()
    assert anna.ask("tokens", "--refresh")["foreign_tokens"] >= 300


# --- running it


def test_a_jump_moves_business_time_in_both_places(anna: Terminal, simulator: Simulator) -> None:
    anna.ask("check", ASIN)
    before = simulator.keepa.clock.now()
    anna.ask("simulator", "jump", "3d")
    assert simulator.keepa.clock.now() - before == pytest.approx(3 * 86400, abs=60)


def test_a_speed_is_changed_in_both_places(anna: Terminal, simulator: Simulator) -> None:
    anna.ask("simulator", "speed", "60")
    assert (anna.ask("simulator", "status")["speed"], simulator.keepa.clock.anchors.speed) == (60, 60)


def test_a_jump_with_a_real_key_is_refused(anna: Terminal) -> None:
    result = anna.run("simulator", "jump", "3d", KEEPER_KEEPA_API_KEY="k" * 64)
    assert (result.exit_code, "the real Keepa is in use" in result.stderr) == (1, True)


def test_a_simulator_leaves_a_note_while_it_runs(tmp_path: Path) -> None:
    shell = Terminal({"KEEPER_DATA": str(tmp_path / "data")})
    note = tmp_path / "data" / "simulator.json"
    with shell.start("simulator") as started:
        url = json.loads(lines_of(started.stdout).readline())["url"]
        noted = json.loads(note.read_text())
        started.send_signal(signal.SIGTERM)
        assert (started.wait(30), noted, note.exists()) == (0, {"url": url, "pid": started.pid}, False)


def test_a_second_simulator_on_the_same_data_is_refused(tmp_path: Path) -> None:
    shell = Terminal({"KEEPER_DATA": str(tmp_path / "data")})
    with shell.start("simulator") as started:
        lines_of(started.stdout).readline()
        result = shell.run("simulator")
    assert (result.exit_code, "already" in result.stderr) == (1, True)


def test_a_stale_note_does_not_keep_a_simulator_from_starting(tmp_path: Path) -> None:
    (tmp_path / "simulator.json").write_text('{"url": "http://127.0.0.1:1", "pid": 1}')
    with Terminal({"KEEPER_DATA": str(tmp_path)}).start("simulator") as started:
        assert "url" in json.loads(lines_of(started.stdout).readline())


@pytest.fixture
def alert_waits(anna: Terminal, mail: MailServer) -> Callable[[], None]:
    """Records an alert without relaying it."""
    anna.ask("channel", "add", "mail", mail_url(mail))
    (watch_id,) = anna.ask("watch", "add", ASIN, "--target", "9999")["watch_ids"]

    def record_alert() -> None:
        # Without the key nothing can be sent; the alert is recorded and queued.
        assert anna.run("check", ASIN, KEEPER_CHANNELS_KEYS="").exit_code == 1

    assert watch_id
    return record_alert


def test_a_relay_delivers_what_is_recorded_while_it_listens(anna: Terminal, mail: MailServer, alert_waits: Callable[[], None]) -> None:
    with anna.start("relay", "--json") as started:
        said = lines_of(started.stdout)
        assert json.loads(said.readline()) == {"relay": "listening"}
        alert_waits()
        assert json.loads(said.readline())["delivered"] == 1
    assert len(mail.messages) == 1


def test_a_relay_ends_quietly_on_sigterm(anna: Terminal) -> None:
    with anna.start("relay", "--json") as started:
        lines_of(started.stdout).readline()
        started.send_signal(signal.SIGTERM)
        assert (started.wait(30), lines_of(started.stderr).read()) == (0, "")


def test_a_relay_outlives_its_connections(anna: Terminal, engine: Engine, mail: MailServer, alert_waits: Callable[[], None]) -> None:
    with anna.start("relay", "--json") as started:
        said = lines_of(started.stdout)
        said.readline()
        with engine.begin() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        assert json.loads(said.readline()) == {"relay": "listening"}
        alert_waits()
        assert json.loads(said.readline())["delivered"] == 1
    assert len(mail.messages) == 1


def test_relay_once_delivers_and_ends(anna: Terminal, mail: MailServer, alert_waits: Callable[[], None]) -> None:
    alert_waits()
    assert (anna.ask("relay", "--once")["delivered"], len(mail.messages)) == (1, 1)


def test_migrate_brings_an_empty_database_to_the_newest_schema(postgres: EmbeddedServer, empty_database: str) -> None:
    shell = Terminal({"KEEPER_DATABASE_URL": postgres.libpq_dsn(empty_database)})
    assert shell.ask("migrate") == shell.ask("migrate")


def test_an_external_database_without_schema_says_what_to_run(postgres: EmbeddedServer, empty_database: str) -> None:
    shell = Terminal({"KEEPER_DATABASE_URL": postgres.libpq_dsn(empty_database)})
    assert "keeper migrate" in shell.run("user", "list").stderr


def test_an_unknown_revision_is_an_error_in_words(postgres: EmbeddedServer, empty_database: str) -> None:
    result = Terminal({"KEEPER_DATABASE_URL": postgres.libpq_dsn(empty_database)}).run("migrate", "--to", "nonsense")
    assert (result.exit_code, result.stderr.startswith("keeper: ")) == (1, True)


def test_dropping_everything_is_asked_back(anna: Terminal) -> None:
    anna.run("migrate", "--to", "base", typed="n\n")
    assert len(anna.ask("user", "list")) == 1


def test_an_unreachable_database_is_one_line_without_the_password() -> None:
    result = Terminal({"KEEPER_DATABASE_URL": "postgresql://me:hushhush@127.0.0.1:1/x"}).run("user", "list")
    assert (result.exit_code, result.stderr.startswith("keeper: PostgreSQL does not answer"), "hushhush" in result.output) == (
        1,
        True,
        False,
    )


def test_an_unreadable_database_url_is_not_quoted() -> None:
    result = Terminal({"KEEPER_DATABASE_URL": "hushhush"}).run("user", "list")
    assert (result.exit_code, "hushhush" in result.output) == (1, False)


def healths(report: dict[str, Any], names: Sequence[str]) -> list[str]:
    found = {one["about"]: one["health"] for one in report["findings"]}
    return [found[name] for name in names]


def test_the_doctor_finds_a_sound_house_sound(anna: Terminal, mail: MailServer) -> None:
    anna.ask("channel", "add", "mail", mail_url(mail))
    report = anna.ask("doctor")
    names = ["python", "time zones", "database", "schema", "source", "keepa", "tokens", "channels", "deliveries"]
    assert (report["ok"], healths(report, names)) == (True, ["good"] * len(names))


@pytest.mark.parametrize(
    ("settings", "about"),
    [
        ({"KEEPER_DATABASE_URL": "postgresql://me:hushhush@127.0.0.1:1/x"}, "database"),
        ({"KEEPER_KEEPA_SIMULATOR_URL": "http://127.0.0.1:1"}, "keepa"),
        ({"KEEPER_CHANNELS_KEYS": ""}, "channels"),
        ({"PREFECT_API_URL": "http://127.0.0.1:1/api"}, "prefect"),
    ],
    ids=["database", "keepa", "channel key", "prefect"],
)
def test_the_doctor_names_what_is_broken(anna: Terminal, settings: dict[str, str], about: str) -> None:
    anna.ask("channel", "add", "phone", f"ntfy://127.0.0.1:1/{SECRET}")
    result = anna.run("doctor", "--json", **settings)
    assert (result.exit_code, healths(json.loads(result.stdout), [about])) == (1, ["broken"])


def test_the_doctor_makes_nothing_where_nothing_is(tmp_path: Path) -> None:
    Terminal({"KEEPER_DATA": str(tmp_path / "data")}).run("doctor")
    assert not (tmp_path / "data").exists()
