"""What Keepa allows, and who spends it."""

from datetime import datetime

from fastapi import APIRouter, Request
from pydantic import Field

from api.access import Reader
from api.budget import Allowance
from api.live import House, Live, PlacesTaken
from api.problems import problems
from api.schemas import Answer
from keeper.postgres.ledger import read_ledger
from keeper.tokens import TokenReport, learn_bucket, report_tokens

router = APIRouter(tags=["tokens"])


class ReservedTokens(Answer):
    """Tokens set aside for one operation."""

    operation: str = Field(examples=["product"])
    granted: int = Field(description="Of requests that may be on their way")
    waiting: int = Field(description="Of requests that wait for their turn")


class SpentTokens(Answer):
    """What the calls of one operation came to."""

    operation: str = Field(examples=["product"])
    calls: int
    failed: int
    asins: int
    tokens: int


class SpentHour(Answer):
    """What the calls of one hour came to."""

    hour_at: datetime = Field(description="Its beginning, UTC")
    calls: int
    failed: int
    tokens: int


class TokenForecast(Answer):
    """What becomes of the balance. Null: it never comes to that."""

    minutes_until_full: float | None = Field(description="If nobody spends; 0: it is full")
    minutes_until_empty_as_planned: float | None = Field(description="If all active watches are checked as they ask for")
    minutes_until_empty_as_spent: float | None = Field(description="At the pace of the last hour")
    planned_per_minute: float = Field(description="Tokens all active watches need")
    spent_per_minute: float = Field(description="Tokens of the last hour")
    needed_pct: float | None = Field(description="Share of the refill the watches need; null: nothing refills")
    watches_fit: bool = Field(description="Whether the refill carries all active watches for good")


class OtherSpenders(Answer):
    """Tokens gone that none of Keeper's requests has spent."""

    tokens: int = Field(description="Since the key is in use")
    last_seen_at: datetime | None = Field(description="Null: never")


class Tokens(Answer):
    """The budget of everybody here: one Keepa key, one bucket."""

    source: str = Field(description="Which Keepa: `keepa` or `simulator`")
    tokens: int = Field(description="The balance, if nobody else has spent since Keepa's last word; below zero in debt")
    capacity: int
    refill_per_minute: int
    flow_reduction_per_minute: float = Field(description="What trackings on the key eat of the refill")
    observed_at: datetime = Field(description="When Keepa last said the balance")
    next_refill_at: datetime
    reserved: list[ReservedTokens]
    last_hour: list[SpentTokens] = Field(description="By operation, the dearest first")
    last_day: list[SpentTokens] = Field(description="By operation, the dearest first")
    hours: list[SpentHour] = Field(description="The last 24 hours of the clock, oldest first")
    watched_products: int = Field(description="Products of active watches, each store's for itself")
    forecast: TokenForecast
    others: OtherSpenders


class OwnAllowance(Answer):
    """Requests to this API, by key."""

    limit: int = Field(description="In any minute")
    remaining: int
    reset_seconds: int = Field(description="Until the oldest request counted falls out of the minute")


class KeepaAllowance(Answer):
    """Tokens of Keepa's, for everybody here."""

    source: str = Field(description="Which Keepa: `keepa` or `simulator`")
    tokens: int
    capacity: int
    refill_per_minute: int
    next_refill_seconds: float = Field(description="Until more come")


class RateLimits(Answer):
    """What you may still ask."""

    api: OwnAllowance | None = Field(description="Null: no keys are asked for, so nothing is counted")
    keepa: KeepaAllowance | None = Field(description="Null: Keepa has not been asked for its tokens yet")


def _shown(report: TokenReport, source: str) -> Tokens:
    bucket, forecast = report.bucket, report.forecast
    return Tokens(
        source=source,
        tokens=report.tokens,
        capacity=bucket.capacity,
        refill_per_minute=bucket.refill_per_minute,
        flow_reduction_per_minute=bucket.flow_reduction_per_minute,
        observed_at=bucket.observed_at,
        next_refill_at=bucket.next_step_at(report.now),
        reserved=[ReservedTokens(operation=one.operation, granted=one.granted, waiting=one.waiting) for one in report.reserved],
        last_hour=[
            SpentTokens(operation=one.operation, calls=one.calls, failed=one.failed, asins=one.asins, tokens=one.tokens)
            for one in report.last_hour
        ],
        last_day=[
            SpentTokens(operation=one.operation, calls=one.calls, failed=one.failed, asins=one.asins, tokens=one.tokens)
            for one in report.last_day
        ],
        hours=[SpentHour(hour_at=one.hour_at, calls=one.calls, failed=one.failed, tokens=one.tokens) for one in report.hours],
        watched_products=report.demand.products,
        forecast=TokenForecast(
            minutes_until_full=_rounded(forecast.minutes_until_full),
            minutes_until_empty_as_planned=_rounded(forecast.minutes_until_empty_as_planned),
            minutes_until_empty_as_spent=_rounded(forecast.minutes_until_empty_as_spent),
            planned_per_minute=round(forecast.planned_per_minute, 4),
            spent_per_minute=round(forecast.spent_per_minute, 4),
            needed_pct=_rounded(forecast.needed_pct),
            watches_fit=forecast.watches_fit,
        ),
        others=OtherSpenders(tokens=report.foreign_tokens, last_seen_at=report.foreign_seen_at),
    )


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 2)


@router.get("/tokens", responses=problems(502))
def get_tokens(_: Reader, live: House) -> Tokens:
    """The balance, the refill, who has reserved and spent what, and how long it lasts."""
    report = _report(live)
    if report is None:
        _learn(live)
        report = _report(live)
    if report is None:
        raise PlacesTaken("Keepa's tokens are not known yet; somebody is asking")
    return _shown(report, live.resources.source)


def _report(live: Live) -> TokenReport | None:
    with live.begin() as connection:
        return report_tokens(connection)


def _learn(live: Live) -> None:
    """Ask Keepa, once and free of tokens, where nobody has yet. It may not answer, so threads are left for everybody else."""
    with live.place(live.checks):
        learn_bucket(live.resources.engine, live.resources.keepa)


@router.get("/rate-limit", responses=problems())
def get_rate_limit(_: Reader, live: House, request: Request) -> RateLimits:
    """How many requests your key has left in this minute, and how many tokens Keepa has left for everybody."""
    allowance: Allowance | None = getattr(request.state, "allowance", None)
    with live.begin() as connection:
        state = read_ledger(connection)
    own = keepa = None
    if allowance is not None:
        own = OwnAllowance(limit=allowance.limit, remaining=allowance.remaining, reset_seconds=allowance.reset_seconds)
    if state.bucket is not None:
        # Waiting is done on the machine's clock.
        seconds = (state.bucket.next_step_at(state.now) - state.now).total_seconds() / state.clock_speed
        keepa = KeepaAllowance(
            source=live.resources.source,
            tokens=state.bucket.tokens_at(state.now),
            capacity=state.bucket.capacity,
            refill_per_minute=state.bucket.refill_per_minute,
            next_refill_seconds=round(seconds, 3),
        )
    return RateLimits(api=own, keepa=keepa)
