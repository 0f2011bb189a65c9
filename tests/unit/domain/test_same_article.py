"""What speaks against two listings of an ASIN being the same article."""

from typing import Any

import pytest

from keeper.domain.same_article import Listing, count_pieces, find_doubts


@pytest.mark.parametrize(
    ("one", "other", "doubts"),
    [
        pytest.param({}, {}, [], id="nothing is said"),
        pytest.param({"codes": ["4005176894879"]}, {}, [], id="one code is no doubt"),
        pytest.param({"codes": ["0036000291452"]}, {"codes": ["036000291452", "4005176894879"]}, [], id="a UPC is an EAN with a zero"),
        pytest.param({"codes": ["4005176894879"]}, {"codes": ["4005176894886"]}, ["no EAN in common"], id="other codes"),
        pytest.param({"brand": "LOGITECH"}, {"brand": "Logitech G"}, [], id="a brand and its line"),
        pytest.param({"brand": "De'Longhi"}, {"brand": "DeLonghi"}, [], id="an apostrophe"),
        pytest.param({"brand": "Bosch"}, {"brand": "Makita"}, ["brand Bosch and Makita"], id="another brand"),
        pytest.param(
            {"brand": "Bosch", "codes": ["1"]}, {"brand": "Robert", "codes": ["1"]}, [], id="another brand's name with the same code"
        ),
        pytest.param({"model": "GSR 12V-15"}, {"model": "gsr12v15"}, [], id="a model spelled otherwise"),
        pytest.param({"model": "GSR 12V-15"}, {"model": "GSB 12V-15"}, ["model GSR 12V-15 and GSB 12V-15"], id="another model"),
        pytest.param({"package_quantity": 1}, {"package_quantity": 2}, ["1 and 2 pieces"], id="another number of pieces"),
        pytest.param(
            {"package_quantity": 2, "title": "Filter 2er-Pack"}, {"package_quantity": 2, "title": "Filtre"}, [], id="a pack one title tells"
        ),
        pytest.param({"title": "Filter, 3er Pack"}, {"title": "Filtro, confezione da 2"}, ["3 and 2 pieces"], id="titles of other packs"),
        pytest.param({"title": "Filter, 3er Pack"}, {"title": "Filtri (x3)"}, [], id="titles of the same pack"),
        pytest.param({"title": "Filter, 3er Pack"}, {"title": "Filtro"}, [], id="a title that does not count"),
        pytest.param(
            {"title": "Filter, 3er Pack"}, {"title": "Filtro", "package_quantity": 1}, ["3 and 1 pieces"], id="a title against a field"
        ),
        pytest.param(
            {"codes": ["1"], "package_quantity": 1},
            {"codes": ["1"], "package_quantity": 6},
            ["1 and 6 pieces"],
            id="a code of several packs",
        ),
        pytest.param({"unit_count": 20}, {"unit_count": 40}, ["20 and 40 units"], id="other units"),
        pytest.param({"size": "500 ml"}, {"size": "0,5 l"}, [], id="the same size in another unit"),
        pytest.param({"size": "500 ml"}, {"size": "1 Liter"}, ["size 500 ml and 1 Liter"], id="another size"),
        pytest.param({"size": "27 Zoll"}, {"size": "68,6 cm"}, [], id="inches"),
        pytest.param({"size": "Groß"}, {"size": "Large"}, [], id="words of another language"),
        pytest.param({"size": "M"}, {"size": "l"}, ["size M and l"], id="letters"),
        pytest.param({"size": "10 x 20 cm"}, {"size": "20 cm x 10 cm"}, [], id="measures in another order"),
        pytest.param({"color": "Schwarz"}, {"color": "noir mat"}, [], id="one color in two languages"),
        pytest.param({"color": "Schwarz"}, {"color": "Bianco"}, ["color Schwarz and Bianco"], id="another color"),
        pytest.param({"color": "Onyx"}, {"color": "Bianco"}, [], id="a color nobody knows"),
    ],
)
def test_doubts_are_what_both_listings_say_differently(one: dict[str, Any], other: dict[str, Any], doubts: list[str]) -> None:
    assert list(find_doubts(Listing(**one), Listing(**other))) == doubts


@pytest.mark.parametrize(
    ("title", "pieces"),
    [
        ("Duracell AA, 12er-Pack", 12),
        ("Duracell AA Batteries, Pack of 12", 12),
        ("Pile Duracell, confezione da 12", 12),
        ("Pilas Duracell, 12 unidades", 12),
        ("Lot de 12 piles", 12),
        ("Batterien (12 Stück)", 12),
        ("Batterien 12 Stück (2er Pack)", None),
        ("Logitech G502 mit 16000 DPI", None),
        ("Fernseher 55 Zoll", None),
    ],
)
def test_pieces_are_read_from_a_title(title: str, pieces: int | None) -> None:
    assert count_pieces(title) == pieces


def test_a_long_title_is_read_in_no_time() -> None:
    assert count_pieces("1 " * 500_000) is None
