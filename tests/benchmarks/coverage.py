"""How often the interval of a row that stopped when it was narrow holds the truth.

`python -m tests.benchmarks.coverage` simulates rows whose turns scatter by a known
spread around a known median, and stops them as a session does.
"""

from __future__ import annotations

import math

import numpy as np

from harness.intervals import median_interval, proportion_interval
from harness.run.engine.session import time_in_turns
from harness.run.job import Answer
from harness.trial import SpeedSettings, Trial

ROWS = 400


class _Row:
    """A worker whose turns are drawn; also the sink, which is told of rounds."""

    def __init__(self, spread: float, rng: np.random.Generator) -> None:
        self.spread, self.rng = spread, rng
        self.times: list[float] = []

    def __call__(self, *asked: object) -> Answer | tuple[object, ...]:
        command = asked[2]
        if command == "open":
            return ("forward",)
        if command == "warm":
            return ()
        if command == "close":
            return Answer("ok", None)
        self.times.append(math.exp(self.rng.normal(0, self.spread)))
        return (self.times[-1],)

    def round(self, number: int, rounds: int) -> None:
        """Nobody looks."""


def main() -> None:
    """Print the share of intervals that hold the truth, by spread."""
    rng = np.random.default_rng(0)
    settings = SpeedSettings(time_budget_s=1e9)
    trial = Trial("speed", "drawn", "gru", settings=settings)
    for spread in (0.01, 0.02, 0.05):
        held, turns = 0, []
        for _ in range(ROWS):
            row = _Row(spread, rng)
            time_in_turns({"row": trial}, row, row)  # type: ignore[arg-type]
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
