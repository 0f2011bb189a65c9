"""Who receives which events: switched on with the kept events or from now, and off; and in whose order."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from keeper.domain.delivery import Outcome, SinkDown, Turn
from keeper.domain.events import KINDS, Event, EventKind, OutboxMessage, Sink
from keeper.domain.marketplace import Marketplace
from keeper.postgres import outbox
from keeper.postgres.engine import is_away
from keeper.postgres.jobs import hold_job
from keeper.postgres.sinks import insert_sink, lock_routes, queue_kept_events, select_sinks
from keeper.record import record
from keeper.relay import Circuit, Relayed, RelaySettings, _Faults, keep_relaying, relay, relay_all
from keeper.sinks import SinkOff, retry_dead, switch_configured, switch_off, switch_on
from tests.integration.makers import ASIN, NOW, add_user, add_watch, ago, one, product, rows, run_record, use_sinks
from tests.services.waiting import wait_until

SETTINGS = RelaySettings(most_tries=3, first_wait_seconds=600)
PRICES = [EventKind.PRICE_UPDATE]


@dataclass
class Taker:
    """A sink that takes everything, or is down while told so."""

    name: str = Sink.KAFKA.value
    batch_size: int = 100
    shards_at_once: int = 2
    is_down: bool = False
    taken: list[OutboxMessage] = field(default_factory=list)
    probes: int = 0
    deliveries: int = 0

    def connect(self) -> None:
        self.probes += 1
        if self.is_down:
            raise SinkDown("nobody is there")

    def deliver(self, messages: Sequence[OutboxMessage], turn: Turn) -> Iterator[list[Outcome]]:  # noqa: ARG002
        self.deliveries += 1
        if self.is_down:
            raise SinkDown("nobody is there")
        self.taken += messages
        yield [Outcome(message) for message in messages]

    def store(self, connection: Connection, outcome: Outcome, *, is_dead: bool) -> None:
        """Nothing."""

    @property
    def amounts(self) -> list[int]:
        return [message.payload["current_price_minor"] for message in self.taken]


def watch(engine: Engine, *asins: str) -> None:
    user_id = add_user(engine)
    for asin in asins or (ASIN,):
        add_watch(engine, user_id, 1, asin=asin)


def price(engine: Engine, amount: int, minutes_ago: int, sinks: frozenset[Sink] = frozenset({Sink.KAFKA}), asin: str = ASIN) -> None:
    run_record(engine, product([(ago(minutes=minutes_ago), amount)], asin=asin, at=ago(minutes=minutes_ago)), sinks=sinks)


def run(engine: Engine, sink: Taker, circuit: Circuit | None = None) -> Relayed:
    return relay(engine, sink, settings=SETTINGS, longest_seconds=60, circuit=circuit)


@pytest.mark.parametrize(("from_oldest", "amounts"), [(True, [5000, 4900]), (False, [])], ids=["oldest", "now"])
def test_a_sink_switched_on_gets_the_kept_events_or_those_to_come(engine: Engine, from_oldest: bool, amounts: list[int]) -> None:
    watch(engine)
    price(engine, 5000, 30, frozenset())
    price(engine, 4900, 20, frozenset())
    assert switch_on(engine, "kafka", PRICES, from_oldest=from_oldest)
    price(engine, 4800, 10)
    taker = Taker()
    run(engine, taker)
    assert taker.amounts == [*amounts, 4800]


def test_kept_events_of_many_days_are_queued_share_by_share(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The days' numbers overlap, as where a transaction began before midnight; none is left out and none queued twice."""
    monkeypatch.setattr("keeper.sinks._ROWS_AT_ONCE", 2)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO events (recorded_on, event_id, kind, key, payload) "
                "SELECT current_date - (n % 3), gen_random_uuid(), (ARRAY['price_update', 'alert'])[1 + (n % 4) / 3], n::text, '{}' "
                "FROM generate_series(1, 12) n"
            )
        )
    switch_on(engine, "kafka", PRICES, from_oldest=True)
    wanted = rows(engine, "SELECT recorded_on, seq FROM events WHERE kind = 'price_update' ORDER BY 1, 2")
    assert len(wanted) == 9
    assert rows(engine, "SELECT event_on, event_seq FROM outbox WHERE sink = 'kafka' ORDER BY 1, 2") == wanted


