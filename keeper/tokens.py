"""The verbs `reserve` and `settle`: no request to Keepa without tokens set aside, no answer without its row.

Reserve the upper bound before the request, settle with what the answer says, give the rest back. Each step is a short transaction of
its own on the ledger's one row; nothing waits while it holds the lock.
"""

import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine

from keeper.domain.budget import Bucket, Forecast, Priority, Reservation, floor_of, forecast, tokens_ahead, unexplained
from keeper.domain.errors import KeeperError, TransientError
from keeper.domain.events import Event, EventKind
from keeper.domain.tokens import KeepaCall, TokenStatus
from keeper.keepa.client import KeepaClient
from keeper.keepa.errors import KeepaError
from keeper.keepa.requests import ProductOptions, cost_upper_bound
from keeper.postgres import ledger
from keeper.postgres.ledger import Demand, HourSpending, Ledger, Reserved, Spending
from keeper.postgres.outbox import insert_events
from keeper.postgres.sinks import lock_routes

_LONGEST_SLEEP_SECONDS = 2.0
_SHORTEST_SLEEP_SECONDS = 0.002
_SETTLE_SLEEP_SECONDS = 0.05
# A waiting process shows itself at least this often; after that its place in the queue is free.
_WAIT_LEASE_SECONDS = 10.0


class TokensUnaffordable(KeeperError):
    """A request that costs more than the bucket can ever hold."""


class TokensUnavailable(TransientError):
    """Not enough tokens within the time the caller would wait.

    Attributes:
        wait_seconds: business seconds until they would be there; None when no end is in sight.
    """

    def __init__(self, message: str, wait_seconds: float | None) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """How the budget is shared.

    Attributes:
        user_share_pct: share of the bucket background jobs leave untouched.
        lease_seconds: machine time after which the reservation of a dead process is written off.
    """

    user_share_pct: float = 5.0
    lease_seconds: float = 600.0


def learn_bucket(engine: Engine, client: KeepaClient) -> None:
    """Ask Keepa for the bucket where it is not known yet, or was another key's. Free of tokens.

    Raises:
        KeepaError: as the client says.
    """
    with engine.begin() as connection:
        known = ledger.lock_ledger(connection)
        if known.bucket is not None and known.key_fingerprint == client.key_fingerprint:
            return
        ledger.forget_bucket(connection)
    ask_bucket(engine, client)


def ask_bucket(engine: Engine, client: KeepaClient) -> None:
    """Ask Keepa for the bucket now (free of tokens) and note the call."""
    started = time.monotonic()
    try:
        answer = client.fetch_token_status()
    except KeepaError as error:
        settle(engine, None, error.call, error.tokens, key_fingerprint=client.key_fingerprint, started=started)
        raise
    settle(engine, None, answer.call, answer.tokens, key_fingerprint=client.key_fingerprint, started=started)


def reserve(engine: Engine, *, operation: str, tokens: int, priority: Priority, max_wait_seconds: float, settings: TokenSettings) -> int:
    """Set tokens aside, waiting for the turn if need be. Earlier requests of the same priority go first, dear or cheap.

    Args:
        max_wait_seconds: machine time.

    Returns:
        The reservation's id, for `settle` or `release`.

    Raises:
        TokensUnaffordable: more than the bucket holds.
        TokensUnavailable: not within `max_wait_seconds`; nothing stays reserved.
    """
    deadline = time.monotonic() + max_wait_seconds
    reservation_id: int | None = None
    while True:
        with engine.begin() as connection:
            state = ledger.lock_ledger(connection)
            bucket = _known(state)
            least = tokens + floor_of(priority, bucket, settings.user_share_pct)
            if least > bucket.capacity:
                raise TokensUnaffordable(
                    f"{operation} needs {tokens} tokens at once, the bucket holds {bucket.capacity}; ask for less at a time"
                )
            mine = Reservation(reservation_id if reservation_id is not None else 2**62, tokens, priority, False)
            needed = least + tokens_ahead(mine, state.reservations)
            if bucket.tokens_at(state.now) >= needed:
                if reservation_id is not None and ledger.update_reservation(
                    connection, reservation_id, is_granted=True, lease_seconds=settings.lease_seconds
                ):
                    return reservation_id
                return ledger.insert_reservation(
                    connection,
                    operation=operation,
                    tokens=tokens,
                    priority=priority,
                    is_granted=True,
                    lease_seconds=settings.lease_seconds,
                )
            payable_at = bucket.payable_at(min(needed, bucket.capacity), state.now)
            wait_seconds = None if payable_at is None else (payable_at - state.now).total_seconds()
            if needed > bucket.capacity:
                # The bucket never holds all that goes first: its requests in flight must be settled.
                sleep_seconds = _SETTLE_SLEEP_SECONDS
            else:
                sleep_seconds = _LONGEST_SLEEP_SECONDS if wait_seconds is None else wait_seconds / state.clock_speed
            left = deadline - time.monotonic()
            if left <= 0:
                if reservation_id is not None:
                    ledger.delete_reservation(connection, reservation_id)
                problem = _unavailable(operation, tokens, wait_seconds)
            else:
                problem = None
                if reservation_id is None or not ledger.update_reservation(
                    connection, reservation_id, is_granted=False, lease_seconds=_WAIT_LEASE_SECONDS
                ):
                    reservation_id = ledger.insert_reservation(
                        connection,
                        operation=operation,
                        tokens=tokens,
                        priority=priority,
                        is_granted=False,
                        lease_seconds=_WAIT_LEASE_SECONDS,
                    )
        if problem is not None:
            raise problem
        time.sleep(max(_SHORTEST_SLEEP_SECONDS, min(sleep_seconds, left, _LONGEST_SLEEP_SECONDS)))


