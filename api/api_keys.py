"""Your API keys: made, listed, revoked."""

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Request, status
from fastapi.responses import Response
from pydantic import Field
from sqlalchemy import Connection

from api.access import Reader, Writer
from api.live import House
from api.once import OnceOnly
from api.paging import DEFAULT_PAGE, CursorText, Limit, decode_cursor, next_page
from api.problems import problems
from api.schemas import NO_TEXT, Answer, Body, RowId
from keeper.accounts import ScopeTooWide, add_api_key
from keeper.audit import Action, note
from keeper.domain.access import Scope
from keeper.postgres import users
from keeper.postgres.users import KeyRow

router = APIRouter(tags=["you"])


class NewApiKey(Body):
    """A key to be made."""

    label: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[ -~\u00a0-\ud7ff]+$", examples=["dashboard"])]
    scope: Scope = Field(
        Scope.READ, description="What it may do, at most what the key of this request may. `feed`: only as a token in the path of a feed"
    )
    expires_in_days: Annotated[int, Field(ge=1, le=3650), NO_TEXT] | None = Field(None, description="Null: until it is revoked")


class ApiKey(Answer):
    """A key, without what opens the door."""

    id: int
    label: str
    scope: Scope
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute")
    revoked_at: datetime | None


class MadeApiKey(ApiKey):
    """A key just made."""

    key: str | None = Field(description="The key itself, shown this once: null where the request is repeated", examples=["keeper_…"])


class ApiKeys(Answer):
    """One page."""

    api_keys: list[ApiKey]
    next: str | None


def shown_key(row: KeyRow) -> ApiKey:
    """As it is listed."""
    return ApiKey(
        id=row.key_id,
        label=row.label,
        scope=Scope(row.scope),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )


@router.get("/api-keys", responses=problems())
def list_api_keys(caller: Reader, live: House, request: Request, limit: Limit = DEFAULT_PAGE, cursor: CursorText = None) -> ApiKeys:
    """Your keys, revoked ones included; never the keys themselves."""
    with live.begin() as connection:
        found = users.select_api_keys(connection, caller.user_id, after_id=decode_cursor(cursor) or 0, limit=limit)
    return ApiKeys(
        api_keys=[shown_key(row) for row in found],
        next=next_page(request, found[-1].key_id if found else None, is_full=len(found) == limit),
    )


@router.post("/api-keys", status_code=status.HTTP_201_CREATED, responses=problems(409, body=True), response_model=MadeApiKey)
def make_api_key(body: NewApiKey, caller: Writer, once: OnceOnly) -> MadeApiKey | Response:
    """Make a key of 256 random bits. Only its hash is stored: it is shown now and never again."""

    def effect(connection: Connection) -> MadeApiKey:
        if body.scope not in caller.scope.includes | {Scope.FEED}:
            raise ScopeTooWide(f"your key has scope {caller.scope}, so it cannot make one of scope {body.scope}")
        lasts = timedelta(days=body.expires_in_days) if body.expires_in_days else None
        made = add_api_key(connection, caller.user_id, label=body.label, scope=body.scope, lasts=lasts)
        note(connection, caller.actor, Action.KEY_ADD, f"key {made.key_id} of {caller.name}, {body.scope}")
        (row,) = users.select_api_keys(connection, caller.user_id, after_id=made.key_id - 1, limit=1)
        return MadeApiKey(**shown_key(row).model_dump(), key=made.shown_key)

    return once.change(effect, status=status.HTTP_201_CREATED, hide=lambda made: made.model_copy(update={"key": None}))


@router.delete("/api-keys/{key_id}", status_code=status.HTTP_204_NO_CONTENT, responses=problems(404))
def revoke_api_key(key_id: RowId, caller: Writer, live: House) -> None:
    """From the next request on it is worth nothing; where several processes serve the API, within a second."""
    with live.begin() as connection:
        users.revoke_api_key(connection, caller.user_id, key_id)
        note(connection, caller.actor, Action.KEY_REVOKE, f"key {key_id} of {caller.name}")
    live.keys.forget()
