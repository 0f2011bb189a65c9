"""Files of the profit engine: the seeds can be read, and what cannot be is named with what to do."""

from pathlib import Path

import pytest

from keeper.domain.dated_rows import TableInvalid
from keeper.domain.marketplace import Marketplace
from keeper.domain.seller import SellerProfileInvalid, write_seller
from keeper.trade_files import (
    SellerFileUnusable,
    parse_seller,
    read_fee_categories,
    read_seed_rates,
    read_seller_file,
    read_tables,
)

SEEDS = Path(__file__).parents[2] / "seeds"


def test_all_tables_of_the_seeds_can_be_read() -> None:
    assert (bool(read_tables(SEEDS).fees.referral), bool(read_fee_categories(SEEDS).rules), bool(read_seed_rates(SEEDS))) == (True,) * 3


def test_the_default_seller_is_a_registered_german_who_knows_all_costs() -> None:
    seller = read_seller_file(SEEDS / "seller.toml")
    assert (seller.home, seller.registered, seller.reclaims_purchase_vat) == ("DE", frozenset({"DE"}), True)
    assert None not in (seller.preparation_minor, seller.storage_minor, seller.return_allowance_pct, seller.wanted_roi_pct)


def test_the_default_seller_says_that_its_figures_are_assumed() -> None:
    text = (SEEDS / "seller.toml").read_text(encoding="utf-8")
    figures = [line for line in text.splitlines() if "_minor =" in line or "_pct =" in line]
    assert [line for line in figures if "assumed" not in line and "a wish" not in line] == []


@pytest.mark.parametrize(
    ("weight_g", "cost_minor"),
    [pytest.param(800, 100, id="light"), pytest.param(1001, 250, id="heavier"), pytest.param(20_001, None, id="heaviest")],
)
def test_the_default_seller_ships_by_weight(weight_g: int, cost_minor: int | None) -> None:
    band = read_seller_file(SEEDS / "seller.toml").find_inbound(Marketplace.DE, Marketplace.IT, weight_g)
    assert (None if band is None else band.cost_minor) == cost_minor


def test_a_seller_may_be_json() -> None:
    assert write_seller(parse_seller("mine.json", '{"home": "FR", "preparation_minor": 20}'))["home"] == "FR"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        pytest.param("a.toml", "home = ", "a.toml is no TOML", id="TOML"),
        pytest.param("a.json", "{", "a.json is no JSON", id="JSON"),
        pytest.param("a.json", "[]", "like seeds/seller.toml", id="a list"),
    ],
)
def test_a_file_in_no_such_form_is_refused(name: str, text: str, said: str) -> None:
    with pytest.raises(SellerFileUnusable, match=said):
        parse_seller(name, text)


def test_a_wrong_field_is_named_with_its_file() -> None:
    with pytest.raises(SellerProfileInvalid, match=r"^home: .* \(a\.toml\)$") as caught:
        parse_seller("a.toml", 'home = "GB"')
    assert caught.value.field == "home"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SellerFileUnusable, match=r"none\.toml cannot be read"):
        read_seller_file(tmp_path / "none.toml")


def test_a_missing_table_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(TableInvalid, match=r"vat\.csv: cannot be read.*KEEPER_ARBITRAGE_TABLES"):
        read_tables(tmp_path)
