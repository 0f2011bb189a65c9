"""The token ledger at work: eight processes on the real database against the simulator, for a simulated day of demand above supply.

Four processes ask for 1 to 50 products at a time, two always for 50, two always for 1; each reserves, fetches through the real client over
HTTP and settles, then asks again. Some are killed by SIGKILL while they wait, between reserving and sending, or between the answer and
settling, and replaced. The window begins with the bucket at the floor that is kept for people's own checks and ends a day later;
what is still in the bucket then counts as unused. Baseline: the loop of sleeping `refillIn` after a 429 and asking again, without a ledger.

`--prefect` starts Prefect's server too, and each request also takes its slots from the global limits, as the fetch task does. Prefect
answers some thirty calls a second here and a request needs three, so the clock runs slower and the window is eight hours; nobody is killed,
because the slot of a killed process comes back after a minute of the machine, which would be four hours.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import httpx
from sqlalchemy import Engine, text

from benchmarks.figures import database, say
from deployments.stack import Stack, free_port, start_prefect, start_simulator
from keeper.domain.budget import Priority, floor_of, spendable
from keeper.domain.marketplace import Marketplace
from keeper.fetch import fetch
from keeper.keepa.answer import ProductAnswer
from keeper.keepa.client import KeepaClient
from keeper.keepa.errors import OutOfTokens
from keeper.plan import PlannedRequest
from keeper.postgres.ledger import read_ledger
from keeper.resources import SIMULATOR_KEY, Resources, make_resources, open_resources
from keeper.settings import read_settings
from keeper.tokens import TokenSettings, ask_bucket, reserve

ROOT = Path(__file__).parents[1]
REFILL_PER_MINUTE = 20
PRODUCTS = 1000
# What the eight processes ask for: the smallest and the largest number of products of a request.
DEMAND = ((1, 50), (1, 50), (1, 50), (1, 50), (50, 50), (50, 50), (1, 1), (1, 1))
# Who is killed after so many requests, one step after another.
KILLED = {0: 45, 1: 60, 2: 75, 4: 30}
LOSSES = ((50, "granted"), (50, "answered"), (7, "granted"), (31, "answered"))
STEPS = ("granted", "waiting", "answered")
# In real life a lease is 10 of a day's 1,440 minutes; at a speed of 720 this is an hour of them.
SETTINGS = TokenSettings(lease_seconds=5.0)
# Longer than the wait for Prefect's slots.
SETTINGS_WITH_LIMITS = TokenSettings(lease_seconds=180.0)
# Beyond the time in which the refill pays for all that stood before it: for being woken, for requests in flight, for a busy machine.
MARGIN_MINUTES = 15.0
# For Prefect's slots, which are plumbing and therefore counted on the machine's clock.
MARGIN_SLOT_SECONDS = 30.0
LONGEST_WAIT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Window:
    """What happened at Keepa between two moments.

    Attributes:
        refill: tokens that came in.
        consumed: tokens of the requests that ran.
        starved: requests of 50 that waited much longer than all that stood before them needed, or never got through.
        waits_over: by how many simulated minutes each request of 50 waited longer than that.
        slot_waits: seconds of the machine between the ledger's grant and the sending of each request of 50.
    """

    minutes: float
    refill: int
    consumed: int
    balance_before: int
    balance: int
    by_status: dict[str, int]
    starved: int
    waits_over: list[float]
    slot_waits: list[float]
    kills: Counter[str]

    @property
    def used_pct(self) -> float:
        """Share of the refill that was used; what the balance at the beginning, or a debt at the end, lent does not count."""
        return 100 * (self.consumed - max(0, self.balance_before - self.balance)) / self.refill


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="simulated length of the window (default: a day; eight hours with Prefect)")
    parser.add_argument("--speed", type=float, help="simulated seconds per second (default: 720; 240 with Prefect)")
    parser.add_argument("--prefect", action="store_true", help="with Prefect's global limits in the way, and only that")
    parser.add_argument("--worker", type=int, help="(for itself) number of the process")
    parser.add_argument("--die", default="", help="(for itself) STEP:REQUESTS")
    parser.add_argument("--naive", action="store_true", help="(for itself) without a ledger")
    arguments = parser.parse_args()
    if arguments.worker is not None:
        work(arguments.worker, arguments.die, is_naive=arguments.naive, has_limits=arguments.prefect)
        return
    speed = arguments.speed or (240.0 if arguments.prefect else 720.0)
    minutes = arguments.minutes or (480.0 if arguments.prefect else 1440.0)
    if arguments.prefect:
        with services(speed, prefect=True) as (stack, resources):
            done = run_window(stack, resources, minutes, prefect=True)
        describe("with Prefect's limits", done)
        say(
            "tokens",
            [
                ("refill_used_pct_prefect", done.used_pct, "%", ">= 98"),
                ("own_429_prefect", done.by_status.get("429", 0), "requests", "0"),
                ("starved_prefect", done.starved, "requests", "0"),
                ("wait_50_beyond_queue_minutes_max_prefect", max(done.waits_over), "simulated min", f"<= {MARGIN_MINUTES:g}"),
                ("wait_50_for_slots_seconds_median", median(done.slot_waits), "s", ""),
                ("wait_50_for_slots_seconds_max", max(done.slot_waits), "s", f"<= {MARGIN_SLOT_SECONDS:g}"),
                ("requests_per_second_prefect", _requests(done) / (minutes * 60 / speed), "1/s", ""),
            ],
        )
        return
    with services(speed) as (stack, resources):
        done = run_window(stack, resources, minutes)
        describe("ledger", done)
        with resources.engine.begin() as connection:
            foreign = read_ledger(connection).foreign_tokens
        lost = [lose(stack, resources, tokens, step) for tokens, step in LOSSES]
    with services(speed) as (stack, resources):
        naive = run_window(stack, resources, minutes / 6, is_naive=True)
        describe("naive", naive)
    say(
        "tokens",
        [
            ("refill_used_pct", done.used_pct, "%", ">= 99"),
            ("own_429", done.by_status.get("429", 0), "requests", "0"),
            ("starved", done.starved, "requests", "0"),
            ("wait_50_beyond_queue_minutes_median", median(done.waits_over), "simulated min", ""),
            ("wait_50_beyond_queue_minutes_max", max(done.waits_over), "simulated min", f"<= {MARGIN_MINUTES:g}"),
            ("lost_per_kill_max_tokens", max(lost), "tokens", "<= 50, its reservation"),
            ("kills", done.kills.total(), "processes", ""),
            ("foreign_tokens_seen", foreign, "tokens", "0"),
            ("requests_per_second", _requests(done) / (minutes * 60 / speed), "1/s", ""),
            ("naive_refill_used_pct", naive.used_pct, "%", ""),
            ("naive_429_per_day", naive.by_status.get("429", 0) * 1440 / naive.minutes, "requests", ""),
        ],
    )


@contextmanager
def services(speed: float, *, prefect: bool = False) -> Iterator[tuple[Stack, Resources]]:
    """A database, a simulator at `speed` and, where asked, Prefect's server with Keeper's limits."""
    with database() as engine, tempfile.TemporaryDirectory(prefix="keeper-bench-") as folder:
        stack = Stack(Path(folder), {"KEEPER_DATABASE_URL": engine.url.render_as_string(hide_password=False)})
        stack.environment.pop("KEEPER_KEEPA_API_KEY", None)
        try:
            url = start_simulator(stack, "--speed", f"{speed:g}", "--rate", str(REFILL_PER_MINUTE), "--products", str(PRODUCTS))
            stack.environment["KEEPER_KEEPA_SIMULATOR_URL"] = url
            os.environ |= {name: value for name, value in stack.environment.items() if name.startswith("KEEPER_")}
            if prefect:
                start_prefect(stack, free_port())
                print(stack.run("deployments.bootstrap"), file=sys.stderr)
            with open_resources() as resources:
                yield stack, resources
        finally:
            stack.stop()


def run_window(stack: Stack, resources: Resources, minutes: float, *, is_naive: bool = False, prefect: bool = False) -> Window:
    """Let the eight processes ask for `minutes` of simulated time."""
    with resources.engine.begin() as connection:
        state = read_ledger(connection)
    assert state.bucket is not None
    workers = [Worker(stack, number, is_naive=is_naive, prefect=prefect) for number in range(len(DEMAND))]
    kills: Counter[str] = Counter()
    try:
        for worker in workers:
            worker.wait_until_ready()
        control("tokens", tokens=0 if is_naive else floor_of(Priority.WATCH, state.bucket, SETTINGS.user_share_pct))
        control("forget")
        ask_bucket(resources.engine, resources.keepa)
        with resources.engine.begin() as connection:
            # What the benchmark itself took looks like a foreign spender.
            connection.execute(text("UPDATE token_ledger SET foreign_tokens = 0, unexplained_tokens = 0"))
        before = balance()
        for worker in workers:
            worker.go()
        seconds = minutes * 60 / state.clock_speed
        started = time.monotonic()
        while (left := started + seconds - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
            for number, worker in enumerate(workers):
                if worker.process.poll() is not None:
                    step = worker.last_step
                    assert worker.process.returncode == -signal.SIGKILL, f"worker {number} failed:\n{worker.read_errors()}"
                    kills[step] += 1
                    worker.replace()
        after, calls = final_state()
    finally:
        for worker in workers:
            worker.end()
    lines = [line for worker in workers for line in worker.read_lines()]
    over = [line["waited_minutes"] - line["queue_minutes"] for line in lines if line["step"] == "granted" and line["tokens"] == 50]
    slot_waits = [line["slot_seconds"] for line in lines if line["step"] == "sent" and line["tokens"] == 50]
    stuck = [worker.minutes_stuck(after["now_ms"]) for worker in workers]
    return Window(
        minutes=(after["now_ms"] - before["now_ms"]) / 60_000,
        refill=(1 + int((after["now_ms"] - before["now_ms"] - before["refill_in_ms"]) // 60_000)) * REFILL_PER_MINUTE,
        consumed=calls["tokens_consumed"],
        balance_before=before["tokens_left"],
        balance=after["tokens_left"],
        by_status=calls["by_status"],
        starved=sum(minutes > MARGIN_MINUTES for minutes in (*over, *stuck)) + sum(wait > MARGIN_SLOT_SECONDS for wait in slot_waits),
        waits_over=over or [0.0],
        slot_waits=slot_waits or [0.0],
        kills=kills,
    )


class Worker:
    """One place among the eight, and the process that has it now."""

    def __init__(self, stack: Stack, number: int, *, is_naive: bool, prefect: bool) -> None:
        self._stack = stack
        self._number = number
        self._options = [*(["--naive"] if is_naive else []), *(["--prefect"] if prefect else [])]
        self._is_killed = number in KILLED and not is_naive and not prefect
        self._generation = 0
        self._logs: list[Path] = []
        self._start()

    def _start(self) -> None:
        folder = self._stack.folder
        log = folder / f"worker-{self._number}-{self._generation}.jsonl"
        options = list(self._options)
        if self._is_killed:
            options += ["--die", f"{STEPS[(self._number + self._generation) % len(STEPS)]}:{KILLED[self._number]}"]
        with log.open("wb") as output, log.with_suffix(".err").open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.tokens", "--worker", str(self._number), *options],
                cwd=ROOT,
                env=self._stack.environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
            )
        self._logs.append(log)
        self._generation += 1

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while not self._logs[-1].read_bytes():
            assert self.process.poll() is None and time.monotonic() < deadline, self.read_errors()
            time.sleep(0.05)

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def replace(self) -> None:
        self._start()
        self.go()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def last_step(self) -> str:
        """How far the last request got."""
        return str(_lines(self._logs[-1])[-1]["step"])

    def minutes_stuck(self, now_ms: float) -> float:
        """How much too long a request of 50 has been waiting at the end; 0 where none is."""
        last = _lines(self._logs[-1])[-1]
        if last["step"] != "waiting" or last["tokens"] != 50:
            return 0.0
        return (now_ms - float(last["now_ms"])) / 60_000 - float(last["queue_minutes"])

    def read_lines(self) -> list[dict[str, Any]]:
        return [line for log in self._logs for line in _lines(log)]

    def read_errors(self) -> str:
        return self._logs[-1].with_suffix(".err").read_text()[-3000:]


def _lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_bytes().split(b"\n")[:-1]]


class MortalClient(KeepaClient):
    """A client whose process may die when the answer has come."""

    dies = False

    def fetch_products(self, *arguments: Any, **options: Any) -> ProductAnswer:
        """As the client does."""
        answer = super().fetch_products(*arguments, **options)
        if self.dies:
            note("answered")
            die()
        return answer


def work(number: int, death: str, *, is_naive: bool, has_limits: bool) -> None:
    """One process: ask, and ask again."""
    step, _, after = death.partition(":")
    chance = random.Random(number)
    least, most = DEMAND[number]
    settings = read_settings()
    resources = make_resources(settings)
    client = MortalClient(SIMULATOR_KEY, base_url=resources.keepa.base_url)
    asins = control("products", count=PRODUCTS)["asins"]
    if has_limits:
        # Imported before the clock counts.
        take_slots(1)
    note("ready")
    sys.stdin.readline()
    count = 0
    while True:
        count += 1
        request = PlannedRequest(
            batch_id=uuid4(),
            reservation_id=0,
            marketplace=Marketplace.DE,
            asins=tuple(chance.sample(asins, chance.randint(least, most))),
            buybox=False,
            history_days=2,
            tokens=0,
        )
        if is_naive:
            ask_naively(resources, client, request)
            continue
        dies = step if after and count > int(after) else ""
        ask(resources, client, request, dies, has_limits=has_limits)


def ask(resources: Resources, client: MortalClient, request: PlannedRequest, dies: str, *, has_limits: bool) -> None:
    """Reserve, fetch, settle."""
    with resources.engine.begin() as connection:
        state = read_ledger(connection)
    assert state.bucket is not None
    # What stands before this request at the most, and how long the refill takes to pay for all of it.
    missing = request.size + floor_of(Priority.WATCH, state.bucket, SETTINGS.user_share_pct) - state.bucket.tokens_at(state.now)
    missing += sum(other.tokens for other in state.reservations)
    queue_minutes = max(0, missing) / REFILL_PER_MINUTE + 1
    note("waiting", tokens=request.size, queue_minutes=queue_minutes, now_ms=state.now.timestamp() * 1000)
    if dies == "waiting" and queue_minutes > 2:
        threading.Timer(0.1, die).start()
    started = time.monotonic()
    reservation_id = reserve(
        resources.engine,
        operation="product",
        tokens=request.size,
        priority=Priority.WATCH,
        max_wait_seconds=LONGEST_WAIT_SECONDS,
        settings=SETTINGS_WITH_LIMITS if has_limits else SETTINGS,
    )
    granted = time.monotonic()
    waited_minutes = (granted - started) * state.clock_speed / 60
    note("granted", tokens=request.size, queue_minutes=queue_minutes, waited_minutes=waited_minutes)
    if dies == "granted":
        die()
    client.dies = dies == "answered"
    with take_slots(request.size) if has_limits else nullcontext():
        note("sent", tokens=request.size, slot_seconds=time.monotonic() - granted)
        fetch(resources.engine, client, request, reservation_id=reservation_id)


def take_slots(tokens: int) -> AbstractContextManager[None]:
    """Prefect takes seconds to import, and only one mode needs it."""
    from tasks.limits import slots

    return slots(tokens, wait_seconds=LONGEST_WAIT_SECONDS)


def ask_naively(resources: Resources, client: KeepaClient, request: PlannedRequest) -> None:
    """Ask; after a 429 sleep until the refill and ask again."""
    speed = resources_speed(resources)
    while True:
        try:
            client.fetch_products(request.asins, request.marketplace, stats_days=365, history_days=request.history_days)
            return
        except OutOfTokens as error:
            assert error.tokens is not None
            time.sleep(error.tokens.refill_in_seconds / speed)


def resources_speed(resources: Resources) -> float:
    """Business seconds in a second."""
    with resources.engine.begin() as connection:
        return read_ledger(connection).clock_speed


def lose(stack: Stack, resources: Resources, tokens: int, step: str) -> int:
    """Kill a process that holds a reservation, and count what Keepa has and the ledger does not give until then and afterwards."""
    _await_no_reservations(resources.engine)
    control("tokens", tokens=600)
    ask_bucket(resources.engine, resources.keepa)
    code = (
        "import benchmarks.tokens as b, uuid; from keeper.resources import open_resources; "
        f"r = open_resources().__enter__(); b.lose_here(r, {tokens}, {step!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=stack.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    held = _withheld(resources)
    _await_no_reservations(resources.engine)
    ask_bucket(resources.engine, resources.keepa)
    later = _withheld(resources)
    print(f"killed with {tokens} tokens reserved ({step}): {held} withheld until expiry, {later} afterwards", file=sys.stderr)
    assert held <= tokens and later <= 0
    return held


def lose_here(resources: Resources, tokens: int, step: str) -> None:
    """The process that is killed."""
    client = MortalClient(SIMULATOR_KEY, base_url=resources.keepa.base_url)
    asins = tuple(control("products", count=tokens)["asins"])
    request = PlannedRequest(
        batch_id=uuid4(), reservation_id=0, marketplace=Marketplace.DE, asins=asins, buybox=False, history_days=2, tokens=tokens
    )
    ask(resources, client, request, step, has_limits=False)


def _withheld(resources: Resources) -> int:
    """Tokens Keepa has and the ledger would not give to a person's own check."""
    while True:
        before = balance()
        with resources.engine.begin() as connection:
            state = read_ledger(connection)
        after = balance()
        if before["tokens_left"] == after["tokens_left"]:
            # No step of the refill came in between.
            assert state.bucket is not None
            return int(after["tokens_left"]) - spendable(state.bucket, state.reservations, Priority.USER, 0, state.now)


