"""The interval of a median: closed forms, simulation, another library's binomial."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.intervals import (
    FEWEST,
    LEVEL,
    median_ends,
    median_interval,
    ratio_interval,
)


def test_of_six_values_it_lies_just_inside_of_all() -> None:
    # All six hold the median 96.9 times in 100, the inner four 78.1.
    share = (0.96875 - 0.95) / (0.96875 - 0.78125)
    inward = 5 * share / (1 + 4 * share)
    assert median_ends(range(6)) == pytest.approx((inward, 5 - inward))
    assert median_ends([3, 5, 0, 4, 1, 2]) == pytest.approx((inward, 5 - inward))


@pytest.mark.parametrize("count", [*range(FEWEST, 40), 101, 2000])
def test_it_lies_between_the_ranks_that_hold_the_median_more_and_less_often(
    count: int,
) -> None:
    low, high = median_ends(np.arange(count))
    outer, inner = int(low), int(low) + 1
    # Ranks from zero: so many values or fewer lie below the median.
    assert 1 - 2 * stats.binom.cdf(outer, count, 0.5) >= LEVEL
    assert 1 - 2 * stats.binom.cdf(inner, count, 0.5) < LEVEL
    assert low + high == pytest.approx(count - 1)
    assert low <= (count - 1) / 2


@pytest.mark.parametrize("count", range(1, FEWEST))
def test_of_fewer_values_it_is_their_range(count: int) -> None:
    assert median_ends(np.arange(count)[::-1]) == (0, count - 1)


@pytest.mark.parametrize("count", [FEWEST, 9, 12, 24])
@pytest.mark.parametrize("heavy", [False, True])
def test_it_holds_the_median_of_turns_in_95_of_100_cases(
    count: int, heavy: bool
) -> None:
    rng = np.random.default_rng(count)
    cases, hits = 1500, 0
    for _ in range(cases):
        drawn = rng.standard_t(2, count) if heavy else rng.normal(0, 1, count)
        readings = rng.normal(0, 0.02, (count, 3))
        found = median_interval(np.exp(0.1 * drawn[:, None] + readings).tolist())
        hits += found.low <= 1 <= found.high
    # Three standard errors of a share of 0.95 over 1500 cases are 0.017.
    assert 0.93 <= hits / cases <= 0.97


def test_a_ratio_leaves_alone_what_slows_a_round() -> None:
    drift = np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.1, 24)))
    found = ratio_interval((1.1 * drift).tolist(), drift.tolist())
    assert found.median == pytest.approx(1.1)
    assert found.width < 1e-12
