"""The REST API under 1, 8 and 64 clients, against endpoints that return the same objects without any work.

Served by uvicorn in a process of its own, asked by a second one over loopback; keep-alive, no gzip. `watches`: a page of 1,000 of 100,000
watches. `history`: a year of one product, with 1,000,000 price points in the table. `post`: one new watch each. The baseline is a
synchronous FastAPI endpoint in the same process that returns the same constant object through the same response model and middleware,
without a key; both are asked in turns.
"""

import argparse
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from statistics import median, quantiles
from typing import Any

from fastapi import FastAPI
from sqlalchemy import Engine, text

from benchmarks.figures import database, say
from benchmarks.triple_write import SPAWN, sampled, tell
from keeper.accounts import add_user

WATCHES = 100_000
PAGE = 1_000
PRODUCTS = 1_000
POINTS = 1_000
CLIENTS = (1, 8, 64)
JUDGED_CLIENTS = 8
SECONDS = 4.0
WARM_UP_SECONDS = 1.5
ROUNDS = 3
ASIN = "B000000001"
NAMES = ("watches", "history", "post")
PATHS = {"watches": f"/api/v1/watches?limit={PAGE}", "history": f"/api/v1/prices/{ASIN}/history?days=365", "post": "/api/v1/watches"}

Figures = list[tuple[str, float, str, str]]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each measurement")
    parser.add_argument("--profile", action="store_true", help="where the server's threads stand, by function")
    arguments = parser.parse_args()
    with database() as engine:
        key = fill(engine)
        figures = measure(engine, key, arguments.rounds, arguments.seconds, arguments.profile)
    say("api", figures)


def fill(engine: Engine) -> str:
    """A user's watches with their products and prices, and the history. Returns the user's key."""
    with engine.begin() as connection:
        new = add_user(connection, "bench")
        for statement in (
            """
            INSERT INTO products (asin, marketplace, kind, title, brand, image_url, first_seen_at, checked_at, changed_at)
            SELECT 'B' || lpad(n::text, 9, '0'), 'DE', 'standard', 'Cherry KC 1000 Tastatur, QWERTZ, kabelgebunden ' || n, 'CHERRY',
                'https://m.media-amazon.com/images/I/' || n || '.jpg', now(), now(), now() FROM generate_series(1, :watches) n
            """,
            """
            INSERT INTO watched_products (user_id, asin, marketplace, price_type, target_minor, currency)
            SELECT :user_id, 'B' || lpad(n::text, 9, '0'), 'DE', 'NEW', 4990, 'EUR' FROM generate_series(1, :watches) n
            """,
            """
            INSERT INTO planned_checks (asin, marketplace, is_buybox, interval_seconds, last_checked_at, next_check_at)
            SELECT 'B' || lpad(n::text, 9, '0'), 'DE', false, 21600, now(), now() + interval '6 hours' FROM generate_series(1, :watches) n
            """,
            """
            INSERT INTO current_prices (asin, marketplace, price_type, amount_minor, currency, observed_at, checked_at)
            SELECT 'B' || lpad(n::text, 9, '0'), 'DE', 'NEW', 1000 + n % 5000, 'EUR', now() - interval '1 hour', now()
            FROM generate_series(1, :watches) n
            """,
            """
            INSERT INTO price_history (asin, marketplace, price_type, observed_at, amount_minor, currency)
            SELECT 'B' || lpad(p::text, 9, '0'), 'DE', 'NEW', date_trunc('minute', now()) - interval '8 hours' * n,
                1000 + (n * 7919) % 5000, 'EUR'
            FROM generate_series(1, :products) p, generate_series(1, :points) n
            """,
        ):
            connection.execute(text(statement), {"watches": WATCHES, "products": PRODUCTS, "points": POINTS, "user_id": new.user_id})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
        connection.execute(text("CHECKPOINT"))
    return new.shown_key


def measure(engine: Engine, key: str, rounds: int, seconds: float, profile: bool) -> Figures:
    """Both sides in turns; medians of the rounds."""
    seen: dict[tuple[str, str, int], list[Answers]] = {}
    ready, stop, port = SPAWN.Event(), SPAWN.Event(), SPAWN.Value("i", 0)
    url = engine.url.render_as_string(hide_password=False).replace("postgresql+psycopg", "postgresql")
    server = SPAWN.Process(target=serve, args=(url, key, ready, stop, port, profile))
    server.start()
    try:
        assert ready.wait(120), "the API did not start"
        numbers = count()
        for number in range(rounds):
            for name in NAMES:
                for clients in CLIENTS:
                    for side in ("constant", "ours"):
                        ask(port.value, name, side, key, clients, WARM_UP_SECONDS, next(numbers))
                        answers = ask(port.value, name, side, key, clients, seconds, next(numbers))
                        seen.setdefault((name, side, clients), []).append(answers)
                        tell(f"{number} {name} {side} {clients}: {answers}")
    finally:
        stop.set()
        server.join(30)
    return figures_of(seen)


@dataclass(frozen=True, slots=True)
class Answers:
    """What one measurement saw."""

    per_second: float
    p50_ms: float
    p99_ms: float

    def __str__(self) -> str:
        return f"{self.per_second:,.0f}/s, p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms"


