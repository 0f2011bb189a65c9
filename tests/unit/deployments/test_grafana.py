"""What Grafana and Prometheus are given fits together: data source, ports, words. Whether questions are answered, Prometheus says."""

import json
from pathlib import Path
from typing import Any

import yaml

from deployments.stack import ROOT
from keeper.settings import MetricsSettings

GRAFANA = ROOT / "deployments" / "grafana"


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_every_panel_asks_the_data_source_that_is_provisioned() -> None:
    [source] = _read(GRAFANA / "provisioning/datasources/keeper.yaml")["datasources"]
    dashboard = json.loads((GRAFANA / "dashboards/keeper.json").read_text())
    asked = [one["datasource"] for panel in dashboard["panels"] for one in (panel, *panel["targets"])]
    assert {(one["type"], one["uid"]) for one in asked} == {(source["type"], source["uid"])}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert [panel["title"] for panel in dashboard["panels"] if not panel["description"]] == []


def test_prometheus_scrapes_the_port_that_keeper_metrics_has_unless_told_otherwise() -> None:
    jobs = {one["job_name"]: one["static_configs"] for one in _read(ROOT / "deployments/prometheus/prometheus.yml")["scrape_configs"]}
    assert jobs["keeper"] == [{"targets": [f"metrics:{MetricsSettings.model_validate({}).port}"]}]


def test_every_alert_says_what_is_and_what_to_do() -> None:
    rules = [rule for group in _read(ROOT / "deployments/prometheus/rules.yml")["groups"] for rule in group["rules"]]
    assert [rule["alert"] for rule in rules if not (rule["annotations"]["summary"] and rule["annotations"]["description"])] == []
    assert {rule["labels"]["severity"] for rule in rules} == {"critical", "warning"}
