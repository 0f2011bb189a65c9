"""Claims about product groups: what the keyboards' file takes for a keyboard, and what is said of a file that is wrong."""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.domain.product_group import LONGEST_TITLE, ProductGroup, ProductGroupInvalid, parse_group

ROOT = Path(__file__).parents[3]
TRAPS = Path(__file__).parent / "traps" / "keyboards.csv"
KEYBOARDS = parse_group("keyboards", (ROOT / "seeds" / "groups" / "keyboards.toml").read_text(encoding="utf-8"))
SMALL = """
name = "cups"
threshold = 10
against_after_pct = 25
made_for = ["for"]
[for.en]
"cup*" = 10
"mug" = 10
"porcelain" = 3
[against.en]
"cup holder*" = 20
"for * cups" = 14
"saucer" = 8
[never.en]
"*bra" = 30
[categories.DE]
77 = -12
78 = 4
[brands]
"Tea-Pot & Co" = 2
"Mugs United" = 5
[spellings]
"MU" = "Mugs United"
[layouts]
left = ["left handed", "left"]
right = ["right handed"]
"""


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def seeds() -> list[str]:
    return [row["title"] for row in read(ROOT / "seeds" / "keyboards.csv")]


def recorded() -> list[tuple[str, list[int], int]]:
    """Title, categories and root of each deal of the recorded page; none is a keyboard (a person read them all)."""
    page = Path(os.environ["KEEPER_RECORDINGS"]) / "deal_de_amazon_week_page0_150deals.json"
    return [(deal["title"], deal["categories"], deal["rootCat"]) for deal in json.loads(page.read_bytes())["deals"]["dr"]]


@pytest.fixture(scope="module")
def cups() -> ProductGroup:
    return parse_group("cups", SMALL)


@pytest.mark.parametrize("title", [pytest.param(title, id=title[:40]) for title in seeds()])
def test_every_seed_is_a_keyboard(title: str) -> None:
    assert KEYBOARDS.judge(title).is_member, KEYBOARDS.judge(title)


@pytest.mark.parametrize(
    ("title", "expected"),
    [pytest.param(row["title"], row["is_keyboard"] == "yes", id=f"{row['id']} {row['title'][:40]}") for row in read(TRAPS)],
)
def test_no_trap_is_fallen_into(title: str, expected: bool) -> None:
    judged = KEYBOARDS.judge(title)
    assert judged.is_member is expected, judged


@pytest.mark.recordings
def test_no_deal_of_the_recorded_page_is_a_keyboard(capsys: pytest.CaptureFixture[str]) -> None:
    deals = recorded()
    by_title = [title for title, _, _ in deals if KEYBOARDS.judge(title).is_member]
    with_categories = [title for title, categories, root in deals if KEYBOARDS.judge(title, categories, root).is_member]
    with capsys.disabled():
        print(f"\nrecorded page: {len(deals)} deals, taken for keyboards by title {by_title}, with categories {with_categories}")
    assert len(deals) == 150
    assert by_title == with_categories == []


def measured(rows: list[tuple[bool, bool]]) -> tuple[float, float]:
    """Precision and recall of (is one, is taken for one)."""
    found = sum(is_one and is_taken for is_one, is_taken in rows)
    return found / sum(is_taken for _, is_taken in rows), found / sum(is_one for is_one, _ in rows)


def sets() -> Iterator[tuple[str, list[tuple[bool, bool]]]]:
    yield "seeds", [(True, KEYBOARDS.judge(title).is_member) for title in seeds()]
    yield "traps", [(row["is_keyboard"] == "yes", KEYBOARDS.judge(row["title"]).is_member) for row in read(TRAPS)]
    if "KEEPER_RECORDINGS" in os.environ:
        yield "recorded page", [(False, KEYBOARDS.judge(*deal).is_member) for deal in recorded()]


def test_precision_and_recall_over_all_sets(capsys: pytest.CaptureFixture[str]) -> None:
    by_set = dict(sets())
    precision, recall = measured([row for rows in by_set.values() for row in rows])
    with capsys.disabled():
        of = ", ".join(f"{len(rows)} {name}" for name, rows in by_set.items())
        print(f"\nkeyboards: precision {precision:.3f}, recall {recall:.3f} ({of})")
    assert precision >= 0.97
    assert recall >= 0.97


@pytest.mark.parametrize(
    ("title", "brand", "layout"),
    [
        pytest.param("CHERRY KC 1000, German Layout (QWERTZ)", "CHERRY", "qwertz", id="as it is spelled"),
        pytest.param("Royal Kludge RK61 QWERTY UK", "RK ROYAL KLUDGE", "qwerty-uk", id="another spelling"),
        pytest.param("Gyntai Clavier QWERTZ pour Lenovo ThinkPad", None, "qwertz", id="made for another maker's"),
        pytest.param("T'nB - Clavier sans Fil, QWERTZ (Allemagne, Suisse)", "T'nB", "qwertz", id="sold in Switzerland is not swiss"),
        pytest.param("Logitech K120 Swiss Layout QWERTZ", "Logitech", "swiss", id="the exact one of two"),
        pytest.param("Keychron Tastiera B6 Pro Layout Italiano ISO QWERTY", "Keychron", "qwerty-it", id="the country's"),
        pytest.param("Trust Teclado QWERTY", "Trust", "qwerty", id="a layout of no country"),
        pytest.param("Eine trustworthy Tastatur", None, None, id="no word within a word"),
        pytest.param("", None, None, id="nothing"),
    ],
)
def test_title_tells_brand_and_layout(title: str, brand: str | None, layout: str | None) -> None:
    assert (KEYBOARDS.brand_of(title), KEYBOARDS.layout_of(title)) == (brand, layout)


