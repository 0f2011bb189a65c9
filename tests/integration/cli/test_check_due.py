"""The verb behind `keeper check` without names: round by round, and ended halfway."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from keeper.check import Checked, check_due, check_products
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
    ask_bucket(engine, opened)
    with engine.begin() as connection:
        user_id, now = insert_user(connection, "anna"), select_now(connection)
        wanted = [Watch(asin, Marketplace.DE) for asin in simulator.keepa.catalog.asins(0, 10)]
        insert_watches(connection, user_id, wanted, now=now)
    yield opened
    opened.close()


def run_due(engine: Engine, client: KeepaClient, *, batch_size: int, on_planned: Callable[[int], None]) -> Checked:
    return check_due(engine, client, settings=TokenSettings(), batch_size=batch_size, requests_at_once=2, on_planned=on_planned)


def left_behind(engine: Engine) -> tuple[int, int]:
    """How many claims and reservations there are."""
    with engine.begin() as connection:
        claims, reservations = connection.execute(
            text("SELECT (SELECT count(*) FROM check_claims), (SELECT count(*) FROM token_reservations)")
        ).one()
    return claims, reservations


def test_a_round_takes_a_part_of_the_budget_only(engine: Engine, client: KeepaClient) -> None:
    planned: list[int] = []
    done = run_due(engine, client, batch_size=1, on_planned=planned.append)
    assert (planned, done.checked) == ([4, 4, 2], 10)


def test_a_failed_request_ends_no_later_round(engine: Engine, client: KeepaClient, simulator: Simulator) -> None:
    httpx.post(f"{simulator.url}/_simulator/faults", json={"kind": "500", "next": 1, "path": "/product"}).raise_for_status()
    done = run_due(engine, client, batch_size=1, on_planned=lambda _: None)
    assert (done.checked, len(done.failures)) == (9, 1)


def test_what_somebody_else_checks_by_now_is_not_paid_twice(engine: Engine, client: KeepaClient) -> None:
    """The claims run out while the request waits for its turn, and another run takes a product."""
    stolen: list[str] = []

    def steal(_: int) -> None:
        if not stolen:
            with engine.begin() as connection:
                stolen.append(connection.execute(text("SELECT min(asin) FROM check_claims")).scalar_one())
                connection.execute(text("UPDATE check_claims SET batch_id = gen_random_uuid() WHERE asin = :asin"), {"asin": stolen[0]})

    done = run_due(engine, client, batch_size=10, on_planned=steal)
    assert (done.checked, done.tokens) == (9, 9)
    assert done.failures[f"{stolen[0]} DE"] == "somebody else began to check it while it waited"
    assert left_behind(engine) == (1, 0)


def test_a_claim_counts_anew_when_its_request_is_sent(engine: Engine, client: KeepaClient, monkeypatch: pytest.MonkeyPatch) -> None:
    leases: list[float] = []
    fetch = KeepaClient.fetch_products

    def look(self: KeepaClient, *arguments: Any, **options: Any) -> Any:
        with engine.begin() as connection:
            query = "SELECT min(extract(epoch FROM expires_at - clock_timestamp()))::float8 FROM check_claims"
            leases.append(connection.execute(text(query)).scalar_one())
        return fetch(self, *arguments, **options)

    def age(_: int) -> None:
        with engine.begin() as connection:
            connection.execute(text("UPDATE check_claims SET expires_at = clock_timestamp() + interval '1 second'"))

    monkeypatch.setattr(KeepaClient, "fetch_products", look)
    run_due(engine, client, batch_size=10, on_planned=age)
    assert leases == [pytest.approx(TokenSettings().lease_seconds, abs=20)]


@pytest.mark.parametrize("where", ["plan_products", "fetch", "record_answer"])
def test_a_named_check_ended_halfway_leaves_nothing_claimed_or_reserved(
    engine: Engine, client: KeepaClient, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"keeper.check.{where}", interrupt)
    (asin,) = simulator.keepa.catalog.asins(0, 1)
    with pytest.raises(KeyboardInterrupt):
        check_products(engine, client, [asin], Marketplace.DE, buybox=False, settings=TokenSettings(), max_wait_seconds=0)
    assert left_behind(engine) == (0, 0)


def test_requests_are_told_as_they_are_planned_and_done(engine: Engine, client: KeepaClient) -> None:
    planned: list[int] = []
    through: list[int] = []
    check_due(
        engine,
        client,
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
        check_due(engine, client, settings=TokenSettings(), batch_size=1, requests_at_once=1, on_checked=interrupt)
    assert left_behind(engine) == (0, 0)
