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
from keeper import trace
from keeper.accounts import KeyHolder, KeyRefused, ScopeMissing, authenticate
from keeper.audit import Action, Actor, Outcome, Via, note
from keeper.domain.access import Role, Scope
from keeper.domain.errors import KeeperError
from keeper.postgres import users

_bearer = HTTPBearer(auto_error=False, description="`Authorization: Bearer keeper_…`, the key that `keeper user add` printed")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="The same key in a header of its own")


_OF_PROXIES = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
# Who has one address of IPv6 has as many as they like.
_IPV6_NETWORK_BITS = 64


class TooManyTries(TooManyRequests):
    """From one address came too many keys that are none. A right key from there is let in all the same."""

    def __str__(self) -> str:
        return f"too many keys that are none came from this address; wait {self.allowance.reset_seconds} s"


class NotLoopback(KeeperError):
    """Without keys Keeper answers this machine only."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A user, and what their key may do.

    Attributes:
        key_id: None where keys are not asked for.
        request_id: of this request.
    """

    user_id: int
    name: str
    role: str
    scope: Scope
    key_id: int | None
    request_id: str

    @property
    def actor(self) -> Actor:
        """The same for the audit log."""
        return Actor(Via.API, self.name, self.user_id, self.key_id, self.request_id)


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
    needed = Scope(scopes.scopes[0])
    if live.settings.api.auth == "off":
        found = await run_in_threadpool(_anybody, live, request)
        return await _allow(live, request, found, needed)
    key = bearer.credentials if bearer else header
    if key is None:
        raise KeyRefused("this needs an API key: send it as `Authorization: Bearer keeper_…`; `keeper user add NAME` prints one")
    return await _admit(live, request, key, needed)


async def _feeder(token: Token, request: Request, live: House) -> Caller:
    """The key in the path must be of scope `feed`: one that may do more does not belong in an address."""
    if live.settings.api.auth == "off":
        return await run_in_threadpool(_anybody, live, request)
    return await _admit(live, request, token, Scope.FEED)


async def _admit(live: Live, request: Request, proof: str, needed: Scope) -> Caller:
    found = await _identify(live, request, proof)
    try:
        request.state.allowance = live.requests.spend(f"user {found.user_id}" if found.key_id is None else f"key {found.key_id}")
    except TooManyRequests as error:
        request.state.allowance = error.allowance
        raise
    caller = Caller(found.user_id, found.user, found.role, found.scope, found.key_id, request.state.request_id)
    trace.note(user_id=found.user_id)
    return await _allow(live, request, caller, needed)


async def _identify(live: Live, request: Request, proof: str) -> KeyHolder:
    """Whose proof it is: nothing else says so.

    An API key is the only one today. A token of an OpenID provider would be told from it by its form here, and be answered by a function
    beside `_look_up` with the same KeyHolder, its role from the provider's claims or from the users there are.

    Raises:
        KeyRefused: nobody's.
        TooManyTries: see there.
    """
    found = live.keys.recall(proof)
    return found if found is not None else await run_in_threadpool(_look_up, live, request, proof)


async def _allow(live: Live, request: Request, caller: Caller, needed: Scope) -> Caller:
    """Raises:
    ScopeMissing: see there. What is an admin's alone is noted.
    """
    if needed in caller.scope.includes:
        return caller
    if needed is Scope.ADMIN:
        await run_in_threadpool(_note_refusal, live, request, caller)
    raise ScopeMissing(needed, caller.scope)


def _note_refusal(live: Live, request: Request, caller: Caller) -> None:
    try:
        live.refusals.spend(f"key {caller.key_id}")
    except TooManyRequests:
        return
    target = f"{request.method} {request.scope['path']}"
    with live.begin() as connection:
        note(connection, caller.actor, Action.ADMIN_REQUEST, target, Outcome.REFUSED)


def _look_up(live: Live, request: Request, key: str) -> KeyHolder:
    with live.noting_outage(), live.resources.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        try:
            found = authenticate(connection, key)
        except KeyRefused:
            # Guessing is bounded; those who know their key are not counted with those who do not.
            try:
                live.tries.spend(_neighbourhood(request))
            except TooManyRequests as error:
                raise TooManyTries(error.allowance) from None
            raise
    live.keys.keep(key, found)
    return found


def _neighbourhood(request: Request) -> str:
    """The caller's address, of IPv6 its network; behind a proxy that is trusted the address that the proxy names."""
    host = request.client.host if request.client else "unknown"
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return host
    return str(address.ipv4_mapped or ipaddress.IPv6Network((int(address), _IPV6_NETWORK_BITS), strict=False))


def _anybody(live: Live, request: Request) -> Caller:
    """The user named in the settings, or the only one there is."""
    _check_is_local(request, live.settings.api.cors_origins)
    with live.begin() as connection:
        found = users.select_user(connection, users.find_user(connection, live.settings.api.user))
    trace.note(user_id=found.user_id)
    return Caller(found.user_id, found.name, found.role, Role(found.role).widest, None, request.state.request_id)


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
