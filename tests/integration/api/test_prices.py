"""A price over time: the range asked for, in as many points, in JSON or CSV, the same until the next check."""

import csv
import io
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from tests.integration.api.conftest import ClientOf, Person
from tests.integration.makers import ASIN, NOW, Points, ago, product, run_record

HISTORY = f"/api/v1/prices/{ASIN}/history"
STATS = f"/api/v1/prices/{ASIN}/stats"
POINTS: Points = [(ago(days=200), 9000), (ago(days=100), 8000), (ago(days=50), None), (ago(days=20), 7000), (ago(days=2), 7550)]


def zulu(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def points(found: dict[str, Any]) -> list[tuple[str, int | None]]:
    return [(point["observed_at"], point["price_minor"]) for point in found["points"]]


def as_told(some: Points) -> list[tuple[str, int | None]]:
    return [(zulu(at), amount) for at, amount in some]


@pytest.fixture
def reader(anna: Person, engine: Engine) -> Person:
    """Somebody who asks for a product that was checked."""
    run_record(engine, product(POINTS))
    return anna


# --- history


def test_a_history_is_ninety_days_led_by_the_price_before(reader: Person) -> None:
    found = reader.get(HISTORY)

    assert points(found) == as_told(POINTS[1:])
    assert (found["start_at"], found["end_at"], found["checked_at"]) == (zulu(ago(days=90)), zulu(NOW), zulu(NOW))
    assert (found["asin"], found["marketplace"], found["price_type"], found["title"]) == (ASIN, "DE", "NEW", "Tastatur")


def test_money_is_told_in_whole_units_and_in_cents(reader: Person) -> None:
    found = reader.get(HISTORY)

    assert (found["price"], found["price_minor"], found["currency"], found["observed_at"]) == (75.5, 7550, "EUR", zulu(ago(days=2)))
    assert [(point["price"], point["price_minor"]) for point in found["points"]] == [(80, 8000), (None, None), (70, 7000), (75.5, 7550)]


def test_yen_have_no_cents(anna: Person, engine: Engine) -> None:
    run_record(engine, product([(ago(days=1), 4990)], marketplace=Marketplace.JP))

    found = anna.get(HISTORY, marketplace="JP")

    assert (found["price"], found["price_minor"], found["currency"]) == (4990, 4990, "JPY")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param({"days": 10}, POINTS[3:], id="days"),
        pytest.param({"days": 3650}, POINTS, id="ten years"),
        pytest.param({"from": zulu(ago(days=60))}, POINTS[1:], id="from a moment"),
        pytest.param({"from": zulu(ago(days=60)), "to": zulu(ago(days=30))}, POINTS[1:3], id="from and to"),
        pytest.param({"from": f"{ago(days=60):%Y-%m-%d}", "to": f"{ago(days=30):%Y-%m-%d}"}, POINTS[1:3], id="days of the calendar"),
        pytest.param({"from": f"{ago(days=60):%Y-%m-%dT%H:%M:%S}+02:00"}, POINTS[1:], id="a zone"),
        pytest.param({"days": 15, "to": zulu(ago(days=10))}, POINTS[2:4], id="days before a moment"),
        pytest.param({"days": 60, "from": zulu(ago(days=10))}, POINTS[3:], id="from goes first where it is later"),
        pytest.param({"days": 10, "from": zulu(ago(days=60))}, POINTS[3:], id="days go first where they are fewer"),
        pytest.param({"from": zulu(ago(days=30)), "to": zulu(ago(days=60))}, [], id="the wrong way round"),
        pytest.param({"from": zulu(NOW + timedelta(days=1))}, [], id="after the last check"),
        pytest.param({"to": "0001-01-01T00:00:00+14:00"}, [], id="before the first moment"),
        pytest.param({"to": "9999-12-31T23:59:59-14:00"}, POINTS[1:], id="after the last moment"),
    ],
)
def test_a_range_is_asked_for_in_days_or_by_its_ends(reader: Person, query: dict[str, Any], expected: Points) -> None:
    assert points(reader.get(HISTORY, **query)) == as_told(expected)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        pytest.param({"days": 0}, "query.days", id="no day"),
        pytest.param({"days": 3651}, "query.days", id="too many days"),
        pytest.param({"points": 1}, "query.points", id="too few points"),
        pytest.param({"points": 5001}, "query.points", id="too many points"),
        pytest.param({"from": "yesterday"}, "query.from", id="not a moment"),
        pytest.param({"from": "123"}, "query.from", id="not a number"),
        pytest.param({"price_type": "CHEAP"}, "query.price_type", id="no price type"),
        pytest.param({"marketplace": "XX"}, "query.marketplace", id="no store"),
        pytest.param({"format": "xml"}, "query.format", id="no form"),
        pytest.param({"since": "2026-01-01"}, "query.since", id="no parameter"),
    ],
)
def test_a_wish_that_cannot_be_names_its_field(reader: Person, query: dict[str, Any], field: str) -> None:
    answered = reader.ask("GET", HISTORY, params=query)

    assert answered.status_code == 422
    assert [one["field"] for one in answered.json()["errors"]] == [field]


