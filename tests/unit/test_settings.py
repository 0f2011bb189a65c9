"""Settings: documented, masked, and refused in plain words."""

from pathlib import Path

import pytest

from keeper.settings import Settings, SettingsInvalid, list_fields, read_settings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("document", ["README.md", ".env.example"])
def test_every_setting_is_listed_with_its_meaning(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    missing = [name for name, meaning, _ in list_fields() if name not in text or meaning not in text]
    assert missing == []


def test_every_setting_has_a_description() -> None:
    assert [name for name, meaning, _ in list_fields() if not meaning] == []


def test_a_wrong_value_names_its_variable_and_not_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPER_KEEPA_BATCH_SIZE", "4711")
    with pytest.raises(SettingsInvalid, match="KEEPER_KEEPA_BATCH_SIZE") as caught:
        read_settings()
    assert "4711" not in str(caught.value)


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
