"""Money: integer minor units and a currency, never a float."""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation, Overflow

from keeper.domain.errors import KeeperError

_NO_DECIMALS = frozenset({"JPY"})
_SYMBOLS = {"EUR": "€", "USD": "$", "GBP": "£", "JPY": "¥", "INR": "₹"}


class AmountInvalid(KeeperError):
    """A text that is no amount of money."""


def minor_digits(currency: str) -> int:
    """Digits after the point: 2, or 0 for currencies without a smaller unit."""
    return 0 if currency in _NO_DECIMALS else 2


@dataclass(frozen=True, slots=True, order=True)
class Money:
    """An amount in the smallest unit of its currency (cent, penny, yen)."""

    amount_minor: int
    currency: str

    @property
    def amount(self) -> Decimal:
        """In whole units, exact."""
        return Decimal(self.amount_minor).scaleb(-minor_digits(self.currency))

    def __str__(self) -> str:
        text = f"{self.amount:,.{minor_digits(self.currency)}f}"
        return f"{text} {_SYMBOLS.get(self.currency, self.currency)}"

    @classmethod
    def parse(cls, text: str, currency: str) -> "Money":
        """`45`, `45.5` or `45,50` in whole units.

        Raises:
            AmountInvalid: not a number, negative, zero, finer than the currency's smallest unit, or beyond 10 million.
        """
        cleaned = text.strip().replace(",", ".")
        try:
            scaled = Decimal(cleaned).scaleb(minor_digits(currency))
        except (InvalidOperation, Overflow) as error:
            raise AmountInvalid(f"{text!r} is not an amount; write it like 49.90") from error
        if not scaled.is_finite():
            raise AmountInvalid(f"{text!r} is not an amount; write it like 49.90")
        if scaled != scaled.to_integral_value():
            raise AmountInvalid(f"{text!r} is finer than {currency} allows; write it like 49.90")
        if not 0 < scaled <= 1_000_000_000:
            raise AmountInvalid(f"{text!r} must be above 0 and at most 10 million")
        return cls(int(scaled), currency)
