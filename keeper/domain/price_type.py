"""What a number of Keepa's history means: a price of some kind, a count, a rank or a rating."""

from enum import StrEnum


class PriceType(StrEnum):
    """Keepa's 36 value types, by Keepa's names. Not all are prices: see `is_price`."""

    AMAZON = "AMAZON"
    NEW = "NEW"
    USED = "USED"
    SALES = "SALES"
    LISTPRICE = "LISTPRICE"
    COLLECTIBLE = "COLLECTIBLE"
    REFURBISHED = "REFURBISHED"
    NEW_FBM_SHIPPING = "NEW_FBM_SHIPPING"
    LIGHTNING_DEAL = "LIGHTNING_DEAL"
    WAREHOUSE = "WAREHOUSE"
    NEW_FBA = "NEW_FBA"
    COUNT_NEW = "COUNT_NEW"
    COUNT_USED = "COUNT_USED"
    COUNT_REFURBISHED = "COUNT_REFURBISHED"
    COUNT_COLLECTIBLE = "COUNT_COLLECTIBLE"
    EXTRA_INFO_UPDATES = "EXTRA_INFO_UPDATES"
    RATING = "RATING"
    COUNT_REVIEWS = "COUNT_REVIEWS"
    BUY_BOX_SHIPPING = "BUY_BOX_SHIPPING"
    USED_NEW_SHIPPING = "USED_NEW_SHIPPING"
    USED_VERY_GOOD_SHIPPING = "USED_VERY_GOOD_SHIPPING"
    USED_GOOD_SHIPPING = "USED_GOOD_SHIPPING"
    USED_ACCEPTABLE_SHIPPING = "USED_ACCEPTABLE_SHIPPING"
    COLLECTIBLE_NEW_SHIPPING = "COLLECTIBLE_NEW_SHIPPING"
    COLLECTIBLE_VERY_GOOD_SHIPPING = "COLLECTIBLE_VERY_GOOD_SHIPPING"
    COLLECTIBLE_GOOD_SHIPPING = "COLLECTIBLE_GOOD_SHIPPING"
    COLLECTIBLE_ACCEPTABLE_SHIPPING = "COLLECTIBLE_ACCEPTABLE_SHIPPING"
    REFURBISHED_SHIPPING = "REFURBISHED_SHIPPING"
    EBAY_NEW_SHIPPING = "EBAY_NEW_SHIPPING"
    EBAY_USED_SHIPPING = "EBAY_USED_SHIPPING"
    TRADE_IN = "TRADE_IN"
    RENT = "RENT"
    BUY_BOX_USED_SHIPPING = "BUY_BOX_USED_SHIPPING"
    PRIME_EXCL = "PRIME_EXCL"
    COUNT_NEW_FBA = "COUNT_NEW_FBA"
    COUNT_NEW_FBM = "COUNT_NEW_FBM"

    @property
    def is_price(self) -> bool:
        """Whether values are money; the others are counts, a rank, a rating or fetch marks."""
        return self not in _NOT_PRICES

    @property
    def includes_shipping(self) -> bool:
        """Whether Keepa gives shipping beside the price; ours is then the sum (the landed price)."""
        return self in _LANDED


_NOT_PRICES = frozenset(
    {
        PriceType.SALES,
        PriceType.COUNT_NEW,
        PriceType.COUNT_USED,
        PriceType.COUNT_REFURBISHED,
        PriceType.COUNT_COLLECTIBLE,
        PriceType.EXTRA_INFO_UPDATES,
        PriceType.RATING,
        PriceType.COUNT_REVIEWS,
        PriceType.COUNT_NEW_FBA,
        PriceType.COUNT_NEW_FBM,
    }
)

_LANDED = frozenset(price_type for price_type in PriceType if price_type.value.endswith("_SHIPPING"))

PRICES = tuple(price_type for price_type in PriceType if price_type.is_price)

# What a watch may name: types the plain product request fills, and the buy box, which costs two tokens more.
WATCHABLE = (
    PriceType.NEW,
    PriceType.AMAZON,
    PriceType.USED,
    PriceType.REFURBISHED,
    PriceType.COLLECTIBLE,
    PriceType.LIGHTNING_DEAL,
    PriceType.PRIME_EXCL,
    PriceType.BUY_BOX_SHIPPING,
)
