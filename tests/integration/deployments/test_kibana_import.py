"""How the dashboards get into Kibana: what is sent, and what is said of each answer. A server of our own stands in for it."""

import base64
import json
from typing import Any

import pytest

from deployments.kibana.importing import KibanaConnection, KibanaDown, KibanaRefused, bring_dashboards, import_objects
from deployments.kibana.objects import FILE
from keeper.settings import Settings
from tests.integration.notify.http_edge import HttpServer

TAKEN = {
    "success": True,
    "successCount": 2,
    "successResults": [
        {"type": "index-pattern", "id": "products", "meta": {"title": "products"}, "overwrite": True},
        {"type": "lens", "id": "keeper-token-budget-spent", "meta": {"title": "Spent"}},
        {"type": "dashboard", "id": "keeper-token-budget", "meta": {"title": "Token Budget"}},
    ],
}


def _answering(body: Any, status: int = 200) -> HttpServer:
    return HttpServer(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


def test_the_file_is_posted_as_kibana_wants_it() -> None:
    with _answering(TAKEN) as kibana:
        made = import_objects(KibanaConnection(f"{kibana.url}/kibana/", username="elastic", password="hunter2"))

    [asked] = kibana.asked
    assert (asked.method, asked.path) == ("POST", "/kibana/api/saved_objects/_import?overwrite=true")
    headers = {name.lower(): value for name, value in asked.headers.items()}
    assert headers["kbn-xsrf"] == "keeper"
    assert headers["content-type"].startswith("multipart/form-data; boundary=")
    assert headers["authorization"] == "Basic " + base64.b64encode(b"elastic:hunter2").decode()
    sent = asked.body.decode()
    assert 'name="file"; filename="keeper.ndjson"' in sent
    assert [json.loads(line) for line in sent.splitlines() if line.startswith("{")] == [
        json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()
    ]
    assert made == ["Kibana: dashboard Token Budget made"]


def test_an_api_key_goes_before_user_and_password() -> None:
    with _answering(TAKEN) as kibana:
        import_objects(KibanaConnection(kibana.url, api_key="aWQ6c2VjcmV0", username="elastic", password="hunter2"))

    assert {name.lower(): value for name, value in kibana.asked[0].headers.items()}["authorization"] == "ApiKey aWQ6c2VjcmV0"


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        pytest.param(401, {"message": "no"}, KibanaRefused, "privilege", id="not allowed"),
        pytest.param(503, {"message": "Kibana server is not ready yet"}, KibanaDown, "not be ready", id="starting"),
        pytest.param(422, {"message": "belongs to a more recent version"}, KibanaRefused, "more recent version", id="older"),
        pytest.param(302, {}, KibanaRefused, "302", id="a page to sign in"),
        pytest.param(200, ["hello"], KibanaRefused, "not Kibana's API", id="something else"),
        pytest.param(
            200,
            {
                "success": False,
                "errors": [{"type": "lens", "id": "keeper-x", "error": {"type": "missing_references", "references": []}}],
            },
            KibanaRefused,
            "lens keeper-x: missing_references",
            id="in part",
        ),
    ],
)
def test_what_is_not_taken_is_said(status: int, body: Any, error: type[Exception], words: str) -> None:
    with _answering(body, status) as kibana, pytest.raises(error, match=words) as caught:
        import_objects(KibanaConnection(kibana.url, username="elastic", password="hunter2"))
    assert "hunter2" not in str(caught.value)


def test_a_kibana_that_is_silent_or_away_is_left_out_by_bootstrap() -> None:
    with HttpServer(hang=True) as silent:
        [line] = bring_dashboards(Settings.model_validate({"kibana": {"url": silent.url, "timeout_seconds": 0.2}}))
    assert line == f"Kibana's dashboards left out: Kibana at {silent.url} does not answer (ReadTimeout)"
    [line] = bring_dashboards(Settings.model_validate({"kibana": {"url": "http://127.0.0.1:1"}}))
    assert "does not answer (ConnectError)" in line


def test_without_a_kibana_nothing_is_asked() -> None:
    assert bring_dashboards(Settings.model_validate({})) == []
