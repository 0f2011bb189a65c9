"""Who sells: the situation your profits are reckoned for."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import APIRouter, status
from pydantic import Field, PlainSerializer, StrictBool, StringConstraints, WithJsonSchema

from api.access import Reader, Writer
from api.live import House
from api.problems import problems
from api.schemas import NO_TEXT, Answer, Body
from keeper.domain.marketplace import Marketplace
from keeper.domain.seller import MOST_COST_MINOR, MOST_ROI_PCT, SellerProfile, read_seller, write_seller
from keeper.postgres import sellers

router = APIRouter(tags=["you"])

_PATH = "/seller-profile"
_MOST_BANDS = 500

# Pydantic's own would be a text.
_AS_NUMBER = PlainSerializer(float, when_used="json")
Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
CostMinor = Annotated[int, Field(ge=0, le=MOST_COST_MINOR), NO_TEXT]
Percent = Annotated[
    Decimal,
    Field(ge=0, le=100, decimal_places=2),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 100, "multipleOf": 0.01}),
    _AS_NUMBER,
    NO_TEXT,
]
Roi = Annotated[
    Decimal,
    Field(ge=0, le=MOST_ROI_PCT, decimal_places=2),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": int(MOST_ROI_PCT), "multipleOf": 0.01}),
    _AS_NUMBER,
    NO_TEXT,
]


class Band(Body):
    """What it costs to send one piece to the store that sells it."""

    source: Marketplace | None = Field(None, description="Where it was bought; null: any store")
    target: Marketplace | None = Field(None, description="Where it is sold; null: any store")
    up_to_g: Annotated[int, Field(ge=1, le=10_000_000), NO_TEXT] | None = Field(
        None, description="The heaviest piece it is for, grams, itself included; null: all heavier ones"
    )
    cost_minor: CostMinor = Field(description="In the profile's currency, minor units", examples=[100])


class Profile(Body):
    """A seller's situation. A cost that is null is not known, and with it each profit; 0 means that it costs nothing.

    Costs are for one piece, in minor units: without VAT for a registered seller, with VAT for another; storage is without VAT for both.
    """

    home: Country = Field(description="Country in two letters; UK for the United Kingdom", examples=["DE"])
    registered: Annotated[list[Country], Field(max_length=100)] = Field(
        [], description="Countries in which you are registered for VAT; none for a small business", examples=[["DE"]]
    )
    reclaims_purchase_vat: StrictBool = Field(
        False, description="The VAT of a purchase comes back; only where you are registered for VAT somewhere"
    )
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = Field("EUR", description="Of the costs")
    preparation_minor: CostMinor | None = Field(None, description="Label, bag, hands", examples=[50])
    storage_minor: CostMinor | None = Field(
        None,
        description="In Amazon's warehouse, until it is sold. Always without VAT: Keeper adds it where you are registered nowhere",
        examples=[15],
    )
    return_allowance_pct: Percent | None = Field(None, description="Of the gross sale price, set aside for returns", examples=[2.5])
    inbound: Annotated[list[Band], Field(max_length=_MOST_BANDS)] = Field(
        [], description="By lane and weight: a lane's own bands go before those of any store. Each lane has one price for a weight"
    )
    wanted_roi_pct: Roi | None = Field(None, description="The return on what is invested that you want; null: no wish", examples=[30])

    def profile(self) -> SellerProfile:
        """The same as a profile.

        Raises:
            SellerProfileInvalid: names the field.
        """
        said: dict[str, Any] = self.model_dump()
        for name in ("return_allowance_pct", "wanted_roi_pct"):
            said[name] = None if said[name] is None else str(said[name])
        return read_seller(said)


class ProfileAnswer(Answer):
    """Whose situation counts for you."""

    seller: Literal["own", "default"] = Field(description="`default`: the operator's, because you have none of your own")
    profile: Profile


@router.get(_PATH, responses=problems())
def get_seller_profile(caller: Reader, live: House) -> ProfileAnswer:
    """Your own profile, or the operator's default."""
    with live.begin() as connection:
        own = sellers.select_profile(connection, caller.user_id)
    return _shown(own) if own is not None else _default(live)


@router.put(_PATH, responses=problems(body=True))
def set_seller_profile(body: Profile, caller: Writer, live: House) -> ProfileAnswer:
    """Keep a profile of your own: your profits are reckoned with it from now on."""
    profile = body.profile()
    with live.begin() as connection:
        sellers.upsert_profile(connection, caller.user_id, profile)
    return _shown(profile)


@router.delete(_PATH, status_code=status.HTTP_204_NO_CONTENT, responses=problems())
def reset_seller_profile(caller: Writer, live: House) -> None:
    """Forget your own profile, where there is one: the operator's default counts again."""
    with live.begin() as connection:
        sellers.delete_profile(connection, caller.user_id)


def _shown(profile: SellerProfile) -> ProfileAnswer:
    return ProfileAnswer(seller="own", profile=Profile.model_validate(_plain(profile)))


def _default(live: House) -> ProfileAnswer:
    return ProfileAnswer(seller="default", profile=Profile.model_validate(_plain(live.resources.default_seller())))


def _plain(profile: SellerProfile) -> dict[str, Any]:
    """As the model reads it: percents as numbers."""
    written = write_seller(profile)
    for name in ("return_allowance_pct", "wanted_roi_pct"):
        written[name] = None if written[name] is None else Decimal(written[name])
    return written
