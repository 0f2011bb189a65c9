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
_OWN_KEYS = os.environ["KEEPER_TEST_KEY_IDS"].split(",")
_FEED_KEY = os.environ["KEEPER_TEST_FEED_KEY"]


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """A cursor is one of ours, a key of idempotency new, a channel on this machine; the keys of the run itself are not revoked.

    Only where the case is meant to be right: what is meant to be wrong goes out as it was made, but for the channel.
    """
    if isinstance(case.body, dict) and isinstance(case.body.get("url"), str):
        case.body["url"] = _CHANNEL
    if (
        case.operation.path.endswith("/api-keys/{key_id}")
        and case.method == "DELETE"
        and str(case.path_parameters.get("key_id")) in _OWN_KEYS
    ):
        case.path_parameters["key_id"] = 2**53 - 1
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    if "token" in (case.path_parameters or {}):
        case.path_parameters["token"] = _FEED_KEY
    if "Idempotency-Key" in (case.headers or {}):
        case.headers["Idempotency-Key"] = str(uuid4())
    for one in case.body if isinstance(case.body, list) else [case.body]:
        # A yen has no cents, which no schema can say; whose watch a change is of, none knows.
        if isinstance(one, dict) and (one.get("marketplace") == "JP" or case.method == "PATCH") and one.get("target"):
            one["target"] = max(1, round(float(str(one["target"]))))
    if isinstance(case.body, dict) and isinstance(case.body.get("timezone"), str):
        # Which zones there are, the machine's database says.
        case.body["timezone"] = "Pacific/Auckland"
    if case.operation.label == "PUT /api/v1/seller-profile" and isinstance(case.body, dict):
        _mend_seller(case.body)
    if "/deals/" in case.operation.path and isinstance(case.body, dict):
        rules = case.body.get("rules", case.body)
        if isinstance(rules, dict):
            _mend_conditions(rules)
        if "name" in case.body:
            case.body["name"] = f"filter {uuid4()}"
    if case.operation.label == "POST /api/v1/users" and isinstance(case.body, dict):
        case.body["name"] = f"user-{uuid4()}"
    if "/opportunity-rules" in case.operation.path and isinstance(case.body, dict):
        case.body["name"] = f"rule {uuid4()}"
        # Nothing is bought and sold in one store.
        case.body.pop("targets", None)
    query = case.query or {}
    if case.operation.path.endswith("/opportunities"):
        # Those that are over have an order of their own, and a cursor is one of the order it was given for.
        query.pop("is_active", None)
        query.pop("cursor", None)
    if case.operation.path.endswith(("/products", "/products/ranking")):
        query.pop("cursor", None)
    if case.operation.path == "/api/v1/watches/import":
        # No schema says what a row may hold: one that cannot be taken is told, and an error only where nothing may be rejected.
        query.pop("mode", None)
    if isinstance(query.get("text"), str) and case.operation.path == "/api/v1/products/search":
        query["text"] = _words(query["text"])
    if {"price_from", "price_to"} <= set(query):
        query["price_from"], query["price_to"] = sorted((query["price_from"], query["price_to"]), key=float)
    if "cursor" in query:
        if case.operation.path == "/api/v1/products/search":
            del query["cursor"]
        else:
            query["cursor"] = encode_cursor(len(str(query["cursor"])))


def _mend_conditions(conditions: dict[str, Any]) -> None:
    """Of a search for deals or a filter of them: ranges that are none, prices without a currency, a deal of the future."""
    for name in ("text", "words", "exclude_words"):
        if isinstance(conditions.get(name), str):
            conditions[name] = _words(conditions[name])
    for first, last in (("price_from", "price_to"), ("discount_from", "discount_to")):
        if conditions.get(first) is not None and conditions.get(last) is not None:
            conditions[first], conditions[last] = sorted((conditions[first], conditions[last]))
    has_price = conditions.get("price_from") is not None or conditions.get("price_to") is not None
    if has_price and "marketplace" not in conditions:
        conditions["marketplaces"] = ["DE"]
    if conditions.get("marketplace") == "JP":
        # A yen has no cents, which no schema can say.
        conditions["marketplace"] = "DE"
    for name in ("brands", "categories", "layouts"):
        if isinstance(conditions.get(name), list):
            conditions[name] = [said for said in conditions[name] if said.strip()]
    if isinstance(conditions.get("group"), str):
        conditions["group"] = "keyboards"
    for name in ("cursor", "since"):
        conditions.pop(name, None)


def _mend_seller(profile: dict[str, Any]) -> None:
    """Of a seller's profile: which letters are a country, who gets VAT back, and two prices for one weight no schema says."""
    profile["home"] = "DE"
    if "registered" in profile:
        profile["registered"] = ["DE"]
    elif "reclaims_purchase_vat" in profile:
        profile["reclaims_purchase_vat"] = False
    if isinstance(profile.get("inbound"), list):
        profile["inbound"] = profile["inbound"][:1]


def _words(text: str) -> str:
    """Words, and not more than there may be: what a letter is in every script no pattern can say."""
    return " ".join([word for word in text.split() if any(sign.isalnum() for sign in word)][:10]).replace('"', "")


@schemathesis.serializer("text/csv")
def as_csv(context: SerializationContext, value: Any) -> bytes:
    """A text becomes a list with one row, whatever it holds; what is no text, or an empty one, is no list."""
    if not isinstance(value, str) or not value:
        return b""
    doubled = value.replace('"', '""').encode(errors="replace").decode()
    return f'asin\n"{doubled}"\n'.encode()
