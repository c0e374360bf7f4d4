"""Which of two timings is faster, by how much, and how surely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.analysis.grouping import group
from harness.analysis.run import JudgedRun
from harness.analysis.speed.timings import SpeedRow, phase_order, timings
from harness.intervals import FEWEST, Interval, ratio_interval

LEAST_ADVANTAGE = 1.02
"""A session's target interval cannot distinguish a smaller ratio from 1."""


@dataclass(frozen=True)
class Ratio:
    """The time of one row divided by that of another.

    Attributes:
        interval: The 95 % interval of `value`, or None.
    """

    value: float
    interval: Interval | None

    @property
    def is_slower(self) -> bool:
        """Whether the row is really slower.

        True: by `LEAST_ADVANTAGE` at least, and the interval is above 1.
        False: not shown, which is not the same as being equally fast.
        """
        surely = self.interval is not None and self.interval.low > 1
        return surely and self.value >= LEAST_ADVANTAGE


def ratio(base: SpeedRow, new: SpeedRow) -> Ratio | None:
    """Return new / base: by round if they share rounds, else from both medians."""
    if new.time_s is None or not base.time_s:
        return None
    found = paired_ratio(base.turns, new.turns) or Ratio(new.time_s / base.time_s, None)
    if found.interval is None and base.time is not None and new.time is not None:
        return replace(found, interval=new.time.over(base.time))
    return found


def paired_ratio(base: Mapping[int, float], new: Mapping[int, float]) -> Ratio | None:
    """Return the median over common rounds of new / base; None without such a round.

    What slows the machine for a whole round slows both turns of it and does not change
    their ratio. There is no interval of fewer than `FEWEST` rounds.
    """
    rounds = sorted(base.keys() & new.keys())
    if not rounds:
        return None
    found = ratio_interval([new[n] for n in rounds], [base[n] for n in rounds])
    enough = len(rounds) >= FEWEST
    return Ratio(found.median, Interval(found.low, found.high) if enough else None)


def fastest_of(rows: Sequence[SpeedRow]) -> SpeedRow | None:
    """Return the row that no other is faster than, by round if they share rounds.

    Ratios by round may contradict the medians of the rows, and each other. If no row is
    the fastest against all others, it is the one that the others beat by least.
    """

    def beaten(base: SpeedRow) -> tuple[float, float]:
        ratios = [found.value for row in rows if (found := ratio(base, row))]
        return min(ratios, default=1.0), -(base.time_s or 0.0)

    return max(rows, key=beaten, default=None)


def speed_rows(run: JudgedRun) -> list[SpeedRow]:
    """Return every row with its ratio, by heading, cell and phase."""
    found: list[SpeedRow] = []
    rows = timings(run)
    for members in group(rows, comparable).values():
        best = fastest_of([row for row in members if row.certified and row.timed])
        found += [row if best is None else _against(row, best) for row in members]
    headings = list(dict.fromkeys(row.heading for row in found))
    cells = list(dict.fromkeys(row.cell for row in found))
    return sorted(
        found,
        key=lambda row: (
            headings.index(row.heading),
            cells.index(row.cell),
            phase_order(row.phase),
        ),
    )


def comparable(row: SpeedRow) -> tuple[object, ...]:
    """Return a key that is equal for rows that may be compared with each other."""
    readout = row.trial.readout
    return row.heading, row.trial.session, row.session, row.cell, row.phase, readout


def _against(row: SpeedRow, best: SpeedRow) -> SpeedRow:
    if row is best:
        return replace(row, relative=1.0)
    found = ratio(best, row)
    if found is None:
        return row
    return replace(row, relative=found.value, relative_interval=found.interval)
