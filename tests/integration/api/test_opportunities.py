"""Opportunities, the catalog and its figures over HTTP, at the paths of old and under /api/v1."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from api.app import create_app
from keeper.domain.marketplace import Marketplace
from keeper.domain.seller import InboundBand, SellerProfile, write_seller
from keeper.postgres.installation import select_now
from keeper.settings import Settings
from tests.integration.api.conftest import ClientOf, MakeApi, Person
from tests.integration.makers import ASIN, NOW, ago, product, run_record
from tests.integration.opportunities import add_comparison, add_opportunities, opportunity
from tests.services.api import serve

IT, ES = Marketplace.IT, Marketplace.ES
PATHS = ["", "/api/v1"]
# The golden case: a German seller who is registered in all and reclaims.
GOLDEN = SellerProfile(
    "DE",
    frozenset({"DE"}),
    reclaims_purchase_vat=True,
    preparation_minor=50,
    storage_minor=0,
    return_allowance_pct=Decimal(0),
    inbound=(InboundBand(None, None, None, 100),),
    wanted_roi_pct=Decimal(20),
)


def add_profile(engine: Engine, user_id: int, profile: SellerProfile = GOLDEN) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO seller_profiles (user_id, profile) VALUES (:id, CAST(:profile AS jsonb)) "
                "ON CONFLICT (user_id) DO UPDATE SET profile = excluded.profile, revision = seller_profiles.revision + 1"
            ),
            {"id": user_id, "profile": json.dumps(write_seller(profile))},
        )


def add_golden(engine: Engine, **facts: Any) -> int:
    """The golden case: 60.00 in Germany, 99.99 in Italy, 4.20 for Amazon's sending."""
    run_record(
        engine,
        product([(ago(days=400), 5000), (ago(days=300), 5500), (ago(days=2), 6000)], title="Tastatur", brand="Cherry", rating_tenths=45),
        product([(ago(days=2), 9999)], marketplace=IT, title="Tastiera", fba_pick_pack_minor=420, package_weight_g=900),
    )
    add_comparison(engine)
    [number] = add_opportunities(engine, opportunity(**facts))
    return number


