"""How many products a share of the tokens can hold at which age, when each costs its tokens in every store."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

# The ages that are told, hours.
AGES_HOURS: Final = (2, 6, 12, 24, 72)


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """What a round through all compared products takes.

    Attributes:
        products: that are compared; `by_source` of them are first wanted by each source.
        stores: how many.
        tokens_each: of one product in one store, at most.
        tokens_per_hour: the share; 0 before Keepa has named its bucket.
        price_ends_after: after so long a price counts no more.
        every: so often a run is made, and no product looked at more often.
        due: products to be asked for now somewhere, `due_tokens` at most for all of them.
        tokens_left: of the share, now.
    """

    products: int
    stores: int
    tokens_each: int
    tokens_per_hour: int
    price_ends_after: timedelta
    every: timedelta = timedelta(hours=2)
    due: int = 0
    due_tokens: int = 0
    tokens_left: int = 0
    by_source: Mapping[str, int] = field(default_factory=dict)

    @property
    def round_tokens(self) -> int:
        """For all products in all stores."""
        return self.products * self.stores * self.tokens_each

    @property
    def oldest(self) -> timedelta | None:
        """How old a price gets until its turn comes again; None where there are no tokens."""
        if not self.tokens_per_hour:
            return None
        return max(self.every, timedelta(hours=self.round_tokens / self.tokens_per_hour))

    def count_held(self, age: timedelta) -> int:
        """How many products could be held at most so old."""
        return int(self.tokens_per_hour * (age / timedelta(hours=1)) // (self.stores * self.tokens_each))

    @property
    def held(self) -> dict[int, int]:
        """The same for the usual ages, by hours."""
        return {hours: self.count_held(timedelta(hours=hours)) for hours in AGES_HOURS}

    @property
    def sentence(self) -> str:
        """For people."""
        begin = f"{self.products} products in {self.stores} stores take {self.round_tokens} tokens a round"
        if self.oldest is None:
            return f"{begin}; Keepa has not said yet how many there are (`keeper tokens --refresh` asks)"
        return f"{begin}; with {self.tokens_per_hour} an hour each is looked at every {_span(self.oldest)}"

    @property
    def warning(self) -> str:
        """What to do where prices would grow too old before their turn comes; empty where they do not."""
        if self.oldest is None or self.oldest <= self.price_ends_after:
            return ""
        return (
            f"prices count for {_span(self.price_ends_after)} only (KEEPER_ARBITRAGE_STALE_PRICE_HOURS): compare "
            f"{self.count_held(self.price_ends_after)} products at most (KEEPER_ARBITRAGE_MOST_ASINS), or give it a larger share of the "
            "tokens (KEEPER_ARBITRAGE_SHARE_PCT)"
        )


def _span(span: timedelta) -> str:
    hours = span / timedelta(hours=1)
    if hours < 1:
        return f"{max(1, round(hours * 60))} minutes"
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"
