"""What a bulk request is made of, and what its answers mean."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from elastic_transport import ApiResponseMeta, BaseNode, HttpHeaders, NodeConfig
from elastic_transport._node import NodeApiResponse
from elasticsearch import Elasticsearch

from keeper.search.bulk import BulkWriter, Document, NotADocument, one_line, write_documents
from keeper.search.connection import SearchConnection, SearchDown

CONNECTION = SearchConnection(("http://search.test:9200",))


class Scripted(BaseNode):
    """A node that keeps what it is asked and answers as told: a status for the request, or one per document."""

    asked: list[bytes]
    largest_bytes: int
    item: Any
    left_out: int

    def perform_request(self, *_request: object, body: bytes | None = None, **_options: object) -> NodeApiResponse:
        assert body is not None
        kind = type(self)
        kind.asked.append(body)
        status = 413 if len(body) > kind.largest_bytes else 200
        actions = [json.loads(line) for line in body.splitlines() if line.startswith((b'{"index"', b'{"delete"'))]
        answer = (
            {"items": [{next(iter(action)): kind.item} for action in actions[kind.left_out :]]} if status == 200 else {"error": "too large"}
        )
        sent = HttpHeaders({"content-type": "application/json", "x-elastic-product": "Elasticsearch"})
        return NodeApiResponse(ApiResponseMeta(status, "1.1", sent, 0.0, self.config), json.dumps(answer).encode())


@pytest.fixture
def node() -> Iterator[type[Scripted]]:
    class Node(Scripted):
        asked: list[bytes] = []  # noqa: RUF012  made anew for each test
        largest_bytes = 10**9
        item: Any = {"status": 201}  # noqa: RUF012
        left_out = 0

    yield Node


def _writer(node: type[Scripted], *, largest_bytes: int = 10**6) -> BulkWriter:
    client = Elasticsearch([NodeConfig("http", "search.test", 9200)], node_class=node, max_retries=0)
    return BulkWriter(client, CONNECTION, largest_bytes=largest_bytes)


def _documents(number: int, size: int = 100) -> list[Document]:
    return [Document("prices", f"id-{place}", 1, b'{"a":"' + b"x" * size + b'"}') for place in range(number)]


@pytest.mark.parametrize(
    ("body", "line"),
    [
        pytest.param(b'{"a":1}', b'{"a":1}', id="one line stays"),
        pytest.param(b'{"a":\n1}', b'{"a": 1}', id="a line break becomes a space"),
        pytest.param(b' \n{"a":1}\n', b'{"a":1}', id="around it nothing"),
        pytest.param(b"null", None, id="null deletes"),
        pytest.param(b" null\n", None, id="null with space around"),
    ],
)
def test_body_becomes_one_line(body: bytes, line: bytes | None) -> None:
    assert one_line(body) == line


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b'"x"', b"nul"], ids=repr)
def test_what_is_no_object_is_no_document(body: bytes) -> None:
    with pytest.raises(NotADocument):
        one_line(body)


def test_body_goes_out_as_it_is(node: type[Scripted]) -> None:
    body = '{"title":"Büro  \\u00fc", "price":49.90}'.encode()
    _writer(node).write_first([Document("prices", "id-1", 7, body)])
    assert node.asked == [b'{"index":{"_index":"prices","_id":"id-1","version":7,"version_type":"external"}}\n' + body + b"\n"]


def test_deletion_has_no_body(node: type[Scripted]) -> None:
    _writer(node).write_first([Document("prices", 'a "b"', 7, None)])
    assert node.asked == [b'{"delete":{"_index":"prices","_id":"a \\"b\\"","version":7,"version_type":"external"}}\n']


def test_requests_are_bounded_in_bytes(node: type[Scripted]) -> None:
    answers = write_documents(_writer(node, largest_bytes=1000), "prices", [(f"{n}", 1, b'{"a":"' + b"x" * 100 + b'"}') for n in range(20)])
    assert len(answers) == 20
    assert max(len(body) for body in node.asked) <= 1020
    assert len(node.asked) < 20


def test_one_document_above_the_bound_goes_alone(node: type[Scripted]) -> None:
    assert len(_writer(node, largest_bytes=50).write_first(_documents(2))) == 1


def test_smaller_requests_follow_where_the_server_takes_less(node: type[Scripted]) -> None:
    node.largest_bytes = 700
    answers = write_documents(_writer(node), "prices", [(f"{n}", 1, b'{"a":"' + b"x" * 100 + b'"}') for n in range(20)])
    assert [answer.refusal for answer in answers] == [None] * 20
    assert len(node.asked) < 20


def test_document_that_is_too_large_alone_is_refused_for_good(node: type[Scripted]) -> None:
    node.largest_bytes = 100
    (answer,) = _writer(node).write_first(_documents(1, size=1000))
    assert answer.is_final
    assert answer.refusal is not None


def _error(kind: str, reason: str = "because") -> dict[str, str]:
    return {"type": kind, "reason": reason}


@pytest.mark.parametrize(
    ("item", "facts"),
    [
        pytest.param({"status": 201}, "ok", id="written"),
        pytest.param({"status": 200}, "ok", id="written over"),
        pytest.param({"status": 409, "error": _error("version_conflict_engine_exception")}, "ok", id="same or newer there"),
        pytest.param({"status": 400, "error": _error("document_parsing_exception")}, "final", id="wrong type"),
        pytest.param({"status": 500, "error": _error("exception")}, "unreachable", id="server's own error"),
        pytest.param({"status": 404, "error": _error("index_not_found_exception")}, "index", id="index missing"),
        pytest.param({"status": 403, "error": _error("cluster_block_exception")}, "index", id="read only"),
        pytest.param({"status": 403, "error": _error("security_exception")}, "index", id="not allowed there"),
        pytest.param({"status": 400, "error": _error("index_closed_exception")}, "index", id="index closed"),
        pytest.param(
            {"status": 400, "error": _error("illegal_argument_exception", "no write index is defined for alias [x]. Or so")},
            "index",
            id="alias on several indices",
        ),
    ],
)
def test_answer_to_a_document(node: type[Scripted], item: dict[str, Any], facts: str) -> None:
    node.item = item
    (answer,) = _writer(node).write_first(_documents(1))
    said = {
        "ok": answer.refusal is None,
        "final": answer.is_final,
        "unreachable": answer.is_unreachable and answer.retry_after_seconds is None and not answer.is_index_fault,
        "index": answer.is_index_fault,
    }
    assert [name for name, is_so in said.items() if is_so] == [facts]


def test_deleting_what_is_not_there_is_fine(node: type[Scripted]) -> None:
    node.item = {"status": 404}
    (answer,) = _writer(node).write_first([Document("prices", "id-1", 2, None)])
    assert answer.refusal is None


def test_reason_is_cut_short(node: type[Scripted]) -> None:
    node.item = {"status": 400, "error": _error("document_parsing_exception", "x" * 5000)}
    (answer,) = _writer(node).write_first(_documents(1))
    assert len(answer.refusal or "") == 300


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        pytest.param(429, "es_rejected_execution_exception", id="overloaded"),
        pytest.param(429, "cluster_block_exception", id="disk full"),
        pytest.param(503, "unavailable_shards_exception", id="no shard"),
    ],
)
def test_server_that_takes_nothing_is_down(node: type[Scripted], status: int, kind: str, number: int) -> None:
    node.item = {"status": status, "error": _error(kind)}
    with pytest.raises(SearchDown, match="takes nothing now"):
        _writer(node).write_first(_documents(number))


def test_answer_for_fewer_documents_is_no_answer(node: type[Scripted]) -> None:
    node.left_out = 1
    with pytest.raises(SearchDown, match="1 of 2"):
        _writer(node).write_first(_documents(2))


def test_missing_alias_is_said_for_all_documents(node: type[Scripted]) -> None:
    node.item = {"status": 404, "error": _error("index_not_found_exception")}
    with pytest.raises(SearchDown, match="products cannot be written to"):
        write_documents(_writer(node), "products", [("B000000001", 3, b"{}")])


def test_answers_keep_the_order_of_the_documents(node: type[Scripted]) -> None:
    answers = write_documents(_writer(node), "products", [("a", 1, b"{}"), ("b", 1, b"[]"), ("c", 1, None)])
    assert [answer.is_final for answer in answers] == [False, True, False]
