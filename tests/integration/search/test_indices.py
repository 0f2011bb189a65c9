"""Templates, aliases and indices on the real server."""

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from elasticsearch import Elasticsearch

from keeper.search import indices, mapping
from keeper.search.bulk import BulkWriter, Document, write_documents
from keeper.search.connection import SearchConnection, SearchRefused, open_client, probe
from keeper.search.mapping import Alias, alias_name
from tests.services.session import ElasticsearchService


@pytest.fixture
def connection(elasticsearch: ElasticsearchService) -> SearchConnection:
    return SearchConnection((elasticsearch.url,), index_prefix=elasticsearch.prefix)


@pytest.fixture
def client(connection: SearchConnection) -> Iterator[Elasticsearch]:
    opened = open_client(connection)
    yield opened
    opened.close()


def _live(client: Elasticsearch, connection: SearchConnection, alias: Alias = Alias.PRICES) -> str:
    (live,) = [state.name for state in indices.list_indices(client, connection, alias) if state.is_live]
    return live


def _age_mapping(client: Elasticsearch, connection: SearchConnection, version: int) -> None:
    """Let the live index of prices say that its mapping has this version."""
    client.indices.put_mapping(index=_live(client, connection), meta={"mapping_version": version})


def test_probe_tells_the_version(client: Elasticsearch, connection: SearchConnection) -> None:
    assert probe(client, connection).startswith("9.")


def test_ensure_makes_everything_once(client: Elasticsearch, connection: SearchConnection) -> None:
    made = indices.ensure(client, connection)
    prefix = connection.index_prefix
    assert f"made index template {prefix}keeper-prices" in made
    assert f"made index {prefix}keeper-prices-v1-000001 behind alias {prefix}keeper-prices" in made
    assert len(made) == 2 * len(Alias)
    assert indices.ensure(client, connection) == []


def test_ensure_at_the_same_time_by_several_is_fine(client: Elasticsearch, connection: SearchConnection) -> None:
    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(indices.ensure, client, connection) for _ in range(4)]:
            future.result()
    assert indices.ensure(client, connection) == []


def test_live_indices_have_the_mappings_of_the_files(client: Elasticsearch, connection: SearchConnection) -> None:
    indices.ensure(client, connection)
    for alias in Alias:
        there = client.indices.get_mapping(index=_live(client, connection, alias)).body
        wanted = mapping.load_template(connection, alias).body["template"]["mappings"]["properties"]
        assert next(iter(there.values()))["mappings"]["properties"].keys() == wanted.keys()


def test_other_shards_renew_the_template_and_no_index(client: Elasticsearch, connection: SearchConnection) -> None:
    indices.ensure(client, connection)
    more = dataclasses.replace(connection, shards=2)
    assert indices.ensure(client, more) == [f"renewed index template {alias_name(connection, alias)}" for alias in Alias]
    settings = client.indices.get_settings(index=indices.make_next_index(client, more, Alias.PRICES)).body
    assert next(iter(settings.values()))["settings"]["index"]["number_of_shards"] == "2"


def test_older_mapping_is_reported_and_stays(client: Elasticsearch, connection: SearchConnection) -> None:
    indices.ensure(client, connection)
    _age_mapping(client, connection, 0)
    (said,) = indices.ensure(client, connection)
    assert "mapping version 0" in said
    assert "run `keeper reindex keeper-prices`" in said
    assert indices.ensure(client, connection) == [said]


def test_template_of_a_newer_keeper_stays(client: Elasticsearch, connection: SearchConnection) -> None:
    indices.ensure(client, connection)
    body = mapping.load_template(connection, Alias.PRICES).body
    client.indices.put_index_template(name=alias_name(connection, Alias.PRICES), **body | {"version": 99, "_meta": {"digest": "other"}})
    assert indices.ensure(client, connection) == [
        f"index template {connection.index_prefix}keeper-prices is of a newer Keeper and was left as it is"
    ]


def test_plain_index_under_an_alias_name_is_reported_and_stays(client: Elasticsearch, connection: SearchConnection) -> None:
    name = alias_name(connection, Alias.PRICES)
    client.indices.create(index=name)
    said = indices.ensure(client, connection)[-1]
    assert said.startswith(f"{name} is an index that Keeper did not make")
    assert "keeper reindex keeper-prices" in said
    assert client.indices.exists(index=name)
    assert [complaint.is_blocking for complaint in indices.select_complaints(client, connection)] == [True]


