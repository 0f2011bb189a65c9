"""Files of queries and seeds: what they say, and what is wrong with them in plain words."""

from pathlib import Path

import pytest

from keeper.domain.deal import DateRange, DealQuery
from keeper.domain.deal_files import DealFileInvalid, parse_discovery, parse_queries, parse_seeds
from keeper.domain.discovery import DiscoveryQuery, Selection
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType

SEEDS = Path(__file__).parents[3] / "seeds"


def test_a_file_asks_the_same_of_each_price_type() -> None:
    text = (
        'marketplace = "uk"\ngroup = "keyboards"\nprice_types = ["NEW", "amazon", "NEW"]\ndate_range = "week"\n'
        "fall_pct_from = 20\nprice_from = 9.99\nprice_to = 300\nrating_from = 4.1\n"
        'words = ["keyboard"]\ncategories = [9223372036854775806]\n'
    )
    first, second = parse_queries("mine", text)
    assert first == DealQuery(
        "mine",
        Marketplace.UK,
        PriceType.NEW,
        DateRange.WEEK,
        group="keyboards",
        price_from_minor=999,
        price_to_minor=30000,
        fall_pct_from=20,
        rating_from_tenths=41,
        words=("keyboard",),
        categories=(9223372036854775806,),
    )
    assert (second.price_type, second.words) == (PriceType.AMAZON, first.words)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("marketplace = DE", "no TOML"),
        ("", 'must say marketplace = "..."'),
        ('marketplace = "XX"', "no marketplace"),
        ('marketplace = "DE"\nprice_form = 3', "price_form is unknown"),
        ('marketplace = "DE"\nfall_pct_from = 5', "10 percent and more"),
        ('marketplace = "DE"\nfall_pct_from = "20"', "whole number"),
        ('marketplace = "DE"\ndate_range = "year"', "date_range: 'year' is none of day, week"),
        ('marketplace = "DE"\nprice_types = ["LISTPRICE"]', "LISTPRICE"),
        ('marketplace = "DE"\nwords = "tastatur"', "must be a list of texts"),
        ('marketplace = "DE"\nprice_from = 30\nprice_to = 20', "must not be below"),
        ('marketplace = "DE"\nis_lowest = 1', "true or false"),
        ('marketplace = "BR"', "no deals of BR"),
    ],
    ids=[
        "no-toml",
        "empty",
        "store",
        "unknown-key",
        "small-fall",
        "text",
        "range",
        "price-type",
        "no-list",
        "upside-down",
        "flag",
        "brazil",
    ],
)
def test_what_is_wrong_with_a_query_is_said_with_its_file(text: str, said: str) -> None:
    with pytest.raises(DealFileInvalid, match=said) as caught:
        parse_queries("mine.toml", text)
    assert str(caught.value).startswith("mine.toml")


@pytest.mark.parametrize("path", sorted((SEEDS / "deals").glob("*.toml")), ids=lambda path: path.stem)
def test_the_queries_that_come_with_keeper_can_be_asked(path: Path) -> None:
    queries = parse_queries(path.stem, path.read_text(encoding="utf-8"))
    assert [query.group for query in queries] == ["keyboards"]


def test_the_seeds_that_come_with_keeper_are_47_keyboards() -> None:
    seeds = parse_seeds("keyboards.csv", (SEEDS / "keyboards.csv").read_text(encoding="utf-8"))
    assert (len(seeds.asins), seeds.problems) == (47, ())


@pytest.mark.parametrize(
    "text",
    [
        "B07W6JG6Z7\nB000000002\n",
        "asin\nB07W6JG6Z7\nB000000002\n",
        "\ufefftitle,ASIN,price\r\nfine,B07W6JG6Z7,3\r\n\r\nalso,b000000002,4\r\n",
        'x,asin\n"a, b",B07W6JG6Z7\n,https://www.amazon.de/dp/B000000002?th=1\n',
        "title;asin;price\na, b, c;B07W6JG6Z7;3,50\n;B000000002;4\n",
        "ASIN\ttitle\nB07W6JG6Z7\tone; two\nB000000002\n",
        "B07W6JG6Z7;mine\nB000000002;yours\n",
        "\n\nasin\n,,\nB07W6JG6Z7\nB000000002",
    ],
    ids=["bare", "heading", "windows", "links", "semicolons", "tabs", "bare-semicolons", "empty-lines"],
)
def test_asins_are_read_from_their_column(text: str) -> None:
    assert parse_seeds("mine.csv", text).asins == ("B07W6JG6Z7", "B000000002")


