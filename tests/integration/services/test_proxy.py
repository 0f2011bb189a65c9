"""The proxy between Keeper and a real server, here before an echo server."""

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from tests.services.proxy import Proxy
from tests.services.waiting import wait_until

_SECONDS = 10


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        try:
            while piece := self.request.recv(65536):
                self.request.sendall(piece)
        except OSError:
            return


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that sends back what it gets, and hangs up when the other side does."""
    with _Server(("127.0.0.1", 0), _Echo) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def proxy(echo_port: int) -> Iterator[Proxy]:
    """A proxy before it."""
    with Proxy(echo_port) as running:
        yield running


def _connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=_SECONDS)


def _ask(connection: socket.socket, question: bytes) -> bytes:
    connection.sendall(question)
    answer = b""
    while len(answer) < len(question):
        piece = connection.recv(65536)
        if not piece:
            break
        answer += piece
    return answer


def test_bytes_go_through_unchanged(proxy: Proxy) -> None:
    question = bytes(range(256)) * 4000
    with _connect(proxy) as connection:
        threading.Thread(target=connection.sendall, args=(question,), daemon=True).start()
        answer = b""
        while len(answer) < len(question):
            answer += connection.recv(65536)
    assert answer == question


def test_the_end_of_one_side_reaches_the_other(proxy: Proxy) -> None:
    with _connect(proxy) as connection:
        _ask(connection, b"price")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    wait_until(lambda: proxy.open_connections == 0, "the connection is still there", longest_seconds=_SECONDS)


def test_cut_drops_what_is_open(proxy: Proxy) -> None:
    with _connect(proxy) as connection:
        _ask(connection, b"price")
        proxy.cut()
        with pytest.raises(ConnectionError):
            while _ask(connection, b"price"):
                pass
            raise ConnectionError


def test_cut_refuses_new_connections(proxy: Proxy) -> None:
    proxy.cut()
    with pytest.raises(ConnectionRefusedError):
        _connect(proxy)


def test_restored_proxy_listens_where_it_did(proxy: Proxy) -> None:
    port = proxy.port
    with _connect(proxy) as connection:
        _ask(connection, b"price")
        proxy.cut()
    proxy.restore()
    assert proxy.port == port
    with _connect(proxy) as connection:
        assert _ask(connection, b"price") == b"price"


def test_server_that_is_away_ends_the_connection() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with Proxy(closed.getsockname()[1]) as proxy, contextlib.suppress(ConnectionError), _connect(proxy) as connection:
            assert connection.recv(1) == b""


def test_slow_proxy_keeps_to_its_rate(proxy: Proxy) -> None:
    proxy.slow(bytes_per_second=2000)
    with _connect(proxy) as connection:
        began = time.monotonic()
        assert _ask(connection, b"x" * 1000) == b"x" * 1000
        # There and back at half a second each, in part at the same time.
        assert time.monotonic() - began >= 0.5


def test_delay_holds_back_each_answer(proxy: Proxy) -> None:
    with _connect(proxy) as connection:
        proxy.slow(delay_seconds=0.2)
        began = time.monotonic()
        assert _ask(connection, b"price") == b"price"
        assert time.monotonic() - began >= 0.4


def test_restore_ends_slowness_at_once(proxy: Proxy) -> None:
    proxy.slow(bytes_per_second=1)
    with _connect(proxy) as connection:
        connection.sendall(b"x" * 10_000)
        proxy.restore()
        connection.settimeout(5)
        assert len(connection.recv(65536)) > 0


@pytest.mark.parametrize("is_open_before", [True, False], ids=["open before", "opened while silent"])
def test_half_open_proxy_takes_bytes_and_answers_nothing(proxy: Proxy, is_open_before: bool) -> None:
    if is_open_before:
        connection = _connect(proxy)
        _ask(connection, b"price")
        proxy.half_open()
    else:
        proxy.half_open()
        connection = _connect(proxy)
    with connection:
        connection.sendall(b"x" * 1_000_000)
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_connection_that_was_half_open_is_dropped_by_restore(proxy: Proxy) -> None:
    with _connect(proxy) as lost:
        _ask(lost, b"price")
        proxy.half_open()
        lost.sendall(b"swallowed")
        proxy.restore()
        with contextlib.suppress(ConnectionError):
            assert lost.recv(1) == b""
    with _connect(proxy) as fresh:
        assert _ask(fresh, b"price") == b"price"


def test_nothing_listens_and_no_thread_runs_after_the_block(echo_port: int) -> None:
    before = threading.active_count()
    with Proxy(echo_port) as proxy:
        connection = _connect(proxy)
        _ask(connection, b"price")
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        _connect(proxy)
    # The echo server's own thread for the connection may be on its way out.
    wait_until(lambda: threading.active_count() <= before, "threads are left")
