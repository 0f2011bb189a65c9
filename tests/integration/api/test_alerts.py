"""Alerts with what each channel answered; everybody sees their own."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from keeper.accounts import add_channel
from keeper.domain.marketplace import Marketplace
from keeper.postgres.alerts import mark_delivered, mark_failed
from tests.integration.api.conftest import Person
from tests.integration.makers import ASIN, CIPHER, NOW, add_watch, ago, product, rows, run_record

ALERTS = "/api/v1/alerts"
OTHER = "B00OCMRV40"
START = [(ago(days=2), 6000)]


def alert(engine: Engine, person: Person, *, asin: str = ASIN, marketplace: Marketplace = Marketplace.DE) -> int:
    """An alert of a new watch of theirs. Returns the watch's id."""
    watch_id = add_watch(engine, person.user_id, 5000, asin=asin, marketplace=marketplace)
    run_record(engine, product(START, asin=asin, marketplace=marketplace, at=ago(days=1)))
    run_record(engine, product([*START, (ago(hours=2), 4990)], asin=asin, marketplace=marketplace))
    return watch_id


def channel(engine: Engine, person: Person, name: str) -> None:
    with engine.begin() as connection:
        url = f"mailto://localhost/{name}@example.org"
        add_channel(connection, CIPHER, person.user_id, name=name, url=url, schemes=("mailto",))


def test_an_alert_tells_what_happened(anna: Person, engine: Engine) -> None:
    watch_id = alert(engine, anna)

    [told] = anna.get(ALERTS)["alerts"]

    assert {name: told[name] for name in ("watch_id", "asin", "marketplace", "price_type", "title", "currency", "deliveries")} == {
        "watch_id": watch_id,
        "asin": ASIN,
        "marketplace": "DE",
        "price_type": "NEW",
        "title": "Tastatur",
        "currency": "EUR",
        "deliveries": [],
    }
    assert [told[name] for name in ("price", "price_minor", "previous_price", "previous_price_minor")] == [49.9, 4990, 60, 6000]
    assert [told[name] for name in ("target", "target_minor", "lowest_in_year", "lowest_in_year_minor")] == [50, 5000, 49.9, 4990]
    assert (told["observed_at"], told["created_at"]) == (f"{ago(hours=2):%Y-%m-%dT%H:%M:%SZ}", f"{NOW:%Y-%m-%dT%H:%M:%SZ}")


def test_an_alert_has_the_receipt_of_each_channel(anna: Person, engine: Engine) -> None:
    for name in ("mail", "phone", "chat"):
        channel(engine, anna, name)
    alert(engine, anna)
    mail, phone, _ = rows(engine, "SELECT id FROM deliveries ORDER BY id")
    with engine.begin() as connection:
        mark_failed(connection, mail, failure="451 try again later", is_dead=False)
        mark_delivered(connection, mail, receipt="250 queued as 4711")
        mark_failed(connection, phone, failure="404 no such topic", is_dead=True)

    [told] = anna.get(ALERTS)["alerts"]

    by_channel = {delivery.pop("channel"): delivery for delivery in told["deliveries"]}
    assert by_channel["mail"].pop("delivered_at").endswith("Z")
    assert by_channel["mail"] == {"status": "delivered", "tries": 2, "receipt": "250 queued as 4711", "last_failure": None}
    assert by_channel["phone"] == {
        "status": "dead",
        "tries": 1,
        "delivered_at": None,
        "receipt": None,
        "last_failure": "404 no such topic",
    }
    assert by_channel["chat"] == {"status": "pending", "tries": 0, "delivered_at": None, "receipt": None, "last_failure": None}


def test_everybody_sees_their_own_alerts(anna: Person, ben: Person, engine: Engine) -> None:
    alert(engine, anna)
    alert(engine, ben, asin=OTHER)

    assert [told["asin"] for told in anna.get(ALERTS)["alerts"]] == [ASIN]
    assert anna.get(ALERTS, asin=OTHER)["alerts"] == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param({}, [(OTHER, "DE"), (ASIN, "FR"), (ASIN, "DE")], id="newest first"),
        pytest.param({"asin": ASIN}, [(ASIN, "FR"), (ASIN, "DE")], id="of a product"),
        pytest.param({"marketplace": "DE"}, [(OTHER, "DE"), (ASIN, "DE")], id="of a store"),
        pytest.param({"asin": ASIN, "marketplace": "FR"}, [(ASIN, "FR")], id="of both"),
    ],
)
def test_alerts_are_filtered(anna: Person, engine: Engine, query: dict[str, str], expected: list[tuple[str, str]]) -> None:
    alert(engine, anna)
    alert(engine, anna, marketplace=Marketplace.FR)
    alert(engine, anna, asin=OTHER)

    assert [(told["asin"], told["marketplace"]) for told in anna.get(ALERTS, **query)["alerts"]] == expected


def test_pages_hold_every_alert_once_though_more_come_meanwhile(anna: Person, engine: Engine) -> None:
    for name in ("mail", "phone"):
        channel(engine, anna, name)
    for number in range(5):
        alert(engine, anna, asin=f"B{number:09d}")
    page = anna.get(ALERTS, limit=2, marketplace="DE")
    told = list(page["alerts"])
    alert(engine, anna, asin=OTHER)

    while page["next"]:
        page = anna.ask("GET", page["next"]).json()
        told += page["alerts"]

    assert [one["asin"] for one in told] == [f"B{number:09d}" for number in reversed(range(5))]
    assert {len(one["deliveries"]) for one in told} == {2}


def test_alerts_of_a_removed_watch_stay(anna: Person, engine: Engine) -> None:
    watch_id = alert(engine, anna)
    with engine.begin() as connection:
        connection.execute(text("UPDATE watched_products SET is_active = false WHERE id = :id"), {"id": watch_id})

    assert len(anna.get(ALERTS)["alerts"]) == 1


@pytest.mark.parametrize("query", [{"cursor": "x"}, {"asin": "b"}, {"limit": 0}, {"limit": 1001}, {"user": "ben"}], ids=str)
def test_a_wish_that_cannot_be_is_refused(anna: Person, query: dict[str, str]) -> None:
    assert anna.ask("GET", ALERTS, params=query).status_code == 422


def test_alerts_are_made_in_business_time(anna: Person, engine: Engine) -> None:
    add_watch(engine, anna.user_id, 6000)
    run_record(engine, product(START, at=NOW + timedelta(days=3)))

    assert anna.get(ALERTS)["alerts"][0]["created_at"] == f"{NOW + timedelta(days=3):%Y-%m-%dT%H:%M:%SZ}"
