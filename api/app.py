"""The application: every route, and what holds for all of them."""

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from starlette.routing import compile_path

from api import (
    alerts,
    api_keys,
    catalog,
    channels,
    checks,
    deal_filters,
    deals,
    feeds,
    forecast,
    headers,
    health,
    opportunities,
    opportunity_rules,
    people,
    prices,
    products,
    ranking,
    reindex,
    reports,
    seller,
    status,
    tokens,
    users,
    watch_list,
    watches,
)
from api.edge import Edge
from api.live import Live
from api.problems import MEDIA_TYPE, add_handlers
from api.request_times import RequestTimes
from keeper.settings import Settings, SettingsInvalid, read_settings
from keeper.trace import note

_SMALLEST_GZIPPED_BYTES = 1024
_GZIP_LEVEL = 4
_DESCRIPTION = """
Watch Amazon prices, ask for their history, be told in time.

**Keys.** Send yours as `Authorization: Bearer keeper_…` or `X-API-Key: keeper_…`. `keeper user add NAME` prints the first one; `POST
/api/v1/api-keys` makes more, with a scope (`read`, `write`, `admin`) and an end.

**Money** is told twice: `price` in whole units of the store's currency, `price_minor` in cents. **Times** are UTC.

**Pages.** A list has `next`: path and query of the page after it, or null. A page has up to 1,000 rows.

**Twice is once.** A POST with an `Idempotency-Key` of your own happens once, however often you send it within a day, and is answered
the same.

**Problems** are `application/problem+json` (RFC 9457): a stable `type`, what was wrong, and what to do. 429 and 503 say when to come back
in `Retry-After`.
"""
_TAGS = [
    {"name": "watches", "description": "What is watched, and at which price you want to hear of it"},
    {"name": "prices", "description": "A price now, over time, and what it was worth"},
    {"name": "products", "description": "Search"},
    {"name": "deals", "description": "Search, filters of your own, and their feeds"},
    {
        "name": "arbitrage",
        "description": "Buy in one store, sell in another: what is left, and why. Lists also without `/api/v1`",
    },
    {"name": "alerts", "description": "What you were told, and where alerts go"},
    {"name": "reports", "description": "Your day: deals by filter, and what became cheaper of what you watch"},
    {"name": "you", "description": "You and your API keys"},
    {"name": "people", "description": "Everybody and their keys, and what was done: for admins"},
    {"name": "tokens", "description": "What Keepa allows, and who spends it"},
    {"name": "health", "description": "For probes and people who run it"},
]


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application; nothing is opened before the first request that needs it.

    Raises:
        SettingsInvalid: see there.
    """
    settings = settings or read_settings()
    if settings.api.auth == "off" and "*" in settings.api.cors_origins:
        raise SettingsInvalid("KEEPER_API_AUTH=off and KEEPER_API_CORS_ORIGINS=* together would let every page of the web in")
    live, times = Live(settings), RequestTimes()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = settings.api.threads
        with times.served(settings.metrics):
            yield
        live.close()

    app = _Keeper(
        title="Keeper",
        version=version("keeper"),
        summary="Amazon prices, watched",
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_tags=_TAGS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        dependencies=[Depends(_refuse_unknown)],
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.live = live
    app.state.times = times
    app.state.lookout = status.Lookout(live.settings)
    add_handlers(app)
    app.add_middleware(GZipMiddleware, minimum_size=_SMALLEST_GZIPPED_BYTES, compresslevel=_GZIP_LEVEL)
    app.add_middleware(Edge, largest_body_bytes=settings.api.largest_body_bytes, times=times)
    if settings.api.cors_origins:
        # Outermost, so that a page may read a refusal, too.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.api.cors_origins),
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "X-API-Key", "Content-Type", "Idempotency-Key", "If-None-Match", "X-Request-ID"],
            expose_headers=["ETag", "Location", "Retry-After", "X-Request-ID", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"],
        )
    app.add_middleware(headers.SafeHeaders)
    app.include_router(headers.router)
    app.include_router(health.router)
    # Where the system that Keeper replaces had them; the operation's name is another, because it is one of its own.
    for old in (catalog, opportunities):
        app.include_router(old.router, generate_unique_id_function=lambda route: f"{route.name}_unversioned")
    v1 = APIRouter(prefix="/api/v1")
    rooms = (
        status, watch_list, watches, checks, prices, forecast, products, ranking, catalog, opportunities, opportunity_rules, deals,
        deal_filters, feeds, alerts, reports, channels, users, api_keys, people, seller, tokens, reindex,
    )  # fmt: skip
    for room in rooms:
        v1.include_router(room.router)
    v1.include_router(health.process, tags=["health"], generate_unique_id_function=lambda route: f"{route.name}_versioned")
    app.include_router(v1)
    return app


async def _refuse_unknown(request: Request) -> None:
    """A query parameter that nobody reads would be a wish that is silently not granted."""
    # For the log, in which nobody writes what is no ASIN.
    if _ASIN.fullmatch(asin := request.path_params.get("asin", "")):
        note(asin=asin)
    if not request.query_params:
        return
    app: _Keeper = request.app
    known = app.query_names(request.scope["route"].name)
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        told = f"known are {', '.join(sorted(known))}" if known else "this path knows none"
        raise RequestValidationError([{"type": "unknown", "loc": ("query", name), "msg": f"is no parameter; {told}"} for name in unknown])


_ASIN = re.compile("[A-Z0-9]{10}")


class _Keeper(FastAPI):
    """FastAPI, whose OpenAPI document says of errors what is true: each is problem+json and nothing else."""

    _query_names: Mapping[str, frozenset[str]]

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if self.openapi_schema is None:
            document = super().openapi()
            for operation in (one for methods in document["paths"].values() for one in methods.values()):
                for answer in operation["responses"].values():
                    if MEDIA_TYPE in answer.get("content", {}):
                        answer["content"] = {MEDIA_TYPE: answer["content"][MEDIA_TYPE]}
            self._query_names = {
                operation["operationId"]: frozenset(one["name"] for one in operation.get("parameters", ()) if one["in"] == "query")
                for methods in document["paths"].values()
                for operation in methods.values()
            }
        return self.openapi_schema or document

    def methods_of(self, path: str) -> list[str]:
        """What the routes of a path know, for the header Allow: Starlette names those of the first route only."""
        paths = self.openapi()["paths"]
        matching = [path] if path in paths else [known for known in paths if compile_path(known)[0].match(path)]
        return sorted({method.upper() for known in matching for method in paths[known]})

    def query_names(self, operation_id: str) -> frozenset[str]:
        """The query parameters of a route."""
        self.openapi()
        return self._query_names.get(operation_id, frozenset())


def list_routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """(method, path) of everything in the OpenAPI document."""
    paths: dict[str, Any] = app.openapi()["paths"]
    for path, methods in paths.items():
        for method in methods:
            yield method.upper(), path
