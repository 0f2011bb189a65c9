"""Search in PostgreSQL: words by the german dictionary without accents, mistyped ones by trigrams.

`product_texts` holds the words of `products`, `product_words` those a mistyped word may have meant; triggers keep both.
The price of a product is that of new goods, as its document has it: the first there is of NEW, AMAZON and BUY_BOX_SHIPPING.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, text
from sqlalchemy.engine import Row

from keeper.domain.events import deal_id_of
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
    is_alike,
    most_letters_off,
    price_bands_minor,
)

# Two letters off in a word of six leave about so much in common.
_LEAST_SIMILAR = 0.2
_MOST_ALIKE = 30
# Of a beginning that thousands of titles have, any so many are put in order.
_SUGGESTION_SAMPLE = 2000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# After every real value in its order.
_NO_PRICE = (1 << 31) - 1
_NOTHING = -1000
# Title before brand, short before long.
_RANK = "ts_rank('{0, 0, 0.5, 1}', t.words, CAST(:words AS tsquery), 1)::float8"
_KEY_TYPES = {
    SearchSort.RELEVANCE: "float8",
    SearchSort.PRICE_ASCENDING: "bigint",
    SearchSort.PRICE_DESCENDING: "bigint",
    SearchSort.DISCOUNT: "numeric",
    SearchSort.RATING: "bigint",
    SearchSort.NEWEST: "timestamptz",
    SearchSort.SCORE: "float8",
}
# As the document's is_active has it.
_IS_ACTIVE = "{table}.kind NOT IN ('inaccessible', 'invalid')"
_BY_PRICE = (SearchSort.PRICE_ASCENDING, SearchSort.PRICE_DESCENDING, SearchSort.DISCOUNT)
_PRODUCT_PRICE = "coalesce(n.amount_minor, a.amount_minor)"
_PRODUCT_DISCOUNT = (
    f"CASE WHEN l.amount_minor > {_PRODUCT_PRICE} THEN round((l.amount_minor - {_PRODUCT_PRICE}) * 100.0 / l.amount_minor, 2) END"
)


@dataclass(frozen=True, slots=True)
class _Table:
    """How one subject is read. `s` is its table.

    Attributes:
        prices: joins what `price` and `discount` name, where that is in other tables.
        words: joins the searched words as `t`.
        ids: what tells two hits of one marketplace apart.
    """

    source: str
    prices: str
    words: str
    ids: tuple[str, ...]
    price: str
    discount: str
    brand: str
    category: str
    has_category: str
    newest: str
    columns: str
    page: str


_TABLES: Final[Mapping[SearchSubject, _Table]] = {
    SearchSubject.PRODUCTS: _Table(
        source="products s",
        prices="""
            LEFT JOIN current_prices n ON n.asin = s.asin AND n.marketplace = s.marketplace AND n.price_type = 'NEW'
            LEFT JOIN LATERAL (
                SELECT c.amount_minor FROM current_prices c
                WHERE n.amount_minor IS NULL AND c.asin = s.asin AND c.marketplace = s.marketplace
                    AND c.price_type IN ('AMAZON', 'BUY_BOX_SHIPPING') AND c.amount_minor IS NOT NULL
                ORDER BY c.price_type LIMIT 1
            ) a ON true
            LEFT JOIN current_prices l ON l.asin = s.asin AND l.marketplace = s.marketplace AND l.price_type = 'LISTPRICE'""",
        words="JOIN product_texts t ON t.asin = s.asin AND t.marketplace = s.marketplace",
        ids=("s.asin",),
        price=_PRODUCT_PRICE,
        discount=_PRODUCT_DISCOUNT,
        brand="s.brand",
        category="s.category_path[cardinality(s.category_path)]",
        has_category="(s.category_path && CAST(:categories AS text[]) OR CAST(s.category_ids AS text[]) && CAST(:categories AS text[]))",
        newest="s.first_seen_at",
        columns=f"""s.asin, s.marketplace, s.title, s.brand, s.category_path[cardinality(s.category_path)] AS category,
            {_PRODUCT_PRICE} AS price_minor, l.amount_minor AS list_price_minor, {_PRODUCT_DISCOUNT}::float8 AS discount_pct,
            s.rating_tenths, s.review_count, s.sales_rank, s.image_url, s.first_seen_at AS seen_from, s.checked_at AS seen_until,
            NULL AS price_type, NULL AS changed_at, NULL AS ended_at, NULL AS deal_score, NULL AS layout, NULL AS product_group,
            NULL AS median_90_minor, NULL AS below_median_pct, NULL AS lowest_year_minor, NULL AS is_year_low, NULL AS is_all_time_low,
            NULL AS is_list_price_fiction, NULL AS is_glitch""",
        page="s.asin = page.id0 AND s.marketplace = :marketplace",
    ),
    SearchSubject.DEALS: _Table(
        source="collected_deals s LEFT JOIN products p ON p.asin = s.asin AND p.marketplace = s.marketplace",
        prices="",
        words="JOIN product_texts t ON t.asin = s.asin AND t.marketplace = s.marketplace",
        ids=("s.asin", "s.price_type", "s.changed_at"),
        price="s.amount_minor",
        discount="s.discount_pct",
        brand="p.brand",
        category="s.category",
        has_category="s.category = ANY(:categories)",
        newest="s.changed_at",
        columns="""s.asin, s.marketplace, p.title, p.brand, s.category, s.amount_minor AS price_minor, s.list_price_minor,
            s.discount_pct::float8 AS discount_pct, s.rating_tenths, s.review_count, s.sales_rank, p.image_url,
            s.first_seen_at AS seen_from, s.last_seen_at AS seen_until, s.price_type, s.changed_at, s.ended_at, s.deal_score, s.layout,
            s.product_group, s.median_90_minor, s.below_median_pct::float8 AS below_median_pct, s.lowest_year_minor, s.is_year_low,
            s.is_all_time_low, s.is_list_price_fiction, s.is_glitch""",
        page="s.asin = page.id0 AND s.marketplace = :marketplace AND s.price_type = page.id1 AND s.changed_at = page.id2",
    ),
}


class PostgresSearcher:
    """Searches in the caller's transaction; changes nothing but settings of it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # A plan for any value finds a rare layout by reading all deals in their order: a hundred times the time of one for this value.
        connection.execute(text("SELECT set_config('plan_cache_mode', 'force_custom_plan', true)"))

    def search(self, query: SearchQuery, terms: Sequence[SearchTerm], *, after: Position | None) -> Found:
        """See `keeper.find.Searcher`."""
        query = self._lowered(query)
        table = _TABLES[query.subject]
        words = self._words_of(terms)
        if words is None and query.sort is SearchSort.RELEVANCE:
            query = replace(query, sort=SearchSort.NEWEST)
        total = None
        if query.subject is SearchSubject.DEALS and query.sort is SearchSort.RELEVANCE:
            # A word that most titles have puts nothing in order, and to rank a million by it takes seconds. A cursor tells by its key.
            if after is None:
                total = self._count(*_matching(query, words))
            if total == LARGEST_TOTAL or (after is not None and isinstance(after.key, int)):
                query = replace(query, sort=SearchSort.NEWEST)
        source, conditions, parameters = _matching(query, words, with_prices=query.sort in _BY_PRICE)
        key, is_falling = _sort_key(query.sort, table)
        beyond = ""
        if after is not None:
            beyond, places = _beyond(query, table, key, is_falling, after)
            parameters |= places
        ids = ", ".join(f"{one} AS id{number}" for number, one in enumerate(table.ids))
        direction = "DESC" if is_falling else "ASC"
        rows = self._connection.execute(
            text(
                f"""
                WITH page AS MATERIALIZED (
                    SELECT {key} AS key, {ids} FROM {source} WHERE {conditions} {beyond}
                    ORDER BY {key} {direction}, {", ".join(table.ids)} LIMIT :most
                )
                SELECT page.key, {table.columns} FROM page CROSS JOIN {table.source} {table.prices} WHERE {table.page}
                ORDER BY page.key {direction}, {", ".join(table.ids)}
                """
            ),
            parameters | {"most": query.limit + 1},
        ).all()
        hits = tuple(_hit(row) for row in rows[: query.limit])
        end = _position(query.subject, rows[query.limit - 1]) if len(rows) > query.limit else None
        if after is None and total is None:
            total = len(rows) if end is None else self._count(*_matching(query, words))
        return Found(hits, total, end)

    def select_unknown(self, query: SearchQuery, terms: Sequence[SearchTerm]) -> list[int]:
        """See `keeper.find.Searcher`."""
        is_of_deals = query.subject is SearchSubject.DEALS
        everything = SearchQuery(query.subject, marketplace=query.marketplace, includes_ended=is_of_deals, includes_glitches=is_of_deals)
        source, conditions, parameters = _matching(everything, None)
        join = _TABLES[query.subject].words
        rows = self._connection.execute(
            text(
                f"""
                SELECT number FROM unnest(CAST(:said AS text[])) WITH ORDINALITY said (words, number),
                    phraseto_tsquery('keeper_german', keeper_fold(said.words)) asked
                WHERE numnode(asked) > 0 AND NOT EXISTS (SELECT 1 FROM {source} {join} WHERE {conditions} AND t.words @@ asked)
                ORDER BY number
                """
            ),
            parameters | {"said": [term.words for term in terms]},
        )
        return [row.number - 1 for row in rows]

    def count_facets(self, query: SearchQuery, terms: Sequence[SearchTerm]) -> tuple[Facet, ...]:
        """See `keeper.find.Searcher`. One look at the matches of all marketplaces."""
        query = self._lowered(query)
        table = _TABLES[query.subject]
        source, conditions, parameters = _matching(query, self._words_of(terms), with_prices=True, everywhere=True)
        here, more = _here(query, "matched.price", "matched.marketplace")
        price_ends = price_bands_minor(query.marketplace.currency)

        def by(name: FacetName, value: str, where: str = here) -> str:
            return (
                f"(SELECT '{name}' AS name, {value} AS value, count(*) AS hits FROM matched WHERE {where} AND {value} IS NOT NULL "
                f'GROUP BY {value} ORDER BY 3 DESC, {value} COLLATE "C" LIMIT {MOST_COUNTS})'
            )

        counted = " UNION ALL ".join(
            [
                by(FacetName.BRAND, "brand"),
                by(FacetName.CATEGORY, "category"),
                by(FacetName.MARKETPLACE, "marketplace", "true"),
                by(FacetName.PRICE, "price_band::text"),
                by(FacetName.DISCOUNT, "discount_band::text"),
            ]
        )
        rows = self._connection.execute(
            text(
                f"""
                WITH matched AS MATERIALIZED (
                    SELECT s.marketplace, {table.brand} AS brand, {table.category} AS category, {table.price} AS price,
                        width_bucket({table.price}, CAST(:price_ends AS integer[])) - 1 AS price_band,
                        CASE WHEN {table.discount} >= 0
                            THEN width_bucket({table.discount}, CAST(:discount_ends AS numeric[])) - 1 END AS discount_band
                    FROM {source} WHERE {conditions}
                )
                {counted}
                """
            ),
            parameters | more | {"price_ends": list(price_ends), "discount_ends": list(DISCOUNT_BANDS_PCT)},
        ).all()
        ends = {FacetName.PRICE: price_ends, FacetName.DISCOUNT: DISCOUNT_BANDS_PCT}
        facets = []
        for name in FacetName:
            counts = [(row.value, row.hits) for row in rows if row.name == name]
            if name in ends:
                counts = [(band_name(ends[name], int(value)), hits) for value, hits in sorted(counts, key=lambda one: int(one[0]))]
            facets.append(Facet(name, tuple(FacetCount(value, hits) for value, hits in counts)))
        return tuple(facets)

    def suggest(self, subject: SearchSubject, beginning: str, marketplace: Marketplace, *, limit: int) -> tuple[str, ...]:
        """See `keeper.find.Searcher`."""
        folded: str = self._connection.execute(text("SELECT btrim(keeper_fold(:said))"), {"said": beginning}).scalar_one()
        if not folded:
            return ()
        parameters = {f"w{number}": f"% {word}%" for number, word in enumerate(folded.split())}
        conditions = " AND ".join(f"t.folded LIKE :{name}" for name in parameters)
        runs = (
            "AND EXISTS (SELECT 1 FROM collected_deals d WHERE d.asin = t.asin AND d.marketplace = t.marketplace "
            "AND d.ended_at IS NULL AND d.announced_at IS NOT NULL)"
            if subject is SearchSubject.DEALS
            else ""
        )
        rows = self._connection.execute(
            text(
                f"""
                WITH sample AS MATERIALIZED (
                    SELECT t.asin, t.marketplace, t.folded FROM product_texts t
                    WHERE {conditions} AND t.marketplace = :marketplace {runs} LIMIT {_SUGGESTION_SAMPLE}
                )
                SELECT p.title FROM sample JOIN products p USING (asin, marketplace)
                WHERE p.title IS NOT NULL AND {_IS_ACTIVE.format(table="p")}
                GROUP BY p.title
                ORDER BY bool_or(sample.folded LIKE :start) DESC, max(p.review_count) DESC NULLS LAST, p.title COLLATE "C" LIMIT :most
                """
            ),
            parameters | {"start": f" {folded}%", "marketplace": marketplace.value, "most": limit},
        )
        return tuple(row.title for row in rows)

    def _lowered(self, query: SearchQuery) -> SearchQuery:
        """With its brands as the database has them in lower case; as values, whose frequency it knows."""
        if not query.brands:
            return query
        lowered: list[str] = self._connection.execute(
            text("SELECT array_agg(lower(said)) FROM unnest(CAST(:brands AS text[])) said"), {"brands": list(query.brands)}
        ).scalar_one()
        return replace(query, brands=tuple(lowered))

    def _words_of(self, terms: Sequence[SearchTerm]) -> str | None:
        """All terms as the text of a tsquery; None where none of them holds a word that counts."""
        if not terms:
            return None
        choices = [self._alike(term.words) if term.is_alike else [term.words] for term in terms]
        rows = self._connection.execute(
            text(
                """
                SELECT number, phraseto_tsquery('keeper_german', keeper_fold(words))::text AS asked
                FROM unnest(CAST(:numbers AS integer[]), CAST(:words AS text[])) AS said (number, words)
                """
            ),
            {
                "numbers": [number for number, words in enumerate(choices) for _ in words],
                "words": [one for words in choices for one in words],
            },
        ).all()
        by_term = {number: [row.asked for row in rows if row.number == number and row.asked] for number in {row.number for row in rows}}
        return " & ".join(f"({' | '.join(f'({one})' for one in asked)})" for _, asked in sorted(by_term.items()) if asked) or None

    def _alike(self, said: str) -> list[str]:
        """Words that titles have and that `said` may have meant; itself where there are none. Several words in `said` are left alone."""
        word: str = self._connection.execute(
            text("SELECT btrim(keeper_fold(:said)) FROM set_config('pg_trgm.similarity_threshold', :least, true)"),
            {"said": said, "least": str(_LEAST_SIMILAR)},
        ).scalar_one()
        if not most_letters_off(word) or " " in word:
            return [said]
        rows = self._connection.execute(
            text(
                "SELECT DISTINCT word, similarity(word, :word) FROM product_words "
                "WHERE word % :word AND length(word) BETWEEN :shortest AND :longest ORDER BY 2 DESC, 1"
            ),
            {"word": word, "shortest": len(word) - most_letters_off(word), "longest": len(word) + most_letters_off(word)},
        )
        return [row.word for row in rows if is_alike(word, row.word)][:_MOST_ALIKE] or [said]

    def _count(self, source: str, conditions: str, parameters: Mapping[str, Any]) -> int:
        counted: int = self._connection.execute(
            text(f"SELECT count(*) FROM (SELECT 1 FROM {source} WHERE {conditions} LIMIT {LARGEST_TOTAL}) matched"), parameters
        ).scalar_one()
        return counted


