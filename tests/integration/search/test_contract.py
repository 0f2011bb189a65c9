"""What holds of every search, on PostgreSQL and on Elasticsearch, with the same shop in both."""

import base64
import json
import string
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from keeper.domain.errors import TransientError
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.domain.search import (
    DISCOUNT_BANDS_PCT,
    Cursor,
    FacetName,
    Position,
    SearchHit,
    SearchInvalid,
    SearchPage,
    SearchQuery,
    SearchSort,
    SearchSubject,
    band_name,
    encode_cursor,
    price_bands_minor,
)
from keeper.find import Searcher, find, suggest
from keeper.postgres.catalog import select_documents
from keeper.postgres.embedded import EmbeddedServer
from keeper.postgres.engine import open_engine
from keeper.postgres.search import PostgresSearcher
from keeper.search.bulk import BulkWriter, write_documents
from keeper.search.connection import SearchConnection, open_client
from keeper.search.indices import connect, refresh
from keeper.search.mapping import Alias, alias_name
from keeper.search.query import ElasticsearchSearcher
from tests.integration.search import catalog
from tests.integration.search.catalog import ARTICLES, DE, DEALS, UK, Article
from tests.services.elasticsearch import ElasticsearchCluster
from tests.services.session import lent_elasticsearch

PRODUCTS, OF_DEALS = SearchSubject.PRODUCTS, SearchSubject.DEALS
MOST = 100


@pytest.fixture(scope="module")
def shop(postgres: EmbeddedServer) -> Iterator[Engine]:
    """A database that holds the shop."""
    postgres.create_database("test_search_shop", template="template_keeper")
    engine = open_engine(postgres.dsn("test_search_shop"))
    catalog.fill_postgres(engine)
    yield engine
    engine.dispose()
    postgres.drop_database("test_search_shop")


@pytest.fixture(scope="module")
def elasticsearch_searcher(shop: Engine, elasticsearch_cluster: ElasticsearchCluster) -> Iterator[Searcher]:
    """Its product documents are composed as the enrichment does."""
    with lent_elasticsearch(elasticsearch_cluster) as lent:
        connection = SearchConnection((lent.url,), index_prefix=lent.prefix)
        client = open_client(connection)
        connect(client, connection)
        with shop.begin() as database:
            documents = select_documents(database, [article.asin for article in ARTICLES])
        writer = BulkWriter(client, connection, requires_alias=True)
        for alias, bodies in (
            (Alias.PRODUCTS, [(one.asin, one.revision, one.body.encode()) for one in documents]),
            (Alias.DEALS, catalog.deal_documents()),
        ):
            answers = write_documents(writer, alias_name(connection, alias), bodies)
            assert [answer.refusal for answer in answers if answer.refusal] == []
            refresh(client, connection, alias_name(connection, alias))
        yield ElasticsearchSearcher(client, connection)
        client.close()


def products(text: str = "", **asked: Any) -> SearchQuery:
    return SearchQuery(PRODUCTS, text, **({"limit": MOST} | asked))


def deals(text: str = "", **asked: Any) -> SearchQuery:
    return SearchQuery(OF_DEALS, text, **({"limit": MOST} | asked))


def asins(page: SearchPage) -> list[str]:
    return [hit.asin for hit in page.hits]


def those(*articles: Article) -> set[str]:
    return {article.asin for article in articles}


def stock(query: SearchQuery) -> list[SearchHit]:
    """What there is to be found of the subject in the marketplace, in no order."""
    if query.subject is PRODUCTS:
        return [
            article.hit(query.marketplace) for article in ARTICLES if query.marketplace in article.prices and article is not catalog.GONE
        ]
    return [
        deal.hit()
        for deal in DEALS
        if deal.marketplace is query.marketplace
        and (query.includes_ended or deal.ended_at is None)
        and (query.includes_glitches or deal.is_announced)
        and query.price_type in (None, deal.price_type)
    ]


