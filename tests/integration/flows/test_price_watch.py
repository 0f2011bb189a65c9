"""The price watch under a real Prefect server, against a Keepa that fails on request."""

import re
import signal
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import text

from keeper.domain.marketplace import Marketplace
from keeper.postgres.jobs import hold_job
from keeper.simulator.server import Simulator
from tests.services.installation import Installation
from tests.services.mail import MailServer
from tests.services.waiting import wait_until

JOB = "price_watch.price_watch"
THEFTS = [
    pytest.param("UPDATE check_claims SET batch_id = gen_random_uuid()", "being checked by somebody else", id="claims"),
    pytest.param("DELETE FROM token_reservations", "tokens were written off", id="tokens"),
]


def break_next(installation: Installation, kind: str, **more: object) -> None:
    """Order a fault for the next request for products."""
    installation.tell_simulator("faults", kind=kind, path="/product", **({"next": 1} | more))


def test_run_says_what_it_checked_and_paid(installation: Installation) -> None:
    installation.watch(3)

    end = installation.run(JOB)

    assert (end.state, end.message) == ("Completed", "checked 3, failed 0, 3 tokens")
    assert installation.count("current_prices") > 0


def test_nothing_due_is_a_green_run(installation: Installation) -> None:
    end = installation.run(JOB)

    assert (end.state, end.message) == ("Completed", "checked 0, failed 0, 0 tokens")


@pytest.mark.parametrize("kind", ["503", "429", "cut_off", "wrong_json"])
def test_passing_failure_is_tried_again_after_it_was_settled(installation: Installation, kind: str) -> None:
    installation.watch(3)
    break_next(installation, kind)

    end = installation.run(JOB)

    assert (end.state, end.message) == ("Completed", "checked 3, failed 0, 3 tokens")
    assert [call.success for call in installation.paid_calls()] == [False, True]
    assert installation.count("token_reservations") == 0
    assert installation.count("check_claims") == 0


def test_lasting_failure_is_not_tried_again_and_fails_alone(installation: Installation) -> None:
    installation.watch(2, marketplace=Marketplace.DE)
    installation.watch(2, marketplace=Marketplace.IT)
    break_next(installation, "400")

    end = installation.run(JOB)

    assert end.state == "Failed"
    assert end.message.startswith("checked 2, failed 2, 2 tokens; ")
    assert sorted(call.success for call in installation.paid_calls()) == [False, True]
    noted = installation.rows("SELECT last_failure IS NULL, last_checked_at IS NULL, count(*) FROM planned_checks GROUP BY 1, 2 ORDER BY 1")
    assert [tuple(row) for row in noted] == [(False, True, 2), (True, False, 2)]
    assert installation.count("check_claims") == 0


def test_failing_batch_does_not_hold_back_the_rounds_after_it(installation: Installation) -> None:
    installation.environment |= {"KEEPER_KEEPA_BATCH_SIZE": "1", "KEEPER_KEEPA_REQUESTS_AT_ONCE": "1"}
    installation.watch(8)
    break_next(installation, "400")

    end = installation.run(JOB)

    assert end.state == "Failed"
    assert end.message.startswith("checked 7, failed 1, 7 tokens; ")


def test_refused_key_leaves_no_green_run(installation: Installation) -> None:
    installation.watch(2)
    installation.tell_simulator("key", status="unpaid")

    end = installation.run(JOB)

    assert end.state == "Failed"
    assert end.message.startswith("checked 0, failed 2, 0 tokens; ")


def test_missing_asin_fails_alone_in_a_green_run(installation: Installation) -> None:
    lost, *_ = installation.watch(3)
    break_next(installation, "missing_asin", asin=lost)

    end = installation.run(JOB)

    assert (end.state, end.message) == ("Completed", "checked 2, failed 1, 2 tokens")
    noted = installation.rows("SELECT asin, last_failure FROM planned_checks WHERE last_failure IS NOT NULL")
    assert [tuple(row) for row in noted] == [(lost, "Keepa's answer does not hold this product")]
    (shown,) = installation.prefect.artifacts(end.run_id).values()
    assert f"| {lost} DE | Keepa's answer does not hold this product |" in shown


def test_artifact_shows_at_most_ten_drops_largest_first(installation: Installation) -> None:
    installation.watch(47)
    installation.run(JOB)
    installation.jump(days=20)

    end = installation.run(JOB)

    artifacts = installation.prefect.artifacts(end.run_id)
    assert list(artifacts) == ["price-watch-by-hand"]
    falls = [float(found) for found in re.findall(r"\| (-?[\d.]+) % \|", artifacts["price-watch-by-hand"])]
    assert 0 < len(falls) <= 10
    assert falls == sorted(falls, reverse=True)
    assert all(fall > 0 for fall in falls)


