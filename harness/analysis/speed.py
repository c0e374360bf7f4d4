"""How fast: throughput by implementation and phase, and time to solve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.analysis.doubts import doubts, words
from harness.analysis.grouping import (
    Place,
    group,
    number,
    of_measure,
    place,
    varying,
)
from harness.analysis.learning import LearningRow
from harness.analysis.statistics import Interval
from harness.store import TrialRecord
from harness.trial import Trial

PHASES = ("forward", "loss_and_gradients", "train_step", "stream")


@dataclass(frozen=True)
class SpeedRow:
    """One phase of one implementation at one shape, or a trial without a timing.

    Attributes:
        phase: "" where the trial did not end ok and has no timing.
        time: The 95 % interval of the median time of one call, in seconds.
        relative: Time over the fastest certified one's of the same session, cell and
            phase; None where there is none.
        doubt: Why the row is not certified, or None.
    """

    place: Place
    cell: str
    implementation: str
    trial: Trial
    phase: str
    outcome: str
    reason: str | None
    time_s: float | None
    time: Interval | None
    tokens_per_s: float | None
    tokens: Interval | None
    flop_per_s: float | None
    first_call_s: float | None
    shaky: bool
    certified: bool
    doubt: str | None
    relative: float | None
    kernel: str | None
    framework: str | None
    machine: str | None


def speed_rows(records: Sequence[TrialRecord]) -> list[SpeedRow]:
    """Return the rows of every timed phase, by place, cell and implementation."""
    speed = of_measure(records, "speed")
    if not speed:
        return []
    places = _places(speed)
    known = doubts(records)
    rows = [
        row
        for record in speed
        for row in _rows(record, places[record.id], words([known[record.id]]))
    ]
    return _with_relative(rows)


def _places(speed: Sequence[TrialRecord]) -> dict[str, Place]:
    """Return the place of each trial: what varies is named, the session at need."""
    plain = [replace(record.trial, settings={}) for record in speed]
    names = varying(plain)
    machines = {record.result.get("machine") for record in speed} - {None}
    found = {}
    for record in speed:
        trial = record.trial
        shape = ("batch", "time steps", "input size", "hidden size")
        shown = names if trial.task else tuple(dict.fromkeys([*shape, *names]))
        where = place(trial, shown)
        if len(machines) > 1:
            on = record.result.get("machine") or "unknown machine"
            where = _add(where, f"on {on}")
        found[record.id] = where
    same = group(
        speed, lambda r: (found[r.id], r.trial.cell, r.trial.implementation)
    ).values()
    if any(len(members) > 1 for members in same):
        for record in speed:
            found[record.id] = _add(found[record.id], f"session {record.trial.session}")
    return found


def _add(where: Place, words: str) -> Place:
    return replace(where, variant=" · ".join(w for w in (where.variant, words) if w))


def _rows(record: TrialRecord, where: Place, doubt: str | None) -> list[SpeedRow]:
    splits = {r.split for r in record.readings if r.split not in ("readback",)}
    known = [phase for phase in PHASES if phase in splits]
    known += sorted(splits - set(PHASES))
    timed = [phase for phase in known if number(record, phase, "time_s") is not None]
    if not timed or record.outcome != "ok":
        timed = [""]
    return [_row(record, where, phase, doubt) for phase in timed]


def _row(record: TrialRecord, where: Place, phase: str, doubt: str | None) -> SpeedRow:
    tokens = number(record, phase, "tokens_per_s")
    return SpeedRow(
        place=where,
        cell=record.trial.cell,
        implementation=record.trial.implementation,
        trial=record.trial,
        phase=phase,
        outcome=record.outcome,
        reason=record.reason,
        time_s=number(record, phase, "time_s"),
        time=_interval(record, phase, "time_low_s", "time_high_s"),
        tokens_per_s=tokens,
        tokens=_interval(record, phase, "tokens_low_per_s", "tokens_high_per_s"),
        flop_per_s=number(record, phase, "flop_per_s"),
        first_call_s=number(record, phase, "first_call_s"),
        shaky=number(record, phase, "shaky") == 1,
        certified=doubt is None,
        doubt=doubt,
        relative=None,
        kernel=record.result.get("kernel"),
        framework=record.result.get("framework"),
        machine=record.result.get("machine"),
    )


def _interval(record: TrialRecord, phase: str, low: str, high: str) -> Interval | None:
    ends = number(record, phase, low), number(record, phase, high)
    return None if ends[0] is None or ends[1] is None else Interval(ends[0], ends[1])


def _with_relative(rows: list[SpeedRow]) -> list[SpeedRow]:
    keyed = group(rows, lambda r: (r.place, r.trial.session, r.cell, r.phase))
    found = []
    for members in keyed.values():
        times = [r.time_s for r in members if r.certified and r.time_s is not None]
        best = min(times, default=None)
        for row in members:
            known = best is not None and row.time_s is not None
            ratio = row.time_s / best if known else None  # type: ignore[operator]
            found.append(replace(row, relative=ratio))
    places = list(dict.fromkeys(row.place for row in found))
    cells = list(dict.fromkeys(row.cell for row in found))
    phases = [*PHASES, *sorted({row.phase for row in found} - set(PHASES))]
    return sorted(
        found,
        key=lambda row: (
            places.index(row.place),
            cells.index(row.cell),
            phases.index(row.phase),
        ),
    )


# --- time to solve -------------------------------------------------------------------


@dataclass(frozen=True)
class SolveTime:
    """Updates to solve of a cell, times the certified update time of an implementation.

    Attributes:
        low: From the low ends of both, in seconds.
        high: From the high ends of both; None where the updates' end is beyond the
            budget.
        learned_on: The implementation that the updates were counted on.
        doubt: Why its learning is not certified, or None.
    """

    place: Place
    cell: str
    implementation: str
    device: str
    machine: str | None
    seconds: float
    low: float | None
    high: float | None
    shaky: bool
    learned_on: str
    kernel: str | None = None
    doubt: str | None = None


def solve_times(row: LearningRow, speed: Sequence[SpeedRow]) -> list[SolveTime]:
    """Return the times of every certified implementation, the fastest first.

    Timings at the very shape of the learning trial, on a single thread, count; of two
    timings of one implementation on one device, the later. Empty where the median
    seed did not solve the task.
    """
    if row.updates is None or row.updates.median is None:
        return []
    latest = {
        (timing.implementation, timing.trial.device, timing.machine): timing
        for timing in speed
        if timing.phase == "train_step"
        and timing.certified
        and timing.time_s is not None
        and _shape(timing.trial) == _shape(row.trial)
    }
    found = [_solve_time(row, timing) for timing in latest.values()]
    return sorted(found, key=lambda each: each.seconds)


def _shape(trial: Trial) -> tuple[object, ...]:
    return (
        trial.task,
        trial.length,
        sorted(trial.task_options.items()),
        trial.cell,
        trial.batch,
        trial.hidden_size,
        trial.num_layers,
        trial.dtype,
        trial.precision,
        trial.biases,
        trial.threads,
    )


def _solve_time(row: LearningRow, timing: SpeedRow) -> SolveTime:
    assert row.updates is not None
    assert row.updates.median is not None
    assert timing.time_s is not None
    time = timing.time or Interval(timing.time_s, timing.time_s)
    low, high = row.updates.low, row.updates.high
    return SolveTime(
        place=row.place,
        cell=row.cell,
        implementation=timing.implementation,
        device=timing.trial.device,
        machine=timing.machine,
        seconds=row.updates.median * timing.time_s,
        low=None if low is None else low * time.low,
        high=None if high is None else high * time.high,
        shaky=timing.shaky,
        learned_on=row.implementation,
        kernel=timing.kernel,
        doubt=row.doubt,
    )
