"""Deals over HTTP: search, counts, one of them, one that is posted, filters and their feeds."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
from sqlalchemy import Engine, text

from api.app import create_app
from keeper.domain.access import Scope
from keeper.domain.price_type import PriceType
from keeper.postgres.deals import walk_deals
from keeper.search.bulk import BulkWriter, write_documents
from keeper.search.connection import SearchConnection, open_client
from keeper.search.indices import connect, refresh
from keeper.search.mapping import Alias, alias_name
from keeper.settings import Settings
from tests.integration.api.conftest import ClientOf, MakeApi, MakePerson, Person, make_key_of
from tests.integration.deal_makers import add_deal
from tests.services.api import serve
from tests.services.session import ElasticsearchService

ATOM = "{http://www.w3.org/2005/Atom}"


def before(**parts: float) -> datetime:
    """Some time ago, to the minute."""
    return (datetime.now(UTC) - timedelta(**parts)).replace(second=0, microsecond=0)


@pytest.fixture
def shop(engine: Engine) -> None:
    """Three deals that run, one that is over, one that may be a mistake."""
    add_deal(
        engine, asin="B000000001", changed_at=before(hours=5), announced_at=before(hours=4), title="Cherry Tastatur", amount_minor=4999,
        list_price_minor=9999, discount_pct=50.01, deal_score=71, median_90_minor=7999, below_median_pct=37.5, layout="qwertz",
        product_group="keyboards", rating_tenths=45, review_count=210, score_parts={"below_median": 30, "rating": None},
    )  # fmt: skip
    add_deal(
        engine, asin="B000000002", changed_at=before(hours=3), announced_at=before(hours=2), title="Schutzhülle für Tastatur",
        brand="=Hülle", amount_minor=999, discount_pct=10, deal_score=12, category_path=("Computer & Zubehör", "Schutzhüllen"),
    )  # fmt: skip
    add_deal(
        engine, asin="B000000003", changed_at=before(hours=2), announced_at=before(hours=1), title="Logitech Keyboard", brand="Logitech",
        amount_minor=8999, deal_score=40, price_type=PriceType.AMAZON,
    )  # fmt: skip
    add_deal(
        engine, asin="B000000004", changed_at=before(days=9), announced_at=before(days=9), ended_at=before(days=8),
        title="Cherry Tastatur, vorbei", deal_score=60,
    )  # fmt: skip
    add_deal(
        engine, asin="B000000005", changed_at=before(hours=1), announced_at=None, is_glitch=True, title="Cherry Tastatur, Fehler",
        amount_minor=12, deal_score=5,
    )  # fmt: skip


def asins(found: Any) -> list[str]:
    return [deal["asin"][-1] for deal in found]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({}, ["3", "2", "1"]),
        ({"includes_glitches": True}, ["5", "3", "2", "1"]),
        ({"text": "tastatur", "sort": "score"}, ["1", "2"]),
        ({"text": "Tastaturr", "sort": "price"}, ["2", "1"]),
        ({"price_from": 10, "price_to": 89.99, "sort": "-price"}, ["3", "1"]),
        ({"discount_from": 10, "discount_to": 50}, ["2"]),
        ({"below_median_from": 30, "reviews_from": 100, "score_from": 50, "layouts": ["qwertz"], "group": "keyboards"}, ["1"]),
        ({"price_type": "AMAZON"}, ["3"]),
        ({"brands": ["LOGITECH"]}, ["3"]),
        ({"text": "vorbei"}, []),
        ({"text": "vorbei", "includes_ended": True}, ["4"]),
        ({"marketplace": "FR"}, []),
    ],
    ids=str,
)
def test_deals_are_searched(shop: None, anna: Person, body: Any, found: list[str]) -> None:
    page = anna.post("/api/v1/deals/search", body, status=200)
    assert asins(page["deals"]) == found
    assert page["total"] == len(found)


def test_pages_follow_by_their_cursor(shop: None, anna: Person) -> None:
    asked: dict[str, Any] = {"sort": "score", "limit": 1, "facets": True}
    found, cursor = [], None
    for _ in range(10):
        page = anna.post("/api/v1/deals/search", asked | {"cursor": cursor}, status=200)
        found += asins(page["deals"])
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == ["1", "3", "2"]
    assert {one["value"]: one["hits"] for one in page["facets"]["brand"]} == {"Cherry": 1, "=Hülle": 1, "Logitech": 1}


def test_a_hit_tells_what_the_deal_is_worth(shop: None, anna: Person) -> None:
    [hit] = anna.post("/api/v1/deals/search", {"text": "cherry", "score_from": 50}, status=200)["deals"]
    assert (hit["price"], hit["price_minor"], hit["list_price"], hit["currency"]) == (49.99, 4999, 99.99, "EUR")
    assert (hit["median_90"], hit["below_median_pct"], hit["score"], hit["layout"]) == (79.99, 37.5, 71, "qwertz")
    assert hit["link"] == "https://www.amazon.de/dp/B000000001"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"text": "?!"}, "body.text"),
        ({"price_from": 5, "price_to": 4}, "body.price_to"),
        ({"cursor": "abc"}, "body.cursor"),
        ({"colour": "red"}, "body.colour"),
        ({"price_type": "RATING"}, "body.price_type"),
        ({"limit": "5"}, "body.limit"),
    ],
    ids=str,
)
def test_what_cannot_be_searched_names_its_field(anna: Person, body: Any, field: str) -> None:
    assert anna.post("/api/v1/deals/search", body, status=422)["errors"][0]["field"] == field


def test_without_elasticsearch_its_search_says_what_works(anna: Person) -> None:
    told = anna.post("/api/v1/deals/es-search", {}, status=503)
    assert told["type"] == "urn:keeper:problem:search-not-configured"
    assert "POST /api/v1/deals/search" in told["hint"]


@pytest.fixture
def make_searching(settings: Settings, client_of: ClientOf) -> Iterator[Callable[[str, str, str], httpx.Client]]:
    """A client of an API with Elasticsearch at this address."""
    served = []

    def make(url: str, prefix: str, key: str) -> httpx.Client:
        search = settings.elasticsearch.model_copy(update={"url": (url,), "index_prefix": prefix})
        one = serve(create_app(settings.model_copy(update={"elasticsearch": search})))
        served.append(one)
        return client_of(one.__enter__(), key)

    yield make
    for one in served:
        one.__exit__(None, None, None)


def test_both_searches_answer_the_same(
    shop: None, anna: Person, engine: Engine, elasticsearch: ElasticsearchService, make_searching: Callable[[str, str, str], httpx.Client]
) -> None:
    connection = SearchConnection((elasticsearch.url,), index_prefix=elasticsearch.prefix)
    client = open_client(connection)
    connect(client, connection)
    writer = BulkWriter(client, connection, requires_alias=True)
    documents = [(row.id, row.version, row.body.encode()) for page in walk_deals(engine, page=100) for row in page]
    assert [one.refusal for one in write_documents(writer, alias_name(connection, Alias.DEALS), documents) if one.refusal] == []
    refresh(client, connection, alias_name(connection, Alias.DEALS))
    client.close()
    both = make_searching(elasticsearch.url, elasticsearch.prefix, anna.key)

    for body in (
        {},
        {"text": "tastatur", "sort": "score"},
        {"layouts": ["qwertz"]},
        {"below_median_from": 10, "facets": True},
        {"includes_glitches": True},
    ):
        ours, theirs = (both.post(f"/api/v1/deals/{name}", json=body) for name in ("search", "es-search"))
        assert theirs.status_code == 200, theirs.text
        assert theirs.json() == ours.json()


def test_while_elasticsearch_is_away_postgresql_answers(
    shop: None, anna: Person, make_searching: Callable[[str, str, str], httpx.Client]
) -> None:
    client = make_searching("http://127.0.0.1:9", "", anna.key)
    away = client.post("/api/v1/deals/es-search", json={})
    assert (away.status_code, away.json()["type"]) == (503, "urn:keeper:problem:search-down")
    assert "Retry-After" in away.headers and "POST /api/v1/deals/search" in away.json()["hint"]
    assert len(client.post("/api/v1/deals/search", json={}).json()["deals"]) == 3


def test_running_deals_are_counted(shop: None, anna: Person) -> None:
    found = anna.get("/api/v1/deals/aggregations")
    assert {one["value"]: one["count"] for one in found["by_brand"]} == {"Cherry": 1, "=Hülle": 1, "Logitech": 1}
    assert found["by_category"][0] == {
        "value": "Tastaturen", "count": 2, "currency": "EUR", "average_price": 69.99, "median_price": 49.99, "largest_discount_pct": 50.01,
    }  # fmt: skip
    assert [(one["value"], one["count"]) for one in found["by_discount"]] == [("10-25", 1), ("50-75", 1)]
    assert [(one["value"], one["count"], one["currency"]) for one in found["by_marketplace"]] == [("DE", 3, "EUR")]
    assert asins(found["top_discounts"]) == ["1", "2"]
    everything = anna.get("/api/v1/deals/aggregations", includes_glitches="true")
    assert [(one["value"], one["count"]) for one in everything["by_marketplace"]] == [("DE", 4)]
    assert anna.get("/api/v1/deals/aggregations", marketplace="FR")["by_brand"] == []
    assert [one["count"] for one in anna.get("/api/v1/deals/aggregations", group="keyboards")["by_brand"]] == [1]


def test_titles_of_deals_are_suggested(shop: None, anna: Person) -> None:
    assert anna.get("/api/v1/deals/suggest", text="schutz") == {"titles": ["Schutzhülle für Tastatur"]}


def test_one_deal_tells_its_score_and_when_it_was_seen(shop: None, anna: Person, engine: Engine) -> None:
    [hit] = anna.post("/api/v1/deals/search", {"layouts": ["qwertz"]}, status=200)["deals"]
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO deal_sightings SELECT asin, marketplace, price_type, changed_at, first_seen_at, 'keyboards-de', 17 "
                "FROM collected_deals WHERE asin = 'B000000001'"
            )
        )
    deal = anna.get(f"/api/v1/deals/{hit['deal_id']}")
    assert deal["score_parts"] == {"below_median": 30, "rating": None}
    assert [(one["query"], one["sales_rank"]) for one in deal["seen"]] == [("keyboards-de", 17)]
    assert (deal["median_90"], deal["announced_at"] is not None, deal["ended_at"]) == (79.99, True, None)

    answered = anna.ask("GET", f"/api/v1/deals/{hit['deal_id']}")
    again = anna.ask("GET", f"/api/v1/deals/{hit['deal_id']}", headers={"If-None-Match": answered.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("deal_id", ["B000000009-DE-NEW-1795173360", "B000000001-XX-NEW-9999999999", "nonsense", "B000000001-DE-NEW-x"])
def test_a_deal_that_is_not_there(anna: Person, deal_id: str) -> None:
    assert anna.ask("GET", f"/api/v1/deals/{deal_id}").status_code == 404


POSTED = {
    "asin": "B00OCMRV40", "price": 39.99, "list_price": 79.99, "title": "Cherry KC 1000 Tastatur", "brand": "Cherry", "rating": 4.5,
    "review_count": 100, "sales_rank": 55,
}  # fmt: skip


@pytest.fixture
def root(api_url: str, make_person: MakePerson) -> Person:
    return make_person(api_url, "root", is_admin=True)


def test_a_posted_deal_is_judged_kept_and_found(root: Person, anna: Person) -> None:
    taken = root.post("/api/v1/deals/index", POSTED, key="one")
    assert (taken["is_new"], taken["is_announced"]) == (True, True)
    deal = anna.get(f"/api/v1/deals/{taken['deal_id']}")
    assert (deal["price"], deal["discount_pct"], deal["source"], deal["group"]) == (39.99, 50.01, "posted", "keyboards")
    assert deal["score"] is not None and deal["score_parts"]
    assert asins(anna.post("/api/v1/deals/search", {"text": "cherry kc"}, status=200)["deals"]) == ["0"]
    assert root.post("/api/v1/deals/index", POSTED, key="one") == taken


def test_the_same_posted_again_is_known(root: Person) -> None:
    since = before(hours=3).isoformat()
    first = root.post("/api/v1/deals/index", POSTED | {"since": since})
    again = root.post("/api/v1/deals/index", POSTED | {"since": since})
    assert (first["deal_id"], first["is_new"], again["is_new"], again["is_announced"]) == (again["deal_id"], True, False, False)


def test_a_later_price_is_not_undone(root: Person) -> None:
    root.post("/api/v1/deals/index", POSTED | {"since": before(hours=1).isoformat()})
    told = root.post("/api/v1/deals/index", POSTED | {"price": 29.99, "since": before(hours=5).isoformat()}, status=422)
    assert "a later price" in told["detail"]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"since": "2031-01-01T00:00:00Z"}, "since"),
        ({"since": "1990-01-01T00:00:00Z"}, "since"),
        ({"since": "2026-01-01T00:00:00"}, "since"),
        ({"price": 0}, "price"),
        ({"price": 1.005}, "price"),
        ({"marketplace": "JP"}, "JPY"),
        ({"price_type": "SALES_RANK"}, "price_type"),
        ({"title": ""}, "title"),
        ({"image_url": "javascript:alert(1)"}, "image_url"),
        ({"asin": "short"}, "asin"),
        ({"rank": 3}, "rank"),
    ],
    ids=str,
)
def test_a_posted_deal_that_cannot_be_is_refused(root: Person, change: Any, part: str) -> None:
    assert part in root.post("/api/v1/deals/index", POSTED | change, status=422)["detail"]


def test_only_an_admin_posts_deals_and_builds_indices(anna: Person) -> None:
    assert anna.post("/api/v1/deals/index", POSTED, status=403)["type"] == "urn:keeper:problem:scope-missing"
    assert anna.post("/api/v1/reindex", {"alias": "keeper-deals"}, status=403)["type"] == "urn:keeper:problem:scope-missing"


def test_an_index_is_built_anew_by_a_run(deployed: str, root: Person) -> None:
    told = root.post("/api/v1/reindex", {"alias": "keeper-deals"}, key="r", status=202)
    with httpx.Client(base_url=deployed, timeout=30) as client:
        run = client.get(f"/flow_runs/{told['run_id']}").raise_for_status().json()
    assert (run["parameters"], run["name"], told["alias"]) == ({"alias": "keeper-deals"}, told["name"], "keeper-deals")
    assert root.post("/api/v1/reindex", {"alias": "keeper-deals"}, key="r", status=202) == told
    assert "body.alias" in root.post("/api/v1/reindex", {"alias": "watches"}, status=422)["detail"]


RULES = {
    "words": "cherry tastatur", "exclude_words": "hülle", "marketplaces": ["DE"], "price_to": 50, "discount_from": 20.5, "score_from": 40,
    "layouts": ["qwertz"], "price_types": ["NEW"],
}  # fmt: skip


def test_a_filter_is_kept_as_it_was_sent(anna: Person) -> None:
    kept = anna.post("/api/v1/deals/filters", {"name": " Cherry  unter 50 ".strip(), "rules": RULES, "is_instant": True}, key="f")
    assert kept["rules"] == RULES
    assert (kept["name"], kept["is_active"], kept["is_instant"], kept["problem"]) == ("Cherry unter 50", True, True, None)
    assert anna.post("/api/v1/deals/filters", {"name": "Cherry  unter 50", "rules": RULES, "is_instant": True}, status=409)
    assert anna.get(f"/api/v1/deals/filters/{kept['id']}") == kept
    assert anna.get("/api/v1/deals/filters") == {"filters": [kept]}


def test_a_filter_is_replaced_and_removed(anna: Person) -> None:
    path = f"/api/v1/deals/filters/{anna.post('/api/v1/deals/filters', {'name': 'a', 'rules': RULES})['id']}"
    changed = anna.ask("PUT", path, json={"name": "b", "rules": {"rank_to": 100}, "is_active": False}).json()
    assert (changed["name"], changed["rules"], changed["is_active"]) == ("b", {"rank_to": 100}, False)
    assert anna.ask("DELETE", path).status_code == 204
    assert anna.ask("GET", path).json()["type"] == "urn:keeper:problem:filter-unknown"


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ({"price_to": 50}, "body.rules.price_to"),
        ({"price_to": 50, "marketplaces": ["DE", "UK"]}, "body.rules.price_from"),
        ({"words": "?!"}, "body.rules.words"),
        ({"discount_from": 50, "discount_to": 20}, "body.rules.discount_to"),
        ({"colour": "red"}, "body.rules.colour"),
        ({"price_types": ["RATING"]}, "body.rules.price_types.0"),
    ],
    ids=str,
)
def test_a_filter_that_cannot_be_names_its_field(anna: Person, rules: Any, field: str) -> None:
    told = anna.post("/api/v1/deals/filters", {"name": "a", "rules": rules}, status=422)
    assert told["errors"][0]["field"] == field.replace("price_from", "price_to")


def test_a_filter_from_elsewhere_that_cannot_be_read_says_so(anna: Person, engine: Engine) -> None:
    kept = anna.post("/api/v1/deals/filters", {"name": "a", "rules": {}})
    with engine.begin() as connection:
        connection.execute(text("UPDATE deal_filters SET rules = CAST(:rules AS jsonb)"), {"rules": json.dumps({"colour": "red"})})
    shown = anna.get(f"/api/v1/deals/filters/{kept['id']}")
    assert shown["rules"] is None
    assert shown["problem"].startswith("colour: is no rule")


def test_a_preview_shows_what_a_filter_would_have_found(shop: None, anna: Person) -> None:
    found = anna.post("/api/v1/deals/preview", {"words": "cherry tastatur"}, status=200)
    assert (found["total"], asins(found["best"])) == (2, ["1", "4"])
    assert sum(one["deals"] for one in found["by_day"]) == 2
    assert anna.get("/api/v1/deals/filters") == {"filters": []}
    assert anna.post("/api/v1/deals/preview", {"price_to": 5}, status=422)["errors"][0]["field"] == "body.price_to"


def test_at_most_200_filters_are_kept(anna: Person, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO deal_filters (user_id, name) SELECT :user_id, n::text FROM generate_series(1, 200) n"),
            {"user_id": anna.user_id},
        )
    assert anna.post("/api/v1/deals/filters", {"name": "a", "rules": {}}, status=409)["type"] == "urn:keeper:problem:too-many-filters"


def feed_path(person: Person, engine: Engine, ending: str, **rules: Any) -> str:
    kept = person.post("/api/v1/deals/filters", {"name": f"{ending} & <b>", "rules": rules})
    return f"/api/v1/feeds/{make_key_of(engine, person, Scope.FEED)}/deals/{kept['id']}.{ending}"


@pytest.fixture
def reader(api_url: str, client_of: ClientOf) -> httpx.Client:
    """Without any header that says who it is."""
    return client_of(api_url, None)


def test_a_filter_is_an_atom_feed(shop: None, anna: Person, engine: Engine, reader: httpx.Client) -> None:
    answered = reader.get(feed_path(anna, engine, "atom", words="tastatur"))
    assert answered.status_code == 200, answered.text
    assert answered.headers["Content-Type"].startswith("application/atom+xml")
    assert answered.headers["Cache-Control"].startswith("private")
    feed = ElementTree.fromstring(answered.content)  # noqa: S314  our own
    ids = [one.findtext(f"{ATOM}id") for one in feed.iter(f"{ATOM}entry")]
    assert [str(one).split(":")[-1][:10] for one in ids] == ["B000000002", "B000000001", "B000000004"]
    assert anna.key not in answered.text and "keeper_" not in answered.text


def test_a_filter_is_a_table(shop: None, anna: Person, engine: Engine, reader: httpx.Client) -> None:
    answered = reader.get(feed_path(anna, engine, "csv", words="tastatur"))
    assert answered.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answered.text, newline="")))
    assert [row["asin"][-1] for row in rows] == ["2", "1", "4"]
    assert rows[0]["brand"] == "'=Hülle"


@pytest.mark.parametrize("ending", ["atom", "csv"])
def test_a_reader_that_knows_the_feed_is_told_so(shop: None, anna: Person, engine: Engine, reader: httpx.Client, ending: str) -> None:
    path = feed_path(anna, engine, ending)
    first = reader.get(path)
    again = reader.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert again.headers["Cache-Control"].startswith("private")


def test_a_feed_opens_with_its_owners_feed_key_alone(
    anna: Person, ben: Person, engine: Engine, reader: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    path = feed_path(anna, engine, "atom")
    filter_id = path.rpartition("/")[2]
    bens = make_key_of(engine, ben, Scope.FEED)
    unknown = f"keeper_{'x' * 43}"
    for key, status in ((bens, 404), (anna.key, 403), (unknown, 401), ("nonsense", 422)):
        answered = reader.get(f"/api/v1/feeds/{key}/deals/{filter_id}")
        assert answered.status_code == status, answered.text
        assert key not in answered.text and key not in caplog.text
    mine = path.split("/")[4]
    assert reader.get("/api/v1/watches", headers={"X-API-Key": mine}).status_code == 403


def test_a_revoked_key_closes_the_feed(anna: Person, engine: Engine, reader: httpx.Client) -> None:
    path = feed_path(anna, engine, "atom")
    assert reader.get(path).status_code == 200
    [key_id] = [one["id"] for one in anna.get("/api/v1/api-keys")["api_keys"] if one["scope"] == "feed"]
    anna.ask("DELETE", f"/api/v1/api-keys/{key_id}")
    assert reader.get(path).status_code == 401


def test_a_filter_that_is_switched_off_tells_nothing(shop: None, anna: Person, engine: Engine, reader: httpx.Client) -> None:
    path = feed_path(anna, engine, "csv")
    filter_id = path.rpartition("/")[2].partition(".")[0]
    anna.ask("PUT", f"/api/v1/deals/filters/{filter_id}", json={"name": "x", "rules": {}, "is_active": False})
    assert len(reader.get(path).text.splitlines()) == 1


def test_feeds_without_keys_are_for_this_machine(shop: None, make_api: MakeApi, anna: Person, client_of: ClientOf) -> None:
    kept = anna.post("/api/v1/deals/filters", {"name": "x", "rules": {}})
    client = client_of(make_api(auth="off", user="anna"), None)
    path = f"/api/v1/feeds/keeper_{'x' * 43}/deals/{kept['id']}.atom"
    assert client.get(path).status_code == 200
    assert client.get(path, headers={"X-Forwarded-For": "1.2.3.4"}).status_code == 403