@pytest.mark.parametrize("root", PATHS)
def test_an_opportunity_has_what_a_reseller_needs(anna: Person, engine: Engine, root: str) -> None:
    number = add_golden(engine, flags=("Amazon sells it",))

    page = anna.get(f"{root}/opportunities")

    [found] = page.pop("opportunities")
    assert page == {
        "total": 1,
        "next": None,
        "seller": "default",
        "considered": None,
        "comparison": 1,
        "compared_at": "2026-11-20T12:00:00Z",
    }
    wanted = {
        "id": number, "asin": ASIN, "title": "Tastiera", "brand": "Cherry", "source_market": "DE", "target_market": "IT",
        "source_price": 6000,
        "target_price": 9999, "source_currency": "EUR", "currency": "EUR", "margin": 3999, "margin_percentage": 66.65, "profit_minor": 1054,
        "roi_pct": 20.3, "profit_margin_pct": 10.54, "unknown": [], "is_stale": False, "doubts": [], "flags": ["Amazon sells it"],
        "score": 50, "score_parts": {"profit": 50}, "is_active": True, "best_margin": 3999, "best_profit_minor": 1054, "closed_why": None,
        "source_link": f"https://www.amazon.de/dp/{ASIN}", "target_link": f"https://www.amazon.it/dp/{ASIN}",
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize("root", PATHS)
def test_pages_follow_one_another(anna: Person, engine: Engine, root: str) -> None:
    many = [
        opportunity(asin=f"B{number:09d}", margin_pct=Decimal(number % 3), profit=None if number % 4 == 0 else number)
        for number in range(9)
    ]
    add_opportunities(engine, *many)

    for sort in ("margin", "profit", "roi", "score", "newest"):
        met: list[Any] = []
        path = f"{root}/opportunities?sort={sort}&limit=2"
        while path:
            page = anna.get(path)
            met += [one["id"] for one in page["opportunities"]]
            path = page["next"]
        assert met == [one["id"] for one in anna.get(f"{root}/opportunities", sort=sort)["opportunities"]]
        assert len(set(met)) == 9


def test_what_is_asked_for_is_found(anna: Person, engine: Engine) -> None:
    add_opportunities(
        engine,
        opportunity(),
        opportunity(target=ES, margin_pct=Decimal(12), roi_pct=Decimal(5), profit=100, category="electronics"),
        opportunity(target=Marketplace.FR, doubts=("another brand",)),
        opportunity(asin="B000000001", closed_at=NOW, closed_why="gap closed"),
    )

    def targets(**asked: Any) -> list[str]:
        return [one["target_market"] for one in anna.get("/opportunities", **asked)["opportunities"]]

    assert targets() == ["IT", "ES"]
    assert targets(min_margin=50) == targets(min_roi="20.30") == targets(min_profit=1000) == targets(target="IT") == ["IT"]
    assert targets(source="DE", category="electronics") == ["ES"]
    assert sorted(targets(include_doubtful=True)) == ["ES", "FR", "IT"]
    assert [one["closed_why"] for one in anna.get("/opportunities", is_active=False)["opportunities"]] == ["gap closed"]


@pytest.mark.parametrize(
    "query",
    [
        "sort=best",
        "min_roi=abc",
        "min_margin=1.234",
        "source=GB",
        "limit=0",
        "cursor=x",
        "category=A%20B",
        "is_active=false&sort=roi",
        "colour=red",
    ],
)
def test_what_cannot_be_asked_is_told(anna: Person, query: str) -> None:
    answered = anna.ask("GET", f"/opportunities?{query}")

    assert answered.status_code == 422, answered.text
    assert answered.headers["content-type"] == "application/problem+json"


def test_a_cursor_of_another_order_is_refused(anna: Person, engine: Engine) -> None:
    add_opportunities(engine, *(opportunity(asin=f"B{number:09d}") for number in range(3)))
    cursor = anna.get("/opportunities", limit=1)["next"].partition("cursor=")[2]

    assert anna.ask("GET", f"/opportunities?sort=roi&cursor={cursor}").json()["type"] == "urn:keeper:problem:cursor-invalid"


@pytest.mark.parametrize("path", ["/opportunities", "/opportunities/1/explain", "/products", f"/products/{ASIN}", "/stats"])
@pytest.mark.parametrize("root", PATHS)
def test_old_paths_need_a_key_like_the_new_ones(api_url: str, client_of: ClientOf, root: str, path: str) -> None:
    assert client_of(api_url, None).get(f"{root}{path}").status_code == 401


@pytest.mark.parametrize("root", PATHS)
def test_health_needs_none(api_url: str, client_of: ClientOf, root: str) -> None:
    assert client_of(api_url, None).get(f"{root}/health").json()["status"] == "ok"


@pytest.mark.parametrize("root", PATHS)
def test_the_golden_case_is_explained_part_by_part(anna: Person, engine: Engine, root: str) -> None:
    number = add_golden(engine)
    add_profile(engine, anna.user_id)

    told = anna.get(f"{root}/opportunities/{number}/explain")

    amounts = {part["name"]: part["amount_minor"] for part in told["parts"]}
    assert sum(amounts.values()) == told["profit_minor"] == 1054
    assert (amounts["sale"], amounts["referral fee"], amounts["FBA fee"], amounts["purchase"]) == (9999, -1500, -420, -6000)
    assert (told["naive_profit_minor"], told["naive_roi_pct"], told["opportunity"]["roi_pct"], told["seller"]) == (2499, 41.65, 20.3, "own")
    [referral] = [part["rows"] for part in told["parts"] if part["name"] == "referral fee"]
    assert (referral[0]["table"], referral[0]["key"], referral[0]["valid_from"]) == ("referral fee", "IT default", "2024-10-01")
    assert told["highest_purchase"]["wanted_roi_pct"] == 20
    assert 6000 < told["highest_purchase"]["wanted_roi"] < told["highest_purchase"]["break_even"] < 9999


def test_any_day_is_reckoned_by_its_own_tables(anna: Person, engine: Engine) -> None:
    number = add_golden(engine)
    add_profile(engine, anna.user_id)

    told = anna.get(f"/opportunities/{number}/explain", on="2024-09-30")

    assert (told["on"], told["profit_minor"]) == ("2024-09-30", None)
    assert "there is no referral fee of IT for default on 2024-09-30" in [part["why_unknown"] for part in told["parts"]]
    assert "referral fee" in told["opportunity"]["unknown"]


def test_an_opportunity_that_is_not_there_is_told(anna: Person) -> None:
    answered = anna.ask("GET", "/opportunities/77/explain")

    assert (answered.status_code, answered.json()["type"]) == (404, "urn:keeper:problem:opportunity-unknown")


def test_each_user_is_told_the_profit_of_their_own_seller(anna: Person, ben: Person, engine: Engine) -> None:
    """Who does not get purchase VAT back is left with 0.96."""
    add_golden(engine, profit=7777)
    add_profile(engine, anna.user_id, replace(GOLDEN, reclaims_purchase_vat=False))

    def told(person: Person, **asked: Any) -> Any:
        page = person.get("/opportunities", **asked)
        return page["seller"], page["considered"], [one["profit_minor"] for one in page["opportunities"]]

    assert told(ben) == ("default", None, [7777])
    assert told(anna) == ("own", 1, [96])
    assert told(anna, min_profit=97) == ("own", 1, [])
    assert told(anna, seller="default") == ("default", None, [7777])
    assert anna.get(f"/products/{ASIN}")["best_opportunity"]["profit_minor"] == 96
    assert [one["best_opportunity"]["profit_minor"] for one in anna.get("/products")["products"]] == [96]
    assert ben.get(f"/products/{ASIN}")["best_opportunity"]["profit_minor"] == 7777


def test_another_profile_counts_at_once(anna: Person, engine: Engine) -> None:
    add_golden(engine)
    add_profile(engine, anna.user_id)
    before = anna.get("/opportunities")["opportunities"][0]["profit_minor"]
    add_profile(engine, anna.user_id, SellerProfile("DE"))

    assert (before, anna.get("/opportunities")["opportunities"][0]["profit_minor"]) == (1054, None)


def test_own_profits_have_pages_and_orders_of_their_own(anna: Person, engine: Engine) -> None:
    run_record(
        engine,
        *(product([(NOW, 9000)], asin=f"B{number:09d}", marketplace=IT, fba_pick_pack_minor=300 + 10 * number) for number in range(7)),
    )
    add_opportunities(engine, *(opportunity(asin=f"B{number:09d}", profit=1) for number in range(7)))
    add_profile(engine, anna.user_id)
    met: list[Any] = []
    path = "/opportunities?sort=profit&limit=3"
    while path:
        page = anna.get(path)
        met += [one["profit_minor"] for one in page["opportunities"]]
        path = page["next"]

    assert len(met) == 7 and met == sorted(met, reverse=True) and len(set(met)) == 7


def test_an_answer_is_the_same_until_a_comparison_is_through(anna: Person, ben: Person, engine: Engine) -> None:
    add_golden(engine)
    first = anna.ask("GET", "/opportunities")
    add_opportunities(engine, opportunity(target=ES))

    again, bens = anna.ask("GET", "/opportunities"), ben.get("/opportunities")
    add_comparison(engine)
    after = anna.get("/opportunities")

    assert (again.json(), bens) == (first.json(), first.json())
    assert [one["target_market"] for one in after["opportunities"]] == ["ES", "IT"]
    assert after["comparison"] == 2


def test_an_answer_that_is_known_is_not_sent_again(anna: Person, engine: Engine) -> None:
    add_golden(engine)
    tag = anna.ask("GET", "/stats").headers["etag"]

    answered = anna.ask("GET", "/stats", headers={"If-None-Match": tag})

    assert (answered.status_code, answered.content) == (304, b"")


def test_a_product_is_shown_in_every_store(anna: Person, engine: Engine) -> None:
    number = add_golden(engine)

    page = anna.get(f"/products/{ASIN}")

    assert (page["title"], page["brand"], page["seller"]) == ("Tastatur", "Cherry", "default")
    assert list(page["markets"]) == ["DE", "IT"]
    german, italian = page["markets"]["DE"], page["markets"]["IT"]
    assert (german["price"], german["currency"], german["price_type"], german["rating"]) == (6000, "EUR", "NEW", 4.5)
    assert german["link"] == f"https://www.amazon.de/dp/{ASIN}"
    assert (italian["price"], italian["fba_fee_minor"], italian["package_weight_g"], italian["lowest_year_minor"]) == (9999, 420, 900, 9999)
    assert page["best_opportunity"]["id"] == number and [one["id"] for one in page["opportunities"]] == [number]


def test_the_least_of_a_year_is_the_price_that_was_in_force(anna: Person, engine: Engine) -> None:
    add_golden(engine)
    with engine.begin() as connection:
        age_days = (select_now(connection) - NOW).days

    # Which prices are a year old depends on the day the test is run; the oldest one is 400 days before NOW.
    assert anna.get(f"/products/{ASIN}")["markets"]["DE"]["lowest_year_minor"] in ([5000, 5500, 6000] if age_days > -800 else [])


def test_a_product_that_is_not_there_is_told(anna: Person) -> None:
    answered = anna.ask("GET", "/products/B0NOTHERE1")

    assert (answered.status_code, answered.json()["type"]) == (404, "urn:keeper:problem:product-unknown")


def test_words_are_searched_as_before(anna: Person, engine: Engine) -> None:
    add_golden(engine)

    assert [one["asin"] for one in anna.get("/api/v1/products/search", text="tastatur")["products"]] == [ASIN]
    assert anna.get("/api/v1/products/suggest", text="tast")["titles"] == ["Tastatur"]


def test_products_are_listed_by_asin_with_their_best_opportunity(anna: Person, engine: Engine) -> None:
    number = add_golden(engine)
    run_record(engine, *(product([(NOW, 100)], asin=f"A{number:09d}") for number in range(3)))

    met: list[Any] = []
    path = "/products?limit=2"
    while path:
        page = anna.get(path)
        met += page["products"]
        path = page["next"]

    assert [one["asin"] for one in met] == ["A000000000", "A000000001", "A000000002", ASIN]
    assert met[-1]["current_prices"] == {"DE": 6000, "IT": 9999}
    assert met[-1]["best_opportunity"]["id"] == number and met[0]["best_opportunity"] is None


def test_figures_say_what_there_is_and_how_old_the_rates_are(anna: Person, engine: Engine) -> None:
    add_golden(engine)
    add_opportunities(engine, opportunity(target=ES, profit=None), opportunity(target=Marketplace.FR, doubts=("another brand",)))
    with engine.begin() as connection:
        on = select_now(connection).date() - timedelta(days=9)
        connection.execute(
            text("INSERT INTO exchange_rates (currency, quoted_on, per_euro, source) VALUES ('GBP', :on, 0.85, 'test')"), {"on": on}
        )

    stats = anna.get("/stats")

    assert (stats["products"], stats["markets"]) == (1, 2)
    assert stats["opportunities"] == {"open": 3, "profitable": 1, "doubtful": 1, "unknown": 1}
    assert (stats["best_margin_percentage"], stats["best_profit_minor"], stats["comparison"]) == (66.65, 1054, 1)
    assert stats["by_pair"][0] == {"source_market": "DE", "target_market": "ES", "count": 1, "median_margin_percentage": 66.65}
    assert stats["rates"] == [{"currency": "GBP", "per_euro": 0.85, "quoted_on": str(on), "age_days": 9, "is_stale": True}]


@pytest.fixture
def away(settings: Settings) -> Iterator[str]:
    """The address of an API whose database is away."""
    gone = settings.model_copy(update={"database_url": SecretStr("postgresql://keeper@127.0.0.1:9/keeper")})
    with serve(create_app(gone)) as url:
        yield url


@pytest.mark.parametrize("path", ["/opportunities", "/products", f"/products/{ASIN}", "/stats"])
def test_without_its_database_it_says_what_still_works(away: str, client_of: ClientOf, path: str) -> None:
    answered = client_of(away, "keeper_" + "a" * 43).get(path)

    assert answered.status_code == 503
    assert answered.json()["type"] == "urn:keeper:problem:database-down"
    assert "GET /health and /docs work meanwhile" in answered.json()["hint"]
    assert int(answered.headers["retry-after"]) >= 1
    assert client_of(away, None).get("/health").status_code == 200


def test_a_page_of_an_allowed_origin_may_read_old_paths(make_api: MakeApi, anna: Person) -> None:
    url = make_api(cors_origins=("https://shop.example",))
    origin = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}

    allowed = httpx.options(f"{url}/opportunities", headers=origin)
    refused = httpx.options(f"{url}/opportunities", headers=origin | {"Origin": "https://evil.example"})
    read = httpx.get(f"{url}/stats", headers={"Origin": "https://shop.example", "Authorization": f"Bearer {anna.key}"})

    assert (allowed.status_code, refused.status_code, read.status_code) == (200, 400, 200)
    assert allowed.headers["access-control-allow-origin"] == read.headers["access-control-allow-origin"] == "https://shop.example"
