"""The pass over columns gives every opportunity the flags and points the domain gives it."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from keeper.domain.opportunity_score import OpportunityFacts, compute_score_parts, find_flags
from keeper.score_pass import FLAG_BITS, NONE, PARTS, FactColumns
from keeper.score_pass import compute_score_parts as compute_columns
from keeper.score_pass import find_flags as find_flag_columns
from tests.unit.domain.test_opportunity_score import ANY_FACTS


def columns_of(facts: list[OpportunityFacts]) -> FactColumns:
    def ints(name: str) -> Any:
        values = [getattr(one, name) for one in facts]
        return np.array([NONE if value is None else int(value) for value in values], np.int64)

    names = [name for name in FactColumns.__slots__ if name not in ("has_roi", "is_lightning", "has_coupon", "is_old")]
    bools: dict[str, Any] = {name: np.array([getattr(one, name) for one in facts]) for name in ("is_lightning", "has_coupon", "is_old")}
    return FactColumns(**{name: ints(name) for name in names}, **bools, has_roi=np.array([one.roi_pct is not None for one in facts]))


@settings(max_examples=200, deadline=None)
@given(facts=st.lists(ANY_FACTS, min_size=1, max_size=8))
def test_flags_and_points_are_those_of_the_domain(facts: list[OpportunityFacts]) -> None:
    columns = columns_of(facts)
    flags, parts = find_flag_columns(columns), compute_columns(columns)
    for place, one in enumerate(facts):
        assert [flag for flag, bit in FLAG_BITS.items() if flags[place] & bit] == list(find_flags(one))
        assert {part: int(parts[row, place]) for row, part in enumerate(PARTS)} == compute_score_parts(one)
