"""A page draws itself anew: every minute, and soon where the API was away."""

from collections.abc import Callable
from typing import Any

import pytest
import streamlit as st

from dashboard import session


class Drawn(Exception):
    """The page is drawn anew."""


@pytest.fixture
def visit(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the visit remembers; under `beat` and `every` what is called, and how often."""
    state: dict[str, Any] = {"now": 100.0}

    def fragment(beat: Callable[[], None], *, run_every: float) -> Callable[[], None]:
        state.update(beat=beat, every=run_every)
        return beat

    def rerun() -> None:
        raise Drawn

    monkeypatch.setattr(st, "session_state", state)
    monkeypatch.setattr(st, "fragment", fragment)
    monkeypatch.setattr(st, "rerun", rerun)
    monkeypatch.setattr("dashboard.session.time.monotonic", lambda: state["now"])
    return state


@pytest.mark.parametrize(("is_down", "seconds"), [(False, 60), (True, 3)])
def test_page_is_drawn_anew_when_it_is_time_and_not_before(visit: dict[str, Any], is_down: bool, seconds: float) -> None:
    visit["keeper.is_down"] = is_down
    session.refresh_by_itself()
    assert visit["every"] == seconds

    visit["now"] += seconds - 1
    visit["beat"]()
    visit["now"] += 1
    with pytest.raises(Drawn):
        visit["beat"]()
