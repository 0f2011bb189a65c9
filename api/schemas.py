"""What several answers have in common: amounts, times, marketplaces."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec
from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from starlette.convertors import Convertor, register_url_convertor

from keeper.domain.marketplace import Marketplace
from keeper.domain.money import minor_digits
from keeper.domain.price_type import WATCHABLE, PriceType

# What JavaScript's numbers hold exactly.
LARGEST_ID: Final = 2**53 - 1


class _RowConvertor(Convertor[int]):
    """`{watch_id:row}`: a number that is no word, such as `import`, and not so long that Python would not read it."""

    regex = "[0-9]{1,30}"

    def convert(self, value: str) -> int:
        """As it is."""
        return int(value)

    def to_string(self, value: int) -> str:
        """The reverse."""
        return str(value)


register_url_convertor("row", _RowConvertor())

Asin = Annotated[str, Path(pattern=r"^[A-Z0-9]{10}$", description="Amazon's product number", examples=["B00OCMRV40"])]
RowId = Annotated[int, Path(ge=1, le=LARGEST_ID)]
Store = Annotated[Marketplace, Query(description="The Amazon store")]
KindOfPrice = Annotated[PriceType, Query(description="Which price: NEW, AMAZON, USED, BUY_BOX_SHIPPING, …")]


def _is_no_text(value: Any) -> Any:
    """JSON knows numbers: text and booleans are none, though Python would take them for some."""
    if isinstance(value, str | bool):
        raise ValueError("must be a number")
    return value


# Stands after the bounds, because what stands before it does not reach the OpenAPI document.
NO_TEXT = BeforeValidator(_is_no_text)
# In a query everything is text.
AskedAmount = Annotated[
    Decimal,
    Field(gt=0, le=10_000_000, decimal_places=2, description="In whole units of the store's currency"),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 10_000_000, "multipleOf": 0.01, "examples": [49.9]}),
]
Amount = Annotated[AskedAmount, NO_TEXT]


def _is_watchable(price_type: PriceType) -> PriceType:
    if price_type not in WATCHABLE:
        raise ValueError(f"cannot be watched; choose one of {', '.join(WATCHABLE)}")
    return price_type


WatchableType = Annotated[PriceType, AfterValidator(_is_watchable), Field(json_schema_extra={"enum": [one.value for one in WATCHABLE]})]


class Body(BaseModel):
    """What a caller sends: an unknown field is an error, not a surprise."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """What Keeper answers. Prices are numbers in whole units beside the same in minor units; times are UTC."""

    model_config = ConfigDict(frozen=True)


def in_whole_units(amount_minor: int | None, currency: str) -> float | None:
    """For people and JavaScript, the nearest number there is; programs that reckon take the minor units beside it."""
    return None if amount_minor is None else amount_minor / 10 ** minor_digits(currency)


def write_json(fields: Mapping[str, object]) -> bytes:
    """An answer of plain values as JSON, for long lists: through their Pydantic models they take three times as long."""
    return msgspec.json.encode(fields)
