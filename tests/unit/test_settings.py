"""Settings: documented, masked, and refused in plain words."""

import re
from pathlib import Path

import pytest

from keeper.settings import Settings, SettingsInvalid, list_fields, read_settings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("document", ["README.md", ".env.example"])
def test_every_setting_is_listed_with_its_meaning(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    missing = [name for name, meaning, _ in list_fields() if name not in text or meaning not in text]
    assert missing == []


def test_the_readme_s_table_of_settings_is_whole_and_in_one_place() -> None:
    row = re.compile(r"^\| `(KEEPER_\w+)` \| .* \| (.+) \|$", re.MULTILINE)
    before, _, settings = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Settings\n")
    section, _, after = settings.partition("\n## ")

    assert dict(row.findall(section)) == {name: meaning for name, meaning, _ in list_fields()}
    assert row.findall(before + after) == []


def test_every_setting_has_a_description() -> None:
    assert [name for name, meaning, _ in list_fields() if not meaning] == []


def test_a_wrong_value_names_its_variable_and_not_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPER_KEEPA_BATCH_SIZE", "4711")
    with pytest.raises(SettingsInvalid, match="KEEPER_KEEPA_BATCH_SIZE") as caught:
        read_settings()
    assert "4711" not in str(caught.value)


@pytest.mark.parametrize("name", ["KEEPER_PREFECT_API_URL", "KEEPER_ELASTICSEARCH_URL"])
def test_an_address_with_a_password_in_it_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://anna:s3cret-of-anna@127.0.0.1:4200/api")

    with pytest.raises(SettingsInvalid, match=f"{name}.*without user and password") as caught:
        read_settings()

    assert "s3cret" not in str(caught.value)


def test_secrets_do_not_show_in_the_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPER_KEEPA_API_KEY", "k" * 64)
    monkeypatch.setenv("KEEPER_DATABASE_URL", "postgresql://keeper:hunter2@db/keeper")
    monkeypatch.setenv("KEEPER_CHANNELS_KEYS", "first-key,second-key")
    shown = repr(read_settings())
    assert not any(secret in shown for secret in ("k" * 64, "hunter2", "first-key", "second-key"))


def test_words_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPER_CHANNELS_SCHEMES", "mailto, ntfy")
    assert read_settings().channels.schemes == ("mailto", "ntfy")


def test_set_and_empty_is_not_set_whatever_the_file_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("KEEPER_DATABASE_URL=postgresql://production/keeper\nKEEPER_POSTGRES_PORT=5432\n")
    monkeypatch.setitem(Settings.model_config, "env_file", file)
    monkeypatch.setenv("KEEPER_DATABASE_URL", "")
    monkeypatch.setenv("KEEPER_POSTGRES_PORT", "")
    found = read_settings()
    assert (found.database_url, found.postgres.port) == (None, None)


@pytest.mark.parametrize("name", ["KEEPER_ELASTICSEARCH_URL", "KEEPER_KAFKA_PARTITIONS", "KEEPER_LOG_LEVEL", "KEEPER_CHANNELS_SCHEMES"])
def test_set_and_empty_is_the_default_whatever_the_type(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "")
    found = read_settings()
    monkeypatch.delenv(name)
    assert found == read_settings()


def test_waits_that_outlast_the_lease_are_refused_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPER_TOKENS_LEASE_SECONDS", "420")
    with pytest.raises(SettingsInvalid) as caught:
        read_settings()
    assert str(caught.value).startswith(
        "KEEPER_PREFECT_LIMIT_WAIT_SECONDS and KEEPER_TOKENS_LONGEST_WAIT_SECONDS together (420 s) "
        "must be shorter than KEEPER_TOKENS_LEASE_SECONDS (420 s)"
    )


def test_five_stores_are_compared_unless_others_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings().arbitrage.marketplaces == ("DE", "IT", "ES", "FR", "UK")
    monkeypatch.setenv("KEEPER_ARBITRAGE_MARKETPLACES", "DE,FR")
    assert read_settings().arbitrage.marketplaces == ("DE", "FR")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("KEEPER_ARBITRAGE_PRICE_TYPE", "USED", id="price type"),
        pytest.param("KEEPER_ARBITRAGE_LEAST_MARGIN_PCT", "10.005", id="too fine"),
        pytest.param("KEEPER_ARBITRAGE_SHARE_PCT", "0", id="no share"),
        pytest.param("KEEPER_ARBITRAGE_RATES_URL", "ftp://example.org/rates.xml", id="scheme"),
        pytest.param("KEEPER_ARBITRAGE_RATES_URL", "https://me:secret@example.org/rates.xml", id="password"),
    ],
)
def test_what_stores_cannot_be_compared_with_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid, match=name):
        read_settings()


def test_files_of_the_arbitrage_are_found_from_the_checkout_wherever_a_run_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    found = read_settings().arbitrage
    assert (found.seller.exists(), (found.tables / "vat.csv").exists()) == (True, True)
