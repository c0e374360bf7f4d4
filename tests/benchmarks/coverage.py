"""How often do the intervals of simulated sessions hold the truth?

`python -m tests.benchmarks.coverage` prints two tables. In the first, the number of
rounds is given. In the second, rows stop as those of a session do, when their interval
is narrow or the time is over. The logarithms of turns have a known median, one of
several shapes, and follow each other more or less: in an autoregressive process (AR)
each keeps a share of the one before, and `drift` is half noise of single rounds and
half AR 0.95. `shown` is the share of rows that are marked `correlated`; `independent`
is the share of rows whose interval is the one for independent rounds.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import special, stats

from harness.intervals import MedianInterval, median_ends, median_interval
from harness.run.engine.turns import time_in_turns
from harness.run.job import Answer
from harness.trial import SpeedSettings, Trial

Draw = Callable[[np.random.Generator, int], np.ndarray]
"""Draws so many normal values of consecutive rounds."""

Shape = Callable[[np.ndarray], np.ndarray]
"""Turns normal values into values of another distribution, whose median is 0."""

CASES = 2000
COUNTS = (6, 8, 12, 15, 24, 48, 120)
MOST_ROUNDS = 300
"""The time of a simulated session is over after so many rounds."""


def autoregressive(rng: np.random.Generator, count: int, share: float) -> np.ndarray:
    """Draw standard normal values, each of which keeps a share of the one before."""
    values = rng.standard_normal(count)
    for index in range(1, count):
        values[index] *= math.sqrt(1 - share**2)
        values[index] += share * values[index - 1]
    return values


def drifting(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw values that are half noise of single rounds and half a slow change."""
    slow = autoregressive(rng, count, 0.95)
    return np.asarray((rng.standard_normal(count) + slow) / math.sqrt(2))


def heavy(normal: np.ndarray) -> np.ndarray:
    """Return values of a t-distribution with two degrees of freedom."""
    return np.asarray(stats.t.ppf(special.ndtr(normal), 2))


def two_modes(normal: np.ndarray) -> np.ndarray:
    """Return 55 % values near 0 and the others near 10, with the median at 0."""
    shares = special.ndtr(normal)
    low = special.ndtri(np.minimum(shares / 0.55, 1 - 1e-12))
    high = special.ndtri(np.maximum((shares - 0.55) / 0.45, 1e-12))
    middle = special.ndtri(0.5 / 0.55)
    return np.where(shares < 0.55, 0.1 * (low - middle), 10 + 0.1 * high)


ROUNDS: dict[str, Draw] = {
    "independent": lambda rng, count: rng.standard_normal(count),
    "AR 0.5": partial(autoregressive, share=0.5),
    "AR 0.8": partial(autoregressive, share=0.8),
    "drift": drifting,
}
SHAPES: dict[str, Shape] = {
    "normal": lambda normal: normal,
    "heavy tails": heavy,
    "two modes 55:45": two_modes,
}


@dataclass
class Tally:
    """What was found over many sessions, one interval each."""

    held: int = 0
    shown: int = 0
    independent: int = 0
    wider: float = 0.0
    count: int = 0

    def add(self, turns: Sequence[float]) -> MedianInterval:
        """Count the interval of a session whose true median is 1."""
        found = median_interval([[turn] for turn in turns])
        low, high = median_ends(turns)
        assert found.worth is not None
        self.count += 1
        self.held += found.low <= 1 <= found.high
        self.shown += found.worth.too_little
        self.independent += found.worth.inflation == 1
        self.wider += (found.high - found.low) / (high - low)
        return found

    @property
    def rate(self) -> float:
        """The share of sessions whose interval holds the truth."""
        return self.held / self.count

    def words(self) -> str:
        """Return everything, as shares."""
        wider = self.wider / self.count
        independent, shown = self.independent / self.count, self.shown / self.count
        return (
            f"holds the truth in {self.rate:.1%}, {wider:.2f} times as wide as of "
            f"independent rounds, {independent:.0%} independent, {shown:.0%} shown"
        )


def fixed(shape: Shape, draw: Draw, count: int, cases: int, seed: int = 0) -> Tally:
    """Return what is found in sessions with a given number of rounds."""
    rng, tally = np.random.default_rng([seed, count]), Tally()
    for _ in range(cases):
        tally.add(np.exp(0.02 * shape(draw(rng, count))).tolist())
    return tally


class Row:
    """A meter with random turns, which ends after `MOST_ROUNDS`."""

    def __init__(self, trial: Trial, turns: np.ndarray) -> None:
        self.trial, self.drawn = trial, turns
        self.times: list[float] = []

    def ask(
        self, command: str, phase: str | None = None, number: int = 0
    ) -> Answer | tuple[object, ...]:
        """Answer as a worker does."""
        if command == "open":
            return ("forward",)
        if command == "warm":
            return ()
        if command == "close" or len(self.times) == len(self.drawn):
            return Answer("ok", None)
        self.times.append(float(self.drawn[len(self.times)]))
        return (self.times[-1],)

    def is_final(self, answer: Answer) -> bool:
        """Say that every answer is."""
        return True


def stopping(spread: float, draw: Draw, cases: int) -> tuple[Tally, float]:
    """Return what is found in rows that stop when narrow, and their median rounds."""
    rng, tally, rounds = np.random.default_rng(0), Tally(), []
    settings = SpeedSettings(time_budget_s=1e9)
    trial = Trial("speed", "drawn", "gru", settings=settings)
    for _ in range(cases):
        row = Row(trial, np.exp(spread * draw(rng, MOST_ROUNDS)))
        time_in_turns({"row": row}, lambda *_: None)
        tally.add(row.times)
        rounds.append(len(row.times))
    return tally, float(np.median(rounds))


def main() -> None:
    """Print both tables."""
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else CASES
    for shape, of_shape in SHAPES.items():
        for name, draw in ROUNDS.items():
            for count in COUNTS:
                found = fixed(of_shape, draw, count, cases)
                print(f"{shape}, {name}, {count} rounds: {found.words()}")
    for name, draw in ROUNDS.items():
        for spread in (0.01, 0.02, 0.05):
            found, rounds = stopping(spread, draw, cases // 4)
            print(
                f"stops when narrow, {name}, turns scatter by {spread:.0%}: "
                f"{rounds:.0f} rounds, {found.words()}"
            )


if __name__ == "__main__":
    main()
