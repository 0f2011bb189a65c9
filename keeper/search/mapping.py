"""The index templates, which are the files in `templates/`.

Every mapping says `dynamic: false`: a field it does not know is kept in the document, found by nobody, and rejects nothing, so that an
older Keeper's index takes a newer Keeper's documents. A known field of a wrong type is rejected: that is an error to be seen.
A change of a mapping raises its `mapping_version`, and `keeper reindex` brings it about.
"""

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Any

from keeper.search.connection import SearchConnection

# Above what people's own catch-all templates have.
_PRIORITY = 500


class Alias(StrEnum):
    """The names under which documents are written and searched, without the prefix."""

    PRICES = "keeper-prices"
    DEALS = "keeper-deals"
    METRICS = "keeper-metrics"
    PRODUCTS = "products"


@dataclass(frozen=True, slots=True)
class Template:
    """An index template as Elasticsearch takes it.

    Attributes:
        name: the alias with its prefix.
        digest: of everything in `body` but itself; tells whether the one there is the same.
    """

    name: str
    mapping_version: int
    digest: str
    body: dict[str, Any]


def alias_name(connection: SearchConnection, alias: Alias) -> str:
    """With the prefix."""
    return f"{connection.index_prefix}{alias}"


def index_name(connection: SearchConnection, alias: Alias, mapping_version: int, counter: int) -> str:
    """The name of one index behind an alias."""
    return f"{alias_name(connection, alias)}-v{mapping_version}-{counter:06d}"


def load_template(connection: SearchConnection, alias: Alias) -> Template:
    """The template of one alias, with this connection's prefix, shards and replicas."""
    name = alias_name(connection, alias)
    body = _read(alias)
    mapping_version: int = body["template"]["mappings"]["_meta"]["mapping_version"]
    body["template"]["settings"] |= _read("analysis")
    body["template"]["settings"]["index"] |= {"number_of_shards": connection.shards, "number_of_replicas": connection.replicas}
    # The alias itself is a pattern too, so that nobody's stray write makes a plain index of that name.
    body |= {"index_patterns": [name, f"{name}-v*"], "allow_auto_create": False, "priority": _PRIORITY, "version": mapping_version}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    body["_meta"] = {"made_by": "keeper", "digest": digest}
    return Template(name, mapping_version, digest, body)


def _read(name: str) -> dict[str, Any]:
    text = (files("keeper.search") / "templates" / f"{name}.json").read_text(encoding="utf-8")
    read: dict[str, Any] = json.loads(text)
    return read