def is_allowed(hit: SearchHit, query: SearchQuery) -> bool:
    """By every condition but the words."""
    price = None if hit.price is None else hit.price.amount_minor
    path = next(article.path for article in ARTICLES if article.asin == hit.asin)
    names = set(path) if query.subject is PRODUCTS else {path[-1]}
    return (
        (query.price_from_minor is None or (price is not None and price >= query.price_from_minor))
        and (query.price_to_minor is None or (price is not None and price <= query.price_to_minor))
        and (query.discount_from_pct is None or (hit.discount_pct or -1) >= query.discount_from_pct)
        and (query.rating_from is None or (hit.rating or -1) >= query.rating_from)
        and (not query.brands or (hit.brand or "").lower() in {brand.lower() for brand in query.brands})
        and (not query.categories or bool(names & set(query.categories)))
        and (query.discount_to_pct is None or 0 <= (-1 if hit.discount_pct is None else hit.discount_pct) <= query.discount_to_pct)
        and (query.below_median_from_pct is None or (hit.below_median_pct or -1) >= query.below_median_from_pct)
        and (query.reviews_from is None or (-1 if hit.review_count is None else hit.review_count) >= query.reviews_from)
        and (query.rank_to is None or (query.rank_to + 1 if hit.sales_rank is None else hit.sales_rank) <= query.rank_to)
        and (query.score_from is None or (-1 if hit.score is None else hit.score) >= query.score_from)
        and (not query.layouts or hit.layout in query.layouts)
        and query.group in (None, hit.group)
    )


def wanted(query: SearchQuery) -> list[SearchHit]:
    """All hits of a query without words, in order."""
    hits = [hit for hit in stock(query) if is_allowed(hit, query)]
    return sorted(hits, key=lambda hit: (_sort_value(hit, query.sort), hit.deal_id or hit.asin))


def _sort_value(hit: SearchHit, sort: SearchSort) -> float:
    nothing = float("inf")
    price = None if hit.price is None else hit.price.amount_minor
    newest = hit.changed_at or hit.seen_from
    assert isinstance(newest, datetime)
    match sort:
        case SearchSort.PRICE_ASCENDING:
            return nothing if price is None else price
        case SearchSort.PRICE_DESCENDING:
            return nothing if price is None else -price
        case SearchSort.DISCOUNT:
            return nothing if hit.discount_pct is None else -hit.discount_pct
        case SearchSort.RATING:
            return nothing if hit.rating is None else -hit.rating
        case SearchSort.SCORE:
            return nothing if hit.score is None else -hit.score
        case SearchSort.NEWEST | SearchSort.RELEVANCE:
            return -newest.timestamp()


def walk(searcher: Searcher, query: SearchQuery) -> list[SearchHit]:
    """All pages, one after the other."""
    hits: list[SearchHit] = []
    while True:
        page = find(searcher, query)
        hits += page.hits
        assert len(page.hits) <= query.limit
        if page.next_cursor is None:
            return hits
        assert len(hits) <= 10 * MOST
        query = replace(query, cursor=page.next_cursor)


def forged(query: SearchQuery, key: Any, *ids: Any) -> SearchQuery:
    return replace(query, cursor=encode_cursor(query, Cursor(Position(key, ids))))


CONDITIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "price from": {"price_from_minor": 4999},
    "price to": {"price_to_minor": 4999},
    "price between": {"price_from_minor": 2000, "price_to_minor": 9000},
    "no such price": {"price_from_minor": 4997, "price_to_minor": 4997},
    "pounds": {"marketplace": UK, "price_from_minor": 1999, "price_to_minor": 3999},
    "discount": {"discount_from_pct": 20},
    "rating": {"rating_from": 4.1},
    "brand": {"brands": ("Kinesis",)},
    "brand in other letters": {"brands": ("cherry",)},
    "one of several brands": {"brands": ("Perixx", "Gleich", "no such brand")},
    "category": {"categories": ("Schutzhüllen",)},
    "one of several categories": {"categories": ("Schutzhüllen", "Tastaturen")},
    "no such category": {"categories": ("Klaviere",)},
    "marketplace": {"marketplace": UK},
    "empty marketplace": {"marketplace": Marketplace.JP},
    "all together": {
        "price_from_minor": 1000,
        "price_to_minor": 20000,
        "discount_from_pct": 1,
        "rating_from": 3,
        "brands": ("LOGITECH", "Cherry", "KLIM"),
        "categories": ("Tastaturen",),
    },
}
CONDITIONS_ON_DEALS: dict[str, dict[str, Any]] = {
    "discount to": {"discount_to_pct": 49.99},
    "discount between": {"discount_from_pct": 10, "discount_to_pct": 40},
    "below the median": {"below_median_from_pct": 20},
    "not so far below": {"below_median_from_pct": 20.5},
    "reviews": {"reviews_from": 100},
    "rank": {"rank_to": 30},
    "score": {"score_from": 50},
    "half a point": {"score_from": 49.5},
    "layout": {"layouts": ("qwertz",)},
    "one of several layouts": {"layouts": ("qwerty-uk", "azerty", "none such")},
    "group": {"group": "keyboards"},
    "no such group": {"group": "pianos"},
    "all of a deal": {
        "discount_to_pct": 90,
        "below_median_from_pct": 1,
        "reviews_from": 1,
        "rank_to": 6000,
        "score_from": 10,
        "layouts": ("qwertz", "azerty"),
        "group": "keyboards",
    },
}
SORTS = [(subject, sort) for subject in SearchSubject for sort in SearchSort if subject is OF_DEALS or sort is not SearchSort.SCORE]
TEXTS: dict[str, tuple[str, set[str]]] = {
    "a word": ("Doppelpack", those(catalog.PLURAL)),
    "case": ("DOPPELPACK", those(catalog.PLURAL)),
    "all words must be there": ("perixx tastatur schwarz", those(catalog.SINGULAR)),
    "in any order": ("schwarz mechanische perixx", those(catalog.SINGULAR)),
    "plural finds singular": ("mechanische Tastaturen schwarz perixx", those(catalog.SINGULAR)),
    "singular finds plural": ("Tastatur Doppelpack", those(catalog.PLURAL)),
    "ending": ("mechanisch perixx", those(catalog.SINGULAR)),
    "umlaut": ("volle größe", those(catalog.LARGE)),
    "without umlaut": ("volle grosse", those(catalog.LARGE)),
    "umlaut in two letters": ("volle groesse", those(catalog.LARGE)),
    "swiss": ("volle Grösse", those(catalog.LARGE)),
    "german finds swiss": ("übergröße", those(catalog.SWISS)),
    "sharp s": ("weiss uebergroesse", those(catalog.SWISS)),
    "word of the brand": ("Cherry Chipkartenleser", those(catalog.BRAND_ONLY)),
    "words without phrase": ("flüsterleise Tasten Ziffernblock", those(catalog.QUIET_FIRST, catalog.QUIET_LAST)),
    "phrase": ('"flüsterleise Tasten"', those(catalog.QUIET_FIRST)),
    "phrase is stemmed": ('"Flüsterleisen Taste"', those(catalog.QUIET_FIRST)),
    "phrase and word": ('"und flüsterleise" Ziffernblock', those(catalog.QUIET_LAST)),
    "phrase in the wrong order": ('"Tasten flüsterleise"', set()),
    "small words count in a phrase": ('"Tasten und Ziffernblock"', those(catalog.QUIET_FIRST)),
    "half a quote": ('Doppelpack 27" Tastatur', set()),
    "signs around words": ("(Silikon) 100% *abwaschbar*", those(catalog.COVER)),
    "number": ("Advantage360", those(catalog.NO_OFFER)),
    "joined by a sign": ("30x10 Silikon", set()),
    "two words that no title has both of": ("Kinesis Braille", set()),
    "no such word": ("xqzzkwv", set()),
    "typo": ("Duppelpack", those(catalog.PLURAL)),
    "swapped letters": ("Doppelpakc", those(catalog.PLURAL)),
    "two letters off": ("Chipkartenlesar Kinesis", set()),
    "typo beside a right word": ("Perixx Mechanishe", those(catalog.SINGULAR)),
    "another word beside a typo": ("Kinesis Duppelpack", set()),
    "too far off": ("Doppelganger", set()),
}
HOSTILE = [
    "AND", "OR NOT", "a && b || c", "!(a & b)", "'; DROP TABLE products; --", "\\", "\\\\'", "title:*", "*", "?", "~", "^2", "[1 TO 2]",
    "{!x}", "foo:bar:*", "<->", "a <-> b", "%", "_", "%%s %(x)s :name", "((((", '"', '""', '"" ""', '"a', "a:*b", "/regex/", "+a -b",
    "\u202e", "\ufeff", "é́", "ß" * 150, "a" * 300, "1e999", "2.4GHz", "NULL", "<b>fett</b>", "&amp;", "http://a.b/c?d=e", "me@x.de",
    "日本語 キーボード", "клавиатура", "😀 Tastatur", "\t\n", "²³", "ﬁ", "İ",
]  # fmt: skip


