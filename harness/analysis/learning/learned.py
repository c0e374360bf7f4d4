"""What was learned: solved seeds, updates to solve, and the last scores."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.grouping import (
    Heading,
    group,
    heading_of,
    known_curve,
    number,
    varying,
)
from harness.analysis.learning.trials import (
    declared,
    floor,
    headline,
    in_order,
    learning_trials,
)
from harness.analysis.run import JudgedRun
from harness.intervals import (
    CensoredMedian,
    Interval,
    censored_median,
    median_of,
    proportion_interval,
)
from harness.store import COUNTED, TrialRecord
from harness.trial import SEEDS, SESSION, LearningSettings, Trial


@dataclass(frozen=True)
class Score:
    """The last held-out value of one metric, the median over seeds, and its floor.

    Attributes:
        value: A diverged seed counts as worse than every other; None if the median
            is such a seed.
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
        updates_to_solve: None if it was not solved.
        limit: The most updates it could take.
    """

    seed: int | None
    outcome: str
    updates_to_solve: float | None
    updates: float | None
    limit: float


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
    rows = []
    for members in group(learning, lambda r: r.trial.key(SEEDS, SESSION)).values():
        trial = members[0].trial
        first = headline(learning, trial.task)
        rows.append(_row(members, heading_of(trial, names), first, run))
    return in_order(rows, lambda row: row.heading, run.of("learning"))


def _row(
    members: Sequence[TrialRecord], heading: Heading, first: str, run: JudgedRun
) -> LearningRow:
    seeds = tuple(sorted((_seed(r) for r in members), key=lambda s: s.seed or 0))
    counted = [seed for seed in seeds if seed.outcome in COUNTED]
    solved = sum(seed.updates_to_solve is not None for seed in counted)
    updates = None
    if counted:
        limit = max(seed.limit for seed in counted)
        updates = censored_median([s.updates_to_solve for s in counted], limit)
    trial = members[0].trial
    parameters = [r.result.get("parameters") or {} for r in members]
    return LearningRow(
        heading=heading,
        cell=trial.cell,
        implementation=trial.implementation,
        trial=trial,
        solved=solved,
        count=len(counted),
        solved_interval=proportion_interval(solved, len(counted)) if counted else None,
        updates=updates,
        scores=tuple(_score(members, metric) for metric in _metrics(members, first)),
        seeds=seeds,
        other_outcomes=dict(Counter(s.outcome for s in seeds if s.outcome != "ok")),
        parameters=next((p["canonical"] for p in parameters if "canonical" in p), None),
        doubt=run.doubt(r for r in members if r.outcome in COUNTED),
    )


def _seed(record: TrialRecord) -> Seed:
    solved = number(record, "outcome", "solved") == 1 and record.outcome == "ok"
    updates_to_solve = number(record, "outcome", "updates_to_solve")
    planned = record.trial.settings_as(LearningSettings).updates
    return Seed(
        seed=record.trial.seed,
        outcome=record.outcome,
        updates_to_solve=updates_to_solve if solved else None,
        updates=number(record, "outcome", "updates"),
        limit=number(record, "outcome", "budget") or planned,
    )


def _metrics(members: Sequence[TrialRecord], first: str) -> list[str]:
    readings = (reading for record in members for reading in record.readings)
    floors = (metric for r in readings if r.split == "floor" for metric in r.values)
    return list(dict.fromkeys([first, "loss", *floors]))


def _score(members: Sequence[TrialRecord], metric: str) -> Score:
    quantity = declared(members, metric)
    worst = -math.inf if quantity.better == "higher" else math.inf
    last = []
    for record in members:
        values = known_curve(record, "held_out", metric)[1]
        if record.outcome == "diverged":
            last.append(worst)
        elif record.outcome == "ok" and values:
            last.append(values[-1])
    middle = median_of(last)
    return Score(
        metric=metric,
        unit=quantity.unit,
        better=quantity.better,
        value=None if middle is None or math.isinf(middle) else middle,
        floor=floor(members, metric),
    )
