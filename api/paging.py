"""Pages by key: each names the next, so that what is added or removed meanwhile shifts nothing."""

import base64
import binascii
import re
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import Query, Request

from keeper.domain.errors import KeeperError

LARGEST_PAGE: Final = 1000
DEFAULT_PAGE: Final = 100
_CURSOR = re.compile(r"id:(\d{1,18})")

Limit = Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="Rows on a page")]
CursorText = Annotated[str | None, Query(max_length=100, description="From `next` of the page before")]


class CursorInvalid(KeeperError):
    """Not a cursor Keeper gave."""


def encode_cursor(row_id: int) -> str:
    """Opaque text for where a page ended."""
    return pack_cursor(f"id:{row_id}")


def decode_cursor(cursor: str | None) -> int | None:
    """The reverse; None without one.

    Raises:
        CursorInvalid: see there.
    """
    return None if cursor is None else int(unpack_cursor(cursor, _CURSOR)[1])


def pack_cursor(said: str) -> str:
    """Opaque text for what a list's own order says of where a page ended."""
    return base64.urlsafe_b64encode(said.encode()).decode().rstrip("=")


def unpack_cursor(cursor: str, form: re.Pattern[str]) -> re.Match[str]:
    """The reverse, taken apart by the form that the list gives its cursors.

    Raises:
        CursorInvalid: of another form.
    """
    try:
        found = form.fullmatch(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii"))
    except (ValueError, binascii.Error):
        found = None
    if found is None:
        raise CursorInvalid("cursor: not one that Keeper gave")
    return found


def next_page(request: Request, last_id: int | None, *, is_full: bool) -> str | None:
    """Path and query of the next page; None after the last one."""
    if not is_full or last_id is None:
        return None
    return following(request, encode_cursor(last_id))


def following(request: Request, cursor: str) -> str:
    """Path and query of the same question with this cursor."""
    asked = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    return f"{request.scope['path']}?{urlencode([*asked, ('cursor', cursor)])}"
