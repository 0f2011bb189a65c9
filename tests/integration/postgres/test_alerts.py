"""Alerts: once per crossing, to the channels of the watch's user, with what a person needs to know."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from keeper.domain.alert import decode_alert
from keeper.domain.events import Sink
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_type import PriceType
from keeper.domain.watch import WatchChange
from keeper.postgres.alerts import count_deliveries, mark_delivered, select_alerts
from keeper.postgres.watches import remove_watches, update_watches
from tests.integration.makers import ASIN, NOW, Points, add_user, add_watch, ago, one, plans, product, rows, run_record

MAIL = "mailto://localhost/reader@example.org"
OTHER = "B00OCMRV40"
START: Points = [(ago(days=2), 6000)]


def check(engine: Engine, *points: tuple[float, int | None]) -> int:
    """A check after START and these points (minutes before NOW); answered at the last of them. Returns how many alerts it made."""
    known = [*START, *((ago(minutes=minutes), amount) for minutes, amount in points)]
    return run_record(engine, product(known, at=known[-1][0])).alerts


def payloads(engine: Engine) -> list[dict[str, Any]]:
    return rows(engine, "SELECT payload FROM events WHERE kind = 'alert' ORDER BY seq")


def test_a_price_that_falls_to_the_target_alerts_once(engine: Engine) -> None:
    add_watch(engine, add_user(engine), 5000)
    assert [check(engine), check(engine, (90, 5000)), check(engine, (90, 5000), (60, 4900)), check(engine, (30, 4800))] == [0, 1, 0, 0]


def test_a_price_above_the_target_does_not_alert(engine: Engine) -> None:
    add_watch(engine, add_user(engine), 4999)
    assert [check(engine), check(engine, (90, 5000))] == [0, 0]


@pytest.mark.parametrize(
    ("between", "alerts"),
    [
        pytest.param(5000, 0, id="at the target"),
        pytest.param(5099, 0, id="within the hysteresis"),
        pytest.param(5100, 1, id="above by the hysteresis"),
    ],
)
def test_a_second_alert_needs_a_price_above_the_hysteresis(engine: Engine, between: int, alerts: int) -> None:
    add_watch(engine, add_user(engine), 5000, hysteresis_pct=2)
    assert check(engine, (90, 4900)) == 1
    check(engine, (90, 4900), (60, between))
    assert check(engine, (90, 4900), (60, between), (30, 4800)) == alerts


@pytest.mark.parametrize(
    ("between", "alerts"), [pytest.param(5099, 0, id="within the hysteresis"), pytest.param(5100, 1, id="above by the hysteresis")]
)
def test_a_price_that_left_and_came_back_between_two_checks_is_a_crossing(engine: Engine, between: int, alerts: int) -> None:
    add_watch(engine, add_user(engine), 5000, hysteresis_pct=2)
    assert check(engine, (90, 4900)) == 1
    assert check(engine, (90, 4900), (60, between), (30, 4900)) == alerts


def test_a_price_that_was_high_between_two_checks_arms_the_watch(engine: Engine) -> None:
    add_watch(engine, add_user(engine), 5000, hysteresis_pct=2)
    assert check(engine, (90, 4900)) == 1
    check(engine, (90, 4900), (60, 6000), (30, 5050))
    assert one(engine, "SELECT is_armed FROM watched_products")


def test_what_was_high_before_the_alert_arms_nothing(engine: Engine) -> None:
    add_watch(engine, add_user(engine), 5000)
    assert check(engine, (90, 6000), (60, 4900)) == 1
    assert check(engine, (90, 6000), (60, 4900), (30, 4800)) == 0


def test_no_offer_neither_alerts_nor_arms(engine: Engine) -> None:
    add_watch(engine, add_user(engine), 5000)
    assert check(engine, (90, 4900)) == 1
    assert check(engine, (90, 4900), (60, None)) == 0
    assert check(engine, (90, 4900), (60, None), (30, 4900)) == 0


def test_another_target_arms_the_watch(engine: Engine) -> None:
    user_id = add_user(engine)
    watch_id = add_watch(engine, user_id, 5000)
    assert check(engine, (90, 4500)) == 1
    with engine.begin() as connection:
        update_watches(connection, user_id, [watch_id], WatchChange(target=Money(4600, "EUR")), now=NOW)
    assert [run_record(engine, product([*START, (ago(minutes=90), 4500)])).alerts for _ in range(2)] == [1, 0]


def test_the_same_target_again_arms_nothing(engine: Engine) -> None:
    user_id = add_user(engine)
    watch_id = add_watch(engine, user_id, 5000)
    assert check(engine, (90, 4500)) == 1
    with engine.begin() as connection:
        update_watches(connection, user_id, [watch_id], WatchChange(target=Money(5000, "EUR")), now=NOW)
    assert check(engine, (90, 4500)) == 0


def test_a_price_already_at_the_target_alerts_at_the_first_check(engine: Engine) -> None:
    add_watch(engine, add_user(engine), 6000)
    assert check(engine) == 1


def test_a_watch_on_a_known_product_alerts_at_its_first_check(engine: Engine) -> None:
    check(engine)
    add_watch(engine, add_user(engine), 6000)
    assert check(engine) == 1


def test_backfill_never_alerts(engine: Engine) -> None:
    add_watch(engine, add_user(engine), 5000)
    assert (
        run_record(engine, product([(ago(days=300), 3000), (ago(days=200), 5500), (ago(days=100), 4000), (ago(days=1), 5200)])).alerts == 0
    )


def test_an_older_change_between_two_checks_does_not_alert(engine: Engine) -> None:
    add_watch(engine, add_user(engine), 5000)
    check(engine)
    assert check(engine, (90, 4000), (60, 5500)) == 0


def test_an_older_answer_that_arrives_late_does_not_alert(engine: Engine) -> None:
    add_watch(engine, add_user(engine), 5000)
    check(engine, (90, 4000), (60, 5500))
    assert check(engine, (90, 4000)) == 0


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"price_type": PriceType.USED}, id="of another price type"),
        pytest.param({"asin": "B000000000"}, id="of another product"),
    ],
)
def test_a_watch_of_something_else_does_not_alert(engine: Engine, change: dict[str, Any]) -> None:
    add_watch(engine, add_user(engine), 6000, **change)
    assert check(engine) == 0


def test_a_removed_watch_does_not_alert(engine: Engine) -> None:
    user_id = add_user(engine)
    watch_id = add_watch(engine, user_id, 6000)
    with engine.begin() as connection:
        remove_watches(connection, user_id, [watch_id], now=NOW)
    assert check(engine) == 0


def test_a_user_without_a_channel_has_an_alert_and_no_delivery(engine: Engine) -> None:
    add_watch(engine, add_user(engine), 6000)
    check(engine)
    assert (len(rows(engine, "SELECT 1 FROM price_alerts")), rows(engine, "SELECT 1 FROM deliveries"), payloads(engine)) == (1, [], [])


def test_each_channel_of_each_user_gets_a_delivery_an_event_and_an_outbox_row(engine: Engine) -> None:
    for name in ("anna", "bert"):
        add_watch(engine, add_user(engine, name, channels=[MAIL, MAIL]), 6000)
    assert check(engine) == 2
    channels = {str(channel) for channel in rows(engine, "SELECT id FROM channels")}
    assert set(rows(engine, "SELECT key FROM outbox WHERE sink = 'notify'")) == channels
    assert {str(payload["channel_id"]) for payload in payloads(engine)} == channels
    assert rows(engine, "SELECT count(*), count(DISTINCT event_id) FROM events WHERE kind = 'alert'") == [(4, 4)]
    with engine.begin() as connection:
        assert count_deliveries(connection) == {"pending": 4}


def test_a_user_hears_nothing_of_anothers_watch(engine: Engine) -> None:
    add_watch(engine, add_user(engine, "anna", channels=[MAIL]), 6000)
    add_watch(engine, add_user(engine, "bert", channels=[MAIL]), 1000)
    check(engine)
    assert rows(engine, "SELECT u.name FROM deliveries d JOIN channels c ON c.id = d.channel_id JOIN users u ON u.id = c.user_id") == [
        "anna"
    ]


def test_without_the_notify_sink_nothing_waits_for_it(engine: Engine) -> None:
    add_watch(engine, add_user(engine, channels=[MAIL]), 6000)
    run_record(engine, product(START), sinks=frozenset({Sink.KAFKA}))
    assert rows(engine, "SELECT sink FROM outbox ORDER BY 1") == ["kafka"]


def test_an_alert_tells_what_a_person_needs(engine: Engine) -> None:
    add_watch(engine, add_user(engine, channels=[MAIL]), 5000)
    answer = product([(ago(days=30), 4500), (ago(days=2), 6000), (ago(hours=1), 4800)], image_urls=("https://example.org/1.jpg",))
    run_record(engine, answer)
    alert = decode_alert(payloads(engine)[0]["alert"])
    assert (alert.asin, alert.title, alert.image_url, alert.observed_at) == (ASIN, "Tastatur", "https://example.org/1.jpg", ago(hours=1))
    prices = (alert.price, alert.previous_price, alert.target, alert.lowest_in_year)
    assert prices == tuple(Money(amount, "EUR") for amount in (4800, 6000, 5000, 4500))


@pytest.mark.parametrize(
    ("points", "lowest"),
    [
        pytest.param([(ago(days=100), 4000), (ago(days=50), 6000), (ago(hours=1), 4900)], 4000, id="of the year"),
        pytest.param([(ago(days=500), 3000), (ago(days=400), 6000), (ago(hours=1), 4900)], 4900, id="not of the years before"),
        pytest.param([(ago(days=400), 3000), (ago(days=100), 6000), (ago(hours=1), 4900)], 3000, id="in force when the year began"),
        pytest.param([(ago(days=400), None), (ago(days=100), 6000), (ago(hours=1), 4900)], 4900, id="no offer when the year began"),
        pytest.param([(ago(hours=1), 4900)], 4900, id="the only price"),
    ],
)
def test_the_lowest_price_of_a_year_counts_what_was_in_force(engine: Engine, points: Points, lowest: int) -> None:
    add_watch(engine, add_user(engine), 5000)
    run_record(engine, product(points))
    assert one(engine, "SELECT lowest_in_year_minor FROM price_alerts") == lowest


def test_a_delivery_has_the_same_id_wherever_it_is_made(engine: Engine) -> None:
    watch_id = add_watch(engine, add_user(engine, channels=[MAIL]), 6000)
    check(engine)
    [first] = rows(engine, "SELECT event_id FROM events WHERE kind = 'alert'")
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE price_alerts, deliveries, events, outbox, current_prices, price_history"))
        connection.execute(text("UPDATE watched_products SET is_armed = true WHERE id = :id"), {"id": watch_id})
    check(engine)
    assert isinstance(first, UUID)
    assert rows(engine, "SELECT event_id FROM events WHERE kind = 'alert'") == [first]


def test_outbox_rows_of_a_channel_are_in_the_order_of_their_alerts(engine: Engine) -> None:
    add_watch(engine, add_user(engine, channels=[MAIL]), 5000)
    check(engine, (90, 4900))
    check(engine, (90, 4900), (60, 5500))
    check(engine, (90, 4900), (60, 5500), (30, 4700))
    query = """
        SELECT CAST(e.payload->'alert'->'price'->>'amount_minor' AS integer)
        FROM outbox o JOIN events e ON e.recorded_on = o.event_on AND e.seq = o.event_seq WHERE o.sink = 'notify' ORDER BY o.event_seq
    """
    assert rows(engine, query) == [4900, 4700]


def test_alerts_are_listed_with_their_deliveries(engine: Engine) -> None:
    add_watch(engine, add_user(engine, "anna", channels=[MAIL, MAIL]), 6000)
    check(engine)
    with engine.begin() as connection:
        listed = select_alerts(connection, limit=1)
    assert [(row.user, row.channel, row.status, row.tries) for row in listed] == [
        ("anna", "c0", "pending", 0),
        ("anna", "c1", "pending", 0),
    ]


@pytest.fixture
def listing(engine: Engine) -> dict[str, int]:
    """Two alerts of anna's, then one of ben's, by what tells them apart; their ids."""
    anna, ben = add_user(engine, "anna", channels=[MAIL, MAIL]), add_user(engine, "ben", channels=[MAIL])
    for user_id, asin, marketplace in [(anna, ASIN, Marketplace.DE), (anna, ASIN, Marketplace.FR), (ben, OTHER, Marketplace.DE)]:
        add_watch(engine, user_id, 6000, asin=asin, marketplace=marketplace)
        run_record(engine, product(START, asin=asin, marketplace=marketplace))
    found = rows(engine, "SELECT u.name || ' ' || a.marketplace, a.id FROM price_alerts a JOIN users u ON u.id = a.user_id")
    return {"anna": anna, "ben": ben} | dict(found)


def listed(engine: Engine, **options: Any) -> list[int]:
    """Ids of the alerts found, each once, in order."""
    with engine.begin() as connection:
        return list(dict.fromkeys(row.alert_id for row in select_alerts(connection, **options)))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, ["ben DE", "anna FR", "anna DE"], id="all, newest first"),
        pytest.param({"asin": ASIN}, ["anna FR", "anna DE"], id="of a product"),
        pytest.param({"marketplace": "DE"}, ["ben DE", "anna DE"], id="of a store"),
        pytest.param({"asin": ASIN, "marketplace": "DE"}, ["anna DE"], id="of both"),
        pytest.param({"asin": "B000000009"}, [], id="of a product without"),
        pytest.param({"limit": 2}, ["ben DE", "anna FR"], id="a page counts alerts, not their deliveries"),
    ],
)
def test_alerts_are_listed_by_what_they_are_of(
    engine: Engine, listing: dict[str, int], options: dict[str, Any], expected: list[str]
) -> None:
    assert listed(engine, **options) == [listing[name] for name in expected]


def test_a_users_list_has_only_their_alerts(engine: Engine, listing: dict[str, int]) -> None:
    assert listed(engine, user_id=listing["anna"]) == [listing["anna FR"], listing["anna DE"]]
    assert listed(engine, user_id=listing["anna"], asin=OTHER) == []


def test_a_page_of_alerts_begins_after_the_one_before(engine: Engine, listing: dict[str, int]) -> None:
    assert listed(engine, user_id=listing["anna"], before_id=listing["anna FR"], limit=1) == [listing["anna DE"]]
    assert listed(engine, user_id=listing["anna"], before_id=listing["anna DE"]) == []


def test_a_page_of_a_users_alerts_reads_their_index_however_many_others_have(engine: Engine) -> None:
    anna, ben = add_user(engine, "anna"), add_user(engine, "ben")
    watch_id = add_watch(engine, ben, 5000)
    with engine.begin() as connection:
        connection.execute(
            text(
                """
                INSERT INTO price_alerts (watch_id, user_id, asin, marketplace, price_type, amount_minor, target_minor, currency,
                    observed_at, created_at)
                SELECT :watch_id, :user_id, 'B000000001', 'DE', 'NEW', 100, 5000, 'EUR',
                    CAST(:now AS timestamptz) - n * interval '1 minute', :now
                FROM generate_series(1, 20000) n
                """
            ),
            {"watch_id": watch_id, "user_id": ben, "now": NOW},
        )
        connection.execute(text("ANALYZE price_alerts"))
    plan = plans(engine, lambda connection: select_alerts(connection, user_id=anna, asin=ASIN, before_id=10**9))
    assert "price_alerts_of_user" in plan
    assert "Seq Scan on price_alerts" not in plan


def test_an_alert_of_a_watch_is_made_in_business_time(engine: Engine) -> None:
    add_watch(engine, add_user(engine), 6000)
    run_record(engine, product(START, at=NOW + timedelta(days=3)))
    assert one(engine, "SELECT created_at FROM price_alerts") == NOW + timedelta(days=3)


def test_an_alert_at_a_price_that_changed_before_tells_the_price_before(engine: Engine) -> None:
    points: list[tuple[float, int | None]] = [(90, None), (60, 4500)]
    check(engine, *points)
    user_id = add_user(engine, channels=[MAIL])
    watch_id = add_watch(engine, user_id, 5000)
    check(engine, *points)
    with engine.begin() as connection:
        update_watches(connection, user_id, [watch_id], WatchChange(target=Money(4600, "EUR")), now=NOW)
    check(engine, *points)
    previous = [decode_alert(payload["alert"]).previous_price for payload in payloads(engine)]
    assert previous == [Money(6000, "EUR")] * 2


def test_an_alert_at_the_first_price_there_ever_was_has_none_before(engine: Engine) -> None:
    check(engine)
    add_watch(engine, add_user(engine), 6000)
    check(engine)
    assert rows(engine, "SELECT previous_minor FROM price_alerts") == [None]


def test_a_delivery_is_made_and_delivered_on_the_same_clock(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE installation SET keepa_source = 'simulator', clock_anchor_business = 86400 * 365"))
    add_watch(engine, add_user(engine, channels=[MAIL]), 6000)
    check(engine)
    delivery_id = one(engine, "SELECT id FROM deliveries")
    with engine.begin() as connection:
        mark_delivered(connection, delivery_id, receipt="ok")
    assert timedelta() <= one(engine, "SELECT delivered_at - created_at FROM deliveries") < timedelta(minutes=5)
