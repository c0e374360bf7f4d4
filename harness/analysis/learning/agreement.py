"""Do all implementations have the same learning curve, until rounding parts them?

Two computations of one training run differ by rounding, and training amplifies the
difference: slowly at first, sometimes tenfold within ten updates, until the two runs
have only their distribution in common. So curves are compared with the float64
reference as long as the float32 reference stays near it. After that, only what the runs
reach is compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.analysis.grouping import Heading, curve, group, heading_of, varying
from harness.analysis.learning.learned import LearningRow
from harness.analysis.learning.trials import in_order, learning_trials
from harness.analysis.run import JudgedRun
from harness.contract import Array
from harness.intervals import Interval, median
from harness.measure.subject import ORACLE
from harness.store import TrialRecord
from harness.trial import SAME_NETWORK, Trial

LEVEL = 1e-3
"""Loss difference, in the task's unit, above which two curves have parted.

It is absolute, because relative differences of a loss near zero can have any size, and
no smaller difference decides whether a task is solved.
"""

SHOWS = LEVEL / 10
"""From this difference of the reference's own float32 on, rounding is amplified.

Of two float32 computations either may reach `LEVEL` first. Up to here a curve has room
to differ by ten times as much as the reference itself.
"""

Computer = tuple[str, str]
"""An implementation and the dtype it computed in."""

REFERENCE: Computer = (ORACLE, "float64")
OWN_FLOAT32: Computer = (ORACLE, "float32")


@dataclass(frozen=True)
class SeedAgreement:
    """The training curve of one seed against the float64 reference's.

    Attributes:
        compared: Updates that both took.
        parts_at: The first of them whose losses differ by more than `LEVEL`, or None.
        reference_parts_at: The same for the reference's own float32.
        judged: Number of updates before `reference_parts_at`, or `compared`.
        largest: The largest difference of the judged updates.
        agrees: Whether `largest` is at most `LEVEL`; None if nothing can be judged.
        agrees_at_first: The same for the updates before the reference's own float32 is
            `SHOWS` away.
        excess: The largest difference so far over that of the reference's own float32,
            the median over judged updates.
    """

    seed: int | None
    outcome: str
    compared: int = 0
    parts_at: int | None = None
    reference_parts_at: int | None = None
    judged: int = 0
    largest: float | None = None
    agrees: bool | None = None
    agrees_at_first: bool | None = None
    excess: float | None = None


@dataclass(frozen=True)
class AgreementRow:
    """One implementation of one cell on one task, compared with the float64 reference.

    Attributes:
        seeds: Empty for the float64 reference itself.
        learning: What its seeds reached.
        solved_within: Whether the intervals of its solved fraction and of the float64
            reference's overlap; None if one of them is missing.
        updates_within: The same for updates to solve.
    """

    heading: Heading
    cell: str
    implementation: str
    dtype: str
    seeds: tuple[SeedAgreement, ...]
    learning: LearningRow
    solved_within: bool | None
    updates_within: bool | None


@dataclass(frozen=True)
class AgreementPanel:
    """How far the curves of one seed were from that of the float64 reference.

    Attributes:
        updates: The last update that any curve shares with the reference.
        reference_parts_at: Where the reference's own float32 parts, or None.
    """

    heading: Heading
    cell: str
    seed: int | None
    updates: int
    reference_parts_at: int | None
    series: tuple[AgreementSeries, ...]


@dataclass(frozen=True)
class AgreementSeries:
    """The largest difference so far: x [n] the updates at which it grew, y [n] > 0."""

    implementation: str
    dtype: str
    x: list[int]
    y: list[float]
    updates: int
    parts_at: int | None


def computer(trial: Trial) -> Computer:
    """Return the implementation of a trial, and its dtype."""
    return trial.implementation, trial.dtype


def computer_name(implementation: str, dtype: str) -> str:
    """Return "numpy-reference float64"."""
    return f"{implementation} {dtype}"


def learned_by_several(trials: Iterable[Trial]) -> bool:
    """Return whether any network was trained by more than one implementation."""
    asked = group(trials, lambda t: t.key(SAME_NETWORK))
    return any(len({computer(t) for t in members}) > 1 for members in asked.values())


# --- networks ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Network:
    """The learning trials of one network by computer, the reference first, and seed."""

    heading: Heading
    key: str
    trials: Mapping[Computer, Mapping[int | None, TrialRecord]]

    def trial(self, who: Computer, seed: int | None) -> TrialRecord | None:
        return self.trials.get(who, {}).get(seed)


def _networks(run: JudgedRun) -> list[_Network]:
    """Return each network that the float64 reference and others learned."""
    learning = learning_trials(run)
    apart = ("dtype", "device", "precision")
    names = [n for n in varying([r.trial for r in learning]) if n not in apart]
    networks = []
    for key, members in group(learning, lambda r: r.trial.key(SAME_NETWORK)).items():
        found = group(members, lambda record: computer(record.trial))
        if REFERENCE in found and len(found) > 1:
            first = [who for who in (REFERENCE, OWN_FLOAT32) if who in found]
            trials = {
                who: _by_seed(found[who]) for who in dict.fromkeys([*first, *found])
            }
            heading = heading_of(members[0].trial, names)
            networks.append(_Network(heading, key, trials))
    return in_order(networks, lambda network: network.heading, run.of("learning"))


def _by_seed(records: Iterable[TrialRecord]) -> dict[int | None, TrialRecord]:
    return {r.trial.seed: r for r in sorted(records, key=lambda r: r.trial.seed or 0)}


# --- rows ----------------------------------------------------------------------------


def agreement_rows(
    run: JudgedRun, learned: Sequence[LearningRow]
) -> list[AgreementRow]:
    """Return a row for each implementation of every network that several have trained.

    Networks without a float64 reference have no rows. The reference comes first, then
    its own float32, then the others in order of appearance.
    """
    rows = {(row.trial.key(SAME_NETWORK), computer(row.trial)): row for row in learned}
    found = []
    for network in _networks(run):
        reference = rows[network.key, REFERENCE]
        for who in network.trials:
            row = rows[network.key, who]
            found.append(
                AgreementRow(
                    heading=network.heading,
                    cell=row.cell,
                    implementation=who[0],
                    dtype=who[1],
                    seeds=() if who == REFERENCE else _seeds(network, who),
                    learning=row,
                    solved_within=_overlap(
                        row.solved_interval, reference.solved_interval
                    ),
                    updates_within=_overlap(_ends(row), _ends(reference)),
                )
            )
    return found


def _ends(row: LearningRow) -> Interval | None:
    return None if row.updates is None else row.updates.ends


def _overlap(one: Interval | None, other: Interval | None) -> bool | None:
    return None if one is None or other is None else one.overlaps(other)


def _seeds(network: _Network, who: Computer) -> tuple[SeedAgreement, ...]:
    return tuple(
        _seed(record, network.trial(REFERENCE, seed), network.trial(OWN_FLOAT32, seed))
        for seed, record in network.trials[who].items()
    )


def _seed(
    record: TrialRecord, reference: TrialRecord | None, own: TrialRecord | None
) -> SeedAgreement:
    unknown = SeedAgreement(record.trial.seed, record.outcome)
    if reference is None:
        return unknown
    so_far = differences(record, reference)
    found = replace(unknown, compared=len(so_far), parts_at=parting(so_far))
    if own is None or not len(so_far):
        return found
    yardstick = differences(own, reference)
    parts_at = parting(yardstick)
    judged = _before(parts_at, so_far, yardstick)
    at_first = _before(parting(yardstick, SHOWS), so_far, yardstick)
    found = replace(found, reference_parts_at=parts_at, judged=judged)
    if not judged:
        return found
    largest = float(so_far[judged - 1])
    return replace(
        found,
        largest=largest if math.isfinite(largest) else None,
        agrees=largest <= LEVEL,
        agrees_at_first=bool(so_far[at_first - 1] <= LEVEL) if at_first else None,
        excess=_excess(so_far[:judged], yardstick[:judged]),
    )


def differences(record: TrialRecord, reference: TrialRecord) -> Array:
    """Return the largest |loss − reference loss| up to each update that both took.

    If one of the losses is NaN, the difference is infinite. The curve ends where both
    are NaN.
    """
    (x, y), (at, expected) = (curve(r, "train", "loss") for r in (record, reference))
    _, here, there = np.intersect1d(x, at, return_indices=True)
    found, wanted = np.array(y, float)[here], np.array(expected, float)[there]
    apart = np.abs(found - wanted)
    neither = np.isnan(found) & np.isnan(wanted)
    end = int(np.argmax(neither)) if neither.any() else len(apart)
    return np.maximum.accumulate(np.where(np.isnan(apart), np.inf, apart)[:end])


def parting(so_far: Array, level: float = LEVEL) -> int | None:
    """Return the first update, from 1, at which a difference exceeds a level."""
    above = so_far > level
    return int(np.argmax(above)) + 1 if above.any() else None


def _before(update: int | None, *curves: Array) -> int:
    """Return the number of updates before one, or of all updates of every curve."""
    ends = [len(found) for found in curves]
    return min(ends if update is None else [*ends, update - 1])


def _excess(so_far: Array, yardstick: Array) -> float | None:
    known = (yardstick > 0) & np.isfinite(so_far)
    if not known.any():
        return None
    return median(so_far[known] / yardstick[known])


# --- figures -------------------------------------------------------------------------


def agreement_panels(run: JudgedRun) -> list[AgreementPanel]:
    """Return a panel for each network and seed that the reference learned."""
    panels = [
        _panel(network, seed, reference)
        for network in _networks(run)
        for seed, reference in network.trials[REFERENCE].items()
    ]
    return [panel for panel in panels if panel.series]


def _panel(
    network: _Network, seed: int | None, reference: TrialRecord
) -> AgreementPanel:
    found = [
        _series(record, reference)
        for who in network.trials
        if who != REFERENCE and (record := network.trial(who, seed)) is not None
    ]
    series = [each for each in found if each.updates]
    own = [s for s in series if (s.implementation, s.dtype) == OWN_FLOAT32]
    return AgreementPanel(
        heading=network.heading,
        cell=reference.trial.cell,
        seed=seed,
        updates=max((s.updates for s in series), default=0),
        reference_parts_at=own[0].parts_at if own else None,
        series=tuple(series),
    )


def _series(record: TrialRecord, reference: TrialRecord) -> AgreementSeries:
    so_far = differences(record, reference)
    shown = np.isfinite(so_far) & (so_far > 0)
    grew = shown & (np.diff(so_far, prepend=0.0) > 0)
    at = np.flatnonzero(grew)
    return AgreementSeries(
        implementation=record.trial.implementation,
        dtype=record.trial.dtype,
        x=(at + 1).tolist(),
        y=so_far[at].tolist(),
        updates=len(so_far),
        parts_at=parting(so_far),
    )