def _matching(
    query: SearchQuery, words: str | None, *, with_prices: bool = False, everywhere: bool = False
) -> tuple[str, str, dict[str, Any]]:
    """FROM, WHERE and their parameters; `everywhere` leaves out marketplace and price."""
    table = _TABLES[query.subject]
    source = table.source
    if with_prices or any(bound is not None for bound in (query.price_from_minor, query.price_to_minor, query.discount_from_pct)):
        source += table.prices
    conditions = ["true"]
    parameters: dict[str, Any] = {}
    if words is not None:
        source = f"{source} {table.words}"
        conditions.append("t.words @@ CAST(:words AS tsquery)")
        parameters["words"] = words
    if not everywhere:
        here, parameters_here = _here(query, table.price, "s.marketplace")
        conditions.append(here)
        parameters |= parameters_here
    if query.discount_from_pct is not None:
        # As its index has it.
        discount = table.discount if table.prices else f"coalesce({table.discount}, {_NOTHING})"
        conditions.append(f"{discount} >= CAST(:discount_from AS numeric)")
        parameters["discount_from"] = str(query.discount_from_pct)
    if query.rating_from is not None:
        conditions.append("s.rating_tenths >= CAST(:rating_from AS numeric) * 10")
        parameters["rating_from"] = str(query.rating_from)
    if query.brands:
        conditions.append(f"lower({table.brand}) = ANY(:brands)")
        parameters["brands"] = list(query.brands)
    if query.categories:
        conditions.append(table.has_category)
        parameters["categories"] = list(query.categories)
    if query.subject is SearchSubject.PRODUCTS:
        conditions.append(_IS_ACTIVE.format(table="s"))
    else:
        if not query.includes_ended:
            conditions.append("s.ended_at IS NULL")
        if not query.includes_glitches:
            conditions.append("s.announced_at IS NOT NULL")
        for condition, name, value in (
            ("s.price_type = :price_type", "price_type", query.price_type.value if query.price_type is not None else None),
            ("s.discount_pct BETWEEN 0 AND CAST(:discount_to AS numeric)", "discount_to", _exact(query.discount_to_pct)),
            ("s.below_median_pct >= CAST(:below_median AS numeric)", "below_median", _exact(query.below_median_from_pct)),
            ("s.review_count >= :reviews_from", "reviews_from", query.reviews_from),
            ("s.sales_rank <= :rank_to", "rank_to", query.rank_to),
            # As its index has it.
            (f"coalesce(s.deal_score, {_NOTHING}) >= CAST(:score_from AS float8)", "score_from", query.score_from),
            ("s.layout = ANY(:layouts)", "layouts", list(query.layouts) or None),
            ("s.product_group = :product_group", "product_group", query.group),
        ):
            if value is not None:
                conditions.append(condition)
                parameters[name] = value
    return source, " AND ".join(conditions), parameters


