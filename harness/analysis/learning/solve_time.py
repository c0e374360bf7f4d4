"""Time to solve: updates of the cell times the update time of an implementation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.grouping import Heading
from harness.analysis.learning.learned import LearningRow
from harness.analysis.speed.timings import SpeedRow
from harness.trial import Trial


@dataclass(frozen=True)
class SolveTime:
    """Updates to solve of a cell, times the certified update time of an implementation.

    Attributes:
        low: From the low ends of both, in seconds.
        high: From the high ends of both; None where the updates' end is beyond the
            budget.
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


def solve_times(row: LearningRow, speed: Sequence[SpeedRow]) -> list[SolveTime]:
    """Return the times of every certified implementation, the fastest first.

    Timings at the very shape of the learning trial, on a single thread, count; of two
    timings of one implementation on one device, the later. Empty where the median
    seed did not solve the task.
    """
    if row.updates is None or row.updates.median is None:
        return []
    latest = {
        (timing.implementation, timing.trial.device, timing.machine): timing
        for timing in speed
        if timing.phase == "train_step"
        and timing.certified
        and timing.time_s is not None
        and _shape(timing.trial) == _shape(row.trial)
    }
    found = [_solve_time(row, timing) for timing in latest.values()]
    return sorted(found, key=lambda each: each.seconds)


def _shape(trial: Trial) -> tuple[object, ...]:
    return (
        trial.task,
        trial.length,
        sorted(trial.task_options.items()),
        trial.cell,
        trial.batch,
        trial.hidden_size,
        trial.num_layers,
        trial.dtype,
        trial.precision,
        trial.biases,
        trial.threads,
    )


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
        budget=timing.conditions.budget,
        doubt=row.doubt,
    )
