"""Knows which products exist and what they are like: 47 real keyboards and as many generated products as wanted.

Nothing is built ahead: a product's ASIN and EAN are its number, permuted, so both lead back to it by arithmetic.
"""

import csv
import html
import math
import random
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from keeper.simulator.clock import KEEPA_EPOCH_MINUTES, keepa_minute
from keeper.simulator.prices import DAY, History, Traits, derive, make_empty_history, make_history

DEFAULT_SEEDS = Path(__file__).resolve().parents[2] / "seeds"
MAX_PRODUCTS = 100_000
SEED_KEYBOARDS = 47
TRAP_KINDS = 5
HISTORY_YEARS = 3
MAX_CACHED_ENTRIES = 2_500_000
UNKNOWN_CATEGORY = 9_223_372_036_854_775_807

_ASIN = re.compile(r"B[0-9A-Z]{9}|[0-9]{9}[0-9X]")
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ASIN_SPACE = 36**7
_ASIN_FACTOR = 48_271_000_177
_ASIN_SHIFT = 31_415_926_535
_EAN_SPACE = 10**9
_EAN_FACTOR = 387_420_489
_EAN_SHIFT = 271_828_182
# Every so many products one shares the EAN of the product before it: codes can match more than one.
_SHARED_EAN_EVERY = 20
# Of each hundred generated products, these are one family.
_CHILDREN, _PARENT = range(90, 96), 98
# Of these stores one is dear and another cheap for every so many products, so that there is something to earn against Germany, too.
_ABROAD = (8, 9, 4, 2)
_GAPS_EVERY = 4
# A generated product has another EAN in one store, or is there a pack of two: not the same article under one ASIN.
_OTHER_EAN_EVERY, _PACK_EVERY = 15, 40
# One keyboard of the seed file was seen without a price.
_UNSEEN_PRICE = "54.99"


@dataclass(frozen=True, slots=True)
class Marketplace:
    """One Amazon site.

    Attributes:
        domain: Keepa's id.
        code: Column `seen_on` of the seed file.
        price_factor: Price level against Germany, in this site's own currency.
        amazon_id: Amazon's seller id there.
        fba_factor: Level of Amazon's fees for storing and sending against Germany's, in this site's own currency. Made up.
        root: Root category of keyboards, id and name.
        path: Categories below the root. Ids below the root are made up.
        noun: The word for a keyboard.
        accessories: Category of what is sold around keyboards. Made up.
        trap_nouns: Words for what a search for keyboards finds and is none.
    """

    domain: int
    code: str
    price_factor: float
    amazon_id: str
    root: tuple[int, str]
    path: tuple[tuple[int, str], ...]
    noun: str
    accessories: tuple[int, str]
    trap_nouns: tuple[str, ...]
    fba_factor: float = 1.0

    @property
    def input_devices(self) -> tuple[int, str]:
        """The category between the root and the keyboards."""
        return self.path[-2]


