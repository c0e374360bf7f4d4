"""How the gradient travels back: R(lag) and the horizon, before and after training.

Trials at initial values that are not trained afterwards are in `initial_values`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.analysis.grouping import (
    Heading,
    curve,
    group,
    heading_of,
    numbers,
    varying,
)
from harness.analysis.learning.trials import by_heading, failures
from harness.analysis.run import JudgedRun
from harness.intervals import median, median_of
from harness.store import TrialRecord
from harness.trial import QUESTION, SEEDS, Settings, Trial

STATES = ("initial", "trained")
COTANGENTS = ("loss", "random")


@dataclass(frozen=True)
class Horizon:
    """Medians of the horizon over seeds, in time steps; one of `max_lag` may be longer.

    Attributes:
        seeds: Number of seeds with a value.
    """

    initial: float | None
    trained: float | None
    max_lag: float | None
    seeds: int


@dataclass(frozen=True)
class GradientRow:
    """One network's horizons, for the loss term and for a random cotangent.

    Attributes:
        doubt: Why the training of the network is not certified, or None.
    """

    heading: Heading
    cell: str
    implementation: str
    trial: Trial
    loss: Horizon
    random: Horizon
    doubt: str | None = None

    @property
    def key(self) -> str:
        """Equal for the learning row of the same network."""
        return self.trial.key(QUESTION, SEEDS)


def gradient_rows(run: JudgedRun) -> list[GradientRow]:
    """Return one row per network, in order of appearance."""
    gradients = _after_learning(run)
    names = _varying(gradients)
    return [
        GradientRow(
            heading=heading_of(members[0].trial, names),
            cell=members[0].trial.cell,
            implementation=members[0].trial.implementation,
            trial=members[0].trial,
            loss=_horizon(members, "loss"),
            random=_horizon(members, "random"),
            doubt=run.doubt(r for r in members if r.outcome == "ok"),
        )
        for members in group(gradients, lambda r: r.trial.key(QUESTION, SEEDS)).values()
    ]


def _after_learning(run: JudgedRun) -> list[TrialRecord]:
    return [r for r in run.of("gradients") if r.trial.follows is not None]


def _varying(gradients: Sequence[TrialRecord]) -> tuple[str, ...]:
    """Return the facts that vary, except which learning trial each one follows."""
    return varying([replace(r.trial, settings=Settings()) for r in gradients])


def _horizon(members: Sequence[TrialRecord], cotangent: str) -> Horizon:
    initial, trained = (
        numbers(members, state, f"horizon_{cotangent}") for state in STATES
    )
    lags = [lag for state in STATES for lag in numbers(members, state, "max_lag")]
    return Horizon(
        initial=median_of(initial),
        trained=median_of(trained),
        max_lag=max(lags, default=None),
        seeds=max(len(initial), len(trained)),
    )


# --- curves --------------------------------------------------------------------------


@dataclass(frozen=True)
class LagSeries:
    """R over lag: medians over seeds of each seed's median, low and high value.

    Attributes:
        low: The 10 % quantile over examples; 0 if it underflowed.
        high: The 90 % quantile over examples.
    """

    cell: str
    implementation: str
    state: str
    lags: list[float]
    median: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class GradientPanel:
    """What one panel shows: every cell, initial and trained, for one cotangent.

    Attributes:
        uncertified: Cells with a seed whose training is not certified.
    """

    heading: Heading
    cotangent: str
    series: tuple[LagSeries, ...]
    failures: dict[tuple[str, str, str], int]
    uncertified: tuple[str, ...] = ()


def gradient_panels(run: JudgedRun) -> list[GradientPanel]:
    """Return a panel per task, length, variant and cotangent, in that order."""
    gradients = _after_learning(run)
    return [
        _panel(heading, members, cotangent, run)
        for heading, members in by_heading(gradients, _varying(gradients), gradients)
        for cotangent in COTANGENTS
    ]


def _panel(
    heading: Heading, members: list[TrialRecord], cotangent: str, run: JudgedRun
) -> GradientPanel:
    keyed = group(members, lambda r: (r.trial.cell, r.trial.implementation))
    series = [
        _series(found, state, cotangent) for found in keyed.values() for state in STATES
    ]
    drawn = tuple(each for each in series if any(value > 0 for value in each.median))
    uncertified = run.uncertified_cells(r for r in members if r.outcome == "ok")
    return GradientPanel(heading, cotangent, drawn, failures(members), uncertified)


def _series(members: list[TrialRecord], state: str, cotangent: str) -> LagSeries:
    median, low, high = (
        median_over_seeds(members, state, f"ratio_{cotangent}_{quantile}")
        for quantile in ("median", "q10", "q90")
    )
    lags = sorted(median)
    bands = ([found.get(lag, 0.0) for lag in lags] for found in (median, low, high))
    trial = members[0].trial
    return LagSeries(trial.cell, trial.implementation, state, lags, *bands)


def median_over_seeds(
    members: Sequence[TrialRecord], state: str, metric: str
) -> dict[float, float]:
    """Return the median over seeds by lag; an underflowed value counts as 0."""
    curves = (zip(*curve(record, state, metric), strict=True) for record in members)
    by_lag = group((point for each in curves for point in each), lambda point: point[0])
    # A missing ratio underflowed: it is smaller than every other.
    return {
        lag: median([value or 0.0 for _, value in points])
        for lag, points in by_lag.items()
    }
