"""What became of opportunities: by score, whether the gap lasted and what would have been earned, so that a score is checked."""

from dataclasses import dataclass
from typing import Final

from keeper.domain.rounding import compute_pct

# Days after an opportunity was first seen.
HORIZONS: Final = (1, 7, 30)
# A band of scores begins every so many points; the last holds 100, too.
BAND_POINTS: Final = 20
BANDS: Final = 100 // BAND_POINTS


@dataclass(frozen=True, slots=True)
class HorizonOutcome:
    """What was found so many days after opportunities of one band were first seen.

    Attributes:
        known: those whose prices of that time are known.
        unknown: those whose are not, because nobody looked.
        lasted: of the known, those whose gap was still there.
        median_promised_minor: the profit they promised, euro cents; None where none was known.
        median_earned_minor: the profit of having bought then and selling at that time, euro cents; None where none is known.
    """

    days: int
    known: int
    unknown: int
    lasted: int
    median_promised_minor: int | None
    median_earned_minor: int | None

    @property
    def lasted_pct(self) -> float | None:
        """The share that lasted, two decimals; None where nothing is known."""
        pct = compute_pct(self.lasted, self.known)
        return None if pct is None else float(pct)


@dataclass(frozen=True, slots=True)
class OutcomeBand:
    """Opportunities whose score was within a band when they were noted.

    Attributes:
        least_score, most_score: both within it.
        opportunities: how many were noted, the doubtful left out.
        horizons: one for each of `HORIZONS`, in that order.
    """

    least_score: int
    most_score: int
    opportunities: int
    horizons: tuple[HorizonOutcome, ...]


def band_scores(band: int) -> tuple[int, int]:
    """The least and the most score of a band, which are counted from 0."""
    least = band * BAND_POINTS
    return least, 100 if band == BANDS - 1 else least + BAND_POINTS - 1
