"""Keepa's JSON, and how it becomes Keeper's values.

Everything foreign ends here: Keepa minutes become minutes since 1970 in a series and UTC datetimes elsewhere; -1, -2, null and an
absent key become None or leave the entry out; a price of 0 is no price; image names become addresses; titles lose their HTML entities.

Keepa adds fields without notice, and a changed one must not stop a price watch. So an answer is read strictly in one pass, and only
where that fails, again piece by piece: a product loses the pieces that make no sense (named in `Product.dropped`), an answer loses the
products that make none (`unreadable`), and only what is no answer at all is an error.
"""

import html
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import chain, islice, repeat
from operator import lt
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from keeper.domain.marketplace import Marketplace
from keeper.domain.price_series import EPOCH, Extreme, PriceSeries, minute_of, value_at
from keeper.domain.price_type import PriceType
from keeper.domain.product import Availability, Product, ProductKind, ProductStats, ReturnRate
from keeper.domain.tokens import TokenStatus
from keeper.keepa.requests import DOMAIN_IDS

# Keepa counts minutes from 2011-01-01T00:00Z; PriceSeries counts them from 1970.
MINUTES_TO_2011 = 21_564_000
IMAGE_ADDRESS = "https://m.media-amazon.com/images/I/"
PRICE_TYPES = tuple(PriceType)

