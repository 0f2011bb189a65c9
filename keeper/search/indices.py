"""Indices behind aliases: `<prefix>keeper-prices-v<mapping version>-<counter>`; exactly one carries the alias and is live."""

import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from elasticsearch import Elasticsearch

from keeper.search.connection import SearchConnection, SearchDown, SearchRefused, plain_errors, probe
from keeper.search.mapping import Alias, Template, alias_name, index_name, load_template

# Longest wait for the cluster to agree on a change; below the wait for its answer.
_AGREE: Final = "10s"
_MOST_NUMBERS = 20
_DELETE_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class IndexState:
    """One index behind an alias, live or not.

    Attributes:
        mapping_version: None where somebody else made it.
        counter: rises with each index of the alias.
        documents: as of its last refresh.
    """

    name: str
    mapping_version: int | None
    counter: int
    documents: int
    is_live: bool


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something about an alias that Keeper does not change by itself.

    Attributes:
        text: what is wrong and what to do.
        is_blocking: nothing can be written there meanwhile.
    """

    alias: Alias
    text: str
    is_blocking: bool


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as Elasticsearch has it."""

    version: int
    source: Mapping[str, Any]


def connect(client: Elasticsearch, connection: SearchConnection) -> list[str]:
    """Probe, then `ensure`. Returns what `ensure` says.

    Raises:
        SearchDown: nobody answers.
        SearchRefused: see `probe`.
    """
    probe(client, connection)
    return ensure(client, connection)


def ensure(client: Elasticsearch, connection: SearchConnection) -> list[str]:
    """`make_missing`, and what it could not put right: what was made and what a person must do, a line each.

    Raises:
        SearchDown: nobody answers.
        SearchRefused: we may not.
    """
    made = make_missing(client, connection)
    return made + [complaint.text for complaint in select_complaints(client, connection)]


def make_missing(client: Elasticsearch, connection: SearchConnection) -> list[str]:
    """Make the templates, first indices and aliases that are missing. Changes no index. Returns what was made, a line each.

    Idempotent; two at once are fine.

    Raises:
        SearchDown: nobody answers.
        SearchRefused: we may not.
    """
    lines = []
    for alias in Alias:
        template = load_template(connection, alias)
        lines += _ensure_template(client, connection, template)
        lines += _ensure_alias(client, connection, alias, template)
    return lines


def select_complaints(client: Elasticsearch, connection: SearchConnection, aliases: Collection[Alias] = tuple(Alias)) -> list[Complaint]:
    """What is not as it should be and needs a person. Changes nothing.

    Raises:
        SearchDown: nobody answers.
        SearchRefused: we may not.
    """
    found = (_complaint(client, connection, alias) for alias in aliases)
    return [complaint for complaint in found if complaint is not None]


def list_indices(client: Elasticsearch, connection: SearchConnection, alias: Alias) -> list[IndexState]:
    """The indices of an alias, in the order they were made.

    Raises:
        SearchDown: nobody answers.
        SearchRefused: we may not.
    """
    name = alias_name(connection, alias)
    with plain_errors(connection):
        # By pattern, and by the alias: what carries it may have any name.
        found = client.indices.get(
            index=f"{name}-v*,{name}", features=["aliases", "mappings"], expand_wildcards=["open", "closed"], ignore_unavailable=True
        ).body
        ours = {index: told for index, told in found.items() if _parsed(name, index) or name in told.get("aliases", {})}
        documents = _documents(client, ours)
    states = []
    for index, told in ours.items():
        parsed = _parsed(name, index)
        version = told.get("mappings", {}).get("_meta", {}).get("mapping_version")
        states.append(IndexState(index, version, parsed or 0, documents.get(index, 0), name in told.get("aliases", {})))
    return sorted(states, key=lambda state: (state.counter, state.name))


