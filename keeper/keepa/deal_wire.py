"""A page of Keepa's deals, and how its rows become sightings.

Read as products are, see `keeper.keepa.wire`: strictly in one pass, and only a row that fails there again piece by piece. A row loses
the fields that make no sense (`dropped`), a page the rows that make none (`unreadable`), and only what is no page at all is an error.
What most rows are never asked for, all the other present values of a product, is sorted by price type on first use.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from keeper.domain.deal import AVERAGE_DAYS, OFFER_COUNTS, DealSighting, RootCategory
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_series import minute_of
from keeper.domain.price_type import PriceType
from keeper.keepa.requests import ASIN
from keeper.keepa.wire import (
    CEILINGS,
    FLOORS,
    IMAGE_ADDRESS,
    IMAGE_NAME,
    LAST_MINUTE,
    MINUTES_TO_2011,
    MOST_AMOUNT,
    MOST_RATING_TENTHS,
    PRICE_TYPES,
    UNREADABLE,
    Envelope,
    EnvelopeWire,
    Int,
    NotAnAnswer,
    OnFirstUse,
    Piecewise,
    decode_text,
    envelope_of,
    is_category,
    read_error,
    read_raws,
    read_struct,
    reason_of,
)

_INDEXES = {price_type: index for index, price_type in enumerate(PRICE_TYPES)}
_LIST_PRICE = _INDEXES[PriceType.LISTPRICE]
_RANK = _INDEXES[PriceType.SALES]
_RATING = _INDEXES[PriceType.RATING]
_REVIEWS = _INDEXES[PriceType.COUNT_REVIEWS]
_UNKNOWN = -2
_NAMELESS = "?"
_CELL = re.compile(r"current\[([0-9]+)\]")


class DealWire(msgspec.Struct, gc=False):
    asin: str
    title: str | None = None
    image: list[Int] | None = None
    rootCat: int | None = None
    categories: list[int] | None = None
    parentAsin: str | None = None
    current: list[Int] | None = None
    currentSince: list[Int] | None = None
    avg: list[list[Int]] | None = None
    deltaLast: list[Int] | None = None
    creationDate: Int | None = None
    lastUpdate: Int | None = None
    lightningStart: Int | None = None
    lightningEnd: Int | None = None
    salesRankDrops90: Int | None = None


class DealPageWire(msgspec.Struct, gc=False):
    """The three arrays of categories are parallel: root categories of the whole query, not of the page."""

    dr: list[msgspec.Raw] | None = None
    categoryIds: list[int] | None = None
    categoryNames: list[str | None] | None = None
    categoryCount: list[Int] | None = None


class DealsWire(EnvelopeWire, gc=False):
    deals: DealPageWire | None = None
    dealsCached: bool | None = None


_read_answer = msgspec.json.Decoder(DealsWire).decode
_read_deal = msgspec.json.Decoder(DealWire).decode


@dataclass(frozen=True, slots=True)
class DecodedDeals:
    """The rows of one page, and what became of the rest; see `DealAnswer`."""

    envelope: Envelope
    has_payload: bool
    sightings: tuple[DealSighting, ...]
    raw: Mapping[str, msgspec.Raw]
    row_count: int
    is_cached: bool
    unreadable: Mapping[str | int, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    dropped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    roots: Mapping[int, RootCategory] = field(default_factory=dict)


class _RowUnreadable(ValueError):
    """A row that does not say what makes it a deal."""


def decode_deals(body: bytes, marketplace: Marketplace, price_type: PriceType) -> DecodedDeals:
    """The answer to a request for deals of one price type.

    Raises:
        NotAnAnswer: no JSON object, or its `deals` are no page of rows.
    """
    wire = _read_deal_answer(body)
    envelope = envelope_of(wire)
    answered_minute = minute_of(envelope.tokens.at) if envelope.tokens else None
    page = wire.deals or DealPageWire()
    roots = _decode_roots(page)
    rows = page.dr or ()
    sightings: list[DealSighting] = []
    raw: dict[str, msgspec.Raw] = {}
    unreadable: dict[str | int, str] = {}
    skipped: list[str] = []
    lost: dict[str, tuple[str, ...]] = {}
    for position, piece in enumerate(rows):
        dropped: list[str] = []
        try:
            row = _read_row(piece, dropped)
        except _RowUnreadable as error:
            unreadable[position] = str(error)
            continue
        asin = row.asin
        if asin in raw or asin in unreadable or asin in skipped:
            continue
        try:
            sighting = _decode_row(row, marketplace, price_type, answered_minute, roots, dropped)
        except _RowUnreadable as error:
            unreadable[asin] = str(error)
            continue
        if sighting is None:
            skipped.append(asin)
            continue
        sightings.append(sighting)
        raw[asin] = piece
        if dropped:
            lost[asin] = tuple(dropped)
    return DecodedDeals(
        envelope,
        wire.deals is not None,
        tuple(sightings),
        raw,
        len(rows),
        bool(wire.dealsCached),
        unreadable,
        tuple(skipped),
        lost,
        roots,
    )


def _read_deal_answer(body: bytes) -> DealsWire:
    try:
        return _read_answer(body)
    except UNREADABLE:
        dropped: list[str] = []
        answer = read_struct(body, DealsWire, dropped, piecewise={"error": read_error, "deals": _read_page})
    if any(reason.startswith(("deals:", "deals.dr:")) for reason in dropped):
        raise NotAnAnswer("`deals` is not a page of rows")
    return answer


def _read_page(piece: msgspec.Raw, dropped: list[str], _path: str) -> DealPageWire | None:
    return None if bytes(piece) == b"null" else read_struct(piece, DealPageWire, dropped, "deals.", piecewise={})


def _read_row(piece: msgspec.Raw, dropped: list[str]) -> DealWire:
    try:
        row = _read_deal(piece)
    except UNREADABLE:
        try:
            row = read_struct(piece, DealWire, dropped, piecewise=_PIECEWISE)
        except NotAnAnswer as error:
            raise _RowUnreadable("; ".join(dropped) or str(error)) from None
    if not ASIN.fullmatch(row.asin):
        raise _RowUnreadable("asin: is none")
    return row


def _read_cells(piece: msgspec.Raw, dropped: list[str], _path: str, *, name: str) -> list[int] | None:
    """An array by price type; a cell that is no number counts as unknown."""
    if bytes(piece) == b"null":
        return None
    cells: list[int] = []
    for index, raw in enumerate(read_raws(piece)):
        try:
            cells.append(msgspec.json.decode(raw, type=Int))
        except UNREADABLE as error:
            cells.append(_UNKNOWN)
            dropped.append(f"{name}[{index}]: {reason_of(error)}")
    return cells


def _read_averages(piece: msgspec.Raw, dropped: list[str], path: str) -> list[list[int]] | None:
    if bytes(piece) == b"null":
        return None
    rows: list[list[int]] = []
    for index, raw in enumerate(read_raws(piece)):
        name = f"avg[{index}]"
        try:
            rows.append(_read_cells(raw, dropped, path, name=name) or [])
        except UNREADABLE as error:
            rows.append([])
            dropped.append(f"{name}: {reason_of(error)}")
    return rows


def _read_categories(piece: msgspec.Raw, dropped: list[str], _path: str) -> list[int] | None:
    if bytes(piece) == b"null":
        return None
    ids: list[int] = []
    for index, raw in enumerate(read_raws(piece)):
        try:
            ids.append(msgspec.json.decode(raw, type=int))
        except UNREADABLE as error:
            dropped.append(f"categories[{index}]: {reason_of(error)}")
    return ids


_PIECEWISE: Mapping[str, Piecewise] = {
    "current": partial(_read_cells, name="current"),
    "currentSince": partial(_read_cells, name="currentSince"),
    "deltaLast": partial(_read_cells, name="deltaLast"),
    "avg": _read_averages,
    "categories": _read_categories,
}


def _decode_row(
    wire: DealWire,
    marketplace: Marketplace,
    price_type: PriceType,
    answered_minute: int | None,
    roots: Mapping[int, RootCategory],
    dropped: list[str],
) -> DealSighting | None:
    """One row; None where there is no offer of the asked type.

    Raises:
        _RowUnreadable: it does not say what the price is, or since when.
    """
    index = _INDEXES[price_type]
    current = wire.current
    if current is None or index >= len(current) or (dropped and _is_lost(index, dropped)):
        raise _RowUnreadable("; ".join(dropped) or f"current: says nothing of {price_type}")
    amount = current[index]
    if amount <= 0:
        return None
    if amount > MOST_AMOUNT:
        raise _RowUnreadable(f"current.{price_type}: is beyond {MOST_AMOUNT}")
    since = _cell(wire.currentSince, index) or 0
    if not 0 < since <= LAST_MINUTE:
        since = wire.creationDate or 0
        if not 0 < since <= LAST_MINUTE:
            raise _RowUnreadable("; ".join([*dropped, f"currentSince: says nothing of {price_type}"]))
    looked = wire.lastUpdate
    averages: dict[int, int] = {}
    for days, row in zip(AVERAGE_DAYS, wire.avg or (), strict=False):
        if index < len(row) and (mean := row[index]) > 0:
            if mean <= MOST_AMOUNT:
                averages[days] = mean
            else:
                dropped.append(f"avg.{days}.{price_type}: is beyond {MOST_AMOUNT}")
    delta = _cell(wire.deltaLast, index)
    root_id = wire.rootCat
    root = roots.get(root_id) if root_id is not None else None
    start, end = wire.lightningStart or 0, wire.lightningEnd or 0
    now = None if answered_minute is None else answered_minute - MINUTES_TO_2011
    return DealSighting(
        asin=wire.asin,
        marketplace=marketplace,
        price_type=price_type,
        changed_minute=since + MINUTES_TO_2011,
        updated_minute=(looked if looked is not None and 0 < looked <= LAST_MINUTE else since) + MINUTES_TO_2011,
        amount_minor=amount,
        title=decode_text(wire.title),
        image_url=_image_address(wire.image, dropped) if wire.image else None,
        previous_minor=_known(amount + delta, 1, MOST_AMOUNT, "deltaLast", dropped) if delta else None,
        list_price_minor=_known(_cell(current, _LIST_PRICE), 1, MOST_AMOUNT, "current.LISTPRICE", dropped),
        averages_minor=averages,
        rating_tenths=_known(_cell(current, _RATING), 0, MOST_RATING_TENTHS, "current.RATING", dropped),
        review_count=_known(_cell(current, _REVIEWS), 0, MOST_AMOUNT, "current.COUNT_REVIEWS", dropped),
        sales_rank=_known(_cell(current, _RANK), 1, MOST_AMOUNT, "current.SALES", dropped),
        sales_rank_drops_90=_known(wire.salesRankDrops90, 0, MOST_AMOUNT, "salesRankDrops90", dropped),
        offer_count=_known(_cell(current, _INDEXES[OFFER_COUNTS[price_type]]), 0, MOST_AMOUNT, "current.COUNT", dropped),
        root_category_id=root_id if root_id is not None and is_category(root_id) else None,
        category_ids=tuple([category for category in wire.categories if is_category(category)]) if wire.categories else (),
        category=root.name if root is not None else None,
        parent_asin=wire.parentAsin if wire.parentAsin is not None and ASIN.fullmatch(wire.parentAsin) else None,
        is_lightning=price_type is PriceType.LIGHTNING_DEAL or (end > 0 and (now is None or start <= now < end)),
        current=OnFirstUse(_present_values, current),
        current_since=OnFirstUse(_present_since, wire.currentSince),
    )


def _is_lost(index: int, dropped: Sequence[str]) -> bool:
    return any((cell := _CELL.match(reason)) is not None and int(cell[1]) == index for reason in dropped)


def _cell(cells: Sequence[int] | None, index: int) -> int | None:
    return cells[index] if cells is not None and index < len(cells) else None


def _known(number: int | None, least: int, most: int, name: str, dropped: list[str]) -> int | None:
    """Without what Keepa says where it knows nothing, and without what no column has room for."""
    if number is None or number < least:
        return None
    if number > most:
        dropped.append(f"{name}: is beyond {most}")
        return None
    return number


def _present_values(cells: Sequence[int]) -> dict[PriceType, int | None]:
    return {
        price_type: value if FLOORS[price_type] <= value <= CEILINGS[price_type] else None
        for price_type, value in zip(PRICE_TYPES, cells, strict=False)
        if value != _UNKNOWN
    }


def _present_since(cells: Sequence[int] | None) -> dict[PriceType, int]:
    return {
        price_type: minute + MINUTES_TO_2011
        for price_type, minute in zip(PRICE_TYPES, cells or (), strict=False)
        if 0 < minute <= LAST_MINUTE
    }


def _image_address(codes: Sequence[int], dropped: list[str]) -> str | None:
    """Keepa spells the name of the picture as the codes of its characters."""
    try:
        name = bytes(codes).decode("ascii")
    except ValueError:
        name = ""
    if not IMAGE_NAME.fullmatch(name):
        dropped.append("image: spells no name of a picture")
        return None
    return IMAGE_ADDRESS + name


def _decode_roots(page: DealPageWire) -> dict[int, RootCategory]:
    return {
        category_id: RootCategory(None if name == _NAMELESS else decode_text(name), max(count, 0))
        for category_id, name, count in zip(page.categoryIds or (), page.categoryNames or (), page.categoryCount or (), strict=False)
        if is_category(category_id)
    }
