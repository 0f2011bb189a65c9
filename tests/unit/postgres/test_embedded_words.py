"""The pure rules of the embedded server: what becomes of words on their way into files and URLs."""

import pytest

from keeper.domain.errors import KeeperError, TransientError
from keeper.postgres import embedded, embedded_errors


@pytest.mark.parametrize(
    ("value", "written"),
    [("2GB", "'2GB'"), ("", "''"), ("it's", "'it''s'"), ("a\\b", "'a\\\\b'")],
    ids=["plain", "empty", "quote", "backslash"],
)
def test_setting_is_written_as_postgresql_reads_it(value: str, written: str) -> None:
    assert embedded._quote_setting(value) == written


@pytest.mark.parametrize("name", ["keeper", "keeper_simulator", "test-1", "a" * 63])
def test_plain_database_name_passes(name: str) -> None:
    assert embedded._check_name(name) == name


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a?b", "a%20b", "ä", "-a", "a" * 64, "a\n"])
def test_name_that_urls_would_twist_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="plain database name"):
        embedded._check_name(name)


def test_only_a_busy_server_is_worth_another_try() -> None:
    errors = [error for error in vars(embedded_errors).values() if isinstance(error, type) and issubclass(error, KeeperError)]
    transient = {error.__name__ for error in errors if issubclass(error, TransientError)}
    assert transient == {"TransientError", "ServerBusyError"}
