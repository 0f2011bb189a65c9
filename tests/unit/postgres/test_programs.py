"""How PostgreSQL's programs are told whom to connect to."""

import pytest

from keeper.postgres.engine import open_engine
from keeper.postgres.programs import environment_of


def test_a_program_connects_as_the_engine_does_and_learns_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPER_KEEPA_API_KEY", "k" * 64)
    monkeypatch.setenv("PGUSER", "somebody")
    url = "postgresql://anna:p%40ss%20%2F%3A'w@db.example.org:6543/keeper?sslmode=verify-full&sslrootcert=/etc/ca.pem"
    told = environment_of(open_engine(url))
    assert {name: value for name, value in told.items() if name.startswith(("PG", "KEEPER_"))} == {
        "PGHOST": "db.example.org",
        "PGPORT": "6543",
        "PGUSER": "anna",
        "PGPASSWORD": "p@ss /:'w",
        "PGDATABASE": "keeper",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": "/etc/ca.pem",
        "PGAPPNAME": "keeper backup",
    }
