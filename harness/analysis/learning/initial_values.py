"""The gradient over lag at the initial values, before any training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from harness.analysis.grouping import Heading, group, heading_of, numbers, varying
from harness.analysis.learning.gradient_over_lag import median_over_seeds
from harness.analysis.learning.trials import failures
from harness.analysis.run import JudgedRun
from harness.intervals import median
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
    """The horizons of one cell, one for each initialisation that was measured."""

    heading: Heading
    cell: str
    trial: Trial
    horizons: tuple[InitialHorizon, ...]


@dataclass(frozen=True)
class InitialSeries:
    """R over lag: the median over seeds of the median over examples.

    Attributes:
        inits: Initialisations with equal values, because they draw the same weights.
        median: 0 if it underflowed.
    """

    inits: tuple[str, ...]
    lags: tuple[float, ...]
    median: tuple[float, ...]


@dataclass(frozen=True)
class InitialPanel:
    """One panel of the figure: one cell, and a line for each initialisation."""

    heading: Heading
    cell: str
    implementation: str
    series: tuple[InitialSeries, ...]
    failures: dict[tuple[str, str, str], int]


def initial_rows(run: JudgedRun) -> list[InitialRow]:
    """Return one row for each heading and cell, in order of appearance."""
    return [
        InitialRow(where, cell, members[0].trial, tuple(_horizons(members)))
        for (where, cell), members in _by_cell(run).items()
    ]


def initial_panels(run: JudgedRun) -> list[InitialPanel]:
    """Return one panel for each heading and cell, in order of appearance."""
    return [
        InitialPanel(
            where,
            cell,
            members[0].trial.implementation,
            tuple(_series(members)),
            failures(members, "init"),
        )
        for (where, cell), members in _by_cell(run).items()
    ]


def _by_cell(run: JudgedRun) -> dict[tuple[Heading, str], list[TrialRecord]]:
    found = [record for record in run.of("gradients") if record.trial.follows is None]
    # A panel compares initialisations, so they are not part of its heading.
    names = varying([replace(record.trial, init="") for record in found])
    return group(found, lambda r: (heading_of(r.trial, names), r.trial.cell))


def _by_init(members: Sequence[TrialRecord]) -> dict[str, list[TrialRecord]]:
    return group(members, lambda record: record.trial.init)


def _horizons(members: Sequence[TrialRecord]) -> Iterator[InitialHorizon]:
    for init, of_init in _by_init(members).items():
        known = numbers(of_init, "initial", "horizon_loss")
        if known:
            lags = numbers(of_init, "initial", "max_lag")
            ends = min(known), max(known), max(lags)
            yield InitialHorizon(init, median(known), *ends, len(known))


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
