"""What every request passes first and every answer last: its id, the bound of its body, headers that always hold."""

import json
import logging
import re
from typing import Final
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keeper.accounts import mask_keys

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TOO_LARGE: Final = 413


class Edge:
    """Pure ASGI, because Starlette's middleware classes cost a task for each request."""

    def __init__(self, app: ASGIApp, *, largest_body_bytes: int) -> None:
        self._app = app
        self._largest = largest_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._largest:
            await self._refuse(request_id, send)
            return
        received = 0

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._largest:
                    raise HTTPException(_TOO_LARGE, self._sentence)
            return message

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer["X-Request-ID"] = request_id
                answer["X-Content-Type-Options"] = "nosniff"
                answer.setdefault("Cache-Control", "private, no-cache")
                if (allowance := state.get("allowance")) is not None:
                    answer["RateLimit-Limit"] = str(allowance.limit)
                    answer["RateLimit-Remaining"] = str(allowance.remaining)
                    answer["RateLimit-Reset"] = str(allowance.reset_seconds)
            await send(message)

        await self._app(scope, receive_bounded, send_with_headers)

    @property
    def _sentence(self) -> str:
        return f"at most {self._largest:,} bytes are taken"

    async def _refuse(self, request_id: str, send: Send) -> None:
        """Before the body is read: a problem of the same shape as all others."""
        problem = {
            "type": "urn:keeper:problem:body-too-large",
            "title": "The body is too large",
            "status": _TOO_LARGE,
            "detail": self._sentence,
            "hint": "send less at a time",
            "instance": request_id,
        }
        headers = [(b"content-type", b"application/problem+json"), (b"connection", b"close"), (b"x-request-id", request_id.encode())]
        await send({"type": "http.response.start", "status": _TOO_LARGE, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(problem).encode()})


class MaskKeys(logging.Filter):
    """API keys in a logged path, such as those of feeds, are not shown."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always keeps the record."""
        if isinstance(record.args, tuple):
            record.args = tuple(mask_keys(part) if isinstance(part, str) else part for part in record.args)
        if isinstance(record.msg, str):
            record.msg = mask_keys(record.msg)
        return True
