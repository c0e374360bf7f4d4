"""How surely a number is known: every interval, and what it is made from.

An interval is made to hold the true value as often as `LEVEL` says. How often it does
in simulations is printed by `python -m tests.benchmarks.coverage`, and is in
docs/speed.md.

- A median lies between order statistics. The interval is interpolated between the pair
  that holds the median more often than `LEVEL` and the pair that holds it less often,
  after Hettmansperger and Sheather (1986, Statistics & Probability Letters).
- Values of consecutive rounds may follow each other. Their interval is that of as many
  independent values as they are worth: see `worth_of`.
- A proportion has Wilson's interval.
- A percentile of latencies, and a ratio of two sessions, are resampled (bootstrap).

Workers import this module, so scipy is imported inside the functions that need it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Values = Sequence[float] | npt.NDArray[np.floating]

LEVEL = 0.95

FEWEST = 6
"""Fewer values than this cannot enclose their median with 95 %: 2 · 0.5^5 > 0.05."""

_ENDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)

_PERCENTILE_RESAMPLES = 1000

_SUSPECTED, _SHOWN = 0.20, 0.025
"""One-sided levels at which an autocorrelation counts: that of single rounds widens an
interval where it is suspected, since twelve rounds show even a strong one seldom. It
makes a timing doubtful only where it is shown."""

_SUSPECTED_OF_BLOCKS = 0.05
"""The level for blocks of rounds: there are several sizes, and each may be chance."""

_FEWEST_BLOCKS = 12

_STRONGEST = 0.95
"""No autocorrelation is taken as stronger than this: rounds would be worth nothing."""

_MOST_STRETCHED = 2.0
"""An interval extends at most to this many times the distance of the outermost value
from the median."""


@dataclass(frozen=True)
class Interval:
    """The two ends of an interval, in the unit of the value that it encloses."""

    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        """Whether some value lies in both."""
        return self.low <= other.high and other.low <= self.high

    def over(self, base: Interval) -> Interval:
        """Return the ratios to `base` if each value lies anywhere in its interval."""
        return Interval(self.low / base.high, self.high / base.low)


# --- medians -------------------------------------------------------------------------


@dataclass(frozen=True)
class MedianInterval:
    """A median with its interval; the range if there are fewer than `FEWEST` values.

    Attributes:
        worth: How many independent values its values are worth; None if not estimated.
    """

    median: float
    low: float
    high: float
    worth: Worth | None = None

    @property
    def width(self) -> float:
        """The width of the interval, as a share of the median."""
        return (self.high - self.low) / self.median if self.median else math.inf


def median(values: Values) -> float:
    """Return the median of at least one value."""
    return float(np.median(values))


def median_of(values: Sequence[float]) -> float | None:
    """Return the median of values, or None if there is none."""
    return median(values) if values else None


def quantiles(values: Values, *shares: float, axis: int | None = None) -> Floats:
    """Return the quantile of the values at each share, such as 0.95.

    Between two values they are interpolated. The quantile at 0.5 may differ from
    `median` in its last digit.
    """
    return np.asarray(np.quantile(values, shares, axis=axis), np.float64)


def median_interval(turns: Sequence[Sequence[float]]) -> MedianInterval:
    """Return the median over turns of the median of each turn, with its interval.

    Readings inside one turn see the same state of the machine, so the turns are
    counted, not the readings. The turns are in the order in which they were taken.
    """
    return _of_rounds([median(turn) for turn in turns])


def ratio_interval(times: Sequence[float], bases: Sequence[float]) -> MedianInterval:
    """Return the median over rounds of time / base, with its interval.

    Two turns of one round see nearly the same state of the machine, so a drift of the
    machine does not change their ratio. The rounds are in order.
    """
    return _of_rounds([time / base for time, base in zip(times, bases, strict=True)])


def _of_rounds(values: Sequence[float]) -> MedianInterval:
    worth = worth_of(values)
    middle, (low, high) = median(values), median_ends(values, worth.count)
    by = worth.stretch
    if by > 1 and low > 0:  # a time stays above zero
        low, high = middle * (low / middle) ** by, middle * (high / middle) ** by
    return MedianInterval(middle, low, high, worth)


def median_ends(
    values: npt.ArrayLike, worth: float | None = None
) -> tuple[float, float]:
    """Return the ends of the interval of a median.

    Args:
        values: In any order.
        worth: How many independent values they are worth, if fewer than they are.
    """
    ordered = np.sort(values)
    count = len(ordered)
    if worth is None or worth >= count:
        depth, inward = _median_depth(count)
    else:
        # As large a share of the values lies outside as of independent ones.
        place = _share_outside(worth) * (count - 1)
        depth, inward = 1 + int(place), place % 1
    ends = ordered[depth - 1], ordered[count - depth]
    if inward:
        ends = (
            (1 - inward) * ends[0] + inward * ordered[depth],
            (1 - inward) * ends[1] + inward * ordered[count - depth - 1],
        )
    return float(ends[0]), float(ends[1])


def _share_outside(count: float) -> float:
    """Return how far inside of all values the ends lie, as a share of the values."""

    def share(whole: int) -> float:
        depth, inward = _median_depth(whole)
        return (depth - 1 + inward) / max(whole - 1, 1)

    below = int(count)
    return share(below) + (count - below) * (share(below + 1) - share(below))


def order_ranks(count: int) -> tuple[int, int]:
    """Return which of `count` sorted values enclose the median, counted from zero."""
    depth, _ = _median_depth(count)
    return depth - 1, count - depth


@cache
def _median_depth(count: int) -> tuple[int, float]:
    """Return which sorted values from either end, and how far to the next inward.

    The number of values below the median is binomial(count, 1/2). The result is the
    innermost pair that encloses the median at least as often as `LEVEL`, or the
    outermost pair if none does.
    """
    if count < FEWEST:
        return 1, 0.0
    depth, holds = 1, 1 - 2 / 2**count
    outside, at_depth = 1, 1  # samples of 2^count with fewer than `depth` on one side
    while True:
        at_depth = at_depth * (count - depth + 1) // depth
        outside += at_depth
        # A pair beyond the middle encloses nothing.
        inner = max(0.0, (2**count - 2 * outside) / 2**count)
        if inner < LEVEL:
            break
        depth, holds = depth + 1, inner
    share = (holds - LEVEL) / (holds - inner)
    return depth, (count - depth) * share / (depth + (count - 2 * depth) * share)


# --- rounds that follow each other ---------------------------------------------------


@dataclass(frozen=True)
class Worth:
    """How many independent values the values of consecutive rounds are worth.

    Attributes:
        count: At most the number of the values.
        values: The number of the values.
        shown: Whether it is shown, not only suspected, that they follow each other.
    """

    count: float
    values: int
    shown: bool = False

    @property
    def too_little(self) -> bool:
        """Whether they are worth too few values to enclose a median."""
        return self.shown and self.count < FEWEST <= self.values

    @property
    def inflation(self) -> float:
        """How much wider the scatter of a median is than of independent values."""
        return math.sqrt(self.values / self.count)

    @property
    def stretch(self) -> float:
        """By how much an interval of too few values extends beyond all of them."""
        if self.values < FEWEST:
            return 1.0
        return min(max(FEWEST / self.count, 1.0), _MOST_STRETCHED)


def worth_of(values: npt.ArrayLike) -> Worth:
    """Estimate how many independent values those of consecutive rounds are worth.

    What slows a machine often lasts for several rounds. The estimate is that of a
    process in which each value follows the one before (AR 1), from the correlation of
    neighbours, or of neighbouring blocks of 2, 4, … rounds where that makes the values
    worth less: noise of single rounds hides a slow change, and blocks show it. Ranks
    are used, so that one slow round counts little. The correlation of neighbours in a
    short series is seen as too small, by (1 + 4 ρ) / n, which is corrected, and half of
    its standard error is added.
    """
    given = np.asarray(values, np.float64)
    count = len(given)
    if count < FEWEST:
        return Worth(count, count)
    scores = _normal_scores(given)
    single, shown = _autocorrelation(scores, _SUSPECTED, 0.5)
    inflation = _inflation(single, count, _of_signs)
    size, variance = 2, scores.var()
    while (blocks := count // size) >= _FEWEST_BLOCKS:
        kept = scores[-blocks * size :].reshape(blocks, size)
        means = np.asarray(kept.mean(axis=1), np.float64)
        of_blocks, surely = _autocorrelation(means, _SUSPECTED_OF_BLOCKS, 0.0)
        if of_blocks > 0:
            wider = max(float(size * means.var(ddof=1) / variance), 1.0)
            inflation = max(inflation, wider * _inflation(of_blocks, blocks))
            shown |= surely
        size *= 2
    return Worth(count / inflation, count, shown)


def _normal_scores(values: Floats) -> Floats:
    """Return the normal quantile of each value's rank; equal values share a rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    normal = NormalDist().inv_cdf
    shares = (ranks - 0.375) / (len(values) + 0.25)
    return np.array([normal(share) for share in shares.tolist()])