def test_alias_taken_away_is_put_back(client: Elasticsearch, connection: SearchConnection) -> None:
    indices.ensure(client, connection)
    live = _live(client, connection)
    client.indices.delete_alias(index=live, name=alias_name(connection, Alias.PRICES))
    assert indices.ensure(client, connection) == [f"put alias {connection.index_prefix}keeper-prices back on index {live}"]
    assert _live(client, connection) == live


def test_alias_that_several_indices_could_carry_is_left_to_a_person(client: Elasticsearch, connection: SearchConnection) -> None:
    indices.ensure(client, connection)
    other = indices.make_next_index(client, connection, Alias.PRICES)
    client.indices.delete_alias(index=_live(client, connection), name=alias_name(connection, Alias.PRICES))
    (said,) = indices.ensure(client, connection)
    assert "is on no index" in said
    assert other in said


def test_nobody_makes_an_index_under_our_names_by_writing(client: Elasticsearch, connection: SearchConnection) -> None:
    indices.ensure(client, connection)
    writer = BulkWriter(client, connection, requires_alias=False)
    gone = f"{connection.index_prefix}keeper-prices-v1-000077"
    (answer,) = writer.write_first([Document(gone, "1", 1, b"{}")])
    assert answer.is_index_fault
    assert not client.indices.exists(index=gone)


def test_next_index_counts_on_and_is_not_live(client: Elasticsearch, connection: SearchConnection) -> None:
    indices.ensure(client, connection)
    made = [indices.make_next_index(client, connection, Alias.PRICES) for _ in range(2)]
    assert made == [f"{connection.index_prefix}keeper-prices-v1-00000{n}" for n in (2, 3)]
    states = indices.list_indices(client, connection, Alias.PRICES)
    assert [(state.counter, state.is_live, state.documents) for state in states] == [(1, True, 0), (2, False, 0), (3, False, 0)]


def test_indices_of_another_prefix_are_not_ours(client: Elasticsearch, connection: SearchConnection) -> None:
    indices.ensure(client, dataclasses.replace(connection, index_prefix=f"{connection.index_prefix}x-"))
    assert indices.list_indices(client, connection, Alias.PRICES) == []


def test_swap_moves_the_alias_and_may_be_repeated(client: Elasticsearch, connection: SearchConnection) -> None:
    indices.ensure(client, connection)
    old, new = _live(client, connection), indices.make_next_index(client, connection, Alias.PRICES)
    for _ in range(2):
        indices.swap_alias(client, connection, Alias.PRICES, old, new)
    assert _live(client, connection) == new


def test_swap_from_an_index_that_is_not_live_is_refused(client: Elasticsearch, connection: SearchConnection) -> None:
    indices.ensure(client, connection)
    live = _live(client, connection)
    other, third = (indices.make_next_index(client, connection, Alias.PRICES) for _ in range(2))
    with pytest.raises(SearchRefused):
        indices.swap_alias(client, connection, Alias.PRICES, other, third)
    assert _live(client, connection) == live


def test_swap_under_writes_loses_no_document(client: Elasticsearch, connection: SearchConnection) -> None:
    indices.ensure(client, connection)
    old, new = _live(client, connection), indices.make_next_index(client, connection, Alias.PRICES)
    writer = BulkWriter(client, connection)

    def write(number: int) -> bool:
        answers = write_documents(writer, alias_name(connection, Alias.PRICES), [(f"{number}-{n}", 1, b"{}") for n in range(20)])
        return all(answer.refusal is None for answer in answers)

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(write, number) for number in range(30)]
        running[5].result()
        indices.swap_alias(client, connection, Alias.PRICES, old, new)
        assert all(future.result() for future in running)
    # However soon the others were through.
    assert write(30)
    indices.refresh(client, connection, f"{old},{new}")
    parts = [indices.count(client, connection, index) for index in (old, new)]
    assert sum(parts) == 620
    assert all(parts)


def test_live_index_is_never_deleted(client: Elasticsearch, connection: SearchConnection) -> None:
    indices.ensure(client, connection)
    with pytest.raises(SearchRefused, match="is live"):
        indices.delete_index(client, connection, Alias.PRICES, _live(client, connection))


def test_index_of_somebody_else_is_never_deleted(client: Elasticsearch, connection: SearchConnection) -> None:
    with pytest.raises(SearchRefused, match="is not an index of"):
        indices.delete_index(client, connection, Alias.PRICES, f"{connection.index_prefix}keeper-deals-v1-000001")


