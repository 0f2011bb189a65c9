"""`keeper forecast` and `keeper opportunities outcome`: what people see and what programs read."""

from sqlalchemy import Engine

from tests.integration.cli.terminal import Terminal
from tests.integration.makers import ago, product, run_record
from tests.integration.opportunities import add_opportunities, opportunity

ASIN = "B00OCMRV40"
SIMULATED = ("B00OCMRV40", "B0C26KBXQP", "B08DG4C63H")


def sold_off(engine: Engine) -> None:
    """Every twenty days on sale for four; the last sale ended ten days ago."""
    points = [(ago(days=10 + 4 * is_sale + 20 * back), 7000 if is_sale else 10_000) for back in range(17) for is_sale in (True, False)]
    run_record(engine, product(sorted(points), asin=ASIN))


def test_a_forecast_is_a_table_for_a_person(shell: Terminal, engine: Engine) -> None:
    sold_off(engine)
    said = shell.run("forecast", ASIN, "--target", "75").stdout
    for words in ("Tastatur, 100.00 € now", "in 7 days", "70.00 € (70.00 €", "Chance of 75.00 €", "in 30 days"):
        assert words in said


def test_without_a_target_the_table_has_no_chance(shell: Terminal, engine: Engine) -> None:
    sold_off(engine)
    assert "Chance" not in shell.run("forecast", ASIN).stdout


def test_on_the_simulators_history_only_what_beat_the_last_price_is_given(shell: Terminal) -> None:
    shell.ask("check", *SIMULATED)
    for asin in SIMULATED:
        price = shell.ask("forecast", asin)["price_minor"] or 5000
        for one in shell.ask("forecast", asin, "--target", str(price * 0.9 // 1 / 100))["horizons"]:
            for value, why, tried in (
                (one["price_minor"], one["why_no_price"], one["price_backtest"]),
                (one["chance"], one["why_no_chance"], one["chance_backtest"]),
            ):
                assert (value is None) == bool(why)
                assert value is None or tried["loss"] < 0.95 * tried["baseline_loss"]


def test_a_product_nobody_checked_has_no_forecast(shell: Terminal) -> None:
    assert "nothing is known of B00OCMRV40 in DE yet" in shell.run("forecast", ASIN).stderr


def test_what_is_no_asin_is_said(shell: Terminal) -> None:
    assert "is not an ASIN" in shell.run("forecast", "x").stderr


def test_outcomes_are_told_by_score(shell: Terminal, engine: Engine) -> None:
    add_opportunities(engine, opportunity(asin=ASIN, score=85))
    bands = shell.ask("opportunities", "outcome")["bands"]
    assert [(band["least_score"], band["opportunities"]) for band in bands] == [(80, 1), (60, 0), (40, 0), (20, 0), (0, 0)]
    assert [one["days"] for one in bands[0]["horizons"]] == [1, 7, 30]
    said = shell.run("opportunities", "outcome").stdout
    assert "80-100" in said
    assert "Earned 30 days" in said


def test_without_opportunities_it_says_how_to_find_some(shell: Terminal) -> None:
    assert "`keeper compare` looks for some" in shell.run("opportunities", "outcome").stdout


def test_a_ranking_is_made_and_shown_with_what_each_fact_adds(shell: Terminal, engine: Engine) -> None:
    run_record(engine, product(asin=ASIN, sales_rank=11, sales_rank_drops_30=60, monthly_sold=500, rating_tenths=45, review_count=1_000))
    assert "`keeper ranking --refresh` ranks what is known" in shell.run("ranking").stdout
    [found] = shell.ask("ranking", "--refresh")["products"]
    assert (found["asin"], found["score"], found["parts"]) == (ASIN, 87, {"rank": 37, "drops": 25, "sold": 10, "reviews": 15})
    said = shell.run("ranking").stdout
    for words in ("87", "11 (37)", "60 (25)", "500 (10)", "1,000 (15)", ASIN, "Tastatur"):
        assert words in said
