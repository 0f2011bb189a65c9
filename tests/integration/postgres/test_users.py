"""Users, channels and watches: names are unique, and one user's things are not another's."""

from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.watch import Watch, WatchChange
from keeper.postgres.users import (
    ChannelExists,
    ChannelUnknown,
    UserExists,
    UserNameInvalid,
    UserUnknown,
    find_channel,
    find_user,
    insert_channel,
    insert_user,
)
from keeper.postgres.watches import WatchExists, WatchUnknown, insert_watches, remove_watches, select_watches, update_watches
from tests.integration.makers import ASIN, CIPHER, NOW, add_user, add_watch, ago, one, product, rows, run_record

MAIL = "mailto://localhost/reader@example.org"


@pytest.mark.parametrize("name", ["", " anna", "-anna", "a" * 101, "anna\n", "änna"], ids=repr)
def test_what_is_no_name_is_refused(engine: Engine, name: str) -> None:
    with pytest.raises(UserNameInvalid), engine.begin() as connection:
        insert_user(connection, name)


def test_a_name_is_taken_once(engine: Engine) -> None:
    add_user(engine)
    with pytest.raises(UserExists):
        add_user(engine)


def test_the_only_user_needs_no_name(engine: Engine) -> None:
    user_id = add_user(engine)
    with engine.begin() as connection:
        assert find_user(connection, None) == find_user(connection, "anna") == user_id


@pytest.mark.parametrize(("users", "name", "said"), [([], None, "no user yet"), (["a", "b"], None, "a, b"), (["a"], "b", "no user b")])
def test_a_user_who_cannot_be_told_is_an_error(engine: Engine, users: list[str], name: str | None, said: str) -> None:
    for user in users:
        add_user(engine, user)
    with pytest.raises(UserUnknown, match=said), engine.begin() as connection:
        find_user(connection, name)


def test_a_channel_is_kept_encrypted(engine: Engine) -> None:
    user_id = add_user(engine, channels=[MAIL])
    stored = one(engine, "SELECT channels::text FROM channels")
    assert "reader" not in stored
    with engine.begin() as connection:
        assert CIPHER.decrypt(find_channel(connection, user_id, "c0").url_encrypted) == MAIL


def test_a_channels_name_is_taken_once_by_each_user(engine: Engine) -> None:
    add_user(engine, "anna", channels=[MAIL])
    user_id = add_user(engine, "bert", channels=[MAIL])
    with pytest.raises(ChannelExists), engine.begin() as connection:
        insert_channel(connection, user_id, name="c0", scheme="mailto", shown="", url_encrypted="", key_fingerprint="")


def test_another_users_channel_is_unknown(engine: Engine) -> None:
    add_user(engine, "anna", channels=[MAIL])
    user_id = add_user(engine, "bert")
    with pytest.raises(ChannelUnknown), engine.begin() as connection:
        find_channel(connection, user_id, "c0")


def test_a_price_is_watched_once_by_each_user(engine: Engine) -> None:
    user_id = add_user(engine)
    add_watch(engine, user_id)
    with pytest.raises(WatchExists):
        add_watch(engine, user_id)
    add_watch(engine, add_user(engine, "bert"))


def test_a_removed_watch_can_be_made_again(engine: Engine) -> None:
    user_id = add_user(engine)
    with engine.begin() as connection:
        remove_watches(connection, user_id, [add_watch(engine, user_id)], now=NOW)
    add_watch(engine, user_id)


def test_of_many_watches_only_the_new_ones_are_added(engine: Engine) -> None:
    user_id = add_user(engine)
    add_watch(engine, user_id, asin="B000000001")
    wanted = [Watch(f"B00000000{number}", Marketplace.DE) for number in (0, 1, 2, 2)]
    with engine.begin() as connection:
        assert len(insert_watches(connection, user_id, wanted, now=NOW)) == 2


def set_target(connection: Connection, user_id: int, watch_id: int) -> None:
    update_watches(connection, user_id, [watch_id], WatchChange(target=Money(100, "EUR")), now=NOW)


def remove(connection: Connection, user_id: int, watch_id: int) -> None:
    remove_watches(connection, user_id, [watch_id], now=NOW)


@pytest.mark.parametrize("change", [remove, set_target])
def test_another_users_watch_cannot_be_changed(engine: Engine, change: Any) -> None:
    watch_id = add_watch(engine, add_user(engine, "anna"))
    other = add_user(engine, "bert")
    with pytest.raises(WatchUnknown), engine.begin() as connection:
        change(connection, other, watch_id)


def test_watches_are_listed_with_their_price(engine: Engine) -> None:
    user_id = add_user(engine)
    add_watch(engine, user_id, 4500)
    run_record(engine, product([(ago(days=1), 5000)]))
    with engine.begin() as connection:
        [watch] = select_watches(connection, user_id=user_id)
    assert (watch.asin, watch.title, watch.target_minor, watch.amount_minor, watch.last_checked_at) == (ASIN, "Tastatur", 4500, 5000, NOW)


def test_a_user_who_goes_takes_everything_along_but_the_prices(engine: Engine) -> None:
    add_watch(engine, add_user(engine, channels=[MAIL]), 6000)
    run_record(engine, product([(ago(days=1), 5000)]))
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM users"))
    for table in ("watched_products", "channels", "price_alerts", "deliveries"):
        assert rows(engine, f"SELECT 1 FROM {table}") == []
    assert len(rows(engine, "SELECT 1 FROM price_history")) == 1


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("UPDATE watched_products SET target_minor = 0", id="a target of nothing"),
        pytest.param("UPDATE watched_products SET interval_seconds = 59", id="an interval below a minute"),
        pytest.param("UPDATE watched_products SET asin = 'x'", id="no ASIN"),
        pytest.param("UPDATE current_prices SET amount_minor = 0", id="a price of nothing"),
        pytest.param("UPDATE price_history SET amount_minor = -1", id="a negative price"),
        pytest.param("UPDATE price_history SET currency = NULL", id="a price without a currency"),
        pytest.param("UPDATE price_history SET event_version = NULL", id="an event without a version"),
        pytest.param("UPDATE price_alerts SET amount_minor = target_minor + 1", id="an alert above its target"),
        pytest.param("UPDATE deliveries SET status = 'delivered'", id="delivered at no time"),
        pytest.param("UPDATE outbox SET shard = 16", id="a shard nobody relays"),
    ],
)
def test_the_database_refuses_what_cannot_be_true(engine: Engine, statement: str) -> None:
    add_watch(engine, add_user(engine, channels=[MAIL]), 6000)
    run_record(engine, product([(ago(days=1), 5000)]))
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(text(statement))
