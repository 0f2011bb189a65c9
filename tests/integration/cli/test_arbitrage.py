"""`keeper fx`, `keeper seller` and `keeper compare`: what people see, what programs read, and what is wrong in plain words."""

import json
from pathlib import Path

from keeper.postgres.engine import open_engine
from keeper.postgres.jobs import hold_job
from tests.integration.cli.terminal import Terminal
from tests.integration.notify.http_edge import HttpServer
from tests.unit.domain.test_exchange import DAILY

MINE = 'home = "FR"\npreparation_minor = 20\n[[inbound]]\ntarget = "IT"\ncost_minor = 90\n'


def test_the_files_rate_is_there_from_the_start_and_its_age_is_told(shell: Terminal) -> None:
    found = shell.ask("fx", "show")
    (pound,) = found["rates"]
    assert (pound["currency"], pound["per_euro"], pound["quoted_on"], pound["is_stale"]) == ("GBP", "0.8641", "2026-05-08", True)
    assert "days old, so results with it are marked stale" in found["troubles"][0]


def test_refreshed_rates_are_shown_with_their_source(shell: Terminal) -> None:
    with HttpServer(body=DAILY.encode()) as ecb:
        refreshed = shell.ask("fx", "refresh", KEEPER_ARBITRAGE_RATES_URL=ecb.url)
    assert refreshed == {"rates": 3, "changed": 3, "quoted_on": "2026-05-08"}
    assert [one["currency"] for one in shell.ask("fx", "show", "--all")["rates"]] == ["GBP", "JPY", "USD"]
    assert "European Central Bank" in shell.run("fx", "show").stdout


def test_without_a_network_the_known_rates_stay_and_the_command_says_so(shell: Terminal) -> None:
    said = shell.run("fx", "refresh", KEEPER_ARBITRAGE_RATES_URL="http://127.0.0.1:1/a.xml")
    assert (said.exit_code, said.stderr) == (1, "keeper: 127.0.0.1 does not answer (ConnectError)\n")
    assert len(shell.ask("fx", "show")["rates"]) == 1


def test_nobody_is_asked_where_the_settings_say_none(shell: Terminal) -> None:
    assert "KEEPER_ARBITRAGE_RATES_URL is none" in shell.run("fx", "refresh", KEEPER_ARBITRAGE_RATES_URL="none").stderr


def test_without_a_profile_of_ones_own_the_default_counts(anna: Terminal) -> None:
    found = anna.ask("seller", "show")
    assert (found["seller"], found["profile"]["home"], found["profile"]["preparation_minor"]) == ("default", "DE", 50)


def test_the_default_profile_is_shown_before_there_is_any_user(shell: Terminal) -> None:
    said = shell.run("seller", "show").stdout
    assert "The operator's default profile" in said
    assert "Shipping any store to any store, up to 1000 g" in said


