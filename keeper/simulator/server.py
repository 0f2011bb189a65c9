"""Serves a simulated Keepa over HTTP/1.1 with keep-alive and gzip.

Next to Keepa's own paths there are control endpoints, JSON in and out, without a key (bind loopback only). Each POST answers
with the state. `key` is optional wherever it appears: without it every key used so far is meant.

| Request | Body (GET: query) | Does |
|---|---|---|
| GET `/_simulator/state` | | `now_ms`, the three numbers of the clock, balances by key (as a hash), faults on order |
| GET `/_simulator/requests` | `last` | counts by status and path, tokens consumed, the last calls |
| GET `/_simulator/products` | `start`, `count` | ASINs of the catalog |
| POST `/_simulator/jump` | `seconds` | moves the clock forward |
| POST `/_simulator/speed` | `speed` | changes its speed |
| POST `/_simulator/clock` | `anchor_machine`, `anchor_simulated`, `speed` | sets it as someone else keeps it |
| POST `/_simulator/tokens` | `tokens`, `key` | sets the balance |
| POST `/_simulator/spend` | `tokens`, `per_minute`, `key` | lets a foreign spender take tokens, now or with each refill |
| POST `/_simulator/rate` | `refill_per_minute`, `token_flow_reduction`, `key` | changes plan or trackings |
| POST `/_simulator/key` | `status` (`valid`, `invalid`, `unpaid`), `key` | makes a key unusable (400 or 402) or usable again |
| POST `/_simulator/faults` | `kind`, and `next` or `share` with `seed`; `path`, `seconds`, `asin`; or `clear` | breaks answers to come |
| POST `/_simulator/forget` | | empties the log of calls |

A single request asks for a fault by the header `X-Simulator-Fault: slow; seconds=2`.
`refillIn` and `timestamp` are in simulated time, as everything Keepa says.
"""

import json
import logging
import socket
import sys
import threading
import traceback
import zlib
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import msgspec

from keeper.simulator.api import DEFAULT_KEY, Answer, SimulatedKeepa
from keeper.simulator.catalog import DEFAULT_ODDITIES, DEFAULT_SEEDS, Catalog, Oddities
from keeper.simulator.clock import SimulatedClock
from keeper.simulator.faults import Fault, parse_fault
from keeper.simulator.listings import LISTED

FAULT_HEADER = "X-Simulator-Fault"
CONTROL_PREFIX = "/_simulator/"
MAX_BODY_BYTES = 1_000_000
IDLE_SECONDS = 300
# Fast rather than small: the bytes go over loopback.
GZIP_LEVEL = 1
_log = logging.getLogger(__name__)


