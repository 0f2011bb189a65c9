"""Headers that tell a browser what an answer may not be used for. On every answer, refusals and preflights included."""

import hashlib
import re
from base64 import b64encode
from typing import Final

from fastapi import APIRouter
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Nothing that is not HTML needs more.
_NOTHING: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_HSTS_SECONDS: Final = 365 * 24 * 3600

router = APIRouter(include_in_schema=False)


class SafeHeaders:
    """Pure ASGI, outermost. A route that answers HTML brings a Content-Security-Policy of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer["X-Content-Type-Options"] = "nosniff"
                answer["X-Frame-Options"] = "DENY"
                answer["Referrer-Policy"] = "no-referrer"
                answer.setdefault("Content-Security-Policy", _NOTHING)
                # Over plain HTTP anybody on the way could have written it, so browsers do not read it there.
                if scope["scheme"] == "https":
                    answer["Strict-Transport-Security"] = f"max-age={_HSTS_SECONDS}"
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _policy_of(page: str) -> str:
    """What a page of ours loads and runs, and nothing else: read from the page itself, so that it cannot say less than that."""
    scripts = re.findall(r'<script src="([^"]+)"', page)
    scripts += [
        f"'sha256-{b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in re.findall(r"(?s)<script>(.*?)</script>", page)
    ]
    styles = [*re.findall(r'<link [^>]*rel="stylesheet" href="([^"]+)"', page), "'unsafe-inline'"]
    return (
        f"default-src 'none'; script-src {' '.join(scripts)}; style-src {' '.join(styles)}; img-src 'self' data:; font-src data:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )


# Relative, so that it is found below the path of a proxy, too; no picture from elsewhere.
_DOCS: Final = bytes(get_swagger_ui_html(openapi_url="openapi.json", title="Keeper", swagger_favicon_url="data:,").body).decode()
_DOCS_HEADERS: Final = {"Content-Security-Policy": _policy_of(_DOCS)}


@router.get("/docs")
async def show_docs() -> HTMLResponse:
    """Swagger UI, whose program the reader's browser fetches from the address in the page."""
    return HTMLResponse(_DOCS, headers=_DOCS_HEADERS)