def _autocorrelation(
    series: Floats, level: float, errors_added: float
) -> tuple[float, bool]:
    """Return the correlation of neighbours, and whether it is shown at `_SHOWN`.

    It is 0 if it is not suspected at `level`.
    """
    count, centred = len(series), series - series.mean()
    squares = float((centred**2).sum())
    if squares <= 0:
        return 0.0, False
    seen = float((centred[1:] * centred[:-1]).sum()) / squares
    # Moments of the correlation over all orders of the values (Moran, 1948).
    z = (seen + 1 / count) * count * math.sqrt(count - 1) / (count - 2)
    if z <= NormalDist().inv_cdf(1 - level):
        return 0.0, False
    found = (count * seen + 1) / (count - 4)
    error = math.sqrt(max(1 - found**2, 0.05) / count) * count / (count - 4)
    strength = min(max(found + errors_added * error, 0.0), _STRONGEST)
    return strength, z > NormalDist().inv_cdf(1 - _SHOWN)


def _of_signs(of_values: Floats) -> Floats:
    """Return the correlation of the signs of two normal values, from that of these."""
    return np.asarray(2 / np.pi * np.arcsin(of_values), np.float64)


def _inflation(
    strength: float, count: int, of_lag: Callable[[Floats], Floats] = np.asarray
) -> float:
    """Return the variance of a mean over that of independent values, in an AR 1.

    Args:
        strength: The correlation of neighbours.
        count: Number of values.
        of_lag: The correlation of what is averaged, from that of the values.
    """
    lags = np.arange(1.0, count)
    of_lags = of_lag(np.asarray(strength**lags, np.float64))
    return 1 + 2 * float((of_lags * (1 - lags / count)).sum())