def figures_of(seen: dict[tuple[str, str, int], list[Answers]]) -> Figures:
    found: Figures = []

    def middle(name: str, side: str, clients: int, of: Callable[[Answers], float]) -> float:
        return median(of(one) for one in seen[name, side, clients])

    for name in NAMES:
        ours, constant = seen[name, "ours", JUDGED_CLIENTS], seen[name, "constant", JUDGED_CLIENTS]
        ratio = median(theirs.p50_ms / mine.p50_ms for mine, theirs in zip(ours, constant, strict=True))
        found.append((f"{name}_ratio_p50", ratio, "", ">= 0.3"))
        found.append((f"{name}_tail", median(one.p99_ms / one.p50_ms for one in ours), "", "<= 10"))
        for clients in CLIENTS:
            found.append((f"{name}_per_second_{clients}", middle(name, "ours", clients, lambda one: one.per_second), "1/s", ""))
            found.append((f"{name}_p50_ms_{clients}", middle(name, "ours", clients, lambda one: one.p50_ms), "ms", ""))
            found.append((f"{name}_p99_ms_{clients}", middle(name, "ours", clients, lambda one: one.p99_ms), "ms", ""))
    return found


# The clients


def ask(port: int, name: str, side: str, key: str, clients: int, seconds: float, number: int) -> Answers:
    """In a process of its own, whose work does not stand in the server's way."""
    near, far = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=_ask, args=(far, port, name, side, key, clients, seconds, number))
    process.start()
    try:
        assert near.poll(seconds + 120), "the clients did not come back"
        durations: list[float] = near.recv()
    finally:
        process.join(30)
    cuts = quantiles(durations, n=100)
    return Answers(len(durations) / seconds, cuts[49] * 1000, cuts[98] * 1000)


def _ask(told: Any, port: int, name: str, side: str, key: str, clients: int, seconds: float, number: int) -> None:
    durations: list[list[float]] = [[] for _ in range(clients)]
    start = threading.Barrier(clients)
    threads = [
        threading.Thread(target=_client, args=(port, name, side, key, seconds, start, f"{number:03d}{client:02d}", durations[client]))
        for client in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told.send([one for some in durations for one in some])


def _client(port: int, name: str, side: str, key: str, seconds: float, start: threading.Barrier, mark: str, durations: list[float]) -> None:
    """One connection; plain sockets, because a client library costs more than the server."""
    path = PATHS[name] if side == "ours" else f"/constant/{name}"
    method = "POST" if name == "post" else "GET"
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection, connection.makefile("rb") as reader:
        start.wait(60)
        deadline = time.monotonic() + seconds
        for number in count():
            body = ""
            if method == "POST":
                body = json.dumps({"asin": f"C{mark}{_base36(number)}", "target": 49.9})
            request = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}" if body else f"{head}\r\n"
            started = time.monotonic()
            if started >= deadline:
                return
            connection.sendall(request.encode())
            status = _read(reader)
            durations.append(time.monotonic() - started)
            assert status in (200, 201), f"{path} was answered {status}"


def _base36(number: int) -> str:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return "".join(digits[number // 36**place % 36] for place in (3, 2, 1, 0))


def _read(reader: Any) -> int:
    status = int(reader.readline().split()[1])
    length = 0
    while (line := reader.readline()) != b"\r\n":
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    reader.read(length)
    return status


# The server


def serve(url: str, key: str, ready: Any, stop: Any, port: Any, profile: bool) -> None:
    """The API with the constant endpoints beside it."""
    os.environ |= {"KEEPER_DATABASE_URL": url, "KEEPER_API_REQUESTS_PER_MINUTE": "1000000", "KEEPER_LOG_LEVEL": "WARNING"}
    import uvicorn

    from api.app import create_app
    from keeper.settings import Settings

    Settings.model_config["env_file"] = None
    app = create_app(Settings())
    add_constants(app, key)
    # Said to be TCP, so that asyncio sends at once.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    port.value = listening.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))

    def watch() -> None:
        while not server.started:
            time.sleep(0.05)
        ready.set()
        stop.wait()
        server.should_exit = True

    threading.Thread(target=watch, daemon=True).start()
    with sampled(profile):
        server.run(sockets=[listening])


def add_constants(app: FastAPI, key: str) -> None:
    """Endpoints that return what ours once returned, through the same models."""
    from api.prices import PriceHistory
    from api.watches import NewWatch, WatchAnswer, Watches, shown
    from keeper.postgres import watches
    from keeper.postgres.users import find_user

    with app.state.live.begin() as connection:
        user_id = find_user(connection, "bench")
        rows = watches.select_watches(connection, user_id=user_id, limit=PAGE)
    page = Watches(watches=[shown(row) for row in rows], next="/api/v1/watches?limit=1000&cursor=aWQ6MTAwMA")
    history = PriceHistory.model_validate_json(once(app, key))

    @app.get("/constant/watches")
    def constant_watches() -> Watches:
        return page

    @app.get("/constant/history")
    def constant_history() -> PriceHistory:
        return history

    @app.post("/constant/post", status_code=201)
    def constant_post(body: NewWatch) -> WatchAnswer:  # noqa: ARG001  it is read, as ours is
        return page.watches[0]


def once(app: FastAPI, key: str) -> bytes:
    """The history as the API answers it."""
    import asyncio

    import httpx

    async def ask_app() -> bytes:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answered = await client.get(PATHS["history"], headers={"Authorization": f"Bearer {key}"})
        assert answered.status_code == 200, answered.text
        return answered.content

    return asyncio.run(ask_app())


if __name__ == "__main__":
    main()
