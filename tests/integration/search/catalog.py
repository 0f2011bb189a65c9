"""A small shop for the tests of search: the seed keyboards, and titles made to mislead. What must be found is computed from here."""

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from keeper.domain.events import deal_id_of
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_type import PriceType
from keeper.domain.product import ProductKind
from keeper.domain.search import SearchHit
from tests.integration.makers import product, run_record

DE, UK = Marketplace.DE, Marketplace.UK
FIRST = datetime(2026, 11, 1, 8, 0, tzinfo=UTC)
_SEEDS = Path(__file__).parents[3] / "seeds" / "keyboards.csv"
_KEYBOARDS = ("Computer & Zubehör", "Tastaturen, Mäuse & Eingabegeräte", "Tastaturen")
_CASES = ("Computer & Zubehör", "Zubehör", "Schutzhüllen")
_IDS: dict[tuple[str, ...], tuple[int, ...]] = {_KEYBOARDS: (340843031, 430168031, 430170031), _CASES: (340843031, 430171031, 430172031)}


@dataclass(frozen=True)
class Article:
    """A product over its marketplaces.

    Attributes:
        prices: by marketplace; None where there is no offer.
        fallback: whether the price is Amazon's own, beside no offer of NEW.
    """

    asin: str
    title: str
    brand: str | None
    prices: dict[Marketplace, int | None]
    list_prices: dict[Marketplace, int] = field(default_factory=dict)
    rating_tenths: int | None = None
    review_count: int | None = None
    sales_rank: int | None = 1000
    path: tuple[str, ...] = _KEYBOARDS
    first_seen_at: datetime = FIRST
    fallback: bool = False
    kind: ProductKind = ProductKind.STANDARD

    def hit(self, marketplace: Marketplace) -> SearchHit:
        """As it must be found."""
        price, listed = self.prices[marketplace], self.list_prices.get(marketplace)
        return SearchHit(
            asin=self.asin,
            marketplace=marketplace,
            title=self.title,
            brand=self.brand,
            category=self.path[-1],
            price=None if price is None else Money(price, marketplace.currency),
            list_price=None if listed is None else Money(listed, marketplace.currency),
            discount_pct=discount_pct(price, listed),
            rating=None if self.rating_tenths is None else self.rating_tenths / 10,
            review_count=self.review_count,
            sales_rank=self.sales_rank,
            image_url=f"https://images.test/{self.asin}.jpg",
            seen_from=self.first_seen_at,
            seen_until=self.first_seen_at,
        )


@dataclass(frozen=True)
class Deal:
    """A deal on an article."""

    article: Article
    marketplace: Marketplace
    price_type: PriceType
    changed_at: datetime
    amount_minor: int
    list_price_minor: int | None
    ended_at: datetime | None = None
    score: float | None = None
    layout: str | None = None
    group: str | None = None
    median_90_minor: int | None = None
    below_median_pct: float | None = None
    lowest_year_minor: int | None = None
    is_year_low: bool | None = None
    is_all_time_low: bool | None = None
    is_list_price_fiction: bool | None = None
    is_glitch: bool = False
    is_announced: bool = True

    def hit(self) -> SearchHit:
        """As it must be found."""
        changed_second = int(self.changed_at.timestamp())
        return SearchHit(
            asin=self.article.asin,
            marketplace=self.marketplace,
            title=self.article.title,
            brand=self.article.brand,
            category=self.article.path[-1],
            price=Money(self.amount_minor, self.marketplace.currency),
            list_price=None if self.list_price_minor is None else Money(self.list_price_minor, self.marketplace.currency),
            discount_pct=discount_pct(self.amount_minor, self.list_price_minor),
            rating=None if self.article.rating_tenths is None else self.article.rating_tenths / 10,
            review_count=self.article.review_count,
            sales_rank=self.article.sales_rank,
            image_url=f"https://images.test/{self.article.asin}.jpg",
            seen_from=self.changed_at,
            seen_until=self.changed_at + timedelta(hours=1),
            deal_id=deal_id_of(self.article.asin, self.marketplace.value, self.price_type.value, changed_second),
            price_type=self.price_type,
            changed_at=self.changed_at,
            ended_at=self.ended_at,
            score=self.score,
            layout=self.layout,
            group=self.group,
            median_90=None if self.median_90_minor is None else Money(self.median_90_minor, self.marketplace.currency),
            below_median_pct=self.below_median_pct,
            lowest_year=None if self.lowest_year_minor is None else Money(self.lowest_year_minor, self.marketplace.currency),
            is_year_low=self.is_year_low,
            is_all_time_low=self.is_all_time_low,
            is_list_price_fiction=self.is_list_price_fiction,
            is_glitch=self.is_glitch,
        )


