"""The dashboards in few words, and the saved objects made of them. `python -m deployments.kibana.objects` writes `keeper.ndjson` anew.

The form is that of Kibana 8.9's exports, which Kibana 8.9 to 9 import; tests/unit/deployments/kibana_export.schema.json names the sources.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).parent / "keeper.ndjson"
# What the exports of Kibana 8.9 say; newer ones raise each object to their own form as they import it.
_CORE, _DATA_VIEW, _LENS, _DASHBOARD = "8.8.0", "8.0.0", "8.9.0", "8.9.0"
_LAYER: Final = "layer"
_EVERY_DOCUMENT: Final = "___records___"

DEALS, PRICES, METRICS, PRODUCTS = "keeper-deals", "keeper-prices", "keeper-metrics", "products"
# Each data view, and the field that is its time.
DATA_VIEWS: Final = {DEALS: "timestamp", PRICES: "timestamp", METRICS: "timestamp", PRODUCTS: "last_updated"}


@dataclass(frozen=True, slots=True)
class Measure:
    """A number.

    Attributes:
        how: count, sum, average, median, min, max, unique_count or percentile, which is the 95th.
        where: KQL; only these documents are looked at.
    """

    label: str
    how: str = "count"
    of: str = _EVERY_DOCUMENT
    where: str = ""


@dataclass(frozen=True, slots=True)
class Time:
    """Along the data view's time; every: auto, 1h, 1d."""

    every: str = "auto"


@dataclass(frozen=True, slots=True)
class Values:
    """The most frequent values of a field, by the first measure."""

    of: str
    label: str
    most: int = 10
    kind: str = "string"


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture.

    Attributes:
        drawn: area, line, bar, bar_stacked, pie, table or figure.
        along: what the measures are shown along; None for a figure.
        split: into one series each.
        size: columns of 48, and rows.
    """

    title: str
    view: str
    drawn: str
    measures: tuple[Measure, ...]
    along: Time | Values | None = None
    split: Values | None = None
    query: str = ""
    size: tuple[int, int] = (24, 12)


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One page."""

    title: str
    text: str
    panels: tuple[Panel, ...] = field(default=())


def _figure(title: str, view: str, measure: Measure, query: str = "") -> Panel:
    return Panel(title, view, "figure", (measure,), query=query, size=(12, 6))