def test_database_retry_pays_no_token_twice(installation: Installation) -> None:
    installation.watch(3)
    waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with installation.engine.connect() as blocker:
        blocker.execute(text("LOCK TABLE products IN EXCLUSIVE MODE"))
        running = installation.start(JOB)
        wait_until(lambda: bool(installation.rows(waiting)), "nothing is recorded")
        assert installation.rows(f"SELECT pg_terminate_backend(pid) FROM ({waiting}) AS blocked")
        blocker.rollback()

    end = installation.end_of(running)

    assert (end.state, end.message) == ("Completed", "checked 3, failed 0, 3 tokens")
    assert installation.products_asked() == 1
    assert any("terminating connection" in line for line in installation.prefect.logs(end.run_id))


def test_second_scheduler_on_the_same_database_ends_cancelled(installation: Installation) -> None:
    installation.watch(1)
    with hold_job(installation.engine, "price-watch/by-hand") as is_held:
        end = installation.run(JOB)

    assert is_held
    assert end.state == "Cancelled"
    assert "another scheduler runs price-watch/by-hand on this database" in end.message
    assert installation.products_asked() == 0


def test_default_interval_run_leaves_other_intervals_to_the_tick(installation: Installation) -> None:
    installation.watch(2)
    installation.watch(1, start=2, interval=timedelta(hours=1))

    six_hours = installation.run(JOB, interval_minutes=360, ahead_minutes=10)
    tick = installation.run(JOB)

    assert six_hours.message == "checked 2, failed 0, 2 tokens"
    assert tick.message == "checked 1, failed 0, 1 tokens"


def test_tick_takes_what_is_overdue_of_the_default_interval(installation: Installation) -> None:
    installation.watch(2)

    assert installation.run(JOB, go_on_seconds=1).message == "checked 2, failed 0, 2 tokens"


def test_default_interval_run_takes_what_is_due_soon(installation: Installation) -> None:
    installation.watch(2)
    installation.run(JOB)
    installation.jump(hours=5, minutes=55)

    assert installation.run(JOB, interval_minutes=360).message == "checked 0, failed 0, 0 tokens"
    assert installation.run(JOB, interval_minutes=360, ahead_minutes=10).message == "checked 2, failed 0, 2 tokens"


def test_watch_of_a_minute_makes_the_tick_go_on(installation: Installation) -> None:
    installation.set_speed(60)
    installation.watch(1, interval=timedelta(minutes=1))

    end = installation.run(JOB, go_on_seconds=5)

    assert end.state == "Completed"
    assert installation.products_asked() >= 3


def test_alert_is_delivered_by_the_run_that_made_it(installation: Installation) -> None:
    installation.watch(3, target_minor=100_000_00)
    with MailServer() as mail:
        installation.add_mail(mail.port)
        end = installation.run(JOB)

    assert end.state == "Completed"
    assert installation.count("price_alerts") == len(mail.messages) > 0
    assert installation.count("outbox") == 0


def test_alerts_that_cannot_be_told_stay_in_the_outbox_and_the_run_is_not_green(installation: Installation) -> None:
    installation.watch(3, target_minor=100_000_00)
    installation.add_mail(9)
    del installation.environment["KEEPER_CHANNELS_KEYS"]

    end = installation.run(JOB)

    assert end.state == "Failed"
    assert end.message.startswith("checked 3, failed 0, 3 tokens; alerts wait in the outbox: set KEEPER_CHANNELS_KEYS")
    assert installation.count("outbox") == installation.count("price_alerts") > 0


def test_alert_given_up_by_the_run_that_made_it_leaves_no_green_run(installation: Installation) -> None:
    installation.environment["KEEPER_CHANNELS_MOST_TRIES"] = "1"
    installation.watch(1, target_minor=100_000_00)
    with MailServer() as mail:
        installation.add_mail(mail.port)
        mail.mode = "refuse_recipient"
        end = installation.run(JOB)

    assert (end.state, end.message) == ("Failed", "checked 1, failed 0, 1 tokens; alerts were given up; `keeper alerts` says why")


def test_failure_of_the_database_is_noted_without_its_statement(installation: Installation) -> None:
    (asin,) = installation.watch(1)
    with installation.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE current_prices RENAME TO elsewhere")

    end = installation.run(JOB)

    ((noted,),) = installation.rows("SELECT last_failure FROM planned_checks")
    assert (end.state, end.message) == ("Failed", f"checked 0, failed 1, 0 tokens; {noted}")
    assert noted.startswith("ProgrammingError: ")
    assert not re.search(r"\n|SQL|INSERT", end.message)
    (shown,) = installation.prefect.artifacts(end.run_id).values()
    assert f"| {asin} DE | {noted} |" in shown