def make_next_index(client: Elasticsearch, connection: SearchConnection, alias: Alias) -> str:
    """A new empty index with the mapping of this Keeper, behind no alias yet. Returns its name.

    Raises:
        SearchDown: nobody answers.
        SearchRefused: we may not.
    """
    template = load_template(connection, alias)
    _ensure_template(client, connection, template)
    counter = max((state.counter for state in list_indices(client, connection, alias)), default=0)
    for _ in range(_MOST_NUMBERS):
        counter += 1
        name = index_name(connection, alias, template.mapping_version, counter)
        if _create(client, connection, name, aliases=None):
            return name
    raise SearchDown(f"others make indices of {alias_name(connection, alias)} at the same time")


def swap_alias(client: Elasticsearch, connection: SearchConnection, alias: Alias, old: str, new: str) -> None:
    """Move the alias from `old` to `new` in one step: no search and no write ever sees both or none. Once moved, again is fine.

    Raises:
        SearchDown: nobody answers.
        SearchRefused: `old` does not carry the alias, or one of them is missing.
    """
    name = alias_name(connection, alias)
    with plain_errors(connection):
        if list(_carriers(client, name)) == [new]:
            return
        client.indices.update_aliases(
            actions=[
                {"remove": {"index": old, "alias": name, "must_exist": True}},
                {"add": {"index": new, "alias": name, "is_write_index": True}},
            ],
            timeout=_AGREE,
            master_timeout=_AGREE,
        )


def delete_index(client: Elasticsearch, connection: SearchConnection, alias: Alias, index: str) -> None:
    """Delete an index of the alias that is not live. One that is gone already is fine.

    Raises:
        SearchDown: nobody answers.
        SearchRefused: it is live, or not an index of this alias.
    """
    name = alias_name(connection, alias)
    if _parsed(name, index) is None:
        raise SearchRefused(f"{index} is not an index of {name}")
    with plain_errors(connection):
        if index in _carriers(client, name):
            raise SearchRefused(f"{index} is live: {name} points to it; nothing was deleted")
        client.indices.delete(index=index, ignore_unavailable=True, timeout=_AGREE, master_timeout=_AGREE)


def list_unnamed(client: Elasticsearch, connection: SearchConnection) -> list[str]:
    """Aliases `<prefix>keeper-…` that a Keeper made once and this one does not know, sorted. Their templates say who made them.

    Raises:
        SearchDown: nobody answers.
        SearchRefused: we may not.
    """
    ours = f"{connection.index_prefix}keeper-"
    named = {alias_name(connection, alias) for alias in Alias}
    with plain_errors(connection):
        found = client.options(ignore_status=404).indices.get_index_template(name=f"{ours}*").body.get("index_templates", [])
    return sorted(
        one["name"]
        for one in found
        if one["index_template"].get("_meta", {}).get("made_by") == "keeper"
        and one["name"] not in named
        # Those of another Keeper in the same cluster, whose prefix begins like our names.
        and not one["name"].endswith(tuple(Alias))
    )


def delete_alias(client: Elasticsearch, connection: SearchConnection, name: str) -> None:
    """Take an alias (full name) from its indices, which stay, and delete its template. One that is gone already is fine.

    Raises:
        SearchDown: nobody answers.
        SearchRefused: we may not.
    """
    with plain_errors(connection):
        lenient = client.options(ignore_status=404)
        lenient.indices.delete_index_template(name=name, master_timeout=_AGREE)
        lenient.indices.delete_alias(index="*", name=name, timeout=_AGREE, master_timeout=_AGREE)


def refresh(client: Elasticsearch, connection: SearchConnection, index: str) -> None:
    """Let searches and counts see what was written. `index` is a full name, of an index or an alias.

    Raises:
        SearchDown: nobody answers.
        SearchRefused: it is missing.
    """
    with plain_errors(connection):
        client.indices.refresh(index=index)


def count(client: Elasticsearch, connection: SearchConnection, index: str) -> int:
    """Documents in an index or behind an alias (full name), as of the last refresh.

    Raises:
        SearchDown: nobody answers.
        SearchRefused: it is missing.
    """
    with plain_errors(connection):
        counted: int = client.count(index=index)["count"]
    return counted


