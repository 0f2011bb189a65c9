"""Rounds and seeds of the kill tests, and what they found: a line each at the end."""

import os
import random

import pytest

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "3"))
SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
_found: list[str] = []


class Chaos:
    """One round's randomness, and where it says what it found."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.random = random.Random(f"{SEED}/{name}/{number}")

    def say(self, **facts: int) -> None:
        """Keep the round's facts for the terminal."""
        shown = ", ".join(f"{name} {value}" for name, value in facts.items())
        _found.append(f"chaos {self.name} round {self.number + 1}/{ROUNDS}, seed {SEED}: {shown}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each kill test once a round."""
    if "chaos" in metafunc.fixturenames:
        metafunc.parametrize("chaos", range(ROUNDS), indirect=True, ids=lambda number: f"round{number + 1}")


@pytest.fixture
def chaos(request: pytest.FixtureRequest) -> Chaos:
    """This round."""
    return Chaos(request.function.__name__.removeprefix("test_"), request.param)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """CHAOS_SEED=n replays."""
    for line in _found:
        terminalreporter.write_line(line)
    if _found:
        terminalreporter.write_line(f"CHAOS_SEED={SEED} CHAOS_ROUNDS={ROUNDS} replays them")