@pytest.fixture
def simulator(request: pytest.FixtureRequest) -> Iterator[Simulator]:
    """The usual one, or the one a test asks for."""
    with Simulator(**getattr(request, "param", {})) as running:
        yield running


@pytest.mark.parametrize("simulator", [{"refill_per_minute": 1, "products": 200}], indirect=True, ids=["60-tokens"])
def test_run_says_how_many_overdue_products_wait_for_tokens(installation: Installation) -> None:
    installation.watch(100)
    installation.prefect.empty()

    ends = [installation.run(JOB) for _ in range(2)]

    assert [end.state for end in ends] == ["Completed", "Completed"]
    said = re.fullmatch(r"checked (\d+), failed (\d+), \d+ tokens; (\d+) products wait for tokens", ends[0].message)
    assert said and sum(map(int, said.groups())) == 100
    assert re.search(r"; (3\d|4\d) products wait for tokens$", ends[1].message)
    installation.prefect.wait_for_event("keeper.tokens.low", ends[0].run_id)


def test_ended_run_gives_back_what_it_had_not_sent(installation: Installation) -> None:
    installation.environment |= {"KEEPER_KEEPA_BATCH_SIZE": "1", "KEEPER_KEEPA_REQUESTS_AT_ONCE": "1"}
    installation.watch(4)
    break_next(installation, "slow", seconds=2, next=4)
    running = installation.start(JOB)
    wait_until(lambda: installation.prefect.limit("keepa-requests").active_slots == 1, "no request is under way")
    assert installation.count("check_claims") == 4

    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=30)

    assert installation.count("token_reservations") == 0
    assert installation.count("check_claims") == 1
    assert installation.products_asked() == 1


@pytest.mark.parametrize(("theft", "complaint"), THEFTS)
def test_request_that_lost_its_leases_while_it_waited_is_not_sent(installation: Installation, theft: str, complaint: str) -> None:
    installation.environment |= {"KEEPER_KEEPA_BATCH_SIZE": "1", "KEEPER_KEEPA_REQUESTS_AT_ONCE": "1"}
    installation.watch(2)
    break_next(installation, "slow", seconds=2)
    running = installation.start(JOB)
    wait_until(lambda: installation.products_asked() == 1, "no request is under way")
    with installation.engine.begin() as connection:
        connection.exec_driver_sql(theft)

    end = installation.end_of(running)

    assert end.state == "Failed"
    assert end.message.startswith("checked 1, failed 0, 1 tokens; 1 products wait for the next run; ")
    assert complaint in end.message
    assert installation.products_asked() == 1
    assert installation.count("token_reservations") == 0


@pytest.mark.parametrize(("theft", "complaint"), THEFTS)
def test_request_that_lost_its_leases_while_it_waited_for_slots_is_not_sent(installation: Installation, theft: str, complaint: str) -> None:
    installation.watch(1)
    renewed = "SELECT 1 FROM check_claims c, token_reservations r WHERE c.xmin <> r.xmin"
    with installation.prefect.hold_slots("keepa-requests", 5):
        running = installation.start(JOB)
        wait_until(lambda: bool(installation.rows(renewed)), "no fetch waits for its slots")
        with installation.engine.begin() as connection:
            connection.exec_driver_sql(theft)

    end = installation.end_of(running)

    assert end.state == "Failed"
    assert complaint in end.message
    assert installation.products_asked() == 0
    assert installation.count("token_reservations") == 0


def test_round_claims_only_what_is_sent_soon(installation: Installation) -> None:
    installation.environment |= {"KEEPER_KEEPA_BATCH_SIZE": "1", "KEEPER_KEEPA_REQUESTS_AT_ONCE": "1"}
    installation.watch(9)
    break_next(installation, "slow", seconds=1)
    running = installation.start(JOB)
    wait_until(lambda: installation.products_asked() == 1, "no request is under way")

    assert installation.count("check_claims") == installation.count("token_reservations") == 4
    assert installation.end_of(running).message == "checked 9, failed 0, 9 tokens"


def test_lost_connection_of_the_job_lock_spoils_no_finished_run(installation: Installation) -> None:
    installation.watch(1)
    break_next(installation, "slow", seconds=1)
    running = installation.start(JOB)
    wait_until(lambda: installation.products_asked() == 1, "no request is under way")
    assert installation.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_try_advisory_lock%'")

    assert installation.end_of(running).message == "checked 1, failed 0, 1 tokens"
