"""Your rules: which opportunities you are told of on your channels."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, status
from fastapi.responses import Response
from pydantic import AfterValidator, Field, StrictBool, StringConstraints
from sqlalchemy import Connection

from api.access import Reader, Writer
from api.live import House
from api.once import OnceOnly
from api.opportunities import FeeCategory, Percent
from api.problems import problems
from api.schemas import NO_TEXT, Answer, Body, RowId
from keeper.domain.marketplace import Marketplace
from keeper.domain.opportunity_rule import LONGEST_NAME, MOST_CATEGORIES, MOST_PROFIT_MINOR, OpportunityRule, check_rule_name
from keeper.postgres import installation, opportunity_rules
from keeper.postgres.opportunity_rules import RuleRow

router = APIRouter(tags=["arbitrage"])

_ONE = "/opportunity-rules/{rule_id:row}"


def _each_once(named: list[str]) -> list[str]:
    if len(set(named)) != len(named):
        raise ValueError("names one twice")
    return named


SaidPercent = Annotated[Percent, NO_TEXT]
Stores = Annotated[
    list[Marketplace], Field(max_length=len(Marketplace), json_schema_extra={"uniqueItems": True}), AfterValidator(_each_once)
]
Categories = Annotated[
    list[FeeCategory], Field(max_length=MOST_CATEGORIES, json_schema_extra={"uniqueItems": True}), AfterValidator(_each_once)
]


class NewRule(Body):
    """A rule to be kept. All conditions hold at once, within a list any one does; what is left out is no condition."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME, pattern=r"^\S[^\x00-\x1f\x7f]*$")] = Field(
        examples=["Good ones to Italy"]
    )
    least_roi_pct: SaidPercent | None = Field(None, description="True profit of what is invested, percent", examples=[30])
    least_profit_minor: Annotated[int, Field(ge=-MOST_PROFIT_MINOR, le=MOST_PROFIT_MINOR), NO_TEXT] | None = Field(
        None, description="True profit, euro cents", examples=[500]
    )
    least_margin_pct: SaidPercent | None = Field(None, description="Gross gap of the purchase price, percent")
    sources: Stores = Field([], description="Stores to buy in; none: all")
    targets: Stores = Field([], description="Stores to sell in; none: all", examples=[["IT"]])
    categories: Categories = Field([], description="Keeper's own fee categories")
    is_active: StrictBool = Field(True, description="False: kept, and tells nothing")

    def wanted(self) -> OpportunityRule:
        """The same as a rule.

        Raises:
            RuleInvalid: see there.
        """
        return OpportunityRule(
            self.least_roi_pct,
            self.least_profit_minor,
            self.least_margin_pct,
            tuple(self.sources),
            tuple(self.targets),
            tuple(self.categories),
        )


class RuleAnswer(Answer):
    """A rule as it is kept."""

    id: int
    name: str
    least_roi_pct: float | None
    least_profit_minor: int | None
    least_margin_pct: float | None
    sources: list[Marketplace]
    targets: list[Marketplace]
    categories: list[str]
    is_active: bool
    created_at: datetime
    changed_at: datetime = Field(description="What was there before, and has not become better since, is not told")


class RuleList(Answer):
    """All of yours; there are at most 50."""

    rules: list[RuleAnswer]


def _shown(row: RuleRow) -> RuleAnswer:
    rule = row.rule
    return RuleAnswer(
        id=row.rule_id,
        name=row.name,
        least_roi_pct=None if rule.least_roi_pct is None else float(rule.least_roi_pct),
        least_profit_minor=rule.least_profit_minor,
        least_margin_pct=None if rule.least_margin_pct is None else float(rule.least_margin_pct),
        sources=list(rule.sources),
        targets=list(rule.targets),
        categories=list(rule.categories),
        is_active=row.is_active,
        created_at=row.created_at,
        changed_at=row.changed_at,
    )


@router.get("/opportunity-rules", responses=problems())
def list_rules(caller: Reader, live: House) -> RuleList:
    """Your rules."""
    with live.begin() as connection:
        return RuleList(rules=[_shown(row) for row in opportunity_rules.select_rules(connection, caller.user_id)])


@router.post("/opportunity-rules", status_code=status.HTTP_201_CREATED, responses=problems(409, body=True), response_model=RuleAnswer)
def add_rule(body: NewRule, caller: Writer, once: OnceOnly) -> RuleAnswer | Response:
    """Be told of new opportunities: each once, on all your channels, with the profit of your own seller's profile where you have one.

    What is doubtful, stale, or of unknown profit is never told.
    """
    name, wanted = check_rule_name(body.name), body.wanted()

    def effect(connection: Connection) -> RuleAnswer:
        now = installation.select_now(connection)
        return _shown(opportunity_rules.insert_rule(connection, caller.user_id, name, wanted, is_active=body.is_active, now=now))

    return once.change(effect, status=status.HTTP_201_CREATED)


@router.get(_ONE, responses=problems(404))
def get_rule(rule_id: RowId, caller: Reader, live: House) -> RuleAnswer:
    """One of your rules."""
    with live.begin() as connection:
        return _shown(opportunity_rules.find_rule(connection, caller.user_id, rule_id))


@router.put(_ONE, responses=problems(404, 409, body=True))
def replace_rule(rule_id: RowId, body: NewRule, caller: Writer, live: House) -> RuleAnswer:
    """Put another in the place of one of your rules. What was told stays told."""
    name, wanted = check_rule_name(body.name), body.wanted()
    with live.begin() as connection:
        now = installation.select_now(connection)
        return _shown(opportunity_rules.update_rule(connection, caller.user_id, rule_id, name, wanted, is_active=body.is_active, now=now))


@router.delete(_ONE, status_code=status.HTTP_204_NO_CONTENT, responses=problems(404))
def remove_rule(rule_id: RowId, caller: Writer, live: House) -> None:
    """Remove one of your rules."""
    with live.begin() as connection:
        opportunity_rules.delete_rule(connection, caller.user_id, rule_id)