def test_a_bad_line_is_named_with_its_number_and_costs_no_other() -> None:
    seeds = parse_seeds("mine.csv", "asin\nB07W6JG6Z7\nhello\n\nB000000002\n")
    assert seeds.asins == ("B07W6JG6Z7", "B000000002")
    assert len(seeds.problems) == 1
    assert seeds.problems[0].startswith("mine.csv, line 3: 'hello' is not an ASIN")


@pytest.mark.parametrize(
    ("line", "said"),
    [('"never closed,x', "line 3: unexpected end of data"), ('"a" b,x', "line 3: "), ('x,"y', "line 3: "), ("x" * 200_000, "line 3: ")],
    ids=["open", "after-quote", "last-cell", "field-limit"],
)
def test_a_line_that_is_no_csv_costs_no_other(line: str, said: str) -> None:
    seeds = parse_seeds("mine.csv", f"asin,title\nB07W6JG6Z7,one\n{line}\nB000000002,two\n")
    assert seeds.asins == ("B07W6JG6Z7", "B000000002")
    [problem] = seeds.problems
    assert said in problem
    assert len(problem) < 300


def test_a_heading_is_known_in_the_first_line_only() -> None:
    assert parse_seeds("mine.csv", "B07W6JG6Z7,x\nx,asin\n").problems[0].startswith("mine.csv, line 2: 'x' is not")


@pytest.mark.parametrize("text", ["", "asin\n", "title\nKeyboard\n"], ids=["empty", "heading", "no-asin"])
def test_a_file_without_any_asin_is_refused(text: str) -> None:
    with pytest.raises(DealFileInvalid, match="no line of it holds an ASIN"):
        parse_seeds("mine.csv", text)


def test_a_file_of_the_discovery_says_lists_and_what_to_find() -> None:
    text = (
        'marketplace = "uk"\ngroup = "keyboards"\nbestsellers = [340831031, 340831031]\n[find]\n'
        'words = ["keyboard"]\nroot_category = 340831031\n'
        "price_from = 9.99\nrating_from = 4.1\nrank_to = 1000\nmost = 200\n"
    )
    selection = Selection(
        root_category_id=340831031, words=("keyboard",), price_from_minor=999, rating_from_tenths=41, rank_to=1000, most=200
    )
    assert parse_discovery("mine", text) == DiscoveryQuery("mine", Marketplace.UK, "keyboards", (340831031,), selection)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("marketplace = DE", "no TOML"),
        ("bestsellers = [1]", 'must say marketplace = "..."'),
        ('marketplace = "DE"', r"must say bestsellers = \[...\] or \[find\]"),
        ('marketplace = "DE"\nbestsellers = [0]', "must be ids of categories"),
        ('marketplace = "DE"\nbestsellers = ["1"]', "a list of whole numbers"),
        ('marketplace = "DE"\nfind = 3', r"\[find\] must say what to find"),
        ('marketplace = "DE"\n[find]\nword = "x"', "word is unknown"),
        ('marketplace = "DE"\n[find]\nmost = 10', "most must be from 50 to 10000"),
        ('marketplace = "DE"\n[find]\nprice_type = "GOLD"', "price_type: 'GOLD' is none of"),
    ],
)
def test_a_fault_in_a_file_of_the_discovery_is_named(text: str, said: str) -> None:
    with pytest.raises(DealFileInvalid, match=said):
        parse_discovery("mine", text)


def test_the_shipped_files_of_the_discovery_are_understood() -> None:
    files = sorted((SEEDS / "discovery").glob("*.toml"))
    assert files
    for path in files:
        assert parse_discovery(path.stem, path.read_text(encoding="utf-8")).group == "keyboards"