@pytest.mark.parametrize(
    ("title", "score"),
    [
        pytest.param("CUP, blue", 10, id="small and capital letters are one"),
        pytest.param("teacup", 0, id="a word begins where the file says"),
        pytest.param("cups cup cups", 10, id="counted once"),
        pytest.param("cup holder", -20, id="the more exact takes the word with it"),
        pytest.param("cup\u2011holder", -20, id="hyphens are spaces"),
        pytest.param("a box for blue cups", -14, id="a star alone is a word"),
        pytest.param("a box for cups", 10, id="a word, not none"),
        pytest.param("cup with saucer", 8, id="an extra after the name"),
        pytest.param("saucer for a cup", 2, id="the product before it"),
        pytest.param("cup with zebra", -20, id="what never is one"),
        pytest.param("cup &amp; mug", 20, id="entities"),
        pytest.param(None, 0, id="no title"),
    ],
)
def test_title_is_weighed(cups: ProductGroup, title: str | None, score: int) -> None:
    assert cups.judge(title).score == score


def test_reasons_say_what_was_found(cups: ProductGroup) -> None:
    judged = cups.judge("cup with saucer", [78, 99], 77, brand="mugs united")
    assert judged.reasons == ("cup* +10", "saucer -2", "brand Mugs United +5", "category 77 -12", "category 78 +4")
    assert (judged.score, judged.is_member) == (5, False)


def test_brand_in_title_and_field_counts_once(cups: ProductGroup) -> None:
    assert cups.judge("MU cup", brand="Mugs-United").score == 15


@pytest.mark.parametrize(
    ("text", "table", "key", "hint"),
    [
        pytest.param("name = ", None, None, "not TOML", id="no TOML"),
        pytest.param('name = "mugs"\n', None, "name", "must be 'cups'", id="another name"),
        pytest.param(SMALL.replace("threshold = 10", ""), None, "threshold", "is missing; write a whole number", id="no threshold"),
        pytest.param(SMALL + "[colours]\n", None, "colours", "known are", id="unknown table"),
        pytest.param(
            SMALL.replace('"mug" = 10', '"mug" = "10"'), "for.en", "mug", "a whole number from 1 to 100", id="a weight that is text"
        ),
        pytest.param(SMALL.replace('"mug" = 10', '"mug" = -3'), "for.en", "mug", "a whole number from 1 to 100", id="a sign of its own"),
        pytest.param(SMALL.replace('"mug"', '"**"'), "for.en", "**", "write letters", id="no letters"),
        pytest.param(SMALL.replace("saucer", "mug"), "against.en", "mug", "is in the file already with +10", id="for and against"),
        pytest.param(SMALL.replace("77 = -12", "seven = 1"), "categories.DE", "seven", "Keepa's number", id="no category id"),
        pytest.param(SMALL.replace('"MU" = "Mugs United"', '"MU" = "Nobody"'), "spellings", "MU", "add it there", id="spelling of nobody"),
        pytest.param(SMALL.replace('["right handed"]', '"right"'), "layouts", "right", "a list of words", id="layout without a list"),
        pytest.param(
            SMALL.replace('["right handed"]', '["left"]'), "layouts", "right", "is a word of left already", id="word of two layouts"
        ),
        pytest.param('name = "cups"\nthreshold = 1\nfor = 3\n', "for", None, "write [for] above", id="no table"),
        pytest.param('name = "cups"\nthreshold = 1\n', "for", None, "is missing or empty", id="nothing speaks for it"),
    ],
)
def test_wrong_file_is_told_by_table_and_key(text: str, table: str | None, key: str | None, hint: str) -> None:
    with pytest.raises(ProductGroupInvalid, match=r"product group cups") as caught:
        parse_group("cups", text)
    assert (caught.value.table, caught.value.key) == (table, key)
    assert hint in str(caught.value)


@given(st.text(max_size=200), st.lists(st.integers(), max_size=3), st.none() | st.text(max_size=20))
def test_any_title_is_judged_alike_again(title: str, categories: list[int], brand: str | None) -> None:
    judged = KEYBOARDS.judge(title, categories, None, brand)
    assert judged == KEYBOARDS.judge(title, categories, None, brand)
    assert judged.is_member is (judged.score >= KEYBOARDS.threshold)
    assert sum(int(reason.rsplit(" ", 1)[1]) for reason in judged.reasons) == judged.score


@pytest.mark.timeout(5)
@pytest.mark.parametrize("letters", ["for -", "- ", "tastatur", "* ", "for a ", "-", "_", "ß"])
def test_titles_made_to_be_slow_are_not(letters: str) -> None:
    for _ in range(20):
        KEYBOARDS.judge("for " + letters * LONGEST_TITLE)