def test_an_unknown_product_says_what_to_do(anna: Person) -> None:
    for path in (HISTORY, STATS):
        answered = anna.ask("GET", path)

        assert (answered.status_code, answered.json()["type"]) == (404, "urn:keeper:problem:product-unknown")
        assert "/api/v1/watches" in answered.json()["hint"] and "/api/v1/price/check" in answered.json()["hint"]


def test_a_product_of_another_store_is_unknown(reader: Person) -> None:
    assert reader.ask("GET", HISTORY, params={"marketplace": "FR"}).status_code == 404


def test_a_known_product_without_such_a_price_has_an_empty_history(reader: Person) -> None:
    found = reader.get(HISTORY, price_type="WAREHOUSE")

    assert (found["points"], found["points_in_range"], found["price"], found["checked_at"]) == ([], 0, None, None)
    assert (found["title"], found["currency"]) == ("Tastatur", "EUR")


def test_a_long_history_keeps_its_ends_and_extremes(anna: Person, engine: Engine) -> None:
    many: Points = [(ago(hours=2 * hours), 5000 + hours * 7919 % 400) for hours in range(1000, 0, -1)]
    many = [*many[:500], (ago(hours=999), 1), *many[500:700], (ago(hours=599), 99999), *many[700:]]
    run_record(engine, product(many))

    found = anna.get(HISTORY, points=50)

    told = points(found)
    assert (len(told) <= 50, found["points_in_range"]) == (True, len([one for one in many if one[0] >= ago(days=90)]))
    assert set(told) <= set(as_told(many))
    assert (told[0], told[-1]) == (as_told(many)[0], as_told(many)[-1])
    assert {1, 99999} <= {amount for _, amount in told}


def test_a_history_is_shared_by_everybody(reader: Person, ben: Person) -> None:
    assert ben.get(HISTORY) == reader.get(HISTORY)


def test_a_history_needs_a_key(reader: Person, api_url: str, client_of: ClientOf) -> None:
    assert [client_of(api_url, None).get(path).status_code for path in (HISTORY, STATS)] == [401, 401]


# --- CSV


@pytest.mark.parametrize(
    ("query", "accept", "expected"),
    [
        pytest.param({"format": "csv"}, "*/*", "text/csv", id="asked for"),
        pytest.param({}, "text/csv", "text/csv", id="by the header"),
        pytest.param({}, "text/csv, application/json;q=0.5", "text/csv", id="rather"),
        pytest.param({}, "application/json, text/csv;q=0.5", "application/json", id="rather not"),
        pytest.param({}, "text/csv;q=nonsense", "application/json", id="a weight that is none"),
        pytest.param({}, "text/html,*/*", "application/json", id="a browser"),
        pytest.param({"format": "json"}, "text/csv", "application/json", id="the parameter goes first"),
    ],
)
def test_a_history_is_csv_where_asked_for(reader: Person, query: dict[str, str], accept: str, expected: str) -> None:
    answered = reader.ask("GET", HISTORY, params=query, headers={"Accept": accept})

    assert (answered.status_code, answered.headers["content-type"].partition(";")[0]) == (200, expected)


def test_csv_tells_the_same_points(reader: Person) -> None:
    answered = reader.ask("GET", HISTORY, params={"format": "csv"})

    rows = list(csv.DictReader(io.StringIO(answered.text, newline="")))
    told = [(row["observed_at"], int(row["price_minor"]) if row["price_minor"] else None) for row in rows]
    assert told == points(reader.get(HISTORY))
    assert [(row["price"], row["currency"]) for row in rows] == [("80.00", "EUR"), ("", "EUR"), ("70.00", "EUR"), ("75.50", "EUR")]
    assert answered.headers["content-disposition"] == f'attachment; filename="{ASIN}-DE-NEW.csv"'


