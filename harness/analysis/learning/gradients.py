"""How the gradient travels back: R(lag) and the horizon, initial against trained.

Trials at initial values that no learning follows are in `initial_values`.
"""

from __future__ import annotations

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
from harness.analysis.run import JudgedRun
from harness.store import TrialRecord
from harness.trial import QUESTION, SEEDS, Settings, Trial

STATES = ("initial", "trained")
COTANGENTS = ("loss", "random")


@dataclass(frozen=True)
class Horizon:
    """Medians over seeds, in time steps; the ratio may not fall below it by `max_lag`.

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
        doubt: Why what trained the network is not certified, or None.
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
        """What a learning row of the same network has too."""
        return self.trial.key(QUESTION, SEEDS)


def gradient_rows(run: JudgedRun) -> list[GradientRow]:
    """Return one row per network, in order of appearance."""
    gradients = _after_learning(run)
    names = varying([_without_settings(record.trial) for record in gradients])
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


def follows_learning(trial: Trial) -> bool:
    """Say whether a gradients trial followed learning; if not, nothing was trained."""
    return trial.follows is not None


def _after_learning(run: JudgedRun) -> list[TrialRecord]:
    found = run.of("gradients")
    return [record for record in found if follows_learning(record.trial)]


def _without_settings(trial: Trial) -> Trial:
    return replace(trial, settings=Settings())


def _horizon(members: list[TrialRecord], cotangent: str) -> Horizon:
    by_state = {
        state: [
            value
            for record in members
            if (value := number(record, state, f"horizon_{cotangent}")) is not None
        ]
        for state in STATES
    }
    lags = [number(record, state, "max_lag") for record in members for state in STATES]
    return Horizon(
        initial=_median(by_state["initial"]),
        trained=_median(by_state["trained"]),
        max_lag=max((lag for lag in lags if lag is not None), default=None),
        seeds=max(len(values) for values in by_state.values()),
    )


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


# --- curves --------------------------------------------------------------------------


@dataclass(frozen=True)
class LagSeries:
    """R over lag: the median over seeds of each seed's median, and of its band.

    Attributes:
        low: The 10 % quantile over examples; 0 where it underflowed.
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
        uncertified: Cells some of whose seeds were not trained by what is certified.
    """

    heading: Heading
    cotangent: str
    series: tuple[LagSeries, ...]
    failures: dict[tuple[str, str, str], int]
    uncertified: tuple[str, ...] = ()


def gradient_panels(run: JudgedRun) -> list[GradientPanel]:
    """Return a panel per task, length, variant and cotangent, in that order."""
    gradients = _after_learning(run)
    names = varying([_without_settings(record.trial) for record in gradients])
    tasks = list(dict.fromkeys(record.trial.task or "" for record in gradients))
    headings = group(gradients, lambda record: heading_of(record.trial, names))
    ordered = sorted(
        headings, key=lambda where: (tasks.index(where.task), where.length or 0)
    )
    return [
        _panel(where, headings[where], cotangent, run)
        for where in ordered
        for cotangent in COTANGENTS
    ]


def _panel(
    where: Heading, members: list[TrialRecord], cotangent: str, run: JudgedRun
) -> GradientPanel:
    keyed = group(members, lambda r: (r.trial.cell, r.trial.implementation))
    series = [
        _series(cell, implementation, state, group_, cotangent)
        for (cell, implementation), group_ in keyed.items()
        for state in STATES
    ]
    failures = Counter(
        (r.trial.cell, r.trial.implementation, r.outcome)
        for r in members
        if r.outcome != "ok"
    )
    drawn = tuple(each for each in series if any(value > 0 for value in each.median))
    doubted = [r.trial.cell for r in members if r.outcome == "ok" and run.doubts[r.id]]
    uncertified = tuple(dict.fromkeys(doubted))
    return GradientPanel(where, cotangent, drawn, dict(failures), uncertified)


def _series(
    cell: str,
    implementation: str,
    state: str,
    members: list[TrialRecord],
    cotangent: str,
) -> LagSeries:
    over_seeds = {
        quantile: median_over_seeds(members, state, f"ratio_{cotangent}_{quantile}")
        for quantile in ("median", "q10", "q90")
    }
    lags = sorted(over_seeds["median"])
    return LagSeries(
        cell,
        implementation,
        state,
        lags,
        [over_seeds["median"][lag] for lag in lags],
        [over_seeds["q10"].get(lag, 0.0) for lag in lags],
        [over_seeds["q90"].get(lag, 0.0) for lag in lags],
    )


def median_over_seeds(
    members: Sequence[TrialRecord], state: str, metric: str
) -> dict[float, float]:
    """Return the median over seeds by lag; what underflowed counts as 0."""
    values: dict[float, list[float]] = {}
    for record in members:
        for lag, value in zip(*curve(record, state, metric), strict=True):
            # A missing ratio underflowed: it is smaller than every other.
            values.setdefault(lag, []).append(0.0 if value is None else float(value))
    return {lag: float(np.median(found)) for lag, found in values.items()}
