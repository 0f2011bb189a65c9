"""The sink on the real server, and behind a network that fails."""

import json
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from elasticsearch import Elasticsearch

from keeper.domain.delivery import Outcome, SinkDown, Turn
from keeper.domain.events import EventKind, OutboxMessage
from keeper.search import indices
from keeper.search.connection import SearchConnection, open_client
from keeper.search.mapping import Alias, alias_name
from keeper.search.sink import SearchSink
from tests.integration.notify.http_edge import HttpServer
from tests.services.proxy import Proxy
from tests.services.session import ElasticsearchService

ON = Turn(is_over=lambda: False, is_lost=lambda: False)


@pytest.fixture
def connection(elasticsearch: ElasticsearchService) -> SearchConnection:
    return SearchConnection((elasticsearch.url,), index_prefix=elasticsearch.prefix)


@pytest.fixture
def client(connection: SearchConnection) -> Iterator[Elasticsearch]:
    opened = open_client(connection)
    yield opened
    opened.close()


@pytest.fixture
def sink(connection: SearchConnection) -> Iterator[SearchSink]:
    opened = SearchSink(connection)
    opened.connect()
    yield opened
    opened.close()


def _price(price: Any = 49.99, *, event_id: UUID | None = None, key: str = "B000000001") -> OutboxMessage:
    body = json.dumps({"asin": key, "product_title": "Tastatur", "current_price": price, "timestamp": "2026-02-20T12:30:00Z"})
    return OutboxMessage(1, str(event_id or uuid4()), EventKind.PRICE_UPDATE, key, 1, body)


def _deal(version: int, body: str, *, key: str = "B000000001") -> OutboxMessage:
    return OutboxMessage(1, str(uuid4()), EventKind.DEAL_UPDATE, key, version, body)


def _delivered(sink: SearchSink, messages: Sequence[OutboxMessage], turn: Turn = ON) -> list[Outcome]:
    return [outcome for outcomes in sink.deliver(messages, turn) for outcome in outcomes]


def _documents(client: Elasticsearch, connection: SearchConnection, alias: Alias, *ids: str) -> dict[str, indices.StoredDocument]:
    return indices.fetch_documents(client, connection, alias_name(connection, alias), ids)


def test_price_is_stored_as_it_is_under_its_event_id(sink: SearchSink, client: Elasticsearch, connection: SearchConnection) -> None:
    message = _price()
    (outcome,) = _delivered(sink, [message])
    assert (outcome.refusal, outcome.receipt) == (None, "written")
    found = _documents(client, connection, Alias.PRICES, str(message.event_id))
    assert found == {str(message.event_id): indices.StoredDocument(1, json.loads(message.body))}


def test_repeat_counts_as_delivered_and_changes_nothing(sink: SearchSink, client: Elasticsearch, connection: SearchConnection) -> None:
    message = _price()
    outcomes = [_delivered(sink, [message])[0] for _ in range(2)]
    assert [outcome.refusal for outcome in outcomes] == [None, None]
    assert outcomes[1].receipt == "the same or a newer version is there"


def test_each_kind_goes_to_its_alias(sink: SearchSink, client: Elasticsearch, connection: SearchConnection) -> None:
    call = OutboxMessage(1, str(uuid4()), EventKind.KEEPA_CALL, "call", 1, '{"operation":"product","tokens_left":-3,"success":true}')
    price, deal = _price(), _deal(1, '{"deal_id":"deal-1"}')
    assert [outcome.refusal for outcome in _delivered(sink, [call, price, deal])] == [None] * 3
    assert _documents(client, connection, Alias.METRICS, str(call.event_id))
    assert _documents(client, connection, Alias.PRICES, str(price.event_id))
    assert _documents(client, connection, Alias.DEALS, "deal-1")


def test_late_older_deal_does_not_replace_the_newer(sink: SearchSink, client: Elasticsearch, connection: SearchConnection) -> None:
    newer, older = _deal(5, '{"deal_id":"deal-1","current_price":5}'), _deal(4, '{"deal_id":"deal-1","current_price":4}')
    assert [outcome.refusal for outcome in _delivered(sink, [newer, older])] == [None, None]
    assert _documents(client, connection, Alias.DEALS, "deal-1")["deal-1"] == indices.StoredDocument(5, json.loads(newer.body))


