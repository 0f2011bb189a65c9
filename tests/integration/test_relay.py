"""The relay with real mail servers: delivered once, in order, and nobody's dead channel in anybody's way."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from email.message import EmailMessage

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError, PendingRollbackError

from keeper.domain.delivery import Outcome, SinkDown, Turn
from keeper.domain.events import OutboxMessage, Sink
from keeper.notify.channels import ChannelCipher, make_key
from keeper.notify.sender import ChannelSender
from keeper.postgres import alerts, outbox
from keeper.postgres.users import delete_channel
from keeper.relay import AlertSink, Relayed, RelaySettings, _lock_connection, _ShardLocks, relay
from tests.integration.makers import ASIN, CIPHER, NOW, add_user, add_watch, ago, one, product, rows, run_record
from tests.services.mail import MailServer, Mode
from tests.services.waiting import wait_until

AT_ONCE = RelaySettings(most_tries=3, first_wait_seconds=0.001, longest_wait_seconds=0.001)
LATER = RelaySettings(most_tries=3, first_wait_seconds=600)


@pytest.fixture
def mail() -> Iterator[MailServer]:
    """A server that takes every mail."""
    with MailServer() as server:
        yield server


def url(server: MailServer, reader: str = "reader") -> str:
    return f"mailto://127.0.0.1:{server.port}/{reader}@example.net?from=keeper@example.org"


def sink(engine: Engine, *, read_timeout_seconds: float = 5, cipher: ChannelCipher = CIPHER) -> AlertSink:
    return AlertSink(engine, ChannelSender(connect_timeout_seconds=2, read_timeout_seconds=read_timeout_seconds), cipher)


def run(engine: Engine, settings: RelaySettings = AT_ONCE, *, longest_seconds: float = 60, read_timeout_seconds: float = 5) -> Relayed:
    return relay(engine, sink(engine, read_timeout_seconds=read_timeout_seconds), settings=settings, longest_seconds=longest_seconds)


def alert(engine: Engine, prices: list[int], asin: str = ASIN) -> None:
    """Alerts at these prices, one after the other, to every watch of the product."""
    points: list[tuple[datetime, int | None]] = [(ago(days=1), 90_000)]
    for number, price in enumerate(prices):
        points += [(ago(minutes=500 - 2 * number), 90_000), (ago(minutes=499 - 2 * number), price)]
        run_record(engine, product(points, asin=asin, at=points[-1][0]), sinks=frozenset({Sink.NOTIFY}))


def alert_all(engine: Engine, channels: list[str], prices: list[int]) -> None:
    """A user for each channel, all told of the same prices."""
    for number, channel in enumerate(channels):
        add_watch(engine, add_user(engine, f"user{number}", channels=[channel]), 80_000)
    alert(engine, prices)


def waiting(engine: Engine) -> int:
    count: int = one(engine, "SELECT count(*) FROM outbox WHERE sink = 'notify'")
    return count


def prices_in(mails: list[EmailMessage]) -> list[str]:
    return [str(mail["Subject"]).partition(" €")[0] for mail in mails]


def test_an_alert_is_delivered_and_its_receipt_kept(engine: Engine, mail: MailServer) -> None:
    alert_all(engine, [url(mail)], [4999])
    assert run(engine).delivered == 1
    assert prices_in(mail.messages) == ["49.99"]
    assert one(engine, "SELECT status, tries, receipt, last_failure FROM deliveries") == (
        "delivered",
        1,
        "250 2.0.0 OK queued as 0001",
        None,
    )
    assert waiting(engine) == 0


def test_the_mails_id_is_that_of_the_event(engine: Engine, mail: MailServer) -> None:
    alert_all(engine, [url(mail)], [4999])
    run(engine)
    assert str(one(engine, "SELECT event_id FROM events WHERE kind = 'alert'")) in str(mail.messages[0]["Message-ID"])


def test_nothing_waiting_is_nothing_delivered(engine: Engine) -> None:
    assert run(engine) == Relayed()


@pytest.mark.parametrize("mode", ["refuse", "refuse_later", "refuse_recipient"])
def test_a_refused_alert_waits_for_its_next_try(engine: Engine, mail: MailServer, mode: Mode) -> None:
    mail.mode = mode
    alert_all(engine, [url(mail)], [4999])
    assert run(engine, LATER).refused == 1
    tries, wait = one(engine, "SELECT tries, extract(epoch FROM next_try_at - clock_timestamp())::float8 FROM outbox")
    assert tries == 1
    assert 290 < wait <= 600
    assert one(engine, "SELECT status, tries FROM deliveries") == ("pending", 1)
    assert run(engine, LATER) == Relayed()


def test_an_alert_refused_once_arrives_at_its_next_try(engine: Engine, mail: MailServer) -> None:
    mail.mode = "refuse_later"
    alert_all(engine, [url(mail)], [4999])
    run(engine)
    mail.mode = "accept"
    wait_until(lambda: run(engine).delivered == 1, "the alert is not delivered")
    assert one(engine, "SELECT status, tries, last_failure FROM deliveries") == ("delivered", 2, None)


@pytest.mark.parametrize(
    ("tries", "asked", "shortest", "longest"),
    [
        pytest.param(1, None, 7.5, 15, id="the first wait"),
        pytest.param(4, None, 60, 120, id="doubled each time"),
        pytest.param(11, None, 1800, 3600, id="up to the ceiling"),
        pytest.param(1000, None, 1800, 3600, id="however often"),
        pytest.param(1, 100.0, 100, 100, id="as long as the far side asked"),
        pytest.param(1, 1e9, 3600, 3600, id="but not for ever"),
    ],
)
def test_waits_grow_with_jitter(tries: int, asked: float | None, shortest: float, longest: float) -> None:
    waits = [RelaySettings().wait_seconds(tries, asked) for _ in range(50)]
    assert shortest <= min(waits) <= max(waits) <= longest


def test_after_the_last_try_it_is_a_dead_letter_and_the_next_one_goes(engine: Engine, mail: MailServer) -> None:
    mail.mode = "refuse"
    alert_all(engine, [url(mail)], [4999, 4888])
    wait_until(lambda: run(engine).dead == 1, "the alert is no dead letter")
    mail.mode = "accept"
    wait_until(lambda: waiting(engine) == 0 or run(engine).delivered == 1, "the next alert is not delivered")
    assert prices_in(mail.messages) == ["48.88"]
    # The second was tried as soon as the first was dead, in the same pass, and refused like it.
    assert rows(engine, "SELECT status, tries FROM deliveries ORDER BY id") == [("dead", 3), ("delivered", 2)]
    tries, reason, payload, event_id = one(engine, "SELECT tries, reason, payload, event_id FROM dead_letters")
    assert (tries, payload["alert"]["price"]["amount_minor"]) == (3, 4999)
    assert "550" in reason
    assert event_id in rows(engine, "SELECT event_id FROM events")


def test_an_outage_counts_no_refusal_and_its_waits_grow_all_the_same(engine: Engine, mail: MailServer) -> None:
    """Five tries in vain, where three refusals would be the end."""
    mail.mode = "refuse_later"
    alert_all(engine, [url(mail)], [4999])
    wait_until(lambda: run(engine).dead > 0 or one(engine, "SELECT tries FROM outbox") >= 5, "the alert is not tried again")
    assert one(engine, "SELECT refusals FROM outbox") == 0
    with engine.begin() as connection:
        connection.execute(text("UPDATE outbox SET next_try_at = clock_timestamp()"))
    run(engine, LATER)
    wait = one(engine, "SELECT extract(epoch FROM next_try_at - clock_timestamp())::float8 FROM outbox")
    assert 1700 < wait <= 3600


def test_an_alert_nobody_answers_for_days_is_a_dead_letter(engine: Engine, mail: MailServer) -> None:
    mail.mode = "refuse_later"
    alert_all(engine, [url(mail)], [4999])
    assert run(engine).refused == 1
    with engine.begin() as connection:
        connection.execute(text("UPDATE outbox SET failing_since = clock_timestamp() - interval '3 days', next_try_at = clock_timestamp()"))
    assert run(engine).dead == 1
    assert (one(engine, "SELECT tries FROM dead_letters"), one(engine, "SELECT status FROM deliveries")) == (2, "dead")


def test_an_alert_nobody_can_read_is_dead_at_once(engine: Engine, mail: MailServer) -> None:
    alert_all(engine, [url(mail)], [4999])
    unreadable = "json_build_object('delivery_id', payload->'delivery_id', 'alert', json_build_object())"
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE events SET payload = {unreadable}"))
    assert run(engine).dead == 1
    assert waiting(engine) == 0


def test_a_channel_of_a_lost_key_is_tried_again_later(engine: Engine, mail: MailServer) -> None:
    alert_all(engine, [url(mail)], [4999])
    other = sink(engine, cipher=ChannelCipher([make_key()]))
    assert relay(engine, other, settings=LATER, longest_seconds=60).refused == 1
    assert "127.0.0.1" not in one(engine, "SELECT last_failure FROM outbox")


def test_the_order_of_a_channel_is_kept_when_its_first_alert_is_refused(engine: Engine, mail: MailServer) -> None:
    mail.mode = "refuse_later"
    alert_all(engine, [url(mail)], [4999, 4888, 4777])
    done = run(engine, LATER)
    assert (done.refused, waiting(engine)) == (1, 3)
    mail.mode = "accept"
    with engine.begin() as connection:
        connection.execute(text("UPDATE outbox SET next_try_at = clock_timestamp() WHERE next_try_at IS NOT NULL"))
    run(engine)
    assert prices_in(mail.messages) == ["49.99", "48.88", "47.77"]


@pytest.mark.parametrize("is_settled", [True, False], ids=["nobody writes", "others write"])
def test_a_wait_that_ends_within_a_pass_lets_no_later_alert_overtake(
    engine: Engine, mail: MailServer, monkeypatch: pytest.MonkeyPatch, is_settled: bool
) -> None:
    """The first is refused; its wait is over before the next batch is read. Where others write it may be tried again in the same pass."""
    read = outbox.select_messages
    monkeypatch.setattr(outbox, "select_messages", lambda *args, **names: replace(read(*args, **names), is_settled=is_settled))
    mail.mode = "refuse_later"
    alert_all(engine, [url(mail)], [4999, 4888, 4777])

    class Turning(AlertSink):
        """The far side takes mail again as soon as it has refused one."""

        def store(self, connection: Connection, outcome: Outcome, *, is_dead: bool) -> None:
            super().store(connection, outcome, is_dead=is_dead)
            mail.mode = "accept"

    turning = Turning(engine, ChannelSender(connect_timeout_seconds=2, read_timeout_seconds=5), CIPHER)
    turning.batch_size = 1
    delivered = relay(engine, turning, settings=AT_ONCE, longest_seconds=60).delivered
    assert delivered == 0 or not is_settled
    wait_until(lambda: waiting(engine) == 0 or run(engine).delivered > 0, "the alerts are not delivered")
    assert prices_in(mail.messages) == ["49.99", "48.88", "47.77"]


def test_more_than_a_batch_arrives_in_order(engine: Engine, mail: MailServer) -> None:
    alert_all(engine, [url(mail)], [5000 - number for number in range(7)])
    small = sink(engine)
    small.batch_size = 2
    assert relay(engine, small, settings=AT_ONCE, longest_seconds=60).delivered == 7
    assert prices_in(mail.messages) == [f"{50 - number / 100:.2f}" for number in range(7)]


def test_a_dead_channel_holds_back_no_other(engine: Engine, mail: MailServer) -> None:
    """Eight channels are served while eight others do not say a word, before any of those is given up."""
    with MailServer(mode="hang") as dead:
        alert_all(engine, [url(server, f"r{number}") for number in range(8) for server in (dead, mail)], [4999])
        relaying = threading.Thread(target=run, args=(engine, LATER), kwargs={"read_timeout_seconds": 8})
        relaying.start()
        delivered = "SELECT count(*) FROM deliveries WHERE status = 'delivered'"
        wait_until(lambda: one(engine, delivered) == 8, "the eight wait for the others", longest_seconds=7)
        assert one(engine, "SELECT count(*) FROM deliveries WHERE tries > 0 AND status <> 'delivered'") == 0
        relaying.join(60)
    assert len(mail.messages) == 8
    assert one(engine, "SELECT count(*) FROM outbox WHERE tries = 1") == 8


def test_channels_side_by_side_each_keep_their_order(engine: Engine) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(MailServer()) for _ in range(4)]
        alert_all(engine, [url(server) for server in servers], [4999, 4888, 4777, 4666])
        assert run(engine).delivered == 16
        assert [prices_in(server.messages) for server in servers] == [["49.99", "48.88", "47.77", "46.66"]] * 4


def test_two_relays_at_once_deliver_each_alert_once(engine: Engine, mail: MailServer) -> None:
    alert_all(engine, [url(mail, f"r{number}") for number in range(12)], [4999, 4888])
    threads = [threading.Thread(target=run, args=(engine,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    run(engine)
    ids = [str(one_["Message-ID"]) for one_ in mail.messages]
    assert (len(ids), len(set(ids)), waiting(engine)) == (24, 24, 0)


def test_a_shard_another_relay_holds_is_left_to_it(engine: Engine, mail: MailServer) -> None:
    alert_all(engine, [url(mail)], [4999])
    shard = one(engine, "SELECT shard FROM outbox")
    with engine.connect() as connection:
        assert outbox.try_lock_shards(connection, Sink.NOTIFY, [shard]) == [shard]
        done = run(engine)
        outbox.unlock_shards(connection, Sink.NOTIFY, [shard])
    assert (done.delivered, done.shards_elsewhere, done.is_complete) == (0, [shard], True)


def test_after_a_relay_its_shards_are_free(engine: Engine, mail: MailServer) -> None:
    alert_all(engine, [url(mail, f"r{number}") for number in range(5)], [4999])
    run(engine)
    assert rows(engine, "SELECT objid FROM pg_locks WHERE locktype = 'advisory'") == []


def test_an_alert_of_a_deleted_channel_goes_nowhere(engine: Engine, mail: MailServer) -> None:
    alert_all(engine, [url(mail)], [4999])
    with engine.begin() as connection:
        delete_channel(connection, one(engine, "SELECT id FROM channels"))
    run(engine)
    assert (mail.messages, waiting(engine)) == ([], 0)


def test_an_alert_delivered_before_is_not_sent_again(engine: Engine, mail: MailServer) -> None:
    alert_all(engine, [url(mail)], [4999])
    with engine.begin() as connection:
        alerts.mark_delivered(connection, one(engine, "SELECT id FROM deliveries"), receipt="250 before")
    run(engine)
    assert (mail.messages, waiting(engine)) == ([], 0)
    assert one(engine, "SELECT receipt, tries FROM deliveries") == ("250 before", 1)


def test_an_unanswered_alert_is_tried_again_with_the_same_id(engine: Engine, mail: MailServer) -> None:
    """What the promise allows: the far side took it and was cut off before it said so."""
    mail.mode = "drop_after_data"
    alert_all(engine, [url(mail)], [4999])
    assert run(engine).refused == 1
    mail.mode = "accept"
    wait_until(lambda: run(engine).delivered == 1, "the alert is not delivered")
    assert len({str(one_["Message-ID"]) for one_ in mail.messages}) == 1


def test_a_relay_whose_time_is_up_says_so(engine: Engine, mail: MailServer) -> None:
    alert_all(engine, [url(mail)], [4999])
    assert run(engine, longest_seconds=0) == Relayed(is_complete=False)


def test_a_relay_told_to_stop_delivers_nothing_more(engine: Engine, mail: MailServer) -> None:
    alert_all(engine, [url(mail)], [4999])
    stop = threading.Event()
    stop.set()
    assert relay(engine, sink(engine), settings=AT_ONCE, longest_seconds=60, stop=stop).delivered == 0


def test_a_relay_told_to_stop_amid_a_batch_finishes_what_is_under_way_only(engine: Engine, mail: MailServer) -> None:
    """Twenty channels and one thread: all is submitted when the stop comes."""
    alert_all(engine, [url(mail, f"r{number}") for number in range(20)], [4999])
    with engine.begin() as connection:
        connection.execute(text("UPDATE outbox SET shard = 0"))
    stop = threading.Event()

    class Stopping(AlertSink):
        """Told to stop when the first answer is stored."""

        def store(self, connection: Connection, outcome: Outcome, *, is_dead: bool) -> None:
            super().store(connection, outcome, is_dead=is_dead)
            stop.set()

    stopping = Stopping(engine, ChannelSender(connect_timeout_seconds=2, read_timeout_seconds=5), CIPHER, at_once=1)
    done = relay(engine, stopping, settings=AT_ONCE, longest_seconds=60, stop=stop)
    assert 1 <= len(mail.messages) <= 3
    assert (done.delivered, waiting(engine), done.is_complete) == (len(mail.messages), 20 - len(mail.messages), False)


def test_a_channels_next_alert_does_not_leave_after_the_stop(engine: Engine, mail: MailServer) -> None:
    alert_all(engine, [url(mail)], [4999, 4888, 4777])
    stop = threading.Event()

    class Stopping(AlertSink):
        """Told to stop when the first answer is stored."""

        def store(self, connection: Connection, outcome: Outcome, *, is_dead: bool) -> None:
            super().store(connection, outcome, is_dead=is_dead)
            stop.set()

    stopping = Stopping(engine, ChannelSender(connect_timeout_seconds=2, read_timeout_seconds=5), CIPHER)
    assert relay(engine, stopping, settings=AT_ONCE, longest_seconds=60, stop=stop).delivered == 1
    assert prices_in(mail.messages) == ["49.99"]


def test_a_delivery_that_cannot_be_read_costs_no_other_its_acknowledgement(engine: Engine, mail: MailServer) -> None:
    """The other channel's mail is under way when the database fails for the first."""
    alert_all(engine, [url(mail, "r0"), url(mail, "r1")], [4999, 4888])
    with engine.begin() as connection:
        connection.execute(text("UPDATE outbox SET shard = 0"))
    first = one(engine, "SELECT min(event_seq) FROM outbox")

    class Unreadable(AlertSink):
        """The database fails for one message."""

        def _send(self, message: OutboxMessage, turn: Turn) -> Outcome | None:
            if message.seq == first:
                raise OperationalError("SELECT", {}, Exception("gone"))
            return super()._send(message, turn)

    unreadable = Unreadable(engine, ChannelSender(connect_timeout_seconds=2, read_timeout_seconds=5), CIPHER)
    done = relay(engine, unreadable, settings=AT_ONCE, longest_seconds=60)
    assert (done.delivered, waiting(engine), done.is_complete) == (2, 2, False)
    assert "OperationalError" in (done.down or "")
    assert rows(engine, "SELECT tries FROM outbox") == [0, 0]


