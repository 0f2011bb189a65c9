"""Which deal a filter matches, in one place for previews, reports and instant alerts."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from sqlalchemy import Connection, Engine, event, text

from keeper.domain.deal_filter import DealFilter
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.kafka.schema import load_schema
from keeper.kafka.topics import Topic
from keeper.postgres.deal_filters import (
    AskedFilter,
    DealKey,
    FilterExists,
    FilterUnknown,
    count_matches_by_day,
    delete_filter,
    find_filter,
    insert_filter,
    select_asked,
    select_filters,
    select_matches,
    update_filter,
)
from keeper.postgres.deals import walk_deals
from keeper.postgres.embedded import EmbeddedServer
from keeper.postgres.engine import open_engine
from tests.integration.deal_makers import add_deal
from tests.integration.makers import NOW, add_user, ago

DE, FR, UK = Marketplace.DE, Marketplace.FR, Marketplace.UK


@pytest.fixture(scope="module")
def shop(postgres: EmbeddedServer) -> Iterator[Engine]:
    """Deals that each differ in one thing."""
    postgres.create_database("test_deal_filters", template="template_keeper")
    engine = open_engine(postgres.dsn("test_deal_filters"))
    add_deal(engine, asin="B000000001", title="Cherry Tastaturen, flüsterleise Tasten", amount_minor=4999, deal_score=50,
        discount_pct=40, below_median_pct=20, rating_tenths=45, review_count=200, sales_rank=100, layout="qwertz",
        product_group="keyboards")  # fmt: skip
    add_deal(engine, asin="B000000002", title="Schutzhülle für Tastatur", brand="Hüllenwelt", amount_minor=999, deal_score=10,
        discount_pct=10, category_path=("Computer & Zubehör", "Schutzhüllen"))  # fmt: skip
    add_deal(engine, asin="B000000003", title="Clavier mécanique", brand=None, marketplace=FR, amount_minor=8999, deal_score=70,
        layout="azerty", product_group="keyboards")  # fmt: skip
    add_deal(engine, asin="B000000004", title="Keyboard", brand="Logitech", marketplace=UK, amount_minor=3999, deal_score=60,
        price_type=PriceType.AMAZON, discount_pct=80, rating_tenths=30, review_count=5, sales_rank=90_000)  # fmt: skip
    add_deal(engine, asin="B000000005", title=None, brand=None, category_path=("Sonstiges",))
    add_deal(engine, asin="B000000006", title="Cherry Tastatur, vielleicht ein Fehler", announced_at=None, is_glitch=True, deal_score=99)
    add_deal(engine, asin="B000000007", title="Cherry Tastatur, vorbei", ended_at=ago(minutes=5), deal_score=90)
    add_deal(engine, asin="B000000008", title="Cherry Tastatur, alt", announced_at=ago(days=40), deal_score=80)
    yield engine
    engine.dispose()
    postgres.drop_database("test_deal_filters")


def matched(engine: Engine, wanted: DealFilter, **asked: Any) -> list[int]:
    """The numbers of the deals, best first."""
    several: dict[str, Any] = {"since": ago(days=30), "limit_per_filter": 100} | asked
    with engine.begin() as connection:
        matches = select_matches(connection, [AskedFilter(7, 8, "x", wanted)], **several)
    assert [match.rank for match in matches] == list(range(1, len(matches) + 1))
    assert {(match.filter_id, match.user_id) for match in matches} <= {(7, 8)}
    return [int(match.deal.asin[1:]) for match in matches]


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [
        pytest.param({}, [3, 4, 1, 2, 5], id="everything, by score, without one last"),
        pytest.param({"words": "tastatur"}, [1, 2], id="a word in its forms"),
        pytest.param({"words": "TASTATUR cherry"}, [1], id="all words, the brand's too"),
        pytest.param({"words": '"flüsterleise Taste"'}, [1], id="phrase"),
        pytest.param({"words": '"Tasten flüsterleise"'}, [], id="phrase in another order"),
        pytest.param({"words": "mecanique"}, [3], id="without accents"),
        pytest.param({"exclude_words": "hülle schutzhülle"}, [3, 4, 1, 5], id="without words"),
        pytest.param({"words": "tastatur", "exclude_words": "schutzhülle"}, [1], id="with and without"),
        pytest.param({"brands": ("CHERRY", "logitech")}, [4, 1], id="brands in any case"),
        pytest.param({"categories": ("tastaturen",)}, [3, 4, 1], id="category"),
        pytest.param({"categories": ("Computer & Zubehör",)}, [3, 4, 1, 2], id="category above"),
        pytest.param({"categories": ("340843032",)}, [3, 4, 1, 2], id="category by number"),
        pytest.param({"marketplaces": (FR, UK)}, [3, 4], id="marketplaces"),
        pytest.param({"marketplaces": (DE, FR), "price_from_minor": 4999, "price_to_minor": 8999}, [3, 1, 5], id="price, inclusive"),
        pytest.param({"marketplaces": (DE,), "price_to_minor": 4998}, [2], id="price to"),
        pytest.param({"discount_from_pct": 40}, [4, 1], id="discount from"),
        pytest.param({"discount_from_pct": 0, "discount_to_pct": 40}, [1, 2], id="discount between"),
        pytest.param({"discount_to_pct": 40}, [1, 2], id="discount to, unknown ones outside"),
        pytest.param({"below_median_from_pct": 20}, [1], id="below the median"),
        pytest.param({"below_median_from_pct": 20.5}, [], id="not so far below"),
        pytest.param({"rating_from": 4.5}, [1], id="rating"),
        pytest.param({"rating_from": 0}, [4, 1], id="any rating at all"),
        pytest.param({"reviews_from": 6}, [1], id="reviews"),
        pytest.param({"rank_to": 100}, [1], id="rank"),
        pytest.param({"score_from": 50}, [3, 4, 1], id="score"),
        pytest.param({"price_types": (PriceType.AMAZON,)}, [4], id="price type"),
        pytest.param({"layouts": ("qwertz", "azerty")}, [3, 1], id="layouts"),
        pytest.param({"group": "keyboards"}, [3, 1], id="group"),
        pytest.param({"words": "日本語"}, [], id="words nobody has"),
        pytest.param({"words": "keyboard | schutz & !("}, [], id="signs are no language"),
    ],
)
def test_a_filter_matches(shop: Engine, asked: dict[str, Any], numbers: list[int]) -> None:
    assert matched(shop, DealFilter(**asked)) == numbers


def test_a_deal_that_may_be_a_glitch_is_told_nobody(shop: Engine) -> None:
    assert 6 not in matched(shop, DealFilter(), since=None, with_ended=True)


def test_a_deal_that_is_over_is_told_where_asked_for(shop: Engine) -> None:
    assert matched(shop, DealFilter(words="vorbei")) == []
    assert matched(shop, DealFilter(words="vorbei"), with_ended=True) == [7]


def test_a_deal_counts_since_it_was_announced(shop: Engine) -> None:
    assert matched(shop, DealFilter(words="alt"), since=ago(days=39)) == []
    assert matched(shop, DealFilter(words="alt"), since=ago(days=41)) == [8]
    assert matched(shop, DealFilter(words="alt"), since=None, until=ago(days=40)) == []


def test_deals_of_one_transaction_alone(shop: Engine) -> None:
    keys = [
        DealKey("B000000001", "DE", "NEW", ago(hours=2)),
        DealKey("B000000006", "DE", "NEW", ago(hours=2)),
        DealKey("B000000009", "DE", "NEW", ago(hours=2)),
    ]
    assert matched(shop, DealFilter(), since=None, deal_keys=keys) == [1]
    assert matched(shop, DealFilter(), since=None, deal_keys=[]) == []


def test_the_best_of_each_filter_come_in_the_filters_order(shop: Engine) -> None:
    asked = [
        AskedFilter(5, 1, "a", DealFilter(marketplaces=(DE,))),
        AskedFilter(3, 2, "b", DealFilter(score_from=100)),
        AskedFilter(4, 2, "c", DealFilter()),
    ]
    with shop.begin() as connection:
        matches = select_matches(connection, asked, since=ago(days=30), limit_per_filter=2)
    assert [(one.filter_id, one.user_id, one.rank, one.deal.asin[-1]) for one in matches] == [
        (5, 1, 1, "1"), (5, 1, 2, "2"), (4, 2, 1, "3"), (4, 2, 2, "4"),
    ]  # fmt: skip


def test_a_product_whose_several_prices_fell_is_told_once_by_the_best_that_matches(engine: Engine) -> None:
    for price_type, score in ((PriceType.NEW, 50), (PriceType.AMAZON, 70), (PriceType.USED, 90)):
        add_deal(engine, asin="B000000001", price_type=price_type, deal_score=score)
    add_deal(engine, asin="B000000002", deal_score=60)
    wanted = DealFilter(price_types=(PriceType.NEW, PriceType.AMAZON))
    with engine.begin() as connection:
        matches = select_matches(connection, [AskedFilter(1, 1, "", wanted)], limit_per_filter=2)
    assert [(match.rank, match.deal.asin[-1], match.deal.price_type) for match in matches] == [(1, "1", "AMAZON"), (2, "2", "NEW")]


def test_a_match_tells_all_of_its_deal(shop: Engine) -> None:
    with shop.begin() as connection:
        [match] = select_matches(connection, [AskedFilter(1, 1, "", DealFilter(words="flüsterleise"))], limit_per_filter=5)
    deal = match.deal
    assert deal.deal_id == f"B000000001-DE-NEW-{int(ago(hours=2).timestamp())}"
    assert (deal.title, deal.amount_minor, deal.currency, deal.discount_pct) == ("Cherry Tastaturen, flüsterleise Tasten", 4999, "EUR", 40)
    assert (deal.layout, deal.category, deal.rating_tenths) == ("qwertz", "Tastaturen", 45)


def test_matches_are_counted_by_the_users_day(engine: Engine) -> None:
    late = datetime(2026, 11, 18, 23, 30, tzinfo=UTC)
    add_deal(engine, asin="B000000001", announced_at=late, ended_at=late + timedelta(hours=1))
    add_deal(engine, asin="B000000002", announced_at=late + timedelta(hours=2))
    add_deal(engine, asin="B000000003", announced_at=late, brand="Logitech")

    def by_day(timezone: str) -> list[tuple[date, int]]:
        with engine.begin() as connection:
            return count_matches_by_day(connection, DealFilter(brands=("cherry",)), since=ago(days=30), until=NOW, timezone=timezone)

    assert by_day("UTC") == [(date(2026, 11, 18), 1), (date(2026, 11, 19), 1)]
    assert by_day("Europe/Berlin") == [(date(2026, 11, 19), 2)]


@pytest.mark.parametrize("users", [1, 30])
def test_the_queries_do_not_grow_with_the_users(engine: Engine, users: int) -> None:
    add_deal(engine)
    user_ids = [add_user(engine, f"user{number}") for number in range(users)]
    with engine.begin() as connection:
        for user_id in user_ids:
            for number in range(3):
                insert_filter(connection, user_id, f"f{number}", DealFilter(words="tastatur"), is_active=True, is_instant=False, now=NOW)
    asked_for: list[str] = []

    def note(connection: Connection, cursor: Any, statement: str, *rest: Any) -> None:
        asked_for.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        with engine.begin() as connection:
            asked, broken = select_asked(connection, user_ids=user_ids)
            matches = select_matches(connection, asked, since=ago(days=1), limit_per_filter=10)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert (len(matches), broken, len(asked_for)) == (3 * users, [], 5)


def keep(engine: Engine, user_id: int, name: str = "mine", *, is_active: bool = True, is_instant: bool = False, **rules: Any) -> int:
    with engine.begin() as connection:
        wanted = DealFilter(**rules)
        return insert_filter(connection, user_id, name, wanted, is_active=is_active, is_instant=is_instant, now=NOW).filter_id


def test_filters_are_asked_for_by_user_by_id_and_by_haste(engine: Engine) -> None:
    anna, bert = add_user(engine, "anna"), add_user(engine, "bert")
    first, second = keep(engine, anna, "a", words="cherry"), keep(engine, anna, "b", is_instant=True)
    third, _ = keep(engine, bert, "a"), keep(engine, bert, "off", is_active=False)
    with engine.begin() as connection:
        assert [one.filter_id for one in select_asked(connection)[0]] == [first, second, third]
        assert [one.filter_id for one in select_asked(connection, user_ids=[bert])[0]] == [third]
        assert [one.filter_id for one in select_asked(connection, filter_ids=[second, third], user_ids=[anna])[0]] == [second]
        assert [one.filter_id for one in select_asked(connection, only_instant=True)[0]] == [second]
        assert select_asked(connection, user_ids=[])[0] == []
        assert select_asked(connection, filter_ids=[first])[0][0].wanted == DealFilter(words="cherry")


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"colour": "red"}, "colour: is no rule; a filter knows words"),
        ({"rank_to": "ten"}, "rank_to: must be a whole number"),
        ([], "rules: must be an object"),
    ],
)
def test_a_filter_that_cannot_be_read_is_told_and_the_others_work(engine: Engine, rules: Any, told: str) -> None:
    anna = add_user(engine, "anna")
    broken_id, sound_id = keep(engine, anna, "broken"), keep(engine, anna, "sound")
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE deal_filters SET rules = CAST(:rules AS jsonb) WHERE id = :id"), {"rules": json.dumps(rules), "id": broken_id}
        )
        asked, [broken] = select_asked(connection, user_ids=[anna])
    assert [one.filter_id for one in asked] == [sound_id]
    assert (broken.filter_id, broken.user_id, broken.name) == (broken_id, anna, "broken")
    assert broken.problem.startswith(told)


def test_a_filter_is_changed_and_removed_by_its_owner_alone(engine: Engine) -> None:
    anna, bert = add_user(engine, "anna"), add_user(engine, "bert")
    filter_id = keep(engine, anna, words="cherry")
    for change in (
        lambda connection: update_filter(connection, bert, filter_id, "x", DealFilter(), is_active=True, is_instant=True),
        lambda connection: delete_filter(connection, bert, filter_id),
        lambda connection: find_filter(connection, bert, filter_id),
        lambda connection: find_filter(connection, anna, 2**64),
        lambda connection: delete_filter(connection, anna, -1),
    ):
        with pytest.raises(FilterUnknown), engine.begin() as connection:
            change(connection)
    with engine.begin() as connection:
        changed = update_filter(connection, anna, filter_id, "new", DealFilter(rank_to=5), is_active=False, is_instant=True)
        assert find_filter(connection, anna, filter_id) == changed
        assert (changed.name, changed.rules, changed.is_active, changed.is_instant) == ("new", {"rank_to": 5}, False, True)
        delete_filter(connection, anna, filter_id)
        assert select_filters(connection, anna) == []


def test_a_name_is_a_users_own(engine: Engine) -> None:
    anna, bert = add_user(engine, "anna"), add_user(engine, "bert")
    keep(engine, anna, "a")
    other = keep(engine, anna, "b")
    keep(engine, bert, "a")
    with pytest.raises(FilterExists, match="'a'"):
        keep(engine, anna, "a")
    with pytest.raises(FilterExists), engine.begin() as connection:
        update_filter(connection, anna, other, "a", DealFilter(), is_active=True, is_instant=False)


def test_the_document_of_a_deal_is_as_its_schema_says(engine: Engine) -> None:
    add_deal(
        engine, event_id="6f1c4a52-6f0e-5c0e-9a52-6b6565706572", deal_score=71, score_parts={"below_median": 30, "rating": None},
        median_90_minor=7999, below_median_pct=37.5, layout="qwertz", product_group="keyboards", is_glitch=True, glitch_reason="absurd",
    )  # fmt: skip
    [[row]] = list(walk_deals(engine, page=10))
    document, schema = json.loads(row.body), load_schema(Topic.DEAL_UPDATES)
    Draft202012Validator(schema).validate(document)
    assert set(document) <= set(schema["properties"])
