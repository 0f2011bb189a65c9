"""The OpenAPI document is what the API does: schemathesis walks all of it, with every check."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from api.app import create_app
from keeper.settings import Settings
from keeper.simulator.server import Simulator
from tests.integration.api.conftest import ClientOf, MakeApi, MakePerson
from tests.integration.notify.http_edge import HttpServer

ROOT = Path(__file__).parents[3]
_EXAMPLES_PER_OPERATION = 25
_LEAST_CASES = 2_000


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """With tokens for every check that schemathesis thinks of."""
    with Simulator(refill_per_minute=1_000_000) as running:
        yield running


def test_schemathesis_finds_nothing(make_api: MakeApi, make_person: MakePerson, deployed: str, tmp_path: Path) -> None:
    # It shows a thousand keys that are none.
    url = make_api(failed_tries_per_minute=100_000)
    anna = make_person(url, "anna", is_admin=True)
    feed = anna.post("/api/v1/api-keys", {"label": "feed", "scope": "feed"})
    with HttpServer(body=b'{"id":"1"}') as edge:
        environment = os.environ | {
            "SCHEMATHESIS_HOOKS": "tests.services.schemathesis_hooks",
            "KEEPER_TEST_CHANNEL_URL": f"ntfy://127.0.0.1:{edge.port}/topic",
            "KEEPER_TEST_KEY_IDS": f"{anna.get('/api/v1/users/me')['key_id']},{feed['id']}",
            "KEEPER_TEST_FEED_KEY": feed["key"],
            "PYTHONPATH": str(ROOT),
        }
        done = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"), "run", f"{url}/openapi.json",
                "--header", f"Authorization: Bearer {anna.key}",
                # There is no Elasticsearch here, and 503 is the answer to everything; the contract's tests ask a real one.
                "--exclude-path", "/api/v1/deals/es-search", "--checks", "all", "--continue-on-failure", "--no-color",
                "--max-examples", str(_EXAMPLES_PER_OPERATION), "--request-timeout", "30", "--generation-database", "none",
            ],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip

    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-6000:]
    cases = re.search(r"([\d,]+) generated", said)
    assert cases is not None and int(cases.group(1).replace(",", "")) >= _LEAST_CASES, said[-2000:]
    assert "Authentication failed" not in said


def _resolved(document: Any, schema: Any) -> Any:
    """With the references that point into the document."""
    return {"components": document["components"], **schema}


def _examples(document: Any) -> Iterator[tuple[str, Any, Any]]:
    for name, schema in document["components"]["schemas"].items():
        for field, one in schema.get("properties", {}).items():
            for example in one.get("examples", ()):
                yield f"{name}.{field}", one, example
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", ()):
                schema = parameter["schema"]
                for example in [*schema.get("examples", ()), *(one["value"] for one in parameter.get("examples", {}).values())]:
                    yield f"{method} {path} {parameter['name']}", schema, example


def test_every_example_is_what_its_schema_says(settings: Settings) -> None:
    document = create_app(settings).openapi()
    examples = list(_examples(document))

    wrong = [place for place, schema, example in examples if not Draft202012Validator(_resolved(document, schema)).is_valid(example)]

    assert len(examples) > 20
    assert wrong == []


def test_every_path_says_what_it_does(settings: Settings) -> None:
    document = create_app(settings).openapi()
    operations = [(f"{method} {path}", one) for path, methods in document["paths"].items() for method, one in methods.items()]

    assert [name for name, one in operations if not one.get("description") or not one.get("tags")] == []
    # The key of a feed is in its path, and a probe has none.
    open_paths = ("get /health", "get /api/v1/health", "get /api/v1/feeds/{token}/")
    assert [name for name, one in operations if not name.startswith(open_paths) and not one.get("security")] == []
    assert {path.removeprefix("/api/v1") for path in document["paths"]} >= {
        "/health", "/health/ready", "/status", "/watches", "/watches/{watch_id}", "/watches/import", "/watches/export", "/price/check",
        "/price/check-all", "/prices/{asin}/history", "/prices/{asin}/stats", "/alerts", "/channels", "/users/me", "/api-keys", "/tokens",
        "/rate-limit", "/products/search", "/deals/search", "/deals/es-search", "/deals/aggregations", "/deals/suggest", "/deals/index",
        "/deals/{deal_id}", "/deals/filters", "/deals/filters/{filter_id}", "/deals/preview", "/reindex",
        "/feeds/{token}/deals/{filter_id}.atom", "/feeds/{token}/deals/{filter_id}.csv",
        "/reports", "/reports/{report_id}", "/reports/{report_id}.html", "/products", "/products/{asin}", "/opportunities",
        "/opportunities/{opportunity_id}/explain", "/stats", "/opportunity-rules", "/opportunity-rules/{rule_id}",
        "/prices/{asin}/forecast", "/products/ranking",
        "/users", "/users/{user_id}", "/users/{user_id}/api-keys", "/users/{user_id}/api-keys/{key_id}", "/audit",
    }  # fmt: skip


def test_the_paths_of_old_are_there_as_they_are_under_the_version(settings: Settings) -> None:
    paths = create_app(settings).openapi()["paths"]

    for path in ("/health", "/products", "/products/{asin}", "/opportunities", "/opportunities/{opportunity_id}/explain", "/stats"):
        old, new = ({**paths[root + path]["get"], "operationId": ""} for root in ("", "/api/v1"))
        assert old == new


def test_the_document_is_served(make_api: MakeApi, client_of: ClientOf, settings: Settings) -> None:
    served = client_of(make_api(), None).get("/openapi.json")

    assert served.json() == json.loads(json.dumps(create_app(settings).openapi()))
