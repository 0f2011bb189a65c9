"""The verb behind `keeper check` without names: round by round, and ended halfway."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from keeper.check import check_due
from keeper.domain.marketplace import Marketplace
from keeper.domain.watch import Watch
from keeper.keepa.client import KeepaClient
from keeper.postgres.installation import select_now
from keeper.postgres.users import insert_user
from keeper.postgres.watches import insert_watches
from keeper.simulator.server import Simulator
from keeper.tokens import TokenSettings, ask_bucket


@pytest.fixture
def client(engine: Engine, simulator: Simulator) -> Iterator[KeepaClient]:
    """A client with ten watches due."""
    opened = KeepaClient(simulator.key, base_url=simulator.url)
    ask_bucket(engine, opened, sinks=())
    with engine.begin() as connection:
        user_id, now = insert_user(connection, "anna"), select_now(connection)
        wanted = [Watch(asin, Marketplace.DE) for asin in simulator.keepa.catalog.asins(0, 10)]
        insert_watches(connection, user_id, wanted, now=now)
    yield opened
    opened.close()


def test_requests_are_told_as_they_are_planned_and_done(engine: Engine, client: KeepaClient) -> None:
    planned: list[int] = []
    through: list[int] = []
    check_due(
        engine,
        client,
        sinks=(),
        settings=TokenSettings(),
        batch_size=4,
        requests_at_once=2,
        on_planned=planned.append,
        on_checked=through.append,
    )
    assert (planned, sorted(through)) == ([10], [2, 4, 4])


def test_ended_halfway_nothing_stays_claimed_or_reserved(engine: Engine, client: KeepaClient) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_due(engine, client, sinks=(), settings=TokenSettings(), batch_size=1, requests_at_once=1, on_checked=interrupt)
    with engine.begin() as connection:
        left = connection.execute(text("SELECT (SELECT count(*) FROM check_claims), (SELECT count(*) FROM token_reservations)")).one()
    assert tuple(left) == (0, 0)
