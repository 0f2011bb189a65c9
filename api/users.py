"""Who you are."""

from datetime import datetime

from fastapi import APIRouter
from pydantic import Field

from api.access import Reader
from api.live import House
from api.problems import problems
from api.schemas import Answer
from keeper.accounts import Scope
from keeper.postgres import users

router = APIRouter(tags=["you"])


class Me(Answer):
    """The caller."""

    id: int
    name: str = Field(examples=["anna"])
    role: str = Field(description="`user` or `admin`", examples=["user"])
    created_at: datetime
    watches: int = Field(description="Active ones")
    channels: int
    api_keys: int = Field(description="Usable ones")
    scope: Scope = Field(description="What the key of this request may do")
    key_id: int | None = Field(description="Id of the key of this request; null where none is needed")


@router.get("/users/me", responses=problems())
def get_me(caller: Reader, live: House) -> Me:
    """You, and the key you used."""
    with live.begin() as connection:
        found = users.select_user(connection, caller.user_id)
    return Me(
        id=found.user_id,
        name=found.name,
        role=found.role,
        created_at=found.created_at,
        watches=found.watches,
        channels=found.channels,
        api_keys=found.api_keys,
        scope=caller.scope,
        key_id=caller.key_id,
    )
