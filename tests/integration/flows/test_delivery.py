"""Delivery and maintenance under a real Prefect server."""

from datetime import timedelta

import pytest

from deployments.stack import free_port
from keeper.postgres.jobs import hold_job
from keeper.search.connection import SearchConnection, open_client
from keeper.search.indices import connect, count
from tests.services.installation import Installation
from tests.services.mail import MailServer
from tests.services.session import ElasticsearchService


def test_delivery_sweeps_what_the_recording_run_left(installation: Installation) -> None:
    installation.environment["KEEPER_CHANNELS_FIRST_WAIT_SECONDS"] = "0.1"
    installation.watch(3, target_minor=100_000_00)
    with MailServer() as mail:
        installation.add_mail(mail.port)
        mail.mode = "refuse_later"
        watched = installation.run("price_watch.price_watch")
        left = installation.count("outbox")
        mail.mode = "accept"
        swept = installation.run("delivery.delivery", longest_seconds=30)

    assert watched.state == "Completed"
    assert left == installation.count("price_alerts") > 0
    assert (swept.state, swept.message) == ("Completed", f"notify: delivered {left}, refused 0, dead 0")
    assert len(mail.messages) == left
    assert installation.count("outbox") == 0


@pytest.mark.parametrize("flow", ["delivery.delivery", "maintenance.maintenance"])
def test_what_asks_nothing_of_keepa_runs_without_it(installation: Installation, flow: str) -> None:
    installation.environment["KEEPER_KEEPA_SIMULATOR_URL"] = f"http://127.0.0.1:{free_port()}"

    assert installation.run(flow).state == "Completed"


def test_price_watch_without_keepa_fails_and_says_why(installation: Installation) -> None:
    installation.environment["KEEPER_KEEPA_SIMULATOR_URL"] = f"http://127.0.0.1:{free_port()}"

    installation.prefect.empty()

    end = installation.run("price_watch.price_watch")

    assert end.state == "Failed"
    assert "does not answer" in end.message
    installation.prefect.wait_for_event("keeper.keepa.down", end.run_id)


def test_delivery_of_an_empty_outbox_is_green(installation: Installation) -> None:
    end = installation.run("delivery.delivery")

    assert (end.state, end.message) == ("Completed", "notify: delivered 0, refused 0, dead 0")
    assert "| notify | 0 | 0 | 0 |  |" in installation.prefect.artifacts(end.run_id)["delivery-by-hand"]


def test_message_given_up_leaves_no_green_delivery(installation: Installation) -> None:
    installation.environment |= {"KEEPER_CHANNELS_MOST_TRIES": "2", "KEEPER_CHANNELS_FIRST_WAIT_SECONDS": "0.1"}
    installation.watch(1, target_minor=100_000_00)
    with MailServer() as mail:
        installation.add_mail(mail.port)
        mail.mode = "refuse"
        installation.run("price_watch.price_watch")
        end = installation.run("delivery.delivery", longest_seconds=30)

    assert (end.state, end.message) == ("Failed", "notify: delivered 0, refused 0, dead 1")
    assert installation.count("dead_letters") == 1


def test_second_scheduler_of_deliveries_ends_cancelled(installation: Installation) -> None:
    with hold_job(installation.engine, "delivery/by-hand"):
        end = installation.run("delivery.delivery")

    assert end.state == "Cancelled"
    assert "another scheduler runs delivery/by-hand" in end.message


def test_maintenance_runs_green_again_and_again(installation: Installation) -> None:
    ends = [installation.run("maintenance.maintenance") for _ in range(2)]

    assert [end.state for end in ends] == ["Completed", "Completed"]
    assert "| partitions made | 0 |" in installation.prefect.artifacts(ends[1].run_id)["maintenance-by-hand"]
    nothing = (
        "removed 0 calls, 0 dead letters, 0 ids of foreign events, 0 kept answers of the API, 0 sightings of deals, "
        "0 deals and 0 opportunities that are over, 0 reports, "
        "0 entries of the audit log, 0 documents, ranked 0 products anew"
    )
    assert ends[-1].message == f"made 0 partitions, dropped 0 days of events, {nothing}"


def test_maintenance_writes_the_limit_anew_when_keepa_refills_at_another_rate(installation: Installation) -> None:
    installation.run("maintenance.maintenance")
    with installation.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE token_ledger SET refill_per_minute = 60")

    end = installation.run("maintenance.maintenance")

    assert "limit keepa-tokens changed with Keepa's refill rate: 3600" in end.message
    assert installation.prefect.limit("keepa-tokens").limit == 3600