MARKETPLACES = {
    place.domain: place
    for place in (
        Marketplace(
            1,
            "US",
            1.08,
            "ATVPDKIKX0DER",
            (541_966, "Electronics"),
            ((172_456, "Computers & Accessories"), (12_879_431, "Keyboards")),
            "Keyboard",
            (12_879_999, "Keyboard Accessories"),
            (
                "Keyboard Cover",
                "Keyboard Stickers",
                "Wrist Rest for Keyboard",
                "Toy Keyboard Piano",
                "Key Caps",
            ),
            fba_factor=1.2,
        ),
        Marketplace(
            2,
            "UK",
            0.87,
            "A3P5ROKL5A1OLE",
            (340_831_031, "Computers & Accessories"),
            ((428_654_031, "Keyboards, Mice & Input Devices"), (430_555_031, "Keyboards")),
            "Keyboard",
            (430_556_031, "Keyboard Accessories"),
            (
                "Keyboard Cover",
                "Keyboard Stickers",
                "Wrist Rest for Keyboard",
                "Toy Keyboard Piano",
                "Key Caps",
            ),
            fba_factor=0.85,
        ),
        Marketplace(
            3,
            "DE",
            1.0,
            "A3JWKAKR8XB7XF",
            (340_843_031, "Computer & Zubehör"),
            ((427_954_031, "Tastaturen, Mäuse & Eingabegeräte"), (430_178_031, "Tastaturen")),
            "Tastatur",
            (430_179_031, "Tastatur-Zubehör"),
            (
                "Tastatur-Abdeckung",
                "Tastaturaufkleber",
                "Handballenauflage für Tastatur",
                "Kinder-Keyboard Klavier",
                "Tastenkappen",
            ),
        ),
        Marketplace(
            4,
            "FR",
            1.03,
            "A1X6FK5RDHNB96",
            (340_858_031, "Informatique"),
            ((430_332_031, "Claviers, souris et périphériques"), (430_335_031, "Claviers")),
            "Clavier",
            (430_336_031, "Accessoires de clavier"),
            (
                "Housse de clavier",
                "Autocollants pour clavier",
                "Repose-poignets pour clavier",
                "Clavier piano jouet",
                "Capuchons de touches",
            ),
            fba_factor=1.22,
        ),
        Marketplace(
            8,
            "IT",
            1.05,
            "A11IL2PNWYJU7H",
            (425_916_031, "Informatica"),
            ((460_157_031, "Tastiere, mouse e dispositivi di input"), (460_160_031, "Tastiere")),
            "Tastiera",
            (460_161_031, "Accessori per tastiere"),
            (
                "Copritastiera",
                "Adesivi per tastiera",
                "Poggiapolsi per tastiera",
                "Tastiera pianoforte giocattolo",
                "Copritasti",
            ),
            fba_factor=1.18,
        ),
        Marketplace(
            9,
            "ES",
            1.02,
            "A1AT7YVPFBWXBL",
            (667_049_031, "Informática"),
            ((937_935_031, "Teclados, ratones y periféricos de entrada"), (937_994_031, "Teclados")),
            "Teclado",
            (937_995_031, "Accesorios de teclado"),
            (
                "Funda de teclado",
                "Pegatinas para teclado",
                "Reposamuñecas para teclado",
                "Teclado piano de juguete",
                "Teclas de repuesto",
            ),
            fba_factor=1.08,
        ),
    )
}
# Valid at Keepa, without products here.
OTHER_DOMAINS = frozenset({5, 6, 10, 11, 12})

_BRANDS = (
    "CHERRY", "Logitech", "Trust", "Keychron", "AULA", "RK ROYAL KLUDGE", "EPOMAKER", "Perixx", "Hama", "Corsair",
    "Razer", "SteelSeries", "HyperX", "ASUS", "Dell", "HP", "Lenovo", "Microsoft", "Rapoo", "Redragon",
)  # fmt: skip
_SERIES = ("Pro", "Slim", "TKL", "75%", "Compact & Silent", "Office", "RGB", "Wireless", "Mechanical", 'Ultra 15" Combo')


@dataclass(frozen=True, slots=True)
class Product:
    """One product of the catalog, the same in every marketplace.

    Attributes:
        number: Position in the catalog.
        asin: Keepa's and Amazon's id.
        title: As Keepa gives it, HTML entities included; None for products without a page. Generated titles differ by marketplace.
        brand: Maker.
        product_type: Keepa's: 0 standard, 3 inaccessible, 4 deprecated, 5 variation parent (the last three have no prices).
        price_minor: Price level by marketplace it was seen in; generated products have one for Germany.
        seen_on: Code of that marketplace.
        parent: ASIN of the variation parent.
        trap: Place among the marketplaces' `trap_nouns` of what it is instead of a keyboard; None means a keyboard.
        crashes: Whether its price falls to next to nothing for minutes, every day.
        has_fictional_list: Whether its list price is one it was never sold near.
    """

    number: int
    asin: str
    title: str | None
    brand: str
    product_type: int
    price_minor: int
    seen_on: str
    parent: str | None
    trap: int | None = None
    crashes: bool = False
    has_fictional_list: bool = False


@dataclass(frozen=True, slots=True)
class Oddities:
    """Shares (0 to 1) of the generated products that mislead who looks for bargains; the real keyboards never do.

    Attributes:
        glitches: Price falls by more than 90 % for at most an hour, once a day.
        fictions: List price that the product was never sold near.
        traps: No keyboard but something with the word in its title: covers, stickers, wrist rests, toy pianos, key caps.
    """

    glitches: float = 0.03
    fictions: float = 0.05
    traps: float = 0.06

    def __post_init__(self) -> None:
        """Refuses what is no share.

        Raises:
            ValueError: A share is outside 0 to 1.
        """
        for share in (self.glitches, self.fictions, self.traps):
            if not 0 <= share <= 1:
                raise ValueError("a share is between 0 and 1")


DEFAULT_ODDITIES = Oddities()


