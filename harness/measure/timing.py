"""Readings of a clock, and what may be said of their median."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

READING_S = 2e-3
"""One reading lasts at least this long: far above the clock's resolution."""

WARM_UP_S = 2.0
"""A warm-up that still gets faster after this is given up, and the row is shaky."""

SHAKY_WIDTH = 0.10
"""An interval wider than this share of its median is shaky."""

FEWEST_TURNS = 5


def reading_s(call: Callable[[], None], loops: int) -> float:
    """Return the seconds one call takes, as the mean over `loops` calls in a row."""
    start = time.perf_counter()
    for _ in range(loops):
        call()
    return (time.perf_counter() - start) / loops


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect no garbage inside the block."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass(frozen=True)
class WarmUp:
    """The first call, the settled call, and whether it did settle."""

    first_call_s: float
    call_s: float
    stationary: bool


def warm_up(call: Callable[[], None]) -> WarmUp:
    """Call until the last three calls are no faster than those before, within 5 %."""
    first = reading_s(call, 1)
    seen: list[float] = []
    deadline = time.perf_counter() + WARM_UP_S
    while time.perf_counter() < deadline or len(seen) < 3:
        seen.append(reading_s(call, 1))
        if len(seen) >= 6 and min(seen[-3:]) > 0.95 * min(seen[:-3]):
            return WarmUp(first, min(seen), True)
    return WarmUp(first, min(seen), False)


def loops_for(call_s: float) -> int:
    """Return how many calls make one reading of at least `READING_S`."""
    return max(1, math.ceil(READING_S / max(call_s, 1e-9)))


@dataclass(frozen=True)
class Interval:
    """A median with a 95 % bootstrap interval."""

    median: float
    low: float
    high: float
    shaky: bool


def median_interval(
    turns: Sequence[Sequence[float]], *, resamples: int = 2000
) -> Interval:
    """Return the median over turns of each turn's median, with its interval.

    Readings inside one turn see the same state of the machine, so turns, not readings,
    are resampled (percentile bootstrap, fixed seed).
    """
    medians = np.array([np.median(turn) for turn in turns])
    rng = np.random.default_rng(0)
    drawn = rng.choice(medians, (resamples, len(medians)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    middle = float(np.median(medians))
    wide = (high - low) > SHAKY_WIDTH * middle
    return Interval(
        middle, float(low), float(high), bool(wide or len(medians) < FEWEST_TURNS)
    )
