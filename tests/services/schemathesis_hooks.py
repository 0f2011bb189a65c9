"""What schemathesis cannot know of the API: which texts it gave itself, and what must not leave this machine.

Loaded by name (SCHEMATHESIS_HOOKS) into the process that runs it.
"""

import os
from typing import Any
from uuid import uuid4

import schemathesis
from schemathesis import Case, GenerationMode, HookContext, SerializationContext

from api.paging import encode_cursor

_CHANNEL = os.environ["KEEPER_TEST_CHANNEL_URL"]
_OWN_KEY = os.environ["KEEPER_TEST_KEY_ID"]


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """A cursor is one of ours, a key of idempotency new, a channel on this machine; the key of the run itself is not revoked.

    Only where the case is meant to be right: what is meant to be wrong goes out as it was made, but for the channel.
    """
    if isinstance(case.body, dict) and isinstance(case.body.get("url"), str):
        case.body["url"] = _CHANNEL
    if case.operation.label == "DELETE /api/v1/api-keys/{key_id}" and str(case.path_parameters.get("key_id")) == _OWN_KEY:
        case.path_parameters["key_id"] = 2**53 - 1
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    if "Idempotency-Key" in (case.headers or {}):
        case.headers["Idempotency-Key"] = str(uuid4())
    for one in case.body if isinstance(case.body, list) else [case.body]:
        # A yen has no cents, which no schema can say.
        if isinstance(one, dict) and one.get("marketplace") == "JP" and one.get("target"):
            one["target"] = max(1, round(float(str(one["target"]))))
    query = case.query or {}
    if case.operation.path == "/api/v1/watches/import":
        # No schema says what a row may hold: one that cannot be taken is told, and an error only where nothing may be rejected.
        query.pop("mode", None)
    if isinstance(query.get("text"), str) and case.operation.path == "/api/v1/products/search":
        # Words, and not more than there may be: what a letter is in every script no pattern can say.
        words = [word for word in query["text"].split() if any(sign.isalnum() for sign in word)]
        query["text"] = " ".join(words[:10]).replace('"', "")
    if {"price_from", "price_to"} <= set(query):
        query["price_from"], query["price_to"] = sorted((query["price_from"], query["price_to"]), key=float)
    if "cursor" in query:
        if case.operation.path == "/api/v1/products/search":
            del query["cursor"]
        else:
            query["cursor"] = encode_cursor(len(str(query["cursor"])))


@schemathesis.serializer("text/csv")
def as_csv(context: SerializationContext, value: Any) -> bytes:
    """A text becomes a list with one row, whatever it holds; what is no text, or an empty one, is no list."""
    if not isinstance(value, str) or not value:
        return b""
    doubled = value.replace('"', '""').encode(errors="replace").decode()
    return f'asin\n"{doubled}"\n'.encode()