def count_written(client: Elasticsearch, connection: SearchConnection, alias: Alias) -> int | None:
    """Documents written to what is behind an alias, repeated writes included; begins anew with the index or its node.

    None while no shard of it tells.

    Raises:
        SearchDown: nobody answers.
        SearchRefused: it is missing.
    """
    with plain_errors(connection):
        said = client.indices.stats(
            index=alias_name(connection, alias), metric="indexing", filter_path="_all.primaries.indexing.index_total"
        )
        # A shard that is nowhere tells nothing.
    written: int | None = said.get("_all", {}).get("primaries", {}).get("indexing", {}).get("index_total")
    return written


def count_matching(
    client: Elasticsearch, connection: SearchConnection, index: str, *, asins: Collection[str] | None, since: datetime | None
) -> int:
    """Documents of these products (None for all) from then on, as of the last refresh, as `count`.

    Raises:
        SearchDown: nobody answers.
        SearchRefused: it is missing.
    """
    conditions: list[dict[str, Any]] = [] if asins is None else [{"terms": {"asin": list(asins)}}]
    conditions += [] if since is None else [{"range": {"timestamp": {"gte": since.isoformat()}}}]
    with plain_errors(connection):
        counted: int = client.count(index=index, query={"bool": {"filter": conditions}})["count"]
    return counted


def fetch_documents(client: Elasticsearch, connection: SearchConnection, index: str, ids: Collection[str]) -> dict[str, StoredDocument]:
    """Documents by id, from an index or behind an alias (full name), written a moment ago or long since. Without those that are missing.

    Raises:
        SearchDown: nobody answers.
        SearchRefused: the index is missing.
    """
    if not ids:
        return {}
    with plain_errors(connection):
        found = client.mget(index=index, ids=list(ids))["docs"]
    for one in found:
        if "error" in one:
            raise SearchRefused(f"{index}: {one['error'].get('reason', 'unreadable')}", kind=one["error"].get("type", ""))
    return {one["_id"]: StoredDocument(one["_version"], one["_source"]) for one in found if one["found"]}


def delete_older(
    client: Elasticsearch, connection: SearchConnection, alias: Alias, *, before: datetime, longest_seconds: float = 300.0
) -> int:
    """Delete documents whose `timestamp` is before `before`, some thousand at a time. Written meanwhile, a document stays.

    Args:
        longest_seconds: machine time after which the rest is left to the next call.

    Returns:
        How many were deleted.

    Raises:
        SearchDown: nobody answers, or a part could not be deleted.
        SearchRefused: the alias is missing.
    """
    deadline = time.monotonic() + longest_seconds
    deleted = 0
    while time.monotonic() < deadline:
        with plain_errors(connection):
            answer = client.delete_by_query(
                index=alias_name(connection, alias),
                query={"range": {"timestamp": {"lt": before.isoformat()}}},
                conflicts="proceed",
                slices="auto",
                max_docs=max(_DELETE_AT_ONCE, connection.shards),
                scroll_size=_DELETE_AT_ONCE // 5,
                refresh=True,
                timeout=_AGREE,
            )
        if answer["failures"]:
            raise SearchDown(f"{alias_name(connection, alias)}: {len(answer['failures'])} documents could not be deleted")
        deleted += answer["deleted"]
        if answer["deleted"] == 0:
            break
    return deleted


