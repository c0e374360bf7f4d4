"""Timings of different machines, each corrected for the speed of its machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.comparison.effect import Effect, unpaired_effect
from harness.analysis.comparison.trial_pairs import TimedTrial
from harness.analysis.speed.timings import SpeedRow
from harness.measure.subject import ORACLE
from harness.trial import HOW_TIMED, IMPLEMENTATION


@dataclass(frozen=True)
class Normalised:
    """Two timings after correcting for their machines.

    Attributes:
        by: What `base` and `new` mean: "fraction of the measured peak".
        effect: The ratio new / base of the corrected times.
    """

    by: str
    base: float
    new: float
    effect: Effect


def normalised(
    base: SpeedRow,
    new: SpeedRow,
    of_base: Sequence[TimedTrial],
    of_new: Sequence[TimedTrial],
    effect: float,
) -> Normalised | None:
    """Correct by peaks, else by an implementation that both sessions timed, else None.

    Args:
        base: A timing.
        new: The same call on another machine, or with another budget.
        of_base: Every timed trial of the run of `base`.
        of_new: Every timed trial of the run of `new`.
        effect: The smallest difference that counts, as a share.
    """
    found = _by_peak(base, new, effect)
    if found is not None:
        return found
    beside = _beside(base, of_base), _beside(new, of_new)
    names = sorted(beside[0].keys() & beside[1].keys())
    for name in sorted(names, key=lambda n: n != ORACLE):
        others = beside[0][name], beside[1][name]
        times = _relative(base, others[0]), _relative(new, others[1])
        ratio = unpaired_effect(*times, effect)
        if ratio is not None:
            shares = base.seconds / others[0].seconds, new.seconds / others[1].seconds
            return Normalised(f"time of {name}", shares[0], shares[1], ratio)
    return None


def _by_peak(base: SpeedRow, new: SpeedRow, effect: float) -> Normalised | None:
    peaks = [side.peak and side.peak.flop.per_s for side in (base, new)]
    rates = base.flop_per_s, new.flop_per_s
    if not (peaks[0] and peaks[1] and rates[0] and rates[1]):
        return None
    times = [[*side.turns.values()] for side in (base, new)]
    found = unpaired_effect(times[0], times[1], effect, scale=peaks[1] / peaks[0])
    if found is None:
        return None
    shares = rates[0] / peaks[0], rates[1] / peaks[1]
    return Normalised("fraction of the measured peak", shares[0], shares[1], found)


def _relative(timing: SpeedRow, other: SpeedRow) -> list[float]:
    """Return the ratio of each common round."""
    rounds = timing.turns.keys() & other.turns.keys()
    return [timing.turns[n] / other.turns[n] for n in sorted(rounds)]


def _beside(timing: SpeedRow, timed: Sequence[TimedTrial]) -> dict[str, SpeedRow]:
    """Return other implementations of the same call in the same session, by name."""
    same = timing.trial.key(HOW_TIMED, IMPLEMENTATION)
    rows = [t.phases[timing.phase] for t in timed if timing.phase in t.phases]
    return {
        row.implementation: row
        for row in rows
        if row.implementation != timing.implementation
        and row.same_session == timing.same_session
        and row.trial.key(HOW_TIMED, IMPLEMENTATION) == same
    }
