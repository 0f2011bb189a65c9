"""The verbs that switch sinks: on, with the events still kept or only those to come; off, with what waits dropped. And the retry of
what was given up.
"""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Engine

from keeper.domain.errors import KeeperError
from keeper.domain.events import EventKind, Sink
from keeper.postgres import outbox, sinks
from keeper.postgres.jobs import hold_job

_ROWS_AT_ONCE = 50_000


class SinkOff(KeeperError):
    """Events are not queued for this sink."""


def switch_on(engine: Engine, name: str, kinds: Collection[EventKind], *, from_oldest: bool) -> bool:
    """From now on events of these kinds are queued for the sink `name`; idempotent.

    The kept events are queued in several transactions, in which others go on recording; relays begin when all are queued. Where another
    process is queueing them, or one died over it, this one waits for nothing and the next call goes on.

    Args:
        from_oldest: the events still kept too, oldest first.

    Returns:
        Whether it was off.
    """
    with engine.begin() as connection:
        known = {row.name: row for row in sinks.select_sinks(connection)}.get(name)
    if known is None or set(known.kinds) != {kind.value for kind in kinds}:
        with engine.begin() as connection:
            sinks.lock_sinks(connection)
            if known is None:
                sinks.insert_sink(connection, name, kinds, from_oldest=from_oldest)
            else:
                sinks.set_kinds(connection, name, kinds)
    elif known.fill_until is None:
        return False
    _fill(engine, name)
    return known is None


def _fill(engine: Engine, name: str) -> None:
    with hold_job(engine, f"fill/{name}") as is_mine:
        if not is_mine:
            return
        with engine.begin() as connection:
            last = sinks.queue_kept_events(connection, name, after=None, limit=_ROWS_AT_ONCE)
        while last is not None:
            with engine.begin() as connection:
                last = sinks.queue_kept_events(connection, name, after=last, limit=_ROWS_AT_ONCE)
        with engine.begin() as connection:
            sinks.mark_filled(connection, name)


def switch_off(engine: Engine, name: str) -> int | None:
    """Nothing more is queued for the sink `name`, and what waits for it is dropped. Returns how much that was; None when it was off."""
    with engine.begin() as connection:
        sinks.lock_sinks(connection)
        if not sinks.delete_sink(connection, name):
            return None
    dropped = 0
    while True:
        with engine.begin() as connection:
            rows = sinks.delete_queued(connection, name, limit=_ROWS_AT_ONCE)
        if not rows:
            return dropped
        dropped += rows


def retry_dead(engine: Engine, name: str, ids: Sequence[int] | None) -> int:
    """Queue what was given up for the sink `name` once more, in its order; idempotent. Returns how much waits again.

    Args:
        ids: of these dead letters only; None for all.

    Raises:
        SinkOff: nothing would deliver it.
    """
    with engine.begin() as connection:
        # Whoever switches it off waits, and then drops what is queued here too.
        sinks.lock_routes(connection)
        if name not in {row.name for row in sinks.select_sinks(connection)}:
            raise SinkOff(f"{name} is off, so nothing would deliver it: `keeper sink on {name} --from now` first")
        return outbox.retry_dead_letters(connection, name, ids)


def switch_configured(engine: Engine, wanted: Mapping[Sink, Collection[EventKind]], *, from_oldest: bool) -> list[str]:
    """Switch on what is configured here. What is on and not configured here stays on: another process may have it, and nothing is lost.

    Enrichment has one way: with Kafka the consumer, else the sink. So where Kafka comes, the sink takes nothing new, and what waits for
    it is still worked off.

    Returns:
        The sinks that were switched on.
    """
    with engine.begin() as connection:
        known = {row.name: row for row in sinks.select_sinks(connection)}
    switched = [
        sink.value
        for sink, kinds in wanted.items()
        if not (sink is Sink.ENRICH and Sink.KAFKA in known) and switch_on(engine, sink.value, kinds, from_oldest=from_oldest)
    ]
    # Only after Kafka is on: between the two a change would be told to neither.
    if Sink.KAFKA in wanted and Sink.ENRICH in known and known[Sink.ENRICH].kinds:
        with engine.begin() as connection:
            sinks.lock_sinks(connection)
            sinks.set_kinds(connection, Sink.ENRICH, ())
    return switched
