"""How much slower: ratios of two timings whose turns were taken in the same rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from harness.analysis.statistics import LEVEL, SMALLEST_FOR_INTERVAL, Interval

Turns = Mapping[int, Sequence[float]]
"""Readings in seconds by the round of the session they were taken in."""

FEWEST_ROUNDS = SMALLEST_FOR_INTERVAL

RESAMPLES = 2000


def paired_median(base_turns: Turns, new_turns: Turns) -> float | None:
    """Return the median over common rounds of new / base, or None without a round."""
    ratios = _ratios(base_turns, new_turns)
    return float(np.median(ratios)) if len(ratios) else None


def paired_ratio(base_turns: Turns, new_turns: Turns) -> Interval | None:
    """Return the 95 % interval of the median over rounds of new / base.

    What slows the machine for a whole round slows both turns of it and leaves their
    ratio alone, so rounds are resampled, never single readings (percentile bootstrap,
    fixed seed). None with fewer rounds in common than can enclose their median.
    """
    ratios = _ratios(base_turns, new_turns)
    if len(ratios) < FEWEST_ROUNDS:
        return None
    drawn = np.random.default_rng(0).choice(ratios, (RESAMPLES, len(ratios)))
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.quantile(np.median(drawn, axis=1), ends)
    return Interval(float(low), float(high))


def unpaired_ratio(base: Interval, new: Interval) -> Interval:
    """Return what new / base may be when each lies anywhere in its own interval."""
    return Interval(new.low / base.high, new.high / base.low)


def _ratios(base_turns: Turns, new_turns: Turns) -> npt.NDArray[np.float64]:
    rounds = [n for n in base_turns if base_turns[n] and new_turns.get(n)]
    return np.array(
        [float(np.median(new_turns[n]) / np.median(base_turns[n])) for n in rounds]
    )
