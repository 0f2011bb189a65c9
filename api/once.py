"""A change that is asked for twice under one Idempotency-Key happens once, and is told twice.

What changes rows keeps its answer in the same transaction. What acts outside of the database, say on a channel, notes its start first:
where the end is missing nobody knows whether it happened, and the second request is told so. Kept for a day.
"""

import hashlib
import json
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request
from fastapi.responses import Response
from pydantic import BaseModel
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from api.access import Writer
from api.live import House, Live
from keeper.domain.errors import KeeperError
from keeper.notify.sender import ChannelUnreachable
from keeper.postgres import idempotency
from keeper.postgres.idempotency import KeptRequest

M = TypeVar("M", bound=BaseModel)

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[!-~]+$",
        description="Any text of your own, new for each change: the same request again is answered the same, and changes nothing",
        examples=["3f1b6c1e-8a41-4a6e-9d43-0d6f0a6a4a51"],
    ),
]


class KeyReused(KeeperError):
    """The key came with another request before."""


class RequestRuns(KeeperError):
    """The same request is under way."""


class RequestInterrupted(KeeperError):
    """The same request was begun, and its process ended before it knew how it went."""


@dataclass(frozen=True, slots=True)
class Once:
    """One POST.

    Attributes:
        request: what is kept of it; None where it has no key.
    """

    live: Live
    request: KeptRequest | None

    @property
    def key(self) -> str | None:
        """Of this user and path, for others who keep answers."""
        return None if self.request is None else f"{self.request.user_id} {self.request.path} {self.request.key}"

    def change(self, effect: Callable[[Connection], M], *, status: int, hide: Callable[[M], M] = lambda model: model) -> M | Response:
        """Do it in one transaction, or tell what it did before.

        Args:
            hide: what of the answer is kept: not what is shown once only.
        """
        with self.live.begin() as connection:
            if self.request is None:
                return effect(connection)
            if not idempotency.try_lock(connection, self.request, until_commit=True):
                raise RequestRuns("the same request is still running")
            if (kept := _kept(connection, self.request)) is not None:
                return kept
            model = effect(connection)
            idempotency.insert_answer(connection, self.request, status=status, answer=hide(model).model_dump_json())
            return model

    def act(self, effect: Callable[[], M], *, status: int, known: Callable[[], str], may_repeat: bool = False) -> M | Response:
        """Do it outside of any transaction, its start noted before, or tell what it did before.

        Args:
            known: what can be said where nobody knows how it went.
            may_repeat: whoever it asks knows the key, too, and does it once however often it is asked.
        """
        if self.request is None:
            return effect()
        with self._running() as begun:
            if isinstance(begun, Response):
                return begun
            if begun and not may_repeat:
                raise RequestInterrupted(f"it was begun at {begun} and did not come to its end; {known()}")
            try:
                model = effect()
            except KeeperError as error:
                if isinstance(error, ChannelUnreachable) or getattr(error, "may_have_cost", False):
                    # The far side may have done it although its answer is lost: the same key does not do it again.
                    raise
                # Nothing is unknown: the same key may be used again.
                with self.live.begin() as connection:
                    idempotency.delete_request(connection, self.request)
                raise
            with self.live.begin() as connection:
                idempotency.update_answer(connection, self.request, status=status, answer=model.model_dump_json())
            return model

    @contextmanager
    def _running(self) -> Any:
        """Hold the request. Yields its answer, or when it was begun before, or an empty text."""
        assert self.request is not None  # noqa: S101  asked by the only caller
        with self.live.resources.engine.connect() as holder:
            is_mine = idempotency.try_lock(holder, self.request, until_commit=False)
            holder.commit()
            if not is_mine:
                raise RequestRuns("the same request is still running")
            try:
                with self.live.begin() as connection:
                    kept = _kept(connection, self.request)
                    begun = "" if kept is not None else idempotency.insert_start(connection, self.request)
                yield kept if kept is not None else begun
            finally:
                try:
                    idempotency.unlock(holder, self.request)
                    holder.commit()
                except SQLAlchemyError:
                    # Given back to the pool, the connection might hold the lock on.
                    holder.invalidate()


def _kept(connection: Connection, request: KeptRequest) -> Response | None:
    kept = idempotency.select_answer(connection, request)
    if kept is None:
        return None
    if kept.body_hash != request.body_hash:
        raise KeyReused("this Idempotency-Key came with another body before")
    if kept.status is None:
        return None
    body = json.dumps(kept.answer, ensure_ascii=False, separators=(",", ":"))
    return Response(body, kept.status, {"Idempotency-Replayed": "true"}, "application/json")


async def _once(request: Request, caller: Writer, live: House, key: Key = None) -> Once:
    if key is None:
        return Once(live, None)
    # What stands in the query is asked for, too.
    body = hashlib.sha256(request.scope["query_string"] + b"\n" + await request.body()).digest()
    return Once(live, KeptRequest(caller.user_id, request.method, request.scope["path"], key, body))


OnceOnly = Annotated[Once, Depends(_once)]