class SearchContract:
    """Inherited once for each that searches."""

    @pytest.mark.parametrize(("text", "found"), TEXTS.values(), ids=TEXTS)
    def test_words_find(self, searcher: Searcher, text: str, found: set[str]) -> None:
        assert set(asins(find(searcher, products(text)))) == found

    @pytest.mark.parametrize("text", [text for text, found in TEXTS.values() if found])
    def test_words_find_the_deals_of_what_they_find(self, searcher: Searcher, text: str) -> None:
        found = next(found for other, found in TEXTS.values() if other == text)
        assert {hit.deal_id for hit in find(searcher, deals(text)).hits} == {hit.deal_id for hit in stock(deals()) if hit.asin in found}

    def test_a_mistyped_word_finds_what_the_right_one_does(self, searcher: Searcher) -> None:
        page = find(searcher, products("Keybord"))
        assert page.alike == ("Keybord",)
        assert set(asins(page)) >= set(asins(find(searcher, products("Keyboard"))))
        assert page.total == len(page.hits) >= 10

    def test_a_right_word_is_never_bent(self, searcher: Searcher) -> None:
        page = find(searcher, products("Tastatur"))
        assert page.alike == ()
        assert "Tastatur".lower() in (page.hits[0].title or "").lower()

    def test_a_right_word_elsewhere_is_bent_here(self, searcher: Searcher) -> None:
        assert asins(find(searcher, products("majestuch", marketplace=UK))) == [catalog.UK_ONLY.asin]
        assert find(searcher, products("majestouch")).hits == ()

    def test_a_title_of_these_words_comes_before_one_that_mentions_them(self, searcher: Searcher) -> None:
        page = find(searcher, products("Braille Vorlesetastatur"))
        assert asins(page) == [catalog.SHORT.asin, catalog.LONG.asin]

    @pytest.mark.parametrize("subject", SearchSubject)
    @pytest.mark.parametrize("asked", CONDITIONS.values(), ids=CONDITIONS)
    def test_conditions_hold(self, searcher: Searcher, subject: SearchSubject, asked: dict[str, Any]) -> None:
        query = SearchQuery(subject, limit=MOST, **asked)
        page = find(searcher, query)
        assert list(page.hits) == wanted(query)
        assert page.total == len(page.hits)

    @pytest.mark.parametrize("asked", CONDITIONS_ON_DEALS.values(), ids=CONDITIONS_ON_DEALS)
    def test_conditions_on_deals_hold(self, searcher: Searcher, asked: dict[str, Any]) -> None:
        query = deals(**asked)
        page = find(searcher, query)
        assert list(page.hits) == wanted(query)
        assert page.total == len(page.hits)

    def test_a_category_is_found_by_any_name_on_its_path_and_by_number(self, searcher: Searcher) -> None:
        assert len(find(searcher, products(categories=("Computer & Zubehör",))).hits) == len(stock(products()))
        assert asins(find(searcher, products(categories=("430172031",)))) == [catalog.COVER.asin]

    def test_a_product_that_keepa_cannot_see_is_not_there(self, searcher: Searcher) -> None:
        assert find(searcher, products("Verschollene Tastatur")).hits == ()
        assert suggest(searcher, PRODUCTS, "verscholl") == ()

    def test_words_and_conditions_hold_at_once(self, searcher: Searcher) -> None:
        page = find(searcher, products("geteilte Tastatur", price_to_minor=10000))
        assert page.hits == (catalog.AMAZON_ONLY.hit(DE),)

    def test_ended_deals_are_found_where_asked_for(self, searcher: Searcher) -> None:
        query = deals(includes_ended=True)
        assert list(find(searcher, query).hits) == wanted(query)
        assert any(hit.ended_at for hit in find(searcher, query).hits)

    def test_deals_that_are_not_announced_are_found_where_asked_for_only(self, searcher: Searcher) -> None:
        hidden = {deal.hit().deal_id for deal in DEALS if not deal.is_announced and deal.ended_at is None and deal.marketplace is DE}
        found = {includes: {hit.deal_id for hit in find(searcher, deals(includes_glitches=includes)).hits} for includes in (False, True)}
        assert hidden
        assert found[True] - found[False] == hidden

    def test_suggestions_of_deals_are_of_announced_ones(self, searcher: Searcher) -> None:
        untold = {deal.hit().title for deal in DEALS if not deal.is_announced and deal.marketplace is DE and deal.ended_at is None}
        told = {hit.title for hit in stock(SearchQuery(OF_DEALS))}
        for title in untold - told:
            assert title is not None
            assert title not in suggest(searcher, OF_DEALS, " ".join(title.split()[:3]), limit=20)
        assert untold - told

    def test_deals_of_one_price_type(self, searcher: Searcher) -> None:
        query = deals(price_type=PriceType.AMAZON)
        assert list(find(searcher, query).hits) == wanted(query) != []

    @pytest.mark.parametrize(("subject", "sort"), [one for one in SORTS if one[1] is not SearchSort.RELEVANCE])
    def test_hits_are_in_order_and_what_has_no_value_is_last(self, searcher: Searcher, subject: SearchSubject, sort: SearchSort) -> None:
        query = SearchQuery(subject, sort=sort, limit=MOST)
        assert list(find(searcher, query).hits) == wanted(query)

    @pytest.mark.parametrize(("subject", "sort"), SORTS)
    @pytest.mark.parametrize("text", ["", "tastatur", "keybord"])
    def test_pages_hold_everything_once(self, searcher: Searcher, subject: SearchSubject, text: str, sort: SearchSort) -> None:
        whole = find(searcher, SearchQuery(subject, text, sort=sort, limit=MOST))
        assert whole.next_cursor is None
        assert tuple(walk(searcher, SearchQuery(subject, text, sort=sort, limit=3))) == whole.hits

    def test_the_total_is_of_all_pages(self, searcher: Searcher) -> None:
        first = find(searcher, products("tastatur", limit=5))
        assert first.total == len(walk(searcher, products("tastatur", limit=5)))
        assert find(searcher, products("tastatur", limit=5, cursor=first.next_cursor)).total is None

    def test_a_full_last_page_has_no_next(self, searcher: Searcher) -> None:
        page = find(searcher, products("zwilling", limit=len(catalog.TIED)))
        assert len(page.hits) == len(catalog.TIED)
        assert page.next_cursor is None

    @pytest.mark.parametrize("subject", SearchSubject)
    @pytest.mark.parametrize("asked", CONDITIONS.values(), ids=CONDITIONS)
    def test_facets_count_the_hits(self, searcher: Searcher, subject: SearchSubject, asked: dict[str, Any]) -> None:
        query = SearchQuery(subject, has_facets=True, limit=1, **asked)
        facets = {facet.name: [(one.value, one.hits) for one in facet.counts] for facet in find(searcher, query).facets}
        hits = wanted(query)
        prices = [hit.price.amount_minor for hit in hits if hit.price is not None]
        discounts = [hit.discount_pct for hit in hits if hit.discount_pct is not None]
        assert facets[FacetName.BRAND] == _counted(hit.brand for hit in hits)
        assert facets[FacetName.CATEGORY] == _counted(hit.category for hit in hits)
        assert facets[FacetName.PRICE] == _banded(prices, price_bands_minor(query.marketplace.currency))
        assert facets[FacetName.DISCOUNT] == _banded(discounts, DISCOUNT_BANDS_PCT)
        everywhere = {
            place.value: len(wanted(replace(query, marketplace=place, price_from_minor=None, price_to_minor=None))) for place in Marketplace
        }
        assert facets[FacetName.MARKETPLACE] == _sorted({place: count for place, count in everywhere.items() if count})

    def test_facets_count_by_words_too(self, searcher: Searcher) -> None:
        page = find(searcher, products("keybord", has_facets=True))
        facets = {facet.name: [(one.value, one.hits) for one in facet.counts] for facet in page.facets}
        assert facets[FacetName.BRAND] == _counted(hit.brand for hit in page.hits)

    def test_nobody_counts_facets_unasked(self, searcher: Searcher) -> None:
        assert find(searcher, products()).facets == ()

    @pytest.mark.parametrize("subject", SearchSubject)
    def test_suggestions_begin_a_word(self, searcher: Searcher, subject: SearchSubject) -> None:
        assert set(suggest(searcher, subject, "zwill", limit=20)) == {
            hit.title for hit in stock(SearchQuery(subject)) if hit.asin in those(*catalog.TIED)
        }

    def test_every_word_of_a_beginning_counts(self, searcher: Searcher) -> None:
        assert suggest(searcher, PRODUCTS, "tast dopp") == (catalog.PLURAL.title,)

    def test_a_beginning_needs_no_umlauts(self, searcher: Searcher) -> None:
        assert suggest(searcher, PRODUCTS, "übergr") == suggest(searcher, PRODUCTS, "ubergr") == (catalog.SWISS.title,)

    def test_titles_that_begin_so_come_first_then_the_most_reviewed(self, searcher: Searcher) -> None:
        assert suggest(searcher, PRODUCTS, "ziffernb")[0] == catalog.QUIET_LAST.title
        assert suggest(searcher, PRODUCTS, "zwillin")[0] == catalog.TIED[-1].title

    def test_suggestions_are_of_one_marketplace(self, searcher: Searcher) -> None:
        assert suggest(searcher, PRODUCTS, "filco") == ()
        assert suggest(searcher, PRODUCTS, "filco", marketplace=UK) == (catalog.UK_ONLY.title,)

    def test_suggestions_are_bounded(self, searcher: Searcher) -> None:
        assert len(suggest(searcher, PRODUCTS, "tast", limit=3)) == 3

    @pytest.mark.parametrize("text", ["", " ", "a", "?!", "  b "])
    def test_too_short_a_beginning_suggests_nothing(self, searcher: Searcher, text: str) -> None:
        assert suggest(searcher, PRODUCTS, text) == ()

    @pytest.mark.parametrize("subject", SearchSubject)
    @pytest.mark.parametrize("text", HOSTILE)
    def test_no_text_is_a_syntax_error(self, searcher: Searcher, subject: SearchSubject, text: str) -> None:
        answer_or_named_error(lambda: find(searcher, SearchQuery(subject, text, has_facets=True, brands=(text,), categories=(text,))))
        answer_or_named_error(lambda: find(searcher, SearchQuery(subject, f'"{text}" {text}')))
        answer_or_named_error(lambda: suggest(searcher, subject, text))

    @given(text=st.text(max_size=40), subject=st.sampled_from(SearchSubject))
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors])
    def test_any_text_is_answered_or_named(self, searcher: Searcher, text: str, subject: SearchSubject) -> None:
        answer_or_named_error(lambda: find(searcher, SearchQuery(subject, text)))
        answer_or_named_error(lambda: suggest(searcher, subject, text))

    @given(
        key=st.integers(-(2**61), 2**61) | st.floats(allow_nan=False, allow_infinity=False, width=32),
        ids=st.lists(st.text(string.printable, max_size=20) | st.integers(-(2**61), 2**61), min_size=1, max_size=4),
        of=st.sampled_from(SORTS),
    )
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors])
    def test_a_forged_cursor_is_answered_or_named(
        self, searcher: Searcher, key: float, ids: list[str | int], of: tuple[SearchSubject, SearchSort]
    ) -> None:
        subject, sort = of
        answer_or_named_error(lambda: find(searcher, forged(SearchQuery(subject, "tastatur", sort=sort), key, *ids)))

    def test_a_cursor_belongs_to_its_query(self, searcher: Searcher) -> None:
        cursor = find(searcher, products("tastatur", limit=3)).next_cursor
        with pytest.raises(SearchInvalid, match="another query"):
            find(searcher, products("keyboard", limit=3, cursor=cursor))

    def test_a_cursor_of_mistyped_words_stays_with_them(self, searcher: Searcher) -> None:
        query = products("keybord", limit=3)
        first = find(searcher, query)
        second = find(searcher, replace(query, cursor=first.next_cursor))
        assert second.alike == ("keybord",)
        assert second.hits


