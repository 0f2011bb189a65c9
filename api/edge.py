"""What every request passes first: its id, the bound of its body; and what every answer says of both."""

import logging
import time
from typing import Final
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import BODY_TOO_LARGE, BUSY, problem_response, tell_unforeseen
from api.request_times import RequestTimes
from keeper.accounts import mask_keys
from keeper.trace import Trace, is_request_id, tracing

_TOO_LARGE: Final = 413
# Of a request whose answer never began.
_UNANSWERED: Final = 500
# They wait for a thread; whoever comes beyond that would wait in vain.
_MOST_UNDER_WAY: Final = 1000
# No event arises from them.
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Edge:
    """Pure ASGI, because Starlette's middleware classes cost a task for each request."""

    def __init__(self, app: ASGIApp, *, largest_body_bytes: int, times: RequestTimes) -> None:
        self._app = app
        self._largest = largest_body_bytes
        self._times = times
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), _UNANSWERED

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._serve(scope, receive, send_noting)
        finally:
            self._times.note(scope, status, time.perf_counter() - began)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if is_request_id(given) else uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._largest:
            await self._refuse(scope, receive, send)
            return
        received = 0
        is_started = False

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._largest:
                    raise HTTPException(_TOO_LARGE, self._sentence)
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                answer = MutableHeaders(scope=message)
                answer["X-Request-ID"] = request_id
                answer.setdefault("Cache-Control", "private, no-cache")
                if (allowance := state.get("allowance")) is not None:
                    answer["RateLimit-Limit"] = str(allowance.limit)
                    answer["RateLimit-Remaining"] = str(allowance.remaining)
                    answer["RateLimit-Reset"] = str(allowance.reset_seconds)
            await send(message)

        if self._under_way >= _MOST_UNDER_WAY:
            response = problem_response(Request(scope), BUSY, "too many requests are under way", headers={"Retry-After": "1"})
            await response(scope, receive, send_with_headers)
            return
        self._under_way += 1
        with tracing(Trace(request_id=request_id, is_kept=scope["method"] not in _READING)):
            try:
                await self._app(scope, receive_bounded, send_with_headers)
            except Exception as error:
                if is_started:
                    raise
                # Here and not in Starlette's outermost layer, so that this answer has its id and headers, too.
                await tell_unforeseen(Request(scope), error)(scope, receive, send_with_headers)
            finally:
                self._under_way -= 1

    @property
    def _sentence(self) -> str:
        return f"at most {self._largest:,} bytes are taken"

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Before the body is read."""
        response = problem_response(Request(scope), BODY_TOO_LARGE, self._sentence, headers={"Connection": "close"})
        response.headers["X-Request-ID"] = scope["state"]["request_id"]
        await response(scope, receive, send)


class MaskKeys(logging.Filter):
    """API keys in a logged path, such as those of feeds, are not shown."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always keeps the record."""
        if isinstance(record.args, tuple):
            record.args = tuple(mask_keys(part) if isinstance(part, str) else part for part in record.args)
        if isinstance(record.msg, str):
            record.msg = mask_keys(record.msg)
        return True
