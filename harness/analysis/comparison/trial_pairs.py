"""Pairs of trials of two runs, and how their machines and budgets differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.analysis.grouping import group
from harness.analysis.run import JudgedRun
from harness.analysis.speed.timings import MACHINE, SpeedRow, timings
from harness.trial import HOW_TIMED, THREADS_AND_ARITHMETIC, Trial

_NOT_COMPARED = (*THREADS_AND_ARITHMETIC, "readout")
"""Fields in which two timings of one call may differ: they are paired to say so."""


@dataclass(frozen=True)
class TimedTrial:
    """A speed trial with its timings by phase.

    Attributes:
        failure: Why it has no timings; "" if it has some.
    """

    trial: Trial
    phases: Mapping[str, SpeedRow]
    failure: str

    @property
    def key(self) -> str:
        """Equal for trials that time the same call."""
        return self.trial.key(HOW_TIMED)


def timed_trials(run: JudgedRun) -> list[TimedTrial]:
    """Return the speed trials of a run; of several that time one call, the last."""
    found = group(timings(run), lambda row: row.trial.key(HOW_TIMED)).values()
    return [
        _timed_trial([r for r in rows if r.trial is rows[-1].trial]) for rows in found
    ]


def _timed_trial(rows: Sequence[SpeedRow]) -> TimedTrial:
    phases = {row.phase: row for row in rows if row.timed}
    last = rows[-1]
    outcome = "nothing timed" if last.outcome == "ok" else last.outcome
    reason = f": {last.reason}" if last.reason else ""
    failure = "" if phases else outcome.replace("_", " ") + reason
    return TimedTrial(last.trial, phases, failure)


def trial_pairs(
    base: Sequence[TimedTrial], new: Sequence[TimedTrial], *, across_machines: bool
) -> Iterator[tuple[TimedTrial | None, TimedTrial | None]]:
    """Yield the trials that time the same call in pairs, and the others alone.

    Trials that differ only in their budgets, or in the time steps at which a network
    answers, are pairs too. They are compared only if `across_machines` is True;
    otherwise the pair only says what differs.
    Across machines, a trial with several such partners stays alone.
    """
    left = {trial.key: trial for trial in new}
    alone = []
    for trial in base:
        partner = left.pop(trial.key, None)
        if partner is None:
            alone.append(trial)
        else:
            yield trial, partner
    near = group(left.values(), lambda side: side.trial.key(HOW_TIMED, _NOT_COMPARED))
    for trial in alone:
        close = near.get(trial.trial.key(HOW_TIMED, _NOT_COMPARED), [])
        if not close or (across_machines and len(close) > 1):
            yield trial, None
            continue
        yield trial, close[0]
        for partner in close:
            left.pop(partner.key, None)
    for trial in left.values():
        yield None, trial


def other_machine(base: SpeedRow, new: SpeedRow) -> tuple[str, ...]:
    """Return what differs between the machines: "processor 'A' against 'B'"."""
    ours, theirs = base.machine_facts, new.machine_facts
    return tuple(
        f"{name} '{ours[name]}' against '{theirs[name]}'"
        for name in MACHINE
        if name in ours and name in theirs and ours[name] != theirs[name]
    )


def other_budget(base: Trial, new: Trial) -> tuple[str, ...]:
    """Return what differs, of budget and readout: "threads 1 against 2"."""
    return tuple(
        f"{name} {getattr(base, name)} against {getattr(new, name)}"
        for name in _NOT_COMPARED
        if getattr(base, name) != getattr(new, name)
    )