def test_a_share_of_kept_events_is_found_by_their_key(engine: Engine) -> None:
    """A later share reads neither the days before it nor the events of its day that were queued."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO events (event_id, kind, key, payload) "
                "SELECT gen_random_uuid(), 'price_update', n::text, '{}' FROM generate_series(1, 20000) n"
            )
        )
        insert_sink(connection, "kafka", PRICES, from_oldest=True)
        connection.execute(text("ANALYZE events"))
        day, seq = connection.execute(text("SELECT recorded_on, max(seq) - 50 FROM events GROUP BY 1")).one()
        connection.execute(text("SELECT pg_stat_reset()"))
    with engine.begin() as connection:
        assert queue_kept_events(connection, "kafka", after=(day, seq), limit=10) == (day, seq + 10)
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
        read = "SELECT coalesce(sum(seq_tup_read), 0), sum(idx_tup_fetch) FROM pg_stat_user_tables WHERE relname LIKE 'events_%'"
        sequential, by_key = connection.execute(text(read)).one()
    assert (sequential, by_key <= 100) == (0, True)


def test_switching_on_again_queues_nothing_twice(engine: Engine) -> None:
    watch(engine)
    price(engine, 5000, 30, frozenset())
    assert [switch_on(engine, "kafka", PRICES, from_oldest=True) for _ in range(2)] == [True, False]
    assert one(engine, "SELECT count(*) FROM outbox WHERE sink = 'kafka'") == 1


def test_a_filling_that_died_goes_on_at_the_next_call_and_delivers_nothing_before(engine: Engine) -> None:
    watch(engine)
    price(engine, 5000, 30, frozenset())
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO sinks (name, kinds, fill_until) SELECT 'kafka', '{price_update}', last_value FROM event_seq"))
    price(engine, 4900, 10)
    taker = Taker()
    run(engine, taker)
    assert taker.taken == []
    switch_on(engine, "kafka", PRICES, from_oldest=True)
    run(engine, taker)
    assert taker.amounts == [5000, 4900]


def test_switching_off_drops_what_waits_and_queues_no_more(engine: Engine) -> None:
    watch(engine)
    price(engine, 5000, 30)
    assert switch_off(engine, "kafka") == 1
    price(engine, 4900, 20, frozenset())
    assert (rows(engine, "SELECT 1 FROM outbox"), switch_off(engine, "kafka")) == ([], None)


def test_whoever_switches_waits_for_whoever_records(engine: Engine) -> None:
    """An event recorded without knowing of the sink is among the kept ones when these are queued."""
    watch(engine)
    done = threading.Event()

    def switch() -> None:
        switch_on(engine, "kafka", PRICES, from_oldest=True)
        done.set()

    with engine.begin() as connection:
        assert EventKind.PRICE_UPDATE not in lock_routes(connection)
        switching = threading.Thread(target=switch)
        switching.start()
        waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_until(lambda: bool(rows(engine, waiting)), "nobody waits for the lock")
        assert not done.is_set()
    switching.join(20)
    assert done.is_set()


def test_what_another_process_has_configured_stays_on(engine: Engine) -> None:
    switch_configured(engine, {Sink.KAFKA: KINDS[Sink.KAFKA], Sink.SEARCH: KINDS[Sink.SEARCH]}, from_oldest=True)
    assert switch_configured(engine, {}, from_oldest=True) == []
    with engine.begin() as connection:
        assert [row.name for row in select_sinks(connection)] == ["kafka", "notify", "search"]


def test_with_kafka_the_enriching_sink_takes_nothing_new_and_works_off_what_waits(engine: Engine) -> None:
    """Enrichment has one way at a time."""
    switch_configured(engine, {Sink.ENRICH: KINDS[Sink.ENRICH]}, from_oldest=True)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO outbox (sink, shard, key, event_on, event_seq) VALUES ('enrich', 0, 'x', current_date, 1)"))
    switch_configured(engine, {Sink.KAFKA: KINDS[Sink.KAFKA]}, from_oldest=True)
    with engine.begin() as connection:
        assert EventKind.PRODUCT_UPDATE not in lock_routes(connection)
    assert rows(engine, "SELECT sink FROM outbox") == ["enrich"]


def test_a_process_without_kafka_does_not_open_the_second_way_again(engine: Engine) -> None:
    switch_configured(engine, {Sink.KAFKA: KINDS[Sink.KAFKA]}, from_oldest=True)
    switch_configured(engine, {Sink.SEARCH: KINDS[Sink.SEARCH], Sink.ENRICH: KINDS[Sink.ENRICH]}, from_oldest=True)
    with engine.begin() as connection:
        assert EventKind.PRODUCT_UPDATE not in lock_routes(connection)


def test_a_kind_a_newer_keeper_routes_is_taken_from_then_on(engine: Engine) -> None:
    switch_on(engine, "kafka", PRICES, from_oldest=True)
    switch_on(engine, "kafka", [*PRICES, EventKind.DEAL_UPDATE], from_oldest=True)
    with engine.begin() as connection:
        assert lock_routes(connection)[EventKind.DEAL_UPDATE] == ["kafka"]


def test_what_comes_to_light_late_is_not_overtaken(engine: Engine) -> None:
    """A transaction has numbered its event and not yet committed when a batch of its shard is read and passed."""
    use_sinks(engine, {Sink.KAFKA})
    watch(engine)

    def insert(connection: Connection, key: str, amount: int) -> None:
        seq = connection.execute(
            text(
                "INSERT INTO events (event_id, kind, key, payload) VALUES (gen_random_uuid(), 'price_update', :key, "
                "json_build_object('current_price_minor', CAST(:amount AS integer))) RETURNING seq"
            ),
            {"key": key, "amount": amount},
        ).scalar_one()
        connection.execute(
            text("INSERT INTO outbox (sink, shard, key, event_on, event_seq) VALUES ('kafka', 0, :key, current_date, :seq)"),
            {"key": key, "seq": seq},
        )

    late = engine.connect()
    insert(late, "A", 1)
    with engine.begin() as connection:
        insert(connection, "B", 1)

    class Committing(Taker):
        """The late one commits, and its key's next one after it, while the first batch is under way."""

        def deliver(self, messages: Sequence[OutboxMessage], turn: Turn) -> Iterator[list[Outcome]]:
            if late.in_transaction():
                late.commit()
                with engine.begin() as connection:
                    insert(connection, "A", 2)
            yield from super().deliver(messages, turn)

    taker = Committing(batch_size=1)
    run(engine, taker)
    late.close()
    assert [(message.key, message.payload["current_price_minor"]) for message in taker.taken] == [("B", 1), ("A", 1), ("A", 2)]


