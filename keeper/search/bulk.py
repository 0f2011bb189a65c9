"""Whole documents into Elasticsearch by `_bulk`, with an external version each and an answer for each.

A document that is there in the same or a newer version counts as written (409), so every write may be repeated, in any order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from typing import Any, Final, NamedTuple

from elasticsearch import ApiError, Elasticsearch

from keeper.search.connection import SearchConnection, SearchDown, SearchRefused, plain_errors

# Far below http.max_content_length (100 MB), so that a request stays small in the memory of both sides.
LARGEST_REQUEST_BYTES: Final = 8 * 1024 * 1024
_LONGEST_REASON = 300
_BUSY_SECONDS = 5.0
_BUSY = frozenset({429, 503})
_TOO_LARGE = 413
_ANSWER_FIELDS = ",".join(f"items.*.{field}" for field in ("status", "error.type", "error.reason", "error.caused_by.reason"))
# The index is at fault, not the document.
_INDEX_FAULTS = frozenset({"index_not_found_exception", "index_closed_exception", "cluster_block_exception", "security_exception"})
_NO_WRITE_INDEX = "no write index is defined for alias"


class Document(NamedTuple):
    """One whole document on its way.

    Attributes:
        target: full name of an alias or index.
        body: a JSON object; None deletes what has this id and an older version.
    """

    target: str
    id: str
    version: int
    body: bytes | None


@dataclass(frozen=True, slots=True)
class DocumentAnswer:
    """What Elasticsearch said to one document.

    Attributes:
        refusal: None when it is written, or a newer one is there.
        receipt: what it said on success.
        is_final: the same document will be refused again.
        is_unreachable: the answer was `later`.
        retry_after_seconds: how long to wait at least.
        is_index_fault: no document can be written there until somebody does something.
    """

    refusal: str | None = None
    receipt: str = ""
    is_final: bool = False
    is_unreachable: bool = False
    retry_after_seconds: float | None = None
    is_index_fault: bool = False


_WRITTEN = DocumentAnswer(receipt="written")
_NEWER = DocumentAnswer(receipt="the same or a newer version is there")
_NOTHING_TO_DELETE = DocumentAnswer(receipt="there was nothing to delete")
_LARGE = DocumentAnswer(refusal="the document is larger than Elasticsearch, or a proxy before it, takes", is_final=True)


class BulkWriter:
    """Writes documents. Safe to share between threads.

    Args:
        requires_alias: whether targets must be aliases, so that no write can make an index under an alias's name.
        largest_bytes: of one request; lowered by itself where the server or a proxy before it takes less.
    """

    def __init__(
        self,
        client: Elasticsearch,
        connection: SearchConnection,
        *,
        requires_alias: bool = True,
        largest_bytes: int = LARGEST_REQUEST_BYTES,
    ) -> None:
        self._client = client
        self._connection = connection
        self._largest_bytes = largest_bytes
        # Below our own wait, so that a shard that is away is told per document.
        seconds = max(1, int(connection.timeout_seconds / 2))
        self._params = {"filter_path": _ANSWER_FIELDS, "timeout": f"{seconds}s", "require_alias": "true" if requires_alias else "false"}

    def write_first(self, documents: Sequence[Document]) -> list[DocumentAnswer]:
        """Send as many from the front as one request takes, at least one. Returns their answers, in order.

        Raises:
            SearchDown: nobody answers, or it takes none of them now; it may have written some all the same.
            SearchRefused: it answers nobody like us.
        """
        while True:
            lines, sent = self._request(documents)
            try:
                answers = self._send(lines, sent)
            except _RequestTooLarge:
                if sent == 1:
                    return [_LARGE]
                self._largest_bytes = min(self._largest_bytes, len(lines)) // 2
                continue
            if answers and all(answer.is_unreachable and answer.retry_after_seconds is not None for answer in answers):
                # The server is at fault, also where it was asked for one document only, and a server that is down refuses nothing.
                raise SearchDown(f"Elasticsearch at {self._connection.place} takes nothing now: {answers[0].refusal}")
            return answers

    def _request(self, documents: Sequence[Document]) -> tuple[bytes, int]:
        """The body of a request, and how many documents it holds."""
        parts: list[bytes] = []
        size = 0
        for sent, document in enumerate(documents):
            action = _action(document)
            added = len(action) + (len(document.body) if document.body is not None else 0)
            if sent and size + added > self._largest_bytes:
                return b"".join(parts), sent
            size += added
            parts.append(action)
            if document.body is not None:
                parts.append(document.body)
                parts.append(b"\n")
        return b"".join(parts), len(documents)

    def _send(self, lines: bytes, sent: int) -> list[DocumentAnswer]:
        with plain_errors(self._connection):
            try:
                answer: Any = self._client.perform_request(
                    "POST",
                    "/_bulk",
                    params=self._params,
                    headers={"accept": "application/json", "content-type": "application/x-ndjson"},
                    body=lines,
                ).body
            except ApiError as error:
                if error.meta.status == _TOO_LARGE:
                    raise _RequestTooLarge from error
                raise
        told = answer.get("items", ()) if isinstance(answer, dict) else ()
        if len(told) != sent:
            raise SearchDown(f"Elasticsearch at {self._connection.place} answered for {len(told)} of {sent} documents")
        return [self._answer(one) for one in told]

    def _answer(self, told: dict[str, Any]) -> DocumentAnswer:
        ((action, one),) = told.items()
        status: int = one["status"]
        error = one.get("error")
        if error is None:
            return _NOTHING_TO_DELETE if action == "delete" and status == 404 else _WRITTEN
        kind, reason = error.get("type", ""), error.get("reason", "")
        if kind == "version_conflict_engine_exception":
            return _NEWER
        cause = error.get("caused_by", {}).get("reason", "")
        refusal = f"{status} {kind}: {reason}" + (f" ({cause})" if cause and cause not in reason else "")
        refusal = self._connection.redact(refusal)[:_LONGEST_REASON]
        # A disk that is full is told as a block too, and is the server's fault.
        if status not in _BUSY and (kind in _INDEX_FAULTS or reason.startswith(_NO_WRITE_INDEX)):
            return DocumentAnswer(refusal=refusal, is_unreachable=True, is_index_fault=True)
        if status in _BUSY:
            return DocumentAnswer(refusal=refusal, is_unreachable=True, retry_after_seconds=_BUSY_SECONDS)
        return DocumentAnswer(refusal=refusal, is_final=status < 500, is_unreachable=status >= 500)


def write_documents(writer: BulkWriter, target: str, documents: Iterable[tuple[str, int, bytes | None]]) -> list[DocumentAnswer]:
    """Write (id, version, body) documents to one alias or index, as many requests as it takes. Returns one answer each, in order.

    A body of None, or JSON `null`, deletes. Writing them again after an error is harmless.

    Raises:
        SearchDown: nobody answers, or the alias is missing.
        SearchRefused: it answers nobody like us.
    """
    waiting = []
    answers: dict[int, DocumentAnswer] = {}
    for place, (document_id, version, body) in enumerate(documents):
        try:
            waiting.append((place, Document(target, document_id, version, None if body is None else one_line(body))))
        except NotADocument as error:
            answers[place] = DocumentAnswer(refusal=str(error), is_final=True)
    while waiting:
        sent = writer.write_first([document for _, document in waiting])
        for (place, _), answer in zip(waiting, sent, strict=False):
            if answer.is_index_fault:
                raise SearchDown(f"{target} cannot be written to: {answer.refusal}")
            answers[place] = answer
        del waiting[: len(sent)]
    return [answers[place] for place in sorted(answers)]


def one_line(body: bytes) -> bytes | None:
    """A JSON object as one line, None for JSON `null`. Nothing is decoded: in JSON a line break stands only between tokens.

    Raises:
        NotADocument: neither an object nor `null`.
    """
    if body.startswith(b"{"):
        return body.replace(b"\n", b" ") if b"\n" in body else body
    stripped = body.strip()
    if stripped == b"null":
        return None
    if not stripped.startswith(b"{"):
        raise NotADocument
    return stripped.replace(b"\n", b" ")


class NotADocument(SearchRefused, ValueError):
    """What should be a document is no JSON object."""

    def __init__(self) -> None:
        super().__init__("the document is not a JSON object")


class _RequestTooLarge(Exception):
    """413; says nothing of a single document."""


def _action(document: Document) -> bytes:
    verb = "delete" if document.body is None else "index"
    return (
        f'{{"{verb}":{{"_index":"{document.target}","_id":{encode_basestring_ascii(document.id)},'
        f'"version":{document.version},"version_type":"external"}}}}\n'
    ).encode()