def _await_no_reservations(engine: Engine) -> None:
    while True:
        with engine.begin() as connection:
            alive = connection.execute(text("SELECT count(*) FROM token_reservations WHERE expires_at > clock_timestamp()")).scalar_one()
        if not alive:
            return
        time.sleep(0.1)


def note(step: str, **facts: float) -> None:
    """One line on standard output that a SIGKILL cannot take back."""
    os.write(1, json.dumps({"step": step, **facts}).encode() + b"\n")


def die() -> None:
    """SIGKILL, as from outside."""
    os.kill(os.getpid(), signal.SIGKILL)


def control(name: str, **wish: float) -> dict[str, Any]:
    """The simulator's control endpoints."""
    url = f"{os.environ['KEEPER_KEEPA_SIMULATOR_URL']}/_simulator/{name}"
    is_question = name in ("state", "requests", "products")
    answer = httpx.get(url, params=wish, timeout=10) if is_question else httpx.post(url, json=wish, timeout=10)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def balance() -> dict[str, Any]:
    """The one key's bucket, and the simulated time."""
    state = control("state")
    (bucket,) = state["keys"].values()
    return {**bucket, "now_ms": state["now_ms"]}


def final_state() -> tuple[dict[str, Any], dict[str, Any]]:
    """The bucket and the log of calls at one moment: nothing ran and nothing came in between."""
    while True:
        before, calls, after = balance(), control("requests", last=0), balance()
        if before["tokens_left"] == after["tokens_left"]:
            return after, calls


def describe(name: str, done: Window) -> None:
    """A line for people."""
    print(
        f"{name}: {done.minutes:.0f} simulated minutes, refill {done.refill}, consumed {done.consumed} ({done.used_pct:.2f} %), "
        f"balance {done.balance_before} before and {done.balance} after; answers {done.by_status}; killed {dict(done.kills)}",
        file=sys.stderr,
    )


def _requests(done: Window) -> int:
    return done.by_status.get("200", 0)


if __name__ == "__main__":
    main()
