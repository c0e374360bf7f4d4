"""Medians, proportions and censored times, each with how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from harness.intervals import FEWEST, LEVEL, median_depth


@dataclass(frozen=True)
class Interval:
    """The two ends of an interval, in the unit of what it encloses."""

    low: float
    high: float


def proportion_interval(
    successes: int, trials: int, *, level: float = LEVEL
) -> Interval:
    """Return Wilson's interval of a proportion, such as the solved fraction.

    Raises:
        ValueError: If there is no trial or there are more successes than trials.
    """
    test = stats.binomtest(successes, trials)
    found = test.proportion_ci(confidence_level=level, method="wilson")
    return Interval(float(found.low), float(found.high))


Spread = Literal["single", "range", "interval"]


@dataclass(frozen=True)
class CensoredMedian:
    """The median of values of which some are only known to exceed the budget.

    Attributes:
        median: None where it lies beyond the budget: half or more are censored.
        low: Lower end of the spread; None beyond the budget.
        high: Upper end of the spread; None beyond the budget.
        spread: What `low` and `high` are: `single` for one value, `range` the
            smallest and largest of a few, `interval` a 95 % interval of the median.
        solved: Number of values that are known.
        count: Number of values.
    """

    median: float | None
    low: float | None
    high: float | None
    spread: Spread
    budget: float
    solved: int
    count: int


def censored_median(values: Sequence[float | None], budget: float) -> CensoredMedian:
    """Return the median of values, None standing for "more than the budget".

    The median of an even count is the mean of its middle two, and beyond the budget
    when either is. From six values on the spread is the order-statistic interval of
    the median, below that the range.

    Raises:
        ValueError: If there is no value.
    """
    if not values:
        raise ValueError("a median needs at least one value")
    ordered = sorted(math.inf if value is None else float(value) for value in values)
    first, last = order_ranks(len(ordered))
    spread: Spread = "interval"
    if len(ordered) < FEWEST:
        spread = "single" if len(ordered) == 1 else "range"
    return CensoredMedian(
        median=_known(float(np.median(ordered))),
        low=_known(ordered[first]),
        high=_known(ordered[last]),
        spread=spread,
        budget=budget,
        solved=sum(math.isfinite(value) for value in ordered),
        count=len(ordered),
    )


def order_ranks(count: int) -> tuple[int, int]:
    """Return which of `count` sorted values enclose the median, from zero."""
    depth, _ = median_depth(count)
    return depth - 1, count - depth


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
