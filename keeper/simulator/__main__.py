"""Runs the simulator as a process of its own: `python -m keeper.simulator`."""

import argparse
import signal
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from keeper.simulator.catalog import DEFAULT_ODDITIES, DEFAULT_SEEDS, Oddities
from keeper.simulator.costs import ENDPOINTS
from keeper.simulator.listings import LISTED
from keeper.simulator.server import serve


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until SIGTERM or SIGINT; the first line on standard output is one JSON object with the URL."""
    parser = argparse.ArgumentParser(
        prog="python -m keeper.simulator", description=f"A Keepa that runs on this machine: {', '.join(ENDPOINTS)}."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--speed", type=float, default=1.0, help="simulated seconds per second, 1 to 10000")
    parser.add_argument("--products", type=int, default=47, help="size of the catalog, up to 100000")
    parser.add_argument("--seed", type=int, default=1, help="one seed, one world")
    parser.add_argument("--rate", type=int, default=20, help="tokens per simulated minute")
    parser.add_argument("--tokens", type=int, help="balance to start with (default: full)")
    parser.add_argument("--start-at", type=_moment, help="simulated time to start at, ISO 8601 or Unix seconds (default: now)")
    parser.add_argument("--key", help="the only key accepted (default: any of 64 characters)")
    parser.add_argument("--seeds", type=Path, default=DEFAULT_SEEDS, help="folder of keyboards.csv")
    parser.add_argument("--listed", type=int, default=LISTED, help="products that deals, best sellers, finder and search know")
    parser.add_argument(
        "--glitches",
        type=float,
        default=DEFAULT_ODDITIES.glitches,
        help="share of generated products whose price falls by 90 %% for minutes",
    )
    parser.add_argument(
        "--fictions", type=float, default=DEFAULT_ODDITIES.fictions, help="share with a list price they were never sold near"
    )
    parser.add_argument("--traps", type=float, default=DEFAULT_ODDITIES.traps, help="share that are no keyboards but look like some")
    options = parser.parse_args(arguments)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    serve(
        options.host,
        options.port,
        speed=options.speed,
        products=options.products,
        seed=options.seed,
        refill_per_minute=options.rate,
        start_at=options.start_at,
        tokens=options.tokens,
        key=options.key,
        seeds=options.seeds,
        listed=options.listed,
        oddities=Oddities(options.glitches, options.fictions, options.traps),
        until=ended,
    )


def _moment(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


if __name__ == "__main__":
    main()
