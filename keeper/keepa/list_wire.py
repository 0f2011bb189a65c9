"""Keepa's lists of ASINs and its categories, and how they become Keeper's values; read as `keeper.keepa.wire` says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from keeper.domain.category import Category
from keeper.domain.marketplace import Marketplace
from keeper.keepa.requests import ASIN
from keeper.keepa.wire import (
    MOST_AMOUNT,
    UNREADABLE,
    Envelope,
    EnvelopeWire,
    Int,
    NotAnAnswer,
    Piecewise,
    decode_text,
    decode_time,
    envelope_of,
    is_category,
    read_error,
    read_raws,
    read_struct,
)


class BestsellersWire(msgspec.Struct, gc=False):
    lastUpdate: Int | None = None
    categoryId: int | None = None
    asinList: list[str] | None = None


class AsinsWire(EnvelopeWire, gc=False):
    """`bestSellersList` is a list of bestsellers, which one author has also seen as a bare `asinList`."""

    asinList: list[str] | None = None
    totalResults: Int | None = None
    bestSellersList: BestsellersWire | None = None


class CategoryWire(msgspec.Struct, gc=False):
    catId: int
    name: str | None = None
    parent: int | None = None
    children: list[int] | None = None
    productCount: Int | None = None


class CategoriesWire(EnvelopeWire, gc=False):
    categories: dict[str, msgspec.Raw] | None = None


@dataclass(frozen=True, slots=True)
class DecodedAsins:
    """A list of ASINs, each once, in Keepa's order.

    Attributes:
        unreadable_count: entries that are no ASIN.
        total_count: how many there are on all pages; None where Keepa does not say.
        listed_at: when Keepa made the list; None where it does not say.
    """

    envelope: Envelope
    has_payload: bool
    asins: tuple[str, ...]
    unreadable_count: int = 0
    total_count: int | None = None
    listed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DecodedCategories:
    """Categories in Keepa's order, and by id why others could not be understood."""

    envelope: Envelope
    has_payload: bool
    categories: tuple[Category, ...]
    unreadable: Mapping[str, str] = field(default_factory=dict)


_read_asins = msgspec.json.Decoder(AsinsWire).decode
_read_categories = msgspec.json.Decoder(CategoriesWire).decode
_read_category = msgspec.json.Decoder(CategoryWire).decode


def decode_asins(body: bytes) -> DecodedAsins:
    """The answer of the finder, of a search for products, or with a list of bestsellers.

    Raises:
        NotAnAnswer: no JSON object, or its list is none.
    """
    try:
        wire = _read_asins(body)
    except UNREADABLE:
        dropped: list[str] = []
        wire = read_struct(body, AsinsWire, dropped, piecewise=_ASINS)
        if any(reason.startswith(("asinList:", "bestSellersList:", "bestSellersList.asinList:")) for reason in dropped):
            raise NotAnAnswer("its list is none") from None
    listed = wire.bestSellersList
    sent = listed.asinList if listed is not None and listed.asinList is not None else wire.asinList
    asins = {asin: None for asin in sent or () if ASIN.fullmatch(asin)}
    return DecodedAsins(
        envelope_of(wire),
        sent is not None or listed is not None or wire.totalResults is not None,
        tuple(asins),
        sum(1 for asin in sent or () if asin not in asins),
        wire.totalResults if wire.totalResults is not None and 0 <= wire.totalResults <= MOST_AMOUNT else None,
        decode_time(listed.lastUpdate) if listed is not None else None,
    )


def decode_categories(body: bytes, marketplace: Marketplace) -> DecodedCategories:
    """The answer with categories, asked for by id or searched for.

    Raises:
        NotAnAnswer: no JSON object, or its `categories` are none.
    """
    try:
        wire = _read_categories(body)
    except UNREADABLE:
        dropped: list[str] = []
        wire = read_struct(body, CategoriesWire, dropped, piecewise={"error": read_error})
        if any(reason.startswith("categories:") for reason in dropped):
            raise NotAnAnswer("`categories` is no object") from None
    categories: list[Category] = []
    unreadable: dict[str, str] = {}
    for name, piece in (wire.categories or {}).items():
        if bytes(piece) == b"null":
            continue
        try:
            categories.append(_decode_category(piece, marketplace))
        except ValueError as error:
            unreadable[name] = str(error)
    return DecodedCategories(envelope_of(wire), wire.categories is not None, tuple(categories), unreadable)


def _decode_category(piece: msgspec.Raw, marketplace: Marketplace) -> Category:
    try:
        wire = _read_category(piece)
    except UNREADABLE:
        wire = read_struct(piece, CategoryWire, [], piecewise={})
    name = decode_text(wire.name)
    if not is_category(wire.catId) or name is None:
        raise NotAnAnswer("has no id" if name else "has no name")
    return Category(
        category_id=wire.catId,
        marketplace=marketplace,
        name=name,
        parent_id=wire.parent if wire.parent is not None and is_category(wire.parent) else None,
        child_ids=tuple([child for child in wire.children if is_category(child)]) if wire.children else (),
        product_count=wire.productCount if wire.productCount is not None and 0 <= wire.productCount <= MOST_AMOUNT else None,
    )


def _read_asin_list(piece: msgspec.Raw, _dropped: list[str], _path: str) -> list[str] | None:
    """An entry that is no text becomes an empty one, which is no ASIN."""
    if bytes(piece) == b"null":
        return None
    asins: list[str] = []
    for raw in read_raws(piece):
        try:
            asins.append(msgspec.json.decode(raw, type=str))
        except UNREADABLE:
            asins.append("")
    return asins


def _read_bestsellers(piece: msgspec.Raw, dropped: list[str], _path: str) -> BestsellersWire | None:
    if bytes(piece) == b"null":
        return None
    return read_struct(piece, BestsellersWire, dropped, "bestSellersList.", piecewise={"asinList": _read_asin_list})


_ASINS: Mapping[str, Piecewise] = {"error": read_error, "asinList": _read_asin_list, "bestSellersList": _read_bestsellers}
