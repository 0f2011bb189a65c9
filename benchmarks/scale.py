"""What more processes bring, and what a row takes: the figures `docs/scale.md` computes with. `python -m benchmarks.scale`.

One, two and three processes on this machine that record, relay and enrich, and as many Prefect workers; each against one of its kind in the
same run. More than one process cannot do more than the cores allow: `cores` says how many there are. The processes are started before
the clock is; a relay delivers to a sink that acknowledges at once; the runs of the workers have nothing due, which is Prefect's own cost.

`bytes_...` are of a row with its indexes, after some rounds of checks.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from sqlalchemy import Engine, text

from benchmarks.figures import database, say
from benchmarks.record import WATCHED
from benchmarks.triple_write import (
    LONGEST_SECONDS,
    SPAWN,
    Figures,
    NullSink,
    asins_of,
    fill,
    fill_events,
    measure_enrich,
    queue_backlog,
    record_all,
    seen,
    services,
    tell,
)
from deployments.stack import Stack, free_port, start_prefect, start_simulator
from keeper.domain.events import EventKind, Sink
from keeper.postgres.engine import open_engine
from keeper.relay import RelaySettings, relay
from keeper.sinks import switch_on

PROCESSES = (1, 2, 3)
PRODUCTS = 12_000
BACKLOG = 300_000
RUNS = 8
ROUNDS = 3
PARTS = ("record", "relay", "consumers", "workers")
TABLES = (
    "products", "product_texts", "watched_products", "planned_checks", "current_prices", "price_history", "events", "outbox"
)  # fmt: skip


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    parts = (arguments.only,) if arguments.only else PARTS
    figures: Figures = [("cores", float(os.cpu_count() or 1), "", "")]
    if "record" in parts:
        figures += measure_recording(arguments.rounds)
    if "relay" in parts:
        figures += measure_relays(arguments.rounds)
    if "consumers" in parts:
        with services() as systems:
            figures += measure_enrich(systems, arguments.rounds, profile=False, members=PROCESSES)
    if "workers" in parts:
        figures += measure_workers()
    say("scale", figures)


def measure_recording(rounds: int) -> Figures:
    """Observations a second, all of them changes that two sinks hear of; then what the rows take."""
    asins = asins_of(PRODUCTS)
    at = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(days=1)
    rates: dict[int, list[float]] = {count: [] for count in PROCESSES}
    with database(pool_size=2) as engine:
        fill(engine, asins, at)
        for sink in (Sink.KAFKA, Sink.SEARCH):
            switch_on(engine, sink.value, [EventKind.PRICE_UPDATE], from_oldest=False)
        round_number = 0
        for _ in range(rounds):
            for count in PROCESSES:
                round_number += 1
                at += timedelta(minutes=10)
                work = [(_url(engine), asins[number::count], at, round_number) for number in range(count)]
                seconds = side_by_side(_record, work)
                rates[count].append(PRODUCTS * len(WATCHED) / seconds)
                tell(f"{count} recording: {rates[count][-1]:,.0f} observations/s")
        sizes = bytes_of_rows(engine)
    return [*_shares("recorded_observations_per_second", rates), *sizes]


def _record(url: str, asins: Sequence[str], at: datetime, round_number: int, ready: Any, go: Any) -> None:
    engine = open_engine(url)
    products = seen(asins, at, round_number)
    ready.set()
    go.wait()
    record_all(engine, products, at)
    engine.dispose()


def bytes_of_rows(engine: Engine) -> Figures:
    """Tables and their indexes, partitions included, by their rows."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
        figures: Figures = []
        for table in TABLES:
            size, rows = connection.execute(
                text(
                    f"SELECT coalesce((SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('{table}')), "
                    f"pg_total_relation_size('{table}')), (SELECT count(*) FROM {table})"
                )
            ).one()
            if rows:
                figures.append((f"bytes_{table}", float(size) / rows, "bytes", ""))
    return figures


def measure_relays(rounds: int) -> Figures:
    """Rows of a backlog a second."""
    rates: dict[int, list[float]] = {count: [] for count in PROCESSES}
    with database(pool_size=2) as engine:
        fill_events(engine, BACKLOG)
        for _ in range(rounds):
            for count in PROCESSES:
                queue_backlog(engine, BACKLOG)
                rates[count].append(BACKLOG / side_by_side(_relay, [(_url(engine),)] * count))
                tell(f"{count} relaying: {rates[count][-1]:,.0f} rows/s")
                with engine.connect() as connection:
                    assert connection.execute(text("SELECT count(*) FROM outbox")).scalar_one() == 0
    return _shares("relayed_rows_per_second", rates)