def test_a_message_without_an_outcome_is_not_overtaken_by_the_next_page(engine: Engine) -> None:
    watch(engine)
    for number in range(4):
        price(engine, 5000 - number, 30 - number)

    class Passing(Taker):
        """Says nothing of the first message at its first sight."""

        passed = False

        def deliver(self, messages: Sequence[OutboxMessage], turn: Turn) -> Iterator[list[Outcome]]:
            if not self.passed:
                self.passed = True
                yield []
                return
            yield from super().deliver(messages, turn)

    taker = Passing(batch_size=2)
    assert not run(engine, taker).is_complete
    run(engine, taker)
    assert taker.amounts == [5000, 4999, 4998, 4997]


def test_a_page_of_which_one_has_no_outcome_is_read_again_first(engine: Engine) -> None:
    """Of another key than those that are known, so that nothing holds it but the order of reading."""
    user_id = add_user(engine)
    asins = [f"B{number:09d}" for number in range(4)]
    use_sinks(engine, {Sink.KAFKA})
    for asin in asins:
        add_watch(engine, user_id, 1, asin=asin)
        price(engine, 5000, 30, asin=asin)
    price(engine, 4000, 20, asin=asins[0])
    with engine.begin() as connection:
        connection.execute(text("UPDATE outbox SET shard = 0"))
    seen: list[tuple[str, int]] = []

    class Skipping(Taker):
        """Passes over the first product once."""

        skipped = False

        def deliver(self, messages: Sequence[OutboxMessage], turn: Turn) -> Iterator[list[Outcome]]:  # noqa: ARG002
            skip = None if self.skipped else asins[0]
            self.skipped = True
            taken = [message for message in messages if message.key != skip]
            seen.extend((message.key, message.payload["current_price_minor"]) for message in taken)
            yield [Outcome(message) for message in taken]

    run(engine, Skipping(batch_size=2))
    assert [amount for asin, amount in seen if asin == asins[0]] == [5000, 4000]
    assert len(seen) == 5


