"""From Keepa's categories to ours: the deepest node that somebody wrote down decides, and what nobody wrote down is unknown."""

import pytest

from keeper.domain.dated_rows import TableInvalid
from keeper.domain.fee_category import parse_fee_categories
from keeper.domain.marketplace import COMPARED, Marketplace
from tests.unit.domain.seed_tables import FEES, read

SEEDS = parse_fee_categories(*read("fee_categories.csv"))
HEADING = "marketplace,root_category_id,name,path,category,source\n"
DE, IT, ES, FR, UK = (Marketplace(one) for one in ("DE", "IT", "ES", "FR", "UK"))


@pytest.mark.parametrize(
    ("marketplace", "root", "path", "category"),
    [
        pytest.param(DE, 12950651, ("Spielzeug",), "default", id="a root decides"),
        pytest.param(DE, 3167641, ("Küche, Haushalt & Wohnen", "Küche"), "home_products", id="below a root that decides"),
        pytest.param(DE, 3167641, ("Küche, Haushalt & Wohnen", "Möbel", "Tische"), "furniture", id="a node goes before its root"),
        pytest.param(
            DE,
            340843031,
            ("Computer & Zubehör", "Tastaturen, Mäuse & Eingabegeräte", "Tastaturen"),
            "computer_accessories",
            id="a keyboard in DE",
        ),
        pytest.param(
            UK, 340831031, ("Computers & Accessories", "Keyboards, Mice & Input Devices"), "computer_accessories", id="a keyboard in UK"
        ),
        pytest.param(FR, 340858031, ("Informatique", "claviers, SOURIS et périphériques"), "computer_accessories", id="small letters"),
        pytest.param(DE, 340843031, ("Computer & Zubehör", "Kabel"), None, id="a root that does not decide"),
        pytest.param(DE, 340843031, (), None, id="no path"),
        pytest.param(DE, 80084031, ("Baumarkt",), None, id="a root with rates nobody wrote down"),
        pytest.param(DE, 4711, ("Neues",), None, id="a root nobody wrote down"),
        pytest.param(DE, None, ("Spielzeug",), None, id="no root"),
        pytest.param(IT, 12950651, ("Spielzeug",), None, id="the root of another store"),
    ],
)
def test_the_deepest_known_node_decides(marketplace: Marketplace, root: int | None, path: tuple[str, ...], category: str | None) -> None:
    assert SEEDS.find(marketplace, root, path) == category


def test_a_node_that_is_unknown_goes_before_a_root_that_is_not() -> None:
    text = f"{HEADING}DE,1,Haus,,default,us\nDE,1,Haus,Keller,unknown,us\n"
    assert parse_fee_categories("a.csv", text).find(DE, 1, ("Haus", "Keller")) is None


def test_roots_are_given_by_store_and_only_where_they_decide() -> None:
    assert (SEEDS.by_root[DE][12950651], SEEDS.by_root[DE].get(340843031)) == ("default", None)


@pytest.mark.parametrize("marketplace", COMPARED)
def test_every_category_of_the_seeds_has_fees_in_its_store(marketplace: Marketplace) -> None:
    known = {fee.category for fee in FEES.referral if fee.marketplace is marketplace}
    named = {rule.category for rule in SEEDS.rules if rule.marketplace is marketplace} - {None}
    assert named <= known
    assert "default" in named


@pytest.mark.parametrize(
    ("line", "said"),
    [
        pytest.param("XX,1,Haus,,default,us", "marketplace", id="store"),
        pytest.param("DE UK,1,Haus,,default,us", "must be one store", id="two stores"),
        pytest.param("DE,x,Haus,,default,us", "root_category_id: 'x' must be Keepa's id", id="id"),
        pytest.param("DE,0,Haus,,default,us", "root_category_id", id="no id"),
        pytest.param("DE,1,Haus,,Home Products,us", "is no category", id="category"),
        pytest.param("DE,1,Haus,,default,", "source: is empty", id="source"),
        pytest.param("DE,1,Haus,,default,us\nDE,1,Haus,,media,us", "line 3: DE 1  is in the table already", id="twice"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(line: str, said: str) -> None:
    with pytest.raises(TableInvalid, match=said):
        parse_fee_categories("a.csv", HEADING + line)