def test_an_acknowledgement_that_fails_costs_no_other_its_own(engine: Engine, mail: MailServer) -> None:
    alert_all(engine, [url(mail, f"r{number}") for number in range(4)], [4999])
    with engine.begin() as connection:
        connection.execute(text("UPDATE outbox SET shard = 0"))
    all_sent = threading.Barrier(4)
    failed: list[Outcome] = []

    class Failing(AlertSink):
        """All four mails are sent before the first answer is stored, and storing that fails."""

        def _send(self, message: OutboxMessage, turn: Turn) -> Outcome | None:
            outcome = super()._send(message, turn)
            all_sent.wait(20)
            return outcome

        def store(self, connection: Connection, outcome: Outcome, *, is_dead: bool) -> None:
            if not failed:
                failed.append(outcome)
                raise OperationalError("UPDATE", {}, Exception("gone"))
            super().store(connection, outcome, is_dead=is_dead)

    failing = Failing(engine, ChannelSender(connect_timeout_seconds=2, read_timeout_seconds=5), CIPHER)
    with pytest.raises(OperationalError):
        relay(engine, failing, settings=AT_ONCE, longest_seconds=60)
    assert waiting(engine) == 1


class Down(AlertSink):
    """Nobody is there."""

    def deliver(self, messages: Sequence[OutboxMessage], turn: Turn) -> Iterator[list[Outcome]]:  # noqa: ARG002
        raise SinkDown(f"nobody is there for {len(messages)}")


