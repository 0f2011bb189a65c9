"""Who you are."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field, StrictBool, StrictStr

from api.access import Caller, Reader, Writer
from api.live import House
from api.problems import problems
from api.schemas import NO_TEXT, Answer, Body
from keeper.accounts import ReaderChange, change_reader
from keeper.domain.access import Scope
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
    timezone: str = Field(description="Where your day is: it decides when your report comes, and of which date", examples=["Europe/Berlin"])
    report_hour: int | None = Field(description="The hour of your day at which it comes; null: no daily report", examples=[7])
    wants_empty_reports: bool = Field(description="Whether it comes on days without anything to tell, too")
    scope: Scope = Field(description="What the key of this request may do")
    key_id: int | None = Field(description="Id of the key of this request; null where none is needed")


class MePatch(Body):
    """What shall be different; what is left out stays as it is."""

    timezone: Annotated[StrictStr, Field(min_length=1, max_length=100, description="By its name in the IANA database")] | None = Field(
        None, examples=["Europe/Vienna"]
    )
    report_hour: Annotated[int, Field(ge=0, le=23), NO_TEXT] | None = Field(
        None, description="The hour of your day at which your daily report comes; null: no daily report", examples=[6]
    )
    wants_empty_reports: StrictBool | None = Field(None, description="Whether it comes on days without anything to tell, too")

    def change(self) -> ReaderChange:
        """The same for the verb."""
        return ReaderChange(
            timezone=self.timezone,
            report_hour=self.report_hour,
            is_without_reports="report_hour" in self.model_fields_set and self.report_hour is None,
            wants_empty_reports=self.wants_empty_reports,
        )


@router.get("/users/me", responses=problems())
def get_me(caller: Reader, live: House) -> Me:
    """You, and the key you used."""
    with live.begin() as connection:
        return _shown(caller, users.select_user(connection, caller.user_id))


@router.patch("/users/me", responses=problems(body=True))
def change_me(body: MePatch, caller: Writer, live: House) -> Me:
    """Say when and where your daily report comes."""
    with live.begin() as connection:
        return _shown(caller, change_reader(connection, caller.user_id, body.change()))


def _shown(caller: Caller, found: users.UserRow) -> Me:
    return Me(
        id=found.user_id,
        name=found.name,
        role=found.role,
        created_at=found.created_at,
        watches=found.watches,
        channels=found.channels,
        api_keys=found.api_keys,
        timezone=found.timezone,
        report_hour=found.report_hour,
        wants_empty_reports=found.wants_empty_reports,
        scope=caller.scope,
        key_id=caller.key_id,
    )
