"""How a benchmark says its figures: a table for people on standard error, one JSON line per figure on standard output."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from keeper.postgres.embedded import temporary_server
from keeper.postgres.engine import open_engine
from keeper.postgres.migrate import migrate


def say(benchmark: str, rows: list[tuple[str, float, str, str]]) -> None:
    """Print (figure, value, unit, goal) rows."""
    table = Table(title=benchmark)
    for heading in ("figure", "value", "unit", "goal"):
        table.add_column(heading, justify="right" if heading == "value" else "left")
    for figure, value, unit, goal in rows:
        table.add_row(figure, f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}", unit, goal)
    Console(file=sys.stderr).print(table)
    for figure, value, unit, goal in rows:
        print(json.dumps({"benchmark": benchmark, "figure": figure, "value": round(value, 4), "unit": unit, "goal": goal}), flush=True)


@contextmanager
def database(*, pool_size: int = 8) -> Iterator[Engine]:
    """A migrated database of its own: on an embedded server with data on disk, or the empty one at KEEPER_BENCH_DATABASE_URL."""
    url = os.environ.get("KEEPER_BENCH_DATABASE_URL")
    if url:
        engine = open_engine(url, statement_timeout_seconds=600, pool_size=pool_size)
        migrate(engine, now=datetime.now(UTC))
        try:
            yield engine
        finally:
            engine.dispose()
            migrate(engine, now=datetime.now(UTC), target="base")
            engine.dispose()
        return
    with temporary_server(fsync=True) as server:
        server.create_database("bench")
        engine = open_engine(server.dsn("bench"), statement_timeout_seconds=600, pool_size=pool_size)
        migrate(engine, now=datetime.now(UTC))
        try:
            yield engine
        finally:
            engine.dispose()
