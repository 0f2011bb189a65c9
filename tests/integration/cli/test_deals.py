"""`keeper filter` and `keeper deals`."""

import pytest
from sqlalchemy import Engine

from tests.integration.cli.terminal import Terminal
from tests.integration.deal_makers import add_deal
from tests.integration.makers import add_user, ago


@pytest.fixture
def shop(engine: Engine) -> None:
    add_user(engine, "anna")
    add_deal(engine, asin="B000000001", title="Cherry Tastatur", deal_score=70, below_median_pct=30, announced_at=ago(hours=1))
    add_deal(engine, asin="B000000002", title="Logitech Tastatur", brand="Logitech", deal_score=20, amount_minor=8999)


def test_a_filter_is_tried_kept_listed_shown_and_removed(shell: Terminal, shop: None) -> None:
    asked = ("--words", "cherry", "-m", "DE", "--price-max", "50", "--score", "40", "-t", "new")
    kept = shell.ask("filter", "add", "Cherry unter 50", *asked, "--instant")
    assert kept["rules"] == {"words": "cherry", "marketplaces": ["DE"], "price_to_minor": 5000, "score_from": 40, "price_types": ["NEW"]}
    assert (kept["is_active"], kept["is_instant"]) == (True, True)
    assert shell.ask("filter", "list") == [kept]
    assert shell.ask("filter", "show", str(kept["id"])) == kept
    assert "price to 50.00 €; score from 40" in shell.run("filter", "list", COLUMNS="300").stdout
    assert shell.ask("filter", "remove", str(kept["id"])) == {"removed": kept["id"]}
    assert shell.ask("filter", "list") == []


def test_a_preview_counts_and_shows_the_best(shell: Terminal, shop: None, engine: Engine) -> None:
    found = shell.ask("filter", "preview", "--words", "tastatur")
    days = sum(one["deals"] for one in found["by_day"])
    assert found["total"] == days == len(found["best"])
    assert "deals on" in shell.run("filter", "preview").stdout or "No deal" in shell.run("filter", "preview").stdout


def test_a_filter_that_cannot_be_is_told_with_its_field(shell: Terminal, shop: None) -> None:
    said = shell.run("filter", "add", "x", "--price-max", "50")
    assert said.exit_code != 0
    assert "price_to_minor: a price needs marketplaces of one currency" in said.stderr
    assert "there is no filter 77 of yours" in shell.run("filter", "show", "77").stderr


def test_deals_are_searched_the_best_first(shell: Terminal, shop: None) -> None:
    assert [hit["asin"][-1] for hit in shell.ask("deals", "search", "tastatur")["hits"]] == ["1", "2"]
    assert [hit["asin"][-1] for hit in shell.ask("deals", "search", "--below-median", "10")["hits"]] == ["1"]
    assert "Cherry Tastatur" in shell.run("deals", "search", "tastatur", COLUMNS="200").stdout
    assert "Nothing found" in shell.run("deals", "search", "klavier").stdout
