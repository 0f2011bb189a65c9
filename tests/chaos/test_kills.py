"""Processes killed anywhere, and a database that goes away: nothing is lost, and what is doubled can be told."""

import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

from sqlalchemy import Engine, text

from keeper.notify.channels import ChannelCipher, make_key
from keeper.postgres.embedded import EmbeddedServer, temporary_server
from keeper.postgres.engine import open_engine
from keeper.postgres.migrate import migrate
from keeper.record import record
from tests.chaos.compare_process import compare_in_small_steps, see_prices
from tests.chaos.conftest import Chaos
from tests.chaos.record_process import START, chaos_checks
from tests.integration.makers import ALL_SINKS, NOW, add_user, add_watch, everything, product, rows, run_record, use_sinks
from tests.services.mail import MailServer
from tests.services.waiting import wait_until

ROOT = Path(__file__).parents[2]
CHANNELS = 6
PRODUCTS = 15
CHECKS = 12
KILLS_OF_RECORDER = 4
KILLS_OF_COMPARISON = 3
RESTARTS = 2
MOST_STARTS = 60


def start(module: str, *words: str) -> "subprocess.Popen[str]":
    """A process of its own, past its imports."""
    process = subprocess.Popen([sys.executable, "-m", f"tests.chaos.{module}", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill_after(process: "subprocess.Popen[str]", seconds: float) -> bool:
    """SIGKILL it unless it ends first. Whether it was killed."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    process.communicate()
    assert process.returncode in (0, -9)
    return process.returncode == -9


def url_of(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def make_alerts(engine: Engine, mail: MailServer, key: str) -> set[str]:
    """An alert of every product on every channel. Returns the ids their mails must bear."""
    cipher = ChannelCipher([key])
    for number in range(CHANNELS):
        channel = f"mailto://127.0.0.1:{mail.port}/r{number}@example.net?from=keeper@example.org"
        user_id = add_user(engine, f"user{number}", channels=[channel], cipher=cipher)
        for place in range(PRODUCTS):
            add_watch(engine, user_id, 5000, asin=f"B{place:09d}")
    run_record(engine, *(product([(NOW, 4000 + place)], asin=f"B{place:09d}") for place in range(PRODUCTS)))
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM outbox WHERE sink <> 'notify'"))
    return {str(event_id) for event_id in rows(engine, "SELECT event_id FROM events WHERE kind = 'alert'")}


def arrived(mail: MailServer) -> Counter[str]:
    """How often each message came, by its id."""
    return Counter(str(one["Message-ID"]).strip("<>").partition("@")[0] for one in mail.messages)


def judge(chaos: Chaos, engine: Engine, mail: MailServer, wanted: set[str], interruptions: int) -> None:
    """None lost; a double bears the same id, and each interruption doubles at most one a channel."""
    came = arrived(mail)
    lost, doubled = len(wanted - set(came)), sum(came.values()) - len(came)
    chaos.say(alerts=len(wanted), interruptions=interruptions, lost=lost, doubled=doubled)
    assert set(came) == wanted
    assert doubled <= interruptions * CHANNELS
    by_reader = Counter(recipient for one in mail.delivered for recipient in one.recipients)
    assert max(by_reader.values()) <= PRODUCTS + interruptions
    assert rows(engine, "SELECT DISTINCT status FROM deliveries") == ["delivered"]


def test_a_relay_killed_anywhere_loses_no_alert(engine: Engine, chaos: Chaos) -> None:
    key = make_key()
    kills = 0
    with MailServer() as mail:
        wanted = make_alerts(engine, mail, key)
        for _ in range(MOST_STARTS):
            patience = chaos.random.uniform(0.05, 0.6) if kills < 4 else 120
            if not kill_after(start("relay_process", url_of(engine), key), patience):
                break
            kills += 1
        judge(chaos, engine, mail, wanted, kills)
    assert rows(engine, "SELECT 1 FROM outbox") == []


def test_a_recorder_killed_anywhere_leaves_every_observation_once(
    engine: Engine, postgres: EmbeddedServer, database: str, chaos: Chaos
) -> None:
    checks = chaos_checks(CHECKS)
    user_id = add_user(engine, channels=["mailto://127.0.0.1:9/r@example.net?from=k@example.org"])
    for one in checks[0][::2]:
        add_watch(engine, user_id, 2100, asin=one.asin, now=START)
    use_sinks(engine, ALL_SINKS)
    engine.dispose()
    whole_name = f"{database}_whole"
    postgres.create_database(whole_name, template=database)
    whole = open_engine(postgres.dsn(whole_name))
    try:
        for answered in checks:
            with whole.begin() as connection:
                record(connection, answered, now=answered[0].answered_at)
        kills = 0
        for _ in range(MOST_STARTS):
            is_last = kills == KILLS_OF_RECORDER
            patience = 120 if is_last else chaos.random.uniform(0.0, 0.25)
            kills += kill_after(start("record_process", url_of(engine), str(CHECKS)), patience)
            if is_last:
                break
        query = (
            "SELECT asin, price_type, observed_at, amount_minor, event_id, previous_minor, target_minor FROM price_history ORDER BY 1, 2, 3"
        )
        found, expected = rows(engine, query), rows(whole, query)
        events = "SELECT key, event_id, payload::text FROM events WHERE kind = 'price_update' ORDER BY seq"
        lost, doubled = len(set(expected) - set(found)), len(found) - len(set(found))
        chaos.say(observations=len(expected), interruptions=kills, lost=lost, doubled=doubled)
        assert found == expected
        assert sorted(rows(engine, events)) == sorted(rows(whole, events))
        assert everything(engine)["current_prices"] == everything(whole)["current_prices"]
        assert rows(engine, "SELECT count(*) FROM deliveries") == rows(whole, "SELECT count(*) FROM deliveries")
        assert rows(engine, "SELECT sink, count(*) FROM outbox GROUP BY 1 ORDER BY 1") == rows(
            whole, "SELECT sink, count(*) FROM outbox GROUP BY 1 ORDER BY 1"
        )
    finally:
        whole.dispose()
        postgres.drop_database(whole_name)


def test_a_comparison_killed_anywhere_is_made_whole_by_the_next(
    engine: Engine, postgres: EmbeddedServer, database: str, chaos: Chaos
) -> None:
    whole_name = f"{database}_whole"
    kills = 0
    for step in range(KILLS_OF_COMPARISON):
        see_prices(engine, step)
        engine.dispose()
        kills += kill_after(start("compare_process", url_of(engine)), chaos.random.uniform(0.0, 0.6))
    compare_in_small_steps(engine, is_full=False)
    engine.dispose()
    postgres.create_database(whole_name, template=database)
    whole = open_engine(postgres.dsn(whole_name))
    try:
        with whole.begin() as connection:
            connection.execute(text("TRUNCATE opportunities, comparisons, product_changes CASCADE"))
        compare_in_small_steps(whole, is_full=True)
        query = (
            "SELECT asin, source_market, target_market, source_minor, target_minor, margin_minor, profit_minor, unknown_parts, flags "
            "FROM opportunities WHERE closed_at IS NULL ORDER BY 1, 2, 3"
        )
        expected = rows(whole, query)
        chaos.say(opportunities=len(expected), interruptions=kills)
        assert rows(engine, query) == expected
        assert rows(engine, "SELECT 1 FROM product_changes") == []
    finally:
        whole.dispose()
        postgres.drop_database(whole_name)


def test_a_database_that_restarts_under_a_relay_loses_no_alert(chaos: Chaos) -> None:
    key = make_key()
    restarts = 0
    with MailServer() as mail, temporary_server() as server:
        server.create_database("chaos")
        engine = open_engine(server.dsn("chaos"))
        migrate(engine, now=NOW)
        wanted = make_alerts(engine, mail, key)
        database = url_of(engine)
        for _ in range(RESTARTS):
            process = start("relay_process", database, key)
            threading.Event().wait(chaos.random.uniform(0.02, 0.3))
            engine.dispose()
            server.stop()
            server.start()
            restarts += 1
            # It ends with an error where it met the restart, and as ever where it was through.
            process.communicate(timeout=60)
        last = start("relay_process", database, key)
        assert last.wait(120) == 0
        last.communicate()
        wait_until(lambda: rows(engine, "SELECT 1 FROM outbox") == [], "the outbox is not empty")
        judge(chaos, engine, mail, wanted, restarts)
        engine.dispose()


def test_a_seed_replays_the_same_round(chaos: Chaos) -> None:
    again = Chaos(chaos.name, chaos.number)
    assert [chaos.random.random() for _ in range(9)] == [again.random.random() for _ in range(9)]
