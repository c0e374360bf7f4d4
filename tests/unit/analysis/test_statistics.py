"""Intervals enclose what they claim to, as often as they claim to."""

import numpy as np
import pytest

from harness.analysis.statistics import (
    censored_median,
    order_ranks,
    proportion_interval,
)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_proportion_interval_covers_the_share_in_95_percent(share: float) -> None:
    rng = np.random.default_rng(2)
    counts = rng.binomial(20, share, size=2000)
    intervals = {n: proportion_interval(n, 20) for n in range(21)}
    covered = sum(intervals[n].low <= share <= intervals[n].high for n in counts)
    # Counts are whole, so Wilson's coverage swings around 95 % by about 3 %.
    assert 0.92 <= covered / 2000 <= 0.985


def test_proportion_interval_of_three_of_three_is_wilsons() -> None:
    # n / (n + z²) for all successes, z = 1.95996.
    assert proportion_interval(3, 3).low == pytest.approx(3 / (3 + 1.95996**2), 1e-4)
    assert proportion_interval(3, 3).high == pytest.approx(1.0)


@pytest.mark.parametrize("count", [6, 9, 20])
def test_order_statistic_interval_covers_the_median_at_least_95_percent(
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


def test_censored_median_of_solved_seeds_is_their_median_with_their_range() -> None:
    found = censored_median([1200, 800, 1000], 3000)
    assert (found.median, found.low, found.high) == (1000, 800, 1200)
    assert (found.spread, found.solved, found.count) == ("range", 3, 3)


def test_censored_median_keeps_the_median_that_the_solved_seeds_decide() -> None:
    found = censored_median([1700, None, 1600], 3000)
    assert (found.median, found.low, found.high) == (1700, 1600, None)


@pytest.mark.parametrize(
    "values", [[None], [None, None, 900], [800, None], [700, 800, None, None]]
)
def test_censored_median_is_beyond_the_budget_where_half_are(
    values: list[float | None],
) -> None:
    found = censored_median(values, 3000)
    assert found.median is None
    assert found.high is None
    assert found.budget == 3000


def test_six_seeds_get_an_interval_and_five_a_range() -> None:
    assert censored_median([1, 2, 3, 4, 5], 9).spread == "range"
    found = censored_median([1, 2, 3, 4, 5, 6], 9)
    assert (found.spread, found.low, found.high) == ("interval", 1, 6)
    assert censored_median([1], 9).spread == "single"


def test_nine_seeds_leave_out_the_outermost() -> None:
    # 2 · P(binomial(9, 1/2) ≤ 1) = 0.039 ≤ 0.05 < 2 · P(… ≤ 2) = 0.18
    assert order_ranks(9) == (1, 7)


def test_a_median_needs_a_value() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        censored_median([], 3000)
