"""What went wrong, as problem+json (RFC 9457): the one place that knows which error is which status.

Every problem has a stable `type`, a `detail` in plain words and, where there is one, a `hint`: what to do about it.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError, OperationalError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from api.access import NotLoopback
from api.budget import TooManyRequests
from api.live import PlacesTaken
from api.once import KeyReused, RequestInterrupted, RequestRuns
from api.paging import CursorInvalid
from api.runs import DeploymentMissing, PrefectUnreachable
from keeper.accounts import KeyRefused, OwnRole, ScopeMissing, ScopeTooWide, mask_keys
from keeper.check import NotChecked
from keeper.domain.dated_rows import TableInvalid
from keeper.domain.deal import DealInvalid
from keeper.domain.deal_filter import DealFilterInvalid
from keeper.domain.errors import KeeperError, TransientError
from keeper.domain.money import AmountInvalid
from keeper.domain.opportunity_query import OpportunityQueryInvalid
from keeper.domain.opportunity_rule import RuleInvalid
from keeper.domain.report import TimezoneUnknown
from keeper.domain.search import SearchInvalid
from keeper.domain.seller import SellerProfileInvalid
from keeper.domain.watch import WatchInvalid
from keeper.domain.watch_list import WatchListUnreadable
from keeper.keepa.errors import KeepaError, OutOfTokens, ServerDown
from keeper.notify.channels import ChannelUrlRefused
from keeper.notify.sender import ChannelRefused, ChannelUnreachable
from keeper.postgres.deal_filters import DealUnknown, FilterExists, FilterUnknown, TooManyFilters
from keeper.postgres.embedded_errors import EmbeddedServerError
from keeper.postgres.engine import is_away
from keeper.postgres.history import ProductUnknown
from keeper.postgres.installation import ChannelKeyMismatch, SchemaMismatch, SourceMismatch
from keeper.postgres.opportunities import OpportunityUnknown
from keeper.postgres.opportunity_rules import RuleExists, RuleUnknown, TooManyRules
from keeper.postgres.reports import ReportUnknown
from keeper.postgres.users import ChannelExists, ChannelUnknown, KeyUnknown, UserExists, UserMissing, UserUnknown
from keeper.postgres.watches import WatchExists, WatchUnknown
from keeper.resources import ChannelKeyMissing, DatabaseUnreachable, NoKeepa, NotMigrated
from keeper.search.connection import SearchDown, SearchNotConfigured, SearchRefused
from keeper.tokens import TokensUnaffordable, TokensUnavailable
from keeper.trade_files import SellerFileUnusable
from keeper.watchlist import WatchListChanged

MEDIA_TYPE: Final = "application/problem+json"
_PREFIX = "urn:keeper:problem:"
_AGAIN_SECONDS = 5
_LONGEST_DETAIL = 1000
_MOST_ERRORS = 1000

logger = logging.getLogger(__name__)


class FieldProblem(BaseModel):
    """One field that cannot be used."""

    field: str = Field(description="Where it is: `body.target`, `query.days`, `path.asin`", examples=["body.target"])
    message: str = Field(description="What is wrong with it", examples=["Input should be greater than 0"])


class Problem(BaseModel):
    """An error, by RFC 9457."""

    type: str = Field(description="Stable name of the kind of problem, for programs", examples=["urn:keeper:problem:watch-unknown"])
    title: str = Field(description="The kind of problem in a few words", examples=["No such watch"])
    status: int = Field(description="The HTTP status", ge=400, le=599, examples=[404])
    detail: str = Field(description="What was wrong this time", examples=["there is no active watch 12 of yours"])
    hint: str | None = Field(None, description="What to do", examples=["GET /api/v1/watches lists yours"])
    instance: str = Field(description="Id of this request; the log has the same", examples=["4f0c2f6e9d5e4c0f"])
    errors: list[FieldProblem] | None = Field(None, description="By field, where fields are at fault")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem."""

    status: int
    name: str
    title: str
    hint: str | None = None


_VALIDATION = Kind(422, "validation", "The request cannot be understood", "mend the fields under `errors`; /docs shows what each may be")
_SLOW = Kind(503, "slow-query", "The database took too long", "ask for less: a shorter range, a smaller page; or try again")
_DATABASE = Kind(
    503,
    "database-down",
    "The database does not answer",
    "try again after Retry-After; GET /health and /docs work meanwhile, all else needs the database; `keeper doctor` says what is wrong",
)
_UNFORESEEN = Kind(500, "unforeseen", "Something went wrong that nobody foresaw", "the log has the same `instance`; please report it")
_TRY_AGAIN = Kind(503, "not-now", "Not possible just now", "try again after Retry-After")
_NOT_READY = Kind(503, "not-ready", "Keeper cannot work as it is set up", "`keeper doctor` says what is wrong")
_REFUSED = Kind(422, "refused", "Keeper cannot do this")
_ELSEWHERE = "watches, prices, opportunities and POST /api/v1/deals/search, which ask PostgreSQL, work meanwhile"

