"""The verb `reindex`: an index anew from PostgreSQL, while writes go on.

The new index is a sink of its own from the start. Its events queue while the tables are copied; then its queue is drained and the alias
swapped while its shards are held, and drained once more, so that what was written to the old index in between is in the new one too.
External versions settle whatever was written twice, in whatever order. Where it fails after the swap, the queue of the new index goes to
the regular sink.
"""

import json
import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from keeper.domain.errors import KeeperError
from keeper.domain.events import EventKind, Sink, rebuild_sink
from keeper.enrich import EnrichSink
from keeper.postgres import deals, rebuild, sinks
from keeper.postgres.jobs import hold_job
from keeper.postgres.rebuild import Row
from keeper.relay import DeliverySink, RelaySettings, drain, relay
from keeper.search import indices
from keeper.search.bulk import BulkWriter, write_documents
from keeper.search.connection import SearchConnection
from keeper.search.mapping import Alias, alias_name
from keeper.search.products import ProductWriter
from keeper.search.sink import SearchSink
from keeper.sinks import switch_off, switch_on

if TYPE_CHECKING:
    # Its runtime comes by keeper.search, which leaves out what it would load beside.
    from elasticsearch import Elasticsearch

logger = logging.getLogger(__name__)

_PAGE = 2000
_SAMPLE = 100
_DRAIN_SECONDS = 600.0
_SWAP_SECONDS = 120.0

_KINDS: Mapping[Alias, EventKind] = {
    Alias.PRICES: EventKind.PRICE_UPDATE,
    Alias.DEALS: EventKind.DEAL_UPDATE,
    Alias.METRICS: EventKind.KEEPA_CALL,
    Alias.PRODUCTS: EventKind.PRODUCT_UPDATE,
}
# Whose queue leads to an alias. That of `enrich` is worked off with Kafka too.
_REGULAR: Mapping[Alias, Sink] = {
    Alias.PRICES: Sink.SEARCH,
    Alias.DEALS: Sink.SEARCH,
    Alias.METRICS: Sink.SEARCH,
    Alias.PRODUCTS: Sink.ENRICH,
}
_TABLES: Mapping[Alias, str] = {
    Alias.PRICES: "price_history",
    Alias.DEALS: "collected_deals",
    Alias.METRICS: "keepa_calls",
    Alias.PRODUCTS: "products",
}
# Only events since a way to it was opened lead to this index.
PRODUCTS_REMEDY = f"`keeper reindex {Alias.PRODUCTS}` brings the others from PostgreSQL"


class ReindexFailed(KeeperError):
    """The new index was not put in place; the old one serves on."""


@dataclass(frozen=True, slots=True)
class Reindexed:
    """What one rebuild did.

    Attributes:
        old: the index that served before; None where there was none. Kept until told.
        copied: rows copied from PostgreSQL.
        documents: in the new index when the alias was moved.
        delivered: events that came meanwhile.
    """

    alias: str
    old: str | None
    new: str
    copied: int
    documents: int
    delivered: int


