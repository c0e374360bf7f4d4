"""Held-out curves of every seed, with their median, by panel."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.analysis.grouping import (
    Heading,
    curve,
    group,
    heading_of,
    number,
    varying,
)
from harness.analysis.learning.rows import (
    COUNTED,
    declared_quantity,
    heading_order,
    headlines,
    learning_trials,
    task_order,
)
from harness.analysis.run import JudgedRun
from harness.store import TrialRecord


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
        uncertified: Cells some of whose seeds were not trained by what is certified.
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
    """Return a panel per task, length and variant; the headline where no metric."""
    learning = learning_trials(run)
    names = varying([record.trial for record in learning])
    tasks = task_order(run)
    panels = group(learning, lambda record: heading_of(record.trial, names))
    shown = headlines(learning)
    return [
        replace(
            _panel(where, members, metric or shown[where.task]),
            uncertified=tuple(
                dict.fromkeys(
                    r.trial.cell
                    for r in members
                    if r.outcome in COUNTED and run.doubts[r.id]
                )
            ),
        )
        for where, members in sorted(
            panels.items(), key=lambda p: heading_order(p[0], tasks)
        )
    ]


def _panel(where: Heading, members: list[TrialRecord], metric: str) -> LearningPanel:
    declared = declared_quantity(members, metric)
    better = declared["better"] if declared["better"] != "neither" else "lower"
    floors = [number(record, "floor", metric) for record in members]
    keyed = group(members, lambda r: (r.trial.cell, r.trial.implementation))
    return LearningPanel(
        heading=where,
        metric=metric,
        unit=declared["unit"],
        better=better,
        floor=next((floor for floor in floors if floor is not None), None),
        series=tuple(
            _series(cell, implementation, group_, metric, better)
            for (cell, implementation), group_ in keyed.items()
        ),
        failures=dict(
            Counter(
                (r.trial.cell, r.trial.implementation, r.outcome)
                for r in members
                if r.outcome != "ok"
            )
        ),
    )


def _series(
    cell: str, implementation: str, members: list[TrialRecord], metric: str, better: str
) -> LearningSeries:
    curves = tuple(
        found for found in (_seed_curve(r, metric) for r in members) if found.x
    )
    x, median = median_curve(curves, worst=math.inf if better == "lower" else -math.inf)
    return LearningSeries(cell, implementation, curves, x, median)


def _seed_curve(record: TrialRecord, metric: str) -> SeedCurve:
    x, y = curve(record, "held_out", metric)
    known = [(a, b) for a, b in zip(x, y, strict=True) if b is not None]
    return SeedCurve(
        record.trial.seed,
        [a for a, _ in known],
        [float(b) for _, b in known],
        record.outcome,
    )


def median_curve(
    curves: Sequence[SeedCurve], *, worst: float
) -> tuple[list[float], list[float]]:
    """Return x and the median over seeds, where it is known and not `worst`.

    Beyond its end an `ok` curve keeps its last value, a diverged one is `worst`, and
    any other is left out.
    """
    xs = sorted({x for each in curves for x in each.x})
    found = []
    for x in xs:
        values = [
            value for each in curves if (value := _at(each, x, worst)) is not None
        ]
        middle = float(np.median(values)) if values else math.nan
        if math.isfinite(middle):
            found.append((x, middle))
    return [x for x, _ in found], [value for _, value in found]


def _at(each: SeedCurve, x: float, worst: float) -> float | None:
    if x > each.x[-1]:
        beyond = {"ok": each.y[-1], "diverged": worst}
        return beyond.get(each.outcome)
    index = int(np.searchsorted(each.x, x, side="right")) - 1
    return each.y[index] if index >= 0 else None
