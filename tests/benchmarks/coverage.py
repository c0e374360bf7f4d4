"""How often does the interval of a row that stops when it is narrow hold the truth?

`python -m tests.benchmarks.coverage` simulates rows whose turns have a known spread
around a known median, and stops them as a session does.
"""

from __future__ import annotations

import math

import numpy as np

from harness.intervals import median_interval, proportion_interval
from harness.run.engine.turns import time_in_turns
from harness.run.job import Answer
from harness.trial import SpeedSettings, Trial

ROWS = 400


class _Row:
    """A meter with random turns."""

    def __init__(self, trial: Trial, spread: float, rng: np.random.Generator) -> None:
        self.trial, self.spread, self.rng = trial, spread, rng
        self.times: list[float] = []

    def ask(
        self, command: str, phase: str | None = None, number: int = 0
    ) -> Answer | tuple[object, ...]:
        if command == "open":
            return ("forward",)
        if command == "warm":
            return ()
        if command == "close":
            return Answer("ok", None)
        self.times.append(math.exp(self.rng.normal(0, self.spread)))
        return (self.times[-1],)

    def is_final(self, answer: Answer) -> bool:
        return True


def main() -> None:
    """Print the share of intervals that hold the truth, by spread."""
    rng = np.random.default_rng(0)
    settings = SpeedSettings(time_budget_s=1e9)
    trial = Trial("speed", "drawn", "gru", settings=settings)
    for spread in (0.01, 0.02, 0.05):
        held, turns = 0, []
        for _ in range(ROWS):
            row = _Row(trial, spread, rng)
            time_in_turns({"row": row}, lambda *_: None)
            found = median_interval([[time] for time in row.times])
            held += found.low <= 1 <= found.high
            turns.append(len(row.times))
        share = proportion_interval(held, ROWS)
        print(
            f"turns scatter by {spread:.0%}: {np.median(turns):.0f} turns, the truth "
            f"held in {held / ROWS:.1%} [{share.low:.1%}, {share.high:.1%}]"
        )


if __name__ == "__main__":
    main()
