"""What the tests of deployments share."""

from collections.abc import Iterator

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.services.prefect import PrefectServer


@pytest.fixture
def client(prefect_server: PrefectServer) -> Iterator[SyncPrefectClient]:
    """A client of the session's server, which is as empty as a new one; this process talks to it too."""
    with temporary_settings({PREFECT_API_URL: prefect_server.url}), prefect_server.client() as opened:
        prefect_server.empty()
        prefect_server.remove_limits()
        yield opened
        prefect_server.empty()
