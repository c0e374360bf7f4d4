"""Held-out curves of every seed, with their median, by panel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.grouping import Heading, group, known_curve, varying
from harness.analysis.learning.trials import (
    by_heading,
    declared,
    failures,
    floor,
    headline,
    learning_trials,
)
from harness.analysis.run import JudgedRun
from harness.intervals import median_of
from harness.store import COUNTED, TrialRecord


@dataclass(frozen=True)
class SeedCurve:
    """Held-out values of one seed over updates: x [n], y [n], no gaps."""

    seed: int | None
    x: list[float]
    y: list[float]
    outcome: str


@dataclass(frozen=True)
class LearningSeries:
    """The curves of one cell and implementation with their median.

    Attributes:
        median: Over seeds. A solved seed keeps its last value, a diverged one counts
            as worse than every other from where it ended.
    """

    cell: str
    implementation: str
    curves: tuple[SeedCurve, ...]
    median_x: list[float]
    median: list[float]


@dataclass(frozen=True)
class LearningPanel:
    """What one panel of learning curves shows.

    Attributes:
        failures: By (cell, implementation, outcome), how many seeds did not end ok.
        uncertified: Cells with a seed whose training is not certified.
    """

    heading: Heading
    metric: str
    unit: str
    better: str
    floor: float | None
    series: tuple[LearningSeries, ...]
    failures: dict[tuple[str, str, str], int]
    uncertified: tuple[str, ...] = ()


def learning_panels(
    run: JudgedRun, *, metric: str | None = None
) -> list[LearningPanel]:
    """Return a panel per task, length and variant, of a metric or of the headline."""
    learning = learning_trials(run)
    names = varying([record.trial for record in learning])
    return [
        _panel(heading, members, metric or headline(learning, heading.task), run)
        for heading, members in by_heading(learning, names, run.of("learning"))
    ]


def _panel(
    heading: Heading, members: list[TrialRecord], metric: str, run: JudgedRun
) -> LearningPanel:
    quantity = declared(members, metric)
    better = "lower" if quantity.better == "neither" else quantity.better
    worst = math.inf if better == "lower" else -math.inf
    keyed = group(members, lambda r: (r.trial.cell, r.trial.implementation))
    return LearningPanel(
        heading=heading,
        metric=metric,
        unit=quantity.unit,
        better=better,
        floor=floor(members, metric),
        series=tuple(_series(found, metric, worst) for found in keyed.values()),
        failures=failures(members),
        uncertified=run.uncertified_cells(r for r in members if r.outcome in COUNTED),
    )


def _series(
    members: Sequence[TrialRecord], metric: str, worst: float
) -> LearningSeries:
    found = [(r, *known_curve(r, "held_out", metric)) for r in members]
    curves = tuple(SeedCurve(r.trial.seed, x, y, r.outcome) for r, x, y in found if x)
    median_x, median = median_curve(curves, worst=worst)
    trial = members[0].trial
    return LearningSeries(trial.cell, trial.implementation, curves, median_x, median)


def median_curve(
    curves: Sequence[SeedCurve], *, worst: float
) -> tuple[list[float], list[float]]:
    """Return x and the median over seeds, wherever it is known and not `worst`.

    After its end an `ok` curve keeps its last value, a diverged one is `worst`, and
    any other is left out.
    """
    found = {}
    for x in sorted({x for each in curves for x in each.x}):
        values = [_at(each, x, worst) for each in curves]
        middle = median_of([value for value in values if value is not None])
        if middle is not None and math.isfinite(middle):
            found[x] = middle
    return list(found), list(found.values())


def _at(each: SeedCurve, x: float, worst: float) -> float | None:
    if x > each.x[-1]:
        beyond = {"ok": each.y[-1], "diverged": worst}
        return beyond.get(each.outcome)
    index = int(np.searchsorted(each.x, x, side="right")) - 1
    return each.y[index] if index >= 0 else None