class Catalog:
    """Finds products and keeps the histories asked for last. Thread-safe."""

    def __init__(
        self,
        *,
        products: int = 47,
        seed: int = 1,
        start_at: float,
        seeds: Path = DEFAULT_SEEDS,
        max_cached_entries: int = MAX_CACHED_ENTRIES,
        oddities: Oddities = DEFAULT_ODDITIES,
    ) -> None:
        """Reads the seed file and nothing else.

        Args:
            products: How many products exist; the real keyboards come first.
            seed: Two catalogs with one seed agree on everything.
            start_at: Simulated Unix seconds; histories begin in the third year before.
            seeds: Folder of `keyboards.csv`.
            max_cached_entries: Bound of the history cache, in history entries of about 30 bytes.
            oddities: How many of the generated products mislead who looks for bargains.

        Raises:
            ValueError: `products` is outside 1 to 100,000.
        """
        if not 1 <= products <= MAX_PRODUCTS:
            raise ValueError(f"products must be between 1 and {MAX_PRODUCTS}")
        self.seed = seed
        self.size = products
        self._oddities = oddities
        self._keyboards = _read_keyboards(seeds / "keyboards.csv")[:products]
        self._number_by_asin = {product.asin: product.number for product in self._keyboards}
        self._first_year = datetime.fromtimestamp(start_at, UTC).year - HISTORY_YEARS
        self._lock = threading.Lock()
        self._histories: OrderedDict[tuple[int, int], tuple[History, int]] = OrderedDict()
        self._cached_entries = 0
        self._max_cached_entries = max_cached_entries

    def product(self, number: int) -> Product:
        """Returns the product at a position in the catalog.

        Raises:
            IndexError: There is none.
        """
        if not 0 <= number < self.size:
            raise IndexError(number)
        if number < len(self._keyboards):
            return self._keyboards[number]
        return self._generate(number)

    def find_asin(self, asin: str) -> Product | None:
        """Returns the product of an ASIN, None where the catalog has none."""
        number = self._number_by_asin.get(asin)
        if number is None:
            number = _asin_number(asin)
            if number is None or not len(self._keyboards) <= number < self.size:
                return None
        return self.product(number)

    def find_code(self, code: str) -> list[Product]:
        """Returns the products that carry an EAN (13 digits, or 12 as UPC)."""
        number = _ean_number(code.zfill(13))
        if number is None or not 0 <= number < self.size:
            return []
        numbers = [number]
        if (number + 1) % _SHARED_EAN_EVERY == 0:
            return []
        if (number + 2) % _SHARED_EAN_EVERY == 0 and number + 1 < self.size:
            numbers.append(number + 1)
        return [self.product(each) for each in numbers]

    def asins(self, start: int = 0, stop: int | None = None) -> list[str]:
        """Returns the ASINs at the positions from `start` to before `stop`."""
        return [self.product(number).asin for number in range(start, self.size if stop is None else min(stop, self.size))]

    def traits(self, product: Product, domain: int) -> Traits:
        """Returns what a product is like in a marketplace."""
        return _make_traits(self.seed, product, MARKETPLACES[domain])

    def tracking_since(self, product: Product) -> int:
        """Returns the Keepa minute from which on a product's history is known: at least two years before the start."""
        start = keepa_minute(datetime(self._first_year, 1, 1, tzinfo=UTC).timestamp())
        return start + derive("tracking", product.asin) % (360 * DAY)

    def history(self, product: Product, domain: int, now: int) -> History:
        """Returns the history of a product in a marketplace up to at least the Keepa minute `now`."""
        if product.product_type != 0:
            return make_empty_history(self.tracking_since(product), now)
        key = (product.number, domain)
        with self._lock:
            found = self._histories.get(key)
            if found is not None and found[0].last > now:
                self._histories.move_to_end(key)
                return found[0]
        history = make_history(self.traits(product, domain), self.tracking_since(product), now)
        entries = 100 + sum(len(column.times) for column in history.columns if column is not None)
        with self._lock:
            replaced = self._histories.pop(key, None)
            self._cached_entries += entries - (replaced[1] if replaced is not None else 0)
            self._histories[key] = (history, entries)
            while self._cached_entries > self._max_cached_entries and len(self._histories) > 1:
                self._cached_entries -= self._histories.popitem(last=False)[1][1]
        return history

    @property
    def cached_entries(self) -> int:
        """History entries in memory."""
        return self._cached_entries

    def _generate(self, number: int) -> Product:
        own = random.Random(derive(self.seed, "product", number))
        brand = _BRANDS[int(own.random() * len(_BRANDS))]
        series = _SERIES[int(own.random() * len(_SERIES))]
        model = f"{chr(65 + int(own.random() * 26))}{int(own.random() * 9000) + 1000}"
        price = max(599.0, min(90_000.0, math.exp(own.gauss(math.log(4_500), 0.8))))
        kind = {97: 3, _PARENT: 5, 99: 4}.get(number % 100, 0)
        parent = _make_asin(number - number % 100 + _PARENT) if number % 100 in _CHILDREN else None
        title = None if kind == 4 else html.escape(f"{brand} {model} {{noun}} {series}", quote=True)
        asin = _make_asin(number)
        is_trap = kind == 0 and self._is_odd("trap", asin, self._oddities.traps)
        if is_trap:
            price = max(599.0, price / 6)
        return Product(
            number,
            asin,
            title,
            brand,
            kind,
            round(price / 100) * 100 - 1,
            "DE",
            parent,
            trap=derive(self.seed, "trap kind", asin) % TRAP_KINDS if is_trap else None,
            crashes=kind == 0 and self._is_odd("glitch", asin, self._oddities.glitches),
            has_fictional_list=kind == 0 and self._is_odd("fiction", asin, self._oddities.fictions),
        )

    def _is_odd(self, oddity: str, asin: str, share: float) -> bool:
        return derive(self.seed, oddity, asin) % 10_000 < share * 10_000