def _relay(url: str, ready: Any, go: Any) -> None:
    engine = open_engine(url, pool_size=8)
    ready.set()
    go.wait()
    relay(engine, NullSink(), settings=RelaySettings(), longest_seconds=LONGEST_SECONDS)
    engine.dispose()


def side_by_side(target: Callable[..., None], work: Sequence[tuple[Any, ...]]) -> float:
    """Seconds from when all have started until the last has ended."""
    go, started = SPAWN.Event(), [SPAWN.Event() for _ in work]
    processes = [SPAWN.Process(target=target, args=(*given, ready, go)) for given, ready in zip(work, started, strict=True)]
    for process in processes:
        process.start()
    for ready in started:
        assert ready.wait(120)
    begun = time.perf_counter()
    go.set()
    for process in processes:
        process.join(LONGEST_SECONDS)
        assert process.exitcode == 0
    return time.perf_counter() - begun


def measure_workers() -> Figures:
    """Runs a minute, with nothing due, of as many process workers of two runs each."""
    figures: dict[int, list[float]] = {}
    with database() as engine, tempfile.TemporaryDirectory(prefix="keeper-bench-") as folder, ExitStack() as closing:
        stack = Stack(Path(folder), {"KEEPER_DATABASE_URL": _url(engine)})
        stack.environment.pop("KEEPER_KEEPA_API_KEY", None)
        closing.callback(stack.stop)
        stack.environment["KEEPER_KEEPA_SIMULATOR_URL"] = start_simulator(stack, "--products", "10", "--seed", "3")
        os.environ |= {name: value for name, value in stack.environment.items() if name.startswith("KEEPER_")}
        start_prefect(stack, free_port())
        closing.enter_context(temporary_settings({PREFECT_API_URL: stack.environment["PREFECT_API_URL"]}))
        stack.run("deployments.bootstrap")
        # Of one deployment no second run begins beside another.
        deployments = [_make_deployment(number) for number in range(RUNS)]
        for count in PROCESSES:
            _start_worker(stack, f"worker{count}")
            if count == 1:
                run_all(deployments[:2])
            seconds = run_all(deployments)
            figures[count] = [RUNS / seconds * 60]
            tell(f"{count} workers: {figures[count][0]:.1f} runs a minute")
    return _shares("runs_per_minute", figures)


def _start_worker(stack: Stack, name: str) -> None:
    log = stack.run_folder / f"{name}.log"
    stack.start(
        name,
        *("prefect", "worker", "start", "--pool", "keeper-process", "--type", "process", "--limit", "2", "--name", name),
        is_ready=lambda: log.exists() and b"started!" in log.read_bytes(),
    )


def _make_deployment(number: int) -> UUID:
    from flows.price_watch import price_watch

    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(price_watch)
        return client.create_deployment(
            flow_id, f"scale-{number}", work_pool_name="keeper-process", entrypoint="flows.price_watch.price_watch"
        )


def run_all(deployments: Sequence[UUID]) -> float:
    """Seconds until a run of each is through."""
    begun = time.perf_counter()
    with get_client(sync_client=True) as client:
        waiting = [client.create_flow_run_from_deployment(one).id for one in deployments]
        while waiting:
            assert time.perf_counter() - begun < LONGEST_SECONDS
            time.sleep(0.5)
            states = {one: client.read_flow_run(one).state for one in waiting}
            ended = [one for one, state in states.items() if state is not None and state.is_final()]
            assert all((state := states[one]) is not None and state.is_completed() for one in ended), states
            waiting = [one for one in waiting if one not in ended]
    return time.perf_counter() - begun


def _shares(name: str, rates: dict[int, list[float]]) -> Figures:
    alone = rates[PROCESSES[0]]
    figures: Figures = [(f"{name}_{count}", median(found), "", "") for count, found in rates.items()]
    for count in PROCESSES[1:]:
        figures.append((f"{name}_{count}_by_1", median(many / one for many, one in zip(rates[count], alone, strict=True)), "x", ""))
    return figures


def _url(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


if __name__ == "__main__":
    main()
