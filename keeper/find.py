"""The verb `find`: words first as they are written; where nothing has them, by likeness."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from keeper.domain.marketplace import Marketplace
from keeper.domain.search import (
    MOST_SUGGESTIONS,
    Cursor,
    Facet,
    Found,
    Position,
    SearchInvalid,
    SearchPage,
    SearchQuery,
    SearchSort,
    SearchSubject,
    SearchTerm,
    check_beginning,
    decode_cursor,
    encode_cursor,
    parse_terms,
)


class Searcher(Protocol):
    """What can search. Whatever it is given finds something or nothing; a server that is down is a TransientError."""

    def search(self, query: SearchQuery, terms: Sequence[SearchTerm], *, after: Position | None) -> Found:
        """The hits that have all terms, after a position; its key is of the query's sort.

        Raises:
            SearchInvalid: a position that is none of this searcher's.
        """
        ...

    def select_unknown(self, query: SearchQuery, terms: Sequence[SearchTerm]) -> list[int]:
        """Which terms, by their number, nothing in the query's marketplace has."""
        ...

    def count_facets(self, query: SearchQuery, terms: Sequence[SearchTerm]) -> tuple[Facet, ...]:
        """All hits, on whatever page, by brand, category, marketplace, price and discount."""
        ...

    def suggest(self, subject: SearchSubject, beginning: str, marketplace: Marketplace, *, limit: int) -> tuple[str, ...]:
        """Titles, each once, in which every word of `beginning` begins a word; the ones that begin with it first, then by reviews."""
        ...


def find(searcher: Searcher, query: SearchQuery) -> SearchPage:
    """One page of what `query` asks for.

    Where nothing has all words, those that nothing has alone are searched for by likeness, and the page says which. A word that something
    has is never bent, so "Razer Cherry" finds nothing where no title has both.

    Raises:
        SearchInvalid: a query without words in its text, a foreign cursor.
        TransientError: what searches is down.
    """
    terms = parse_terms(query.text)
    if not terms and query.sort is SearchSort.RELEVANCE:
        query = replace(query, sort=SearchSort.NEWEST)
    cursor = None if query.cursor is None else decode_cursor(query, query.cursor)
    alike: tuple[int, ...] = () if cursor is None else cursor.alike
    if alike and max(alike) >= len(terms):
        raise SearchInvalid("cursor", "belongs to another query; begin without one")
    terms = _bent(terms, alike)
    found = searcher.search(query, terms, after=None if cursor is None else cursor.position)
    if cursor is None and not found.hits and terms:
        alike = tuple(number for number in searcher.select_unknown(query, terms) if not terms[number].is_phrase)
        if alike:
            terms = _bent(terms, alike)
            found = searcher.search(query, terms, after=None)
    return SearchPage(
        hits=found.hits,
        next_cursor=None if found.end is None else encode_cursor(query, Cursor(found.end, alike)),
        total=found.total,
        alike=tuple(terms[number].words for number in alike),
        facets=searcher.count_facets(query, terms) if query.has_facets else (),
    )


def suggest(
    searcher: Searcher, subject: SearchSubject, text: str, *, marketplace: Marketplace = Marketplace.DE, limit: int = 10
) -> tuple[str, ...]:
    """Titles for what somebody has begun to type; none for less than two letters.

    Raises:
        SearchInvalid: the text is too long, or `limit` out of its bounds.
        TransientError: what searches is down.
    """
    if not 1 <= limit <= MOST_SUGGESTIONS:
        raise SearchInvalid("limit", f"must be from 1 to {MOST_SUGGESTIONS}")
    beginning = check_beginning(text)
    return () if beginning is None else searcher.suggest(subject, beginning, marketplace, limit=limit)


def _bent(terms: tuple[SearchTerm, ...], alike: Sequence[int]) -> tuple[SearchTerm, ...]:
    return tuple(replace(term, is_alike=number in alike) for number, term in enumerate(terms))