def test_what_waits_in_many_shards_travels_together(engine: Engine) -> None:
    user_id = add_user(engine)
    use_sinks(engine, {Sink.KAFKA})
    asins = [f"B{number:09d}" for number in range(40)]
    for asin in asins:
        add_watch(engine, user_id, 1, asin=asin)
    for amount, minutes in ((5000, 30), (4900, 20)):
        run_record(
            engine,
            *(product([(ago(minutes=minutes), amount)], asin=asin, at=ago(minutes=minutes)) for asin in asins),
            sinks=frozenset({Sink.KAFKA}),
        )
    assert one(engine, "SELECT count(DISTINCT shard) FROM outbox") > 8
    taker = Taker()
    assert run(engine, taker).delivered == 80
    assert taker.deliveries == 2
    for asin in asins:
        assert [message.payload["current_price_minor"] for message in taker.taken if message.key == asin] == [5000, 4900]


def test_a_row_whose_event_is_gone_is_told_and_stops_nobody(engine: Engine) -> None:
    watch(engine)
    price(engine, 5000, 30)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM events WHERE kind = 'price_update'"))
    price(engine, 4900, 20)
    taker = Taker(batch_size=1)
    done = run(engine, taker)
    assert (taker.amounts, done.dead, rows(engine, "SELECT 1 FROM outbox")) == ([4900], 1, [])


class Careful(Taker):
    """Gives up its first message for good, with a NUL in what it says; what follows in the same page has no outcome then."""

    def deliver(self, messages: Sequence[OutboxMessage], turn: Turn) -> Iterator[list[Outcome]]:
        if self.deliveries:
            yield from super().deliver(messages, turn)
            return
        self.deliveries += 1
        yield [Outcome(messages[0], refusal="never\0again", is_final=True)]


def test_what_stands_behind_a_dead_message_goes_before_what_follows_in_the_next_page(engine: Engine) -> None:
    watch(engine)
    for amount, minutes_ago in ((5000, 30), (4900, 20), (4800, 10)):
        price(engine, amount, minutes_ago)
    careful = Careful(batch_size=2)

    done = run(engine, careful)

    assert (careful.amounts, done.dead, done.delivered) == ([4900, 4800], 1, 2)
    assert rows(engine, "SELECT reason FROM dead_letters") == ["neveragain"]


def test_an_answer_with_a_nul_in_it_ends_a_message_all_the_same(engine: Engine) -> None:
    stored = []

    class Odd(Taker):
        def deliver(self, messages: Sequence[OutboxMessage], turn: Turn) -> Iterator[list[Outcome]]:  # noqa: ARG002
            yield [Outcome(messages[0], receipt="250 ok\0"), *(Outcome(message, refusal="busy\0") for message in messages[1:])]

        def store(self, connection: Connection, outcome: Outcome, *, is_dead: bool) -> None:  # noqa: ARG002
            stored.append(outcome.receipt)

    watch(engine)
    price(engine, 5000, 30)
    price(engine, 4900, 20)

    done = run(engine, Odd())

    assert (done.delivered, done.refused, stored) == (1, 1, ["250 ok", ""])
    assert rows(engine, "SELECT last_failure FROM outbox") == ["busy"]


def test_a_page_holds_each_message_as_it_was_stored_whatever_is_in_it(engine: Engine) -> None:
    keys = ["a,b", "x\x1ey", '"{quoted}"', "", "NULL", "back\\slash", "zwei\nZeilen", "ключ"]
    events = [
        Event.of(
            uuid4(),
            EventKind.DEAL_UPDATE if number % 2 else EventKind.PRICE_UPDATE,
            key,
            {"n": number, "t": f"{key}\x1e,ü"},
            2**40 + number,
        )
        for number, key in enumerate(keys)
    ]
    with engine.begin() as connection:
        for event in events:
            connection.exec_driver_sql(
                "SELECT set_config('keeper.request_id', %s, true)", (f"of,{event.key}",) if event.version % 3 else ("",)
            )
            outbox.insert_events(connection, [event], {event.kind: ["kafka"]})
        shards = outbox.select_shards(connection, "kafka")
        shard, seq = connection.exec_driver_sql("SELECT shard, event_seq FROM outbox WHERE key = 'a,b'").one()
        outbox.postpone_message(connection, "kafka", shard, seq, wait_seconds=-1, failure="no", is_refusal=True)
        page = outbox.select_messages(connection, "kafka", dict.fromkeys(shards, 0), limit=1000)

    assert [Event(UUID(one.event_id), one.kind, one.key, one.body, one.version) for one in page.messages] == events
    assert [one.request_id for one in page.messages] == [f"of,{event.key}" if event.version % 3 else None for event in events]
    assert [(one.tries, one.refusals) for one in page.messages] == [(1, 1)] + [(0, 0)] * 7
    assert page.messages[0].failing_seconds > 0 == page.messages[1].failing_seconds
    stored = rows(engine, "SELECT shard, event_seq FROM outbox ORDER BY event_seq")
    assert [(one.shard, one.seq) for one in page.messages] == [tuple(row) for row in stored]