class Simulator:
    """A simulated Keepa that listens on a socket of this machine, served by threads of this process.

    Use as a context manager or call `close`. `keepa` is the Keepa behind it, for tests that want to look inside.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        speed: float = 1.0,
        products: int = 47,
        seed: int = 1,
        refill_per_minute: int = 20,
        start_at: float | None = None,
        tokens: int | None = None,
        key: str | None = None,
        seeds: Path = DEFAULT_SEEDS,
        listed: int = LISTED,
        oddities: Oddities = DEFAULT_ODDITIES,
    ) -> None:
        """Binds the socket and starts to listen.

        Args:
            host: Address to listen on.
            port: 0 takes a free one.
            speed: Simulated seconds per machine second, 1 to 10,000.
            products: Size of the catalog, 1 to 100,000.
            seed: Two simulators with one seed agree on every price.
            refill_per_minute: Tokens per simulated minute; the bucket holds sixty times as many.
            start_at: Simulated Unix seconds to start at; None means now.
            tokens: Balance to start with; None means a full bucket.
            key: The only key accepted; None accepts every one of 64 characters.
            seeds: Folder of `keyboards.csv`.
            listed: How many of the products lists (deals, best sellers, finder, search) know.
            oddities: How many of the generated products mislead who looks for bargains.
        """
        clock = SimulatedClock(start_at, speed)
        catalog = Catalog(products=products, seed=seed, start_at=clock.anchors.simulated, seeds=seeds, oddities=oddities)
        self.keepa = SimulatedKeepa(catalog, clock, refill_per_minute=refill_per_minute, tokens=tokens, key=key, listed=listed)
        self.key = key or DEFAULT_KEY
        self._server = _Server((host, port), _RequestHandler)
        self._server.keepa = self.keepa
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="simulator", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Base URL, without a trailing slash."""
        return f"http://{self._server.server_address[0]!s}:{self.port}"

    def close(self) -> None:
        """Stops listening and ends open connections, with which their threads end. A second call does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.close_connections()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    speed: float = 1.0,
    products: int = 47,
    seed: int = 1,
    refill_per_minute: int = 20,
    start_at: float | None = None,
    tokens: int | None = None,
    key: str | None = None,
    seeds: Path = DEFAULT_SEEDS,
    listed: int = LISTED,
    oddities: Oddities = DEFAULT_ODDITIES,
    until: threading.Event | None = None,
    on_listening: Callable[[str], None] | None = None,
) -> None:
    """Serves until `until` is set (for ever without one); prints one line of JSON with the URL once it listens.

    The other arguments are those of `Simulator`; `on_listening` is called with the URL before that line.
    """
    with Simulator(
        host,
        port,
        speed=speed,
        products=products,
        seed=seed,
        refill_per_minute=refill_per_minute,
        start_at=start_at,
        tokens=tokens,
        key=key,
        seeds=seeds,
        listed=listed,
        oddities=oddities,
    ) as simulator:
        anchors = simulator.keepa.clock.anchors
        line = {
            "url": simulator.url,
            "anchor_machine": anchors.machine,
            "anchor_simulated": anchors.simulated,
            "speed": anchors.speed,
            "products": products,
            "seed": seed,
            "refill_per_minute": refill_per_minute,
        }
        if on_listening is not None:
            on_listening(simulator.url)
        print(json.dumps(line), flush=True)
        (until or threading.Event()).wait()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    keepa: SimulatedKeepa

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # The base class would look the host's name up, which can take seconds.
        socket_address = self.server_address
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(socket_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        self.closing.set()
        with self._open_lock:
            connections = list(self._open)
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                _log.debug("a connection had ended already")

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            _log.debug("a client went away: %s", type(error).__name__)
        else:
            # Type and place only: a message could hold the URL, and the URL holds the key.
            _log.error(
                "a request failed: %s at\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__ if error else None))
            )


class _RequestHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "KeepaSimulator"
    sys_version = ""
    timeout = IDLE_SECONDS
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        """Answers a GET."""
        self._respond()

    def do_POST(self) -> None:
        """Answers a POST."""
        self._respond()

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing: the request line holds the key."""

    def _respond(self) -> None:
        url = urlsplit(self.path)
        body = self._read_body()
        if body is None:
            return
        if url.path.startswith(CONTROL_PREFIX):
            self._send(self._control(url.path[len(CONTROL_PREFIX) :].strip("/"), url.query, body))
            return
        header = self.headers.get(FAULT_HEADER)
        try:
            fault = parse_fault(header) if header else None
        except ValueError as error:
            self._send(Answer(400, {"error": f"{FAULT_HEADER}: {error}"}))
            return
        self._send(self.server.keepa.answer(url.path, dict(parse_qsl(url.query, keep_blank_values=True)), fault, self.command, body))

    def _control(self, name: str, query: str, body: bytes) -> Answer:
        try:
            wish: Mapping[str, Any] = dict(parse_qsl(query)) if self.command == "GET" else json.loads(body or b"{}")
            if not isinstance(wish, Mapping):
                raise ValueError("the body must be a JSON object")
            return self.server.keepa.control(self.command, name, wish)
        except LookupError:
            return Answer(404, {"error": f"no control endpoint {self.command} {name[:100]}"})
        except ValueError as error:
            return Answer(400, {"error": str(error)})

    def _read_body(self) -> bytes | None:
        """Returns the request's body, None where it was refused (and answered)."""
        try:
            length = int(self.headers.get("Content-Length", 0))
        except ValueError:
            length = -1
        if "Transfer-Encoding" in self.headers or not 0 <= length <= MAX_BODY_BYTES:
            self.close_connection = True
            self._send(Answer(413 if length > MAX_BODY_BYTES else 400, {"error": "the body needs a Content-Length of at most 1 MB"}))
            return None
        return self.rfile.read(length) if length else b""

    def _send(self, answer: Answer) -> None:
        fault = answer.fault
        if fault is not None and fault.kind == "dropped":
            self.close_connection = True
            return
        if fault is not None and fault.kind == "slow":
            self.server.closing.wait(fault.seconds)
        body = msgspec.json.encode(answer.body)
        gzipped = "gzip" in self.headers.get("Accept-Encoding", "")
        if fault is not None and fault.kind == "wrong_json":
            body = body[: len(body) // 2] + b"]} not JSON"
        if gzipped:
            body = _gzip(body)
        if fault is not None and fault.kind == "broken_gzip":
            gzipped, body = True, _break_gzip(body)
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json;charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        if gzipped:
            self.send_header("Content-Encoding", "gzip")
        if self.close_connection or _cuts(fault):
            self.send_header("Connection", "close")
        self.end_headers()
        if _cuts(fault):
            self.close_connection = True
            body = body[: len(body) // 2]
        self.wfile.write(body)


def _cuts(fault: Fault | None) -> bool:
    return fault is not None and fault.kind == "cut_off"


def _gzip(body: bytes) -> bytes:
    compressor = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)
    return compressor.compress(body) + compressor.flush()


def _break_gzip(body: bytes) -> bytes:
    """Returns bytes with a gzip header and nonsense behind it."""
    return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + b"\xff" * max(16, min(len(body), 4096))