def _exact(number: float | None) -> str | None:
    """As text, of which PostgreSQL makes the same number of decimals."""
    return None if number is None else str(number)


def _here(query: SearchQuery, price: str, marketplace: str) -> tuple[str, dict[str, Any]]:
    """What holds in one marketplace and its currency only."""
    conditions = [f"{marketplace} = :marketplace"]
    parameters: dict[str, Any] = {"marketplace": query.marketplace.value}
    if query.price_from_minor is not None:
        conditions.append(f"{price} >= :price_from")
        parameters["price_from"] = query.price_from_minor
    if query.price_to_minor is not None:
        conditions.append(f"{price} <= :price_to")
        parameters["price_to"] = query.price_to_minor
    return " AND ".join(conditions), parameters


def _sort_key(sort: SearchSort, table: _Table) -> tuple[str, bool]:
    """The expression hits are sorted by, never null, and whether it falls. A deal always has a price, and an index on it."""
    if not table.prices and sort in (SearchSort.PRICE_ASCENDING, SearchSort.PRICE_DESCENDING):
        return table.price, sort is SearchSort.PRICE_DESCENDING
    match sort:
        case SearchSort.RELEVANCE:
            return _RANK, True
        case SearchSort.PRICE_ASCENDING:
            return f"coalesce({table.price}, {_NO_PRICE})", False
        case SearchSort.PRICE_DESCENDING:
            return f"coalesce({table.price}, {_NOTHING})", True
        case SearchSort.DISCOUNT:
            return f"coalesce({table.discount}, {_NOTHING})", True
        case SearchSort.RATING:
            return f"coalesce(s.rating_tenths, {_NOTHING})", True
        case SearchSort.NEWEST:
            return table.newest, True
        case SearchSort.SCORE:
            return f"coalesce(s.deal_score, {_NOTHING})", True


