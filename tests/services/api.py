"""The REST API served for real, in a thread of this process."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from api.serving import serving_options
from keeper.settings import ApiSettings
from tests.services.waiting import wait_until


@contextmanager
def serve(app: ASGIApp, *, is_daemon: bool = False, settings: ApiSettings | None = None) -> Iterator[str]:
    """Yields the address, on a free port of this machine. Threads of a daemon, and those it starts for requests, may outlive a test."""
    # asyncio sends at once only on sockets that say they are TCP; else an answer waits 40 ms for the acknowledgement of its head.
    listening = socket.socket(proto=socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    options = serving_options(settings or ApiSettings())
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", **options))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="api", daemon=is_daemon)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), "the API did not start")
        assert server.started
        yield f"{'https' if 'ssl_certfile' in options else 'http'}://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()
