"""Users' rules of opportunities."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.opportunity_rule import MOST_RULES, OpportunityRule

_LARGEST_ID: Final = 2**63 - 1
_CONDITIONS = ("least_roi_pct", "least_profit_minor", "least_margin_pct", "sources", "targets", "categories")
_COLUMNS = ", ".join(("id", "user_id", "name", "is_active", "created_at", "changed_at", *_CONDITIONS))


class RuleUnknown(KeeperError):
    """The user has no rule of that id."""


class RuleExists(KeeperError):
    """The user has a rule of that name."""


class TooManyRules(KeeperError):
    """The user has as many rules as there may be."""


@dataclass(frozen=True, slots=True)
class RuleRow:
    """A rule as it is kept.

    Attributes:
        changed_at: since when it is as it is: what was there before and has not become better since is not news for it.
    """

    rule_id: int
    user_id: int
    name: str
    is_active: bool
    created_at: datetime
    changed_at: datetime
    rule: OpportunityRule


def select_rules(connection: Connection, user_id: int | None = None) -> list[RuleRow]:
    """The rules of a user, by their number; of everybody the active ones."""
    condition = "is_active" if user_id is None else "user_id = :user_id"
    rows = connection.execute(
        text(f"SELECT {_COLUMNS} FROM opportunity_rules WHERE {condition} ORDER BY user_id, id"),
        {} if user_id is None else {"user_id": user_id},
    )
    return [_row(row) for row in rows]


def find_rule(connection: Connection, user_id: int, rule_id: int) -> RuleRow:
    """One of a user's rules.

    Raises:
        RuleUnknown: see there.
    """
    row = None
    if 0 < rule_id <= _LARGEST_ID:
        row = connection.execute(
            text(f"SELECT {_COLUMNS} FROM opportunity_rules WHERE user_id = :user_id AND id = :id"), {"user_id": user_id, "id": rule_id}
        ).one_or_none()
    if row is None:
        raise RuleUnknown(f"there is no rule {rule_id} of yours")
    return _row(row)


def insert_rule(connection: Connection, user_id: int, name: str, rule: OpportunityRule, *, is_active: bool, now: datetime) -> RuleRow:
    """Keep a rule.

    Raises:
        RuleExists, TooManyRules: see there.
    """
    # Two that are added at once wait for one another, so that the bound holds.
    connection.execute(text("SELECT 1 FROM users WHERE id = :user_id FOR NO KEY UPDATE"), {"user_id": user_id})
    count = connection.execute(text("SELECT count(*) FROM opportunity_rules WHERE user_id = :user_id"), {"user_id": user_id}).scalar_one()
    if count >= MOST_RULES:
        raise TooManyRules(f"you have {count} rules, which is as many as there may be; remove one first")
    names = ("user_id", "name", "is_active", "created_at", "changed_at", *_CONDITIONS)
    query = f"""
        INSERT INTO opportunity_rules ({", ".join(names)}) VALUES ({", ".join(f":{name}" for name in names)}) RETURNING {_COLUMNS}
    """
    values = {"user_id": user_id, "name": name, "is_active": is_active, "created_at": now, "changed_at": now} | _values(rule)
    return _row(_write(connection, query, values, name))


def update_rule(
    connection: Connection, user_id: int, rule_id: int, name: str, rule: OpportunityRule, *, is_active: bool, now: datetime
) -> RuleRow:
    """Put another in the place of one of a user's rules; what it has told stays told.

    Raises:
        RuleUnknown, RuleExists: see there.
    """
    before = find_rule(connection, user_id, rule_id)
    names = ("name", "is_active", "changed_at", *_CONDITIONS)
    query = f"""
        UPDATE opportunity_rules SET {", ".join(f"{name} = :{name}" for name in names)} WHERE id = :id RETURNING {_COLUMNS}
    """
    # A rule that only gets another name goes on as it was.
    changed_at = before.changed_at if (before.rule, before.is_active) == (rule, is_active) else now
    values = {"id": rule_id, "name": name, "is_active": is_active, "changed_at": changed_at} | _values(rule)
    return _row(_write(connection, query, values, name))


def delete_rule(connection: Connection, user_id: int, rule_id: int) -> None:
    """Remove one of a user's rules. What it has told stays told.

    Raises:
        RuleUnknown: see there.
    """
    find_rule(connection, user_id, rule_id)
    connection.execute(text("DELETE FROM opportunity_rules WHERE id = :id"), {"id": rule_id})


def _values(rule: OpportunityRule) -> dict[str, Any]:
    plain = {name: getattr(rule, name) for name in _CONDITIONS}
    return {name: [str(one) for one in value] if isinstance(value, tuple) else value for name, value in plain.items()}


def _write(connection: Connection, query: str, values: dict[str, Any], name: str) -> Sequence[Any]:
    try:
        with connection.begin_nested():
            return connection.execute(text(query), values).one()
    except IntegrityError as error:
        if "opportunity_rules_user_id_name_key" not in str(error):
            raise
        raise RuleExists(f"you have a rule {name!r} already") from error


def _row(row: Sequence[Any]) -> RuleRow:
    rule_id, user_id, name, is_active, created_at, changed_at, roi, profit, margin, sources, targets, categories = row
    stores = tuple(Marketplace(one) for one in sources), tuple(Marketplace(one) for one in targets)
    rule = OpportunityRule(roi, profit, margin, *stores, tuple(categories))
    return RuleRow(rule_id, user_id, name, is_active, created_at, changed_at, rule)