# The first that fits.
_KINDS: tuple[tuple[type[KeeperError], Kind], ...] = (
    (KeyRefused, Kind(401, "key-refused", "Not authorised", "`keeper user add NAME` prints a key")),
    (ScopeMissing, Kind(403, "scope-missing", "The key may not do this", "`POST /api/v1/api-keys` makes a key of another scope")),
    (ScopeTooWide, Kind(403, "scope-too-wide", "A key cannot make one that may do more", "ask for a narrower scope")),
    (NotLoopback, Kind(403, "not-loopback", "Without keys this machine only", "set KEEPER_API_AUTH=on")),
    (TooManyRequests, Kind(429, "too-many-requests", "Too many requests", "wait as long as Retry-After says")),
    (WatchUnknown, Kind(404, "watch-unknown", "No such watch", "GET /api/v1/watches lists yours")),
    (WatchExists, Kind(409, "watch-exists", "This price is watched already", "PATCH the watch you have")),
    (WatchInvalid, Kind(422, "watch-invalid", "The watch cannot be")),
    (TimezoneUnknown, Kind(422, "timezone-unknown", "No such time zone", "take a name of the IANA database, like Europe/Berlin")),
    (ReportUnknown, Kind(404, "report-unknown", "No such report", "GET /api/v1/reports lists yours")),
    (
        ProductUnknown,
        Kind(404, "product-unknown", "No such product yet", "watch it (POST /api/v1/watches), or check it now (POST /api/v1/price/check)"),
    ),
    (WatchListUnreadable, Kind(422, "watch-list-unreadable", "The file cannot be read", "mend it; nothing of it was taken")),
    (WatchListChanged, Kind(503, "watch-list-changed", "The list was changed meanwhile", "send the file again")),
    (AmountInvalid, Kind(422, "amount-invalid", "Not an amount", "write it like 49.90, in the currency of the marketplace")),
    (ChannelUnknown, Kind(404, "channel-unknown", "No such channel", "GET /api/v1/channels lists yours")),
    (ChannelExists, Kind(409, "channel-exists", "There is a channel of this name", "delete it first, or choose another name")),
    (ChannelUrlRefused, Kind(422, "channel-url-refused", "The channel's URL cannot be used")),
    (ChannelRefused, Kind(502, "channel-refused", "The channel did not take the message", "look at its address and password")),
    (ChannelUnreachable, Kind(502, "channel-unreachable", "The channel does not answer", "try again later")),
    (KeyUnknown, Kind(404, "key-unknown", "No such API key", "GET /api/v1/api-keys lists yours")),
    (UserExists, Kind(409, "user-exists", "There is a user of this name", "choose another name")),
    (UserMissing, Kind(404, "user-missing", "No such user", "GET /api/v1/users lists them")),
    (OwnRole, Kind(409, "own-role", "Nobody takes their own role away", "another admin can, or `keeper user role`")),
    (UserUnknown, Kind(409, "user-unknown", "No user to act for", "set KEEPER_API_USER, or ask for keys with KEEPER_API_AUTH=on")),
    (CursorInvalid, Kind(422, "cursor-invalid", "Not a cursor of this list", "begin without one; `next` of a page is the way on")),
    (
        KeyReused,
        Kind(422, "idempotency-key-reused", "The Idempotency-Key was used for another request", "a new request needs a new key"),
    ),
    (RequestRuns, Kind(409, "request-runs", "The same request is still running", "wait and send it again with the same key")),
    (
        RequestInterrupted,
        Kind(409, "request-interrupted", "The same request was begun and never finished", "look, then send a new key"),
    ),
    (SearchInvalid, Kind(422, "search-invalid", "The search cannot be answered")),
    (DealUnknown, Kind(404, "deal-unknown", "No such deal", "POST /api/v1/deals/search finds those there are")),
    (FilterUnknown, Kind(404, "filter-unknown", "No such filter", "GET /api/v1/deals/filters lists yours")),
    (FilterExists, Kind(409, "filter-exists", "There is a filter of this name", "PUT the one you have, or choose another name")),
    (TooManyFilters, Kind(409, "too-many-filters", "There are as many filters as there may be", "DELETE one first")),
    (OpportunityUnknown, Kind(404, "opportunity-unknown", "No such opportunity", "GET /api/v1/opportunities lists those there are")),
    (OpportunityQueryInvalid, Kind(422, "opportunity-query-invalid", "Opportunities cannot be listed so")),
    (RuleUnknown, Kind(404, "rule-unknown", "No such rule", "GET /api/v1/opportunity-rules lists yours")),
    (RuleExists, Kind(409, "rule-exists", "There is a rule of this name", "PUT the one you have, or choose another name")),
    (TooManyRules, Kind(409, "too-many-rules", "There are as many rules as there may be", "DELETE one first")),
    (RuleInvalid, Kind(422, "rule-invalid", "The rule cannot be")),
    (SellerFileUnusable, _NOT_READY),
    (TableInvalid, _NOT_READY),
    (DealFilterInvalid, Kind(422, "filter-invalid", "The filter cannot be")),
    (SellerProfileInvalid, Kind(422, "seller-profile-invalid", "The seller's profile cannot be", "mend the field; nothing was changed")),
    (SellerFileUnusable, _NOT_READY),
    (DealInvalid, Kind(422, "deal-invalid", "The deal cannot be")),
    (SearchNotConfigured, Kind(503, "search-not-configured", "There is no Elasticsearch", _ELSEWHERE)),
    (SearchDown, Kind(503, "search-down", "The search engine does not answer", _ELSEWHERE)),
    (SearchRefused, Kind(503, "search-refused", "The search engine does not answer this", _ELSEWHERE)),
    (
        TokensUnavailable,
        Kind(503, "tokens-unavailable", "The token budget is empty", "take a stored price (`max_age_seconds`), or wait"),
    ),
    (TokensUnaffordable, Kind(422, "tokens-unaffordable", "The bucket never holds so many tokens", "ask for less at a time")),
    (PlacesTaken, Kind(503, "places-taken", "Too many requests wait for another system", "try again after Retry-After")),
    (
        OutOfTokens,
        Kind(503, "keepa-out-of-tokens", "Keepa has no tokens left", "GET /api/v1/tokens says who spends them"),
    ),
    (ServerDown, Kind(503, "keepa-down", "Keepa does not answer", "take a stored price with `max_age_seconds`, or try again later")),
    (KeepaError, Kind(502, "keepa-refused", "Keepa refuses the request", "`keeper doctor` says what is wrong")),
    (NotChecked, Kind(409, "not-checked", "There is no price of this product", "look at the ASIN and the marketplace; try again later")),
    (NoKeepa, Kind(503, "no-keepa", "There is no Keepa", "set KEEPER_KEEPA_API_KEY, or start `keeper simulator`")),
    (PrefectUnreachable, Kind(503, "prefect-down", "Prefect does not answer", "the prices are checked at the next scheduled run")),
    (DeploymentMissing, Kind(503, "deployment-missing", "Prefect does not know the deployment", "run `prefect deploy --all`")),
    (NotMigrated, Kind(503, "not-migrated", "The database has another schema", "run `keeper migrate`")),
    (DatabaseUnreachable, _DATABASE),
    (SchemaMismatch, _NOT_READY),
    (SourceMismatch, _NOT_READY),
    (ChannelKeyMissing, _NOT_READY),
    (ChannelKeyMismatch, _NOT_READY),
    (EmbeddedServerError, _NOT_READY),
    (TransientError, _TRY_AGAIN),
    (KeeperError, _REFUSED),
)
BODY_TOO_LARGE = Kind(413, "body-too-large", "The body is too large", "send less at a time")
BUSY = Kind(503, "busy", "Too many requests are under way", "try again after Retry-After")
_HTTP = {
    404: Kind(404, "not-found", "Nothing is here", "/docs lists every path"),
    405: Kind(405, "method-not-allowed", "This path does not know the method", "the header Allow names those it knows"),
    413: BODY_TOO_LARGE,
    415: Kind(415, "media-type", "Not a type this path takes", "/docs says which it takes"),
    406: Kind(406, "not-acceptable", "Not a form this can be answered in", "/docs says which there are"),
}