def test_deleted_deal_stays_deleted_for_a_late_older_one(sink: SearchSink, client: Elasticsearch, connection: SearchConnection) -> None:
    messages = [_deal(1, '{"deal_id":"deal-1"}'), _deal(3, '{"deal_id":"deal-1","deleted":true}'), _deal(2, '{"deal_id":"deal-1"}')]
    assert [outcome.refusal for outcome in _delivered(sink, messages)] == [None] * 3
    assert _documents(client, connection, Alias.DEALS, "deal-1") == {}


def test_deletion_of_one_deal_leaves_the_others_of_its_product(
    sink: SearchSink, client: Elasticsearch, connection: SearchConnection
) -> None:
    """Both have the product's ASIN as their key; the deletion is whole, as Kafka carries it."""
    whole = '{"asin":"B000000001","deal_id":"deal-1","revision":2,"current_price":5,"deleted":true}'
    messages = [_deal(1, '{"deal_id":"deal-1"}'), _deal(1, '{"deal_id":"deal-2","deleted":false}'), _deal(2, whole)]
    assert [outcome.refusal for outcome in _delivered(sink, messages)] == [None] * 3
    assert set(_documents(client, connection, Alias.DEALS, "deal-1", "deal-2", "B000000001")) == {"deal-2"}


def test_deletion_of_what_is_not_there_is_delivered(sink: SearchSink) -> None:
    (outcome,) = _delivered(sink, [OutboxMessage(1, str(uuid4()), EventKind.PRICE_UPDATE, "B000000001", 1, "null")])
    assert outcome.refusal is None


def test_unknown_field_rejects_nothing(sink: SearchSink) -> None:
    message = OutboxMessage(1, str(uuid4()), EventKind.PRICE_UPDATE, "k", 1, '{"asin":"B000000001","from_the_future":[{"a":1},"b"]}')
    assert _delivered(sink, [message])[0].refusal is None


def test_rejected_document_is_refused_for_good_with_the_reason_and_delays_no_other(sink: SearchSink) -> None:
    bad, good = _price("not a number"), _price(key="B000000002")
    first, second = _delivered(sink, [bad, good])
    assert first.is_final
    assert first.refusal is not None
    assert "current_price" in first.refusal
    assert "Tastatur" not in first.refusal
    assert second.refusal is None


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        pytest.param(EventKind.PRICE_UPDATE, "[]", id="no object"),
        pytest.param(EventKind.PRICE_UPDATE, '{"asin":', id="broken JSON"),
        pytest.param(EventKind.DEAL_UPDATE, '{"asin":"B000000001"}', id="deal without id"),
        pytest.param(EventKind.DEAL_UPDATE, '{"deal_id":', id="broken deal"),
        pytest.param(EventKind.DEAL_UPDATE, "null", id="deletion that names no deal"),
        pytest.param(EventKind.DEAL_UPDATE, '{"deleted":true}', id="deletion without id"),
        pytest.param(EventKind.ALERT, "{}", id="kind that is no document"),
    ],
)
def test_what_can_be_no_document_is_refused_for_good(sink: SearchSink, kind: EventKind, body: str) -> None:
    (outcome,) = _delivered(sink, [OutboxMessage(1, str(uuid4()), kind, "k", 1, body)])
    assert outcome.is_final


def test_body_with_line_breaks_is_one_document(sink: SearchSink, client: Elasticsearch, connection: SearchConnection) -> None:
    message = OutboxMessage(1, str(uuid4()), EventKind.PRICE_UPDATE, "k", 1, '\n{"asin":\n"B000000001"\n}\n')
    assert _delivered(sink, [message])[0].refusal is None
    assert _documents(client, connection, Alias.PRICES, str(message.event_id))


def test_alias_that_goes_missing_is_made_again_at_the_next_connect(
    sink: SearchSink, client: Elasticsearch, connection: SearchConnection
) -> None:
    client.indices.delete(index=f"{connection.index_prefix}keeper-prices-v1-000001")
    message, call = _price(), OutboxMessage(1, str(uuid4()), EventKind.KEEPA_CALL, "call", 1, "{}")
    known: list[Outcome] = []
    with pytest.raises(SinkDown, match="keeper-prices cannot be written to"):
        for outcomes in sink.deliver([message, call], ON):
            known += outcomes
    assert [outcome.message for outcome in known] == [call]
    sink.connect()
    assert _delivered(sink, [message])[0].refusal is None


