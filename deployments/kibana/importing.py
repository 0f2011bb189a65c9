"""Bring the dashboards into Kibana, over its saved objects API; what is there under the same ids is replaced."""

import json
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from deployments.kibana.objects import FILE
from keeper.domain.errors import KeeperError, TransientError
from keeper.settings import Settings

_PATH = "/api/saved_objects/_import"


class KibanaDown(TransientError):
    """Kibana does not answer, or is not ready yet."""


class KibanaRefused(KeeperError):
    """Kibana answers, and does not take the objects."""


@dataclass(frozen=True, slots=True)
class KibanaConnection:
    """Where Kibana is.

    Attributes:
        api_key: as Elasticsearch encodes it; goes before user and password.
        ca_file: PEM; trusted beside the certificates of the system.
        index_prefix: that of the aliases the data views look at.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    index_prefix: str = ""
    timeout_seconds: float = 60.0


def bring_dashboards(settings: Settings) -> list[str]:
    """Import them where a Kibana is named. Returns a line per thing made, or why it was left out."""
    if settings.kibana.url is None:
        return []
    search = settings.elasticsearch
    connection = KibanaConnection(
        settings.kibana.url,
        api_key=_revealed(search.api_key),
        username=search.username,
        password=_revealed(search.password),
        ca_file=search.ca_file,
        index_prefix=search.index_prefix,
        timeout_seconds=settings.kibana.timeout_seconds,
    )
    try:
        return import_objects(connection)
    except KeeperError as error:
        return [f"Kibana's dashboards left out: {error}"]


def import_objects(connection: KibanaConnection) -> list[str]:
    """Import data views, panels and dashboards. Returns a line per dashboard and data view that was not there before.

    Raises:
        KibanaDown: see there.
        KibanaRefused: says which object and why.
    """
    headers = {"kbn-xsrf": "keeper"}
    if connection.api_key is not None:
        headers["Authorization"] = f"ApiKey {connection.api_key}"
    auth = (connection.username, connection.password or "") if connection.username and connection.api_key is None else None
    file = {"file": ("keeper.ndjson", read_objects(connection.index_prefix).encode(), "application/ndjson")}
    url = f"{connection.url.rstrip('/')}{_PATH}"
    try:
        with httpx.Client(verify=_trust(connection), timeout=connection.timeout_seconds, auth=auth) as client:
            answer = client.post(url, params={"overwrite": "true"}, headers=headers, files=file)
    except httpx.HTTPError as error:
        raise KibanaDown(f"Kibana at {connection.url} does not answer ({type(error).__name__})") from None
    return _judge(connection, answer)


def read_objects(index_prefix: str) -> str:
    """The file as it is imported: with a prefix the data views look at the prefixed aliases."""
    objects = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    for one in objects:
        if one["type"] == "index-pattern":
            one["attributes"]["title"] = index_prefix + one["attributes"]["title"]
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects)


def _judge(connection: KibanaConnection, answer: httpx.Response) -> list[str]:
    where = f"Kibana at {connection.url}"
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise KibanaRefused(
            f"{where} says {answer.status_code}; it is asked as Elasticsearch's user, who needs the privilege Saved Objects Management "
            "(KEEPER_ELASTICSEARCH_API_KEY, or _USERNAME and _PASSWORD)"
        )
    if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise KibanaDown(f"{where} says {answer.status_code}; it may not be ready yet")
    try:
        said: dict[str, Any] = answer.json()
        if answer.status_code != httpx.codes.OK:
            raise KibanaRefused(f"{where} says {answer.status_code}: {said.get('message', 'without a reason')}")
        errors = said.get("errors", [])
        if not said["success"]:
            told = "; ".join(f"{one['type']} {one['id']}: {one['error']['type']}" for one in errors) or "without a reason"
            raise KibanaRefused(f"{where} has not taken everything: {told}")
        made = [one for one in said.get("successResults", ()) if not one.get("overwrite") and one["type"] in _SHOWN]
        return [f"Kibana: {_SHOWN[one['type']]} {one.get('meta', {}).get('title', one['id'])} made" for one in made]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise KibanaRefused(f"what answers at {connection.url} ({answer.status_code}) is not Kibana's API") from None


_SHOWN = {"dashboard": "dashboard", "index-pattern": "data view"}


def _trust(connection: KibanaConnection) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if connection.ca_file is not None:
        try:
            context.load_verify_locations(connection.ca_file)
        except OSError as error:
            raise KibanaRefused(f"KEEPER_ELASTICSEARCH_CA_FILE cannot be read: {error.strerror or error}") from None
    return context


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None