# Tags of bodies that may have several forms: in the place of a fault they would only confuse.
FORMS: Final = frozenset({"(one)", "(many)"})
# Of a search, where they are named otherwise than the part of the query.
_PARAMETERS = {"brands": "brand", "categories": "category"}


class HttpProblem(HTTPException):
    """A problem that is HTTP's own, not Keeper's."""


def problem_response(
    request: Request, kind: Kind, detail: str, *, headers: Mapping[str, str] | None = None, errors: Sequence[FieldProblem] = ()
) -> Response:
    """The answer to a request that failed."""
    problem = Problem(
        type=_PREFIX + kind.name,
        title=kind.title,
        status=kind.status,
        detail=mask_keys(detail)[:_LONGEST_DETAIL],
        hint=kind.hint,
        instance=getattr(request.state, "request_id", ""),
        errors=list(errors) or None,
    )
    return Response(problem.model_dump_json(exclude_none=True), kind.status, dict(headers or {}), MEDIA_TYPE)


def add_handlers(app: FastAPI) -> None:
    """Let every error of the app end here."""
    app.add_exception_handler(KeeperError, _tell_keeper_error)
    app.add_exception_handler(RequestValidationError, _tell_validation)
    app.add_exception_handler(HTTPException, _tell_http)
    for kind in (OperationalError, DBAPIError, PoolTimeout, PendingRollbackError, psycopg.OperationalError):
        app.add_exception_handler(kind, _tell_database)


