"""An index anew from PostgreSQL on a real Elasticsearch, under writes."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from elasticsearch import Elasticsearch
from sqlalchemy import Engine, text

from keeper.backup import backup, restore
from keeper.domain.delivery import Outcome, SinkDown, Turn
from keeper.domain.events import KINDS, Event, EventKind, OutboxMessage, Sink
from keeper.domain.marketplace import Marketplace
from keeper.domain.tokens import KeepaCall
from keeper.enrich import EnrichSink
from keeper.postgres.deals import DEAL_ID, DEAL_UPDATE
from keeper.postgres.embedded import EmbeddedServer
from keeper.postgres.installation import SIMULATOR
from keeper.postgres.ledger import insert_call
from keeper.postgres.outbox import insert_events
from keeper.postgres.programs import DUMP, Programs
from keeper.postgres.sinks import lock_routes
from keeper.record import record
from keeper.reindex import Reindexed, ReindexFailed, delete_old_indices, reindex
from keeper.relay import RelaySettings, keep_relaying, relay
from keeper.search import indices
from keeper.search.connection import SearchConnection, SearchDown, open_client
from keeper.search.mapping import Alias, alias_name
from keeper.search.products import ProductWriter
from keeper.search.sink import SearchSink
from keeper.sinks import switch_off, switch_on
from keeper.tokens import _call_event
from tests.integration.makers import NOW, add_user, add_watch, ago, one, product, rows, run_record
from tests.services.session import ElasticsearchService

SETTINGS = RelaySettings(first_wait_seconds=0.1, longest_wait_seconds=0.1)
ASINS = [f"B{number:09d}" for number in range(60)]
SINKS = frozenset({Sink.SEARCH, Sink.ENRICH})


@dataclass(frozen=True)
class House:
    """A database with prices, and an Elasticsearch."""

    engine: Engine
    client: Elasticsearch
    connection: SearchConnection

    def record(self, step: int) -> None:
        """A new price of every third product, the others as they were."""
        at = ago(minutes=600 - step)
        changed = [asin for place, asin in enumerate(ASINS) if step == 0 or (place + step) % 3 == 0]
        german = [product([(at, 2000 + step)], asin=asin, at=at) for asin in changed]
        british = product([(at, 1500 + step)], asin=ASINS[0], marketplace=Marketplace.UK, at=at)
        with self.engine.begin() as transaction:
            record(transaction, [*german, british], now=at)

    def deal(self, step: int) -> None:
        """Another state of every third deal, and a deal more."""
        with self.engine.begin() as transaction:
            routes = lock_routes(transaction)
            changed = transaction.execute(
                text(
                    f"""
                    WITH changed AS (
                        UPDATE collected_deals SET amount_minor = 3000 + :step, revision = revision + 1, event_id = gen_random_uuid()
                        WHERE right(asin, 1)::integer % 3 = :step % 3 RETURNING *
                    ), added AS (
                        INSERT INTO collected_deals (asin, marketplace, price_type, changed_at, amount_minor, currency, first_seen_at,
                            last_seen_at, event_id)
                        SELECT 'B000000000', 'DE', 'NEW', at, 4000, 'EUR', at, at, gen_random_uuid()
                        FROM (SELECT CAST(:now AS timestamptz) - :step * interval '1 minute') told (at) RETURNING *
                    )
                    SELECT d.event_id, d.asin, {DEAL_UPDATE}::text, d.revision
                    FROM (SELECT * FROM changed UNION ALL SELECT * FROM added) d LEFT JOIN products p USING (asin, marketplace)
                    """
                ),
                {"step": step, "now": NOW},
            )
            insert_events(transaction, [Event(row[0], EventKind.DEAL_UPDATE, *row[1:]) for row in changed], routes)

    def call(self) -> None:
        """One more call to Keepa is settled."""
        call_id, call = uuid4(), KeepaCall(NOW, "product", 1, 299, 5, 60_000, 12, 1, "DE", success=True)
        with self.engine.begin() as transaction:
            routes = lock_routes(transaction)
            insert_call(transaction, call_id, call, now=NOW)
            insert_events(transaction, [_call_event(call_id, call, NOW)], routes)

    def expected(self, alias: Alias) -> dict[str, int]:
        """Ids and versions of the documents that PostgreSQL would make."""
        queries = {
            Alias.PRICES: "SELECT event_id::text, 1::bigint FROM price_history WHERE event_id IS NOT NULL",
            Alias.DEALS: f"SELECT {DEAL_ID}, revision FROM collected_deals d",
            Alias.METRICS: "SELECT id::text, 1::bigint FROM keepa_calls",
            Alias.PRODUCTS: "SELECT asin, sum(revision)::bigint FROM products GROUP BY asin",
        }
        return dict(rows(self.engine, queries[alias]))

    def relay(self) -> None:
        """Until nothing waits."""
        for sink in (SearchSink(self.connection), EnrichSink(self.engine, ProductWriter(self.connection))):
            assert relay(self.engine, sink, settings=SETTINGS, longest_seconds=60).is_complete

    def reindex(self, alias: Alias) -> Reindexed:
        return reindex(self.engine, alias, client=self.client, connection=self.connection, settings=SETTINGS, now=NOW)

    def documents(self, alias: Alias) -> dict[str, Any]:
        """What is behind the alias, by id, with its version."""
        name = alias_name(self.connection, alias)
        indices.refresh(self.client, self.connection, name)
        found = self.client.search(index=name, size=10_000, version=True)["hits"]["hits"]
        return {one_["_id"]: (one_["_version"], one_["_source"]) for one_ in found}

    def live(self, alias: Alias) -> list[str]:
        return [state.name for state in indices.list_indices(self.client, self.connection, alias) if state.is_live]


@pytest.fixture
def house(engine: Engine, elasticsearch: ElasticsearchService) -> Iterator[House]:
    connection = SearchConnection(urls=(elasticsearch.url,), index_prefix=elasticsearch.prefix)
    client = open_client(connection)
    indices.connect(client, connection)
    user_id = add_user(engine)
    for asin in ASINS:
        add_watch(engine, user_id, 1, asin=asin)
    with engine.begin() as transaction:
        transaction.execute(
            text(
                "INSERT INTO keepa_calls (id, called_at, operation, marketplace, asin_count, response_time_ms, success) "
                "SELECT gen_random_uuid(), CAST(:now AS timestamptz) - make_interval(secs => n), 'product', 'DE', 1, 5, true "
                "FROM generate_series(1, 50) n"
            ),
            {"now": NOW},
        )
        transaction.execute(
            text(
                "INSERT INTO collected_deals (asin, marketplace, price_type, changed_at, amount_minor, list_price_minor, currency, "
                "discount_pct, first_seen_at, last_seen_at, event_id) SELECT 'B' || lpad(n::text, 9, '0'), 'DE', 'NEW', "
                "CAST(:now AS timestamptz), 3999, 5999, 'EUR', 33.34, CAST(:now AS timestamptz), CAST(:now AS timestamptz), "
                "gen_random_uuid() FROM generate_series(0, 29) n"
            ),
            {"now": NOW},
        )
    made = House(engine, client, connection)
    for sink in SINKS:
        switch_on(engine, sink.value, KINDS[sink], from_oldest=True)
    for step in range(4):
        made.record(step)
    made.relay()
    yield made
    client.close()


@pytest.mark.parametrize("alias", list(Alias))
def test_a_rebuilt_index_holds_what_postgresql_holds(house: House, alias: Alias) -> None:
    old = house.documents(alias)
    done = house.reindex(alias)
    new = house.documents(alias)
    assert (done.copied, done.documents, house.live(alias)) == (len(new), len(new), [done.new])
    expected = {Alias.PRICES: len(old), Alias.PRODUCTS: len(ASINS), Alias.METRICS: 50, Alias.DEALS: 30}
    assert len(new) == expected[alias]
    if alias in (Alias.PRICES, Alias.PRODUCTS):
        assert new == old


def test_the_old_index_is_kept_until_told(house: House) -> None:
    [old] = house.live(Alias.PRICES)
    assert house.reindex(Alias.PRICES).old == old
    assert delete_old_indices(house.client, house.connection, Alias.PRICES) == [old]
    assert [state.name for state in indices.list_indices(house.client, house.connection, Alias.PRICES)] == house.live(Alias.PRICES)


def test_nothing_is_left_queued_for_the_new_index(house: House) -> None:
    house.reindex(Alias.PRICES)
    assert rows(house.engine, "SELECT name FROM sinks ORDER BY 1") == ["enrich", "notify", "search"]
    assert rows(house.engine, "SELECT sink FROM outbox") == []


@pytest.mark.parametrize("alias", list(Alias))
def test_nothing_is_lost_or_doubled_under_writes(house: House, alias: Alias) -> None:
    """Recording and relaying go on during three rebuilds; at the end the index holds exactly what PostgreSQL holds."""
    before = house.expected(alias)
    stop, failures = threading.Event(), list[BaseException]()

    def write() -> None:
        try:
            for step in range(4, 200):
                if stop.is_set():
                    return
                house.record(step)
                house.deal(step)
                house.call()
        except BaseException as error:
            failures.append(error)
            raise

    sinks = SearchSink(house.connection), EnrichSink(house.engine, ProductWriter(house.connection))
    service = threading.Thread(target=keep_relaying, args=(house.engine, sinks), kwargs={"settings": SETTINGS, "stop": stop})
    writer = threading.Thread(target=write)
    for thread in (service, writer):
        thread.start()
    try:
        done = [house.reindex(alias) for _ in range(3)]
    finally:
        stop.set()
        writer.join(60)
        service.join(60)
    assert failures == []
    house.relay()
    assert house.live(alias) == [done[-1].new]
    found = house.documents(alias)
    assert {name: version for name, (version, _) in found.items()} == house.expected(alias) != before


def test_an_old_price_is_left_out_where_only_newer_ones_are_kept(house: House) -> None:
    run_record(house.engine, product([(NOW - timedelta(days=400), 9999)], asin="B000000099", at=NOW - timedelta(days=400)), sinks=SINKS)
    add_watch(house.engine, one(house.engine, "SELECT id FROM users"), 1, asin="B000000098")
    run_record(house.engine, product([(NOW - timedelta(days=400), 9999)], asin="B000000098", at=NOW - timedelta(days=400)), sinks=SINKS)
    house.relay()
    before = len(house.documents(Alias.PRICES))
    reindex(house.engine, Alias.PRICES, client=house.client, connection=house.connection, settings=SETTINGS, now=NOW, prices_days=30)
    assert len(house.documents(Alias.PRICES)) == before - 1


def test_what_a_rebuild_that_died_has_left_is_cleared_away(house: House) -> None:
    index = indices.make_next_index(house.client, house.connection, Alias.PRICES)
    switch_on(house.engine, f"search.{index}", KINDS[Sink.SEARCH], from_oldest=False)
    house.client.index(index=index, id="left", document={})
    done = house.reindex(Alias.PRICES)
    assert house.live(Alias.PRICES) == [done.new]
    assert "left" not in house.documents(Alias.PRICES)
    assert rows(house.engine, "SELECT name FROM sinks ORDER BY 1") == ["enrich", "notify", "search"]


def test_an_index_that_lacks_documents_is_not_put_in_place(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    [old] = house.live(Alias.PRICES)
    monkeypatch.setattr("keeper.postgres.rebuild.walk_prices", lambda *_, **__: iter(()))
    with pytest.raises(ReindexFailed, match="holds 0 documents"):
        house.reindex(Alias.PRICES)
    assert house.live(Alias.PRICES) == [old]
    assert [state.name for state in indices.list_indices(house.client, house.connection, Alias.PRICES)] == [old]
    assert switch_off(house.engine, "search.x") is None
    assert rows(house.engine, "SELECT name FROM sinks ORDER BY 1") == ["enrich", "notify", "search"]


def test_an_old_call_is_left_out_where_only_newer_ones_are_kept(house: House) -> None:
    with house.engine.begin() as transaction:
        transaction.execute(
            text("UPDATE keepa_calls SET called_at = :then WHERE called_at = :last"), {"then": ago(days=40), "last": ago(seconds=50)}
        )
    reindex(house.engine, Alias.METRICS, client=house.client, connection=house.connection, settings=SETTINGS, now=NOW, metrics_days=30)
    assert len(house.documents(Alias.METRICS)) == 49


# --- after a restore


def test_a_restored_database_overtakes_an_index_that_lives_on_and_fills_one_from_zero(
    house: House, postgres: EmbeddedServer, tmp_path: Path
) -> None:
    programs = Programs(postgres.program(DUMP).parent, house.engine)
    path = backup(house.engine, programs, tmp_path).path
    for step in (4, 7):
        # The index gets versions that the backup knows nothing of, of the same products and deals as below.
        house.record(step)
        house.deal(step)
        house.relay()
    restore(house.engine, programs, path, source=SIMULATOR, cipher=None, is_replacing=True)
    house.record(10)
    house.deal(10)
    house.relay()
    deals = rows(house.engine, f"SELECT {DEAL_ID} FROM collected_deals d WHERE amount_minor = 3010")
    for alias, changed in ((Alias.PRODUCTS, ASINS[2::3]), (Alias.DEALS, deals)):
        kept, expected = house.documents(alias), house.expected(alias)
        assert {name: kept[name][0] for name in changed} == {name: expected[name] for name in changed}
        house.client.indices.delete(index=house.live(alias))
        indices.connect(house.client, house.connection)
        house.reindex(alias)
        found = house.documents(alias)
        assert {name: version for name, (version, _) in found.items()} == expected
        assert {name: found[name] for name in changed} == {name: kept[name] for name in changed}


# --- a rebuild that fails at the swap


def write_to_the_old_index_then_swap(house: House, monkeypatch: pytest.MonkeyPatch, *, error: Exception | None) -> threading.Event:
    """Before the alias moves, the regular sinks write one step to the old index, and another one waits for them. Returns: it has moved."""
    swap, is_swapped = indices.swap_alias, threading.Event()

    def write_and_swap(*args: Any) -> None:
        house.record(5)
        house.relay()
        house.record(6)
        swap(*args)
        is_swapped.set()
        if error is not None:
            raise error

    monkeypatch.setattr("keeper.reindex.indices.swap_alias", write_and_swap)
    return is_swapped


def assert_new_index_is_whole(house: House, alias: Alias, old: str) -> None:
    assert house.live(alias) != [old]
    assert rows(house.engine, "SELECT name FROM sinks ORDER BY 1") == ["enrich", "notify", "search"]
    assert set(rows(house.engine, "SELECT DISTINCT sink FROM outbox")) <= {"search", "enrich"}
    house.relay()
    assert rows(house.engine, "SELECT sink FROM outbox") == []
    found = house.documents(alias)
    if alias is Alias.PRICES:
        assert set(found) == {str(one_) for one_ in rows(house.engine, "SELECT event_id FROM price_history WHERE event_id IS NOT NULL")}
    else:
        revisions = dict(rows(house.engine, "SELECT asin, sum(revision)::bigint FROM products GROUP BY asin"))
        assert {asin: version for asin, (version, _) in found.items()} == revisions


@pytest.mark.parametrize("alias", [Alias.PRICES, Alias.PRODUCTS])
def test_nothing_is_lost_where_the_answer_to_the_swap_is(house: House, alias: Alias, monkeypatch: pytest.MonkeyPatch) -> None:
    [old] = house.live(alias)
    write_to_the_old_index_then_swap(house, monkeypatch, error=SearchDown("gone"))
    with pytest.raises(SearchDown, match="gone"):
        house.reindex(alias)
    assert_new_index_is_whole(house, alias, old)


def test_nothing_is_lost_where_the_second_pass_fails(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    [old] = house.live(Alias.PRICES)
    is_swapped = write_to_the_old_index_then_swap(house, monkeypatch, error=None)

    class FailingSink(SearchSink):
        def deliver(self, messages: Sequence[OutboxMessage], turn: Turn) -> Iterator[list[Outcome]]:
            if is_swapped.is_set():
                raise SinkDown("gone")
            return super().deliver(messages, turn)

    monkeypatch.setattr("keeper.reindex.SearchSink", FailingSink)
    with pytest.raises(SinkDown, match="gone"):
        house.reindex(Alias.PRICES)
    assert_new_index_is_whole(house, Alias.PRICES, old)


@pytest.mark.parametrize("alias", [Alias.PRICES, Alias.PRODUCTS])
def test_the_next_call_saves_the_queue_of_a_live_index(house: House, alias: Alias, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elasticsearch cannot even be asked whether it has swapped; the next call asks, and this one fails too, right thereafter."""
    [old] = house.live(alias)
    is_swapped = write_to_the_old_index_then_swap(house, monkeypatch, error=SearchDown("gone"))
    list_indices = indices.list_indices

    def list_before_swap(*args: Any) -> list[indices.IndexState]:
        if is_swapped.is_set():
            raise SearchDown("still gone")
        return list_indices(*args)

    monkeypatch.setattr("keeper.reindex.indices.list_indices", list_before_swap)
    with pytest.raises(SearchDown, match=r"^gone"):
        house.reindex(alias)
    assert one(house.engine, "SELECT count(*) FROM sinks WHERE name LIKE 'search.%'") == 1
    assert one(house.engine, "SELECT count(*) FROM outbox WHERE sink LIKE 'search.%'") > 0

    monkeypatch.undo()
    monkeypatch.setattr("keeper.reindex.indices.make_next_index", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        house.reindex(alias)
    assert_new_index_is_whole(house, alias, old)


def test_a_swap_that_did_not_happen_is_taken_back(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    [old] = house.live(Alias.PRICES)

    def fail(*_: Any) -> None:
        raise SearchDown("gone")

    monkeypatch.setattr("keeper.reindex.indices.swap_alias", fail)
    with pytest.raises(SearchDown, match="gone"):
        house.reindex(Alias.PRICES)
    assert [state.name for state in indices.list_indices(house.client, house.connection, Alias.PRICES)] == [old]
    assert rows(house.engine, "SELECT name FROM sinks ORDER BY 1") == ["enrich", "notify", "search"]
    assert rows(house.engine, "SELECT sink FROM outbox") == []
