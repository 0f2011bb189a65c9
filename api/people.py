"""Everybody and their API keys, and what was done that concerns others: for admins."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, status
from fastapi.responses import Response
from pydantic import Field
from sqlalchemy import Connection

from api.access import Admin
from api.api_keys import ApiKey, ApiKeys, shown_key
from api.live import House
from api.once import OnceOnly
from api.paging import DEFAULT_PAGE, CursorText, Limit, decode_cursor, next_page
from api.problems import problems
from api.schemas import Answer, Body, RowId
from keeper.accounts import add_user, change_role
from keeper.audit import Action, Outcome, Via, note
from keeper.domain.access import Role
from keeper.postgres import audit, users

router = APIRouter(tags=["people"])


class User(Answer):
    """Somebody."""

    id: int
    name: str = Field(examples=["anna"])
    role: Role
    created_at: datetime
    watches: int = Field(description="Active ones")
    channels: int
    api_keys: int = Field(description="Usable ones")


class Users(Answer):
    """One page."""

    users: list[User]
    next: str | None


class NewUser(Body):
    """Somebody to be added."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}$", examples=["ben"])]
    role: Role = Role.USER


class MadeUser(User):
    """Somebody just added."""

    key: str | None = Field(description="Their first API key, shown this once: null where the request is repeated", examples=["keeper_…"])


class RolePatch(Body):
    """Another role."""

    role: Role


class AuditEntry(Answer):
    """Something that was done, or tried."""

    id: int
    at: datetime = Field(description="By the machine's clock")
    via: Via = Field(description="Over the API, or by a command")
    actor: str = Field(description="The user's name; of a command the account of the operating system", examples=["anna"])
    user_id: int | None
    key_id: int | None = Field(description="The API key that was shown")
    action: str = Field(examples=["key.revoke"])
    target: str = Field(description="Ids and names, never a secret", examples=["key 7 of ben"])
    outcome: Outcome
    request_id: str = Field(description="`X-Request-ID` of the answer; empty of a command")


class AuditEntries(Answer):
    """One page."""

    entries: list[AuditEntry]
    next: str | None


def _shown(row: users.UserRow) -> User:
    return User(
        id=row.user_id,
        name=row.name,
        role=Role(row.role),
        created_at=row.created_at,
        watches=row.watches,
        channels=row.channels,
        api_keys=row.api_keys,
    )


@router.get("/users", responses=problems())
def list_users(_: Admin, live: House, request: Request, limit: Limit = DEFAULT_PAGE, cursor: CursorText = None) -> Users:
    """Everybody."""
    with live.begin() as connection:
        found = users.select_users_page(connection, after_id=decode_cursor(cursor) or 0, limit=limit)
    return Users(
        users=[_shown(row) for row in found],
        next=next_page(request, found[-1].user_id if found else None, is_full=len(found) == limit),
    )


@router.post("/users", status_code=status.HTTP_201_CREATED, responses=problems(409, body=True), response_model=MadeUser)
def make_user(body: NewUser, caller: Admin, once: OnceOnly) -> MadeUser | Response:
    """Add somebody, with a first key: of scope `write`, of an admin `admin`."""

    def effect(connection: Connection) -> MadeUser:
        made = add_user(connection, body.name, is_admin=body.role is Role.ADMIN)
        note(connection, caller.actor, Action.USER_ADD, f"{body.name}, {body.role}")
        return MadeUser(**_shown(users.select_user(connection, made.user_id)).model_dump(), key=made.shown_key)

    return once.change(effect, status=status.HTTP_201_CREATED, hide=lambda made: made.model_copy(update={"key": None}))


@router.patch("/users/{user_id:row}", responses=problems(404, 409, body=True))
def change_user(user_id: RowId, body: RolePatch, caller: Admin, live: House) -> User:
    """Another role, from their next request on: a key of scope `admin` of somebody who is no admin may do what `write` may."""
    with live.begin() as connection:
        if change_role(connection, user_id, body.role, by_user_id=caller.user_id):
            note(connection, caller.actor, Action.USER_ROLE, f"{users.find_name(connection, user_id)} to {body.role}")
        changed = _shown(users.select_user(connection, user_id))
    live.keys.forget()
    return changed


@router.get("/users/{user_id:row}/api-keys", responses=problems(404))
def list_keys_of_user(
    user_id: RowId, _: Admin, live: House, request: Request, limit: Limit = DEFAULT_PAGE, cursor: CursorText = None
) -> ApiKeys:
    """Somebody's keys, revoked ones included; never the keys themselves."""
    with live.begin() as connection:
        users.find_name(connection, user_id)
        found = users.select_api_keys(connection, user_id, after_id=decode_cursor(cursor) or 0, limit=limit)
    keys: list[ApiKey] = [shown_key(row) for row in found]
    return ApiKeys(api_keys=keys, next=next_page(request, found[-1].key_id if found else None, is_full=len(found) == limit))


@router.delete("/users/{user_id:row}/api-keys/{key_id:row}", status_code=status.HTTP_204_NO_CONTENT, responses=problems(404))
def revoke_key_of_user(user_id: RowId, key_id: RowId, caller: Admin, live: House) -> None:
    """It is worth nothing from the next request on; where several processes serve the API, within a second."""
    with live.begin() as connection:
        name = users.find_name(connection, user_id)
        users.revoke_api_key(connection, user_id, key_id)
        note(connection, caller.actor, Action.KEY_REVOKE, f"key {key_id} of {name}")
    live.keys.forget()


@router.get("/audit", responses=problems())
def list_audit(
    _: Admin,
    live: House,
    request: Request,
    action: Annotated[Action | None, Query(description="Only this")] = None,
    limit: Limit = DEFAULT_PAGE,
    cursor: CursorText = None,
) -> AuditEntries:
    """What was done that concerns others, over the API and by commands, the newest first. Kept `KEEPER_KEEP_AUDIT_DAYS`."""
    with live.begin() as connection:
        found = audit.select_entries(connection, before_id=decode_cursor(cursor), action=action, limit=limit)
    return AuditEntries(
        entries=[
            AuditEntry(
                id=row.audit_id,
                at=row.at,
                via=Via(row.via),
                actor=row.actor,
                user_id=row.user_id,
                key_id=row.key_id,
                action=row.action,
                target=row.target,
                outcome=Outcome(row.outcome),
                request_id=row.request_id,
            )
            for row in found
        ],
        next=next_page(request, found[-1].audit_id if found else None, is_full=len(found) == limit),
    )