def problems(*statuses: int, body: bool = False) -> dict[int | str, dict[str, Any]]:
    """What a route documents beside its success: what any may answer, and `statuses`."""
    common = {401, 403, 422, 429, 500, 503}
    if body:
        common |= {400, 413}
    return {
        status: {
            "model": Problem,
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted(common | set(statuses))
    }


async def _tell_keeper_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, KeeperError)  # noqa: S101  the handler is registered for it
    kind = next(kind for known, kind in _KINDS if isinstance(error, known))
    headers = {}
    if kind.status in (429, 503):
        wait_seconds = getattr(error, "wait_seconds", None) or getattr(error, "refill_in_seconds", None) or _AGAIN_SECONDS
        headers["Retry-After"] = str(max(1, round(wait_seconds + 0.5)))
    if kind.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    errors = []
    if isinstance(error, SearchInvalid):
        is_body = request.method == "POST"
        place = f"body.{error.field}" if is_body else f"query.{_PARAMETERS.get(error.field, error.field)}"
        errors.append(FieldProblem(field=place, message=str(error)))
    elif isinstance(error, OpportunityQueryInvalid):
        errors.append(FieldProblem(field=f"query.{error.field}", message=str(error)))
    elif isinstance(error, RuleInvalid):
        errors.append(FieldProblem(field=f"body.{error.field}", message=str(error)))
    elif isinstance(error, DealFilterInvalid) and request.method != "GET":
        errors.append(FieldProblem(field=_field_of_filter(request, error.field), message=str(error)))
    elif isinstance(error, SellerProfileInvalid) and request.method == "PUT":
        errors.append(FieldProblem(field=f"body.{error.field}", message=str(error)))
    if kind.status >= 500:
        logger.warning("%s: %s", kind.name, mask_keys(str(error)))
    # Where the database is, and as whom it is asked, is nobody's business who has shown no key.
    detail = "PostgreSQL does not answer" if kind is _DATABASE else str(error)
    return problem_response(request, kind, detail, headers=headers, errors=errors)


def _field_of_filter(request: Request, field: str) -> str:
    """A filter's own names have units, those of a body have none."""
    named = field.removesuffix("_minor").removesuffix("_pct")
    return f"body.{named}" if field == "name" or request.scope["path"].endswith("/preview") else f"body.rules.{named}"


def _tell_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  the handler is registered for it
    errors = [FieldProblem(field=_place(one["loc"]), message=_plain(one)) for one in error.errors()[:_MOST_ERRORS]]
    detail = "; ".join(f"{one.field}: {one.message}" for one in errors[:3]) + ("; …" if len(errors) > 3 else "")
    return problem_response(request, _VALIDATION, detail, errors=errors)


def _place(path: Iterable[Any]) -> str:
    return ".".join(re.sub(r"[^\w.\[\]-]", "", str(part))[:100] for part in path if part not in FORMS)


def _plain(one: Mapping[str, Any]) -> str:
    """Pydantic's words without the value: it may be a password."""
    if one["type"] == "json_invalid":
        return f"not JSON: {one.get('ctx', {}).get('error', 'it cannot be read')}"
    return str(one["msg"])


async def _tell_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  the handler is registered for it
    kind = _HTTP.get(error.status_code) or Kind(error.status_code, f"http-{error.status_code}", HTTPStatus(error.status_code).phrase)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (methods := request.app.methods_of(request.scope["path"])):
        headers["Allow"] = ", ".join(methods)
    return problem_response(request, kind, str(error.detail), headers=headers)


async def _tell_database(request: Request, error: Exception) -> Response:
    """Gone, or too slow; anything else is a fault of ours."""
    orig = getattr(error, "orig", error)
    again = {"Retry-After": str(_AGAIN_SECONDS)}
    if isinstance(orig, psycopg.errors.QueryCanceled | psycopg.errors.LockNotAvailable):
        return problem_response(request, _SLOW, "a query was cancelled, because it took too long", headers=again)
    if is_away(error):
        logger.warning("database-down: %s", type(orig).__name__)
        return problem_response(request, _DATABASE, "PostgreSQL does not answer", headers=again)
    return tell_unforeseen(request, error)


def tell_unforeseen(request: Request, error: Exception) -> Response:
    """Its text may hold anything, so it goes to the log only."""
    logger.error("request %s failed in a way nobody foresaw", getattr(request.state, "request_id", ""), exc_info=error)
    return problem_response(request, _UNFORESEEN, f"{type(error).__name__} while answering")
