"""The real Prometheus with Keeper's configuration, on the real exporter and API: every question of rules and panels is answered."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from sqlalchemy import Engine, text

from api.app import create_app
from deployments.stack import free_port
from keeper.accounts import add_user
from keeper.exporter import export
from keeper.notify.channels import make_key
from keeper.postgres.embedded import EmbeddedServer
from keeper.settings import Settings
from tests.integration.makers import add_watch
from tests.services import prometheus as prometheus_service
from tests.services.api import serve
from tests.services.prometheus import Prometheus, promtool
from tests.services.waiting import wait_until

DEPLOYMENTS = Path(__file__).parents[3] / "deployments"
CONFIG, RULES = DEPLOYMENTS / "prometheus" / "prometheus.yml", DEPLOYMENTS / "prometheus" / "rules.yml"
ALERTS = Path(__file__).parents[2] / "unit" / "deployments" / "test_alerts.yml"
# Made by Prometheus itself for every target.
ITS_OWN = {"up"}


def _alerts() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from ((rule["alert"], rule["expr"]) for rule in group["rules"])


def _panels() -> Iterator[tuple[str, str]]:
    for file in sorted((DEPLOYMENTS / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            yield from ((f"{file.stem}: {panel['title']} {target['refId']}", target["expr"]) for target in panel["targets"])


def _names(expression: str) -> set[str]:
    """The metrics a question is about: words that are neither functions, nor labels, nor what PromQL says itself."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(by|on|without|ignoring)\s*\([^)]*\)', " ", expression)
    return {word for word in re.findall(r"\b[a-zA-Z_]\w*\b(?!\s*\()", bare) if word not in {"and", "or", "unless"}}


@pytest.fixture
def settings(postgres: EmbeddedServer, database: str, tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "data": tmp_path / "data",
            "database_url": postgres.libpq_dsn(database),
            "channels": {"keys": make_key()},
            "metrics": {"kept_seconds": 0, "api_port": free_port()},
        }
    )


@pytest.fixture
def watching(settings: Settings, engine: Engine, prometheus: Path, tmp_path: Path) -> Iterator[tuple[Prometheus, str]]:
    """Prometheus, which has scraped both, and the address of the exporter."""
    now = datetime.now(UTC)
    with engine.begin() as connection:
        user_id = add_user(connection, "anna").user_id
        connection.execute(
            text(
                "INSERT INTO keepa_calls (id, called_at, operation, asin_count, tokens_consumed, response_time_ms, success) "
                "VALUES (gen_random_uuid(), :now, 'query', 4, 4, 120, true)"
            ),
            {"now": now - timedelta(minutes=1)},
        )
    add_watch(engine, user_id, now=now - timedelta(days=1))
    with ExitStack() as stack:
        port = stack.enter_context(export(settings, None, host="127.0.0.1", port=0))
        api = stack.enter_context(serve(create_app(settings)))
        assert httpx.get(f"{api}/health").status_code == 200
        config = _configured(tmp_path, keeper=f"127.0.0.1:{port}", api=f"127.0.0.1:{settings.metrics.api_port}")
        running = stack.enter_context(prometheus_service.run(prometheus, config, tmp_path))
        wait_until(lambda: running.is_scraping("keeper", "api"), "Prometheus does not scrape")
        yield running, f"http://127.0.0.1:{port}/metrics"


def _configured(folder: Path, **targets: str) -> Path:
    """Keeper's configuration with other addresses, read every second."""
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES)]
    for job in config["scrape_configs"]:
        if job["job_name"] in targets:
            job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    made = folder / "prometheus.yml"
    made.write_text(yaml.safe_dump(config))
    return made


def test_prometheus_answers_every_question_of_rules_and_panels(watching: tuple[Prometheus, str], settings: Settings) -> None:
    server, url = watching
    exposed = httpx.get(url).text + httpx.get(f"http://127.0.0.1:{settings.metrics.api_port}/metrics").text
    known = {name for line in exposed.splitlines() if line.startswith("# TYPE ") for name in _series(*line.split()[2:4])} | ITS_OWN
    questions = dict([*_alerts(), *_panels()])

    assert {name: unknown for name, expression in questions.items() if (unknown := _names(expression) - known)} == {}
    assert {name: found for name, ask in questions.items() if (found := server.ask("query", query=ask)["resultType"]) != "vector"} == {}
    assert [rule["lastError"] for group in server.ask("rules")["groups"] for rule in group["rules"] if rule.get("lastError")] == []
    assert promtool("check", "metrics", given=exposed).stderr == ""
    overdue = server.ask("query", query='keeper_watches_overdue{interval="6h"}')["result"]
    assert [one["value"][1] for one in overdue] == ["1"]
    spent = server.ask("query", query='keeper_tokens_spent_last_hour{operation="query"}')["result"]
    assert [one["value"][1] for one in spent] == ["4"]
    times = server.ask("query", query='api_request_duration_seconds_count{route="/health"}')["result"]
    assert [(one["metric"]["status"], one["value"][1]) for one in times] == [("2xx", "1")]


def _series(name: str, kind: str) -> list[str]:
    return [f"{name}_bucket", f"{name}_count", f"{name}_sum"] if kind == "histogram" else [name]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("check", "config", str(CONFIG)), id="configuration"),
        pytest.param(("check", "rules", "--lint=all", "--lint-fatal", str(RULES)), id="rules"),
        pytest.param(("test", "rules", str(ALERTS)), id="when alerts come"),
    ],
)
def test_promtool_finds_nothing_wrong(prometheus: Path, words: tuple[str, ...]) -> None:
    checked = promtool(*words)
    assert checked.returncode == 0, checked.stdout + checked.stderr
