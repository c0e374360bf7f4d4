"""What a user of single time steps waits, and how surely that is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from harness.analysis.statistics import Interval
from harness.intervals import FEWEST, LEVEL

SHARES = (0.50, 0.95, 0.99)

_RESAMPLES = 1000


@dataclass(frozen=True)
class Latency:
    """Percentiles in seconds, with their 95 % intervals.

    Attributes:
        few: Whether the latencies are too few to enclose p99.
    """

    p50_s: float
    p95_s: float | None
    p99_s: float | None
    p50: Interval | None = None
    p95: Interval | None = None
    p99: Interval | None = None
    few: bool = False


def fewest(share: float) -> int:
    """Return how many values can enclose a percentile: one is above it at `LEVEL`."""
    return math.ceil(math.log((1 - LEVEL) / 2) / math.log(share))


def latency(
    found: Sequence[float | None], sample: Sequence[float], turns: int
) -> Latency | None:
    """Return percentiles with intervals; None where there is no p50.

    Args:
        found: The percentiles of `SHARES`, of every latency.
        sample: Latencies in order, evenly from all turns.
        turns: In how many turns they were taken, of equal length.
    """
    middle, p95_s, p99_s = found
    if middle is None:
        return None
    p50, p95, p99 = _intervals(found, sample, turns)
    few = 0 < len(sample) < fewest(SHARES[-1])
    return Latency(middle, p95_s, p99_s, p50, p95, p99, few)


def _intervals(
    found: Sequence[float | None], sample: Sequence[float], turns: int
) -> list[Interval | None]:
    """Resample turns, not latencies: neighbours see the same state of the machine.

    Few turns resampled scatter less than turns do: the ends are moved out by what a
    t-distribution asks for more than a normal one.
    """
    if turns < FEWEST or len(sample) < turns:
        return [None] * len(found)
    values = np.asarray(sample, np.float64)
    order = np.argsort(values)
    turn_of = np.repeat(
        np.arange(turns), [len(t) for t in np.array_split(values, turns)]
    )
    rng = np.random.default_rng(0)
    picked = rng.multinomial(turns, [1 / turns] * turns, size=_RESAMPLES)
    picked = picked.astype(np.int32)
    # How often each latency is drawn, from the shortest up.
    below = np.cumsum(picked[:, turn_of[order]], axis=1, dtype=np.int32)
    upper = (1 + LEVEL) / 2
    wider = float(stats.t.ppf(upper, turns - 1) / stats.norm.ppf(upper))
    wider *= math.sqrt(turns / (turns - 1))
    return [
        None
        if value is None or len(values) < fewest(share)
        else _interval(value, values[order], below, share, wider)
        for value, share in zip(found, SHARES, strict=True)
    ]


def _interval(
    value: float,
    ordered: npt.NDArray[np.float64],
    below: npt.NDArray[np.int32],
    share: float,
    wider: float,
) -> Interval:
    at = np.argmax(below >= share * below[:, -1:], axis=1)
    ends = np.quantile(ordered[at], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    # The percentile is of every latency, the sample of some.
    low, high = min(float(ends[0]), value), max(float(ends[1]), value)
    return Interval(value * (low / value) ** wider, value * (high / value) ** wider)
