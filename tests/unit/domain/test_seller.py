"""Sellers' profiles: what contradicts itself is refused in plain words, and which band a piece is shipped in."""

import json
import tomllib
from decimal import Decimal
from typing import Any

import pytest

from keeper.domain.marketplace import Marketplace
from keeper.domain.seller import InboundBand, SellerProfile, SellerProfileInvalid, read_seller, write_seller

DE, IT, UK = Marketplace.DE, Marketplace.IT, Marketplace.UK


@pytest.mark.parametrize(
    ("options", "field", "said"),
    [
        pytest.param({"home": "GB"}, "home", "UK for the United Kingdom", id="GB"),
        pytest.param({"home": "Germany"}, "home", "two capital letters", id="a name"),
        pytest.param({"registered": frozenset({"de"})}, "registered", "'de' is no country", id="small letters"),
        pytest.param({"reclaims_purchase_vat": True}, "reclaims_purchase_vat", "registered for VAT somewhere", id="reclaims unregistered"),
        pytest.param({"currency": "euro"}, "currency", "three capital letters", id="currency"),
        pytest.param({"preparation_minor": -1}, "preparation_minor", "0 or more", id="preparation"),
        pytest.param({"storage_minor": 10**12}, "storage_minor", "at most", id="storage"),
        pytest.param({"return_allowance_pct": Decimal(101)}, "return_allowance_pct", "0 to 100", id="allowance"),
        pytest.param({"return_allowance_pct": Decimal("NaN")}, "return_allowance_pct", "0 to 100", id="no number"),
        pytest.param({"return_allowance_pct": Decimal("1.234")}, "return_allowance_pct", "hundredths", id="too fine"),
        pytest.param({"wanted_roi_pct": Decimal(-1)}, "wanted_roi_pct", "0 to 10000", id="roi"),
        pytest.param({"inbound": (InboundBand(DE, IT, 0, 100),)}, "inbound", "grams above 0", id="weight"),
        pytest.param({"inbound": (InboundBand(DE, IT, 500, -1),)}, "inbound", "0 or more", id="shipping cost"),
        pytest.param(
            {"inbound": 2 * (InboundBand(DE, None, None, 1),)}, "inbound", "DE to any store has two prices for any weight", id="band twice"
        ),
    ],
)
def test_a_profile_that_cannot_be_is_refused(options: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(SellerProfileInvalid, match=said) as caught:
        SellerProfile(**({"home": "DE"} | options))
    assert caught.value.field == field


BANDS = (
    InboundBand(DE, IT, 1000, 150),
    InboundBand(DE, IT, 500, 100),
    InboundBand(DE, IT, 5000, 300),
    InboundBand(None, IT, None, 900),
    InboundBand(DE, None, 500, 700),
    InboundBand(DE, None, None, 800),
)


@pytest.mark.parametrize(
    ("source", "target", "weight_g", "cost_minor"),
    [
        pytest.param(DE, IT, 1, 100, id="the lightest"),
        pytest.param(DE, IT, 500, 100, id="at a band's end"),
        pytest.param(DE, IT, 501, 150, id="above it"),
        pytest.param(DE, IT, 5001, None, id="heavier than all"),
        pytest.param(DE, IT, None, None, id="weight not known"),
        pytest.param(UK, IT, None, 900, id="one price for all weights"),
        pytest.param(DE, UK, 600, 800, id="the open band after its own"),
        pytest.param(DE, UK, None, None, id="weight not known, several bands"),
        pytest.param(UK, DE, 100, None, id="a lane without bands"),
    ],
)
def test_a_piece_is_shipped_in_the_lightest_band_of_its_lane(
    source: Marketplace, target: Marketplace, weight_g: int | None, cost_minor: int | None
) -> None:
    band = SellerProfile("DE", inbound=BANDS).find_inbound(source, target, weight_g)
    assert (band.cost_minor if band is not None else None) == cost_minor


@pytest.mark.parametrize(("country", "is_registered"), [("IT", True), ("UK", False), ("CH", False)])
def test_a_registration_counts_in_the_whole_vat_area(country: str, is_registered: bool) -> None:
    assert SellerProfile("DE", frozenset({"DE"})).is_registered_in_area(country) is is_registered


WHOLE = SellerProfile("DE", frozenset({"DE", "IT"}), True, "EUR", 50, 20, Decimal("2.5"), BANDS, Decimal("30"))


@pytest.mark.parametrize("seller", [WHOLE, SellerProfile("UK", currency="GBP")], ids=["whole", "only a home"])
def test_a_profile_survives_json(seller: SellerProfile) -> None:
    assert read_seller(json.loads(json.dumps(write_seller(seller)))) == seller


def test_a_profile_is_read_from_toml() -> None:
    text = """
home = "DE"
registered = ["DE"]
reclaims_purchase_vat = true
preparation_minor = 50
return_allowance_pct = 2.1
[[inbound]]
source = "DE"
up_to_g = 500
cost_minor = 100
"""
    assert read_seller(tomllib.loads(text)) == SellerProfile(
        "DE",
        frozenset({"DE"}),
        True,
        preparation_minor=50,
        return_allowance_pct=Decimal("2.1"),
        inbound=(InboundBand(DE, None, 500, 100),),
    )


@pytest.mark.parametrize(
    ("said", "field", "why"),
    [
        pytest.param({}, "home", "None must be a text", id="nothing"),
        pytest.param({"home": "DE", "preparation": 5}, "preparation", "'preparation' is unknown; it may say home", id="unknown field"),
        pytest.param({"home": "DE", "registered": "DE"}, "registered", "must be a list", id="a text for a list"),
        pytest.param({"home": "DE", "reclaims_purchase_vat": 1}, "reclaims_purchase_vat", "true or false", id="1 for true"),
        pytest.param({"home": "DE", "storage_minor": 0.5}, "storage_minor", "whole number", id="part of a cent"),
        pytest.param({"home": "DE", "storage_minor": True}, "storage_minor", "whole number", id="true for a cost"),
        pytest.param({"home": "DE", "return_allowance_pct": "two"}, "return_allowance_pct", "a number like 2.5", id="a word"),
        pytest.param({"home": "DE", "return_allowance_pct": [2]}, "return_allowance_pct", "a number like 2.5", id="a list"),
        pytest.param({"home": "DE", "return_allowance_pct": "9" * 999}, "return_allowance_pct", "a number like 2.5", id="too long"),
        pytest.param({"home": "DE", "wanted_roi_pct": float("nan")}, "wanted_roi_pct", "0 to 10000", id="no number"),
        pytest.param({"home": "DE", "inbound": {}}, "inbound", "must be a list of bands", id="bands"),
        pytest.param({"home": "DE", "inbound": [{"cost": 3}]}, "inbound", "'cost' is unknown", id="unknown field of a band"),
        pytest.param({"home": "DE", "inbound": [{"source": "DE"}]}, "inbound", "must say cost_minor", id="band without a cost"),
        pytest.param({"home": "DE", "inbound": [{"source": "XX", "cost_minor": 3}]}, "inbound", "no marketplace", id="store"),
    ],
)
def test_fields_that_cannot_be_read_are_named(said: dict[str, Any], field: str, why: str) -> None:
    with pytest.raises(SellerProfileInvalid, match=why) as caught:
        read_seller(said)
    assert caught.value.field == field
