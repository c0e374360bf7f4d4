"""Each reason why a timing is shaky, and no reason for a steady one."""

import re
from dataclasses import replace

import numpy as np
import pytest

from harness.intervals import median_interval
from harness.measure.speed.stability import unstable
from harness.measure.speed.turns import Turns


def steady(count: int = 30, spread: float = 0.005, seed: int = 0) -> Turns:
    rng = np.random.default_rng(seed)
    readings = 1e-3 * np.exp(rng.normal(0, spread, (count, 2)))
    return Turns(
        readings=readings.tolist(),
        other_load=[0.02] * count,
        own_load=[1.0] * count,
        loops=2,
        threads=1,
    )


def kinds(turns: Turns) -> list[str]:
    found = unstable(turns, median_interval(turns.readings))
    assert all(reason.words and reason.advice for reason in found)
    return [reason.kind for reason in found]


def scaled(factors: np.ndarray) -> Turns:
    turns = steady(len(factors))
    return replace(
        turns,
        readings=[
            [s * f for s in turn]
            for turn, f in zip(turns.readings, factors, strict=True)
        ],
    )


def test_steady_turns_are_not_shaky() -> None:
    found = [kinds(steady(count, seed=s)) for count in (8, 30, 100) for s in range(40)]
    # A false trend is found in 1 of 100 cases, and it must also be large.
    assert found == [[]] * len(found)


def test_a_trend_is_drift_and_a_spread_without_a_trend_is_not() -> None:
    # Its turns are worth so few independent ones that the interval is wide as well.
    assert kinds(scaled(np.linspace(1, 1.12, 30))) == ["drift", "wide"]
    assert kinds(scaled(np.linspace(1.12, 1, 30))) == ["drift", "wide"]
    assert kinds(scaled(np.linspace(1, 1.01, 30))) == []
    mixed = np.random.default_rng(1).permutation(np.linspace(1, 1.12, 30))
    assert "drift" not in kinds(scaled(mixed))


def test_turns_that_follow_each_other_are_correlated_if_the_difference_counts() -> None:
    slow = np.repeat(np.random.default_rng(6).normal(0, 1, 8), 4)
    assert kinds(scaled(np.exp(0.05 * slow))) == ["correlated", "wide"]
    assert kinds(scaled(np.exp(0.003 * slow))) == []
    mixed = np.random.default_rng(1).permutation(slow)
    assert "correlated" not in kinds(scaled(np.exp(0.05 * mixed)))


@pytest.mark.parametrize("high", [8, 15, 22])
def test_turns_of_two_kinds_are_bimodal_and_other_spreads_are_not(high: int) -> None:
    factors = np.where(np.arange(30) < high, 1.2, 1.0)
    mixed = np.random.default_rng(2).permutation(factors)
    assert "bimodal" in kinds(scaled(mixed))
    uniform = np.random.default_rng(3).uniform(1, 1.2, 60)
    assert "bimodal" not in kinds(scaled(uniform))
    normal = np.exp(np.random.default_rng(4).normal(0, 0.08, 60))
    assert "bimodal" not in kinds(scaled(normal))
    one_outlier = np.where(np.arange(30) == 7, 1.5, 1.0)
    assert "bimodal" not in kinds(scaled(one_outlier))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_too_few_turns_are_always_reported(count: int) -> None:
    assert "few" in kinds(steady(count))
    assert "few" not in kinds(steady(6))


def test_an_interval_wider_than_the_least_effect_of_a_comparison_is_wide() -> None:
    rng = np.random.default_rng(5)
    wide = scaled(np.exp(rng.normal(0, 0.3, 12)))
    assert "wide" in kinds(wide)


def test_load_and_threads_are_those_during_the_turns() -> None:
    assert kinds(replace(steady(), other_load=[0.5] * 30)) == ["load"]
    assert kinds(replace(steady(), own_load=[1.9] * 30)) == ["threads"]
    assert kinds(replace(steady(), own_load=[1.9] * 30, threads=2)) == []
    assert kinds(replace(steady(), own_load=[1.9] * 30, threads=None)) == []


