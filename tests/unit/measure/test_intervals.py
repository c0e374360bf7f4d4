"""Intervals enclose the truth as often as they claim.

They are compared with closed forms, simulations and another library's binomial.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.intervals import (
    FEWEST,
    LEVEL,
    Worth,
    censored_median,
    median,
    median_ends,
    median_interval,
    order_ranks,
    proportion_interval,
    quantiles,
    ratio_interval,
    worth_of,
)
from tests.benchmarks import coverage


@pytest.mark.parametrize("count", [1, 2, 7, 4000])
def test_medians_and_quantiles_are_those_of_numpy_to_the_last_digit(count: int) -> None:
    # Stored results were computed with these calls.
    values = np.random.default_rng(count).lognormal(-7, 1, (count, 3))
    for column in values.T:
        assert median(column) == median(column.tolist()) == float(np.median(column))
        found = quantiles(column, 0.5, 0.95, 0.99).tolist()
        assert found == [float(np.percentile(column, p)) for p in (50, 95, 99)]
    rows = quantiles(values, 0.5, 0.1, 0.9, axis=1)
    assert np.array_equal(rows, np.quantile(values, [0.5, 0.1, 0.9], axis=1))


def test_the_interval_of_six_values_lies_just_inside_of_all() -> None:
    # All six enclose the median 96.9 times in 100, the inner four 78.1 times.
    share = (0.96875 - 0.95) / (0.96875 - 0.78125)
    inward = 5 * share / (1 + 4 * share)
    assert median_ends(range(6)) == pytest.approx((inward, 5 - inward))
    assert median_ends([3, 5, 0, 4, 1, 2]) == pytest.approx((inward, 5 - inward))


@pytest.mark.parametrize("count", [*range(FEWEST, 40), 101, 2000])
def test_the_interval_lies_between_the_ranks_that_enclose_its_level(
    count: int,
) -> None:
    low, high = median_ends(np.arange(count))
    outer, inner = int(low), int(low) + 1
    # Ranks count from zero: at most so many values lie below the median.
    assert 1 - 2 * stats.binom.cdf(outer, count, 0.5) >= LEVEL
    assert 1 - 2 * stats.binom.cdf(inner, count, 0.5) < LEVEL
    assert low + high == pytest.approx(count - 1)
    assert low <= (count - 1) / 2


@pytest.mark.parametrize("count", range(1, FEWEST))
def test_the_interval_of_fewer_values_is_their_range(count: int) -> None:
    assert median_ends(np.arange(count)[::-1]) == (0, count - 1)


@pytest.mark.parametrize("count", [FEWEST, 9, 12, 24])
@pytest.mark.parametrize("heavy", [False, True])
def test_the_interval_holds_the_median_of_turns_in_95_of_100_cases(
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


@pytest.mark.parametrize(
    ("rounds", "count", "least"),
    [
        ("AR 0.5", 12, 0.88),
        ("AR 0.5", 24, 0.93),
        ("AR 0.8", 12, 0.85),
        ("AR 0.8", 24, 0.91),
        ("AR 0.8", 60, 0.93),
        ("drift", 120, 0.86),
    ],
)
@pytest.mark.parametrize("shape", ["normal", "heavy tails"])
def test_the_interval_of_rounds_that_follow_each_other_holds_the_median(
    rounds: str, count: int, least: float, shape: str
) -> None:
    """Taken as independent, they hold it in 41 to 80 of 100 cases."""
    found = coverage.fixed(
        coverage.SHAPES[shape], coverage.ROUNDS[rounds], count, cases=600
    )
    # Three standard errors of a share of 0.9 over 600 cases are 0.037.
    assert found.rate >= least


@pytest.mark.parametrize("count", [12, 24, 60])
def test_the_interval_of_independent_rounds_is_not_needlessly_wide(count: int) -> None:
    draw = coverage.ROUNDS["independent"]
    found = coverage.fixed(coverage.SHAPES["normal"], draw, count, cases=600)
    assert found.independent / found.count >= 0.65
    assert found.shown / found.count <= 0.05
    assert found.wider / found.count <= 1.75 if count < 15 else 1.45


def test_the_worth_of_rounds_is_that_of_blocks_where_they_repeat() -> None:
    values = np.random.default_rng(0).normal(size=40)
    assert worth_of(np.repeat(values, 8)).count < 320 / 4
    assert worth_of(values.repeat(8)).shown
    assert worth_of([2.0] * 12) == Worth(12, 12)
    assert worth_of(values[:5]).count == 5
    alternating = np.resize([1.0, 2.0], 30)
    assert worth_of(alternating).count == 30, "more than independent is not claimed"


def test_a_time_stays_above_zero_however_far_its_interval_extends() -> None:
    rising = [10.0**n for n in range(12)]
    found = median_interval([[each] for each in rising])
    assert found.worth is not None
    assert found.worth.too_little
    assert 0 < found.low < 1
    assert found.high > 1e11


def test_a_slow_round_does_not_change_the_ratio() -> None:
    drift = np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.1, 24)))
    found = ratio_interval((1.1 * drift).tolist(), drift.tolist())
    assert found.median == pytest.approx(1.1)
    assert found.width < 1e-12


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_the_proportion_interval_covers_the_share_in_95_percent(share: float) -> None:
    rng = np.random.default_rng(2)
    counts = rng.binomial(20, share, size=2000)
    intervals = {n: proportion_interval(n, 20) for n in range(21)}
    covered = sum(intervals[n].low <= share <= intervals[n].high for n in counts)
    # Counts are whole, so Wilson's coverage swings around 95 % by about 3 %.
    assert 0.92 <= covered / 2000 <= 0.985


def test_the_proportion_interval_of_three_of_three_is_that_of_wilson() -> None:
    # n / (n + z²) for all successes, z = 1.95996.
    assert proportion_interval(3, 3).low == pytest.approx(3 / (3 + 1.95996**2), 1e-4)
    assert proportion_interval(3, 3).high == pytest.approx(1.0)


@pytest.mark.parametrize("count", [6, 9, 20])
def test_the_order_statistic_interval_covers_the_median_in_at_least_95_percent(
    count: int,
) -> None:
    rng = np.random.default_rng(4)
    first, last = order_ranks(count)
    values = np.sort(rng.exponential(size=(4000, count)), axis=1)
    middle = np.log(2)
    covered = ((values[:, first] <= middle) & (middle <= values[:, last])).mean()
    # Two standard errors of 4000 trials are 0.7 %.
    assert covered >= 0.943
    if first + 1 < last - 1:
        inner = (values[:, first + 1] <= middle) & (middle <= values[:, last - 1])
        assert inner.mean() < 0.95, "a shorter interval would do"


def test_the_censored_median_of_solved_seeds_is_their_median_with_their_range() -> None:
    found = censored_median([1200, 800, 1000], 3000)
    assert (found.median, found.low, found.high) == (1000, 800, 1200)
    assert (found.spread, found.solved, found.count) == ("range", 3, 3)


def test_the_censored_median_is_exact_if_solved_seeds_decide_it() -> None:
    found = censored_median([1700, None, 1600], 3000)
    assert (found.median, found.low, found.high) == (1700, 1600, None)


@pytest.mark.parametrize(
    "values", [[None], [None, None, 900], [800, None], [700, 800, None, None]]
)
def test_the_censored_median_is_beyond_the_budget_if_half_of_the_seeds_are(
    values: list[float | None],
) -> None:
    found = censored_median(values, 3000)
    assert found.median is None
    assert found.high is None
    assert found.limit == 3000


def test_six_seeds_get_an_interval_and_five_a_range() -> None:
    assert censored_median([1, 2, 3, 4, 5], 9).spread == "range"
    found = censored_median([1, 2, 3, 4, 5, 6], 9)
    assert (found.spread, found.low, found.high) == ("interval", 1, 6)
    assert censored_median([1], 9).spread == "single"


def test_the_interval_of_nine_seeds_leaves_out_the_outermost() -> None:
    # 2 · P(binomial(9, 1/2) ≤ 1) = 0.039 ≤ 0.05 < 2 · P(… ≤ 2) = 0.18
    assert order_ranks(9) == (1, 7)


def test_a_median_needs_a_value() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        censored_median([], 3000)
