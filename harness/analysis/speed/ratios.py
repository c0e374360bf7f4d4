"""How much slower: ratios of two timings whose turns were taken in the same rounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from harness.intervals import FEWEST, Interval, ratio_interval

Turns = Mapping[int, Sequence[float]]
"""Readings in seconds by the round of the session they were taken in."""


def paired_median(base_turns: Turns, new_turns: Turns) -> float | None:
    """Return the median over common rounds of new / base, or None without a round."""
    ratios = [new / base for base, new in _common(base_turns, new_turns)]
    return float(np.median(ratios)) if ratios else None


def paired_ratio(base_turns: Turns, new_turns: Turns) -> Interval | None:
    """Return the 95 % interval of the median over rounds of new / base.

    What slows the machine for a whole round slows both turns of it and leaves their
    ratio alone, so rounds count, never single readings. None with fewer
    rounds in common than can enclose their median.
    """
    times = _common(base_turns, new_turns)
    if len(times) < FEWEST:
        return None
    found = ratio_interval([new for _, new in times], [base for base, _ in times])
    return Interval(found.low, found.high)


def unpaired_ratio(base: Interval, new: Interval) -> Interval:
    """Return what new / base may be when each lies anywhere in its own interval."""
    return Interval(new.low / base.high, new.high / base.low)


def by_round(
    samples: Iterable[float | None], rounds: Iterable[float | None]
) -> dict[int, list[float]]:
    """Return readings by their round; without either there is none."""
    found: dict[int, list[float]] = {}
    for sample, of_round in zip(samples, rounds, strict=False):
        if sample is not None and of_round is not None:
            found.setdefault(int(of_round), []).append(sample)
    return found


def _common(base_turns: Turns, new_turns: Turns) -> list[tuple[float, float]]:
    """Return the medians of both in each round that both have."""
    return [
        (float(np.median(base_turns[n])), float(np.median(new_turns[n])))
        for n in base_turns
        if base_turns[n] and new_turns.get(n)
    ]
