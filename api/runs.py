"""Runs that somebody asks for: a deployment is started by its name, over Prefect's own REST API."""

import os
import re
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import httpx

from keeper import trace
from keeper.domain.errors import KeeperError, TransientError
from keeper.settings import Settings

_TIMEOUT: Final = httpx.Timeout(10)


class PrefectUnreachable(TransientError):
    """Prefect's server does not answer, or not as one."""


class DeploymentMissing(KeeperError):
    """Prefect knows no deployment of this name."""


_WITH_PASSWORD = re.compile("//[^/@]*@")


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run that waits for its worker.

    Attributes:
        url: its page in Prefect's UI.
    """

    run_id: UUID
    name: str
    url: str


class Runs:
    """Prefect's server. Opening it asks nothing of the network."""

    def __init__(self, settings: Settings) -> None:
        self._api = (settings.prefect.api_url or os.environ.get("PREFECT_API_URL", "")).rstrip("/")
        # Where a browser finds its pages: in containers the API knows it by another name.
        # A password in Prefect's own variable is Prefect's to take, and nobody's to see.
        self._pages = _WITH_PASSWORD.sub("//", os.environ.get("PREFECT_UI_URL") or self._api.removesuffix("/api")).rstrip("/")
        auth = settings.prefect.api_auth.get_secret_value().partition(":") if settings.prefect.api_auth else None
        self._auth = httpx.BasicAuth(auth[0], auth[2]) if auth else None

    def find_deployment(self, name: str) -> UUID:
        """Its id, by `flow/deployment`.

        Raises:
            PrefectUnreachable, DeploymentMissing: see there.
        """
        found = self._ask("GET", f"/deployments/name/{name}")
        if found is None:
            raise DeploymentMissing(f"Prefect knows no deployment {name}")
        return UUID(found["id"])

    def start(self, deployment_id: UUID, parameters: dict[str, Any], *, idempotency_key: str | None) -> StartedRun:
        """Ask for a run with some of the deployment's parameters changed; the same key again gives the same run.

        It bears the id of the request under way as a tag.

        Raises:
            PrefectUnreachable, DeploymentMissing: see there.
        """
        body: dict[str, Any] = {
            "state": {"type": "SCHEDULED", "message": "asked for over the API"},
            "parameters": parameters,
            "idempotency_key": idempotency_key,
        }
        if (request_id := trace.current().request_id) is not None:
            body["tags"] = [trace.tag_of(request_id)]
        run = self._ask("POST", f"/deployments/{deployment_id}/create_flow_run", body)
        if run is None:
            raise DeploymentMissing("the deployment is gone")
        return StartedRun(UUID(run["id"]), str(run["name"]), f"{self._pages}/runs/flow-run/{run['id']}")

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        if not self._api:
            raise PrefectUnreachable("no Prefect is known: set KEEPER_PREFECT_API_URL, or start everything with `make up`")
        try:
            answer = httpx.request(method, self._api + path, json=body, auth=self._auth, timeout=_TIMEOUT)
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
            return found
        except httpx.HTTPStatusError as error:
            raise PrefectUnreachable(f"Prefect answered {error.response.status_code}") from None
        except (httpx.HTTPError, ValueError) as error:
            raise PrefectUnreachable(f"Prefect's server does not answer ({type(error).__name__})") from None
