"""Reports under a real Prefect server: made once, sent, shown in its UI."""

from datetime import timedelta

import pytest
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from sqlalchemy import text

from flows.reports import _failed_runs
from keeper.postgres.jobs import hold_job
from tests.integration.deals import add_deal, add_filter
from tests.integration.makers import one
from tests.services.installation import Installation
from tests.services.mail import MailServer


def shown(installation: Installation, key: str) -> str:
    """The newest artifact of a key; every test of the session writes under the same."""
    with installation.prefect.client() as client:
        (found,) = client.read_latest_artifacts(artifact_filter=ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=[key])))
        return str(found.data)


@pytest.fixture
def reader(installation: Installation) -> Installation:
    """An installation with a user whose report is due, and a deal for them."""
    installation.add_mail(9)
    with installation.engine.begin() as connection:
        connection.execute(text("UPDATE users SET timezone = 'UTC', report_hour = 0"))
        connection.execute(text("DELETE FROM channels"))
    now = installation.resources.now()
    add_filter(installation.engine, one(installation.engine, "SELECT id FROM users"), "Keys | all")
    add_deal(installation.engine, changed_at=now - timedelta(hours=1), announced_at=now - timedelta(hours=1), title="Tastatur | [neu]")
    return installation


def test_reports_are_made_and_sent_once_and_shown(reader: Installation) -> None:
    with MailServer() as mail:
        reader.add_mail(mail.port)
        first, second = (reader.run("reports.reports") for _ in range(2))

    assert (first.state, first.message) == ("Completed", "1 report to 1 channels, 0 empty, 0 deals published again")
    assert (second.state, second.message) == ("Completed", "0 reports to 0 channels, 0 empty, 0 deals published again")
    assert [str(one["Subject"]).endswith("1 new deal; best 69.90 € Tastatur | [neu]") for one in mail.messages] == [True]
    assert reader.flow_run(first).name == "report to everybody whose hour has come"
    assert "0 reports" in shown(reader, "reports-by-hand")


def test_artifact_has_a_row_for_each_report_and_its_best_deals(reader: Installation) -> None:
    reader.run("reports.reports", is_sent=False)

    artifact = shown(reader, "reports-by-hand")
    assert "| anna | " in artifact
    assert "| [Tastatur / (neu)](https://www.amazon.de/dp/B0DEAL0000) | 69.90 € | 99.90 € | new | Keys / all |" in artifact


def test_report_that_cannot_be_sent_waits_and_the_run_is_green_unless_it_is_given_up(reader: Installation) -> None:
    reader.environment |= {"KEEPER_CHANNELS_MOST_TRIES": "1"}
    with MailServer(mode="refuse_later") as mail:
        reader.add_mail(mail.port)
        later = reader.run("reports.reports")
        mail.mode = "accept"
        with reader.engine.begin() as connection:
            connection.execute(text("UPDATE outbox SET next_try_at = NULL"))
        swept = reader.run("delivery.delivery", longest_seconds=30)

    assert (later.state, swept.state, len(mail.messages)) == ("Completed", "Completed", 1)


def test_report_that_is_given_up_leaves_no_green_run(reader: Installation) -> None:
    reader.environment |= {"KEEPER_CHANNELS_MOST_TRIES": "1"}
    with MailServer(mode="refuse") as mail:
        reader.add_mail(mail.port)
        end = reader.run("reports.reports")

    assert end.state == "Failed"
    assert "1 messages were given up" in end.message


def test_next_day_has_the_next_report(reader: Installation) -> None:
    reader.run("reports.reports")
    reader.jump(days=1)
    reader.run("reports.reports")

    assert reader.count("deal_reports") == 2


@pytest.mark.parametrize("flow", ["reports", "operations_report"])
def test_second_scheduler_ends_cancelled(installation: Installation, flow: str) -> None:
    job = f"{flow.replace('_', '-')}/by-hand"
    with hold_job(installation.engine, job):
        end = installation.run(f"reports.{flow}")

    assert end.state == "Cancelled"
    assert f"another scheduler runs {job}" in end.message


def test_operations_are_told_to_administrators_and_shown(installation: Installation) -> None:
    with MailServer() as mail:
        installation.add_mail(mail.port)
        with installation.engine.begin() as connection:
            connection.execute(text("UPDATE users SET role = 'admin'"))
        first, second = (installation.run("reports.operations_report") for _ in range(2))

    assert first.state == second.state == "Completed"
    assert "told to 1 channels" in first.message
    assert "told to 0 channels" in second.message
    assert len(mail.messages) == 1
    artifact = shown(installation, "operations-report-by-hand")
    for title in ("Deals", "Tokens", "Elasticsearch against PostgreSQL", "Kafka", "Outbox", "API", "Failures", "Flow runs"):
        assert f"### {title}\n" in artifact


def test_failed_runs_of_the_last_day_are_known(installation: Installation) -> None:
    installation.environment["KEEPER_DATABASE_URL"] = "postgresql://nobody@127.0.0.1:9/nothing"
    failed = installation.start("delivery.delivery")
    failed.communicate(timeout=60)

    with temporary_settings(updates={PREFECT_API_URL: installation.prefect.url}):
        runs, problem = _failed_runs()

    assert problem == ""
    assert "deliver what waits in the outbox" in {run.name for run in runs}


def test_prefect_that_does_not_answer_is_told() -> None:
    with temporary_settings(updates={PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        runs, problem = _failed_runs()

    assert (runs, problem.startswith("Prefect does not say (")) == ([], True)
