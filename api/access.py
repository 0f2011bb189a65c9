"""Who asks: the one place that knows how a caller proves it."""

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Path, Request, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from api.budget import TooManyRequests
from api.live import House, Live
from keeper.accounts import KeyHolder, KeyRefused, Scope, ScopeMissing, authenticate
from keeper.domain.errors import KeeperError
from keeper.postgres import users

_bearer = HTTPBearer(auto_error=False, description="`Authorization: Bearer keeper_…`, the key that `keeper user add` printed")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="The same key in a header of its own")


_OF_PROXIES = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


class NotLoopback(KeeperError):
    """Without keys Keeper answers this machine only."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A user, and what their key may do.

    Attributes:
        key_id: None where keys are not asked for.
    """

    user_id: int
    name: str
    role: str
    scope: Scope
    key_id: int | None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


Token = Annotated[
    str,
    Path(
        pattern=r"^keeper_[A-Za-z0-9_-]{43}$",
        description="A key of scope `feed`, which `POST /api/v1/api-keys` makes",
    ),
]


async def _caller(
    scopes: SecurityScopes,
    request: Request,
    live: House,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    header: Annotated[str | None, Depends(_header)],
) -> Caller:
    if live.settings.api.auth == "off":
        return await run_in_threadpool(_anybody, live, request)
    key = bearer.credentials if bearer else header
    if key is None:
        raise KeyRefused("this needs an API key: send it as `Authorization: Bearer keeper_…`; `keeper user add NAME` prints one")
    return await _admit(live, request, key, Scope(scopes.scopes[0]))


async def _feeder(token: Token, request: Request, live: House) -> Caller:
    """The key in the path must be of scope `feed`: one that may do more does not belong in an address."""
    if live.settings.api.auth == "off":
        return await run_in_threadpool(_anybody, live, request)
    return await _admit(live, request, token, Scope.FEED)


async def _admit(live: Live, request: Request, key: str, needed: Scope) -> Caller:
    found = live.keys.recall(key)
    if found is None:
        found = await run_in_threadpool(_look_up, live, request, key)
    try:
        request.state.allowance = live.requests.spend(f"key {found.key_id}")
    except TooManyRequests as error:
        request.state.allowance = error.allowance
        raise
    if needed not in found.scope.includes:
        raise ScopeMissing(needed, found.scope)
    return Caller(found.user_id, found.user, found.role, found.scope, found.key_id)


def _look_up(live: Live, request: Request, key: str) -> KeyHolder:
    with live.noting_outage(), live.resources.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        try:
            found = authenticate(connection, key)
        except KeyRefused:
            # Guessing is bounded, too; those who know their key are not counted with those who do not.
            live.requests.spend(f"address {request.client.host if request.client else 'unknown'}")
            raise
    live.keys.keep(key, found)
    return found


def _anybody(live: Live, request: Request) -> Caller:
    """The user named in the settings, or the only one there is."""
    _check_is_local(request, live.settings.api.cors_origins)
    with live.begin() as connection:
        found = users.select_user(connection, users.find_user(connection, live.settings.api.user))
    return Caller(found.user_id, found.name, found.role, Scope.ADMIN if found.role == "admin" else Scope.WRITE, None)


def _check_is_local(request: Request, origins: Collection[str]) -> None:
    """A program on this machine, or a page that it serves or allows: no other machine, no proxy, no page of somebody else's.

    Raises:
        NotLoopback: see there.
    """
    headers, server = request.headers, request.scope.get("server")
    host, origin = headers.get("host", ""), headers.get("origin")
    is_own_page = origin is None or origin in origins or urlsplit(origin).netloc == host
    problem = None
    if not (server and is_loopback(server[0]) and request.client and is_loopback(request.client.host)):
        problem = "it answers only this machine itself"
    elif not is_loopback(re.sub(r":\d+$", "", host).strip("[]")):
        problem = f"it is asked for as {host[:100]!r}, which is not this machine's own name"
    elif any(name in headers for name in _OF_PROXIES):
        problem = "a proxy passes on what somebody else may ask"
    elif not is_own_page or (origin is None and headers.get("sec-fetch-site") == "cross-site"):
        problem = "a page of somebody else's asks"
    if problem is not None:
        raise NotLoopback(f"KEEPER_API_AUTH=off, and {problem}; set it to on and use an API key")


Reader = Annotated[Caller, Security(_caller, scopes=[Scope.READ.value])]
Writer = Annotated[Caller, Security(_caller, scopes=[Scope.WRITE.value])]
Admin = Annotated[Caller, Security(_caller, scopes=[Scope.ADMIN.value])]
Feeder = Annotated[Caller, Depends(_feeder)]
