"""A relay to be killed: `python -m tests.chaos.relay_process DATABASE CHANNEL_KEY`. It relays until nothing waits, then ends with 0."""

import sys

from sqlalchemy import text

from keeper.notify.channels import ChannelCipher
from keeper.notify.sender import ChannelSender
from keeper.postgres.engine import open_engine
from keeper.relay import AlertSink, RelaySettings, relay
from tests.services.waiting import wait_until


def main(database: str, key: str) -> None:
    """Relay until the outbox is empty."""
    engine = open_engine(database)
    sink = AlertSink(engine, ChannelSender(connect_timeout_seconds=2, read_timeout_seconds=5), ChannelCipher([key]))
    settings = RelaySettings(most_tries=1000, first_wait_seconds=0.05, longest_wait_seconds=0.05)

    def is_through() -> bool:
        relay(engine, sink, settings=settings, longest_seconds=60)
        with engine.begin() as connection:
            return not connection.execute(text("SELECT EXISTS (SELECT 1 FROM outbox)")).scalar_one()

    print("ready", flush=True)
    wait_until(is_through, "the outbox does not empty", longest_seconds=120)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
