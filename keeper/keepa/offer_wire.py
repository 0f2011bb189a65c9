"""The sellers in Keepa's JSON of a product that was asked for with `offers`.

Read from the raw answer, apart from the rest of the product: few requests ask for them. Of a seller the id alone is read; Keepa's offers
hold no name and no address, and were there any they would not come further than this.
"""

import re
from dataclasses import replace

import msgspec

from keeper.domain.seller_offer import SellerOffer
from keeper.keepa.wire import MOST_AMOUNT, UNREADABLE

_NEW = 1
_SELLER_ID = re.compile(r"[A-Z0-9]{5,20}")


class _OfferWire(msgspec.Struct, gc=False):
    sellerId: str | None = None
    condition: int | None = None
    isFBA: bool | None = None
    isAmazon: bool | None = None
    offerCSV: list[int] | None = None


class _ShareWire(msgspec.Struct, gc=False):
    percentageWon: float | None = None
    isFBA: bool | None = None


class _StatsWire(msgspec.Struct, gc=False):
    buyBoxStats: dict[str, msgspec.Raw] | None = None


class _ProductWire(msgspec.Struct, gc=False):
    offers: list[msgspec.Raw] | None = None
    liveOffersOrder: list[int] | None = None
    stats: _StatsWire | None = None


def decode_offers(raw: bytes) -> tuple[SellerOffer, ...] | None:
    """Who sells it new now, the cheapest first, then who had the buy box before; None where that cannot be read at all.

    What of it makes no sense is left out. An offer Keepa no longer sees is history and no offer.
    """
    try:
        wire = msgspec.json.decode(raw, type=_ProductWire)
    except UNREADABLE:
        return None
    pieces = wire.offers or []
    found: dict[str, SellerOffer] = {}
    for place in wire.liveOffersOrder or ():
        offer = _offer(pieces[place]) if 0 <= place < len(pieces) else None
        if offer is not None and _is_lower(offer, found.get(offer.seller_id)):
            found[offer.seller_id] = offer
    for seller_id, piece in ((wire.stats.buyBoxStats if wire.stats else None) or {}).items():
        share = _share(piece)
        if share is not None and share.percentageWon is not None and 0 <= share.percentageWon <= 100 and _SELLER_ID.fullmatch(seller_id):
            known = found.get(seller_id, SellerOffer(seller_id, is_fba=share.isFBA))
            found[seller_id] = replace(known, buy_box_pct=round(share.percentageWon, 2))
    return tuple(sorted(found.values(), key=lambda one: (one.price_minor is None, one.price_minor or 0, one.seller_id)))


def _offer(piece: msgspec.Raw) -> SellerOffer | None:
    try:
        wire = msgspec.json.decode(piece, type=_OfferWire)
    except UNREADABLE:
        return None
    triplets = wire.offerCSV or []
    if wire.condition != _NEW or wire.sellerId is None or not _SELLER_ID.fullmatch(wire.sellerId) or len(triplets) < 3:
        return None
    price, shipping = triplets[-2:]
    landed = price + max(shipping, 0)
    if price <= 0 or landed > MOST_AMOUNT:
        return None
    return SellerOffer(wire.sellerId, landed, wire.isAmazon, wire.isFBA)


def _share(piece: msgspec.Raw) -> _ShareWire | None:
    try:
        return msgspec.json.decode(piece, type=_ShareWire)
    except UNREADABLE:
        return None


def _is_lower(offer: SellerOffer, known: SellerOffer | None) -> bool:
    return known is None or (offer.price_minor or 0) < (known.price_minor or 0)
