"""Amazon's categories as Keepa knows them."""

from dataclasses import dataclass

from keeper.domain.marketplace import Marketplace


@dataclass(frozen=True, slots=True)
class Category:
    """One node of a marketplace's tree.

    Attributes:
        parent_id: None for a root.
        product_count: as Keepa estimates it; None where it does not.
    """

    category_id: int
    marketplace: Marketplace
    name: str
    parent_id: int | None = None
    child_ids: tuple[int, ...] = ()
    product_count: int | None = None
