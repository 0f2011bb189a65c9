"""The ranking over HTTP: pages, parts of the score, and what cannot be asked."""

import pytest
from sqlalchemy import Engine

from keeper.domain.marketplace import Marketplace
from keeper.ranking import rank_products
from tests.integration.api.conftest import Person
from tests.integration.makers import NOW, product, run_record

RANKING = "/api/v1/products/ranking"


@pytest.fixture
def reader(anna: Person, engine: Engine) -> Person:
    """Somebody who asks for five ranked products."""
    for number in range(5):
        run_record(
            engine,
            product(
                asin=f"B00000000{number}", sales_rank=10 ** (number + 1), sales_rank_drops_30=60, monthly_sold=500, rating_tenths=45,
                review_count=1_000, root_category_id=7 if number else 8,
            ),
        )  # fmt: skip
    rank_products(engine, now=NOW)
    return anna


def test_the_best_sold_come_first_with_the_parts_of_their_score(reader: Person) -> None:
    found = reader.get(RANKING)
    best = found["products"][0]
    assert [one["asin"][-1] for one in found["products"]] == ["0", "1", "2", "3", "4"]
    assert (best["score"], best["score_parts"]) == (90, {"rank": 40, "drops": 25, "sold": 10, "reviews": 15})
    assert (best["sales_rank"], best["rating"], best["review_count"], best["title"]) == (10, 4.5, 1_000, "Tastatur")
    assert best["link"] == "https://www.amazon.de/dp/B000000000"


def test_pages_follow_one_another(reader: Person) -> None:
    asked, seen = f"{RANKING}?limit=2", []
    while asked:
        page = reader.get(asked)
        seen.append([one["asin"][-1] for one in page["products"]])
        asked = page["next"]
    assert seen == [["0", "1"], ["2", "3"], ["4"]]


def test_a_category_is_asked_for_by_its_number(reader: Person) -> None:
    assert [one["asin"][-1] for one in reader.get(RANKING, category=8)["products"]] == ["0"]


def test_a_store_without_ranked_products_has_an_empty_ranking(reader: Person) -> None:
    found = reader.get(RANKING, marketplace=Marketplace.FR)
    assert (found["products"], found["next"]) == ([], None)


@pytest.mark.parametrize("cursor", ["x", "cmFuazp4", "%00", "cmFuazo5OTk6QkFE"])
def test_a_cursor_that_is_none_is_refused(reader: Person, cursor: str) -> None:
    assert reader.ask("GET", RANKING, params={"cursor": cursor}).status_code == 422
