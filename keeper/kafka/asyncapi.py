"""The AsyncAPI 3.0 document of Keeper's topics, made from their schemas.

Written as YAML by hand, because that needs no more than this: two-space mappings, and scalars as JSON, which YAML contains.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from keeper.kafka import dead_letters
from keeper.kafka.schema import TOPICS_WITH_SCHEMA, load_schema
from keeper.kafka.topics import DEAD_LETTERS, Group, Topic

_READERS = {Topic.PRICE_UPDATES: Group.PRICES, Topic.DEAL_UPDATES: Group.DEALS, Topic.RAW_PRODUCTS: Group.ENRICHMENT}
_HEADERS = {
    "type": "object",
    "properties": {
        "event_id": {"type": "string", "description": "As in the value"},
        "kind": {"type": "string", "description": "Keeper's own name of the event's kind"},
        "sequence": {"type": "string", "description": "Rises with the order of a key's events; a late repeat has a lower one"},
        "request_id": {"type": "string", "description": "Of the request to the API that it arose from, where there was one"},
        "keeper-retry-of": {"type": "string", "description": "Dead letter (topic/partition/offset) that was sent again"},
    },
}
_NUMBER = {"type": "string", "pattern": "^[0-9]+$"}
_DEAD_HEADERS = {
    "type": "object",
    "required": [dead_letters.REASON],
    "properties": {
        dead_letters.REASON: {"type": "string", "description": "Why it could not be read"},
        dead_letters.TOPIC: {"type": "string", "description": "Topic it was in, with the prefix"},
        dead_letters.PARTITION: _NUMBER | {"description": "Partition it was in"},
        dead_letters.OFFSET: _NUMBER | {"description": "Its offset there"},
        dead_letters.TIMESTAMP: _NUMBER | {"description": "When it was produced, milliseconds since 1970"},
        dead_letters.CUT_FROM: _NUMBER | {"description": "Size of the original in bytes, where only its beginning was kept"},
    },
    "additionalProperties": {"description": "The original's own headers"},
}
_KEY = {"type": "string", "description": "The ASIN, so that a product keeps its order"}


def build_document(*, version: str) -> dict[str, Any]:
    """The document as plain values.

    Args:
        version: of Keeper.
    """
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for topic in TOPICS_WITH_SCHEMA:
        schema = {name: value for name, value in load_schema(topic).items() if name != "$schema"}
        name = schema["title"]
        schemas[name] = schema
        messages[name] = {
            "name": name,
            "summary": schema["description"],
            "contentType": "application/json",
            "headers": _HEADERS,
            "payload": {"$ref": f"#/components/schemas/{name}"},
            "bindings": {"kafka": {"key": _KEY}},
        }
        channel = _identifier(topic)
        channels[channel] = {
            "address": topic.value,
            "description": _description(topic),
            "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        }
        operations[f"send{name}"] = _operation("send", channel, name)
        if topic in _READERS:
            group = {"type": "string", "const": _READERS[topic].value}
            operations[f"receive{name}"] = _operation("receive", channel, name) | {"bindings": {"kafka": {"groupId": group}}}
        if topic in DEAD_LETTERS:
            dead, name = _identifier(DEAD_LETTERS[topic]), f"Dead{name}"
            messages[name] = _dead_letter(name, topic)
            channels[dead] = {
                "address": DEAD_LETTERS[topic].value,
                "description": f"`keeper dlq list` shows it, `keeper dlq retry {topic}` sends it to {topic} again.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"}},
            }
            group = {"type": "string", "const": Group.DEAD_LETTERS.value}
            operations[f"send{name}"] = _operation("send", dead, name)
            operations[f"receive{name}"] = _operation("receive", dead, name) | {"bindings": {"kafka": {"groupId": group}}}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Keeper's events",
            "version": version,
            "description": "What Keeper sends to Kafka and reads there. A configured prefix goes before each topic and group. Fields are "
            "added, never removed or retyped. Each message comes at least once, in order per key; the same event_id is the same event.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }


def write_yaml(document: Mapping[str, Any]) -> str:
    """A document as YAML."""
    return "\n".join(_lines(document, "")) + "\n"


def _operation(action: str, channel: str, message: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"}],
    }


def _dead_letter(name: str, topic: Topic) -> dict[str, Any]:
    return {
        "name": name,
        "summary": f"What was in {topic} and could not be read: the original bytes.",
        "contentType": "application/octet-stream",
        "headers": _DEAD_HEADERS,
        "payload": {"description": "Value of the original, byte for byte; null where it had none"},
        "bindings": {"kafka": {"key": {"description": "Key of the original, byte for byte"}}},
    }


def _description(topic: Topic) -> str:
    dead = DEAD_LETTERS.get(topic)
    return f"What cannot be read goes to {dead} with the reason." if dead else "Keeper itself does not read it."


def _identifier(topic: Topic) -> str:
    return topic.value.replace(".", "-").replace("_", "-")


def _lines(value: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield f"{indent}{_scalar(name)}:"
            yield from _lines(inner, indent + "  ")
        elif isinstance(inner, list) and inner and isinstance(inner[0], Mapping):
            yield f"{indent}{_scalar(name)}:"
            for one in inner:
                first, *rest = _lines(one, "")
                yield f"{indent}  - {first}"
                yield from (f"{indent}    {line}" for line in rest)
        else:
            yield f"{indent}{_scalar(name)}: {json.dumps(inner, ensure_ascii=False)}"


def _scalar(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and not name.isdigit() else json.dumps(name)