def _beyond(query: SearchQuery, table: _Table, key: str, is_falling: bool, after: Position) -> tuple[str, dict[str, Any]]:
    """The condition of being after a position. The first half alone lets an index begin in the right place."""
    ids = list(after.ids)
    value: Any = after.key
    kinds = [str] if query.subject is SearchSubject.PRODUCTS else [str, str, int]
    try:
        if [type(part) for part in ids] != kinds:
            raise ValueError("other parts")
        if len(ids) == 3:
            ids[2] = _time_of(ids[2])
        if query.sort is SearchSort.NEWEST:
            value = _time_of(value)
        elif _KEY_TYPES[query.sort] == "bigint" and type(value) is not int:
            raise ValueError("not a whole number")
    except (ValueError, OverflowError) as error:
        raise SearchInvalid("cursor", "is not one that Keeper gave; begin without one") from error
    kind = _KEY_TYPES[query.sort]
    names = [f"after{number}" for number in range(len(ids))]
    sign = "<" if is_falling else ">"
    condition = (
        f"AND {key} {sign}= CAST(:after_key AS {kind}) AND ({key} {sign} CAST(:after_key AS {kind}) "
        f"OR ({', '.join(table.ids)}) > ({', '.join(f':{name}' for name in names)}))"
    )
    return condition, {"after_key": value} | dict(zip(names, ids, strict=True))


