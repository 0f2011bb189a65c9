"""A consumer to be killed: `python -m tests.chaos.consume_process prices|deals|enrich PLACES`. A line per batch; SIGTERM ends it."""

import signal
import sys
import threading

from tests.chaos.consumers import run_consumer
from tests.chaos.streams import Places

BATCH_SIZE = 40
# The group soon gives away what a killed member had.
LONGEST_PAUSE_SECONDS = 3.0


def main(name: str, places: Places) -> None:
    """Consume until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    print("ready", flush=True)
    run_consumer(
        name,
        places,
        stop=stop,
        batch_size=BATCH_SIZE,
        longest_pause_seconds=LONGEST_PAUSE_SECONDS,
        on_work=lambda: print("batch", flush=True),
    )


if __name__ == "__main__":
    main(sys.argv[1], Places.of_word(sys.argv[2]))
