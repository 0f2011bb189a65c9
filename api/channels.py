"""Where your alerts go. URLs hold passwords: they are stored encrypted and shown masked."""

from datetime import datetime
from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Request, status
from fastapi.responses import Response
from pydantic import Field, SecretStr
from sqlalchemy import Connection

from api.access import Reader, Writer
from api.live import House
from api.once import OnceOnly
from api.paging import DEFAULT_PAGE, CursorText, Limit, decode_cursor, next_page
from api.problems import problems
from api.schemas import Answer, Body, RowId
from keeper.accounts import add_channel
from keeper.notify.message import compose_test
from keeper.postgres import users
from keeper.postgres.users import ChannelRow

router = APIRouter(tags=["alerts"])


class NewChannel(Body):
    """A channel to be added."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[ -~\u00a0-\ud7ff]+$", examples=["phone"])]
    url: SecretStr = Field(
        min_length=1,
        max_length=2000,
        description="An Apprise URL, of the schemes in KEEPER_CHANNELS_SCHEMES",
        examples=["ntfys://ntfy.sh/my-secret-topic"],
    )


class Channel(Answer):
    """A channel."""

    id: int
    name: str
    scheme: str = Field(examples=["ntfys"])
    url: str = Field(description="Masked", examples=["ntfys://ntfy.sh/m...c"])
    created_at: datetime


class Channels(Answer):
    """One page."""

    channels: list[Channel]
    next: str | None


class TestReceipt(Answer):
    """What the far side said."""

    channel: str = Field(description="The masked URL")
    message_id: str
    answer: str = Field(description="As far as it said something")
    elapsed_seconds: float


def _shown(row: ChannelRow) -> Channel:
    return Channel(id=row.channel_id, name=row.name, scheme=row.scheme, url=row.shown, created_at=row.created_at)


@router.get("/channels", responses=problems())
def list_channels(caller: Reader, live: House, request: Request, limit: Limit = DEFAULT_PAGE, cursor: CursorText = None) -> Channels:
    """Your channels, their URLs masked."""
    with live.begin() as connection:
        found = users.select_channels(connection, user_id=caller.user_id, after_id=decode_cursor(cursor) or 0, limit=limit)
    return Channels(
        channels=[_shown(row) for row in found],
        next=next_page(request, found[-1].channel_id if found else None, is_full=len(found) == limit),
    )


@router.post("/channels", status_code=status.HTTP_201_CREATED, responses=problems(409, body=True), response_model=Channel)
def add(body: NewChannel, caller: Writer, live: House, once: OnceOnly) -> Channel | Response:
    """Add a channel. Try it with `POST /api/v1/channels/{id}/test`."""
    cipher = live.resources.cipher()

    def effect(connection: Connection) -> Channel:
        channel_id = add_channel(
            connection, cipher, caller.user_id, name=body.name, url=body.url.get_secret_value(), schemes=live.settings.channels.schemes
        )
        return _shown(users.select_channel(connection, caller.user_id, channel_id))

    return once.change(effect, status=status.HTTP_201_CREATED)


@router.post("/channels/{channel_id}/test", responses=problems(404, 409, 502), response_model=TestReceipt)
def test_channel(channel_id: RowId, caller: Writer, live: House, once: OnceOnly) -> TestReceipt | Response:
    """Send a test message now, and say what the far side answered."""
    with live.begin() as connection:
        channel = users.select_channel(connection, caller.user_id, channel_id)

    def effect() -> TestReceipt:
        url = live.resources.cipher().decrypt(channel.url_encrypted)
        with live.place(live.waits):
            receipt = live.resources.sender().send(url, compose_test(channel.name), message_id=str(uuid4()))
        return TestReceipt(
            channel=receipt.channel, message_id=receipt.message_id, answer=receipt.answer, elapsed_seconds=receipt.elapsed_seconds
        )

    return once.act(effect, status=status.HTTP_200_OK, known=lambda: "the message may have arrived: look there")


@router.delete("/channels/{channel_id}", status_code=status.HTTP_204_NO_CONTENT, responses=problems(404))
def delete_channel(channel_id: RowId, caller: Writer, live: House) -> None:
    """Remove a channel, with what still waits for it."""
    with live.begin() as connection:
        users.delete_channel(connection, users.select_channel(connection, caller.user_id, channel_id).channel_id)