LAST_MINUTE = (datetime(9999, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(minutes=1) - MINUTES_TO_2011
_LARGEST = 2**63 - 1
# What the database has room for: integer for amounts and counts.
MOST_AMOUNT = 2**31 - 1
MOST_RATING_TENTHS = 50
# Java's largest long; the second is what JavaScript makes of it.
_UNKNOWN_CATEGORIES = frozenset({0, -1, 9223372036854775807, 9223372036854776000})
IMAGE_NAME = re.compile(r"[\w+%.,~()-]+", re.ASCII)
# Only with its semicolon: in a title, `&not` may just as well be the start of a name.
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
# Of two halves that make one character, of half a one, and of any other escape, so that `\\ud800` is not taken for one.
_ESCAPE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL)
UNREADABLE = (ValueError, RecursionError)  # msgspec's errors and UnicodeDecodeError are ValueErrors

_KINDS = {
    0: ProductKind.STANDARD,
    1: ProductKind.DOWNLOAD,
    2: ProductKind.EBOOK,
    3: ProductKind.INACCESSIBLE,
    4: ProductKind.INVALID,
    5: ProductKind.VARIATION_PARENT,
}
_AVAILABILITIES = {
    -1: Availability.NO_OFFER,
    0: Availability.IN_STOCK,
    1: Availability.PREORDER,
    2: Availability.UNKNOWN,
    3: Availability.BACKORDER,
    4: Availability.DELAYED,
}
_RETURN_RATES = {1: ReturnRate.LOW, 2: ReturnRate.HIGH}
_STRIDES = {price_type: 3 if price_type.includes_shipping else 2 for price_type in PriceType}
# The least value that is one: a price of 0 is no price, a count of 0 is a count.
FLOORS = {price_type: 1 if price_type.is_price else 0 for price_type in PriceType}
CEILINGS = {price_type: MOST_RATING_TENTHS if price_type is PriceType.RATING else MOST_AMOUNT for price_type in PriceType}
_SALES = PRICE_TYPES.index(PriceType.SALES)
_NOT_ASKED = -2
_NO_SELLER = frozenset({None, "", "-1", "-2"})
# Without these nobody can tell what a product costs, so it does not count as answered.
_INDISPENSABLE = frozenset({"productType", "stats", "stats.current", "csv"})
_MOST_TOKENS = 2**31 - 1
_CONTROLS = {0: None} | dict.fromkeys((*range(1, 32), *range(127, 160)), " ")


W = TypeVar("W", bound=msgspec.Struct)
K = TypeVar("K")
V = TypeVar("V")

# PostgreSQL's bigint, and any amount or minute there can be. Checked by msgspec, where it costs nothing.
Amount = Annotated[int, msgspec.Meta(le=2**63 - 1)]
Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


# A piece, what of it was lost, and where it stands.
Piecewise: TypeAlias = Callable[[msgspec.Raw, list[str], str], Any]


class SeriesUnreadable(ValueError):
    """A flat history that is no series of pairs or triplets in ascending time."""


class NotAnAnswer(ValueError):
    """Bytes that are no answer of Keepa's. The client turns it into `AnswerUnreadable`, with the facts of the call."""


class OnFirstUse(Mapping[K, V]):
    """A mapping made from what Keepa sent when somebody first looks into it; for the statistics that a price watch does not need."""

    __slots__ = ("_made", "_make", "_sent")

    def __init__(self, make: Callable[[Any], Mapping[K, V]], sent: object) -> None:
        self._make = make
        self._sent = sent
        self._made: Mapping[K, V] | None = None

    def _mapping(self) -> Mapping[K, V]:
        if self._made is None:
            self._made = self._make(self._sent)
        return self._made

    def __getitem__(self, key: K) -> V:
        return self._mapping()[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._mapping())

    def __len__(self) -> int:
        return len(self._mapping())

    def __repr__(self) -> str:
        return repr(self._mapping())


class ImageWire(msgspec.Struct, gc=False):
    l: str | None = None  # noqa: E741
    m: str | None = None


class CategoryWire(msgspec.Struct, gc=False):
    name: str | None = None


class VariationWire(msgspec.Struct, gc=False):
    asin: str | None = None


class FbaFeesWire(msgspec.Struct, gc=False):
    pickAndPackFee: Int | None = None


class StatsWire(msgspec.Struct, gc=False):
    current: list[Int] | None = None
    avg: list[Int] | None = None
    avg30: list[Int] | None = None
    avg90: list[Int] | None = None
    avg180: list[Int] | None = None
    avg365: list[Int] | None = None
    min: list[list[Int] | None] | None = None
    max: list[list[Int] | None] | None = None
    minInInterval: list[list[Int] | None] | None = None
    maxInInterval: list[list[Int] | None] | None = None
    outOfStockPercentageInInterval: list[Int] | None = None
    outOfStockPercentage30: list[Int] | None = None
    outOfStockPercentage90: list[Int] | None = None
    outOfStockPercentage180: list[Int] | None = None
    outOfStockPercentage365: list[Int] | None = None
    salesRankDrops30: Int | None = None
    salesRankDrops90: Int | None = None
    salesRankDrops180: Int | None = None
    salesRankDrops365: Int | None = None
    totalOfferCount: Int | None = None
    buyBoxPrice: Int | None = None
    buyBoxShipping: Int | None = None
    buyBoxUsedPrice: Int | None = None
    buyBoxUsedShipping: Int | None = None
    buyBoxSellerId: str | None = None
    buyBoxIsAmazon: bool | None = None
    buyBoxIsFBA: bool | None = None
    buyBoxIsPrimeEligible: bool | None = None
    lastBuyBoxUpdate: Int | None = None
    lightningDealInfo: list[Int] | None = None


class ProductWire(msgspec.Struct, gc=False):
    asin: str
    domainId: Int | None = None
    productType: Int | None = None
    title: str | None = None
    brand: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    color: str | None = None
    size: str | None = None
    binding: str | None = None
    images: list[ImageWire] | None = None
    imagesCSV: str | None = None
    rootCategory: int | None = None
    categories: list[int] | None = None
    categoryTree: list[CategoryWire] | None = None
    eanList: list[str] | None = None
    upcList: list[str] | None = None
    parentAsin: str | None = None
    variations: list[VariationWire] | None = None
    variationCSV: str | None = None
    salesRankReference: int | None = None
    salesRanks: msgspec.Raw = msgspec.Raw()
    monthlySold: Int | None = None
    availabilityAmazon: Int | None = None
    referralFeePercentage: float | None = None
    referralFeePercent: float | None = None
    fbaFees: FbaFeesWire | None = None
    packageHeight: Int | None = None
    packageLength: Int | None = None
    packageWidth: Int | None = None
    packageWeight: Int | None = None
    packageQuantity: Int | None = None
    numberOfItems: Int | None = None
    lastUpdate: Int | None = None
    lastPriceChange: Int | None = None
    listedSince: Int | None = None
    trackingSince: Int | None = None
    isAdultProduct: bool | None = None
    hazardousMaterials: list[msgspec.Raw] | None = None
    isHeatSensitive: bool | None = None
    returnRate: Int | None = None
    coupon: list[Int] | None = None
    stats: StatsWire | None = None
    csv: list[list[Amount] | None] | None = None


class ErrorWire(msgspec.Struct, gc=False):
    type: str | None = None
    message: str | None = None
    details: str | None = None


class EnvelopeWire(msgspec.Struct, gc=False):
    timestamp: Int | None = None
    tokensLeft: Int | None = None
    refillIn: Int | None = None
    refillRate: Int | None = None
    tokenFlowReduction: float | None = None
    tokensConsumed: Int | None = None
    error: ErrorWire | None = None


class ProductsWire(EnvelopeWire, gc=False):
    """Each product is read by itself: what the reader has just made is still in the processor's cache when it becomes a value."""

    products: list[msgspec.Raw] | None = None


_read_answer = msgspec.json.Decoder(ProductsWire).decode
_read_product = msgspec.json.Decoder(ProductWire).decode
_read_pieces = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
read_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class Envelope:
    """The part every answer has.

    Attributes:
        tokens: None where the answer holds no usable token fields, as with an invalid key.
        is_all_zero: the token fields are there and all 0: how Keepa answers a key it does not know.
        error: Keepa's own words, `type: message (details)`, not yet redacted; None without an `error` object.
    """

    tokens: TokenStatus | None
    is_all_zero: bool
    error: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class DecodedProducts:
    """The products of one answer by ASIN, and what became of the rest; see `ProductAnswer`."""

    envelope: Envelope
    has_payload: bool
    products: Mapping[str, Product]
    raw: Mapping[str, msgspec.Raw]
    missing: tuple[str, ...]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    unasked: tuple[str, ...] = ()


def decode_envelope(body: bytes) -> Envelope:
    """The envelope of any answer, errors included.

    Raises:
        NotAnAnswer: no JSON object.
    """
    wire = read_struct(body, EnvelopeWire, [])
    return envelope_of(wire)


def decode_products(body: bytes, asked: Sequence[str], marketplace: Marketplace) -> DecodedProducts:
    """The answer to a product request, matched by ASIN.

    Raises:
        NotAnAnswer: no JSON object, or its `products` is no list.
    """
    wire = _read_product_answer(body)
    envelope = envelope_of(wire)
    answered_at = envelope.tokens.at if envelope.tokens else EPOCH
    wanted = frozenset(asked)
    products: dict[str, Product] = {}
    raw: dict[str, msgspec.Raw] = {}
    unreadable: dict[str, str] = {}
    unasked: list[str] = []
    for piece in wire.products or ():
        dropped: list[str] = []
        product = _read_product_piece(piece, dropped)
        if product is None:  # nobody can say whose it is; its ASIN shows up as missing
            continue
        asin = product.asin
        if asin not in wanted:
            unasked.append(asin)
        elif asin in products or asin in unreadable:
            continue
        elif product.domainId is not None and product.domainId != DOMAIN_IDS[marketplace]:
            unreadable[asin] = f"is of Keepa's domain {product.domainId}, asked was {marketplace}"
        elif lost := [reason for reason in dropped if reason.partition(":")[0] in _INDISPENSABLE]:
            unreadable[asin] = "; ".join(lost)
        else:
            products[asin] = decode_product(product, marketplace, answered_at, dropped)
            raw[asin] = piece
    missing = tuple(asin for asin in asked if asin not in products and asin not in unreadable)
    return DecodedProducts(envelope, wire.products is not None, products, raw, missing, unreadable, tuple(unasked))


def decode_raw_product(raw: bytes, asin: str, marketplace: Marketplace, answered_at: datetime) -> Product:
    """One product from Keepa's own JSON of it, as an event carries it.

    Raises:
        NotAnAnswer: of another ASIN or marketplace, or not in a shape that can be understood.
    """
    dropped: list[str] = []
    try:
        product = _read_product_piece(msgspec.Raw(raw), dropped)
    except UNREADABLE as error:
        raise NotAnAnswer(reason_of(error)) from error
    if product is None or product.asin != asin:
        raise NotAnAnswer(f"the product is not {asin}")
    if product.domainId is not None and product.domainId != DOMAIN_IDS[marketplace]:
        raise NotAnAnswer(f"the product is of Keepa's domain {product.domainId}, not of {marketplace}")
    if lost := [reason for reason in dropped if reason.partition(":")[0] in _INDISPENSABLE]:
        raise NotAnAnswer("; ".join(lost))
    return decode_product(product, marketplace, answered_at, dropped)


def decode_product(wire: ProductWire, marketplace: Marketplace, answered_at: datetime, dropped: Sequence[str] = ()) -> Product:
    """One product. Prices are left out for the kinds that have none, whatever Keepa's arrays hold."""
    reasons = list(dropped)
    kind = _KINDS.get(wire.productType or 0)
    if kind is None:
        kind = ProductKind.STANDARD
        reasons.append(f"productType: {wire.productType} is unknown")
    series = _decode_history(wire.csv, reasons) if wire.csv else {}
    stats = _decode_stats(wire.stats, series, reasons) if wire.stats is not None else None
    if not kind.has_prices:
        series = _without_prices(series)
        stats = _stats_without_prices(stats) if stats is not None else None
    fees = wire.fbaFees
    coupon_minor, coupon_pct = _coupon(wire.coupon, reasons)
    referral_fee_pct = wire.referralFeePercentage if wire.referralFeePercentage is not None else wire.referralFeePercent
    return Product(
        asin=wire.asin,
        marketplace=marketplace,
        kind=kind,
        answered_at=answered_at,
        updated_at=decode_time(wire.lastUpdate),
        title=decode_text(wire.title),
        brand=decode_text(wire.brand),
        manufacturer=decode_text(wire.manufacturer),
        model=decode_text(wire.model),
        color=decode_text(wire.color),
        size=decode_text(wire.size),
        binding=decode_text(wire.binding),
        image_urls=_image_addresses(wire),
        root_category_id=wire.rootCategory if wire.rootCategory is not None and is_category(wire.rootCategory) else None,
        category_ids=tuple([category for category in wire.categories if is_category(category)]) if wire.categories else (),
        category_path=_texts([branch.name for branch in wire.categoryTree]) if wire.categoryTree else (),
        eans=_texts(wire.eanList) if wire.eanList else (),
        upcs=_texts(wire.upcList) if wire.upcList else (),
        parent_asin=decode_text(wire.parentAsin),
        variation_asins=_variation_asins(wire),
        sales_rank=_sales_rank(wire, series, answered_at, reasons),
        rating_tenths=_current(PriceType.RATING, stats, series, answered_at),
        review_count=_current(PriceType.COUNT_REVIEWS, stats, series, answered_at),
        monthly_sold=_positive(wire.monthlySold, "monthlySold", reasons),
        availability=_AVAILABILITIES.get(wire.availabilityAmazon) if wire.availabilityAmazon is not None else None,
        referral_fee_pct=referral_fee_pct if referral_fee_pct is not None and 0 < referral_fee_pct <= 100 else None,
        fba_pick_pack_minor=_positive(fees.pickAndPackFee, "fbaFees.pickAndPackFee", reasons) if fees else None,
        package_height_mm=_positive(wire.packageHeight, "packageHeight", reasons),
        package_length_mm=_positive(wire.packageLength, "packageLength", reasons),
        package_width_mm=_positive(wire.packageWidth, "packageWidth", reasons),
        package_weight_g=_positive(wire.packageWeight, "packageWeight", reasons),
        package_quantity=_positive(wire.packageQuantity, "packageQuantity", reasons),
        unit_count=_positive(wire.numberOfItems, "numberOfItems", reasons),
        listed_at=decode_time(wire.listedSince),
        price_changed_at=decode_time(wire.lastPriceChange),
        tracking_since=decode_time(wire.trackingSince),
        is_adult=bool(wire.isAdultProduct),
        prime_eligible=wire.stats.buyBoxIsPrimeEligible if wire.stats is not None else None,
        is_hazardous=bool(wire.hazardousMaterials) if wire.hazardousMaterials is not None else None,
        is_heat_sensitive=wire.isHeatSensitive,
        return_rate=_RETURN_RATES.get(wire.returnRate) if wire.returnRate is not None else None,
        coupon_minor=coupon_minor,
        coupon_pct=coupon_pct,
        lightning_ends_at=_lightning_end(wire.stats, answered_at),
        offer_count=_offer_count(stats, series, answered_at),
        sales_rank_drops_30=_count(wire.stats.salesRankDrops30, "stats.salesRankDrops30", reasons) if wire.stats is not None else None,
        buy_box_is_amazon=wire.stats.buyBoxIsAmazon if wire.stats is not None else None,
        buy_box_is_fba=wire.stats.buyBoxIsFBA if wire.stats is not None else None,
        series=series,
        stats=stats,
        dropped=tuple(reasons),
    )


def decode_series(flat: list[int], price_type: PriceType, dropped: list[str] | None = None) -> PriceSeries:
    """A flat history of `[time, value, ...]` or `[time, price, shipping, ...]` as two columns.

    Types whose name ends in `_SHIPPING` come as triplets and become the landed price, price + shipping; a shipping below 0 (unspecified or
    not shippable) counts as 0. NEW, USED, COLLECTIBLE and REFURBISHED are pairs and stay as Keepa has them: the listing price before
    2026-02-23, listing + shipping since, so a step on that day need not be a change of price.
    A value below 0, and a price of 0, is None; only EXTRA_INFO_UPDATES keeps its sign (its amount is the number of offers fetched,
    negative where there were more). So is a value beyond any price, count or rating; that is named in `dropped`. Entries in the future
    are kept: Keepa announces lightning deals. Of several entries of one minute the last counts.

    Raises:
        SeriesUnreadable: cut off within an entry, times that descend, or numbers beyond any date or count.
    """
    stride = _STRIDES[price_type]
    if len(flat) % stride:
        raise SeriesUnreadable(f"{len(flat)} numbers are not entries of {stride}")
    if not flat:
        return PriceSeries((), ())
    times = flat[::stride]
    if not all(map(lt, times, islice(times, 1, None))):
        return decode_series(_without_repeats(flat, stride), price_type, dropped)
    if times[0] < -MINUTES_TO_2011 or times[-1] > LAST_MINUTE:
        raise SeriesUnreadable("holds a time that is no date")
    values: Sequence[int] = flat[1::stride]
    most, ceiling = max(values), CEILINGS[price_type]
    amounts: Sequence[int | None] = values
    if stride == 3:
        shippings = flat[2::3]
        most += max(0, max(shippings))
        amounts = [
            landed if price >= 0 and 0 < (landed := price + shipping if shipping > 0 else price) <= ceiling else None
            for price, shipping in zip(values, shippings, strict=True)
        ]
    elif price_type is PriceType.EXTRA_INFO_UPDATES:
        if min(values) < -_LARGEST:
            raise SeriesUnreadable("holds a number that is no count")
    elif min(values) < (floor := FLOORS[price_type]) or most > ceiling:
        amounts = [value if floor <= value <= ceiling else None for value in values]
    if most > ceiling and dropped is not None and price_type is not PriceType.EXTRA_INFO_UPDATES:
        sums = (
            [price + max(0, shipping) for price, shipping in zip(values, flat[2::3], strict=True) if price >= 0] if stride == 3 else values
        )
        if beyond := sum(1 for value in sums if value > ceiling):
            dropped.append(f"csv.{price_type}: {beyond} of {len(values)} values are beyond {ceiling}")
    return PriceSeries(tuple([time + MINUTES_TO_2011 for time in times]), tuple(amounts))


def encode_series(series: PriceSeries, price_type: PriceType) -> list[int]:
    """The flat history that decodes to `series`. No offer is -1; the landed price stands as price with shipping 0."""
    flat: list[int] = []
    for minute, amount in zip(series.minutes, series.amounts, strict=True):
        flat += (minute - MINUTES_TO_2011, -1 if amount is None else amount)
        if price_type.includes_shipping:
            flat.append(-1 if amount is None else 0)
    return flat


def _read_product_answer(body: bytes) -> ProductsWire:
    try:
        return _read_answer(body)
    except UNREADABLE:
        dropped: list[str] = []
        answer = read_struct(body, ProductsWire, dropped)
    if any(reason.startswith("products:") for reason in dropped):
        raise NotAnAnswer("`products` is not a list")
    return answer


def _read_product_piece(piece: msgspec.Raw, dropped: list[str]) -> ProductWire | None:
    try:
        return _read_product(piece)
    except UNREADABLE:
        pass
    try:
        return read_struct(piece, ProductWire, dropped)
    except NotAnAnswer:
        return None


def read_struct(
    raw: bytes | msgspec.Raw, shape: type[W], dropped: list[str], path: str = "", *, piecewise: Mapping[str, Piecewise] | None = None
) -> W:
    """`raw` as `shape`, without the fields that do not fit; each of those is named in `dropped`.

    Args:
        piecewise: how to read the fields of which a part may be kept, by name; those of a product where nothing is said.

    Raises:
        NotAnAnswer: no JSON object, or a field that must be there is not.
    """
    try:
        try:
            pieces = _read_pieces(raw)
        except UNREADABLE:
            # Half a character is no JSON to msgspec, wherever it stands; as a byte that is no UTF-8 it costs only its own field.
            pieces = _read_pieces(_ESCAPE.sub(lambda escape: b"\xff" if escape[1] else escape[0], bytes(raw)))
    except UNREADABLE as error:
        raise NotAnAnswer(reason_of(error)) from None
    known: dict[str, Any] = {}
    piecewise = _PIECEWISE if piecewise is None else piecewise
    for name, kind in _fields(shape):
        piece = pieces.get(name)
        if piece is None:
            continue
        try:
            known[name] = piecewise[name](piece, dropped, path) if name in piecewise else msgspec.json.decode(piece, type=kind)
        except UNREADABLE as error:
            dropped.append(f"{path}{name}: {reason_of(error)}")
    try:
        return shape(**known)
    except TypeError:
        raise NotAnAnswer(f"a {shape.__name__} without what it must have") from None


def _read_stats(piece: msgspec.Raw, dropped: list[str], path: str) -> StatsWire | None:
    return None if bytes(piece) == b"null" else read_struct(piece, StatsWire, dropped, f"{path}stats.")


def _read_csv(piece: msgspec.Raw, dropped: list[str], path: str) -> list[list[int] | None] | None:
    if bytes(piece) == b"null":
        return None
    histories: list[list[int] | None] = []
    for index, raw in enumerate(read_raws(piece)):
        try:
            histories.append(msgspec.json.decode(raw, type=list[Amount] | None))
        except UNREADABLE as error:
            histories.append(None)
            dropped.append(f"{path}csv[{index}]: {reason_of(error)}")
    return histories


def read_error(piece: msgspec.Raw, _dropped: list[str], _path: str) -> ErrorWire | None:
    """An error stays one, whatever its shape."""
    try:
        return msgspec.json.decode(piece, type=ErrorWire | None)
    except UNREADABLE:
        return ErrorWire(type="an error in a shape that cannot be read")


def _fields(shape: type[msgspec.Struct]) -> Iterable[tuple[str, Any]]:
    return ((entry.encode_name, entry.type) for entry in msgspec.structs.fields(shape))


def reason_of(error: Exception) -> str:
    """Why something could not be read, without quoting it."""
    return "is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


def envelope_of(wire: EnvelopeWire) -> Envelope:
    counts = (wire.tokensLeft, wire.refillIn, wire.refillRate, wire.tokensConsumed)
    error = None
    if wire.error is not None:
        error = ": ".join(part for part in (wire.error.type, wire.error.message) if part) or "unnamed"
        if wire.error.details:
            error += f" ({wire.error.details})"
    return Envelope(_token_status(wire), all(count == 0 for count in counts), error)


def _token_status(wire: EnvelopeWire) -> TokenStatus | None:
    if wire.timestamp is None or wire.tokensLeft is None or not wire.refillRate or wire.refillRate < 0:
        return None
    try:
        at = EPOCH + timedelta(milliseconds=wire.timestamp)
    except OverflowError:
        return None
    if max(abs(wire.tokensLeft), abs(wire.tokensConsumed or 0), wire.refillRate, abs(wire.refillIn or 0)) > _MOST_TOKENS:
        return None
    return TokenStatus(
        at=at,
        tokens_left=wire.tokensLeft,
        refill_in_seconds=max(wire.refillIn or 0, 0) / 1000,
        refill_per_minute=wire.refillRate,
        flow_reduction_per_minute=wire.tokenFlowReduction or 0.0,
        tokens_consumed=wire.tokensConsumed or 0,
    )


def _decode_history(histories: Sequence[list[int] | None], reasons: list[str]) -> dict[PriceType, PriceSeries]:
    series: dict[PriceType, PriceSeries] = {}
    # Keepa's arrays may be shorter than our list of types, or longer without notice.
    for price_type, flat in zip(PRICE_TYPES, histories, strict=False):
        if flat:
            try:
                series[price_type] = decode_series(flat, price_type, reasons)
            except SeriesUnreadable as error:
                reasons.append(f"csv.{price_type}: {error}")
    return series


def _decode_stats(wire: StatsWire, series: Mapping[PriceType, PriceSeries], reasons: list[str]) -> ProductStats:
    # -1 also stands for a type the request did not ask for, so it means "no offer now" only where Keepa shows that it knows the type.
    current: dict[PriceType, int | None] = {
        price_type: value if value >= FLOORS[price_type] else None
        for price_type, value, share, peak in zip(
            PRICE_TYPES,
            wire.current or (),
            chain(wire.outOfStockPercentage365 or (), repeat(-1)),
            chain(wire.max or (), repeat(None)),
            strict=False,
        )
        if value >= 0 or share >= 0 or peak or price_type in series
    }
    for price_type, price, shipping in (
        (PriceType.BUY_BOX_SHIPPING, wire.buyBoxPrice, wire.buyBoxShipping),
        (PriceType.BUY_BOX_USED_SHIPPING, wire.buyBoxUsedPrice, wire.buyBoxUsedShipping),
    ):
        if price is not None and price != _NOT_ASKED:
            landed = price + max(shipping or 0, 0)
            current[price_type] = landed if price >= 0 and landed > 0 else None
    for price_type, value in current.items():
        if value is not None and value > CEILINGS[price_type]:
            current[price_type] = None
            reasons.append(f"stats.current.{price_type}: is beyond {CEILINGS[price_type]}")
    return ProductStats(
        current=current,
        average=OnFirstUse(_averages, wire),
        lowest=OnFirstUse(_extremes, wire.min),
        highest=OnFirstUse(_extremes, wire.max),
        lowest_in_interval=OnFirstUse(_extremes, wire.minInInterval),
        highest_in_interval=OnFirstUse(_extremes, wire.maxInInterval),
        out_of_stock_pct=OnFirstUse(_out_of_stock_shares, wire),
        sales_rank_drops=OnFirstUse(_sales_rank_drops, wire),
        total_offer_count=wire.totalOfferCount if wire.totalOfferCount is not None and wire.totalOfferCount >= 0 else None,
        buy_box_seller_id=None if wire.buyBoxSellerId in _NO_SELLER else decode_text(wire.buyBoxSellerId),
        buy_box_is_amazon=wire.buyBoxIsAmazon,
        buy_box_is_fba=wire.buyBoxIsFBA,
        buy_box_updated_at=decode_time(wire.lastBuyBoxUpdate),
    )


def _averages(wire: StatsWire) -> dict[int, Mapping[PriceType, int]]:
    return {
        0: _known(wire.avg),
        30: _known(wire.avg30),
        90: _known(wire.avg90),
        180: _known(wire.avg180),
        365: _known(wire.avg365),
    }


def _out_of_stock_shares(wire: StatsWire) -> dict[int, Mapping[PriceType, int]]:
    return {
        0: _known(wire.outOfStockPercentageInInterval),
        30: _known(wire.outOfStockPercentage30),
        90: _known(wire.outOfStockPercentage90),
        180: _known(wire.outOfStockPercentage180),
        365: _known(wire.outOfStockPercentage365),
    }


def _sales_rank_drops(wire: StatsWire) -> dict[int, int]:
    drops = {30: wire.salesRankDrops30, 90: wire.salesRankDrops90, 180: wire.salesRankDrops180, 365: wire.salesRankDrops365}
    return {days: count for days, count in drops.items() if count is not None and count >= 0}


def _without_prices(by_type: Mapping[PriceType, V]) -> dict[PriceType, V]:
    return {price_type: value for price_type, value in by_type.items() if not price_type.is_price}


def _stats_without_prices(stats: ProductStats) -> ProductStats:
    return replace(
        stats,
        current=_without_prices(stats.current),
        average={days: _without_prices(average) for days, average in stats.average.items()},
        lowest=_without_prices(stats.lowest),
        highest=_without_prices(stats.highest),
        lowest_in_interval=_without_prices(stats.lowest_in_interval),
        highest_in_interval=_without_prices(stats.highest_in_interval),
        out_of_stock_pct={days: _without_prices(share) for days, share in stats.out_of_stock_pct.items()},
    )


def _known(values: Sequence[int] | None) -> dict[PriceType, int]:
    """Without the types that are -1 or -2."""
    return {price_type: value for price_type, value in zip(PRICE_TYPES, values, strict=False) if value >= 0} if values else {}


def _extremes(pairs: Sequence[Sequence[int] | None] | None) -> dict[PriceType, Extreme]:
    """Without the types that are null (no data at all) or `[-1, -1]` (none in the interval)."""
    if not pairs:
        return {}
    return {
        price_type: Extreme(pair[1], pair[0] + MINUTES_TO_2011)
        for price_type, pair in zip(PRICE_TYPES, pairs, strict=False)
        if pair and len(pair) == 2 and pair[1] >= 0 and 0 <= pair[0] <= LAST_MINUTE
    }


def _current(price_type: PriceType, stats: ProductStats | None, series: Mapping[PriceType, PriceSeries], at: datetime) -> int | None:
    if stats is not None and (value := stats.current.get(price_type)) is not None:
        return value
    known = series.get(price_type)
    return value_at(known, minute_of(at)) if known is not None else None


def _offer_count(stats: ProductStats | None, series: Mapping[PriceType, PriceSeries], at: datetime) -> int | None:
    """Sellers of new goods. Where Keepa counts them and says -1, there are none now."""
    if stats is not None and PriceType.COUNT_NEW in stats.current:
        return stats.current[PriceType.COUNT_NEW] or 0
    return _current(PriceType.COUNT_NEW, None, series, at)


def _coupon(sent: Sequence[int] | None, reasons: list[str]) -> tuple[int | None, int | None]:
    """Amount and percentage of `[once, with a subscription]`: a positive number is money, a negative one a percentage, 0 none."""
    if not sent or not sent[0]:
        return None, None
    if not -100 <= sent[0] <= MOST_AMOUNT:
        reasons.append(f"coupon: is beyond 100 % or {MOST_AMOUNT}")
        return None, None
    return (sent[0], None) if sent[0] > 0 else (None, -sent[0])


def _lightning_end(stats: StatsWire | None, at: datetime) -> datetime | None:
    """Of `[start, end]`; an announced deal ends at -1, one that is over stays there."""
    if stats is None or stats.lightningDealInfo is None or len(stats.lightningDealInfo) != 2:
        return None
    start, end = map(decode_time, stats.lightningDealInfo)
    return end if start is not None and end is not None and start <= at < end else None


def _sales_rank(wire: ProductWire, series: Mapping[PriceType, PriceSeries], at: datetime, reasons: list[str]) -> int | None:
    """The main rank, from wherever the options of the request left it."""
    current = wire.stats.current if wire.stats is not None else None
    if current is not None and len(current) > _SALES and 0 < current[_SALES] <= MOST_AMOUNT:
        return current[_SALES]
    if PriceType.SALES in series:
        return value_at(series[PriceType.SALES], minute_of(at))
    if not bytes(wire.salesRanks) or wire.salesRankReference is None:
        return None
    try:
        ranks = msgspec.json.decode(wire.salesRanks, type=dict[str, msgspec.Raw] | None) or {}
        flat = msgspec.json.decode(ranks.get(str(wire.salesRankReference), b"null"), type=list[int] | None)
        return value_at(decode_series(flat, PriceType.SALES, reasons), minute_of(at)) if flat else None
    except UNREADABLE:
        return None


def _without_repeats(flat: list[int], stride: int) -> list[int]:
    times = flat[::stride]
    if sorted(times) != times:
        raise SeriesUnreadable("its times descend")
    last = {time: position for position, time in enumerate(times)}
    return [number for position in last.values() for number in flat[position * stride : (position + 1) * stride]]


def _image_addresses(wire: ProductWire) -> tuple[str, ...]:
    """`images[]`, or `imagesCSV` as Keepa sent it until April 2026."""
    names: Iterable[str | None] = ()
    if wire.images:
        names = [image.l or image.m for image in wire.images]
    elif wire.imagesCSV:
        names = wire.imagesCSV.split(",")
    return tuple([IMAGE_ADDRESS + name for name in names if name and IMAGE_NAME.fullmatch(name)])


def _variation_asins(wire: ProductWire) -> tuple[str, ...]:
    """`variations[]`, or `variationCSV` as Keepa sent it until April 2026."""
    if wire.variations:
        return _texts([variation.asin for variation in wire.variations])
    return _texts(wire.variationCSV.split(",")) if wire.variationCSV else ()


def decode_text(text: str | None) -> str | None:
    """Without HTML entities, outer blanks and control characters (PostgreSQL's text holds no NUL, a search completion none at all)."""
    if not text:
        return None
    if "&" in text and ";" in text:
        text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    if not text.isprintable():
        text = text.translate(_CONTROLS)
    return text.strip() or None


def _texts(texts: Iterable[str | None]) -> tuple[str, ...]:
    return tuple([text for sent in texts if (text := decode_text(sent))])


def decode_time(minute: int | None) -> datetime | None:
    """A Keepa minute; 0 and below mean that Keepa does not know."""
    return datetime.fromtimestamp((minute + MINUTES_TO_2011) * 60, UTC) if minute is not None and 0 < minute <= LAST_MINUTE else None


def _positive(number: int | None, name: str, reasons: list[str]) -> int | None:
    """0 and below mean that Keepa does not know."""
    if number is None or number <= 0:
        return None
    if number > MOST_AMOUNT:
        reasons.append(f"{name}: is beyond {MOST_AMOUNT}")
        return None
    return number


def _count(number: int | None, name: str, reasons: list[str]) -> int | None:
    """Below 0 means that Keepa does not know."""
    return 0 if number == 0 else _positive(number, name, reasons)


def is_category(category_id: int) -> bool:
    return category_id not in _UNKNOWN_CATEGORIES and 0 < category_id <= _LARGEST


_PIECEWISE: Mapping[str, Piecewise] = {"stats": _read_stats, "csv": _read_csv, "error": read_error}
