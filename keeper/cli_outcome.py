"""The command that checks the score of opportunities against what became of them."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from keeper.cli_common import Json, open_resources, show_json, show_money

if TYPE_CHECKING:
    from keeper.domain.outcome import HorizonOutcome


def opportunities_outcome(
    days: Annotated[int | None, typer.Option("--days", min=1, max=3650, help="First seen in the last so many days; all without")] = None,
    is_json: Json = False,
) -> None:
    """What became of opportunities after 1, 7 and 30 days: did the gap last, and what would have been earned, by score.

    The score is that of the moment an opportunity was noted. Earned is the profit of having bought then and selling at the price of
    the day.
    """
    from datetime import timedelta

    from keeper.outcome import score_outcomes
    from keeper.postgres.outcomes import select_outcome_bands
    from keeper.terminal import say, show_table

    with open_resources() as resources:
        now = resources.now()
        # What is due is scored first, so that the answer is whole where no flow runs.
        score_outcomes(resources.engine, now=now, terms=resources.comparison_terms())
        with resources.engine.begin() as connection:
            bands = select_outcome_bands(connection, since=None if days is None else now - timedelta(days=days))
    if is_json:
        show_json(
            {
                "bands": [
                    asdict(band) | {"horizons": [asdict(one) | {"lasted_pct": one.lasted_pct} for one in band.horizons]} for band in bands
                ]
            }
        )
        return
    if not any(band.opportunities for band in bands):
        say("No opportunity has been noted yet; `keeper compare` looks for some.")
        return
    horizons = [one.days for one in bands[0].horizons]
    numbers = [f"{name} {_after(one)}" for one in horizons for name in ("Lasted", "Earned")]
    show_table(
        ("Score", "Noted", *numbers),
        [
            (f"{band.least_score}-{band.most_score}", band.opportunities, *(cell for one in band.horizons for cell in _cells(one)))
            for band in bands
        ],
        right=("Noted", *numbers),
    )
    say("Lasted: the share whose gap was still there, of those whose prices are known. Earned: the median.")


def _after(days: int) -> str:
    return f"{days} day" if days == 1 else f"{days} days"


def _cells(one: "HorizonOutcome") -> tuple[str | None, str | None]:
    if not one.known:
        return None, None
    earned = None if one.median_earned_minor is None else show_money(one.median_earned_minor, "EUR")
    return f"{one.lasted_pct:.0f} % of {one.known}", earned