# --- medians of values beyond a limit ------------------------------------------------

Spread = Literal["single", "range", "interval"]


@dataclass(frozen=True)
class CensoredMedian:
    """The median of values of which some are only known to exceed the limit.

    Attributes:
        median: None if it exceeds the limit: half of the values or more do.
        low: Lower end of the spread; None if it exceeds the limit.
        high: Upper end of the spread; None if it exceeds the limit.
        spread: What `low` and `high` are: `single` for one value, `range` the
            smallest and largest of a few, `interval` a 95 % interval of the median.
        solved: Number of values that are known.
        count: Number of values.
    """

    median: float | None
    low: float | None
    high: float | None
    spread: Spread
    limit: float
    solved: int
    count: int

    @property
    def ends(self) -> Interval:
        """The spread; an end that exceeds the limit may lie anywhere above it."""
        return Interval(
            self.limit if self.low is None else self.low,
            math.inf if self.high is None else self.high,
        )


def censored_median(values: Sequence[float | None], limit: float) -> CensoredMedian:
    """Return the median of values, None meaning "more than the limit".

    The median of an even count is the mean of its middle two, and exceeds the limit if
    either does. The spread is the order-statistic interval of the median from
    `FEWEST` values on, and the range of fewer values.

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
        median=_known(median(ordered)),
        low=_known(ordered[first]),
        high=_known(ordered[last]),
        spread=spread,
        limit=limit,
        solved=sum(math.isfinite(value) for value in ordered),
        count=len(ordered),
    )


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


# --- proportions ---------------------------------------------------------------------


def proportion_interval(successes: int, trials: int) -> Interval:
    """Return Wilson's interval of a proportion, such as the solved fraction.

    Raises:
        ValueError: If there is no trial or there are more successes than trials.
    """
    from scipy import stats

    test = stats.binomtest(successes, trials)
    found = test.proportion_ci(LEVEL, method="wilson")
    return Interval(float(found.low), float(found.high))


# --- resampling ----------------------------------------------------------------------


def resampled_medians(
    values: Floats, rng: np.random.Generator, resamples: int
) -> Floats:
    """Return the medians of so many samples that are drawn from `values`."""
    drawn = rng.choice(values, (resamples, len(values)))
    return np.asarray(np.median(drawn, axis=1), np.float64)


def middle_interval(drawn: Floats) -> Interval:
    """Return the ends of the middle `LEVEL` of resampled values."""
    low, high = quantiles(drawn, *_ENDS)
    return Interval(float(low), float(high))


def fewest_to_enclose(share: float) -> int:
    """Return how many values enclose a percentile: one lies above it at `LEVEL`."""
    return math.ceil(math.log(_ENDS[0]) / math.log(share))


def percentile_intervals(
    percentiles: Sequence[tuple[float, float | None]],
    sample: Sequence[float],
    turns: int,
) -> list[Interval | None]:
    """Return the interval of each percentile; None if turns or values are too few.

    Whole turns are resampled, not values: neighbours see the same state of the machine.
    The medians of few turns scatter less when they are resampled than turns do, so the
    ends are moved outwards, by as much as a t-distribution is wider than a normal one.
    They are moved further where turns follow each other.

    Args:
        percentiles: Pairs (share, value); the value is of more values than the sample.
        sample: Values in order, the same number from each turn.
        turns: Number of turns.
    """
    if turns < FEWEST or len(sample) < turns:
        return [None] * len(percentiles)
    from scipy import stats

    values = np.asarray(sample, np.float64)
    order = np.argsort(values)
    sizes = [len(turn) for turn in np.array_split(values, turns)]
    turn_of = np.repeat(np.arange(turns), sizes)
    rng = np.random.default_rng(0)
    picked = rng.multinomial(turns, [1 / turns] * turns, size=_PERCENTILE_RESAMPLES)
    # How often each value is drawn, added up from the smallest on.
    below = np.cumsum(
        picked.astype(np.int32)[:, turn_of[order]], axis=1, dtype=np.int32
    )
    wider = float(stats.t.ppf(_ENDS[1], turns - 1) / stats.norm.ppf(_ENDS[1]))
    wider *= math.sqrt(turns / (turns - 1))
    medians = [median(turn) for turn in np.array_split(values, turns)]
    wider *= worth_of(medians).inflation
    found: list[Interval | None] = []
    for share, value in percentiles:
        if value is None or len(values) < fewest_to_enclose(share):
            found.append(None)
            continue
        at = np.argmax(below >= share * below[:, -1:], axis=1)
        ends = middle_interval(values[order][at])
        low, high = min(ends.low, value), max(ends.high, value)
        found.append(
            Interval(value * (low / value) ** wider, value * (high / value) ** wider)
        )
    return found
