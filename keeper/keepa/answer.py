"""What came back from Keepa, matched to what was asked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from keeper.domain.category import Category
from keeper.domain.deal import PAGE_SIZE, DealSighting, RootCategory
from keeper.domain.marketplace import Marketplace
from keeper.domain.product import Product
from keeper.domain.tokens import KeepaCall, TokenStatus


def keepa_call(
    *,
    operation: str,
    marketplace: Marketplace | None,
    asin_count: int,
    tokens: TokenStatus | None,
    elapsed_seconds: float,
    error: str | None = None,
) -> KeepaCall:
    """The record of one call, from what its answer or its error knows."""
    return KeepaCall(
        timestamp=tokens.at if tokens else None,
        operation=operation,
        tokens_consumed=tokens.tokens_consumed if tokens else None,
        tokens_left=tokens.tokens_left if tokens else None,
        refill_rate=tokens.refill_per_minute if tokens else None,
        refill_in=round(tokens.refill_in_seconds * 1000) if tokens else None,
        response_time_ms=round(elapsed_seconds * 1000),
        asin_count=asin_count,
        domain=marketplace.value if marketplace else None,
        success=error is None,
        error=error,
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer Keepa gave with status 200.

    Attributes:
        operation: the endpoint ("product", "token").
        marketplace: None for calls that have none.
        asin_count: how many ASINs were asked.
        tokens: the bucket after the call, and what it cost.
        elapsed_seconds: from sending to the last byte.
        body: the JSON as it came, uncompressed.
    """

    operation: str
    marketplace: Marketplace | None
    asin_count: int
    tokens: TokenStatus
    status_code: int
    elapsed_seconds: float
    body: bytes = field(repr=False)

    @property
    def call(self) -> KeepaCall:
        """The row this call leaves behind."""
        return keepa_call(
            operation=self.operation,
            marketplace=self.marketplace,
            asin_count=self.asin_count,
            tokens=self.tokens,
            elapsed_seconds=self.elapsed_seconds,
        )


@dataclass(frozen=True, slots=True)
class ProductAnswer(Answer):
    """Products by ASIN. Every asked ASIN is in exactly one of `products`, `missing` and `unreadable`.

    Attributes:
        raw: where in `body` each of `products` stands; `raw_product` reads it.
        missing: asked, but not in the answer; in the order asked.
        unreadable: asked and answered, but not in a shape that can be understood; the reason by ASIN.
        unasked: in the answer, but never asked; their products are left out.
        notice: what Keepa's `error` said beside a payload; None otherwise.
    """

    products: Mapping[str, Product] = field(repr=False)
    raw: Mapping[str, msgspec.Raw] = field(repr=False)
    missing: tuple[str, ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)
    unasked: tuple[str, ...] = ()
    notice: str | None = None

    def raw_product(self, asin: str) -> bytes:
        """Keepa's own JSON of one of `products`, byte for byte."""
        return bytes(self.raw[asin])


@dataclass(frozen=True, slots=True)
class DealAnswer(Answer):
    """One page of the feed of deals, in Keepa's order.

    Attributes:
        sightings: the rows that could be read and have an offer of the asked price type; each ASIN once.
        raw: where in `body` the row of each of `sightings` stands; `raw_deal` reads it.
        row_count: rows on the page as sent, whatever became of them.
        is_cached: whether Keepa had the query from a moment before.
        unreadable: rows that cannot be understood; the reason by ASIN, or by place on the page where the row does not say whose it is.
        skipped: ASINs without an offer of the asked price type.
        dropped: what of the sightings could not be understood and is left out, each as "field: reason", by ASIN.
        roots: by category id, how many deals the query has in each root category; all pages of it, whatever categories were asked for.
        notice: what Keepa's `error` said beside a payload; None otherwise.
    """

    sightings: tuple[DealSighting, ...] = field(repr=False)
    raw: Mapping[str, msgspec.Raw] = field(repr=False)
    row_count: int
    is_cached: bool
    unreadable: Mapping[str | int, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    dropped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    roots: Mapping[int, RootCategory] = field(default_factory=dict)
    notice: str | None = None

    @property
    def is_last(self) -> bool:
        """Whether the query has no further page."""
        return self.row_count < PAGE_SIZE

    def raw_deal(self, asin: str) -> bytes:
        """Keepa's own JSON of the row of one of `sightings`, byte for byte."""
        return bytes(self.raw[asin])


@dataclass(frozen=True, slots=True)
class AsinAnswer(Answer):
    """A list of ASINs: bestsellers, one page of the finder, or what a search for products found.

    Attributes:
        asins: in Keepa's order, each once. Empty also where Keepa has no list of bestsellers.
        unreadable_count: entries that are no ASIN.
        total_count: how many the finder has on all pages; None where Keepa does not say.
        listed_at: when Keepa made the list of bestsellers; None elsewhere.
        notice: what Keepa's `error` said beside a payload; None otherwise.
    """

    asins: tuple[str, ...] = field(repr=False)
    unreadable_count: int = 0
    total_count: int | None = None
    listed_at: datetime | None = None
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class CategoryAnswer(Answer):
    """Categories in Keepa's order.

    Attributes:
        unreadable: categories that cannot be understood; the reason by what Keepa calls them.
        notice: what Keepa's `error` said beside a payload; None otherwise.
    """

    categories: tuple[Category, ...] = field(repr=False)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    notice: str | None = None
