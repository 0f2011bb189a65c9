"""Shells with settings of their own, on a real database and a real simulator."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from keeper.notify.channels import make_key
from keeper.postgres.embedded import EmbeddedServer
from keeper.simulator.server import Simulator
from tests.integration.cli.terminal import Terminal
from tests.services.mail import MailServer


@pytest.fixture
def shell(postgres: EmbeddedServer, database: str, simulator: Simulator, tmp_path: Path) -> Terminal:
    return Terminal(
        {
            "KEEPER_DATA": str(tmp_path / "data"),
            "KEEPER_DATABASE_URL": postgres.libpq_dsn(database),
            "KEEPER_KEEPA_SIMULATOR_URL": simulator.url,
            "KEEPER_CHANNELS_KEYS": make_key(),
            "KEEPER_CHANNELS_SCHEMES": "mailto,ntfy",
        }
    )


@pytest.fixture
def anna(shell: Terminal) -> Terminal:
    """A shell with a user."""
    shell.ask("user", "add", "anna")
    return shell


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server