def test_index_that_is_not_live_is_deleted_once(client: Elasticsearch, connection: SearchConnection) -> None:
    indices.ensure(client, connection)
    other = indices.make_next_index(client, connection, Alias.PRICES)
    for _ in range(2):
        indices.delete_index(client, connection, Alias.PRICES, other)
    assert [state.is_live for state in indices.list_indices(client, connection, Alias.PRICES)] == [True]


def test_documents_are_fetched_with_their_versions_before_any_refresh(client: Elasticsearch, connection: SearchConnection) -> None:
    indices.ensure(client, connection)
    products = alias_name(connection, Alias.PRODUCTS)
    write_documents(BulkWriter(client, connection), products, [("B000000001", 7, b'{"asin":"B000000001","unknown":{"a":1}}')])
    found = indices.fetch_documents(client, connection, products, ["B000000001", "B000000002"])
    assert found == {"B000000001": indices.StoredDocument(7, {"asin": "B000000001", "unknown": {"a": 1}})}


def test_documents_older_than_told_are_deleted(client: Elasticsearch, connection: SearchConnection) -> None:
    indices.ensure(client, connection)
    metrics = alias_name(connection, Alias.METRICS)
    times = [f"2026-0{month}-01T00:00:00Z" for month in (1, 2, 3, 4)]
    lines = [(f"{n}", 1, f'{{"timestamp":"{at}"}}'.encode()) for n, at in enumerate(times)]
    write_documents(BulkWriter(client, connection), metrics, lines)
    indices.refresh(client, connection, metrics)
    assert indices.delete_older(client, connection, Alias.METRICS, before=datetime(2026, 3, 1, tzinfo=UTC)) == 2
    assert indices.fetch_documents(client, connection, metrics, ["0", "1", "2", "3"]).keys() == {"2", "3"}


def test_document_deleted_for_its_age_does_not_come_back(client: Elasticsearch, connection: SearchConnection) -> None:
    indices.ensure(client, connection)
    metrics = alias_name(connection, Alias.METRICS)
    line = ("1", 1, b'{"timestamp":"2026-01-01T00:00:00Z"}')
    writer = BulkWriter(client, connection)
    write_documents(writer, metrics, [line])
    indices.refresh(client, connection, metrics)
    indices.delete_older(client, connection, Alias.METRICS, before=datetime(2026, 3, 1, tzinfo=UTC))
    write_documents(writer, metrics, [line])
    assert indices.fetch_documents(client, connection, metrics, ["1"]) == {}


FINDS = [
    ("title.german", "tastaturen"),  # plural, of a part of a compound
    ("title.german", "Buero"),
    ("title.german", "buro"),
    ("title", "cafe"),
    ("title.english", "switch"),
    ("title.prefix", "funkta"),
    ("title", "für Büro"),
]


def test_title_is_found_by_its_parts_stems_and_beginnings_with_and_without_accents(
    client: Elasticsearch, connection: SearchConnection
) -> None:
    indices.ensure(client, connection)
    products = alias_name(connection, Alias.PRODUCTS)
    body = '{"asin":"B000000001","title":"Funktastatur für Büro und Café, braune Switches"}'.encode()
    write_documents(BulkWriter(client, connection), products, [("B000000001", 1, body)])
    indices.refresh(client, connection, products)
    queries = ({"match": {field: {"query": words, "operator": "and"}}} for field, words in FINDS)
    found = [client.search(index=products, query=query)["hits"]["total"]["value"] for query in queries]
    assert dict(zip(FINDS, found, strict=True)) == dict.fromkeys(FINDS, 1)


def test_title_is_suggested_without_its_umlaut(client: Elasticsearch, connection: SearchConnection) -> None:
    indices.ensure(client, connection)
    products = alias_name(connection, Alias.PRODUCTS)
    write_documents(BulkWriter(client, connection), products, [("B000000001", 1, '{"title":"Bürostuhl"}'.encode())])
    indices.refresh(client, connection, products)
    answer = client.search(index=products, suggest={"s": {"prefix": "buros", "completion": {"field": "title.suggest"}}})
    assert [option["text"] for option in answer["suggest"]["s"][0]["options"]] == ["Bürostuhl"]


def test_missing_title_is_no_fault(client: Elasticsearch, connection: SearchConnection) -> None:
    indices.ensure(client, connection)
    titles = ["null", '""', '"  "']
    lines = [(f"{n}", 1, f'{{"title":{title},"brand":{title}}}'.encode()) for n, title in enumerate(titles)]
    answers = write_documents(BulkWriter(client, connection), alias_name(connection, Alias.PRODUCTS), lines)
    assert [answer.refusal for answer in answers] == [None] * 3