def test_maintenance_frees_what_the_dead_left(installation: Installation) -> None:
    installation.environment["KEEPER_KEEP_CALLS_DAYS"] = "1"
    (asin,) = installation.watch(1)
    installation.run("price_watch.price_watch")
    installation.jump(days=2)
    with installation.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO check_claims (asin, marketplace, batch_id, expires_at) "
            f"VALUES ('{asin}', 'DE', gen_random_uuid(), clock_timestamp() - interval '1 second')"
        )
        connection.exec_driver_sql(
            "INSERT INTO token_reservations (operation, priority, tokens, is_granted, expires_at) "
            "VALUES ('product', 1, 5, true, clock_timestamp() - interval '1 second')"
        )

    end = installation.run("maintenance.maintenance")

    assert end.state == "Completed"
    assert installation.count("check_claims") == installation.count("token_reservations") == 0
    assert installation.count("keepa_calls") == 0


def test_maintenance_forgets_dead_letters_and_foreign_events_in_time(installation: Installation) -> None:
    with installation.engine.begin() as connection:
        for days in (100, 80):
            connection.exec_driver_sql(
                "INSERT INTO dead_letters (sink, key, event_id, kind, version, payload, recorded_at, tries, reason, died_at) "
                "SELECT 'kafka', 'B', gen_random_uuid(), 'price_update', 1, '{}', died, 1, 'too large', died "
                f"FROM (SELECT clock_timestamp() - interval '{days} days' AS died) AS dead"
            )
        for days in (9, 7):
            connection.exec_driver_sql(
                "INSERT INTO ingested_events (event_id, topic, ingested_at) "
                f"VALUES (gen_random_uuid(), 'price-updates', clock_timestamp() - interval '{days} days')"
            )

    end = installation.run("maintenance.maintenance")

    assert "1 dead letters, 1 ids of foreign events" in end.message
    assert (installation.count("dead_letters"), installation.count("ingested_events")) == (1, 1)


def test_maintenance_forgets_reports_and_alerts_of_deals_in_time(installation: Installation) -> None:
    installation.environment["KEEPER_KEEP_REPORTS_DAYS"] = "30"
    installation.add_mail(9)
    with installation.engine.begin() as connection:
        for days in (31, 29):
            connection.exec_driver_sql(
                "INSERT INTO deal_reports (user_id, report_date, deal_count, content, created_at) "
                f"SELECT id, current_date - {days}, 0, '{{}}', keeper_now() - interval '{days} days' FROM users"
            )
            connection.exec_driver_sql(
                "INSERT INTO deal_collections (collected_at, source, seen, kept, added, glitches) "
                f"VALUES (keeper_now() - interval '{days} days', 'feed', 1, 1, 1, 0)"
            )

    end = installation.run("maintenance.maintenance")

    assert "1 reports" in end.message
    assert (installation.count("deal_reports"), installation.count("deal_collections")) == (1, 1)


def test_maintenance_deletes_old_documents(installation: Installation, elasticsearch: ElasticsearchService) -> None:
    connection = SearchConnection((elasticsearch.url,), index_prefix=elasticsearch.prefix)
    client = open_client(connection)
    try:
        connect(client, connection)
        now = installation.resources.now()
        for alias, days in (("keeper-metrics", 95), ("keeper-metrics", 85), ("keeper-prices", 400)):
            timestamp = (now - timedelta(days=days)).isoformat()
            client.index(index=f"{elasticsearch.prefix}{alias}", document={"timestamp": timestamp}, refresh=True)
        installation.environment |= {
            "KEEPER_ELASTICSEARCH_URL": elasticsearch.url,
            "KEEPER_ELASTICSEARCH_INDEX_PREFIX": elasticsearch.prefix,
        }

        end = installation.run("maintenance.maintenance")

        left = {alias: count(client, connection, f"{elasticsearch.prefix}{alias}") for alias in ("keeper-metrics", "keeper-prices")}
    finally:
        client.close()
    assert (end.state, left) == ("Completed", {"keeper-metrics": 1, "keeper-prices": 1})
    assert "1 documents" in end.message


def test_maintenance_leaves_documents_of_an_elasticsearch_that_is_down_for_another_day(installation: Installation) -> None:
    installation.environment["KEEPER_ELASTICSEARCH_URL"] = f"http://127.0.0.1:{free_port()}"

    end = installation.run("maintenance.maintenance")

    assert end.state == "Completed"
    assert "old documents are left for another day: Elasticsearch at http://127.0.0.1:" in end.message