def release(engine: Engine, reservation_id: int) -> None:
    """Give a reservation back whole: its request was never sent."""
    with engine.begin() as connection:
        ledger.lock_ledger(connection)
        ledger.delete_reservation(connection, reservation_id)


def settle(
    engine: Engine,
    reservation_id: int | None,
    call: KeepaCall,
    tokens: TokenStatus | None,
    *,
    key_fingerprint: str,
    started: float,
    may_have_cost: bool = False,
    call_id: UUID | None = None,
) -> None:
    """Settle one request with what its answer says, and leave its row and event, in one transaction.

    Answers may come back in another order than Keepa gave them: only a newer word on the bucket than the known one counts.

    Args:
        reservation_id: None where nothing was reserved (the free `/token`).
        tokens: None where no readable answer came.
        started: `time.monotonic()` just before the request.
        may_have_cost: Keepa may have executed the request although its answer is lost; its tokens count as spent until Keepa says
            otherwise.
        call_id: given where the caller may settle the same call again, not knowing whether the first time was committed.
    """
    call_id = call_id or uuid4()
    with engine.begin() as connection:
        routes = lock_routes(connection)
        state = ledger.lock_ledger(connection)
        elapsed = time.monotonic() - started  # the wait for the lock included: it ends when `state.now` was read
        if ledger.has_call(connection, call_id):
            return
        reserved, purpose = ledger.delete_reservation(connection, reservation_id) if reservation_id is not None else (0, None)
        events = [_call_event(call_id, call, state.now)]
        if tokens is not None:
            observed = _observed(tokens, state, elapsed)
            others = [one for one in state.reservations if one.id != reservation_id]
            if state.bucket is None or state.key_fingerprint != key_fingerprint:
                ledger.update_bucket(connection, observed, said_at=tokens.at, key_fingerprint=key_fingerprint, unexplained_tokens=0)
            elif not _is_newer(tokens, state, elapsed):
                # In flight together with the known word, which may have been said before this was spent.
                ledger.write_off(connection, tokens.tokens_consumed)
            else:
                gone = unexplained(state.bucket, observed, tokens.tokens_consumed, others, state.unexplained_tokens)
                observed = replace(observed, tokens=observed.tokens - _spent_beside(connection, observed, state, elapsed))
                ledger.update_bucket(connection, observed, said_at=tokens.at, key_fingerprint=key_fingerprint, unexplained_tokens=gone)
                if gone > observed.refill_per_minute:
                    ledger.add_foreign_tokens(connection, gone, now=state.now)
                    events.append(_foreign_event(call_id, gone, observed, state.now))
        elif may_have_cost and reserved:
            ledger.write_off(connection, reserved)
        ledger.insert_call(connection, call_id, call, reserved_for=purpose, now=state.now)
        insert_events(connection, events, routes)


