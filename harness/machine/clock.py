"""How long a call takes: warm-up, readings, and a check of the clock."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

READING_S = 3e-3
"""One reading lasts at least this long: far above the clock's resolution, and long
enough to fill the caches again in the first reading of a turn, which is dropped."""

MOST_PIECES = 32
"""Most calls of a reading that are timed one by one, which costs some 80 ns a call."""

WARM_UP_S = 2.0
"""A warm-up stops after this; if calls still get faster, the timing is shaky."""


def reading_s(call: Callable[[], None], loops: int) -> float:
    """Return the seconds one call takes, as the mean over `loops` calls in a row."""
    start = time.perf_counter()
    for _ in range(loops):
        call()
    return (time.perf_counter() - start) / loops


@dataclass(frozen=True)
class Reading:
    """A reading and its pieces.

    Attributes:
        call_s: Mean over all calls, from the whole time.
        pieces: Calls and seconds of each piece [pieces, 2]. Each of the first calls is
            a piece; the other calls together are the last piece.
    """

    call_s: float
    pieces: np.ndarray


def reading(call: Callable[[], None], loops: int) -> Reading:
    """Take a reading in pieces, so that work shows that only some of the calls do.

    The clock is read at most `MOST_PIECES` times more, which takes a thousandth of a
    reading.
    """
    clock = time.perf_counter
    alone = min(loops, MOST_PIECES)
    calls = [1] * alone + [loops - alone] * (loops > alone)
    marks = [0.0] * (1 + len(calls))
    marks[0] = clock()
    for index in range(1, 1 + alone):
        call()
        marks[index] = clock()
    for _ in range(loops - alone):
        call()
    marks[-1] = clock() if loops > alone else marks[-1]
    pieces = np.column_stack([calls, np.diff(marks)])
    return Reading((marks[-1] - marks[0]) / loops, pieces)


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
    """The first call, the fastest later one, and whether calls stopped speeding up."""

    first_call_s: float
    call_s: float
    stationary: bool


def warm_up(call: Callable[[], None]) -> WarmUp:
    """Call until the last three calls are no faster than those before, within 5 %.

    If that does not happen in time, the last half of the calls is compared with the
    first half.
    """
    first = reading_s(call, 1)
    seen: list[float] = []
    deadline = time.perf_counter() + WARM_UP_S
    while time.perf_counter() < deadline or len(seen) < 3:
        seen.append(reading_s(call, 1))
        if len(seen) >= 6 and min(seen[-3:]) > 0.95 * min(seen[:-3]):
            return WarmUp(first, min(seen), True)
    half = len(seen) // 2
    return WarmUp(first, min(seen), min(seen[half:]) > 0.95 * min(seen[:half]))


def loops_for(call_s: float) -> int:
    """Return how many calls make one reading of at least `READING_S`."""
    return max(1, math.ceil(READING_S / max(call_s, 1e-9)))


class ClockCheck:
    """Detects a clock that steps or runs at another rate between two comparisons.

    The clock of readings is compared with the system's raw clock, which is never
    adjusted. Without a raw clock nothing is detected.

    Attributes:
        wrong: Whether that has been detected.
    """

    def __init__(self) -> None:
        self.wrong = False
        self._seen = self._look()

    def look(self) -> None:
        """Compare the time since the last call; set `wrong` if the clocks differ.

        If the clocks cannot be read at one moment, the next call compares instead.
        """
        before, now = self._seen, self._look()
        if now is not None:
            self._seen = now
        if before is None or now is None:
            return
        passed, raw = (b - a for a, b in zip(before, now, strict=True))
        self.wrong |= abs(passed - raw) > _CLOCK_SLACK_S + _CLOCK_RATE * raw

    def _look(self) -> tuple[float, float] | None:
        """Read both clocks at one moment; None if the process was interrupted."""
        raw = getattr(time, "CLOCK_MONOTONIC_RAW", None)
        if raw is None:
            return None
        for _ in range(_LOOKS):
            before_s = time.perf_counter()
            raw_s = time.clock_gettime(raw)
            after_s = time.perf_counter()
            # A clock that went backwards meanwhile has stepped, and is compared too.
            if after_s - before_s < _AT_ONCE_S:
                return before_s, raw_s
        return None


_AT_ONCE_S = 5e-5
"""Reading clocks three times takes less than this unless the process is interrupted."""

_LOOKS = 20

_CLOCK_SLACK_S = 1e-3
"""Several times the error of two comparisons."""

_CLOCK_RATE = 2e-3
"""The system adjusts a clock's rate by at most 500 millionths (adjtimex)."""