def _complaint(client: Elasticsearch, connection: SearchConnection, alias: Alias) -> Complaint | None:
    name = alias_name(connection, alias)
    if _is_plain_index(client, connection, name):
        text = (
            f"{name} is an index that Keeper did not make, and must be an alias: copy what you need from it and delete it, "
            f"then `keeper reindex {alias}`"
        )
        return Complaint(alias, text, is_blocking=True)
    states = list_indices(client, connection, alias)
    live = [state for state in states if state.is_live]
    if not live:
        choice = f", and {_names(states)} could carry it: add it to one of them" if states else ""
        return Complaint(alias, f"alias {name} is on no index{choice}", is_blocking=True)
    if len(live) > 1:
        return Complaint(alias, f"alias {name} is on several indices ({_names(live)}): take it from all but one", is_blocking=False)
    there, wanted = live[0].mapping_version, load_template(connection, alias).mapping_version
    if there is None:
        text = f"alias {name} is on {live[0].name}, which Keeper did not make: run `keeper reindex {alias}`"
        return Complaint(alias, text, is_blocking=False)
    if there < wanted:
        text = f"index {live[0].name} has mapping version {there}, this Keeper has {wanted}: run `keeper reindex {alias}`"
        return Complaint(alias, text, is_blocking=False)
    return None


def _ensure_template(client: Elasticsearch, connection: SearchConnection, template: Template) -> list[str]:
    with plain_errors(connection):
        known = client.options(ignore_status=404).indices.get_index_template(name=template.name).body.get("index_templates", [])
        there = known[0]["index_template"] if known else None
        if there is not None:
            if there.get("_meta", {}).get("digest") == template.digest:
                return []
            if there.get("version", 0) > template.mapping_version:
                return [f"index template {template.name} is of a newer Keeper and was left as it is"]
        client.indices.put_index_template(name=template.name, master_timeout=_AGREE, **template.body)
    return [f"{'made' if there is None else 'renewed'} index template {template.name}"]


def _ensure_alias(client: Elasticsearch, connection: SearchConnection, alias: Alias, template: Template) -> list[str]:
    name = template.name
    states = list_indices(client, connection, alias)
    if any(state.is_live for state in states) or _is_plain_index(client, connection, name):
        return []
    if not states:
        index = index_name(connection, alias, template.mapping_version, 1)
        made = _create(client, connection, index, aliases={name: {"is_write_index": True}})
        return [f"made index {index} behind alias {name}"] if made else []
    if len(states) > 1:
        # Which of them was live cannot be known; the complaint says so.
        return []
    with plain_errors(connection):
        client.indices.put_alias(index=states[0].name, name=name, is_write_index=True, timeout=_AGREE, master_timeout=_AGREE)
    return [f"put alias {name} back on index {states[0].name}"]


def _create(client: Elasticsearch, connection: SearchConnection, index: str, *, aliases: Mapping[str, Any] | None) -> bool:
    """False when it is there already."""
    try:
        with plain_errors(connection):
            client.indices.create(index=index, aliases=aliases, timeout=_AGREE, master_timeout=_AGREE)
    except SearchRefused as error:
        if error.kind == "resource_already_exists_exception":
            return False
        raise
    return True


def _is_plain_index(client: Elasticsearch, connection: SearchConnection, name: str) -> bool:
    with plain_errors(connection):
        return name in client.indices.get(index=name, features=["aliases"], ignore_unavailable=True, allow_no_indices=True).body


def _carriers(client: Elasticsearch, name: str) -> Mapping[str, Any]:
    carriers: Mapping[str, Any] = client.options(ignore_status=404).indices.get_alias(name=name).body
    return {index: told for index, told in carriers.items() if isinstance(told, dict) and "aliases" in told}


def _documents(client: Elasticsearch, indices: Mapping[str, Any]) -> dict[str, int]:
    if not indices:
        return {}
    rows = client.cat.indices(index=",".join(indices), format="json", h=["index", "docs.count"], expand_wildcards=["open", "closed"]).body
    return {row["index"]: int(row["docs.count"] or 0) for row in rows if isinstance(row, dict)}


def _parsed(name: str, index: str) -> int | None:
    """The counter in an index's name; None where it is not one of ours."""
    matched = re.fullmatch(rf"{re.escape(name)}-v\d+-(\d{{6,}})", index)
    return int(matched[1]) if matched else None


def _names(states: list[IndexState]) -> str:
    return ", ".join(state.name for state in states)