# --- the same until the next check


@pytest.mark.parametrize("path", [HISTORY, STATS, f"{HISTORY}?format=csv", f"{STATS}?at_or_below=80&days=10"])
def test_who_has_the_answer_is_told_so_until_the_next_check(reader: Person, engine: Engine, path: str) -> None:
    first = reader.ask("GET", path)
    known = {"If-None-Match": first.headers["etag"]}
    again = reader.ask("GET", path, headers=known)
    run_record(engine, product([*POINTS, (NOW + timedelta(hours=1), 7000)], at=NOW + timedelta(hours=1)))
    later = reader.ask("GET", path, headers=known)

    assert (first.status_code, again.status_code, again.content, later.status_code) == (200, 304, b"", 200)
    assert again.headers["etag"] == first.headers["etag"] != later.headers["etag"]


def test_forms_and_ranges_have_tags_of_their_own(reader: Person) -> None:
    queries: list[dict[str, Any]] = [{}, {"format": "csv"}, {"days": 91}, {"price_type": "USED"}, {"points": 2}]
    assert len({reader.ask("GET", HISTORY, params=query).headers["etag"] for query in queries}) == len(queries)


# --- statistics


def test_statistics_of_ninety_days(reader: Person) -> None:
    found = reader.get(STATS, at_or_below=75.49)

    day = 86400
    assert found["lowest"] == {"price": 70, "price_minor": 7000, "at": zulu(ago(days=20))}
    assert found["highest"] == {"price": 80, "price_minor": 8000, "at": zulu(ago(days=90))}
    assert found["lowest_until"] == zulu(ago(days=2))
    assert found["average"]["price_minor"] == (40 * 8000 + 18 * 7000 + 2 * 7550) // 60
    assert found["median"] == {"price": 80, "price_minor": 8000}
    assert (found["price"], found["price_minor"], found["since"]) == (75.5, 7550, zulu(ago(days=2)))
    assert (found["known_seconds"], found["offer_seconds"], found["offer_pct"]) == (90 * day, 60 * day, 66.67)
    assert found["at_or_below"] == {"price": 75.49, "price_minor": 7549, "seconds": 18 * day, "pct": 30}


def test_statistics_of_a_range_tell_the_price_at_its_end(reader: Person) -> None:
    found = reader.get(STATS, **{"from": zulu(ago(days=150)), "to": zulu(ago(days=60))})

    assert (found["price_minor"], found["since"], found["offer_pct"]) == (8000, zulu(ago(days=100)), 100)
    assert found["at_or_below"] is None


def test_statistics_without_an_offer_are_empty(reader: Person) -> None:
    found = reader.get(STATS, **{"from": zulu(ago(days=40)), "to": zulu(ago(days=30)), "at_or_below": 1})

    assert [found[name] for name in ("lowest", "highest", "average", "median", "price", "lowest_until")] == [None] * 6
    assert (found["offer_pct"], found["at_or_below"]["pct"], found["since"]) == (0, None, zulu(ago(days=50)))


@pytest.mark.parametrize("query", [{"price_type": "WAREHOUSE"}, {"from": zulu(NOW + timedelta(days=1))}], ids=["no such price", "later"])
def test_statistics_of_nothing_are_no_error(reader: Person, query: dict[str, str]) -> None:
    found = reader.get(STATS, **query)

    assert (found["known_seconds"], found["offer_pct"], found["lowest"], found["average"]) == (0, None, None, None)


@pytest.mark.parametrize("limit", ["0", "-1", "", "abc", "NaN", "20000000"])
def test_a_limit_that_is_no_amount_is_refused(reader: Person, limit: str) -> None:
    answered = reader.ask("GET", STATS, params={"at_or_below": limit})

    assert (answered.status_code, answered.json()["errors"][0]["field"]) == (422, "query.at_or_below")


def test_parts_of_a_cent_make_no_difference(reader: Person) -> None:
    assert reader.get(STATS, at_or_below="75.499")["at_or_below"] == reader.get(STATS, at_or_below="75.49")["at_or_below"]


def test_every_price_type_can_be_asked_for(reader: Person) -> None:
    statuses = {reader.ask("GET", path, params={"price_type": kind}).status_code for path in (HISTORY, STATS) for kind in PriceType}
    assert statuses == {200}
