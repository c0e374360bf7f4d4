"""The timings of a run as they are compared: one phase of one trial each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.analysis.doubts import words
from harness.analysis.grouping import curve, number
from harness.analysis.run import JudgedRun
from harness.analysis.speed.ratios import by_round
from harness.analysis.speed.roofline import Peak, peak_of, session_of
from harness.measure.speed.phases import PHASES
from harness.store import TrialRecord
from harness.trial import HOW_TIMED, SpeedSettings, Trial

UNLIKE = ("machine", "processor", "gpu")
"""What makes two machines unlike, as a trial's result says it."""

Medians = Mapping[int, float]
"""Median seconds of a call by round: one turn each."""


@dataclass(frozen=True)
class Timing:
    """One phase of one trial that ended ok.

    Attributes:
        turns: By round of its session; empty where the run does not tell rounds.
        session: Its name and host; timings of one session have rounds in common.
        marks: What has to stand beside its number.
        wrong: What it computed otherwise than the reference, or None.
    """

    trial: Trial
    phase: str
    time_s: float
    turns: Medians = field(repr=False)
    session: tuple[str, str] | None
    machine: Mapping[str, str]
    framework: str | None
    kernel: str | None
    flop_per_s: float | None
    peak: Peak | None
    marks: tuple[str, ...]
    wrong: str | None = None


@dataclass(frozen=True)
class Timed:
    """A speed trial: its timings by phase, or why it has none."""

    trial: Trial
    outcome: str
    reason: str | None
    phases: Mapping[str, Timing]

    @property
    def failure(self) -> str:
        """Why it has no timings; "" where it has."""
        if self.phases:
            return ""
        outcome = "nothing timed" if self.outcome == "ok" else self.outcome
        reason = f": {self.reason}" if self.reason else ""
        return outcome.replace("_", " ") + reason


def timed_trials(run: JudgedRun) -> list[Timed]:
    """Return the speed trials of a run; of several that ask the same, the last."""
    found = {
        record.trial.key(HOW_TIMED): _timed(record, run) for record in run.of("speed")
    }
    return list(found.values())


def turns(record: TrialRecord, phase: str) -> dict[int, float]:
    """Return the median seconds of a call by round, from the raw readings.

    Runs from before rounds were stored have a fixed number of readings a turn.
    """
    samples = curve(record, phase, "sample_s")[1]
    rounds = curve(record, phase, "round")[1]
    if not rounds:
        a_turn = record.trial.settings_as(SpeedSettings).readings
        if not a_turn or len(samples) % a_turn:
            return {}
        rounds = [index // a_turn for index in range(len(samples))]
    positive = [sample if sample and sample > 0 else None for sample in samples]
    found = by_round(positive, rounds)
    return {number: float(np.median(readings)) for number, readings in found.items()}


def _timed(record: TrialRecord, run: JudgedRun) -> Timed:
    phases = {}
    if record.outcome == "ok":
        for phase in PHASES:
            time_s = number(record, phase, "time_s")
            if time_s is not None and time_s > 0:
                phases[phase] = _timing(record, phase, time_s, run)
    return Timed(record.trial, record.outcome, record.reason, phases)


def _timing(record: TrialRecord, phase: str, time_s: float, run: JudgedRun) -> Timing:
    told = record.result.get("unstable")
    told = told.get(phase) if isinstance(told, Mapping) else None
    unstable = [each for each in told or () if isinstance(each, Mapping)]
    session = session_of(record)
    host = str(record.result.get("host") or "")
    return Timing(
        trial=record.trial,
        phase=phase,
        time_s=time_s,
        turns=turns(record, phase),
        session=None if session is None else (session, host),
        machine={
            name: str(record.result[name]) for name in UNLIKE if record.result.get(name)
        },
        framework=_name(record.result.get("framework")),
        kernel=_name(record.result.get("kernel")),
        flop_per_s=number(record, phase, "flop_per_s"),
        peak=peak_of(record),
        marks=_marks(record, phase, unstable, run.doubt([record])),
        wrong=words([[d for d in run.doubts[record.id] if d.kind.startswith(_WRONG)]]),
    )


_WRONG = ("broken", "read-back differs")
"""Doubts that say that something else was computed, not that nobody looked."""


def _marks(
    record: TrialRecord,
    phase: str,
    unstable: Sequence[Mapping[str, object]],
    doubt: str | None,
) -> tuple[str, ...]:
    marks = [] if doubt is None else [f"uncertified ({doubt})"]
    kinds = ", ".join(dict.fromkeys(str(each.get("kind")) for each in unstable))
    if unstable or number(record, phase, "shaky") == 1:
        marks.append(f"shaky ({kinds})" if kinds else "shaky")
    fitness = record.result.get("fitness")
    if isinstance(fitness, Mapping) and fitness.get("verdict") not in (None, "fit"):
        marks.append(f"{fitness['verdict']} machine")
    return tuple(marks)


def _name(value: object) -> str | None:
    return None if value is None else str(value)