def discount_pct(price: int | None, listed: int | None) -> float | None:
    """Half up, two decimals; None where the list price is not above the price."""
    if price is None or listed is None or listed <= price:
        return None
    return float((100 - Decimal(100) * price / listed).quantize(Decimal("0.01"), ROUND_HALF_UP))


def _seeds() -> Iterable[Article]:
    with _SEEDS.open(encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file)):
            price = round(float(row["price_seen"] or 59.99) * 100)
            brand = row["title"].split()[0].strip(",").upper()
            yield Article(
                row["asin"],
                row["title"],
                brand if brand.isalpha() else None,
                {DE: price + 500, UK: price} if row["seen_on"] == "UK" else {DE: price},
                {DE: price + 500 + 333 * (number % 7)} if number % 3 else {},
                rating_tenths=None if number % 5 == 0 else 30 + number % 20,
                review_count=number * 37 % 500,
                sales_rank=number + 1,
                first_seen_at=FIRST + timedelta(days=1),
            )


def _trap(number: int, title: str, brand: str | None = None, price: int | None = 4999, **facts: Any) -> Article:
    defaults: dict[str, Any] = {"rating_tenths": 41, "review_count": number, "sales_rank": 5000 + number}
    return Article(f"B0TRAP{number:04d}", title, brand, {DE: price}, **(defaults | facts))


SINGULAR = _trap(1, "Mechanische Tastatur, QWERTZ, schwarz", "Perixx")
PLURAL = _trap(2, "Zwei Tastaturen im Doppelpack", "Perixx")
LARGE = _trap(3, "Ergonomische Tastatur in voller Größe mit Handballenauflage", "Perixx")
SWISS = _trap(4, "Bürotastatur in Übergrösse, weiß", "Perixx")
QUIET_FIRST = _trap(5, "Flüsterleise Tasten und Ziffernblock", "Hama")
QUIET_LAST = _trap(6, "Ziffernblock und flüsterleise große Tasten", "Hama")
BRAND_ONLY = _trap(7, "KC 1000 SC Sicherheitsgerät mit Chipkartenleser", "Cherry", price=6999, list_prices={DE: 8999})
SHORT = _trap(8, "Vorlesetastatur Braille", "Seika", price=49900)
LONG = _trap(
    9,
    "Aufkleber mit Punktschrift für Computer, Laptop und Notebook, transparent, abriebfest, für Kinder, Schule und Büro, auch in Braille "
    "lesbar, auf jeder Vorlesetastatur verwendbar, mit Anleitung in acht Sprachen und Reinigungstuch",
    "Seika",
    price=999,
)
COVER = _trap(10, "Schutzhülle für Tastatur (100% Silikon, 30 x 10 cm) *abwaschbar*", "Hüllenwelt", price=1299, path=_CASES)
NO_OFFER = _trap(11, "Kinesis Advantage360 geteilte Tastatur", "Kinesis", price=None, rating_tenths=None, review_count=None)
AMAZON_ONLY = _trap(12, "Kinesis Freestyle2 geteilte Tastatur", "Kinesis", price=8900, list_prices={DE: 12900}, fallback=True)
DEARER = _trap(13, "Kinesis mWave geteilte Tastatur", "Kinesis", price=15000, list_prices={DE: 12900})
GONE = _trap(14, "Verschollene Tastatur", "Perixx", price=None, kind=ProductKind.INACCESSIBLE)
TIED = [_trap(20 + number, f"Zwilling Nummer {number} Tastatur", "Gleich", first_seen_at=FIRST + timedelta(days=2)) for number in range(9)]
UK_ONLY = Article(
    "B0TRAP0050", "Filco Majestouch keyboard, British layout", "Filco", {UK: 12999}, {UK: 15999}, 47, 800, 60,
)  # fmt: skip

