"""The watchdog as a flow: it tells also when the database is what is down, and leaves its word of who schedules."""

from uuid import uuid4

from tests.services.installation import Installation
from tests.services.mail import MailServer


def test_flow_tells_of_a_database_that_is_down_and_of_its_return_and_is_known_as_scheduler(installation: Installation) -> None:
    deployment_id = uuid4()
    with MailServer() as mail:
        installation.environment |= {
            "KEEPER_WATCHDOG_APPRISE_URLS": f"mailto://127.0.0.1:{mail.port}/ops@example.org?from=keeper@example.org",
            "KEEPER_WATCHDOG_CALM_MINUTES": "0",
            "KEEPER_WATCHDOG_DISK_FREE_PCT": "0",
            "PREFECT__RUNTIME__DEPLOYMENT__ID": str(deployment_id),
        }
        url = installation.environment["KEEPER_DATABASE_URL"]
        installation.environment["KEEPER_DATABASE_URL"] = "postgresql://keeper@127.0.0.1:9/keeper"
        down = installation.run("watchdog.watchdog")
        installation.environment["KEEPER_DATABASE_URL"] = url
        back = installation.run("watchdog.watchdog")
        subjects = [str(one["Subject"]) for one in mail.messages]

    # Other tests' deployments may have runs that wait at the session's Prefect server: that is another trouble.
    assert (down.state, back.state) == ("Completed", "Completed"), down.message + back.message
    assert "database" in subjects[0]
    assert "database is over" in subjects[1]
    assert "| **database** |" in installation.prefect.artifacts(down.run_id)["watchdog-by-hand"]
    assert f"scheduled by {deployment_id} of Prefect at 127.0.0.1" in installation.prefect.artifacts(back.run_id)["watchdog-by-hand"]