class TestPostgres(SearchContract):
    """PostgreSQL."""

    @pytest.fixture
    def searcher(self, shop: Engine) -> Iterator[Searcher]:
        with shop.connect() as connection:
            yield PostgresSearcher(connection)


class TestElasticsearch(SearchContract):
    """Elasticsearch."""

    @pytest.fixture
    def searcher(self, elasticsearch_searcher: Searcher) -> Searcher:
        return elasticsearch_searcher

    def test_a_compound_is_found_by_its_part(self, searcher: Searcher) -> None:
        """Elasticsearch alone takes compounds apart."""
        assert catalog.SWISS.asin in asins(find(searcher, products("tastatur")))


def test_a_server_that_is_down_is_said_in_plain_words() -> None:
    connection = SearchConnection(("http://127.0.0.1:1",), timeout_seconds=1)
    client = open_client(connection)
    with pytest.raises(TransientError, match=r"Elasticsearch at http://127\.0\.0\.1:1 cannot be reached"):
        find(ElasticsearchSearcher(client, connection), products("tastatur"))
    client.close()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "%%%",
        "e30",
        "bnVsbA",
        "W10",
        "é",
        "A" * 5000,
        base64.urlsafe_b64encode(json.dumps([1, "x", [], "a", "b"]).encode()).decode(),
    ],
)
def test_a_cursor_that_is_none_of_ours_is_refused(shop: Engine, cursor: str) -> None:
    with shop.connect() as connection, pytest.raises(SearchInvalid, match="cursor: "):
        find(PostgresSearcher(connection), products(cursor=cursor))


def answer_or_named_error(ask: Callable[[], object]) -> None:
    try:
        ask()
    except SearchInvalid as error:
        assert error.field in ("text", "brands", "categories", "cursor")


def _counted(values: Any) -> list[tuple[str, int]]:
    return _sorted(Counter(value for value in values if value is not None))


def _sorted(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:20]


def _banded(values: list[Any], ends: tuple[int, ...]) -> list[tuple[str, int]]:
    counts = Counter(max(number for number, end in enumerate(ends) if value >= end) for value in values)
    return [(band_name(ends, number), counts[number]) for number in sorted(counts)]
