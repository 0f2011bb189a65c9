"""Exchange rates as they are known: one row per currency and day, with who says so."""

from collections.abc import Iterable
from datetime import date
from decimal import Decimal

from sqlalchemy import Connection, text

from keeper.domain.exchange import ECB, ExchangeRate, ExchangeRates
from keeper.postgres.engine import json_rows

_SAID = "json_to_recordset(CAST(:rows AS json)) AS s (currency text, quoted_on date, per_euro numeric, source text)"


def insert_published(connection: Connection, rates: Iterable[ExchangeRate]) -> int:
    """What the ECB has published counts, whatever was there of the same day. Returns how many rows are new or another."""
    changed: int = connection.execute(
        text(
            f"""
            WITH said AS (SELECT * FROM {_SAID}),
            kept AS (
                INSERT INTO exchange_rates (currency, quoted_on, per_euro, source)
                SELECT currency, quoted_on, per_euro, source FROM said ORDER BY currency, quoted_on
                ON CONFLICT (currency, quoted_on) DO UPDATE SET per_euro = excluded.per_euro, source = excluded.source
                WHERE (exchange_rates.per_euro, exchange_rates.source) IS DISTINCT FROM (excluded.per_euro, excluded.source)
                RETURNING 1
            ),
            seen AS (
                UPDATE exchange_rates r SET read_at = clock_timestamp() FROM said s
                WHERE r.currency = s.currency AND r.quoted_on = s.quoted_on AND (r.per_euro, r.source) = (s.per_euro, s.source)
            )
            SELECT count(*) FROM kept
            """
        ),
        {"rows": _rows(rates)},
    ).scalar_one()
    return changed


def insert_seeds(connection: Connection, rates: Iterable[ExchangeRate]) -> int:
    """What a file says counts where nobody has published anything for the day. Returns how many rows are new or another."""
    return connection.execute(
        text(
            f"""
            INSERT INTO exchange_rates (currency, quoted_on, per_euro, source)
            SELECT currency, quoted_on, per_euro, source FROM {_SAID} ORDER BY currency, quoted_on
            ON CONFLICT (currency, quoted_on) DO UPDATE SET per_euro = excluded.per_euro, source = excluded.source
            WHERE exchange_rates.source <> :published
                AND (exchange_rates.per_euro, exchange_rates.source) IS DISTINCT FROM (excluded.per_euro, excluded.source)
            """
        ),
        {"rows": _rows(rates), "published": ECB},
    ).rowcount


def select_rates(connection: Connection, *, on: date) -> ExchangeRates:
    """The last rate of each currency by a day, in the order of the currencies."""
    rows = connection.execute(
        text(
            """
            SELECT DISTINCT ON (currency) currency, per_euro, quoted_on, source FROM exchange_rates
            WHERE quoted_on <= :on ORDER BY currency, quoted_on DESC
            """
        ),
        {"on": on},
    )
    return ExchangeRates(tuple(ExchangeRate(row.currency, _published(row.per_euro), row.quoted_on, row.source) for row in rows))


def is_read_within(connection: Connection, *, seconds: float) -> bool:
    """Whether the ECB was read within so many seconds of the machine."""
    return bool(
        connection.execute(
            text(
                """
                SELECT EXISTS (
                    SELECT 1 FROM exchange_rates
                    WHERE source = :published AND read_at > clock_timestamp() - make_interval(secs => :seconds)
                )
                """
            ),
            {"published": ECB, "seconds": seconds},
        ).scalar_one()
    )


def _published(per_euro: Decimal) -> Decimal:
    """Without the zeros that fill a column of eight decimals."""
    return Decimal(f"{per_euro.normalize():f}")


def _rows(rates: Iterable[ExchangeRate]) -> str:
    return json_rows(
        [{"currency": one.currency, "quoted_on": one.on.isoformat(), "per_euro": str(one.per_euro), "source": one.source} for one in rates]
    )