def test_a_profile_of_ones_own_is_kept_until_it_is_reset(anna: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(MINE, encoding="utf-8")
    assert anna.ask("seller", "set", str(file))["profile"]["inbound"][0]["target"] == "IT"
    assert anna.ask("seller", "show")["seller"] == "own"
    assert (anna.ask("seller", "reset")["seller"], anna.ask("seller", "show")["seller"]) == ("default", "default")


def test_a_shown_profile_can_be_set_again(anna: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    shown = anna.ask("seller", "show")["profile"]
    file.write_text(json.dumps(shown), encoding="utf-8")
    assert anna.ask("seller", "set", str(file))["profile"] == shown


def test_each_user_has_a_profile_of_their_own(anna: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(MINE, encoding="utf-8")
    anna.ask("user", "add", "bert")
    anna.ask("seller", "set", str(file), "--user", "bert")
    assert [anna.ask("seller", "show", "--user", name)["seller"] for name in ("anna", "bert")] == ["default", "own"]


def test_a_wrong_profile_names_its_field_and_changes_nothing(anna: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('home = "GB"', encoding="utf-8")
    said = anna.run("seller", "set", str(file))
    assert (said.exit_code, said.stderr) == (
        1,
        "keeper: home: 'GB' is no country; write two capital letters like DE, and UK for the United Kingdom (mine.toml)\n",
    )
    assert anna.ask("seller", "show")["seller"] == "default"


def test_a_default_that_cannot_be_used_names_its_file(shell: Terminal) -> None:
    assert "none.toml cannot be read" in shell.run("seller", "show", KEEPER_ARBITRAGE_SELLER="none.toml").stderr


def watch_some(anna: Terminal, tmp_path: Path, count: int = 10) -> None:
    file = tmp_path / "watches.csv"
    keyboards = (Path(__file__).parents[3] / "seeds" / "keyboards.csv").read_text(encoding="utf-8").splitlines()[1 : count + 1]
    file.write_text("asin\n" + "\n".join(line.partition(",")[0] for line in keyboards), encoding="utf-8")
    anna.ask("watch", "import", str(file))


def test_the_plan_says_how_many_products_fit_at_which_age(anna: Terminal, tmp_path: Path) -> None:
    watch_some(anna, tmp_path)
    anna.run("tokens", "--refresh")
    plan = anna.ask("compare", "--plan")
    assert (plan["products"], plan["round_tokens"], plan["due_tokens"], plan["oldest_hours"]) == (10, 50, 50, 2.0)
    assert plan["held"]["24"] == 24 * plan["tokens_per_hour"] // 5
    assert "Products that can be held" in anna.run("compare", "--plan").stdout


def test_the_stores_are_looked_at_and_the_best_is_shown(anna: Terminal, tmp_path: Path) -> None:
    watch_some(anna, tmp_path)
    done = anna.ask("compare")
    assert (done["scanned"]["products"], done["scanned"]["tokens"], done["compared"]["products"]) == (10, 50, 10)
    assert done["compared"]["opened"] >= len(done["best"]) > 0
    profits = [one["profit_minor"] for one in done["best"] if one["profit_minor"] is not None]
    assert profits == sorted(profits, reverse=True) != []
    assert "The best by profit" in anna.run("compare", "--no-scan").stdout


def test_without_a_scan_nothing_is_asked(anna: Terminal, tmp_path: Path) -> None:
    watch_some(anna, tmp_path)
    done = anna.ask("compare", "--no-scan", "--full")
    assert (done["scanned"]["tokens"], done["compared"]["products"], done["best"]) == (0, 0, [])


def test_a_single_store_cannot_be_compared(anna: Terminal) -> None:
    said = anna.run("compare", "--plan", KEEPER_ARBITRAGE_MARKETPLACES="DE")
    assert "must name two stores at least, like DE,FR" in said.stderr


def test_a_list_nobody_can_read_is_named(anna: Terminal) -> None:
    said = anna.run("compare", "--plan", KEEPER_ARBITRAGE_CATEGORIES="340843031")
    assert "'340843031' is no list of bestsellers; write store and Keepa's id of the category, like DE:340843031" in said.stderr


def test_a_second_one_beside_it_is_told_so(shell: Terminal) -> None:
    shell.run("fx", "show")
    engine = open_engine(shell.environment["KEEPER_DATABASE_URL"])
    with hold_job(engine, "arbitrage-scan"):
        said = shell.run("compare")
    engine.dispose()
    assert "the stores are being looked at already" in said.stderr


def test_new_opportunities_that_are_worth_it_are_announced_once(anna: Terminal, tmp_path: Path) -> None:
    watch_some(anna, tmp_path, 47)
    first = anna.ask("compare", KEEPER_ARBITRAGE_LEAST_ROI_PCT="0")
    again = anna.ask("compare", "--no-scan", KEEPER_ARBITRAGE_LEAST_ROI_PCT="0")
    assert [any("opportunities announced" in note for note in done["notes"]) for done in (first, again)] == [True, False]
