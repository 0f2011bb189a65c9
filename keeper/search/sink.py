"""The sink `search`: events as documents of `keeper-prices`, `keeper-deals` and `keeper-metrics`.

A price and a Keepa call never change, so their document has the event's id. A deal does: its document has the payload's `deal_id`, and the
event's version is the deal's revision. A deal that says `"deleted": true` deletes the document of its `deal_id`, whatever else it says; its
key is the ASIN as that of every deal, so that it is not overtaken. A price or a call is deleted by a payload of JSON `null`.
"""

import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from keeper.domain.delivery import Outcome, SinkDown, Turn
from keeper.domain.events import EventKind, OutboxMessage, Sink
from keeper.search.bulk import BulkWriter, Document, DocumentAnswer, NotADocument, one_line
from keeper.search.connection import SearchConnection, SearchDown, SearchRefused, open_client, plain_errors, probe
from keeper.search.indices import make_missing, select_complaints
from keeper.search.mapping import Alias, alias_name

logger = logging.getLogger(__name__)

_SHUT_SECONDS = 60.0

ALIASES: Final[Mapping[EventKind, Alias]] = {
    EventKind.PRICE_UPDATE: Alias.PRICES,
    EventKind.DEAL_UPDATE: Alias.DEALS,
    EventKind.KEEPA_CALL: Alias.METRICS,
}


