"""The application served over real HTTP, on a real database and a real simulator, with a key for each of two users."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from sqlalchemy import Engine

from api.app import create_app
from keeper.accounts import add_api_key, add_user
from keeper.domain.access import Scope
from keeper.notify.channels import make_key
from keeper.postgres.embedded import EmbeddedServer
from keeper.settings import Settings
from keeper.simulator.server import Simulator
from tests.services.api import serve

if TYPE_CHECKING:
    from tests.services.prefect import PrefectServer


@dataclass(frozen=True, slots=True)
class Person:
    """A user and a client that sends their key."""

    user_id: int
    client: httpx.Client
    key: str

    def ask(self, method: str, path: str, **rest: Any) -> httpx.Response:
        return self.client.request(method, path, **rest)

    def get(self, path: str, **query: Any) -> Any:
        """The JSON of a GET that must succeed."""
        answered = self.ask("GET", path, params=query or None)
        assert answered.status_code == 200, answered.text
        return answered.json()

    def post(self, path: str, body: Any = None, *, key: str | None = None, status: int = 201) -> Any:
        """The JSON of a POST that must be answered so."""
        answered = self.ask("POST", path, json=body, headers={"Idempotency-Key": key} if key else {})
        assert answered.status_code == status, answered.text
        return answered.json()


# The address of an API with some settings of its `api` changed.
MakeApi = Callable[..., str]


@pytest.fixture
def settings(postgres: EmbeddedServer, database: str, simulator: Simulator, tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "data": tmp_path / "data",
            "database_url": postgres.libpq_dsn(database),
            "keepa": {"simulator_url": simulator.url},
            "channels": {"keys": make_key(), "schemes": ("mailto", "ntfy")},
            "api": {"requests_per_minute": 100_000},
        }
    )


@pytest.fixture
def make_api(settings: Settings) -> Iterator[MakeApi]:
    with ExitStack() as stack:

        def make(**api: Any) -> str:
            changed = settings.api.model_copy(update=api)
            return stack.enter_context(serve(create_app(settings.model_copy(update={"api": changed})), settings=changed))

        yield make


@pytest.fixture
def api_url(make_api: MakeApi) -> str:
    return make_api()


MakePerson = Callable[..., Person]


@pytest.fixture
def client_of() -> Iterator[Callable[[str, str | None], httpx.Client]]:
    """A client with a key, or none."""
    with ExitStack() as stack:

        def make(url: str, key: str | None) -> httpx.Client:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            return stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False))

        yield make


ClientOf = Callable[[str, str | None], httpx.Client]


@pytest.fixture
def make_person(engine: Engine, client_of: ClientOf) -> MakePerson:
    def make(url: str, name: str, *, is_admin: bool = False) -> Person:
        with engine.begin() as connection:
            new = add_user(connection, name, is_admin=is_admin)
        return Person(new.user_id, client_of(url, new.shown_key), new.shown_key)

    return make


def make_key_of(engine: Engine, person: Person, scope: Scope) -> str:
    with engine.begin() as connection:
        return add_api_key(connection, person.user_id, label=scope.value, scope=scope).shown_key


@pytest.fixture
def anna(api_url: str, make_person: MakePerson) -> Person:
    return make_person(api_url, "anna")


@pytest.fixture
def ben(api_url: str, make_person: MakePerson) -> Person:
    return make_person(api_url, "ben")


@pytest.fixture
def deployed(prefect_server: "PrefectServer", monkeypatch: pytest.MonkeyPatch) -> str:
    """The deployments that the API starts, on a real Prefect server; nobody works on its runs. Returns the server's API."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.url)
    with httpx.Client(base_url=prefect_server.url, timeout=30) as client:
        for flow_name, name in (("price-watch", "tick"), ("reindex", "by-hand")):
            flow = client.post("/flows/", json={"name": flow_name}).raise_for_status().json()
            client.post("/deployments/", json={"name": name, "flow_id": flow["id"], "enforce_parameter_schema": False}).raise_for_status()
    return prefect_server.url