DASHBOARDS: Final = (
    Dashboard(
        "Deal Overview",
        "Deals as they were collected: how many run, how good they are, where they come from.",
        (
            _figure("Running deals", DEALS, Measure("Deals"), "NOT ended_at: *"),
            _figure("At their year's low", DEALS, Measure("Deals"), "is_year_low: true AND NOT ended_at: *"),
            _figure("Median score", DEALS, Measure("Score", "median", "deal_score"), "NOT ended_at: *"),
            _figure("Products", DEALS, Measure("Products", "unique_count", "asin")),
            Panel("Deals by store", DEALS, "bar_stacked", (Measure("Deals"),), Time("1d"), Values("domain", "Store")),
            Panel(
                "Discount",
                DEALS,
                "line",
                (Measure("Average, %", "average", "discount_percent"), Measure("Largest, %", "max", "discount_percent")),
                Time("1d"),
            ),
            Panel("By product group", DEALS, "pie", (Measure("Deals"),), Values("product_group", "Group"), size=(16, 12)),
            Panel("By source", DEALS, "pie", (Measure("Deals"),), Values("source", "Source"), size=(16, 12)),
            Panel("By category", DEALS, "bar", (Measure("Deals"),), Values("category", "Category"), size=(16, 12)),
            Panel(
                "The best that run",
                DEALS,
                "table",
                (
                    Measure("Score", "max", "deal_score"),
                    Measure("Off, %", "max", "discount_percent"),
                    Measure("Price", "min", "current_price"),
                    Measure("Rating", "max", "rating"),
                ),
                Values("product_title.keyword", "Product", 25),
                query="NOT ended_at: * AND NOT is_glitch: true",
                size=(48, 16),
            ),
        ),
    ),
    Dashboard(
        "Price Monitor",
        "Changes of watched prices: how many, which, and the largest falls.",
        (
            _figure("Changes", PRICES, Measure("Changes")),
            _figure("Falls", PRICES, Measure("Changes"), "price_change > 0"),
            _figure("Products", PRICES, Measure("Products", "unique_count", "asin")),
            _figure("Largest fall", PRICES, Measure("%", "max", "price_change")),
            Panel("Changes an hour", PRICES, "bar_stacked", (Measure("Changes"),), Time("1h"), Values("domain", "Store")),
            Panel("By price type", PRICES, "pie", (Measure("Changes"),), Values("price_type", "Price type")),
            Panel(
                "Prices",
                PRICES,
                "line",
                (Measure("Price", "average", "current_price"),),
                Time(),
                Values("product_title.keyword", "Product", 8),
                size=(48, 14),
            ),
            Panel(
                "Largest falls",
                PRICES,
                "table",
                (
                    Measure("Fall, %", "max", "price_change"),
                    Measure("Price", "min", "current_price"),
                    Measure("Before", "max", "previous_price"),
                    Measure("Target", "max", "target_price"),
                ),
                Values("product_title.keyword", "Product", 25),
                query="price_change > 0",
                size=(48, 16),
            ),
        ),
    ),
    Dashboard(
        "Pipeline Monitor",
        "What arrives in each index, and what Keepa answered. An index without new documents is a pipeline that stands still.",
        (
            _figure("Requests to Keepa", METRICS, Measure("Requests")),
            _figure("Of these failed", METRICS, Measure("Requests"), "success: false"),
            _figure("Active products", PRODUCTS, Measure("Products"), "is_active: true"),
            _figure("Open opportunities", PRODUCTS, Measure("Products"), "opportunity_is_active: true"),
            Panel("Price changes indexed", PRICES, "bar", (Measure("Documents"),), Time("1h")),
            Panel("Deals seen", DEALS, "bar", (Measure("Documents"),), Time("1h")),
            Panel("Products updated", PRODUCTS, "bar", (Measure("Documents"),), Time("1h")),
            Panel(
                "Requests by outcome",
                METRICS,
                "bar_stacked",
                (Measure("Requests"),),
                Time("1h"),
                Values("success", "Success", 2, "boolean"),
            ),
            Panel(
                "Products asked for",
                METRICS,
                "bar_stacked",
                (Measure("Products", "sum", "asin_count"),),
                Time("1h"),
                Values("domain", "Store"),
            ),
            Panel("Brands of products", PRODUCTS, "bar", (Measure("Products"),), Values("brand.keyword", "Brand")),
            Panel(
                "Errors",
                METRICS,
                "table",
                (Measure("Requests"),),
                Values("error.keyword", "Error", 20),
                query="success: false",
                size=(48, 12),
            ),
        ),
    ),
    Dashboard(
        "Token Budget",
        "What Keepa's tokens are spent on, and how many are left.",
        (
            _figure("Spent", METRICS, Measure("Tokens", "sum", "tokens_consumed")),
            _figure("Fewest left", METRICS, Measure("Tokens", "min", "tokens_left")),
            _figure("Refill a minute", METRICS, Measure("Tokens", "max", "refill_rate")),
            _figure("Products asked for", METRICS, Measure("Products", "sum", "asin_count")),
            Panel("Tokens left", METRICS, "area", (Measure("Tokens, at least", "min", "tokens_left"),), Time()),
            Panel("Consumed per hour", METRICS, "bar", (Measure("Tokens", "sum", "tokens_consumed"),), Time("1h")),
            Panel("Cost by operation", METRICS, "pie", (Measure("Tokens", "sum", "tokens_consumed"),), Values("operation", "Operation")),
            Panel(
                "Response time",
                METRICS,
                "line",
                (Measure("Median, ms", "median", "response_time_ms"), Measure("95 % within, ms", "percentile", "response_time_ms")),
                Time(),
            ),
        ),
    ),
)


def make_objects() -> list[dict[str, Any]]:
    """Data views first, then each dashboard after its panels, so that what is referred to is there."""
    objects = [_data_view(name, time_field) for name, time_field in DATA_VIEWS.items()]
    for dashboard in DASHBOARDS:
        objects += [_lens(dashboard, panel) for panel in dashboard.panels]
        objects.append(_dashboard(dashboard))
    return objects


def encode(objects: Sequence[dict[str, Any]]) -> str:
    """One object a line."""
    return "".join(json.dumps(one, ensure_ascii=False, sort_keys=True) + "\n" for one in objects)


def _slug(*words: str) -> str:
    return "-".join(["keeper", *("".join(sign if sign.isalnum() else "-" for sign in word.lower()) for word in words)])


def _object(kind: str, version: str, name: str, attributes: dict[str, Any], references: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "type": kind,
        "id": name,
        "attributes": attributes,
        "references": references,
        "coreMigrationVersion": _CORE,
        "typeMigrationVersion": version,
        "managed": False,
    }


def _data_view(name: str, time_field: str) -> dict[str, Any]:
    attributes = {
        "title": name,
        "name": name,
        "timeFieldName": time_field,
        "fields": "[]",
        "fieldAttrs": "{}",
        "fieldFormatMap": "{}",
        "runtimeFieldMap": "{}",
        "sourceFilters": "[]",
    }
    return _object("index-pattern", _DATA_VIEW, name, attributes, [])


def _lens(dashboard: Dashboard, panel: Panel) -> dict[str, Any]:
    columns: dict[str, dict[str, Any]] = {}
    if panel.split is not None:
        columns["split"] = _values(panel.split)
    if isinstance(panel.along, Time):
        columns["along"] = _time(panel)
    elif panel.along is not None:
        columns["along"] = _values(panel.along)
    measures = [f"measure{number}" for number in range(len(panel.measures))]
    columns |= {name: _measure(one) for name, one in zip(measures, panel.measures, strict=True)}
    layer = {"columns": columns, "columnOrder": list(columns), "incompleteColumns": {}, "sampling": 1, "ignoreGlobalFilters": False}
    kind, visualization = _visualization(panel, measures)
    attributes = {
        "title": panel.title,
        "description": "",
        "visualizationType": kind,
        "state": {
            "visualization": visualization,
            "query": {"query": panel.query, "language": "kuery"},
            "filters": [],
            "datasourceStates": {"formBased": {"layers": {_LAYER: layer}}},
            "internalReferences": [],
            "adHocDataViews": {},
        },
    }
    references = [{"type": "index-pattern", "id": panel.view, "name": f"indexpattern-datasource-layer-{_LAYER}"}]
    return _object("lens", _LENS, _slug(dashboard.title, panel.title), attributes, references)


