"""ETag and 304: who has an answer already is told that it is still the right one."""

import hashlib

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel


def answer(request: Request, body: bytes | BaseModel, *, media_type: str = "application/json") -> Response:
    """The body with its ETag, or 304 where the caller named the same. The tag is weak: gzip changes the bytes, not what they say."""
    content = body.model_dump_json().encode() if isinstance(body, BaseModel) else body
    tag = f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'
    known = [one.strip() for one in request.headers.get("if-none-match", "").split(",")]
    if tag in known or "*" in known:
        return Response(status_code=304, headers={"ETag": tag})
    return Response(content, headers={"ETag": tag, "Vary": "Accept, Authorization, X-API-Key"}, media_type=media_type)
