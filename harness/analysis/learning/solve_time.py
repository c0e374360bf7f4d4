"""Time to solve: updates of the cell times the update time of an implementation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.grouping import Heading, group
from harness.analysis.learning.learned import LearningRow
from harness.analysis.speed.conditions import budget_of
from harness.analysis.speed.timings import SpeedRow
from harness.trial import SAME_NETWORK, SAME_UPDATE


@dataclass(frozen=True)
class SolveTime:
    """Updates to solve of a cell, times the certified update time of an implementation.

    Attributes:
        low: The product of both low ends, in seconds.
        high: The product of both high ends; None if that of the updates exceeds the
            limit of updates.
        learned_on: The implementation that the updates were counted on.
        doubt: Why its learning is not certified, or None.
    """

    heading: Heading
    cell: str
    implementation: str
    device: str
    machine: str | None
    seconds: float
    low: float | None
    high: float | None
    shaky: bool
    learned_on: str
    kernel: str | None = None
    framework: str | None = None
    budget: str = ""
    doubt: str | None = None


def solve_times(
    rows: Sequence[LearningRow], speed: Sequence[SpeedRow]
) -> list[list[SolveTime]]:
    """Return the times to solve of each row, the fastest implementation first.

    If several implementations trained one network, each has its own count of updates;
    otherwise the one count is used for all. Only certified timings at the very shape
    of the learning trial are used; of two timings of one implementation on one device,
    the later. A row whose median seed did not solve the task has no times.
    """
    trained = Counter(row.trial.key(SAME_NETWORK) for row in rows)
    updates = group(
        (r for r in speed if r.phase == "train_step" and r.timed and r.certified),
        lambda r: r.trial.key(SAME_UPDATE),
    )
    found = []
    for row in rows:
        alone = trained[row.trial.key(SAME_NETWORK)] == 1
        latest = {
            (timing.implementation, timing.trial.device, timing.machine): timing
            for timing in updates.get(row.trial.key(SAME_UPDATE), [])
            if alone or timing.implementation == row.implementation
        }
        known = row.updates is not None and row.updates.median is not None
        times = [_solve_time(row, each) for each in latest.values()] if known else []
        found.append(sorted(times, key=lambda each: each.seconds))
    return found


def _solve_time(row: LearningRow, timing: SpeedRow) -> SolveTime:
    assert row.updates is not None
    assert row.updates.median is not None
    low, high = row.updates.low, row.updates.high
    return SolveTime(
        heading=row.heading,
        cell=row.cell,
        implementation=timing.implementation,
        device=timing.trial.device,
        machine=timing.machine,
        seconds=row.updates.median * timing.seconds,
        low=None if low is None else low * timing.span.low,
        high=None if high is None else high * timing.span.high,
        shaky=timing.shaky,
        learned_on=row.implementation,
        kernel=timing.kernel,
        framework=timing.framework,
        budget=budget_of(timing.conditions),
        doubt=row.doubt,
    )