def _visualization(panel: Panel, measures: list[str]) -> tuple[str, dict[str, Any]]:
    of_layer = {"layerId": _LAYER, "layerType": "data"}
    match panel.drawn:
        case "figure":
            return "lnsMetric", of_layer | {"metricAccessor": measures[0]}
        case "table":
            return "lnsDatatable", of_layer | {"columns": [{"columnId": name, "isTransposed": False} for name in ("along", *measures)]}
        case "pie":
            slices = {"primaryGroups": ["along"], "metrics": measures}
            shown = {"numberDisplay": "percent", "categoryDisplay": "default", "legendDisplay": "default", "nestedLegend": False}
            return "lnsPie", {"shape": "pie", "layers": [of_layer | slices | shown]}
        case drawn:
            series: dict[str, Any] = of_layer | {"seriesType": drawn, "xAccessor": "along", "accessors": measures}
            if panel.split is not None:
                series["splitAccessor"] = "split"
            visible = {"x": True, "yLeft": True, "yRight": True}
            return "lnsXY", {
                "preferredSeriesType": drawn,
                "layers": [series],
                "legend": {"isVisible": True, "position": "right"},
                "valueLabels": "hide",
                "fittingFunction": "None" if drawn.startswith("bar") else "Linear",
                "axisTitlesVisibilitySettings": {"x": False, "yLeft": True, "yRight": True},
                "tickLabelsVisibilitySettings": visible,
                "gridlinesVisibilitySettings": visible,
                "labelsOrientation": {"x": 0, "yLeft": 0, "yRight": 0},
            }


def _time(panel: Panel) -> dict[str, Any]:
    assert isinstance(panel.along, Time)  # noqa: S101  the caller has looked
    return {
        "label": DATA_VIEWS[panel.view],
        "dataType": "date",
        "operationType": "date_histogram",
        "sourceField": DATA_VIEWS[panel.view],
        "isBucketed": True,
        "scale": "interval",
        "params": {"interval": panel.along.every, "includeEmptyRows": True, "dropPartials": False},
    }


def _values(one: Values) -> dict[str, Any]:
    return {
        "label": one.label,
        "customLabel": True,
        "dataType": one.kind,
        "operationType": "terms",
        "sourceField": one.of,
        "isBucketed": True,
        "scale": "ordinal",
        "params": {
            "size": one.most,
            "orderBy": {"type": "column", "columnId": "measure0"},
            "orderDirection": "desc",
            "otherBucket": False,
            "missingBucket": False,
            "parentFormat": {"id": "terms"},
        },
    }


def _measure(one: Measure) -> dict[str, Any]:
    column = {
        "label": one.label,
        "customLabel": True,
        "dataType": "number",
        "operationType": one.how,
        "sourceField": one.of,
        "isBucketed": False,
        "scale": "ratio",
        "params": {"percentile": 95} if one.how == "percentile" else {"emptyAsNull": True},
    }
    return column | ({"filter": {"query": one.where, "language": "kuery"}} if one.where else {})


def _dashboard(dashboard: Dashboard) -> dict[str, Any]:
    panels, references = [], []
    column = row = tallest = 0
    for panel in dashboard.panels:
        width, height = panel.size
        if column + width > 48:
            column, row, tallest = 0, row + tallest, 0
        name = _slug(dashboard.title, panel.title)
        panels.append(
            {
                "type": "lens",
                "panelIndex": name,
                "gridData": {"x": column, "y": row, "w": width, "h": height, "i": name},
                "embeddableConfig": {"enhancements": {}},
                "panelRefName": f"panel_{name}",
            }
        )
        references.append({"type": "lens", "id": name, "name": f"{name}:panel_{name}"})
        column, tallest = column + width, max(tallest, height)
    attributes = {
        "title": dashboard.title,
        "description": dashboard.text,
        "panelsJSON": _json(panels),
        "optionsJSON": _json(
            {"useMargins": True, "syncColors": False, "syncCursor": True, "syncTooltips": False, "hidePanelTitles": False}
        ),
        "kibanaSavedObjectMeta": {"searchSourceJSON": _json({"query": {"query": "", "language": "kuery"}, "filter": []})},
        "timeRestore": True,
        "timeFrom": "now-7d",
        "timeTo": "now",
        "refreshInterval": {"pause": False, "value": 60000},
        "version": 1,
    }
    return _object("dashboard", _DASHBOARD, _slug(dashboard.title), attributes, references)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    FILE.write_text(encode(make_objects()), encoding="utf-8")