def test_a_sink_that_is_down_refuses_nothing(engine: Engine, mail: MailServer) -> None:
    alert_all(engine, [url(mail)], [4999])
    done = relay(engine, Down(engine, ChannelSender(), CIPHER), settings=AT_ONCE, longest_seconds=60)
    assert (done.down, done.is_complete) == ("nobody is there for 1", False)
    assert rows(engine, "SELECT tries, next_try_at FROM outbox") == [(0, None)]


def test_a_lost_connection_to_postgresql_is_told(engine: Engine, mail: MailServer) -> None:
    alert_all(engine, [url(mail)], [4999, 4888])

    class Cutting(AlertSink):
        """Every connection but one breaks between the far side's answer and its storing."""

        def store(self, connection: Connection, outcome: Outcome, *, is_dead: bool) -> None:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
            with engine.begin() as other:
                other.execute(text(others))
            super().store(connection, outcome, is_dead=is_dead)

    cutting = Cutting(engine, ChannelSender(connect_timeout_seconds=2, read_timeout_seconds=5), CIPHER)
    with pytest.raises(OperationalError):
        relay(engine, cutting, settings=AT_ONCE, longest_seconds=60)
    wait_until(lambda: waiting(engine) == 0 or run(engine).delivered > 0, "the alerts are not delivered")
    assert len({str(one_["Message-ID"]) for one_ in mail.messages}) == 2


