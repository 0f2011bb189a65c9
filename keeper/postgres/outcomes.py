"""Outcomes of opportunities: noted when they open, and looked up in the price history when their day has come."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from keeper.domain.outcome import BAND_POINTS, BANDS, HORIZONS, HorizonOutcome, OutcomeBand, band_scores
from keeper.postgres.engine import json_rows


@dataclass(frozen=True, slots=True)
class DueOutcome:
    """An opportunity whose day has come, and what is known of that time.

    Attributes:
        bought_minor: the purchase price when it was noted.
        is_known: both prices were looked at by then, and not too long before.
        source_minor, target_minor: at that time; None where there was no offer, or nothing is known.
        fba_minor, weight_g, stated_referral_pct: as they are now; Keeper keeps no history of them.
    """

    opportunity_id: int
    days: int
    due_at: datetime
    bought_minor: int
    source_market: str
    target_market: str
    category: str | None
    is_known: bool
    source_minor: int | None
    target_minor: int | None
    fba_minor: int | None
    weight_g: int | None
    stated_referral_pct: float | None


@dataclass(frozen=True, slots=True)
class ScoredOutcome:
    """What was found.

    Attributes:
        has_lasted: None where a price was not known at that time.
    """

    opportunity_id: int
    days: int
    source_minor: int | None
    target_minor: int | None
    margin_minor: int | None
    has_lasted: bool | None
    profit_minor: int | None
    earned_minor: int | None


def insert_due_outcomes(connection: Connection, *, limit: int) -> int:
    """Note the next opportunities that are not noted yet, the doubtful left out. Returns how many.

    Their numbers grow in the order in which comparisons write them, one at a time.
    """
    noted = connection.execute(
        text(
            """
            WITH opened AS (
                SELECT id, score, source_minor, profit_minor, first_seen_at FROM opportunities
                WHERE id > (SELECT coalesce(max(opportunity_id), 0) FROM opportunity_outcomes) AND cardinality(doubts) = 0
                ORDER BY id LIMIT :limit
            ), noted AS (
                INSERT INTO opportunity_outcomes (opportunity_id, days, due_at, score, bought_minor, promised_minor)
                SELECT id, days, first_seen_at + make_interval(days => days), score, source_minor, profit_minor
                FROM opened CROSS JOIN unnest(CAST(:horizons AS integer[])) AS days
                ON CONFLICT DO NOTHING
            )
            SELECT count(*) FROM opened
            """
        ),
        {"limit": limit, "horizons": list(HORIZONS)},
    ).scalar_one()
    return int(noted)


_PRICE_THEN = """
    LEFT JOIN LATERAL (
        SELECT amount_minor FROM price_history h
        WHERE h.asin = o.asin AND h.marketplace = o.{store} AND h.price_type = o.price_type AND h.observed_at <= w.due_at
        ORDER BY h.observed_at DESC LIMIT 1
    ) {name} ON true
    LEFT JOIN current_prices {name}_now
        ON {name}_now.asin = o.asin AND {name}_now.marketplace = o.{store} AND {name}_now.price_type = o.price_type
"""


def select_due_outcomes(connection: Connection, *, now: datetime, price_ends_after: timedelta, limit: int) -> list[DueOutcome]:
    """Those whose day has come, the first due first, locked until the end of the transaction; what another holds is left out.

    One whose prices nobody has looked at since is waited for as long as a price counts.
    """
    rows = connection.execute(
        text(
            f"""
            SELECT w.opportunity_id, w.days, w.due_at, w.bought_minor, o.source_market, o.target_market, o.category,
                coalesce(least(source_now.checked_at, target_now.checked_at) > w.due_at - CAST(:ends AS interval)
                    AND num_nonnulls(source_now.checked_at, target_now.checked_at) = 2, false) AS is_known,
                source.amount_minor, target.amount_minor, p.fba_pick_pack_minor,
                coalesce(p.package_weight_g, (SELECT max(a.package_weight_g) FROM products a WHERE a.asin = o.asin)), p.referral_fee_pct
            FROM opportunity_outcomes w JOIN opportunities o ON o.id = w.opportunity_id
            {_PRICE_THEN.format(name="source", store="source_market")}
            {_PRICE_THEN.format(name="target", store="target_market")}
            LEFT JOIN products p ON p.asin = o.asin AND p.marketplace = o.target_market
            WHERE w.scored_at IS NULL AND w.due_at <= :now
                AND (w.due_at <= CAST(:now AS timestamptz) - CAST(:ends AS interval)
                    OR (source_now.checked_at >= w.due_at AND target_now.checked_at >= w.due_at))
            ORDER BY w.due_at, w.opportunity_id LIMIT :limit
            FOR UPDATE OF w SKIP LOCKED
            """
        ),
        {"now": now, "ends": price_ends_after, "limit": limit},
    )
    return [DueOutcome(*row) for row in rows]


_KINDS = {"days": "smallint", "has_lasted": "boolean"}
_SCORED = ", ".join(f"{one.name} {_KINDS.get(one.name, 'integer')}" for one in fields(ScoredOutcome)[2:])


def update_outcomes(connection: Connection, scored: Sequence[ScoredOutcome], *, now: datetime) -> None:
    """What was found, once and for all."""
    names = [one.name for one in fields(ScoredOutcome)[2:]]
    connection.execute(
        text(
            f"""
            UPDATE opportunity_outcomes w SET scored_at = :now, {", ".join(f"{name} = s.{name}" for name in names)}
            FROM json_to_recordset(CAST(:scored AS json)) AS s (opportunity_id bigint, days smallint, {_SCORED})
            WHERE w.opportunity_id = s.opportunity_id AND w.days = s.days AND w.scored_at IS NULL
            """
        ),
        {"scored": json_rows(scored), "now": now},
    )


def select_outcome_bands(connection: Connection, *, since: datetime | None = None) -> list[OutcomeBand]:
    """By score, the highest first, all bands; a look at each row.

    Args:
        since: those first seen then or later; None for all.
    """
    rows = connection.execute(
        text(
            """
            SELECT least(score / :points, :last) AS band, days, count(*) AS noted,
                count(has_lasted) AS known, count(*) FILTER (WHERE scored_at IS NOT NULL AND has_lasted IS NULL) AS unknown,
                count(*) FILTER (WHERE has_lasted) AS lasted,
                percentile_disc(0.5) WITHIN GROUP (ORDER BY promised_minor) FILTER (WHERE has_lasted IS NOT NULL) AS promised,
                percentile_disc(0.5) WITHIN GROUP (ORDER BY earned_minor) AS earned
            FROM opportunity_outcomes
            WHERE CAST(:since AS timestamptz) IS NULL OR due_at - make_interval(days => days) >= CAST(:since AS timestamptz)
            GROUP BY 1, 2
            """
        ),
        {"points": BAND_POINTS, "last": BANDS - 1, "since": since},
    )
    found = {(row.band, row.days): row for row in rows}
    bands = []
    for band in reversed(range(BANDS)):
        horizons = []
        noted = 0
        for days in HORIZONS:
            row = found.get((band, days))
            if row is None:
                horizons.append(HorizonOutcome(days, 0, 0, 0, None, None))
                continue
            noted = max(noted, row.noted)
            horizons.append(HorizonOutcome(days, row.known, row.unknown, row.lasted, row.promised, row.earned))
        bands.append(OutcomeBand(*band_scores(band), noted, tuple(horizons)))
    return bands
