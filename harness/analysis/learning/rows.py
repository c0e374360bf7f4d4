"""What was learned: solved seeds, updates to solve, curves with their median."""

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
    quantity,
    varying,
)
from harness.analysis.run import JudgedRun
from harness.intervals import (
    CensoredMedian,
    Interval,
    censored_median,
    proportion_interval,
)
from harness.store import TrialRecord
from harness.trial import SEEDS, SESSION, LearningSettings, Trial

COUNTED = ("ok", "diverged")
"""Outcomes that say something of the network; the others say it of the machine."""


@dataclass(frozen=True)
class Score:
    """The last held-out value of one metric, the median over seeds, and its floor.

    Attributes:
        value: A diverged seed counts as worse than every other; None where it is the
            median.
    """

    metric: str
    unit: str
    better: str
    value: float | None
    floor: float | None


@dataclass(frozen=True)
class Seed:
    """How one seed ended.

    Attributes:
        updates_to_solve: None where it was not solved.
        budget: None where the trial ended before it could say.
    """

    seed: int | None
    outcome: str
    updates_to_solve: float | None
    updates: float | None
    budget: float | None


@dataclass(frozen=True)
class LearningRow:
    """One configuration on one task: what its seeds reached.

    Attributes:
        solved: Seeds that solved the task.
        count: Seeds that ended ok or diverged; a diverged one counts as unsolved.
        solved_interval: Wilson's 95 % interval of the solved fraction, or None.
        updates: Updates to solve over the counted seeds, or None without any.
        scores: The headline first, then the loss, then every other with a floor.
        other_outcomes: How many seeds ended otherwise than ok, by outcome.
        parameters: Number of canonical weights of the whole network.
        doubt: Why the counted seeds' network is not certified, or None.
    """

    heading: Heading
    cell: str
    implementation: str
    trial: Trial
    solved: int
    count: int
    solved_interval: Interval | None
    updates: CensoredMedian | None
    scores: tuple[Score, ...]
    seeds: tuple[Seed, ...]
    other_outcomes: dict[str, int]
    parameters: int | None
    doubt: str | None = None


def learning_rows(run: JudgedRun) -> list[LearningRow]:
    """Return one row per configuration, in order of task, length and variant."""
    learning = learning_trials(run)
    names = varying([record.trial for record in learning])
    shown = headlines(learning)
    rows = [
        replace(
            _row(
                members,
                heading_of(members[0].trial, names),
                shown[members[0].trial.task or ""],
            ),
            doubt=run.doubt(r for r in members if r.outcome in COUNTED),
        )
        for members in group(learning, lambda r: r.trial.key(SEEDS, SESSION)).values()
    ]
    tasks = task_order(run)
    return sorted(rows, key=lambda row: heading_order(row.heading, tasks))


def learning_trials(run: JudgedRun) -> list[TrialRecord]:
    """Return the learning trials by cell and implementation, each as it first appeared.

    Trials that run side by side end in any order.
    """
    learning = run.of("learning")
    cells = list(dict.fromkeys(r.trial.cell for r in learning))
    names = list(dict.fromkeys(r.trial.implementation for r in run.records))
    return sorted(
        learning,
        key=lambda r: (
            cells.index(r.trial.cell),
            names.index(r.trial.implementation),
        ),
    )


def task_order(run: JudgedRun) -> list[str]:
    """Return the tasks of learning trials as they first appeared."""
    learning = run.of("learning")
    return list(dict.fromkeys(record.trial.task or "" for record in learning))


def heading_order(where: Heading, tasks: list[str]) -> tuple[int, int]:
    """Return what places are sorted by: the task as the run has it, the length."""
    return tasks.index(where.task), where.length or 0


def _row(members: Sequence[TrialRecord], where: Heading, first: str) -> LearningRow:
    seeds = tuple(sorted((_seed(r) for r in members), key=lambda s: s.seed or 0))
    counted = [seed for seed in seeds if seed.outcome in COUNTED]
    solved = sum(seed.updates_to_solve is not None for seed in counted)
    budgets = [seed.budget for seed in counted if seed.budget is not None]
    updates = None
    if counted and budgets:
        updates = censored_median([s.updates_to_solve for s in counted], max(budgets))
    trial = members[0].trial
    outcomes = Counter(seed.outcome for seed in seeds if seed.outcome != "ok")
    return LearningRow(
        heading=where,
        cell=trial.cell,
        implementation=trial.implementation,
        trial=trial,
        solved=solved,
        count=len(counted),
        solved_interval=proportion_interval(solved, len(counted)) if counted else None,
        updates=updates,
        scores=tuple(_score(members, metric) for metric in _metrics(members, first)),
        seeds=seeds,
        other_outcomes=dict(outcomes),
        parameters=_parameters(members),
    )


def _seed(record: TrialRecord) -> Seed:
    solved = number(record, "outcome", "solved") == 1 and record.outcome == "ok"
    planned = record.trial.settings_as(LearningSettings).updates
    return Seed(
        seed=record.trial.seed,
        outcome=record.outcome,
        updates_to_solve=number(record, "outcome", "updates_to_solve")
        if solved
        else None,
        updates=number(record, "outcome", "updates"),
        budget=number(record, "outcome", "budget") or planned,
    )


def _parameters(members: Sequence[TrialRecord]) -> int | None:
    for record in members:
        found = (record.result.get("parameters") or {}).get("canonical")
        if found is not None:
            return int(found)
    return None


def headlines(records: Sequence[TrialRecord]) -> dict[str, str]:
    """Return the headline of every task."""
    tasks = group(records, lambda r: r.trial.task or "")
    return {task: headline(members) for task, members in tasks.items()}


def headline(records: Sequence[TrialRecord]) -> str:
    """Return the score that trials of one task show first."""
    for record in records:
        if record.result.get("headline"):
            return str(record.result["headline"])
    return "loss"


def _metrics(members: Sequence[TrialRecord], first: str) -> list[str]:
    floors = [
        metric
        for record in members
        for reading in record.readings
        if reading.split == "floor"
        for metric in reading.values
    ]
    return list(dict.fromkeys([first, "loss", *floors]))


def _score(members: Sequence[TrialRecord], metric: str) -> Score:
    declared = declared_quantity(members, metric)
    worst = -math.inf if declared["better"] == "higher" else math.inf
    last = [
        worst if r.outcome == "diverged" else _last(curve(r, "held_out", metric)[1])
        for r in members
        if r.outcome in COUNTED
    ]
    known = [value for value in last if value is not None]
    middle = float(np.median(known)) if known else math.nan
    floors = [number(record, "floor", metric) for record in members]
    return Score(
        metric=metric,
        unit=declared["unit"],
        better=declared["better"],
        value=middle if math.isfinite(middle) else None,
        floor=next((floor for floor in floors if floor is not None), None),
    )


def declared_quantity(members: Sequence[TrialRecord], metric: str) -> dict[str, str]:
    """Return unit and direction of a metric as the first trial that says so does."""
    for record in members:
        if (record.result.get("quantities") or {}).get(metric):
            return dict(quantity(record, metric))
    return dict(quantity(members[0], metric))


def _last(values: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)