def variation_asins(product: Product) -> list[str]:
    """Returns the ASINs of a parent's variations, asked from the parent or one of them; empty for a product that stands alone."""
    hundred = product.number - product.number % 100
    if product.parent is None and product.asin != _make_asin(hundred + _PARENT):
        return []
    return [_make_asin(hundred + place) for place in _CHILDREN]


def is_asin(text: str) -> bool:
    """Whether a text has the form of an ASIN (`B` and nine letters or digits, or an ISBN-10)."""
    return _ASIN.fullmatch(text) is not None


def make_ean(number: int) -> str:
    """Returns the EAN of a product; every twentieth product has that of the product before it."""
    if (number + 1) % _SHARED_EAN_EVERY == 0:
        number -= 1
    body = "401" + f"{(number * _EAN_FACTOR + _EAN_SHIFT) % _EAN_SPACE:09d}"
    return body + _check_digit(body)


def list_ean(product: Product, marketplace: Marketplace) -> str:
    """Returns the EAN a product has in a marketplace: the same everywhere, but for some that have another one in a single store."""
    ean = make_ean(product.number)
    if not _is_odd_store("ean", product, marketplace, _OTHER_EAN_EVERY):
        return ean
    body = "402" + ean[3:12]
    return body + _check_digit(body)


def count_pieces(product: Product, marketplace: Marketplace) -> int:
    """Returns how many pieces a package holds: one, but for some products that are a pack of two in a single store."""
    return 2 if _is_odd_store("pack", product, marketplace, _PACK_EVERY) else 1


