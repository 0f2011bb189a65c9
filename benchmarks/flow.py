"""What Prefect costs: a run of 1,000 watches under a real Prefect server against the bare verbs, and the CPU of an empty tick.

Each run is a process of its own, as under a process worker: the flow `price-watch`, or the same plan, fetch, record in as many threads
without Prefect (what `keeper check` does). They take turns; before each the simulated clock jumps six hours, so that all watches are due
and prices have moved. Bucket and limits are large enough that nobody waits for tokens. A first check, which fills a year of history, is
not counted. Where Prefect's share goes is told by two more kinds of run: without the global limits, and with nothing due.

The empty tick is the deployment `price-watch/tick` in a process worker with nothing due: user and system time of its process.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from benchmarks.figures import database, say
from deployments.stack import Stack, free_port, start_prefect, start_simulator, start_worker
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.watch import Watch
from keeper.postgres.watches import insert_watches
from keeper.resources import Resources, jump_clock, open_resources

ROOT = Path(__file__).parents[1]
WATCHES = 1000
# Tokens for several runs at once: nobody waits.
REFILL_PER_MINUTE = 1000
ROUNDS = 5
EMPTY_TICKS = 3
INTERVAL_SECONDS = 6 * 3600
TICK = "price-watch/tick"
KINDS = ("bare", "prefect", "prefect without limits", "prefect, nothing due")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--imports", action="store_true", help="also show which modules of the flow's process take longest to import")
    parser.add_argument("--run", choices=["bare", "prefect"], help="(for itself) one run in this process")
    parser.add_argument("--born-at", type=float, default=0.0, help="(for itself) Unix seconds of this process's birth")
    arguments = parser.parse_args()
    if arguments.run:
        run_here(arguments.run, arguments.born_at)
        return
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    with database() as engine, tempfile.TemporaryDirectory(prefix="keeper-bench-") as folder:
        stack = Stack(Path(folder), {"KEEPER_DATABASE_URL": engine.url.render_as_string(hide_password=False)})
        stack.environment.pop("KEEPER_KEEPA_API_KEY", None)
        try:
            simulator = start_simulator(stack, "--rate", str(REFILL_PER_MINUTE), "--products", str(WATCHES), "--seed", "3")
            stack.environment["KEEPER_KEEPA_SIMULATOR_URL"] = simulator
            os.environ |= {name: value for name, value in stack.environment.items() if name.startswith("KEEPER_")}
            start_prefect(stack, free_port())
            with open_resources() as resources:
                stack.run("deployments.bootstrap")
                watch(resources, simulator)
                run(stack, "bare")
                run(stack, "prefect, nothing due")
                for _ in range(arguments.rounds):
                    for kind in KINDS:
                        if "nothing" not in kind:
                            jump_clock(resources.engine, simulator, seconds=INTERVAL_SECONDS + 60)
                        runs[kind].append(run(stack, kind))
                        print(f"{kind}: {runs[kind][-1]}", file=sys.stderr)
                ticks = empty_ticks(stack)
        finally:
            stack.stop()
    if arguments.imports:
        show_imports(stack.environment)
    show(runs)
    shares = [100 * (theirs["wall"] - own["wall"]) / theirs["wall"] for own, theirs in zip(runs["bare"], runs["prefect"], strict=True)]
    inner = [100 * (theirs["work"] - own["work"]) / theirs["work"] for own, theirs in zip(runs["bare"], runs["prefect"], strict=True)]
    say(
        "flow",
        [
            ("prefect_share_pct", median(shares), "%", ""),
            ("prefect_share_without_start_pct", median(inner), "%", ""),
            ("run_seconds", median(one["wall"] for one in runs["prefect"]), "s", ""),
            ("bare_run_seconds", median(one["wall"] for one in runs["bare"]), "s", ""),
            ("run_cpu_seconds", median(one["cpu"] for one in runs["prefect"]), "s", ""),
            ("bare_run_cpu_seconds", median(one["cpu"] for one in runs["bare"]), "s", ""),
            ("empty_tick_cpu_seconds", median(ticks), "s", "<= 6"),
        ],
    )


def watch(resources: Resources, simulator: str) -> None:
    """A user who watches every product of the simulator in one marketplace, at targets never reached."""
    answer = httpx.get(f"{simulator}/_simulator/products", params={"count": WATCHES}, timeout=10)
    watches = [Watch(asin, Marketplace.DE, target=Money(1, "EUR")) for asin in answer.json()["asins"]]
    with resources.engine.begin() as connection:
        user_id = connection.execute(text("INSERT INTO users (name) VALUES ('bench') RETURNING id")).scalar_one()
        insert_watches(connection, user_id, watches, now=resources.now())


def run(stack: Stack, kind: str) -> dict[str, float]:
    """One run in a process of its own: seconds of its whole life, until it has imported everything, of the work, and its CPU seconds."""
    environment = {**stack.environment, "KEEPER_PREFECT_LIMITS": "false" if "without limits" in kind else "true"}
    born_at, started = time.time(), time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.flow", "--run", "bare" if kind == "bare" else "prefect", "--born-at", str(born_at)],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    assert told["asked"] == (0 if "nothing" in kind else WATCHES), (kind, told, done.stderr[-3000:])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": round(wall, 2), "cpu": round(cpu, 2), "start": told["start"], "work": told["work"]}


def run_here(kind: str, born_at: float) -> None:
    """One run in this process; the imports are part of it, so they are in here."""
    if kind == "bare":
        from keeper.check import check_due
        from keeper.resources import make_resources
        from keeper.settings import read_settings

        start, imported = time.time() - born_at, time.perf_counter()
        settings = read_settings()
        resources = make_resources(settings)
        done = check_due(
            resources.engine,
            resources.keepa,
            settings=resources.token_settings,
            batch_size=settings.keepa.batch_size,
            requests_at_once=settings.keepa.requests_at_once,
        )
        # Some products of the catalog can have no price: they are failures of their own.
        asked = done.checked + len(done.failures)
    else:
        from flows.price_watch import price_watch

        start, imported = time.time() - born_at, time.perf_counter()
        state: Any = price_watch(return_state=True)
        assert state.is_completed(), state
        words = str(state.message).split()
        asked = int(words[1].rstrip(",;")) + int(words[3].rstrip(",;"))
    told = {"asked": asked, "start": round(start, 2), "work": round(time.perf_counter() - imported, 2)}
    print(json.dumps(told), flush=True)


def show(runs: Mapping[str, list[dict[str, float]]]) -> None:
    """Where the time goes, by differences of medians."""
    middle = {kind: {name: median(one[name] for one in ones) for name in ones[0]} for kind, ones in runs.items()}
    bare, full, free, empty = (middle[kind] for kind in KINDS)
    rows = {
        "the work itself: plan, fetch, record": bare["work"],
        "start: interpreter, our imports and their libraries": bare["start"],
        "start: imports of Prefect": full["start"] - bare["start"],
        "Prefect's engine: a run with nothing due": empty["work"],
        "Prefect's task runs: plan, fetch, record, artifact": free["work"] - empty["work"] - bare["work"],
        "Prefect's global limits: slots for ten requests": full["work"] - free["work"],
        "end of the process": full["wall"] - full["start"] - full["work"],
    }
    table = Table(title="A run of 1,000 watches under Prefect, medians")
    for heading in ("part", "seconds", "share %"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for part, seconds in rows.items():
        table.add_row(part, f"{seconds:.2f}", f"{100 * seconds / full['wall']:.0f}")
    table.add_row("all", f"{full['wall']:.2f}", "100")
    Console(file=sys.stderr).print(table)


def empty_ticks(stack: Stack) -> list[float]:
    """CPU seconds of ticks with nothing due, each in a process of the worker."""
    stack.run("prefect", "--no-prompt", "deploy", "-n", TICK.partition("/")[2])
    stack.run("prefect", "deployment", "schedule", "clear", TICK, "--accept-yes")
    start_worker(stack, "keeper-process")
    (worker,) = (one for one in stack.processes() if one.name == "worker")
    seconds = []
    for _ in range(EMPTY_TICKS):
        before = _cpu_of_children(worker.pid)
        stack.run("prefect", "deployment", "run", TICK, "--watch", "--watch-interval", "1", timeout_seconds=180)
        deadline = time.monotonic() + 60
        while (spent := _cpu_of_children(worker.pid) - before) == 0:
            assert time.monotonic() < deadline, "the worker has not reaped its run"
            time.sleep(0.2)
        seconds.append(spent)
        print(f"empty tick: {spent:.2f} s of CPU", file=sys.stderr)
    return seconds


def _cpu_of_children(pid: int) -> float:
    """User and system time of the ended children of a process (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def show_imports(environment: Mapping[str, str]) -> None:
    """Cumulative import times of the flow's module, the longest first."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import flows.price_watch"],
        cwd=ROOT,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = []
    for line in done.stderr.splitlines():
        own, cumulative, name = line.removeprefix("import time:").split("|") if line.count("|") == 2 else ("", "", "")
        if cumulative.strip().isdigit():
            found.append((int(cumulative), int(own), name.strip()))
    for cumulative_us, own_us, name in sorted(found, reverse=True)[:40]:
        print(f"{cumulative_us / 1000:8.0f} ms  own {own_us / 1000:6.0f} ms  {name}", file=sys.stderr)


if __name__ == "__main__":
    main()