def reindex(
    engine: Engine,
    alias: Alias,
    *,
    client: "Elasticsearch",
    connection: SearchConnection,
    settings: RelaySettings,
    now: datetime,
    prices_days: int | None = None,
    metrics_days: int | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Reindexed:
    """Build the index of `alias` anew and put it in place of the old one, which is kept.

    Args:
        prices_days: documents of `keeper-prices` from so many days back only; None for all.
        metrics_days: documents of `keeper-metrics` likewise.
        on_progress: told rows copied, and rows there are.

    Raises:
        ReindexFailed: another one runs, or the new index does not hold what PostgreSQL holds.
        SearchDown, SinkDown, RelayBusy: it could not be ended now. What was begun is taken back, now or by the next call; where the new
            index serves already, it goes on, and what it lacks waits for the regular sink.
    """
    with hold_job(engine, f"reindex/{alias}") as is_mine:
        if not is_mine:
            raise ReindexFailed(f"another process rebuilds {alias} already")
        indices.connect(client, connection)
        _clean_up(engine, client, connection, alias)
        old = next((state.name for state in indices.list_indices(client, connection, alias) if state.is_live), None)
        new = indices.make_next_index(client, connection, alias)
        name = rebuild_sink(new)
        is_swap_begun = is_done = False
        try:
            switch_on(engine, name, [_KINDS[alias]], from_oldest=False)
            days = {Alias.PRICES: prices_days, Alias.METRICS: metrics_days}.get(alias)
            since = now - timedelta(days=days) if days else None
            sample = _Sample()
            copied = _copy(engine, alias, BulkWriter(client, connection, requires_alias=False), new, since, sample, on_progress)

            def swap() -> None:
                nonlocal is_swap_begun
                is_swap_begun = True
                indices.swap_alias(client, connection, alias, old or "", new)

            with _open_sink(engine, connection, alias, name, new) as sink:
                delivered = _catch_up(engine, sink, settings)
                documents = _compare(engine, client, connection, alias, sink, new, since, sample)
                delivered += drain(engine, sink, settings=settings, longest_seconds=_SWAP_SECONDS, then=swap).delivered
                is_done = True
        finally:
            if is_swap_begun and not is_done:
                _end_quietly(engine, client, connection, alias, new)
            else:
                switch_off(engine, name)
                if not is_done:
                    _delete_quietly(client, connection, alias, new)
        return Reindexed(alias.value, old, new, copied, documents, delivered)


def is_rebuilding(connection: SearchConnection, alias: Alias, sink_names: Iterable[str]) -> bool:
    """Whether one of these sinks fills a new index of the alias."""
    return any(name.startswith(rebuild_sink(f"{alias_name(connection, alias)}-v")) for name in sink_names)


def tell_missing_products(*, documents: int, rows: int, waiting: int) -> str:
    """That searches miss products; empty where they do not, or where what waits may be all that is missing.

    Args:
        rows: documents that PostgreSQL would make.
        waiting: events and messages on their way to the enrichment.
    """
    if documents + waiting >= rows:
        return ""
    return f"searches find {documents} of {rows} products"


def delete_old_indices(client: "Elasticsearch", connection: SearchConnection, alias: Alias) -> list[str]:
    """Delete the indices of the alias that do not serve. Returns their names."""
    old = [state.name for state in indices.list_indices(client, connection, alias) if not state.is_live]
    for name in old:
        indices.delete_index(client, connection, alias, name)
    return old


def _clean_up(engine: Engine, client: "Elasticsearch", connection: SearchConnection, alias: Alias) -> None:
    """What a rebuild that died has left: its sink, which would queue for ever, and its index."""
    states = indices.list_indices(client, connection, alias)
    begun = {rebuild_sink(state.name): state for state in states}
    with engine.begin() as transaction:
        left = [row.name for row in sinks.select_sinks(transaction) if row.name in begun]
    for name in left:
        logger.warning("a rebuild of %s had died", alias)
        _end(engine, client, connection, alias, begun[name].name, is_live=begun[name].is_live)


def _end(engine: Engine, client: "Elasticsearch", connection: SearchConnection, alias: Alias, index: str, *, is_live: bool) -> None:
    """End a rebuild that failed. A live index may lack what was written to the old one before the swap: that is in its queue only."""
    name = rebuild_sink(index)
    if is_live:
        with engine.begin() as transaction:
            moved = sinks.move_queued(transaction, name, to=_REGULAR[alias])
        logger.warning("%s serves already; %d events that wait for it go to the sink %s", index, moved, _REGULAR[alias])
    else:
        # First: refused if it has become live meanwhile, and then the queue is still there.
        indices.delete_index(client, connection, alias, index)
        switch_off(engine, name)
        logger.warning("%s and its queue are dropped", index)


def _end_quietly(engine: Engine, client: "Elasticsearch", connection: SearchConnection, alias: Alias, index: str) -> None:
    """`_end`, as far as it can be done now: another error is under way."""
    try:
        is_live = any(state.name == index and state.is_live for state in indices.list_indices(client, connection, alias))
        _end(engine, client, connection, alias, index, is_live=is_live)
    except (KeeperError, SQLAlchemyError) as error:
        logger.warning(
            "%s and the queue of its sink %s stay until the next rebuild of %s, which puts them right: %s",
            index,
            rebuild_sink(index),
            alias,
            error,
        )


class _Sample:
    """So many rows of those that were copied, each as likely as any other."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._seen = 0

    def add(self, row: Row) -> None:
        """It may take the place of another one."""
        self._seen += 1
        if len(self.rows) < _SAMPLE:
            self.rows.append(row)
        elif (place := random.randrange(self._seen)) < _SAMPLE:
            self.rows[place] = row


def _copy(
    engine: Engine,
    alias: Alias,
    writer: BulkWriter,
    index: str,
    since: datetime | None,
    sample: _Sample,
    on_progress: Callable[[int, int], None],
) -> int:
    with engine.begin() as transaction:
        total = rebuild.count_rows(transaction, _TABLES[alias], since=since)
    copied = 0
    for rows in _walk(engine, alias, since):
        answers = write_documents(writer, index, [(row.id, row.version, row.body.encode()) for row in rows])
        for row, answer in zip(rows, answers, strict=True):
            if answer.refusal is not None:
                raise ReindexFailed(f"{index} does not take {row.id}: {answer.refusal}")
            sample.add(row)
        copied += len(rows)
        on_progress(copied, max(total, copied))
    return copied


def _walk(engine: Engine, alias: Alias, since: datetime | None) -> Iterator[list[Row]]:
    match alias:
        case Alias.PRICES:
            return rebuild.walk_prices(engine, page=_PAGE, since=since)
        case Alias.DEALS:
            return deals.walk_deals(engine, page=_PAGE)
        case Alias.METRICS:
            return rebuild.walk_metrics(engine, page=_PAGE, since=since)
        case Alias.PRODUCTS:
            return rebuild.walk_products(engine, page=_PAGE)


@contextmanager
def _open_sink(engine: Engine, connection: SearchConnection, alias: Alias, name: str, index: str) -> Iterator[DeliverySink]:
    if alias is Alias.PRODUCTS:
        with closing(ProductWriter(connection, index=index)) as writer:
            yield EnrichSink(engine, writer, name=name)
    else:
        with closing(SearchSink(connection, name=name, index=index)) as sink:
            yield sink


def _catch_up(engine: Engine, sink: DeliverySink, settings: RelaySettings) -> int:
    """Deliver until what is left is what has just come."""
    deadline = time.monotonic() + _DRAIN_SECONDS
    delivered = 0
    while True:
        done = relay(engine, sink, settings=settings, longest_seconds=deadline - time.monotonic())
        delivered += done.delivered
        if done.dead:
            raise ReindexFailed(f"{done.dead} events were refused by the new index; `keeper doctor` tells more")
        if done.down or time.monotonic() >= deadline:
            raise ReindexFailed(done.down or "events come faster than the new index takes them")
        if done.is_complete and done.delivered < _PAGE:
            return delivered


def _compare(
    engine: Engine,
    client: "Elasticsearch",
    connection: SearchConnection,
    alias: Alias,
    sink: DeliverySink,
    index: str,
    since: datetime | None,
    copied: _Sample,
) -> int:
    """Count and samples: what PostgreSQL held before the count must be there, in that version or a newer one. Returns the count.

    Args:
        copied: looked at beside the first rows as they are now.
    """
    with engine.begin() as transaction:
        expected = rebuild.count_rows(transaction, _TABLES[alias], since=since)
    sample = [*next(iter(_walk(engine, alias, since)), [])[:_SAMPLE], *copied.rows]
    # Whoever has committed before has queued its event.
    relay(engine, sink, settings=RelaySettings(), longest_seconds=_SWAP_SECONDS)
    indices.refresh(client, connection, index)
    documents = indices.count(client, connection, index)
    if documents < expected:
        raise ReindexFailed(f"{index} holds {documents} documents, PostgreSQL {expected}; nothing was changed")
    stored = indices.fetch_documents(client, connection, index, list({row.id for row in sample}))
    for row in sample:
        found = stored.get(row.id)
        if found is None or found.version < row.version or (found.version == row.version and not _is_same(found.source, row.body)):
            raise ReindexFailed(f"{index} holds another {row.id} than PostgreSQL; nothing was changed")
    return documents


def _is_same(stored: Mapping[str, Any], body: str) -> bool:
    """But for the title: an event keeps the one it had."""
    return {**stored, "product_title": None} == {**json.loads(body), "product_title": None}


def _delete_quietly(client: "Elasticsearch", connection: SearchConnection, alias: Alias, index: str) -> None:
    try:
        indices.delete_index(client, connection, alias, index)
    except KeeperError as error:
        logger.warning("%s is left behind: %s", index, error)