def test_a_build_during_timing_is_a_jump() -> None:
    turns = steady()
    turns.readings[11] = [1e-3, 0.4]
    assert kinds(turns) == ["jump"]
    turns.readings[11] = [1e-3, 5e-3]  # suspended for a moment, as on any machine
    assert kinds(turns) == []


def in_pieces(every: int, pause_s: float, *, calls: int = 6, count: int = 30) -> Turns:
    """Return turns of calls of 1 ms, with a pause in some at random."""
    rng = np.random.default_rng(6)
    calls_s = 1e-3 * np.exp(rng.normal(0, 0.05, (count, calls)))
    calls_s += pause_s * (rng.random((count, calls)) < 1 / every)
    pieces = [np.column_stack([np.ones(calls), turn]) for turn in calls_s]
    return replace(steady(count), pieces=pieces)


@pytest.mark.parametrize(
    ("every", "pause_s"), [(5, 0.08), (5, 0.004), (2, 0.08), (20, 0.08)]
)
def test_occasional_slow_calls_are_uneven(every: int, pause_s: float) -> None:
    turns = in_pieces(every, pause_s)
    assert kinds(turns) == ["uneven"]
    (found,) = unstable(turns, median_interval(turns.readings))
    slow = f"some calls took {1e3 * pause_s + 1:.0f} ms"
    assert re.fullmatch(rf"{slow} where others take (1|0\.9\d) ms", found.words)


def test_occasional_pauses_by_the_system_are_not_uneven() -> None:
    assert (
        kinds(in_pieces(60, 0.004, count=100)) == []
    )  # 4 ms in every 60th call of 1 ms
    once = in_pieces(10**9, 0.0)
    once.pieces[3][0, 1] = once.pieces[9][5, 1] = 0.5
    assert kinds(once) == []
    shared = in_pieces(4, 0.004)
    assert kinds(shared) == ["uneven"]
    # The system reports that it waited for a core half of the time.
    waited_s = sum(turn[:, 1].sum() for turn in shared.pieces) / 2
    assert kinds(replace(shared, waited_s=[waited_s / 30] * 30)) == []
    assert kinds(replace(shared, waited_s=[waited_s / 300] * 30)) == ["uneven"]


def test_slow_calls_are_found_among_calls_that_are_timed_together() -> None:
    pieces = np.array([[1, 1e-5]] * 32 + [[218, 218e-5]])
    steadily = replace(steady(), pieces=[pieces] * 30)
    assert kinds(steadily) == []
    pieces = pieces.copy()
    pieces[-1, 1] += 0.08
    assert kinds(replace(steady(), pieces=[pieces] * 30)) == ["uneven"]


def test_the_state_of_the_framework_is_reported() -> None:
    assert kinds(replace(steady(), built=[False] * 30)) == []
    built = replace(steady(), built=[False] * 28 + [True] * 2)
    (found,) = unstable(built, median_interval(built.readings))
    assert found.kind == "built"
    assert "in 2 of 30 turns" in found.words
    assert kinds(replace(steady(), set_threads=[1] * 30)) == []
    assert kinds(replace(steady(), set_threads=[1] * 29 + [2])) == ["threads"]
    assert kinds(replace(steady(), set_threads=[1] * 30, threads=2)) == ["threads"]
    assert kinds(replace(steady(), set_threads=[2] * 30, threads=None)) == []
    both = replace(steady(), set_threads=[2] * 30, own_load=[1.9] * 30)
    (found,) = unstable(both, median_interval(both.readings))
    assert found.words == (
        "was set to 2 threads and kept 1.9 cores busy where 1 thread was asked for"
    )


def test_a_wrong_clock_and_a_warm_up_without_an_end_are_reported() -> None:
    assert kinds(replace(steady(), clock_wrong=True)) == ["clock"]
    backwards = steady()
    backwards.readings[3] = [-1e-3, 1e-3]
    assert "clock" in kinds(backwards)
    assert kinds(replace(steady(), stationary=False)) == ["warm-up"]


def test_readings_that_are_too_short_are_reported() -> None:
    turns = steady()
    assert kinds(replace(turns, loops=2)) == []  # of 1 ms each
    assert kinds(replace(turns, loops=1)) == ["short"]
