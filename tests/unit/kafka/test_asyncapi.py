from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from keeper.kafka.asyncapi import build_document, write_yaml
from keeper.kafka.consumer import ReceivedMessage
from keeper.kafka.dead_letters import _record
from keeper.kafka.schema import TOPICS_WITH_SCHEMA
from keeper.kafka.topics import DEAD_LETTERS, Topic

FILE = Path(__file__).parents[3] / "docs" / "asyncapi.yaml"


@pytest.fixture
def document() -> dict[str, Any]:
    """What the file should hold."""
    return build_document(version=version("keeper"))


def test_file_is_up_to_date(document: dict[str, Any]) -> None:
    assert FILE.read_text() == write_yaml(document), f"write it anew: {FILE}"


def test_file_says_in_yaml_what_the_document_says(document: dict[str, Any]) -> None:
    assert yaml.safe_load(FILE.read_text()) == document


def test_document_has_the_form_of_asyncapi_3(document: dict[str, Any]) -> None:
    assert document["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= document["info"].keys()
    for channel in document["channels"].values():
        assert channel["address"]
        assert channel["messages"]
    for operation in document["operations"].values():
        assert operation["action"] in ("send", "receive")
        assert operation["channel"]["$ref"].startswith("#/channels/")


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in _references(document):
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
        assert place


def test_every_topic_with_a_schema_is_a_channel(document: dict[str, Any]) -> None:
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert addresses - set(DEAD_LETTERS.values()) == {topic.value for topic in TOPICS_WITH_SCHEMA}


@pytest.mark.parametrize("topic", DEAD_LETTERS)
def test_dead_letters_are_a_channel_with_their_reason_place_and_original_bytes(document: dict[str, Any], topic: Topic) -> None:
    (name, channel) = next((name, one) for name, one in document["channels"].items() if one["address"] == DEAD_LETTERS[topic])
    (message,) = (document["components"]["messages"][one] for one in channel["messages"])
    assert message["contentType"] == "application/octet-stream"
    received = ReceivedMessage(topic.value, 0, 17, b"B0TEST0001", b"{nonsense", (), 1_771_590_600_000)
    headers = dict(_record(DEAD_LETTERS[topic], received, "not JSON").headers)
    assert set(headers) <= set(message["headers"]["properties"])
    assert {"keeper-reason", "keeper-offset"} <= set(headers)
    Draft202012Validator(message["headers"]).validate(headers)
    used = {operation["action"] for operation in document["operations"].values() if operation["channel"]["$ref"] == f"#/channels/{name}"}
    assert used == {"send", "receive"}


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        found = [value["$ref"]] if "$ref" in value else []
        return found + [one for inner in value.values() for one in _references(inner)]
    return [one for inner in value for one in _references(inner)] if isinstance(value, list) else []
