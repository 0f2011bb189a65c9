"""Opportunities are told: each once to the topic, once to a user, to whom their rules say, and not too many at a time."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from sqlalchemy import Connection, Engine, text

from keeper.domain.dated_rows import TableInvalid
from keeper.domain.events import Sink
from keeper.domain.exchange import ExchangeRates
from keeper.domain.marketplace import Marketplace
from keeper.domain.opportunity_rule import OpportunityRule
from keeper.domain.seller import SellerProfile, read_seller, write_seller
from keeper.kafka.schema import load_schema
from keeper.kafka.topics import Topic
from keeper.notify.sender import ChannelSender
from keeper.opportunities import Reckoning
from keeper.opportunity_alerts import MOST_ANNOUNCED, ToldOpportunities, tell_opportunities
from keeper.postgres.opportunity_rules import insert_rule, update_rule
from keeper.relay import AlertSink, RelaySettings, relay
from keeper.trade_files import read_tables
from tests.integration.makers import ASIN, CIPHER, NOW, add_user, ago, one, product, rows, run_record, use_sinks
from tests.integration.opportunities import add_opportunities, opportunity
from tests.services.mail import MailServer

IT, ES, FR = Marketplace.IT, Marketplace.ES, Marketplace.FR
CHANNEL = "ntfy://127.0.0.1:9/topic"
TABLES = read_tables(Path(__file__).parents[2] / "seeds")


def asin(number: int) -> str:
    return f"B{number:09d}"


def reckon(_: Connection, profile: Mapping[str, Any]) -> Reckoning:
    return Reckoning(read_seller(profile), TABLES, ExchangeRates(), NOW.date())


def tell(engine: Engine, *, now: datetime = NOW, least: int = 20, most_per_hour: int = 10) -> ToldOpportunities:
    return tell_opportunities(engine, now=now, least_roi_pct=Decimal(least), most_per_hour=most_per_hour, reckon=reckon)


def announced(engine: Engine) -> list[dict[str, Any]]:
    return rows(engine, "SELECT payload FROM events WHERE kind = 'arbitrage_alert' ORDER BY seq")


def add_rule(engine: Engine, user_id: int, name: str = "good", *, at: datetime | None = None, **conditions: Any) -> int:
    with engine.begin() as connection:
        rule = OpportunityRule(**conditions)
        return insert_rule(connection, user_id, name, rule, is_active=True, now=at or ago(days=2)).rule_id


def add_listener(engine: Engine, name: str = "anna", *, channels: int = 1, **conditions: Any) -> int:
    """A user with channels and a rule that wants everything, or what is said."""
    user_id = add_user(engine, name, channels=[CHANNEL] * channels)
    add_rule(engine, user_id, **conditions)
    return user_id


def told(engine: Engine) -> list[tuple[str, str, str]]:
    """User, product and target store."""
    return rows(
        engine,
        "SELECT u.name, content ->> 'asin', content ->> 'target_market' FROM opportunity_alerts a JOIN users u ON u.id = user_id "
        "ORDER BY a.id",
    )


def close(engine: Engine, at: datetime) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE opportunities SET closed_at = :at, closed_why = 'gap closed' WHERE closed_at IS NULL"), {"at": at})


def test_a_new_opportunity_is_announced_once_as_its_schema_says(engine: Engine) -> None:
    use_sinks(engine, {Sink.KAFKA})
    run_record(engine, product([(NOW, 9999)], marketplace=IT, title="Tastiera"), sinks=frozenset({Sink.KAFKA}))
    [number] = add_opportunities(engine, opportunity(flags=("Amazon sells it",)))

    first, again = tell(engine), tell(engine)

    assert (first.announced, again.announced) == (1, 0)
    [payload] = announced(engine)
    Draft202012Validator(load_schema(Topic.ARBITRAGE_ALERTS)).validate(payload)
    assert (payload["opportunity_id"], payload["product_title"], payload["severity"]) == (number, "Tastiera", "medium")
    assert (payload["margin"], payload["margin_percentage"], payload["profit_minor"], payload["roi_pct"]) == (3999, 66.65, 1054, 20.3)
    assert rows(engine, "SELECT sink, key FROM outbox") == [("kafka", ASIN)]
    assert one(engine, "SELECT announced_at FROM opportunities") == NOW


@pytest.mark.parametrize(
    "facts",
    [
        {"doubts": ("another brand",)},
        {"is_stale": True},
        {"profit": None},
        {"roi_pct": Decimal("19.99")},
        {"closed_at": NOW, "closed_why": "x"},
    ],
    ids=["doubtful", "stale", "unknown", "too little", "over"],
)
def test_what_is_not_sure_or_not_good_enough_is_told_to_nobody(engine: Engine, facts: dict[str, Any]) -> None:
    add_listener(engine, least_roi_pct=Decimal(20))
    add_opportunities(engine, opportunity(**facts))

    assert tell(engine) == ToldOpportunities()


def test_it_is_told_when_the_doubt_is_gone(engine: Engine) -> None:
    add_opportunities(engine, opportunity(doubts=("another brand",)))
    tell(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE opportunities SET doubts = '{}'"))

    assert tell(engine).announced == 1


@pytest.mark.parametrize(("roi", "severity"), [(49, "medium"), (50, "high"), (100, "critical")])
def test_severity_is_by_the_return(engine: Engine, roi: int, severity: str) -> None:
    add_opportunities(engine, opportunity(roi_pct=Decimal(roi)))
    tell(engine)

    assert announced(engine)[0]["severity"] == severity


def test_more_than_one_call_may_announce_waits_for_the_next(engine: Engine) -> None:
    add_opportunities(engine, *(opportunity(asin=asin(number), roi_pct=Decimal(20 + number)) for number in range(MOST_ANNOUNCED + 3)))

    assert (tell(engine).announced, tell(engine).announced, tell(engine).announced) == (MOST_ANNOUNCED, 3, 0)
    returns = [payload["roi_pct"] for payload in announced(engine)]
    assert returns == sorted(returns, reverse=True)


def test_a_user_is_told_what_their_rule_wants_on_every_channel_and_once(engine: Engine) -> None:
    add_listener(engine, channels=2, targets=(IT,), least_profit_minor=1000)
    add_opportunities(engine, opportunity(), opportunity(target=ES), opportunity(asin=asin(1), profit=999))

    first, again = tell(engine), tell(engine)

    assert (first.told, first.deliveries, again.told) == (1, 2, 0)
    assert told(engine) == [("anna", ASIN, "IT")]
    assert (
        rows(engine, "SELECT kind, key = payload ->> 'channel_id' FROM events WHERE kind <> 'arbitrage_alert'")
        == [("opportunity_alert", True)] * 2
    )


def test_two_rules_tell_one_opportunity_once(engine: Engine) -> None:
    user_id = add_listener(engine)
    add_rule(engine, user_id, "another")
    add_opportunities(engine, opportunity())

    assert tell(engine).told == 1


def test_the_best_are_told_first_and_no_more_than_allowed_within_an_hour(engine: Engine) -> None:
    add_listener(engine)
    add_opportunities(engine, *(opportunity(asin=asin(number), profit=100 * number) for number in range(1, 6)))

    first = tell(engine, most_per_hour=2)
    soon = tell(engine, now=NOW + timedelta(minutes=30), most_per_hour=2)
    later = tell(engine, now=NOW + timedelta(minutes=61), most_per_hour=2)

    assert [(one.told, one.left) for one in (first, soon, later)] == [(2, 3), (0, 0), (2, 1)]
    assert [place[1] for place in told(engine)] == [asin(5), asin(4), asin(3), asin(2)]


def test_what_was_there_before_a_rule_is_no_news_for_it_until_it_is_better(engine: Engine) -> None:
    user_id = add_user(engine, channels=[CHANNEL])
    add_opportunities(engine, opportunity(at=ago(hours=2)))
    add_rule(engine, user_id, at=ago(hours=1))
    before = tell(engine).told
    with engine.begin() as connection:
        connection.execute(text("UPDATE opportunities SET became_at = :now"), {"now": NOW})

    assert (before, tell(engine).told) == (0, 1)


def test_a_changed_rule_begins_anew(engine: Engine) -> None:
    user_id = add_user(engine, channels=[CHANNEL])
    rule_id = add_rule(engine, user_id, sources=(IT,))
    add_opportunities(engine, opportunity(at=ago(hours=2)))
    with engine.begin() as connection:
        update_rule(connection, user_id, rule_id, "wider", OpportunityRule(), is_active=True, now=ago(hours=1))

    assert tell(engine).told == 0


def test_a_gap_that_comes_back_is_told_again_only_where_it_is_better(engine: Engine) -> None:
    add_listener(engine)
    add_opportunities(engine, opportunity(profit=1000))
    tell(engine)
    told_again = []
    for day, profit in ((1, 1099), (2, 1100), (12, 500)):
        at = NOW + timedelta(days=day)
        close(engine, at)
        add_opportunities(engine, opportunity(profit=profit, at=at))
        told_again.append(tell(engine, now=at).told)

    assert told_again == [0, 1, 1]


def test_a_gap_that_comes_back_is_announced_again_only_where_it_is_better(engine: Engine) -> None:
    add_opportunities(engine, opportunity(profit=1000))
    tell(engine)
    announced_again = []
    for hours, profit in ((1, 1099), (2, 1100), (3, 1100), (8 * 24, 500)):
        at = NOW + timedelta(hours=hours)
        close(engine, at if hours < 100 else NOW + timedelta(hours=4))
        add_opportunities(engine, opportunity(profit=profit, at=at))
        announced_again.append(tell(engine, now=at).announced)

    assert announced_again == [0, 1, 0, 1]


def test_an_outage_that_ends_all_gaps_announces_none_of_them_again(engine: Engine) -> None:
    """However long ago they were announced: they were there until it."""
    add_opportunities(engine, opportunity(), opportunity(target=FR))
    tell(engine)
    close(engine, NOW + timedelta(days=30))
    at = NOW + timedelta(days=33)
    add_opportunities(engine, opportunity(at=at), opportunity(target=FR, at=at), opportunity(target=ES, at=at))

    assert (tell(engine, now=at).announced, tell(engine, now=at + timedelta(days=9)).announced) == (1, 0)


def test_a_second_outage_announces_none_of_them_again_either(engine: Engine) -> None:
    add_opportunities(engine, opportunity())
    done = [tell(engine).announced]
    for days in (30, 60, 90):
        at = NOW + timedelta(days=days)
        close(engine, at)
        add_opportunities(engine, opportunity(at=at))
        done.append(tell(engine, now=at).announced)

    assert done == [1, 0, 0, 0]


def test_a_gap_that_came_back_is_announced_once_it_is_better(engine: Engine) -> None:
    for profit in (1000, 900):
        close(engine, NOW)
        add_opportunities(engine, opportunity(profit=profit))
        tell(engine)
    done = []
    for profit in (1099, 1100, 2000):
        with engine.begin() as connection:
            connection.execute(text("UPDATE opportunities SET profit_minor = :profit WHERE closed_at IS NULL"), {"profit": profit})
        done.append(tell(engine).announced)

    assert done == [0, 1, 0]


def test_those_that_came_back_keep_no_new_one_waiting(engine: Engine) -> None:
    back = [opportunity(asin=asin(number), roi_pct=Decimal(90)) for number in range(MOST_ANNOUNCED)]
    add_opportunities(engine, *back)
    tell(engine)
    close(engine, NOW)
    add_opportunities(engine, *back, opportunity(asin=asin(5000)))

    assert (tell(engine).announced, tell(engine).announced) == (1, 0)


@pytest.mark.parametrize(("profit", "times"), [(-100, 0), (-91, 0), (-90, 1), (-105, 0)])
def test_a_loss_that_comes_back_is_told_again_only_where_it_is_less(engine: Engine, profit: int, times: int) -> None:
    add_listener(engine)
    add_opportunities(engine, opportunity(profit=-100))
    tell(engine)
    at = NOW + timedelta(days=1)
    close(engine, at)
    add_opportunities(engine, opportunity(profit=profit, at=at))
    again = tell(engine, now=at)

    assert (again.told, again.announced) == (times, times)


def test_who_has_no_channel_or_a_paused_rule_is_told_nothing(engine: Engine) -> None:
    add_listener(engine, channels=0)
    ben = add_listener(engine, "ben")
    with engine.begin() as connection:
        connection.execute(text("UPDATE opportunity_rules SET is_active = false WHERE user_id = :id"), {"id": ben})
    add_opportunities(engine, opportunity())

    assert tell(engine).told == 0


def test_a_users_own_seller_decides_what_they_are_told(engine: Engine) -> None:
    """For the default seller it leaves 10.54; anna does not get purchase VAT back and is left with 0.96."""
    run_record(engine, product([(NOW, 9999)], marketplace=IT, fba_pick_pack_minor=420, package_weight_g=900))
    golden = {"registered": ["DE"], "preparation_minor": 50, "storage_minor": 0, "return_allowance_pct": 0}
    profile = read_seller(golden | {"home": "DE", "inbound": [{"cost_minor": 100}]})
    for name, least in (("anna", 97), ("ben", 97), ("eva", 96)):
        user_id = add_listener(engine, name, least_profit_minor=least)
        if name != "ben":
            add_profile(engine, user_id, profile)
    add_opportunities(engine, opportunity())

    tell(engine)

    assert [place[0] for place in told(engine)] == ["ben", "eva"]
    assert rows(engine, "SELECT content ->> 'profit_minor', content ->> 'is_own' FROM opportunity_alerts ORDER BY id") == [
        ("1054", "false"),
        ("96", "true"),
    ]


def add_profile(engine: Engine, user_id: int, profile: SellerProfile) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO seller_profiles (user_id, profile) VALUES (:id, CAST(:profile AS jsonb))"),
            {"id": user_id, "profile": json.dumps(write_seller(profile))},
        )


def add_unreadable_profile(engine: Engine, user_id: int) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO seller_profiles (user_id, profile) VALUES (:id, jsonb_build_object('home', 'DE', 'old', 1))"), {"id": user_id}
        )


def test_a_profile_that_cannot_be_read_silences_nobody_else_and_is_named(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("anna", "ben", "eva"):
        user_id = add_listener(engine, name)
        if name == "ben":
            add_unreadable_profile(engine, user_id)
            unreadable = user_id
    add_opportunities(engine, opportunity())

    done = tell(engine)

    assert (done.announced, done.told, [place[0] for place in told(engine)]) == (1, 2, ["anna", "eva"])
    [said] = done.troubles
    assert said.startswith(f"user {unreadable} is told of no opportunities, their seller profile cannot be read: old: ")
    assert [record.getMessage() for record in caplog.records if record.name == "keeper.opportunity_alerts"] == [said]


def test_the_topic_is_told_whatever_becomes_of_the_users(engine: Engine) -> None:
    """And who was told before it failed stays told."""

    def broken(_: Connection, profile: Mapping[str, Any]) -> Reckoning:
        raise TableInvalid("fees.csv", 1, "torn")

    add_listener(engine, "anna")
    add_profile(engine, add_listener(engine, "ben"), read_seller({"home": "DE"}))
    add_opportunities(engine, opportunity())

    with pytest.raises(TableInvalid):
        tell_opportunities(engine, now=NOW, least_roi_pct=Decimal(20), most_per_hour=10, reckon=broken)

    assert (len(announced(engine)), [place[0] for place in told(engine)]) == (1, ["anna"])


def test_while_a_users_profits_are_reckoned_their_row_is_free(engine: Engine) -> None:
    def look(_: Connection, profile: Mapping[str, Any]) -> Reckoning:
        with engine.begin() as another:
            another.execute(text("SELECT 1 FROM users FOR UPDATE NOWAIT"))
        return reckon(_, profile)

    add_profile(engine, add_listener(engine), read_seller({"home": "DE"}))
    add_opportunities(engine, opportunity())

    tell_opportunities(engine, now=NOW, least_roi_pct=Decimal(20), most_per_hour=10, reckon=look)


def test_a_rule_that_is_removed_meanwhile_tells_nothing(engine: Engine) -> None:
    def remove(_: Connection, profile: Mapping[str, Any]) -> Reckoning:
        with engine.begin() as another:
            another.execute(text("DELETE FROM opportunity_rules"))
        return reckon(_, profile)

    run_record(engine, product([(NOW, 9999)], marketplace=IT, fba_pick_pack_minor=420, package_weight_g=900))
    golden = {"registered": ["DE"], "preparation_minor": 50, "storage_minor": 0, "return_allowance_pct": 0}
    add_profile(engine, add_listener(engine), read_seller(golden | {"home": "DE", "inbound": [{"cost_minor": 100}]}))
    add_opportunities(engine, opportunity())

    assert tell_opportunities(engine, now=NOW, least_roi_pct=Decimal(20), most_per_hour=10, reckon=remove).told == 0


def test_an_alert_is_mailed_with_profit_links_and_flags(engine: Engine) -> None:
    with MailServer() as server:
        user_id = add_user(engine, channels=[f"mailto://127.0.0.1:{server.port}/anna@example.net?from=keeper@example.org"])
        add_rule(engine, user_id, "Good <ones>")
        run_record(engine, product([(NOW, 9999)], marketplace=IT, title="Tastiera"))
        add_opportunities(engine, opportunity(flags=("Amazon sells it",)))
        tell(engine)
        sender = ChannelSender(connect_timeout_seconds=2, read_timeout_seconds=10, allowed_schemes=("mailto",))
        relay(engine, AlertSink(engine, sender, CIPHER), settings=RelaySettings(), longest_seconds=30)
        [mail] = server.messages

    plain, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert plain is not None and html is not None
    assert str(mail["Subject"]) == "10.54 € profit, ROI 20.30 %: DE → IT, Tastiera"
    said = plain.get_content()
    for words in (
        "Profit: 10.54 € (ROI 20.30 %, 10.54 % of the sale price)", "Before you buy: Amazon sells it",
        f"Buy: https://www.amazon.de/dp/{ASIN}", f"Sell: https://www.amazon.it/dp/{ASIN}", "Reckoned for: the default seller",
    ):  # fmt: skip
        assert words in said
    assert "Good &lt;ones&gt;" in html.get_content()
    assert rows(engine, "SELECT status, opportunity_alert_id IS NOT NULL FROM deliveries") == [("delivered", True)]


def test_telling_by_turns_and_together_tells_the_same(engine: Engine) -> None:
    """A call that finds nothing new changes nothing."""
    add_listener(engine)
    add_opportunities(engine, opportunity(), opportunity(target=FR))
    tell(engine)
    before = rows(engine, "SELECT opportunity_alerts::text FROM opportunity_alerts ORDER BY 1")
    tell(engine, now=NOW + timedelta(hours=3))

    assert rows(engine, "SELECT opportunity_alerts::text FROM opportunity_alerts ORDER BY 1") == before


def test_two_that_tell_at_once_tell_each_once(engine: Engine) -> None:
    for name in ("anna", "ben", "eva"):
        add_listener(engine, name)
    add_opportunities(engine, *(opportunity(asin=asin(number), profit=100 + number) for number in range(30)))

    with ThreadPoolExecutor(4) as pool:
        done = [future.result(60) for future in [pool.submit(tell, engine) for _ in range(4)]]

    assert sum(one.announced for one in done) == len(announced(engine)) == 30
    assert sum(one.told for one in done) == 30
    assert rows(engine, "SELECT count(*) FROM opportunity_alerts GROUP BY user_id") == [10, 10, 10]
    assert len({payload["event_id"] for payload in announced(engine)}) == 30
