"""What initial values do to the gradient over lag, before any training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.analysis.grouping import (
    Heading,
    group,
    heading_of,
    number,
    varying,
)
from harness.analysis.learning.gradients import follows_learning, median_over_seeds
from harness.analysis.run import JudgedRun
from harness.store import TrialRecord
from harness.trial import Trial


@dataclass(frozen=True)
class InitialHorizon:
    """The horizon of one initialisation over seeds, in time steps.

    Attributes:
        low: The smallest over the seeds.
        high: The largest over the seeds.
        max_lag: The largest lag measured: a horizon there may be longer.
    """

    init: str
    median: float
    low: float
    high: float
    max_lag: float
    seeds: int


@dataclass(frozen=True)
class InitialRow:
    """One cell's horizons, those of its initialisations that were measured."""

    heading: Heading
    cell: str
    trial: Trial
    horizons: tuple[InitialHorizon, ...]


@dataclass(frozen=True)
class InitialSeries:
    """R over lag: the median over seeds of the median over examples.

    Attributes:
        inits: Initialisations with these very values: they draw the same weights.
        median: 0 where it underflowed.
    """

    inits: tuple[str, ...]
    lags: tuple[float, ...]
    median: tuple[float, ...]


@dataclass(frozen=True)
class InitialPanel:
    """What one panel shows: one cell, a line an initialisation."""

    heading: Heading
    cell: str
    implementation: str
    series: tuple[InitialSeries, ...]
    failures: dict[tuple[str, str, str], int]


def initial_rows(run: JudgedRun) -> list[InitialRow]:
    """Return one row a place and cell, in order of appearance."""
    rows = []
    for (where, cell), members in _by_cell(run).items():
        horizons = (_horizon(init, m) for init, m in _by_init(members).items())
        found = tuple(each for each in horizons if each is not None)
        rows.append(InitialRow(where, cell, members[0].trial, found))
    return rows


def initial_panels(run: JudgedRun) -> list[InitialPanel]:
    """Return one panel a place and cell, in order of appearance."""
    return [
        InitialPanel(
            where,
            cell,
            members[0].trial.implementation,
            tuple(_series(members)),
            dict(
                Counter(
                    (r.trial.init, r.trial.implementation, r.outcome)
                    for r in members
                    if r.outcome != "ok"
                )
            ),
        )
        for (where, cell), members in _by_cell(run).items()
    ]


def _by_cell(
    run: JudgedRun,
) -> dict[tuple[Heading, str], list[TrialRecord]]:
    found = [
        record for record in run.of("gradients") if not follows_learning(record.trial)
    ]
    # What is drawn side by side is no variant.
    names = varying([replace(record.trial, init="") for record in found])
    return group(found, lambda r: (heading_of(r.trial, names), r.trial.cell))


def _by_init(members: Sequence[TrialRecord]) -> dict[str, list[TrialRecord]]:
    return group(members, lambda record: record.trial.init)


def _horizon(init: str, members: Sequence[TrialRecord]) -> InitialHorizon | None:
    found = [number(record, "initial", "horizon_loss") for record in members]
    known = [value for value in found if value is not None]
    if not known:
        return None
    lags = [number(record, "initial", "max_lag") for record in members]
    return InitialHorizon(
        init,
        float(np.median(known)),
        min(known),
        max(known),
        max(lag for lag in lags if lag is not None),
        len(known),
    )


def _series(members: Sequence[TrialRecord]) -> list[InitialSeries]:
    curves: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for init, found in _by_init(members).items():
        curve = median_over_seeds(found, "initial", "ratio_loss_median")
        if any(value > 0 for value in curve.values()):
            curves.setdefault(tuple(sorted(curve.items())), []).append(init)
    return [
        InitialSeries(tuple(inits), *map(tuple, zip(*curve, strict=True)))
        for curve, inits in curves.items()
    ]
