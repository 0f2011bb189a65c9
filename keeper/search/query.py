"""Search in Elasticsearch: the aliases `products` and `keeper-deals`, queries composed of values only, never of Lucene's own language."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from elasticsearch import Elasticsearch

from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_type import PriceType
from keeper.domain.search import (
    DISCOUNT_BANDS_PCT,
    LARGEST_TOTAL,
    MOST_COUNTS,
    Facet,
    FacetCount,
    FacetName,
    Found,
    Position,
    SearchHit,
    SearchInvalid,
    SearchQuery,
    SearchSort,
    SearchSubject,
    SearchTerm,
    band_name,
    price_bands_minor,
)
from keeper.search.connection import SearchConnection, plain_errors
from keeper.search.mapping import Alias, alias_name

_ALIASES: Final = {SearchSubject.PRODUCTS: Alias.PRODUCTS, SearchSubject.DEALS: Alias.DEALS}
_TITLES: Final = {SearchSubject.PRODUCTS: "title", SearchSubject.DEALS: "product_title"}
_IDS: Final = {SearchSubject.PRODUCTS: "asin", SearchSubject.DEALS: "deal_id"}
# After every real value in its order.
_NO_PRICE = (1 << 31) - 1
_NOTHING = -1000
_MOST_EXPANSIONS = 50

_Clause = dict[str, Any]


class ElasticsearchSearcher:
    """Searches with a client that somebody else opens and closes. Safe to share between threads.

    Every method may raise SearchDown (a TransientError) when nobody answers in time, and SearchRefused when we may not ask, or an alias
    is missing.
    """

    def __init__(self, client: Elasticsearch, connection: SearchConnection) -> None:
        self._client = client
        self._connection = connection

    def search(self, query: SearchQuery, terms: Sequence[SearchTerm], *, after: Position | None) -> Found:
        """See `keeper.find.Searcher`."""
        sort = query.sort if terms or query.sort is not SearchSort.RELEVANCE else SearchSort.NEWEST
        key, is_whole = _sort_key(query, sort)
        asked: dict[str, Any] = {
            "query": {"bool": {"must": _clauses(query, terms), "filter": _conditions(query) + _here(query)}},
            "sort": [key, {_IDS[query.subject]: "asc"}],
            "size": query.limit + 1,
            "track_total_hits": LARGEST_TOTAL if after is None else False,
            "track_scores": False,
        }
        if after is not None:
            is_ours = len(after.ids) == 1 and isinstance(after.ids[0], str) and (isinstance(after.key, int) or not is_whole)
            if not is_ours:
                raise SearchInvalid("cursor", "is not one that Keeper gave; begin without one")
            asked["search_after"] = [after.key, *after.ids]
        answer = self._ask(query.subject, asked)
        rows = answer["hits"]["hits"]
        hits = tuple(_hit(query.subject, row["_source"], query.marketplace) for row in rows[: query.limit])
        end = None
        if len(rows) > query.limit:
            last_key, *ids = rows[query.limit - 1]["sort"]
            end = Position(last_key, tuple(ids))
        return Found(hits, None if after is not None else min(answer["hits"]["total"]["value"], LARGEST_TOTAL), end)

    def select_unknown(self, query: SearchQuery, terms: Sequence[SearchTerm]) -> list[int]:
        """See `keeper.find.Searcher`."""
        title = _TITLES[query.subject]
        is_of_deals = query.subject is SearchSubject.DEALS
        everything = SearchQuery(query.subject, marketplace=query.marketplace, includes_ended=is_of_deals, includes_glitches=is_of_deals)
        answer = self._ask(
            query.subject,
            {
                "size": 0,
                "track_total_hits": False,
                "query": {"bool": {"filter": _conditions(everything) + _here(everything)}},
                "aggs": {str(number): {"filter": _said(term, title)} for number, term in enumerate(terms)},
            },
        )
        return [number for number in range(len(terms)) if not answer["aggregations"][str(number)]["doc_count"]]

    def count_facets(self, query: SearchQuery, terms: Sequence[SearchTerm]) -> tuple[Facet, ...]:
        """See `keeper.find.Searcher`. One question."""
        is_product = query.subject is SearchSubject.PRODUCTS
        price_ends = price_bands_minor(query.marketplace.currency)
        fields = _fields(query)
        here = {
            "filter": {"bool": {"filter": _here(query)}},
            "aggs": {
                FacetName.BRAND: {"terms": {"field": "brand.keyword", "size": MOST_COUNTS}},
                FacetName.CATEGORY: {"terms": {"field": "category", "size": MOST_COUNTS}},
                FacetName.PRICE: {"range": {"field": fields["price"], "ranges": _ranges(price_ends)}},
                FacetName.DISCOUNT: {"range": {"field": fields["discount"], "ranges": _ranges(DISCOUNT_BANDS_PCT)}},
            },
        }
        places: dict[str, Any] = (
            {"filters": {"filters": {one.value: {"bool": {"filter": _there(query, one)}} for one in Marketplace}}}
            if is_product
            else {"terms": {"field": "domain", "size": len(Marketplace)}}
        )
        if not is_product and query.discount_from_pct is not None:
            places = {"filter": _at_least("discount_percent", query.discount_from_pct), "aggs": {"there": places}}
        answer = self._ask(
            query.subject,
            {
                "size": 0,
                "track_total_hits": False,
                "query": {"bool": {"filter": [*_clauses(query, terms), *_conditions(query)]}},
                "aggs": {"here": here, "places": places},
            },
        )["aggregations"]
        found = answer["places"].get("there", answer["places"])["buckets"]
        counted = (
            [(key, one["doc_count"]) for key, one in found.items()]
            if isinstance(found, dict)
            else [(one["key"].upper(), one["doc_count"]) for one in found]
        )
        facets = {
            name: [(one["key"], one["doc_count"]) for one in answer["here"][name]["buckets"]]
            for name in (FacetName.BRAND, FacetName.CATEGORY)
        }
        facets[FacetName.MARKETPLACE] = sorted(counted, key=lambda one: (-one[1], one[0]))
        for name, ends in ((FacetName.PRICE, price_ends), (FacetName.DISCOUNT, DISCOUNT_BANDS_PCT)):
            bands = answer["here"][name]["buckets"]
            facets[name] = [(band_name(ends, number), bands[number]["doc_count"]) for number in range(len(ends))]
        return tuple(Facet(name, tuple(FacetCount(value, hits) for value, hits in facets[name] if hits)) for name in FacetName)

    def suggest(self, subject: SearchSubject, beginning: str, marketplace: Marketplace, *, limit: int) -> tuple[str, ...]:
        """See `keeper.find.Searcher`."""
        title = _TITLES[subject]
        everything = SearchQuery(subject, marketplace=marketplace)
        asked = {
            "query": {
                "bool": {
                    "filter": [
                        {"match": {f"{title}.prefix": {"query": beginning, "operator": "and"}}},
                        {"exists": {"field": f"{title}.keyword"}},
                        *_conditions(everything),
                        *_here(everything),
                    ],
                    "should": [
                        {"constant_score": {"filter": {"prefix": {f"{title}.keyword": {"value": beginning, "case_insensitive": True}}}}}
                    ],
                }
            },
            "sort": ["_score", {"review_count": {"order": "desc", "missing": "_last"}}, {f"{title}.keyword": "asc"}],
            "collapse": {"field": f"{title}.keyword"},
            "size": limit,
            "track_total_hits": False,
            "_source": [title],
        }
        return tuple(row["_source"][title] for row in self._ask(subject, asked)["hits"]["hits"])

    def _ask(self, subject: SearchSubject, asked: dict[str, Any]) -> Any:
        with plain_errors(self._connection):
            return self._client.search(
                index=alias_name(self._connection, _ALIASES[subject]),
                # Half an answer is none: counts and the order of pages would be wrong.
                allow_partial_search_results=False,
                **{("source" if name == "_source" else name): value for name, value in asked.items()},
            ).body


def _clauses(query: SearchQuery, terms: Sequence[SearchTerm]) -> list[_Clause]:
    title = _TITLES[query.subject]
    return [_said(term, title) for term in terms]


def _said(term: SearchTerm, title: str) -> _Clause:
    """A document that has the term in its title or its brand. Several words in one term follow each other."""
    if term.is_alike:
        return {
            "multi_match": {
                "query": term.words,
                "fields": [title, f"{title}.german", "brand"],
                "operator": "and",
                "fuzziness": "AUTO",
                "max_expansions": _MOST_EXPANSIONS,
                "zero_terms_query": "all",
            }
        }
    return {
        "multi_match": {
            "query": term.words,
            "fields": [f"{title}.german^2", "brand"],
            "type": "phrase",
            "zero_terms_query": "all",
        }
    }


def _fields(query: SearchQuery) -> dict[str, str]:
    place = query.marketplace.value
    if query.subject is SearchSubject.PRODUCTS:
        return {"price": f"current_prices.{place}", "discount": f"discount_percent.{place}", "newest": "first_seen"}
    return {"price": "current_price_minor", "discount": "discount_percent", "newest": "timestamp"}


def _conditions(query: SearchQuery) -> list[_Clause]:
    """What holds whatever the marketplace."""
    conditions: list[_Clause] = []
    if query.rating_from is not None:
        conditions.append(_at_least("rating", query.rating_from))
    if query.brands:
        conditions.append(_any([_is("brand.keyword", brand, ignores_case=True) for brand in query.brands]))
    if query.categories:
        fields = ("category_path", "category_ids") if query.subject is SearchSubject.PRODUCTS else ("category",)
        conditions.append(_any([{"terms": {field: list(query.categories)}} for field in fields]))
    if query.subject is SearchSubject.PRODUCTS:
        conditions.append({"term": {"is_active": True}})
    else:
        if not query.includes_ended:
            conditions.append({"bool": {"must_not": [{"exists": {"field": "ended_at"}}]}})
        if not query.includes_glitches:
            conditions.append({"exists": {"field": "announced_at"}})
        if query.price_type is not None:
            conditions.append(_is("price_type", query.price_type.value))
        if query.below_median_from_pct is not None:
            conditions.append(_at_least("below_median_percent", query.below_median_from_pct))
        if query.reviews_from is not None:
            conditions.append(_at_least("review_count", query.reviews_from))
        if query.rank_to is not None:
            conditions.append({"range": {"sales_rank": {"lte": query.rank_to}}})
        if query.score_from is not None:
            conditions.append(_at_least("deal_score", query.score_from))
        if query.layouts:
            conditions.append({"terms": {"layout": list(query.layouts)}})
        if query.group is not None:
            conditions.append(_is("product_group", query.group))
        if query.discount_to_pct is not None:
            conditions.append({"range": {"discount_percent": {"gte": 0, "lte": query.discount_to_pct}}})
    return conditions


def _here(query: SearchQuery) -> list[_Clause]:
    """What holds in one marketplace and its currency only."""
    conditions = _there(query, query.marketplace)
    if query.price_from_minor is not None or query.price_to_minor is not None:
        ends = {"gte": query.price_from_minor, "lte": query.price_to_minor}
        conditions.append({"range": {_fields(query)["price"]: {end: value for end, value in ends.items() if value is not None}}})
    return conditions


def _there(query: SearchQuery, place: Marketplace) -> list[_Clause]:
    """What can be asked of any marketplace."""
    if query.subject is SearchSubject.DEALS:
        conditions = [_is("domain", place.value.lower())]
        discount = "discount_percent"
    else:
        # A document names no marketplaces; it tells them by what it knows there.
        figures = ("current_prices", "list_prices", "sales_ranks")
        conditions = [_any([{"exists": {"field": f"{one}.{place}"}} for one in figures])]
        discount = f"discount_percent.{place}"
    if query.discount_from_pct is not None:
        conditions.append(_at_least(discount, query.discount_from_pct))
    return conditions


def _sort_key(query: SearchQuery, sort: SearchSort) -> tuple[_Clause, bool]:
    """The first key of the sort, never null, and whether its values are whole numbers."""
    fields = _fields(query)
    match sort:
        case SearchSort.RELEVANCE:
            return {"_score": {"order": "desc"}}, False
        case SearchSort.PRICE_ASCENDING:
            return {fields["price"]: {"order": "asc", "missing": _NO_PRICE}}, True
        case SearchSort.PRICE_DESCENDING:
            return {fields["price"]: {"order": "desc", "missing": _NOTHING}}, True
        case SearchSort.DISCOUNT:
            return {fields["discount"]: {"order": "desc", "missing": _NOTHING}}, False
        case SearchSort.RATING:
            return {"rating": {"order": "desc", "missing": _NOTHING}}, False
        case SearchSort.NEWEST:
            return {fields["newest"]: {"order": "desc", "missing": 0}}, True
        case SearchSort.SCORE:
            return {"deal_score": {"order": "desc", "missing": _NOTHING}}, False


def _is(field: str, value: str, *, ignores_case: bool = False) -> dict[str, Any]:
    return {"term": {field: {"value": value, "case_insensitive": ignores_case}}}


def _any(clauses: list[_Clause]) -> dict[str, Any]:
    return {"bool": {"should": clauses, "minimum_should_match": 1}}


def _at_least(field: str, value: float) -> dict[str, Any]:
    return {"range": {field: {"gte": value}}}


def _ranges(ends: Sequence[int]) -> list[dict[str, Any]]:
    return [{"from": end, "to": above} if above is not None else {"from": end} for end, above in zip(ends, [*ends[1:], None], strict=True)]


def _hit(subject: SearchSubject, source: Mapping[str, Any], marketplace: Marketplace) -> SearchHit:
    def money(amount_minor: int | None) -> Money | None:
        return None if amount_minor is None else Money(amount_minor, marketplace.currency)

    place = marketplace.value
    if subject is SearchSubject.PRODUCTS:
        return SearchHit(
            asin=source["asin"],
            marketplace=marketplace,
            title=source.get("title"),
            brand=source.get("brand"),
            category=source.get("category"),
            price=money(_of(source, "current_prices", place)),
            list_price=money(_of(source, "list_prices", place)),
            discount_pct=_of(source, "discount_percent", place),
            rating=source.get("rating"),
            review_count=source.get("review_count"),
            sales_rank=_of(source, "sales_ranks", place),
            image_url=source.get("image"),
            seen_from=_time(source.get("first_seen")),
            seen_until=_time(source.get("last_updated")),
        )
    price_type = source.get("price_type")
    return SearchHit(
        asin=source["asin"],
        marketplace=marketplace,
        title=source.get("product_title"),
        brand=source.get("brand"),
        category=source.get("category"),
        price=money(source.get("current_price_minor")),
        list_price=money(source.get("original_price_minor")),
        discount_pct=source.get("discount_percent"),
        rating=source.get("rating"),
        review_count=source.get("review_count"),
        sales_rank=source.get("sales_rank"),
        image_url=source.get("image"),
        seen_from=_time(source.get("first_seen")),
        seen_until=_time(source.get("last_seen")),
        deal_id=source.get("deal_id"),
        price_type=None if price_type is None else PriceType(price_type),
        changed_at=_time(source.get("timestamp")),
        ended_at=_time(source.get("ended_at")),
        score=source.get("deal_score"),
        layout=source.get("layout"),
        group=source.get("product_group"),
        median_90=money(source.get("median_90_minor")),
        below_median_pct=source.get("below_median_percent"),
        lowest_year=money(source.get("lowest_year_minor")),
        is_year_low=source.get("is_year_low"),
        is_all_time_low=source.get("is_all_time_low"),
        is_list_price_fiction=source.get("is_list_price_fiction"),
        is_glitch=source.get("is_glitch"),
    )


def _of(source: Mapping[str, Any], figures: str, place: str) -> Any:
    return (source.get(figures) or {}).get(place)


def _time(said: str | None) -> datetime | None:
    return None if said is None else datetime.fromisoformat(said)
