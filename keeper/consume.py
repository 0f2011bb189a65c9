"""The loop that feeds batches of Kafka to the verbs `ingest` and `enrich`.

Offsets are committed after the write, so a batch whose consumer died is worked on again; the verbs are idempotent. What cannot be read goes
to the dead letters of its topic before its offset is committed. While the database or the index is away nothing is committed and the same
batch is tried again.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from sqlalchemy import Engine

from keeper.domain.errors import TransientError
from keeper.enrich import ProductIndex, ProductTopic, enrich
from keeper.ingest import Message, ingest_raw
from keeper.postgres.engine import is_away

logger = logging.getLogger(__name__)

_READ_SECONDS = 1.0
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 30.0
# Below the time after which a member that does not ask loses its partitions.
_KEEP_ALIVE_SECONDS = 5.0

M = TypeVar("M", bound=Message)
Rejected = Sequence[tuple[M, str]]


class Source(Protocol[M]):
    """A member of a consumer group."""

    def read_batch(self, longest_seconds: float) -> list[M]:
        """The next messages, none when there are none.

        Raises:
            TransientError: no broker answers.
        """

    def commit(self, batch: Sequence[M]) -> None:
        """They are done with; those of a partition that has been taken away are not committed."""

    def keep_alive(self) -> None:
        """Stay a member without reading on."""


def consume(
    source: Source[M],
    work: Callable[[Sequence[M]], Rejected[M]],
    bury: Callable[[Rejected[M]], None],
    *,
    stop: threading.Event,
    on_batch: Callable[[int, int], None] = lambda _messages, _rejected: None,
) -> None:
    """Work on batches until `stop` is set; the one under way is finished and committed first.

    Args:
        work: writes a batch; returns what can never be written, with the reason. Idempotent.
        bury: puts that into the dead letters, acknowledged.
        on_batch: told messages and dead letters of each batch.
    """
    losses = 0
    while not stop.is_set():
        try:
            batch = source.read_batch(_READ_SECONDS)
        except TransientError as error:
            losses += 1
            pause_seconds = _pause_seconds(losses)
            logger.warning("%s; trying again in %.0f s", error, pause_seconds)
            stop.wait(pause_seconds)
            continue
        losses = 0
        if batch and (rejected := _work_until_done(source, batch, work, bury, stop)) is not None:
            source.commit(batch)
            on_batch(len(batch), rejected)


def _work_until_done(
    source: Source[M],
    batch: Sequence[M],
    work: Callable[[Sequence[M]], Rejected[M]],
    bury: Callable[[Rejected[M]], None],
    stop: threading.Event,
) -> int | None:
    """How many were buried; None where the wait for a system that is away was ended by `stop`, and nothing is to be committed."""
    losses = 0
    while True:
        try:
            rejected = _work(batch, work)
            if rejected:
                bury(rejected)
            return len(rejected)
        except Exception as error:
            if not _is_outage(error):
                raise
            losses += 1
            pause_seconds = _pause_seconds(losses)
            said = str(error) if isinstance(error, TransientError) else f"PostgreSQL does not answer ({type(error).__name__})"
            logger.warning("%s; the batch of %d is tried again in %.0f s", said, len(batch), pause_seconds)
            until = time.monotonic() + pause_seconds
            while not stop.wait(min(_KEEP_ALIVE_SECONDS, max(0.0, until - time.monotonic()))) and time.monotonic() < until:
                source.keep_alive()
            source.keep_alive()
            if stop.is_set():
                return None


def _work(batch: Sequence[M], work: Callable[[Sequence[M]], Rejected[M]]) -> Rejected[M]:
    """Where a batch fails in a way nobody foresaw, each message is worked on alone: one must not stop all that follow it."""
    try:
        return work(batch)
    except Exception as error:
        if _is_outage(error):
            raise
        logger.exception("a batch of %d failed in a way nobody foresaw", len(batch))
        if len(batch) == 1:
            return [(batch[0], f"{type(error).__name__} while it was worked on; the log of the consumer tells more")]
    return [rejected for message in batch for rejected in _work([message], work)]


def _is_outage(error: Exception) -> bool:
    return isinstance(error, TransientError) or is_away(error)


def _pause_seconds(losses: int) -> float:
    return min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0 ** min(losses - 1, 30)) * random.uniform(0.5, 1.0)


def enrich_batch(
    engine: Engine, batch: Sequence[M], *, now: Callable[[], datetime], index: ProductIndex | None, topic: ProductTopic | None
) -> Rejected[M]:
    """Record what is foreign among Keepa's own answers, and enrich every product that was told of."""
    ingested = ingest_raw(engine, batch, now=now())
    done = enrich(engine, [asin for _, asin in ingested.read], index=index, topic=topic)
    refused = [(message, f"the document is refused: {done.refused[asin]}") for message, asin in ingested.read if asin in done.refused]
    return [*ingested.rejected, *refused]
