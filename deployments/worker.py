"""One process that serves several process pools: `python -m deployments.worker keeper-process keeper-heavy`.

The same as `prefect worker start` for each, at the memory of one: most of a worker's is the program.
"""

import argparse
import asyncio
import os

from prefect.utilities.processutils import setup_signal_handlers_worker
from prefect.workers.process import ProcessWorker


async def serve(pools: list[str], *, name: str, limit: int) -> None:
    """Start what the pools' queues hold, until somebody ends it; what runs then is ended, too.

    Args:
        limit: runs at a time, of each pool.
    """
    workers = [ProcessWorker(work_pool_name=pool, name=f"{name}-{pool}", limit=limit, create_pool_if_not_found=False) for pool in pools]
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.start(printer=_say))


def _say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m deployments.worker", description=__doc__)
    parser.add_argument("pools", nargs="+", metavar="pool")
    parser.add_argument("--name", default=f"keeper-{os.getpid()}")
    parser.add_argument("--limit", type=int, default=4, help="runs at a time, of each pool")
    arguments = parser.parse_args()
    setup_signal_handlers_worker(os.getpid(), "the worker", _say)
    try:
        asyncio.run(serve(arguments.pools, name=arguments.name, limit=arguments.limit))
    except KeyboardInterrupt:
        _say("the worker has ended")


if __name__ == "__main__":
    main()