def test_a_page_of_large_events_ends_earlier(engine: Engine) -> None:
    use_sinks(engine, {Sink.KAFKA})
    with engine.begin() as connection:
        connection.execute(
            text(
                "WITH added AS (INSERT INTO events (event_id, kind, key, payload) SELECT gen_random_uuid(), 'raw_product', n::text, "
                "json_build_object('n', n, 'x', (SELECT string_agg(gen_random_uuid()::text, '') FROM generate_series(1, 40000 + n * 0))) "
                "FROM generate_series(1, 8) n RETURNING key, recorded_on, seq) "
                "INSERT INTO outbox (sink, shard, key, event_on, event_seq) SELECT 'kafka', 0, key, recorded_on, seq FROM added"
            )
        )
        page = outbox.select_messages(connection, "kafka", {0: 0}, limit=100)
    assert 1 <= len(page.messages) < 8
    taker = Taker()
    run(engine, taker)
    assert [message.key for message in taker.taken] == [str(number) for number in range(1, 9)]


def test_a_sink_that_is_down_delays_no_other(engine: Engine) -> None:
    watch(engine)
    price(engine, 5000, 30, frozenset({Sink.KAFKA, Sink.SEARCH}))
    dead, alive = Taker(name="search", is_down=True), Taker()
    done = relay_all(engine, [dead, alive], settings=SETTINGS, longest_seconds=60)
    assert (done["search"].down, done["kafka"].delivered, alive.amounts) == ("nobody is there", 1, [5000])


def test_an_open_circuit_costs_neither_a_probe_nor_a_batch(engine: Engine) -> None:
    watch(engine)
    price(engine, 5000, 30)
    taker, circuit = Taker(is_down=True), Circuit(first_wait_seconds=600)
    for _ in range(3):
        run(engine, taker, circuit)
    assert (taker.probes, taker.deliveries) == (1, 0)


def test_a_sink_that_dies_amid_its_batches_is_probed_before_the_next(engine: Engine) -> None:
    watch(engine)
    price(engine, 5000, 30)
    taker, circuit = Taker(), Circuit(first_wait_seconds=0.001, longest_wait_seconds=0.001)
    run(engine, taker, circuit)
    price(engine, 4900, 20)
    taker.is_down = True
    run(engine, taker, circuit)
    assert (taker.probes, taker.deliveries) == (1, 2)
    taker.is_down = False
    wait_until(lambda: run(engine, taker, circuit).down is None and taker.amounts == [5000, 4900], "the circuit stays open")
    assert taker.probes == 2


def test_a_sink_that_answers_probes_and_takes_nothing_is_tried_ever_more_rarely(engine: Engine) -> None:
    watch(engine)
    price(engine, 5000, 30)

    class Deaf(Taker):
        """Answers, and takes nothing."""

        def deliver(self, messages: Sequence[OutboxMessage], turn: Turn) -> Iterator[list[Outcome]]:  # noqa: ARG002
            raise SinkDown("no acknowledgement")

    circuit, waits = Circuit(first_wait_seconds=0.2, longest_wait_seconds=1000), list[float]()
    for _ in range(4):
        wait_until(lambda: circuit.wait_seconds == 0, "the circuit stays open")
        run(engine, Deaf(), circuit)
        waits.append(circuit.wait_seconds)
    assert waits[3] > 2 * waits[0]


def test_an_outage_counts_no_try(engine: Engine) -> None:
    watch(engine)
    price(engine, 5000, 30)
    run(engine, Taker(is_down=True))
    assert rows(engine, "SELECT tries, next_try_at FROM outbox") == [(0, None)]


