"""Requests that came with an Idempotency-Key, and what was answered. On the machine's clock."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class KeptRequest:
    """What makes a request the same one.

    Attributes:
        body_hash: SHA-256 of the body.
    """

    user_id: int
    method: str
    path: str
    key: str
    body_hash: bytes

    @property
    def place(self) -> dict[str, Any]:
        """Where it is kept."""
        return {"user_id": self.user_id, "method": self.method, "path": self.path, "key": self.key}


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What is known of it.

    Attributes:
        status: None while it was begun and not finished.
    """

    body_hash: bytes
    status: int | None
    answer: Any
    started_at: datetime


_WHERE = "WHERE user_id = :user_id AND method = :method AND path = :path AND key = :key"


def try_lock(connection: Connection, request: KeptRequest, *, until_commit: bool) -> bool:
    """Whether nobody else works on the same request; else until the end of the transaction, or of the connection, nobody will."""
    function = "pg_try_advisory_xact_lock" if until_commit else "pg_try_advisory_lock"
    is_mine: bool = connection.execute(text(f"SELECT {function}(hashtextextended(:name, 0))"), {"name": _lock_name(request)}).scalar_one()
    return is_mine


def unlock(connection: Connection, request: KeptRequest) -> None:
    """Give up what `try_lock` took for the time of the connection."""
    connection.execute(text("SELECT pg_advisory_unlock(hashtextextended(:name, 0))"), {"name": _lock_name(request)})


def _lock_name(request: KeptRequest) -> str:
    return f"keeper.request {request.user_id} {request.method} {request.path} {request.key}"


def select_answer(connection: Connection, request: KeptRequest) -> KeptAnswer | None:
    """What was kept; None where it is new."""
    row = connection.execute(
        text(f"SELECT body_hash, status, answer, started_at FROM idempotent_requests {_WHERE}"), request.place
    ).one_or_none()
    return None if row is None else KeptAnswer(bytes(row.body_hash), *row[1:])


def insert_answer(connection: Connection, request: KeptRequest, *, status: int, answer: str) -> None:
    """Keep the answer, in the transaction of what it tells."""
    connection.execute(
        text(
            """
            INSERT INTO idempotent_requests (user_id, method, path, key, body_hash, status, answer)
            VALUES (:user_id, :method, :path, :key, :body_hash, :status, CAST(:answer AS json))
            """
        ),
        {**request.place, "body_hash": request.body_hash, "status": status, "answer": answer},
    )


def insert_start(connection: Connection, request: KeptRequest) -> str:
    """Note that it was begun. Returns when it was begun before, in words; empty where this is the first time."""
    began = connection.execute(
        text(
            """
            INSERT INTO idempotent_requests (user_id, method, path, key, body_hash) VALUES (:user_id, :method, :path, :key, :body_hash)
            ON CONFLICT DO NOTHING RETURNING started_at
            """
        ),
        {**request.place, "body_hash": request.body_hash},
    ).scalar_one_or_none()
    if began is not None:
        return ""
    kept = select_answer(connection, request)
    return "" if kept is None else f"{kept.started_at:%Y-%m-%d %H:%M:%S} UTC"


def update_answer(connection: Connection, request: KeptRequest, *, status: int, answer: str) -> None:
    """It has come to its end."""
    connection.execute(
        text(f"UPDATE idempotent_requests SET status = :status, answer = CAST(:answer AS json) {_WHERE}"),
        {**request.place, "status": status, "answer": answer},
    )


def delete_request(connection: Connection, request: KeptRequest) -> None:
    """As if it had never come."""
    connection.execute(text(f"DELETE FROM idempotent_requests {_WHERE}"), request.place)


def delete_old(connection: Connection, *, hours: int = 24) -> int:
    """Forget what was begun so long ago. Returns how many."""
    return connection.execute(
        text("DELETE FROM idempotent_requests WHERE started_at < clock_timestamp() - make_interval(hours => :hours)"), {"hours": hours}
    ).rowcount