def _is_odd_store(what: str, product: Product, marketplace: Marketplace, every: int) -> bool:
    draw = derive(what, product.asin)
    # The real keyboards are what they are.
    return product.number >= SEED_KEYBOARDS and draw % every == 0 and _ABROAD[draw // every % 4] == marketplace.domain


def _gap(seed: int, product: Product, place: Marketplace) -> float:
    """Returns how far a store's price level is off the others': by 10 to 40 % where the product has a gap there."""
    draw = derive("gap", seed, product.asin)
    if draw % _GAPS_EVERY:
        return 1.0
    dear, cheap = _ABROAD[draw // 7 % 4], _ABROAD[draw // 77 % 4]
    if place.domain == dear:
        return 1.1 + 0.3 * (draw // 777 % 1000) / 1000
    return 1 / (1.1 + 0.3 * (draw // 7777 % 1000) / 1000) if place.domain == cheap else 1.0


def make_title(product: Product, marketplace: Marketplace) -> str | None:
    """Returns a product's title in a marketplace, HTML entities included."""
    noun = marketplace.noun if product.trap is None else marketplace.trap_nouns[product.trap]
    return None if product.title is None else product.title.replace("{noun}", noun)


def list_categories(product: Product, marketplace: Marketplace) -> tuple[int, tuple[int, ...]]:
    """Returns a product's root category and those it is listed in directly."""
    if product.number >= SEED_KEYBOARDS and product.number % 50 == 7:
        return UNKNOWN_CATEGORY, (UNKNOWN_CATEGORY,)
    leaf = marketplace.path[-1] if product.trap is None else marketplace.accessories
    return marketplace.root[0], (leaf[0],)


def _make_asin(number: int) -> str:
    value = (number * _ASIN_FACTOR + _ASIN_SHIFT) % _ASIN_SPACE
    letters = ""
    for _ in range(7):
        value, digit = divmod(value, 36)
        letters = _DIGITS[digit] + letters
    return "B0S" + letters


def _asin_number(asin: str) -> int | None:
    if not asin.startswith("B0S") or not is_asin(asin):
        return None
    return (int(asin[3:], 36) - _ASIN_SHIFT) * pow(_ASIN_FACTOR, -1, _ASIN_SPACE) % _ASIN_SPACE


def _ean_number(ean: str) -> int | None:
    if len(ean) != 13 or not ean.isascii() or not ean.isdigit() or not ean.startswith("401") or _check_digit(ean[:12]) != ean[12]:
        return None
    return (int(ean[3:12]) - _EAN_SHIFT) * pow(_EAN_FACTOR, -1, _EAN_SPACE) % _EAN_SPACE


def _check_digit(body: str) -> str:
    return str(-sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(body)) % 10)


def _read_keyboards(path: Path) -> list[Product]:
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Product(
                number=number,
                asin=row["asin"],
                title=html.escape(row["title"], quote=True),
                brand=row["title"].split(",")[0].split()[0],
                product_type=0,
                price_minor=round(float(row["price_seen"] or _UNSEEN_PRICE) * 100),
                seen_on=row["seen_on"],
                parent=None,
            )
            for number, row in enumerate(csv.DictReader(file))
        ]


@lru_cache(maxsize=4096)
def _make_traits(seed: int, product: Product, place: Marketplace) -> Traits:
    shared = random.Random(derive(seed, "traits", product.asin))
    own = random.Random(derive(seed, "traits", product.asin, place.domain))
    seen = next(other for other in MARKETPLACES.values() if other.code == product.seen_on)
    noise = 1.0 if seen is place else math.exp(own.gauss(0.0, 0.06))
    level = product.price_minor * place.price_factor / seen.price_factor * noise * (1.0 if seen is place else _gap(seed, product, place))
    rate = math.exp(shared.gauss(math.log(0.15), 1.2)) * math.exp(own.gauss(0.0, 0.3))
    popularity = shared.gauss(math.log(4_000), 1.3)
    sells = shared.random() < 0.7
    amazon_sells = sells and own.random() < 0.9
    fba = 0 if own.random() < 0.2 else 1 + int(own.random() * 3)
    fbm = int(own.random() * 5)
    # A merchant's shipping would make a glitch a smaller fall.
    if not amazon_sells and not fba and (not fbm or product.crashes):
        fba = 1
    rated = shared.random() < 0.95
    rank = math.exp(popularity + own.gauss(0.0, 0.5))
    reviews_per_day = max(0.02, min(20.0, 400.0 / math.sqrt(rank) / 4))
    sellers = [f"A{derive('seller', place.domain, derive(product.asin, place.domain, n) % 400):020d}"[:14] for n in range(fba + fbm)]
    # A fiction: two and a half to six times what it ever cost.
    fiction = level * (2.5 + derive("fiction", seed, product.asin) % 351 / 100) if product.has_fictional_list else None
    listed = None if shared.random() < 0.2 else round(level * (1.05 + 0.35 * shared.random()) / 100) * 100 - 1
    return Traits(
        seed=seed,
        asin=product.asin,
        domain=place.domain,
        level_minor=level,
        list_minor=listed if fiction is None else round(fiction / 100) * 100 - 1,
        changes_per_day=max(0.005, min(6.0, rate)),
        amazon_sells=amazon_sells,
        fba=fba,
        fbm=fbm,
        shipping_minor=(0, 299, 399, 499)[int(own.random() * 4)],
        has_used=own.random() < 0.4,
        has_warehouse=amazon_sells and own.random() < 0.45,
        has_lightning=shared.random() < 0.4,
        has_prime_exclusive=own.random() < 0.25,
        rank_level=None if shared.random() < 0.03 else rank,
        rating=int(min(49, max(28, shared.gauss(43, 3)))) if rated else 0,
        reviews_per_day=reviews_per_day,
        launched=int(datetime(2017, 1, 1, tzinfo=UTC).timestamp()) // 60 - KEEPA_EPOCH_MINUTES + derive(product.asin) % (1500 * DAY),
        monthly_sold=0 if own.random() < 0.35 else int(min(20_000, 300_000 / rank)),
        amazon_id=place.amazon_id,
        seller_ids=tuple(sellers),
        crashes=product.crashes,
    )