def test_the_relaying_service_delivers_to_one_while_another_is_away_and_to_that_when_it_is_back(engine: Engine) -> None:
    watch(engine)
    use_sinks(engine, {Sink.KAFKA, Sink.SEARCH})
    takers = Taker(), Taker(name="search", is_down=True)
    stop, listening = threading.Event(), threading.Event()
    service = threading.Thread(
        target=keep_relaying, args=(engine, takers), kwargs={"settings": SETTINGS, "stop": stop, "on_listening": listening.set}
    )
    service.start()
    try:
        assert listening.wait(20)
        price(engine, 5000, 30, frozenset({Sink.KAFKA, Sink.SEARCH}))
        wait_until(lambda: takers[0].amounts == [5000], "the living sink got nothing")
        assert takers[1].taken == []
        takers[1].is_down = False
        wait_until(lambda: takers[1].amounts == [5000], "the sink that is back got nothing")
    finally:
        stop.set()
        service.join(30)
    assert not service.is_alive()


@dataclass
class Broken(Taker):
    """Has a bug that shows so often, and takes everything then."""

    failures: int = 2

    def deliver(self, messages: Sequence[OutboxMessage], turn: Turn) -> Iterator[list[Outcome]]:
        if self.failures:
            self.failures -= 1
            raise ZeroDivisionError(f"with {messages[0].key}")
        yield from super().deliver(messages, turn)