def test_locks_that_were_lost_are_not_sought_on_another_connection(engine: Engine) -> None:
    """SQLAlchemy would open one without a word, where nothing is locked, and the relay would go on beside whoever has the shards now."""
    with _lock_connection(engine) as connection:
        locks = _ShardLocks(connection, Sink.NOTIFY)
        with locks.hold(range(outbox.SHARDS)) as held:
            assert len(held) == outbox.SHARDS
            connection.invalidate()
            # The end of what SQLAlchemy takes for a transaction; from here on it would open another one.
            connection.rollback()
            with pytest.raises(PendingRollbackError), locks.hold(range(outbox.SHARDS)):
                pass
            with pytest.raises(PendingRollbackError):
                locks.check()
        assert connection.invalidated


def test_the_backlog_tells_what_waits(engine: Engine, mail: MailServer) -> None:
    mail.mode = "refuse"
    alert_all(engine, [url(mail)], [4999, 4888])
    run(engine, LATER)
    with engine.begin() as connection:
        [backlog] = outbox.select_backlog(connection)
        due_in = outbox.next_try_in_seconds(connection, Sink.NOTIFY)
    assert (backlog.sink, backlog.messages, backlog.postponed, backlog.dead_letters) == ("notify", 2, 1, 0)
    assert backlog.oldest_at is not None
    assert due_in is not None
    assert 290 < due_in <= 600


def test_messages_of_a_shard_come_in_order(engine: Engine) -> None:
    alert_all(engine, ["mailto://127.0.0.1:9/r@example.net?from=k@example.org"], [4999, 4888])
    shard = one(engine, "SELECT DISTINCT shard FROM outbox")
    with engine.begin() as connection:
        found = outbox.select_messages(connection, Sink.NOTIFY, {shard: 0}, limit=10)
        rest = outbox.select_messages(connection, Sink.NOTIFY, {shard: found.messages[0].seq}, limit=10)
    assert [message.payload["alert"]["price"]["amount_minor"] for message in found.messages] == [4999, 4888]
    assert rest.messages == found.messages[1:]


def test_the_alert_of_a_later_check_waits_behind_the_first(engine: Engine, mail: MailServer) -> None:
    alert_all(engine, [url(mail)], [4999])
    run(engine)
    run_record(engine, product([(ago(days=1), 90_000), (NOW, 85_000), (NOW + timedelta(hours=1), 4500)], at=NOW + timedelta(hours=1)))
    run(engine)
    assert prices_in(mail.messages) == ["49.99", "45.00"]
