"""Claims about the client and the simulator's deals over real HTTP."""

from collections.abc import Iterator

import pytest

from keeper.domain.deal import DateRange, DealQuery, sighting_of
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.keepa.answer import DealAnswer
from keeper.keepa.client import KeepaClient
from keeper.simulator.server import Simulator

KEY = "s" * 64


@pytest.fixture
def client(simulator: Simulator) -> Iterator[KeepaClient]:
    with KeepaClient(KEY, base_url=simulator.url) as made:
        yield made


def pages(client: KeepaClient, query: DealQuery) -> list[DealAnswer]:
    found = [client.fetch_deals(query)]
    while not found[-1].is_last:
        found.append(client.fetch_deals(query, len(found)))
    return found


@pytest.mark.parametrize("price_type", [PriceType.NEW, PriceType.AMAZON, PriceType.USED, PriceType.BUY_BOX_SHIPPING])
def test_every_row_of_the_feed_is_read_whole(client: KeepaClient, price_type: PriceType) -> None:
    for answer in pages(client, DealQuery("any", Marketplace.DE, price_type, DateRange.QUARTER)):
        assert (len(answer.sightings), answer.unreadable, answer.skipped, answer.dropped) == (answer.row_count, {}, (), {})
        assert answer.tokens.tokens_consumed == 5


def test_a_query_is_kept_to(client: KeepaClient) -> None:
    query = DealQuery(
        "cheap",
        Marketplace.DE,
        date_range=DateRange.QUARTER,
        price_from_minor=1000,
        price_to_minor=5000,
        fall_pct_from=10,
        rating_from_tenths=30,
    )
    sightings = [one for answer in pages(client, query) for one in answer.sightings]
    assert sightings
    assert all(1000 <= one.amount_minor <= 5000 and (one.rating_tenths or 0) >= 30 for one in sightings)
    assert all(one.averages_minor[90] * 0.905 >= one.amount_minor for one in sightings)
    assert [one.changed_minute for one in sightings] == sorted((one.changed_minute for one in sightings), reverse=True)


def test_the_feed_and_a_products_history_tell_the_same_deal(client: KeepaClient) -> None:
    told = {one.asin: one for one in client.fetch_deals(DealQuery("any", Marketplace.DE, date_range=DateRange.QUARTER)).sightings}
    asins = list(told)[:50]
    answer = client.fetch_products(asins, Marketplace.DE, stats_days=90, history_days=4000, update_hours=-1)
    compared = 0
    for asin, product in answer.products.items():
        own, feed = sighting_of(product, PriceType.NEW, product.answered_at), told[asin]
        assert own is not None
        assert (own.changed_minute, own.amount_minor, own.list_price_minor) == (
            feed.changed_minute,
            feed.amount_minor,
            feed.list_price_minor,
        )
        assert feed.previous_minor in (None, own.previous_minor)
        for days in (2, 7, 90):
            assert abs(own.averages_minor[days] - feed.averages_minor[days]) <= 2
        compared += 1
    assert compared > 10