def test_a_failure_nobody_foresaw_is_told_once_and_ends_neither_the_service_nor_another_sink(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("keeper.relay._FIRST_FAULT_SECONDS", 0.01)
    watch(engine)
    both = frozenset({Sink.KAFKA, Sink.SEARCH})
    price(engine, 5000, 30, both)
    broken, other = Broken(), Taker(name="search")
    stop = threading.Event()
    service = threading.Thread(target=keep_relaying, args=(engine, [broken, other]), kwargs={"settings": SETTINGS, "stop": stop})
    service.start()
    try:
        wait_until(lambda: broken.amounts == [5000], "the sink is not tried again")
        price(engine, 4900, 20, both)
        wait_until(lambda: (broken.amounts, other.amounts) == ([5000, 4900], [5000, 4900]), "not all is delivered")
    finally:
        stop.set()
        service.join(30)
    assert not service.is_alive()
    told = [record.getMessage() for record in caplog.records if "ZeroDivisionError" in record.getMessage()]
    assert [("in deliver" in message, ASIN in message) for message in told] == [(True, False), (False, False)]


def test_waits_after_failures_nobody_foresaw_grow_and_begin_anew() -> None:
    faults = _Faults("kafka")
    waits = [faults.note(ZeroDivisionError()) for _ in range(12)]
    assert waits[0] <= 1 < 4 <= waits[3] <= 8
    assert 150 <= waits[11] <= 300
    faults.forget()
    assert faults.note(ZeroDivisionError()) <= 1


def test_a_sink_that_cannot_stand_one_message_gets_those_of_other_shards(engine: Engine) -> None:
    """It is among them at first, then each shard is delivered by itself."""
    use_sinks(engine, {Sink.KAFKA})
    asins = [f"B{number:09d}" for number in range(3)]
    watch(engine, *asins)
    for shard, asin in enumerate(asins):
        price(engine, 5000 + shard, 30, asin=asin)
        with engine.begin() as connection:
            connection.execute(text("UPDATE outbox SET shard = :shard WHERE key = :asin"), {"shard": shard, "asin": asin})

    class Choking(Taker):
        """Fails whenever it is given the first product."""

        def deliver(self, messages: Sequence[OutboxMessage], turn: Turn) -> Iterator[list[Outcome]]:
            if any(message.key == asins[0] for message in messages):
                raise ZeroDivisionError
            yield from super().deliver(messages, turn)

    choking = Choking(shards_at_once=1)
    with pytest.raises(ZeroDivisionError):
        run(engine, choking)
    assert choking.amounts == [5001, 5002]


def test_a_lost_lock_ends_a_delivery_that_waits(engine: Engine) -> None:
    """The relay's lock connection is cut while the far side is silent: it is told, and acknowledges nothing."""
    watch(engine)
    price(engine, 5000, 30)

    class Waiting(Taker):
        """Waits until it is told that its turn is lost."""

        was_told = False

        def deliver(self, messages: Sequence[OutboxMessage], turn: Turn) -> Iterator[list[Outcome]]:  # noqa: ARG002
            with engine.begin() as connection:
                connection.execute(
                    text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()")
                )
            wait_until(turn.is_lost, "nobody says that the lock is lost")
            self.was_told = turn.is_over()
            yield from ()

    waiting = Waiting()
    done = relay(engine, waiting, settings=SETTINGS, longest_seconds=60)
    assert (waiting.was_told, done.delivered, done.is_complete) == (True, 0, False)
    assert one(engine, "SELECT count(*) FROM outbox") == 1


@contextmanager
def failing(engine: Engine, words: str) -> Iterator[threading.Event]:
    """Statements with these words are cancelled, as by a timeout; the connection lives. Yields: one was."""
    has_failed = threading.Event()

    def cancel(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if words in statement:
            has_failed.set()
            raise OperationalError(statement, {}, psycopg.errors.QueryCanceled("canceling statement due to statement timeout"))

    event.listen(engine, "before_cursor_execute", cancel)
    try:
        yield has_failed
    finally:
        event.remove(engine, "before_cursor_execute", cancel)


HELD_LOCKS = """
    SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def test_a_shard_that_could_not_be_unlocked_is_free_all_the_same(engine: Engine) -> None:
    """Its connection does not go back to the pool with the lock."""
    watch(engine)
    price(engine, 5000, 30)
    with failing(engine, "pg_advisory_unlock"):
        run(engine, Taker())
    wait_until(lambda: one(engine, HELD_LOCKS) == 0, "the lock is still held")


def test_after_an_unlock_that_failed_no_other_shard_is_worked_on_without_its_lock(engine: Engine) -> None:
    """The other one is under way then; SQLAlchemy would open another connection, on which nothing is locked."""
    first, second = asins = [f"B{number:09d}" for number in range(2)]
    watch(engine, *asins)
    for asin, amount in ((first, 5000), (second, 4000), (second, 3000)):
        price(engine, amount, amount // 100, asin=asin)
        with engine.begin() as connection:
            connection.execute(text("UPDATE outbox SET shard = :shard WHERE key = :asin"), {"shard": asins.index(asin), "asin": asin})

    with failing(engine, "pg_advisory_unlock") as has_failed:

        class Waiting(Taker):
            """Delivers the second shard's first message when the first shard is done with."""

            def deliver(self, messages: Sequence[OutboxMessage], turn: Turn) -> Iterator[list[Outcome]]:
                if messages[0].key == second:
                    assert has_failed.wait(30)
                yield from super().deliver(messages, turn)

        taker = Waiting(batch_size=1)
        with pytest.raises(SQLAlchemyError) as caught:
            run(engine, taker)
    assert is_away(caught.value)
    assert taker.amounts == [5000, 4000]


def test_a_job_that_could_not_be_unlocked_is_free_all_the_same(engine: Engine) -> None:
    with failing(engine, "pg_advisory_unlock"), hold_job(engine, "a job") as is_mine:
        assert is_mine
    wait_until(lambda: one(engine, HELD_LOCKS) == 0, "the lock is still held")


def test_keepas_own_answer_is_an_event_for_kafka(engine: Engine) -> None:
    use_sinks(engine, {Sink.KAFKA}, without=())
    with engine.begin() as connection:
        record(connection, [product([(ago(days=1), 5000)])], now=NOW, raw=lambda asin: b'{"asin":"%s","csv":null}' % asin.encode())
    payload = one(engine, "SELECT payload FROM events WHERE kind = 'raw_product'")
    assert payload["product"] == {"asin": ASIN, "csv": None}
    assert (payload["asin"], payload["domain"], payload["timestamp"]) == (ASIN, "de", "2026-11-20T12:00:00Z")


def test_without_kafka_keepas_own_answers_are_kept_nowhere(engine: Engine) -> None:
    run_record(engine, product([(ago(days=1), 5000)]), sinks=frozenset({Sink.NOTIFY, Sink.SEARCH}))
    assert rows(engine, "SELECT 1 FROM events WHERE kind = 'raw_product'") == []


def test_a_changed_product_is_one_event_for_the_enrichment_however_many_marketplaces(engine: Engine) -> None:
    use_sinks(engine, {Sink.ENRICH})
    for at in (ago(hours=1), NOW):
        both = [product([(ago(days=1), 5000)], at=at), product([(ago(days=1), 4500)], marketplace=Marketplace.UK, at=at)]
        run_record(engine, *both, sinks=frozenset({Sink.ENRICH}))
    assert rows(engine, "SELECT key FROM events WHERE kind = 'product_update'") == [ASIN]


def test_the_oldest_of_a_backlog_is_its_first_event_and_not_that_of_the_oldest_day(engine: Engine) -> None:
    """One numbered late in a transaction that began a day before has the older day and the higher number."""
    use_sinks(engine, {Sink.KAFKA})
    with engine.begin() as connection:
        connection.execute(
            text(
                "WITH added AS (INSERT INTO events (recorded_on, event_id, kind, key, payload, recorded_at) "
                "SELECT current_date - n, gen_random_uuid(), 'price_update', n::text, '{}', timestamptz '2026-11-20Z' + n * interval '1 h' "
                "FROM generate_series(0, 2) n ORDER BY n RETURNING key, recorded_on, seq) "
                "INSERT INTO outbox (sink, shard, key, event_on, event_seq) SELECT 'kafka', key::integer, key, recorded_on, seq FROM added"
            )
        )
        (backlog,) = outbox.select_backlog(connection)
    assert (backlog.messages, backlog.oldest_at) == (3, datetime(2026, 11, 20, tzinfo=UTC))


def test_backlog_and_age_are_told_by_sink(engine: Engine) -> None:
    watch(engine)
    price(engine, 5000, 30, frozenset({Sink.KAFKA, Sink.SEARCH}))
    with engine.begin() as connection:
        assert [(one_.sink, one_.messages) for one_ in outbox.select_backlog(connection)] == [("kafka", 1), ("search", 1)]


# --- what was given up


def give_up(engine: Engine, *refused: int) -> None:
    """Prices of one product, of which these are refused for good; the others are taken."""
    watch(engine)
    for number in range(4):
        price(engine, 5000 - 100 * number, 30 - number)

    class Refusing(Taker):
        """Says no to some, for good."""

        def deliver(self, messages: Sequence[OutboxMessage], turn: Turn) -> Iterator[list[Outcome]]:  # noqa: ARG002
            for message in messages:
                is_refused = message.payload["current_price_minor"] in refused
                yield [Outcome(message, refusal="too large" if is_refused else None, is_final=is_refused)]

    assert run(engine, Refusing()).dead == len(refused)


def test_what_was_given_up_is_delivered_by_a_retry_in_its_order_with_its_ids(engine: Engine) -> None:
    give_up(engine, 5000, 4900, 4700)
    ids = rows(engine, "SELECT event_id FROM dead_letters ORDER BY id")
    assert retry_dead(engine, "kafka", None) == 3
    taker = Taker()
    run(engine, taker)
    assert (taker.amounts, [UUID(message.event_id) for message in taker.taken]) == ([5000, 4900, 4700], ids)
    assert rows(engine, "SELECT 1 FROM dead_letters") == []
    assert one(engine, "SELECT count(*) FROM events WHERE kind = 'price_update'") == 4


def test_an_event_that_is_gone_is_made_again_and_overtaken_by_none_of_its_key(engine: Engine) -> None:
    """The first is not kept any more, the two after it are: their old numbers would let them go before it."""
    give_up(engine, 5000, 4900, 4700)
    ids = rows(engine, "SELECT event_id FROM dead_letters ORDER BY id")
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM events WHERE payload->>'current_price_minor' = '5000'"))
    assert retry_dead(engine, "kafka", None) == 3
    taker = Taker()
    run(engine, taker)
    assert (taker.amounts, [UUID(message.event_id) for message in taker.taken]) == ([5000, 4900, 4700], ids)


def test_a_retry_by_id_leaves_the_others_and_a_second_one_does_nothing(engine: Engine) -> None:
    give_up(engine, 5000, 4900)
    first, second = rows(engine, "SELECT id FROM dead_letters ORDER BY id")
    assert [retry_dead(engine, "kafka", [first]) for _ in range(2)] == [1, 0]
    assert rows(engine, "SELECT id FROM dead_letters") == [second]
    assert one(engine, "SELECT count(*) FROM outbox") == 1


def test_what_waits_already_is_not_queued_twice_by_a_retry(engine: Engine) -> None:
    """Switched off and on, a sink gets the kept events again."""
    give_up(engine, 5000)
    switch_off(engine, "kafka")
    switch_on(engine, "kafka", PRICES, from_oldest=True)
    assert (retry_dead(engine, "kafka", None), one(engine, "SELECT count(*) FROM outbox")) == (0, 4)


def test_a_retry_for_a_sink_that_is_off_is_refused_and_changes_nothing(engine: Engine) -> None:
    give_up(engine, 5000)
    switch_off(engine, "kafka")
    with pytest.raises(SinkOff, match="keeper sink on kafka"):
        retry_dead(engine, "kafka", None)
    assert (rows(engine, "SELECT 1 FROM outbox"), one(engine, "SELECT count(*) FROM dead_letters")) == ([], 1)
