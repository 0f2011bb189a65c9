"""The list of products to be compared anew."""

from sqlalchemy import Engine

from keeper.maintain import Retention, maintain
from keeper.postgres.product_changes import note_changes
from tests.integration.makers import NOW, rows


def test_a_list_that_nobody_takes_from_is_no_longer_than_there_are_products(engine: Engine) -> None:
    for asins in (["B000000001", "B000000002"], ["B000000001"], ["B000000001"]):
        with engine.begin() as connection:
            note_changes(connection, asins)
    maintain(
        engine,
        now=NOW,
        retention=Retention(events=7, calls=90, ingested=8, dead_letters=90, sightings=90, deals=400, opportunities=400, reports=400),
    )
    assert rows(engine, "SELECT asin FROM product_changes ORDER BY seq") == ["B000000002", "B000000001"]