ARTICLES = [
    *_seeds(), SINGULAR, PLURAL, LARGE, SWISS, QUIET_FIRST, QUIET_LAST, BRAND_ONLY, SHORT, LONG, COVER, NO_OFFER, AMAZON_ONLY, DEARER, GONE,
    *TIED, UK_ONLY,
]  # fmt: skip


def _deals() -> Iterable[Deal]:
    for number, article in enumerate(ARTICLES):
        for marketplace, price in article.prices.items():
            if price is None or number % 3 == 2:
                continue
            changed_at = FIRST + timedelta(days=3, minutes=number // 4)
            ended_at = changed_at + timedelta(hours=2) if number % 7 == 0 else None
            listed = article.list_prices.get(marketplace, price * 2 if number % 4 else None)
            yield Deal(article, marketplace, PriceType.NEW, changed_at, price, listed, ended_at, **_judged(number, price))
            if number % 5 == 0:
                yield Deal(article, marketplace, PriceType.AMAZON, changed_at, price, listed)
                yield Deal(article, marketplace, PriceType.NEW, changed_at - timedelta(days=1), price + 100, listed, changed_at)


def _judged(number: int, price: int) -> dict[str, Any]:
    """Something else of each, and nothing of some."""
    if number % 8 == 0:
        return {}
    return {
        "score": number * 7 % 90 + (0.5 if number % 2 else 0),
        "layout": (None, "qwertz", "qwerty-uk", "azerty")[number % 4],
        "group": "keyboards" if number % 5 else None,
        "median_90_minor": price * 5 // 4,
        "below_median_pct": 20.0 if number % 3 else -12.34,
        "lowest_year_minor": price - 50 if number % 2 else None,
        "is_year_low": number % 2 == 0,
        "is_all_time_low": None if number % 4 else True,
        "is_list_price_fiction": number % 6 == 0,
        "is_glitch": number % 11 == 0,
        "is_announced": number % 11 != 0 or number % 22 == 0,
    }


DEALS = list(_deals())


def fill_postgres(engine: Engine) -> None:
    """Everything through `record`; the deals, which nobody writes yet, by SQL."""
    for first_seen_at in sorted({article.first_seen_at for article in ARTICLES}):
        answered = [
            product(
                _points(article, marketplace),
                asin=article.asin,
                marketplace=marketplace,
                at=first_seen_at,
                current=_current(article, marketplace),
                kind=article.kind,
                title=article.title,
                brand=article.brand,
                image_urls=(f"https://images.test/{article.asin}.jpg",),
                category_path=article.path,
                category_ids=_IDS[article.path],
                rating_tenths=article.rating_tenths,
                review_count=article.review_count,
                sales_rank=article.sales_rank,
            )
            for article in ARTICLES
            if article.first_seen_at == first_seen_at
            for marketplace in article.prices
        ]
        run_record(engine, *answered, sinks=frozenset())
    with engine.begin() as connection:
        connection.execute(
            text(
                """
                INSERT INTO collected_deals (asin, marketplace, price_type, changed_at, amount_minor, list_price_minor, currency,
                    discount_pct, first_seen_at, last_seen_at, ended_at, rating_tenths, review_count, sales_rank, category, deal_score,
                    layout, product_group, median_90_minor, below_median_pct, lowest_year_minor, is_year_low, is_all_time_low,
                    is_list_price_fiction, is_glitch, announced_at)
                VALUES (:asin, :marketplace, :price_type, :changed_at, :amount_minor, :list_price_minor, :currency,
                    :discount_pct, :seen_from, :seen_until, :ended_at, :rating_tenths, :review_count, :sales_rank, :category, :score,
                    :layout, :group, :median_90_minor, :below_median_pct, :lowest_year_minor, :is_year_low, :is_all_time_low,
                    :is_list_price_fiction, :is_glitch, :announced_at)
                """
            ),
            [
                {
                    "asin": deal.article.asin,
                    "marketplace": deal.marketplace.value,
                    "price_type": deal.price_type.value,
                    "changed_at": deal.changed_at,
                    "amount_minor": deal.amount_minor,
                    "list_price_minor": deal.list_price_minor,
                    "currency": deal.marketplace.currency,
                    "discount_pct": discount_pct(deal.amount_minor, deal.list_price_minor),
                    "seen_from": deal.hit().seen_from,
                    "seen_until": deal.hit().seen_until,
                    "ended_at": deal.ended_at,
                    "rating_tenths": deal.article.rating_tenths,
                    "review_count": deal.article.review_count,
                    "sales_rank": deal.article.sales_rank,
                    "category": deal.article.path[-1],
                    "score": deal.score,
                    "layout": deal.layout,
                    "group": deal.group,
                    "median_90_minor": deal.median_90_minor,
                    "below_median_pct": deal.below_median_pct,
                    "lowest_year_minor": deal.lowest_year_minor,
                    "is_year_low": deal.is_year_low,
                    "is_all_time_low": deal.is_all_time_low,
                    "is_list_price_fiction": deal.is_list_price_fiction,
                    "is_glitch": deal.is_glitch,
                    "announced_at": deal.changed_at if deal.is_announced else None,
                }
                for deal in DEALS
            ],
        )


def deal_documents() -> list[tuple[str, int, bytes]]:
    """The deals as `deal-updates` and `keeper-deals` have them: id, version, body."""
    documents = []
    for deal in DEALS:
        hit = deal.hit()
        body = {
            "asin": hit.asin,
            "product_title": hit.title,
            "brand": hit.brand,
            "category": hit.category,
            "image": hit.image_url,
            "domain": hit.marketplace.value.lower(),
            "current_price": deal.amount_minor / 100,
            "current_price_minor": deal.amount_minor,
            "original_price": None if deal.list_price_minor is None else deal.list_price_minor / 100,
            "original_price_minor": deal.list_price_minor,
            "currency": hit.marketplace.currency,
            "discount_percent": hit.discount_pct,
            "rating": hit.rating,
            "review_count": hit.review_count,
            "sales_rank": hit.sales_rank,
            "price_type": deal.price_type.value,
            "timestamp": _zulu(deal.changed_at),
            "first_seen": _zulu(hit.seen_from),
            "last_seen": _zulu(hit.seen_until),
            "ended_at": _zulu(deal.ended_at),
            "deal_id": hit.deal_id,
            "event_type": "deal_update",
            "deal_score": deal.score,
            "layout": deal.layout,
            "product_group": deal.group,
            "median_90_minor": deal.median_90_minor,
            "below_median_percent": deal.below_median_pct,
            "lowest_year_minor": deal.lowest_year_minor,
            "is_year_low": deal.is_year_low,
            "is_all_time_low": deal.is_all_time_low,
            "is_list_price_fiction": deal.is_list_price_fiction,
            "is_glitch": deal.is_glitch,
            "announced_at": _zulu(deal.changed_at) if deal.is_announced else None,
        }
        documents.append((str(hit.deal_id), 1, json.dumps(body).encode()))
    return documents


def _points(article: Article, marketplace: Marketplace) -> dict[PriceType, list[tuple[datetime, int | None]]]:
    at = article.first_seen_at - timedelta(hours=1)
    return {kind: [(at, amount)] for kind, amount in _current(article, marketplace).items()}


def _current(article: Article, marketplace: Marketplace) -> dict[PriceType, int | None]:
    price = article.prices[marketplace]
    current: dict[PriceType, int | None] = {PriceType.NEW: None, PriceType.AMAZON: price} if article.fallback else {PriceType.NEW: price}
    if marketplace in article.list_prices:
        current[PriceType.LISTPRICE] = article.list_prices[marketplace]
    return current


def _zulu(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%dT%H:%M:%SZ}"
