"""The log of what was done that concerns others. On the machine's clock; only added to."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One thing that was done, or tried.

    Attributes:
        via: `api` or `command`.
        actor: the user's name; of a command the account of the operating system.
        user_id, key_id: None of a command.
        request_id: of the answer to the request; empty of a command.
    """

    audit_id: int
    at: datetime
    via: str
    actor: str
    user_id: int | None
    key_id: int | None
    action: str
    target: str
    outcome: str
    request_id: str


def insert_entry(
    connection: Connection,
    *,
    via: str,
    actor: str,
    user_id: int | None,
    key_id: int | None,
    action: str,
    target: str,
    outcome: str,
    request_id: str,
) -> None:
    """Add one."""
    connection.execute(
        text(
            """
            INSERT INTO audit_log (via, actor, user_id, key_id, action, target, outcome, request_id)
            VALUES (:via, :actor, :user_id, :key_id, :action, :target, :outcome, :request_id)
            """
        ),
        {
            "via": via,
            "actor": actor,
            "user_id": user_id,
            "key_id": key_id,
            "action": action,
            "target": target,
            "outcome": outcome,
            "request_id": request_id,
        },
    )


def select_entries(
    connection: Connection, *, before_id: int | None = None, action: str | None = None, actor: str | None = None, limit: int = 100
) -> list[AuditRow]:
    """The newest first, of all or of one action or one actor."""
    rows = connection.execute(
        text(
            """
            SELECT id, at, via, actor, user_id, key_id, action, target, outcome, request_id FROM audit_log
            WHERE (CAST(:before_id AS bigint) IS NULL OR id < :before_id) AND (CAST(:action AS text) IS NULL OR action = :action)
                AND (CAST(:actor AS text) IS NULL OR actor = :actor)
            ORDER BY id DESC LIMIT :limit
            """
        ),
        {"before_id": before_id, "action": action, "actor": actor, "limit": limit},
    )
    return [AuditRow(*row) for row in rows]


def delete_old(connection: Connection, *, days: int) -> int:
    """Forget what is older: the one way in which a row may go. Returns how many."""
    connection.execute(text("SET LOCAL keeper.audit_retention = 'on'"))
    forgotten = connection.execute(
        text("DELETE FROM audit_log WHERE at < clock_timestamp() - make_interval(days => :days)"), {"days": days}
    ).rowcount
    connection.execute(text("SET LOCAL keeper.audit_retention = 'off'"))
    return forgotten
