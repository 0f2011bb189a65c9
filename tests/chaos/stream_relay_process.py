"""A relay to be killed: `python -m tests.chaos.stream_relay_process PLACES`. It relays until nothing waits, then ends with 0."""

import sys
import threading

from sqlalchemy import text

from keeper.postgres.engine import open_engine
from keeper.relay import Relayed
from tests.chaos.streams import Places, open_sinks, run_relay


def main(places: Places) -> None:
    """Relay until the outbox is empty."""
    engine = open_engine(places.database)
    stop = threading.Event()

    def look(_sink: str, _done: Relayed) -> None:
        with engine.begin() as connection:
            if not connection.execute(text("SELECT EXISTS (SELECT 1 FROM outbox)")).scalar_one():
                stop.set()

    with open_sinks(engine, places) as sinks:
        print("ready", flush=True)
        run_relay(engine, sinks, stop, look)
    engine.dispose()


if __name__ == "__main__":
    main(Places.of_word(sys.argv[1]))
