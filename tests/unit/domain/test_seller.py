"""Sellers' profiles: what contradicts itself is refused in plain words, and which band a piece is shipped in."""

from decimal import Decimal
from typing import Any

import pytest

from keeper.domain.marketplace import Marketplace
from keeper.domain.seller import InboundBand, SellerProfile, SellerProfileInvalid

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
