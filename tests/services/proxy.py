"""A TCP proxy between Keeper and a real server, for tests that want the network to fail: cut, slow, or silent."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Literal, Self

_HERE = "127.0.0.1"
_CHUNK_BYTES = 65536
# A slowed connection sends so often, each time what the rate allows.
_TICK_SECONDS = 0.05
_CONNECT_SECONDS = 5
_JOIN_SECONDS = 10

Mode = Literal["through", "cut", "half_open"]


class _Link:
    """One connection: the near end (Keeper) and the far end (the server)."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.ends = (near, far)
        self.open_directions = 2

    def reset(self) -> None:
        for end in self.ends:
            _reset(end)


class Proxy:
    """Listens on 127.0.0.1 and passes bytes on to the target port, from entering to leaving the `with` block.

    Args:
        target_port: of the real server, on 127.0.0.1.
        port: its own; 0 chooses one. It stays the same over `cut` and `restore`.

    Attributes:
        passed_bytes: about so many were passed on, both directions together.
    """

    def __init__(self, target_port: int, *, port: int = 0) -> None:
        self.port = port
        self._target_port = target_port
        self._mode: Mode = "through"
        self._bytes_per_second: float | None = None
        self._delay_seconds = 0.0
        self._listener: socket.socket | None = None
        self._links: list[_Link] = []
        self._threads: list[threading.Thread] = []
        self._changing = threading.RLock()
        self._is_closing = threading.Event()
        self.passed_bytes = 0

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(self, *_error: object) -> None:
        self._is_closing.set()
        self.cut()
        for thread in list(self._threads):
            thread.join(_JOIN_SECONDS)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{_HERE}:{self.port}"

    @property
    def open_connections(self) -> int:
        """Connections that are passed on, or swallowed, just now."""
        with self._changing:
            return len(self._links)

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        with self._changing:
            if self._listener is not None:
                # Without the shutdown a thread that waits in accept() would keep the port open.
                with contextlib.suppress(OSError):
                    self._listener.shutdown(socket.SHUT_RDWR)
                self._listener.close()
                self._listener = None
            for link in self._links:
                link.reset()
            self._links.clear()
            # Last: what a silent connection has taken must not go on in a moment between the two.
            self._mode = "cut"

    def restore(self) -> None:
        """Pass everything on again, at full speed. Connections from a time of `half_open` are reset, because bytes of theirs are lost."""
        with self._changing:
            if self._mode == "half_open":
                self.cut()
            self._mode = "through"
            self._bytes_per_second = None
            self._delay_seconds = 0.0
            if self._listener is None:
                self._listen()

    def slow(self, *, bytes_per_second: float | None = None, delay_seconds: float = 0.0) -> None:
        """Pass on so many bytes a second per connection and direction, and each piece after a delay; until `restore`."""
        with self._changing:
            self._bytes_per_second = bytes_per_second
            self._delay_seconds = delay_seconds

    def half_open(self) -> None:
        """Accept everything and swallow it: no byte goes on or comes back, and nobody hears of an end."""
        with self._changing:
            self._mode = "half_open"
            if self._listener is None:
                self._listen()

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_HERE, self.port))
        listener.listen(128)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._run(lambda: self._accept(listener))

    def _run(self, body: Callable[[], None]) -> None:
        thread = threading.Thread(target=body, daemon=True)
        with self._changing:
            self._threads = [one for one in self._threads if one.is_alive()]
            thread.start()
            self._threads.append(thread)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            self._run(lambda near=near: self._connect(near))  # type: ignore[misc]

    def _connect(self, near: socket.socket) -> None:
        far = socket.socket()
        far.settimeout(_CONNECT_SECONDS)
        link = _Link(near, far)
        try:
            if self._mode == "through":
                far.connect((_HERE, self._target_port))
            far.settimeout(None)
        except OSError:
            link.reset()
            return
        with self._changing:
            if self._mode == "cut":
                link.reset()
                return
            self._links.append(link)
            is_swallowed = self._mode == "half_open"
        self._run(lambda: self._pump(link, near, far))
        if not is_swallowed:
            self._run(lambda: self._pump(link, far, near))

    def _pump(self, link: _Link, source: socket.socket, target: socket.socket) -> None:
        """Pass on one direction until its end; in the mode `half_open` swallow all, the end too."""
        try:
            while piece := source.recv(_CHUNK_BYTES):
                self._pass_on(target, piece)
            if self._mode != "half_open":
                target.shutdown(socket.SHUT_WR)
        except OSError:
            if self._mode == "half_open":
                return
            link.reset()
        with self._changing:
            link.open_directions -= 1
            if link.open_directions == 0 and self._mode != "half_open":
                link.reset()
                if link in self._links:
                    self._links.remove(link)

    def _pass_on(self, target: socket.socket, piece: bytes) -> None:
        rest = memoryview(piece)
        if self._delay_seconds:
            self._is_closing.wait(self._delay_seconds)
        while rest and self._mode != "half_open":
            rate = self._bytes_per_second
            size = len(rest) if rate is None else max(1, int(rate * _TICK_SECONDS))
            if rate is not None:
                self._is_closing.wait(min(size, len(rest)) / rate)
            target.sendall(rest[:size])
            self.passed_bytes += min(size, len(rest))
            rest = rest[size:]


def _reset(end: socket.socket) -> None:
    """Close with RST. The shutdown wakes a thread that waits on the socket and would keep it alive."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)
    end.close()
