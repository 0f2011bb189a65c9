"""What runs tell Prefect's automations: what has changed, once."""

from collections.abc import Iterator

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.stack import free_port
from flows.events import tell_changes
from tests.services.prefect import PrefectServer
from tests.services.waiting import wait_until


@pytest.fixture
def server(prefect_server: PrefectServer) -> Iterator[PrefectServer]:
    """The session's, to which nothing was told yet; this process talks to it, too."""
    prefect_server.empty()
    with temporary_settings({PREFECT_API_URL: prefect_server.url}):
        yield prefect_server
    prefect_server.empty()


@pytest.fixture
def told(server: PrefectServer) -> "Told":
    """What is told from now on."""
    return Told(server)


class Told:
    """The events of Keeper's own since this was made."""

    def __init__(self, server: PrefectServer) -> None:
        self._server = server
        self._before = len(server.events("keeper."))

    def names(self) -> list[str]:
        """Oldest first."""
        return [str(one["event"]) for one in self._server.events("keeper.")[self._before :]]

    def wait_for(self, *names: str) -> None:
        """Until these are told, and no more."""
        wait_until(lambda: len(self.names()) >= len(names), f"told only {self.names()}")
        assert self.names() == list(names)


def test_a_change_is_told_once_and_its_end_once(told: Told) -> None:
    for kafka in ("nobody answers", "nobody answers yet", None, None, "away again"):
        tell_changes({"kafka": kafka, "elasticsearch": None})
    # What a run has not seen is as it was.
    tell_changes({})
    tell_changes({"tokens": "3 products wait for tokens"})

    told.wait_for("keeper.kafka.down", "keeper.kafka.back", "keeper.kafka.down", "keeper.tokens.low")


def test_prefect_that_does_not_answer_fails_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        tell_changes({"kafka": "nobody answers"})

    assert "could not be told to Prefect" in caplog.text
