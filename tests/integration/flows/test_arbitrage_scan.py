"""The scan of the stores under a real Prefect server, against a Keepa that fails on request."""

from keeper.accounts import add_user
from keeper.domain.marketplace import Marketplace
from keeper.domain.watch import Watch
from keeper.postgres import watches
from keeper.postgres.jobs import hold_job
from keeper.resources import now_of
from tests.integration.opportunities import add_opportunities, opportunity
from tests.services.installation import Installation

JOB = "arbitrage_scan.arbitrage_scan"
# Two products in five stores.
TOKENS = 10


def watch_some(installation: Installation) -> None:
    asins = installation.simulator.keepa.catalog.asins(0, 2)
    with installation.engine.begin() as connection:
        user = add_user(connection, "anna-of-the-scan")
        wanted = [Watch(asin, Marketplace.DE, target=None) for asin in asins]
        watches.insert_watches(connection, user.user_id, wanted, now=now_of(connection))


def test_all_stores_are_looked_at_and_compared(installation: Installation) -> None:
    watch_some(installation)

    end = installation.run(JOB)

    assert end.state == "Completed", end.message
    assert end.message.startswith(f"looked at 2 products in 5 stores, {TOKENS} listings; {TOKENS} tokens; ")
    assert "2 products in" in end.message
    assert "days old, so results with it are marked stale" in end.message
    assert installation.rows("SELECT count(DISTINCT marketplace) FROM current_prices") == [(5,)]
    assert installation.rows("SELECT is_full FROM comparisons WHERE ended_at IS NOT NULL") != []
    assert installation.count("token_reservations") == 0

    again = installation.run(JOB)
    assert again.message.startswith("looked at 0 products in 0 stores, 0 listings; 0 tokens; ")


def test_a_store_that_fails_is_told_and_what_the_others_say_is_compared(installation: Installation) -> None:
    watch_some(installation)
    installation.tell_simulator("faults", kind="400", path="/product", next=1)

    end = installation.run(JOB)

    assert end.state == "Failed"
    assert "DE is left out: Keepa answered 400" in end.message
    assert installation.rows("SELECT count(DISTINCT marketplace) FROM current_prices") == [(4,)]
    assert installation.rows("SELECT count(*) FROM comparisons WHERE ended_at IS NOT NULL") == [(1,)]


def test_sellers_of_what_is_worth_buying_are_asked_for_and_what_opened_is_noted(installation: Installation) -> None:
    [asin] = installation.simulator.keepa.catalog.asins(0, 1)
    with installation.engine.begin() as connection:
        at = now_of(connection)
    add_opportunities(installation.engine, opportunity(asin=asin, at=at))

    end = installation.run(JOB)

    assert end.state == "Completed", end.message
    assert "sellers of 1 products seen for" in end.message
    assert "opportunities noted, 0 outcomes scored" in end.message
    assert installation.rows("SELECT count(DISTINCT opportunity_id) > 0, count(scored_at) FROM opportunity_outcomes") == [(True, 0)]
    assert installation.rows("SELECT DISTINCT asin, marketplace FROM offers_history") == [(asin, "IT")]
    assert installation.count("token_reservations") == 0


def test_one_looks_at_the_stores_at_a_time(installation: Installation) -> None:
    with hold_job(installation.engine, "arbitrage-scan") as is_mine:
        assert is_mine
        end = installation.end_of(installation.start(JOB))
    assert end.state == "Cancelled"
