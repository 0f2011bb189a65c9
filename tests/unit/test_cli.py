"""The command line without a database: what it parses, how it shows, what it does not import."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
import typer
from typer.testing import CliRunner

from keeper import cli, terminal
from keeper.domain.price_type import PriceType

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("6h", 21600), ("3d", 259200), ("1w", 604800), ("1d12h", 129600), ("1.5 h", 5400), ("20min", 1200)],
)
def test_a_duration_is_a_sum_of_numbers_with_units(text: str, seconds: float) -> None:
    assert cli._seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "6", "h", "6x", "6h!", "-6h", "six hours"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        cli._seconds(text)


@pytest.mark.parametrize(
    "text",
    [
        "B00OCMRV40",
        " b00ocmrv40 ",
        "https://www.amazon.de/dp/B00OCMRV40",
        "https://www.amazon.de/Some-Keyboard/dp/B00OCMRV40/ref=sr_1_3?th=1",
        "https://www.amazon.co.uk/gp/product/B00OCMRV40?psc=1",
    ],
)
def test_an_asin_is_found_in_a_link_too(text: str) -> None:
    assert cli._asin(text) == "B00OCMRV40"


@pytest.mark.parametrize("text", ["", "B00", "B00OCMRV401", "https://www.amazon.de/gp/help/B00OCMRV40x", "B00-CMRV40"])
def test_what_is_no_asin_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        cli._asin(text)


@pytest.mark.parametrize(
    ("text", "price_type"),
    [("new", PriceType.NEW), ("buybox", PriceType.BUY_BOX_SHIPPING), ("Lightning-Deal", PriceType.LIGHTNING_DEAL)],
)
def test_a_price_type_is_named_as_people_write_it(text: str, price_type: PriceType) -> None:
    assert cli._price_type(text) is price_type


def test_a_price_type_that_cannot_be_watched_is_refused() -> None:
    with pytest.raises(typer.BadParameter):
        cli._price_type("SALES")


def test_help_loads_neither_the_database_nor_the_network() -> None:
    heavy = "'sqlalchemy', 'psycopg', 'httpx', 'apprise', 'pydantic', 'plotext', 'alembic', 'confluent_kafka', 'elasticsearch'"
    code = f"import sys, keeper.cli; sys.exit(repr([name for name in ({heavy}) if name in sys.modules] or ''))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr.strip() == "''"


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["user", "add"],
        ["channel", "add"],
        ["channel", "rotate"],
        ["watch", "add"],
        ["watch", "target"],
        ["watch", "list"],
        ["watch", "pause"],
        ["watch", "resume"],
        ["watch", "import"],
        ["watch", "export"],
        ["check"],
        ["history"],
        ["alerts"],
        ["alerts", "retry"],
        ["tokens"],
        ["simulator"],
        ["simulator", "jump"],
        ["relay"],
        ["status"],
        ["sink", "list"],
        ["sink", "off"],
        ["sink", "on"],
        ["consume"],
        ["dlq", "list"],
        ["dlq", "show"],
        ["dlq", "retry"],
        ["reindex"],
        ["search"],
        ["migrate"],
        ["settings"],
        ["doctor"],
    ],
    ids=" ".join,
)
def test_every_command_has_help(command: list[str]) -> None:
    assert CliRunner().invoke(cli.app, [*command, "--help"]).exit_code == 0


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(cli.app, ["--version"]).stdout.startswith("keeper 0.")


def test_settings_show_no_secret() -> None:
    secrets = {"KEEPER_KEEPA_API_KEY": "k" * 64, "KEEPER_DATABASE_URL": "postgresql://me:hushhush@db/keeper", "KEEPER_CHANNELS_KEYS": "abc"}
    shown = CliRunner().invoke(cli.app, ["settings", "--json"], env=secrets).stdout
    assert not [secret for secret in ("k" * 64, "hushhush", '"abc"') if secret in shown]


def test_settings_show_what_is_in_force() -> None:
    shown = CliRunner().invoke(cli.app, ["settings", "--json"], env={"KEEPER_TOKENS_LEASE_SECONDS": "777"}).stdout
    assert '{"variable": "KEEPER_TOKENS_LEASE_SECONDS", "value": 777.0,' in shown


def test_a_bad_setting_is_named_below_the_list_of_all() -> None:
    result = CliRunner().invoke(cli.app, ["settings"], env={"KEEPER_TOKENS_LEASE_SECONDS": "1"})
    assert (result.exit_code, "KEEPER_TOKENS_LEASE_SECONDS" in result.stderr, "KEEPER_DATA" in result.stdout) == (1, True, True)


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["table", "json"])
def test_a_mistyped_setting_is_warned_of(form: list[str]) -> None:
    result = CliRunner().invoke(cli.app, ["settings", *form], env={"KEEPER_DATABSE_URL": "x"})
    assert (result.exit_code, "KEEPER_DATABSE_URL is no setting of Keeper; did you mean KEEPER_DATABASE_URL?" in result.stderr) == (0, True)


@pytest.mark.parametrize(
    "name", ["KEEPER_CHANNEL_URL", "KEEPER_RECORDINGS", "KEEPER_REQUIRE_SERVICES", "KEEPER_BENCH_DATABASE_URL", "KEEPER_KEEPA_URL"]
)
def test_a_known_name_is_not_warned_of(name: str) -> None:
    assert name not in CliRunner().invoke(cli.app, ["settings"], env={name: "http://127.0.0.1:1"}).stderr


def test_a_retry_needs_alerts_named_or_all() -> None:
    assert CliRunner().invoke(cli.app, ["alerts", "retry"]).exit_code == 2


def test_wrong_use_is_json_where_json_was_asked() -> None:
    result = CliRunner().invoke(cli.app, ["history", "bad", "--json"])
    assert (result.exit_code, result.stderr.startswith('{"error": "')) == (2, True)


def test_a_title_cannot_drive_the_terminal() -> None:
    assert terminal.printable("Tast\x1b[2Jatur\n\x07 \u202egnp") == "Tast [2Jatur gnp"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (90, "1.5 min"), (21600, "6 h"), (260000, "3.0 d"), (8640000, "100 d")]
)
def test_a_span_is_told_in_its_largest_unit(seconds: float, text: str) -> None:
    assert terminal.span(seconds) == text


@pytest.mark.parametrize(
    ("at", "text"), [(None, "never"), (NOW, "now"), (NOW - timedelta(hours=3), "3 h ago"), (NOW + timedelta(minutes=20), "in 20 min")]
)
def test_a_moment_is_told_from_now(at: datetime | None, text: str) -> None:
    assert terminal.ago(at, NOW) == text


def draw(*steps: tuple[float, float | None], target: float | None = None) -> str:
    moments = [(NOW - timedelta(days=days), amount) for days, amount in steps]
    return terminal.draw_prices(moments, start=NOW - timedelta(days=10), end=NOW, target=target, size=(80, 18), is_coloured=False)


def test_a_chart_holds_no_colours_for_a_file() -> None:
    assert "\x1b" not in draw((10, 50.0), (5, 40.0), target=45.0)


def test_a_chart_draws_each_price_until_the_next() -> None:
    segments = list(terminal._segments([(NOW - timedelta(days=2), 5.0), (NOW - timedelta(days=1), 4.0)], NOW - timedelta(days=2), NOW))
    assert [amounts for _, amounts in segments] == [[5.0, 5.0, 4.0, 4.0]]


def test_a_chart_has_a_gap_where_there_was_no_offer() -> None:
    steps = [(NOW - timedelta(days=3), 5.0), (NOW - timedelta(days=2), None), (NOW - timedelta(days=1), 4.0)]
    assert len(list(terminal._segments(steps, NOW - timedelta(days=3), NOW))) == 2


def test_a_target_far_away_does_not_flatten_the_chart() -> None:
    assert draw((10, 50.0), (5, 40.0), target=900.0) == draw((10, 50.0), (5, 40.0))
