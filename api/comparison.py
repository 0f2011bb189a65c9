"""Answers that are the same for a minute, until the comparison they are of is not the newest any more."""

import time
from collections.abc import Callable

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel
from sqlalchemy import Connection

from api.access import Caller
from api.conditional import answer
from api.live import Live
from keeper.postgres.opportunities import Generation, select_generation


def answer_of_comparison(
    request: Request, live: Live, caller: Caller, compose: Callable[[Connection, Generation], BaseModel], *, is_everybodys: bool = False
) -> Response:
    """The answer of a minute ago, where it is still of the newest comparison; else a new one.

    Args:
        compose: makes the answer of what it is made of.
        is_everybodys: it is the same for every seller.
    """
    with live.begin() as connection:
        generation = select_generation(connection, None if is_everybodys else caller.user_id)
        seller = (caller.user_id, generation.profile_revision) if generation.profile is not None else ()
        asked = tuple(sorted(request.query_params.multi_items()))
        key = (request.scope["path"], asked, generation.comparison_id, seller)
        kept = live.answers.recall(key)
        if kept is None:
            kept = live.answers.keep(key, compose(connection, generation).model_dump_json().encode())
    told = answer(request, kept.body)
    told.headers["Age"] = str(int(time.monotonic() - kept.kept_at))
    return told