def _spent_beside(connection: Connection, observed: Bucket, state: Ledger, elapsed_seconds: float) -> int:
    """Tokens of requests in flight together with this one and settled before it, where this one's word may not hold them yet.

    Keepa's clock cannot tell: it is read before the tokens are taken. A balance below ours, refill aside, can.
    """
    in_flight = timedelta(seconds=elapsed_seconds * state.clock_speed)
    refilled = observed.refill_per_minute * (in_flight // timedelta(minutes=1) + 1)
    return ledger.select_spent(connection, since=state.now - in_flight, tokens_left_below=observed.tokens + refilled)


def _known(state: Ledger) -> Bucket:
    if state.bucket is None:
        raise TokensUnavailable("Keepa has not been asked for its tokens yet; `keeper tokens --refresh` does", None)
    return state.bucket


def _unavailable(operation: str, tokens: int, wait_seconds: float | None) -> TokensUnavailable:
    when = "no end is in sight: trackings eat the refill" if wait_seconds is None else f"they will be there in {wait_seconds:.0f} s"
    return TokensUnavailable(f"{operation} needs {tokens} tokens; {when}", wait_seconds)


def _observed(tokens: TokenStatus, state: Ledger, elapsed_seconds: float) -> Bucket:
    """Keepa's word in our time: its clock may be off, but it spoke between the sending of the request and now."""
    earliest = state.now - timedelta(seconds=elapsed_seconds * state.clock_speed)
    at = min(max(tokens.at, earliest), state.now)
    return Bucket(
        tokens.tokens_left,
        tokens.refill_per_minute,
        tokens.flow_reduction_per_minute,
        at,
        at + timedelta(seconds=max(0.001, tokens.refill_in_seconds)),
    )


def _is_newer(tokens: TokenStatus, state: Ledger, elapsed_seconds: float) -> bool:
    """By Keepa's own clock, because ours cannot order what was in flight together.

    Requests in flight together cannot be further apart than this one took: where they are, Keepa's clock was set back.
    """
    if state.bucket is None or state.said_at is None:
        return True
    was_set_back = (state.said_at - tokens.at).total_seconds() > elapsed_seconds * state.clock_speed + 1
    return was_set_back or (tokens.at, -tokens.tokens_left) > (state.said_at, -state.bucket.tokens)


def _call_event(call_id: UUID, call: KeepaCall, now: datetime) -> Event:
    """The document of `keeper-metrics`."""
    payload = {
        "timestamp": _zulu(now),
        "operation": call.operation,
        "tokens_consumed": call.tokens_consumed,
        "tokens_left": call.tokens_left,
        "refill_rate": call.refill_rate,
        "refill_in": call.refill_in,
        "response_time_ms": call.response_time_ms,
        "asin_count": call.asin_count,
        "domain": call.domain,
        "success": call.success,
        "error": call.error,
        "event_id": str(call_id),
        "schema_version": 1,
    }
    return Event.of(call_id, EventKind.KEEPA_CALL, str(call_id), payload)


def _foreign_event(call_id: UUID, tokens: int, bucket: Bucket, now: datetime) -> Event:
    payload = {"timestamp": _zulu(now), "tokens": tokens, "tokens_left": bucket.tokens, "seen_with_call": str(call_id)}
    return Event.of(uuid4(), EventKind.TOKENS_FOREIGN, "ledger", payload)


def _zulu(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def renew(engine: Engine, reservation_id: int, settings: TokenSettings) -> bool:
    """Start the lease of a granted reservation anew, just before its request. False when it was written off meanwhile."""
    with engine.begin() as connection:
        return ledger.update_reservation(connection, reservation_id, is_granted=True, lease_seconds=settings.lease_seconds)


@dataclass(frozen=True, slots=True)
class TokenReport:
    """The budget for people.

    Attributes:
        now: business time of the report.
        tokens: the balance, if nobody has spent since Keepa's last word.
        reserved: by operation.
        last_hour, last_day: by operation, the dearest first.
        hours: the last 24 hours of the clock, oldest first.
        demand: what the watches ask for.
        foreign_tokens: spent by others on this key since it is in use.
    """

    now: datetime
    bucket: Bucket
    tokens: int
    reserved: list[Reserved]
    last_hour: list[Spending]
    last_day: list[Spending]
    hours: list[HourSpending]
    demand: Demand
    forecast: Forecast
    foreign_tokens: int
    foreign_seen_at: datetime | None


def report_tokens(connection: Connection) -> TokenReport | None:
    """What is there, who has spent it, and how long it lasts; None where Keepa has not been asked for its tokens yet."""
    state = ledger.read_ledger(connection)
    if state.bucket is None:
        return None
    last_hour = ledger.select_spending(connection, since=state.now - timedelta(hours=1))
    demand = ledger.select_demand(
        connection, plain_tokens=cost_upper_bound(1, ProductOptions()), buybox_tokens=cost_upper_bound(1, ProductOptions(buybox=True))
    )
    return TokenReport(
        now=state.now,
        bucket=state.bucket,
        tokens=state.bucket.tokens_at(state.now),
        reserved=ledger.select_reserved(connection),
        last_hour=last_hour,
        last_day=ledger.select_spending(connection, since=state.now - timedelta(days=1)),
        hours=ledger.select_hourly_spending(connection, now=state.now),
        demand=demand,
        forecast=forecast(
            state.bucket,
            now=state.now,
            reserved=sum(one.tokens for one in state.reservations if one.is_granted),
            planned_per_minute=demand.tokens_per_minute,
            spent_per_minute=sum(one.tokens for one in last_hour) / 60,
        ),
        foreign_tokens=state.foreign_tokens,
        foreign_seen_at=state.foreign_seen_at,
    )