def _time_of(microseconds: Any) -> Any:
    if type(microseconds) is not int:
        raise ValueError("not a time")
    return _EPOCH + timedelta(microseconds=microseconds)


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _position(subject: SearchSubject, row: Row[Any]) -> Position:
    key = _microseconds(row.key) if isinstance(row.key, datetime) else row.key if isinstance(row.key, int | float) else float(row.key)
    ids = (row.asin,) if subject is SearchSubject.PRODUCTS else (row.asin, row.price_type, _microseconds(row.changed_at))
    return Position(key, ids)


def _hit(row: Row[Any]) -> SearchHit:
    marketplace = Marketplace(row.marketplace)

    def money(amount_minor: int | None) -> Money | None:
        return None if amount_minor is None else Money(amount_minor, marketplace.currency)

    return SearchHit(
        asin=row.asin,
        marketplace=marketplace,
        title=row.title,
        brand=row.brand,
        category=row.category,
        price=money(row.price_minor),
        list_price=money(row.list_price_minor),
        discount_pct=row.discount_pct,
        rating=None if row.rating_tenths is None else row.rating_tenths / 10,
        review_count=row.review_count,
        sales_rank=row.sales_rank,
        image_url=row.image_url,
        seen_from=row.seen_from,
        seen_until=row.seen_until,
        deal_id=None if row.changed_at is None else deal_id_of(row.asin, row.marketplace, row.price_type, int(row.changed_at.timestamp())),
        price_type=None if row.price_type is None else PriceType(row.price_type),
        changed_at=row.changed_at,
        ended_at=row.ended_at,
        score=row.deal_score,
        layout=row.layout,
        group=row.product_group,
        median_90=money(row.median_90_minor),
        below_median_pct=row.below_median_pct,
        lowest_year=money(row.lowest_year_minor),
        is_year_low=row.is_year_low,
        is_all_time_low=row.is_all_time_low,
        is_list_price_fiction=row.is_list_price_fiction,
        is_glitch=row.is_glitch,
    )
