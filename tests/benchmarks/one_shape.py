"""Time a comparison of every implementation of one cell on one shape.

`python -m tests.benchmarks.one_shape` runs it twice in new folders: once without
cached certificates and once with them. It prints the wall time of each, and for how
many timings the interval, or that of the ratio to the fastest, is at most 2 % wide.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from harness.analysis.run import JudgedRun
from harness.analysis.speed.relative import speed_rows
from harness.analysis.speed.timings import SpeedRow
from harness.intervals import Interval
from harness.store import RunFolder
from tests import helpers

TARGET = 0.02

SUITE = """\
name = "one-shape"
why = "Every implementation of one cell on one shape."

[[speed]]
cells = ["gru"]
time_budget_s = {budget_s}
shapes = [{{ batch = 32, time_steps = 100, input_size = 2, hidden_size = 64 }}]
"""


def width(interval: Interval | None, middle: float | None) -> float:
    """Return the width of an interval as a share of its middle."""
    if interval is None or not middle:
        return float("inf")
    return (interval.high - interval.low) / middle


def known(row: SpeedRow) -> bool:
    """Say whether the interval of a timing is narrow enough."""
    widths = width(row.time, row.time_s), width(row.relative_interval, row.relative)
    return min(widths) <= TARGET


def main() -> None:
    """Print the time of both runs and how many timings are known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=40.0, help="of rounds, in s")
    budget_s = parser.parse_args().budget
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        helpers.write(folder / "suite.toml", SUITE.format(budget_s=budget_s))
        for name in ("new certificates", "cached certificates"):
            begin = time.monotonic()
            process = helpers.start(
                "run", "suite.toml", "-o", name, cwd=folder, report=True
            )
            _, errors = process.communicate()
            took_s = time.monotonic() - begin
            if process.returncode != 0:
                raise SystemExit(errors)
            records = RunFolder.open(folder / name).records()
            rows = [row for row in speed_rows(JudgedRun(records)) if row.timed]
            rounds = max(len(row.turns) for row in rows)
            print(
                f"{name}: {took_s:.0f} s; {sum(map(known, rows))} of {len(rows)} "
                f"timings to {TARGET:.0%} in {rounds} rounds",
                flush=True,
            )


if __name__ == "__main__":
    main()