@pytest.mark.parametrize("shut", ["blocked", "closed", "a plain index of its name"])
def test_alias_that_takes_nothing_holds_back_its_own_keys_only(
    client: Elasticsearch, connection: SearchConnection, caplog: pytest.LogCaptureFixture, shut: str
) -> None:
    name, index = alias_name(connection, Alias.PRICES), f"{connection.index_prefix}keeper-prices-v1-000001"
    sink = SearchSink(connection)
    if shut == "a plain index of its name":
        client.indices.create(index=name)
    sink.connect()
    if shut == "blocked":
        client.indices.put_settings(index=index, settings={"index.blocks.write": True})
    elif shut == "closed":
        client.indices.close(index=index)
    made = [
        _deal(1, '{"deal_id": "d1"}', key="B1"),
        _price(key="B1"),
        _deal(2, '{"deal_id": "d1"}', key="B1"),
        _price(key="B2"),
        _deal(1, '{"deal_id": "d2"}', key="B3"),
    ]
    messages = [message._replace(seq=seq) for seq, message in enumerate(made)]
    with pytest.raises(SinkDown, match="keeper-prices cannot be written to"):
        _delivered(sink, messages)
    sink.connect()
    taken, waits = (True, False), (False, True)
    outcomes = _delivered(sink, messages)
    assert {one.message.seq: (one.refusal is None, one.is_unreachable) for one in outcomes} == {0: taken, 1: waits, 3: waits, 4: taken}
    if shut == "blocked":
        client.indices.put_settings(index=index, settings={"index.blocks.write": False})
    elif shut == "closed":
        client.indices.open(index=index)
    else:
        assert "is an index that Keeper did not make" in caplog.text
        assert client.indices.exists(index=name)
        client.indices.delete(index=name)
        indices.make_missing(client, connection)
    assert [outcome.refusal for outcome in _delivered(sink, messages)] == [None] * 5
    sink.close()


def test_sink_without_any_alias_to_write_to_is_down(client: Elasticsearch, connection: SearchConnection) -> None:
    for alias in (Alias.PRICES, Alias.DEALS, Alias.METRICS):
        client.indices.create(index=alias_name(connection, alias))
    sink = SearchSink(connection)
    with pytest.raises(SinkDown, match="is an index that Keeper did not make"):
        sink.connect()
    sink.close()


def test_sink_of_a_rebuild_fills_its_one_index(sink: SearchSink, client: Elasticsearch, connection: SearchConnection) -> None:
    index = indices.make_next_index(client, connection, Alias.PRICES)
    rebuild = SearchSink(connection, name=f"search.{index}", index=index)
    rebuild.connect()
    message = _price()
    assert _delivered(rebuild, [message])[0].refusal is None
    assert indices.fetch_documents(client, connection, index, [str(message.event_id)])
    assert _documents(client, connection, Alias.PRICES, str(message.event_id)) == {}
    indices.delete_index(client, connection, Alias.PRICES, index)
    with pytest.raises(SinkDown, match="no such index"):
        _delivered(rebuild, [message])
    with pytest.raises(SinkDown, match="is gone"):
        rebuild.connect()
    rebuild.close()


def test_nothing_is_sent_after_the_turn_is_over(sink: SearchSink) -> None:
    assert _delivered(sink, [_price()], Turn(is_over=lambda: True, is_lost=lambda: False)) == []


def test_nothing_is_acknowledged_after_the_turn_is_lost(sink: SearchSink) -> None:
    assert _delivered(sink, [_price()], Turn(is_over=lambda: False, is_lost=lambda: True)) == []


@pytest.fixture
def proxy(elasticsearch: ElasticsearchService) -> Iterator[Proxy]:
    port = urlsplit(elasticsearch.url).port
    assert port is not None
    with Proxy(port) as running:
        yield running


