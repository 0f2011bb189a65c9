import pytest

from keeper.simulator.clock import Anchors, SimulatedClock, keepa_minute, unix_seconds


@pytest.fixture
def machine() -> list[float]:
    return [1_000_000.0]


def test_time_is_a_function_of_the_three_numbers(machine: list[float]) -> None:
    clock = SimulatedClock(5_000.0, 60.0, machine_now=lambda: machine[0])
    machine[0] += 7.0
    assert clock.now() == Anchors(1_000_000.0, 5_000.0, 60.0).at(1_000_007.0) == 5_420.0


def test_clock_starts_at_the_machines_time_unless_told(machine: list[float]) -> None:
    assert SimulatedClock(machine_now=lambda: machine[0]).now() == 1_000_000.0


def test_jump_moves_ahead_and_keeps_the_speed(machine: list[float]) -> None:
    clock = SimulatedClock(0.0, 10.0, machine_now=lambda: machine[0])
    machine[0] += 1.0
    clock.jump(86_400.0)
    machine[0] += 1.0
    assert clock.now() == 86_420.0


def test_another_speed_counts_from_now_on_only(machine: list[float]) -> None:
    clock = SimulatedClock(0.0, 10.0, machine_now=lambda: machine[0])
    machine[0] += 1.0
    clock.run_at(1000.0)
    machine[0] += 1.0
    assert clock.now() == 1_010.0


@pytest.mark.parametrize("speed", [0.5, 0, -1, 10_001, float("nan")])
def test_speed_outside_1_to_10000_is_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        SimulatedClock(0.0, speed)


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_time_does_not_jump_backwards(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds"):
        SimulatedClock(0.0).jump(seconds)


def test_kept_anchors_are_taken_over_whole(machine: list[float]) -> None:
    clock = SimulatedClock(machine_now=lambda: machine[0])
    assert clock.set_anchors(Anchors(999_000.0, 100.0, 2.0)) == clock.anchors
    assert clock.now() == 2_100.0


def test_keepa_minutes_count_from_2011() -> None:
    assert keepa_minute(1_293_840_000.0 + 59.9) == 0
    assert unix_seconds(1) == 1_293_840_060.0
