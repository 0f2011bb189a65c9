"""Amazon's marketplaces as Keeper names them."""

from enum import StrEnum
from typing import Final


class Marketplace(StrEnum):
    """An Amazon store, by the two letters people use for it (`UK`, not `GB`)."""

    US = "US"
    UK = "UK"
    DE = "DE"
    FR = "FR"
    JP = "JP"
    CA = "CA"
    IT = "IT"
    ES = "ES"
    IN = "IN"
    MX = "MX"
    BR = "BR"

    @property
    def currency(self) -> str:
        """ISO 4217 code of the store's prices."""
        return _CURRENCIES.get(self, "EUR")

    @property
    def host(self) -> str:
        """The store's own host name, for links a person follows."""
        return f"www.amazon.{_SUFFIXES[self]}"


# The stores that are compared with each other where no setting names others.
COMPARED: Final = (Marketplace.DE, Marketplace.IT, Marketplace.ES, Marketplace.FR, Marketplace.UK)

_CURRENCIES = {
    Marketplace.US: "USD",
    Marketplace.UK: "GBP",
    Marketplace.JP: "JPY",
    Marketplace.CA: "CAD",
    Marketplace.IN: "INR",
    Marketplace.MX: "MXN",
    Marketplace.BR: "BRL",
}

_SUFFIXES = {
    Marketplace.US: "com",
    Marketplace.UK: "co.uk",
    Marketplace.DE: "de",
    Marketplace.FR: "fr",
    Marketplace.JP: "co.jp",
    Marketplace.CA: "ca",
    Marketplace.IT: "it",
    Marketplace.ES: "es",
    Marketplace.IN: "in",
    Marketplace.MX: "com.mx",
    Marketplace.BR: "com.br",
}