@pytest.mark.parametrize("failure", ["cut", "half_open"])
def test_sink_is_down_while_nobody_answers_and_works_again_by_itself(
    failure: str, proxy: Proxy, elasticsearch: ElasticsearchService
) -> None:
    sink = SearchSink(SearchConnection((f"http://{proxy.address}",), index_prefix=elasticsearch.prefix, timeout_seconds=1))
    sink.connect()
    messages = [_price() for _ in range(3)]
    assert len(_delivered(sink, messages)) == 3
    getattr(proxy, failure)()
    with pytest.raises(SinkDown, match=r"cannot be reached|does not answer within 1 s"):
        _delivered(sink, messages)
    with pytest.raises(SinkDown, match=r"cannot be reached|does not answer within 1 s"):
        sink.connect()
    proxy.restore()
    sink.connect()
    assert [outcome.refusal for outcome in _delivered(sink, messages)] == [None] * 3
    sink.close()


def test_sink_that_is_opened_before_the_server_works_once_it_is_there(proxy: Proxy, elasticsearch: ElasticsearchService) -> None:
    proxy.cut()
    sink = SearchSink(SearchConnection((f"http://{proxy.address}",), index_prefix=elasticsearch.prefix, timeout_seconds=5))
    with pytest.raises(SinkDown):
        sink.connect()
    proxy.restore()
    sink.connect()
    assert _delivered(sink, [_price()])[0].refusal is None
    sink.close()


def _edge(status: int, answer: dict[str, Any]) -> HttpServer:
    return HttpServer(status=status, body=json.dumps(answer).encode(), headers={"X-Elastic-Product": "Elasticsearch"})


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        pytest.param(429, "es_rejected_execution_exception", "overloaded", id="overloaded"),
        pytest.param(503, "cluster_block_exception", "fails \\(503", id="no master"),
        pytest.param(500, "exception", "fails \\(500", id="its own error"),
        pytest.param(401, "security_exception", "does not accept our credentials", id="wrong key"),
        pytest.param(403, "security_exception", "does not allow it", id="key without the right"),
    ],
)
def test_request_that_fails_as_a_whole_means_down(status: int, kind: str, words: str) -> None:
    with _edge(status, {"error": {"type": kind, "reason": "because"}}) as server:
        sink = SearchSink(SearchConnection((server.url,)))
        with pytest.raises(SinkDown, match=words):
            _delivered(sink, [_price(), _price()])
        assert len(server.asked) == 1
        sink.close()


@pytest.mark.parametrize("version", ["8.19.3", "7.17.0"])
def test_older_server_is_down_in_plain_words(version: str) -> None:
    with _edge(200, {"version": {"number": version}}) as server:
        sink = SearchSink(SearchConnection((server.url,)))
        with pytest.raises(SinkDown, match=f"is {version}; Keeper needs 9 or newer"):
            sink.connect()
        sink.close()


def _told(*statuses: int) -> dict[str, Any]:
    errors = {429: "es_rejected_execution_exception", 500: "exception", 400: "document_parsing_exception"}
    return {"items": [{"index": {"status": s} | ({"error": {"type": errors[s], "reason": "r"}} if s in errors else {})} for s in statuses]}


@pytest.mark.parametrize("status", [429, 500])
def test_document_refused_for_now_holds_back_the_later_ones_of_its_key_only(status: int) -> None:
    first, second, other = _price(key="B000000001"), _price(key="B000000001"), _price(key="B000000002")
    with _edge(200, _told(status, 201, 201)) as server:
        sink = SearchSink(SearchConnection((server.url,)))
        outcomes = _delivered(sink, [first, second, other])
        sink.close()
    assert [(outcome.message, outcome.is_unreachable, outcome.is_final) for outcome in outcomes] == [
        (first, True, False),
        (other, False, False),
    ]


def test_document_refused_for_good_lets_the_later_ones_of_its_key_go() -> None:
    first, second = _price(), _price()
    with _edge(200, _told(400, 201)) as server:
        sink = SearchSink(SearchConnection((server.url,)))
        outcomes = _delivered(sink, [first, second])
        sink.close()
    assert [outcome.message for outcome in outcomes] == [first, second]


def test_busy_server_says_how_long_to_wait() -> None:
    with _edge(200, _told(429, 201)) as server:
        sink = SearchSink(SearchConnection((server.url,)))
        outcomes = _delivered(sink, [_price(), _price(key="B000000002")])
        sink.close()
    assert outcomes[0].retry_after_seconds
