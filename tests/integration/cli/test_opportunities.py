"""`keeper opportunities`: what people see, what programs read, and what is wrong in plain words."""

import pytest
from sqlalchemy import Engine

from keeper.domain.marketplace import Marketplace
from tests.integration.cli.terminal import Terminal
from tests.integration.makers import ASIN, NOW, product, run_record
from tests.integration.opportunities import add_opportunities, opportunity

IT = Marketplace.IT


@pytest.fixture
def number(engine: Engine) -> int:
    """Of the golden case."""
    run_record(engine, product([(NOW, 9999)], marketplace=IT, title="Tastiera", fba_pick_pack_minor=420, package_weight_g=900))
    [number] = add_opportunities(engine, opportunity(flags=("Amazon sells it",)))
    return number


def test_opportunities_are_in_a_table_with_profit_and_warnings(shell: Terminal, number: int) -> None:
    said = shell.run("opportunities", "list").stdout
    for words in (str(number), "Tastiera", "DE → IT", "60.00 €", "99.99 €", "66.65 %", "10.54 €", "20.30 %", "Amazon sells it"):
        assert words in said


def test_a_program_reads_the_same(shell: Terminal, number: int) -> None:
    page = shell.ask("opportunities", "list", "--source", "DE", "--roi", "20.3", "--profit", "10")
    assert (page["total"], page["seller"]) == (1, "default")
    [found] = page["opportunities"]
    assert (found["id"], found["asin"], found["profit_minor"], found["source_price"]) == (number, ASIN, 1054, 6000)


def test_what_nothing_is_like_is_said(shell: Terminal, number: int) -> None:
    assert "No opportunity is like that" in shell.run("opportunities", "list", "--profit", "10.55").stdout


def test_one_is_explained_part_by_part(shell: Terminal, number: int) -> None:
    said = shell.run("opportunities", "explain", str(number)).stdout
    for words in ("referral fee IT default (2024-10-01)", "-15.00 €", "A simple calculator would say", f"https://www.amazon.it/dp/{ASIN}"):
        assert words in said


def test_explained_parts_sum_to_the_profit(shell: Terminal, number: int) -> None:
    told = shell.ask("opportunities", "explain", str(number))
    assert sum(part["amount_minor"] for part in told["parts"]) == told["profit_minor"]


def test_another_day_has_other_tables(shell: Terminal, number: int) -> None:
    told = shell.ask("opportunities", "explain", str(number), "--on", "2024-09-30")
    assert (told["on"], told["profit_minor"]) == ("2024-09-30", None)


def test_a_rule_is_made_shown_and_removed(shell: Terminal) -> None:
    shell.run("user", "add", "anna")
    made = shell.ask("opportunities", "rules", "add", "Good ones", "--roi", "30", "--profit", "5", "--target", "IT")
    assert (made["least_roi_pct"], made["least_profit_minor"], made["targets"]) == ("30.00", 500, ["IT"])
    assert "ROI from 30.00 %, profit from 5.00 €, to IT" in shell.run("opportunities", "rules", "list").stdout
    shell.run("opportunities", "rules", "remove", str(made["id"]))
    assert shell.ask("opportunities", "rules", "list") == {"rules": []}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("list", "--roi", "much"), "--roi: 'much' is no percentage; write it like 12.5"),
        (("list", "--profit", "1.234"), "--profit: '1.234' is no amount in euros"),
        (("list", "--user", "anna"), "anna has no seller's profile; `keeper seller set` makes one"),
        (("explain", "77"), "there is no opportunity 77"),
        (("rules", "add", "x", "-s", "DE", "-t", "DE"), "nothing is bought and sold in DE"),
        (("rules", "remove", "77"), "there is no rule 77 of yours"),
    ],
    ids=["roi", "profit", "no profile", "no opportunity", "one store", "no rule"],
)
def test_what_cannot_be_done_is_said_in_plain_words(shell: Terminal, arguments: tuple[str, ...], words: str) -> None:
    shell.run("user", "add", "anna")
    assert words in shell.run("opportunities", *arguments).stderr
