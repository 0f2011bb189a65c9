"""Kibana's saved objects: in the form of real exports, each reference and each field there, and every line in step with its description.

Kibana itself cannot be had here; what is held to is what the exports named in the schema have.
"""

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from deployments.kibana.importing import read_objects
from deployments.kibana.objects import DATA_VIEWS, FILE, METRICS, encode, make_objects
from keeper.search.mapping import Alias

SCHEMA: dict[str, Any] = json.loads((Path(__file__).parent / "kibana_export.schema.json").read_text())
OBJECTS: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
LENSES = [one for one in OBJECTS if one["type"] == "lens"]
DASHBOARDS = {one["attributes"]["title"]: one for one in OBJECTS if one["type"] == "dashboard"}

NUMBERS = frozenset({"long", "integer", "double"})
# What Elasticsearch can put together: a text is only searched.
TYPES = {
    "date_histogram": frozenset({"date"}),
    "terms": frozenset({"keyword", "boolean"}),
    "unique_count": frozenset({"keyword"}),
    **dict.fromkeys(("sum", "average", "median", "min", "max", "percentile"), NUMBERS),
}
_OF_QUERY = re.compile(r"([\w.]+)\s*[:<>]")


def _valid(value: Any, definition: str) -> None:
    Draft202012Validator({"$ref": f"#/$defs/{definition}", "$defs": SCHEMA["$defs"]}).validate(value)


def _fields(view: str) -> dict[str, str]:
    """Name and type of everything the index maps."""
    template = json.loads((files("keeper.search") / "templates" / f"{view}.json").read_text(encoding="utf-8"))

    def walk(properties: dict[str, Any], before: str) -> Iterator[tuple[str, str]]:
        for name, field in properties.items():
            yield before + name, field.get("type", "object")
            yield from walk(field.get("fields", {}) | field.get("properties", {}), f"{before}{name}.")

    return dict(walk(template["template"]["mappings"]["properties"], ""))


def _view(lens: dict[str, Any]) -> str:
    [reference] = lens["references"]
    return str(reference["id"])


def _columns(lens: dict[str, Any]) -> dict[str, dict[str, Any]]:
    [layer] = lens["attributes"]["state"]["datasourceStates"]["formBased"]["layers"].values()
    columns: dict[str, dict[str, Any]] = layer["columns"]
    return columns


def test_the_file_is_what_its_description_makes() -> None:
    assert FILE.read_text(encoding="utf-8") == encode(make_objects()), "run python -m deployments.kibana.objects"


@pytest.mark.parametrize("saved", OBJECTS, ids=lambda one: one["id"])
def test_each_object_has_the_form_of_real_exports(saved: dict[str, Any]) -> None:
    Draft202012Validator(SCHEMA).validate(saved)
    if saved["type"] == "dashboard":
        attributes = saved["attributes"]
        _valid(json.loads(attributes["panelsJSON"]), "panels")
        _valid(json.loads(attributes["optionsJSON"]), "options")
        _valid(json.loads(attributes["kibanaSavedObjectMeta"]["searchSourceJSON"]), "searchSource")


def test_every_reference_resolves_and_no_id_is_used_twice() -> None:
    known = [(one["type"], one["id"]) for one in OBJECTS]
    assert len(set(known)) == len(known)
    assert [one for saved in OBJECTS for one in saved["references"] if (one["type"], one["id"]) not in known] == []
    for dashboard in DASHBOARDS.values():
        panels = json.loads(dashboard["attributes"]["panelsJSON"])
        assert {f"{one['panelIndex']}:{one['panelRefName']}" for one in panels} == {one["name"] for one in dashboard["references"]}
    for lens in LENSES:
        layers = lens["attributes"]["state"]["datasourceStates"]["formBased"]["layers"]
        assert {f"indexpattern-datasource-layer-{name}" for name in layers} == {one["name"] for one in lens["references"]}


def test_each_data_view_is_one_of_our_indices_with_its_time() -> None:
    views = {one["attributes"]["title"]: one["attributes"]["timeFieldName"] for one in OBJECTS if one["type"] == "index-pattern"}
    assert views == DATA_VIEWS
    assert views.keys() == {alias.value for alias in Alias}
    assert {name: _fields(name).get(time) for name, time in views.items()} == dict.fromkeys(views, "date")


@pytest.mark.parametrize("lens", LENSES, ids=lambda one: one["id"])
def test_every_field_is_mapped_and_fit_for_what_is_made_of_it(lens: dict[str, Any]) -> None:
    fields = _fields(_view(lens))
    columns = _columns(lens)
    unfit = {
        name: (column["operationType"], column["sourceField"], fields.get(column["sourceField"]))
        for name, column in columns.items()
        if column["sourceField"] != "___records___" and fields.get(column["sourceField"]) not in TYPES[column["operationType"]]
    }
    queries = [
        lens["attributes"]["state"]["query"]["query"],
        *(column.get("filter", {"query": ""})["query"] for column in columns.values()),
    ]
    assert unfit == {}
    assert [name for query in queries for name in _OF_QUERY.findall(query) if name not in fields] == []


@pytest.mark.parametrize("lens", LENSES, ids=lambda one: one["id"])
def test_every_picture_draws_columns_that_are_there(lens: dict[str, Any]) -> None:
    columns = _columns(lens)
    [layer] = lens["attributes"]["state"]["datasourceStates"]["formBased"]["layers"].values()
    drawn = re.findall(r'"(split|along|measure\d+)"', json.dumps(lens["attributes"]["state"]["visualization"]))
    assert set(drawn) == set(columns) == set(layer["columnOrder"])
    # Kibana nests by this order, and wants what is put together last.
    assert [columns[name]["isBucketed"] for name in layer["columnOrder"]] == sorted(
        (one["isBucketed"] for one in columns.values()), reverse=True
    )


def test_there_are_the_four_dashboards_and_the_token_budget_is_whole() -> None:
    assert DASHBOARDS.keys() == {"Deal Overview", "Price Monitor", "Pipeline Monitor", "Token Budget"}
    shown = {}
    for reference in DASHBOARDS["Token Budget"]["references"]:
        [lens] = [one for one in LENSES if one["id"] == reference["id"]]
        state = lens["attributes"]["state"]
        drawn = state["visualization"].get("preferredSeriesType") or state["visualization"].get("shape")
        columns = _columns(lens)
        every = columns.get("along", {}).get("params", {}).get("interval")
        shown[lens["attributes"]["title"]] = (_view(lens), drawn, columns["measure0"]["sourceField"], every)
    assert {
        "Tokens left": (METRICS, "area", "tokens_left", "auto"),
        "Consumed per hour": (METRICS, "bar", "tokens_consumed", "1h"),
        "Cost by operation": (METRICS, "pie", "tokens_consumed", None),
        "Response time": (METRICS, "line", "response_time_ms", "auto"),
    }.items() <= shown.items()


def test_no_two_panels_lie_on_each_other() -> None:
    for dashboard in DASHBOARDS.values():
        taken = [
            (x, y)
            for grid in (one["gridData"] for one in json.loads(dashboard["attributes"]["panelsJSON"]))
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        ]
        assert len(set(taken)) == len(taken)
        assert max(x for x, _ in taken) < 48


def test_data_views_follow_the_prefix_of_the_indices() -> None:
    titles = [one["attributes"]["title"] for one in map(json.loads, read_objects("shop-").splitlines()) if one["type"] == "index-pattern"]
    assert titles == [f"shop-{name}" for name in DATA_VIEWS]