class SearchSink:
    """Events to Elasticsearch, one `_bulk` request per call of `deliver`. Opening it asks nothing of the network.

    Where one of several targets takes nothing (its index is blocked, closed, or may not be written to), the sink is down once; from then
    on one document of each batch tries that target, and what else is for it waits, so that it holds back no other.

    Args:
        name: of its row in `sinks`; a rebuild has one of its own.
        index: full name of the one index that everything goes to; None means each kind to its alias.

    Raises:
        SearchRefused: settings that cannot work, such as a CA file that is missing.
    """

    def __init__(
        self,
        connection: SearchConnection,
        *,
        name: str = Sink.SEARCH,
        index: str | None = None,
        batch_size: int = 2000,
        shards_at_once: int = 2,
    ) -> None:
        self.name = name
        self.batch_size = batch_size
        self.shards_at_once = shards_at_once
        self._connection = connection
        self._index = index
        self._targets = {kind: alias_name(connection, alias) if index is None else index for kind, alias in ALIASES.items()}
        self._client = open_client(connection)
        self._writer = BulkWriter(self._client, connection, requires_alias=index is None)
        self._connecting = threading.Lock()
        self._is_ensured = False
        # Targets that took nothing when they were last tried, with what was said.
        self._shut: dict[str, str] = {}

    def connect(self) -> None:
        """One small question; the first time and after each outage also makes what is missing.

        Raises:
            SinkDown: nobody answers, or what answers cannot be used.
        """
        with self._connecting:
            try:
                probe(self._client, self._connection)
                if self._is_ensured:
                    return
                if self._index is None:
                    self._ensure_aliases()
                else:
                    self._ensure_index(self._index)
            except (SearchDown, SearchRefused) as error:
                self._is_ensured = False
                raise SinkDown(str(error)) from error
            self._is_ensured = True

    def deliver(self, messages: Sequence[OutboxMessage], turn: Turn) -> Iterator[list[Outcome]]:
        """Outcomes per request; mostly there is one.

        A request may hold several messages of a key, and Elasticsearch may take a later one although it refused an earlier one for now.
        The later one then has no outcome, stays where it is and is delivered again after the earlier: its version makes that harmless,
        and until then the newer document is the right one to show.

        Raises:
            SinkDown: nobody answers, or an alias is missing; said after the outcomes that are known.
        """
        held: set[str] = set()
        waiting: list[tuple[OutboxMessage, Document]] = []
        unfit: list[Outcome] = []
        for message in messages:
            made = self._document(message)
            if isinstance(made, Document):
                waiting.append((message, made))
            else:
                unfit.append(Outcome(message, refusal=made, is_final=True))
        if unfit and not turn.is_over():
            yield unfit
        put_off: list[Outcome] = []
        if self._shut and not turn.is_over():
            self._try_shut(waiting)
            waiting, put_off = self._put_off(waiting)
        while waiting and not turn.is_over():
            answers = self._write([document for _, document in waiting])
            if turn.is_lost():
                return
            outcomes, faults = _outcomes(waiting, answers, held)
            yield outcomes
            if faults:
                self._is_ensured = False
                self._shut.update(faults)
                raise SinkDown(next(iter(faults.values())))
            waiting = [(message, document) for message, document in waiting[len(answers) :] if message.key not in held]
        if (late := [outcome for outcome in put_off if outcome.message.key not in held]) and not turn.is_lost():
            yield late

    def store(self, connection: object, outcome: Outcome, *, is_dead: bool) -> None:
        """Nothing: the document is the note."""

    def close(self) -> None:
        """End the connections."""
        self._client.close()

    def _write(self, documents: Sequence[Document]) -> list[DocumentAnswer]:
        try:
            return self._writer.write_first(documents)
        except (SearchDown, SearchRefused) as error:
            self._is_ensured = False
            raise SinkDown(str(error)) from error

    def _try_shut(self, waiting: Sequence[tuple[OutboxMessage, Document]]) -> None:
        """Send the first document for each target that is shut; sent again with the others it changes nothing.

        Raises:
            SinkDown: nobody answers, or all targets are shut.
        """
        first: dict[str, Document] = {}
        for _, document in waiting:
            if document.target in self._shut:
                first.setdefault(document.target, document)
        for document in first.values():
            (answer,) = self._write([document])
            if answer.is_index_fault:
                self._shut[document.target] = _fault(document, answer)
            else:
                self._shut.pop(document.target, None)
        if first and self._shut.keys() >= set(self._targets.values()):
            self._is_ensured = False
            raise SinkDown("; ".join(self._shut.values()))

    def _put_off(self, waiting: Sequence[tuple[OutboxMessage, Document]]) -> tuple[list[tuple[OutboxMessage, Document]], list[Outcome]]:
        """What can be sent, and what waits because its target is shut; with it wait the later ones of its key, which get no outcome."""
        fit, put_off = [], []
        late: set[str] = set()
        for message, document in waiting:
            if message.key in late:
                continue
            if (reason := self._shut.get(document.target)) is None:
                fit.append((message, document))
                continue
            late.add(message.key)
            put_off.append(Outcome(message, refusal=reason, retry_after_seconds=_SHUT_SECONDS, is_unreachable=True))
        return fit, put_off

    def _ensure_aliases(self) -> None:
        for line in make_missing(self._client, self._connection):
            logger.info("%s", line)
        complaints = select_complaints(self._client, self._connection, tuple(ALIASES.values()))
        for complaint in complaints:
            logger.warning("%s", complaint.text)
        blocking = [complaint.text for complaint in complaints if complaint.is_blocking]
        if len(blocking) == len(ALIASES):
            raise SearchRefused("; ".join(blocking))

    def _ensure_index(self, index: str) -> None:
        with plain_errors(self._connection):
            is_there = bool(self._client.indices.exists(index=index))
        if not is_there:
            raise SearchRefused(f"index {index}, which is being filled, is gone; end this rebuild and start another")

    def _document(self, message: OutboxMessage) -> Document | str:
        """The document, or why there is none."""
        target = self._targets.get(message.kind)
        if target is None:
            return f"events of kind {message.kind} are no documents"
        try:
            body = one_line(message.body.encode())
        except NotADocument as error:
            return str(error)
        if message.kind is not EventKind.DEAL_UPDATE:
            return Document(target, message.event_id, message.version, body)
        if body is None:
            return "a deal is deleted by its deal_id and `deleted`, not by null"
        try:
            deal = json.loads(body)
        except ValueError:
            return "the deal is not JSON"
        deal_id = deal.get("deal_id")
        if not deal_id or not isinstance(deal_id, str):
            return "the deal has no deal_id"
        return Document(target, deal_id, message.version, None if deal.get("deleted") is True else body)


def _outcomes(
    sent: Sequence[tuple[OutboxMessage, Document]], answers: Sequence[DocumentAnswer], held: set[str]
) -> tuple[list[Outcome], dict[str, str]]:
    """What became of each message, and why a target takes nothing. Adds to `held` the keys that must wait."""
    outcomes = []
    faults: dict[str, str] = {}
    for (message, document), answer in zip(sent, answers, strict=False):
        if message.key in held:
            continue
        if answer.refusal is None:
            outcomes.append(Outcome(message, receipt=answer.receipt))
            continue
        if answer.is_index_fault:
            held.add(message.key)
            faults.setdefault(document.target, _fault(document, answer))
            continue
        if not answer.is_final:
            held.add(message.key)
        outcomes.append(
            Outcome(
                message,
                refusal=answer.refusal,
                retry_after_seconds=answer.retry_after_seconds,
                is_final=answer.is_final,
                is_unreachable=answer.is_unreachable,
            )
        )
    return outcomes, faults


def _fault(document: Document, answer: DocumentAnswer) -> str:
    return f"{document.target} cannot be written to: {answer.refusal}"
