"""The timings of a run: a row for each timed phase, and for each trial without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.analysis.doubts import wrong
from harness.analysis.grouping import (
    Heading,
    curve,
    group,
    heading_of,
    known_curve,
    number,
    varying,
)
from harness.analysis.run import JudgedRun
from harness.analysis.speed.conditions import budget_of, conditions_of, machine_of
from harness.analysis.speed.latency import Latency, latency
from harness.analysis.speed.roofline import peak_of, session_of
from harness.intervals import FEWEST, Interval, median
from harness.machine.peak import Peak
from harness.measure.speed.phases import PHASES
from harness.measure.speed.results import LATENCIES
from harness.measure.speed.stability import WIDEST
from harness.reason import Fitness, Reason
from harness.store import TrialRecord
from harness.trial import QUESTION, THREADS_AND_ARITHMETIC, Conditions, Settings, Trial

PLACEMENT = "place"
"""Copying a batch to the device, which is timed like a phase and part of no phase."""

MACHINE = ("machine", "processor", "gpu")
"""Facts of a result about its machine; if one differs, the machines differ."""

_SHAPE = ("batch", "time steps", "input size", "hidden size")


@dataclass(frozen=True)
class Memory:
    """Peak memory of a phase, measured in a separate process.

    Attributes:
        peak_bytes: Memory of the process without that of its imports.
        baseline_bytes: Memory of the imports.
        allocator_peak_bytes: On a GPU, the memory that the framework reports.
        device_peak_bytes: On a GPU, the memory of the process that the driver reports.
        outcome: How the trial ended; there are values only if it is `ok`.
    """

    peak_bytes: float | None
    baseline_bytes: float | None
    allocator_peak_bytes: float | None
    device_peak_bytes: float | None
    outcome: str = "ok"


@dataclass(frozen=True)
class SpeedRow:
    """One timed phase of one trial, or a trial without a timing.

    Attributes:
        phase: The phase, or `PLACEMENT`; "" if the trial has no timing.
        time: The 95 % interval of the median time of one call, in seconds.
        relative: Time divided by that of the fastest certified implementation of the
            same session, cell and phase; None if there is none.
        relative_interval: The 95 % interval of `relative`; None for the fastest.
        doubt: Why the row is not certified, or None.
        wrong: How its results differ from the reference, or None.
        flops: FLOP of one call.
        least_bytes: Bytes that a call has to move between memory and processor.
        xla_flags: The flags of XLA, if it compiled the implementation.
        session: Its name; rows of different sessions share no ratio.
        turns: Median seconds of a call by round of the session.
        latency_sample_s: Raw latencies of single time steps, in order.
        machine_facts: The values of `MACHINE` in the result.
        flushes: Whether the library sets subnormal numbers to zero, if it is known.
        host: Where it ran; sessions of one name on two hosts are two sessions.
    """

    heading: Heading
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
    conditions: Conditions
    time_steps: int | None = None
    relative_interval: Interval | None = None
    flops: float | None = None
    least_bytes: float | None = None
    xla_flags: str | None = None
    peak: Peak | None = None
    latency: Latency | None = None
    unstable: tuple[Reason, ...] = ()
    memory: Memory | None = None
    session: str | None = None
    fitness: Fitness | None = None
    wrong: str | None = field(default=None, repr=False)
    turns: Mapping[int, float] = field(default_factory=dict, repr=False)
    latency_sample_s: tuple[float, ...] = field(default=(), repr=False)
    machine_facts: Mapping[str, str] = field(default_factory=dict, repr=False)
    host: str = field(default="", repr=False)
    flushes: bool | None = field(default=None, repr=False)

    @property
    def intensity(self) -> float | None:
        """FLOP per byte that has to be moved, or None."""
        return _share(self.flops, self.least_bytes)

    @property
    def of_peak(self) -> float | None:
        """Fraction of the machine's measured peak, or None."""
        peak = None if self.peak is None else self.peak.flop.per_s
        return _share(self.flop_per_s, peak)

    @property
    def roof_flop_per_s(self) -> float | None:
        """The most that memory and arithmetic together allow at this intensity."""
        return None if self.peak is None else self.peak.roof(self.intensity)

    @property
    def of_roof(self) -> float | None:
        """Fraction of the roof at this intensity, or None."""
        return _share(self.flop_per_s, self.roof_flop_per_s)

    @property
    def timed(self) -> bool:
        """Whether it is the timing of a phase."""
        return (self.time_s or 0.0) > 0 and self.phase not in ("", PLACEMENT)

    @property
    def seconds(self) -> float:
        """Seconds of one call, of a row that is timed."""
        assert self.time_s is not None
        return self.time_s

    @property
    def span(self) -> Interval:
        """The interval of a row that is timed; its median alone if there is none."""
        return self.time or Interval(self.seconds, self.seconds)

    @property
    def ran(self) -> str | None:
        """The kernel, and what its library does with subnormal numbers."""
        if self.kernel is None or self.flushes is None:
            return self.kernel
        return f"{self.kernel}, {'flushes' if self.flushes else 'keeps'} subnormals"

    @property
    def unfit(self) -> bool:
        """Whether the machine was unfit before the session."""
        return self.fitness is not None and self.fitness.verdict == "unfit"

    @property
    def marks(self) -> tuple[str, ...]:
        """The words that are shown beside its number."""
        marks = () if self.certified else ("uncertified",)
        return (*marks, "shaky") if self.shaky else marks

    @property
    def same_session(self) -> tuple[str | None, str]:
        """Equal for rows that were timed in the same session."""
        return self.session, self.host


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def timings(run: JudgedRun) -> list[SpeedRow]:
    """Return every row of a run, trials in the order in which they ended."""
    speed = run.of("speed")
    headings = _headings(speed)
    memory = {_memory_key(record): record for record in run.of("memory")}
    return [
        _row(record, phase, headings[record.id], run, memory.get(_memory_key(record)))
        for record in speed
        for phase in _phases(record)
    ]


def _memory_key(record: TrialRecord) -> tuple[str | None, str]:
    return machine_of(record), record.trial.key(QUESTION)


def _phases(record: TrialRecord) -> list[str]:
    """Return what a trial has timed; one empty name if it has timed nothing."""
    if record.outcome != "ok":
        return [""]
    splits = sorted({r.split for r in record.readings} - {"readback"}, key=phase_order)
    timed = [phase for phase in splits if number(record, phase, "time_s") is not None]
    return timed or [""]


def phase_order(phase: str) -> tuple[int, str]:
    """Return a key to sort phases by: the known ones in their order, then the rest."""
    return rank(phase, PHASES)


def rank(name: str, names: Sequence[str]) -> tuple[int, str]:
    """Return a key to sort names by: in the order of `names`, then the rest."""
    return (names.index(name) if name in names else len(names), name)


# --- headings ------------------------------------------------------------------------


def _headings(speed: Sequence[TrialRecord]) -> dict[str, Heading]:
    """Return the heading of each trial, by trial id.

    It names the sizes that differ, then the budget, the machine and the session if one
    of them differs between trials that would have the same heading.
    """
    by_task, by_shape = (
        _varying_sizes([r for r in speed if (r.trial.task is not None) is asked])
        for asked in (True, False)
    )
    several_budgets = len({budget_of(record.trial) for record in speed}) > 1
    several_machines = len({machine_of(record) for record in speed} - {None}) > 1
    found = {}
    for record in speed:
        trial = record.trial
        sizes = by_task if trial.task else tuple(dict.fromkeys([*_SHAPE, *by_shape]))
        budget = budget_of(trial) if several_budgets else ""
        machine = f"on {machine_of(record) or 'unknown machine'}"
        on = machine if several_machines else ""
        found[record.id] = heading_of(trial, sizes).with_words(budget).with_words(on)
    same = group(speed, lambda r: (found[r.id], r.trial.cell, r.trial.implementation))
    several = {heading for (heading, _, _), records in same.items() if len(records) > 1}
    return {
        record.id: heading.with_words(f"session {session_of(record)}")
        if (heading := found[record.id]) in several
        else heading
        for record in speed
    }


def _varying_sizes(speed: Sequence[TrialRecord]) -> tuple[str, ...]:
    """Return the sizes that differ within one cell, whatever the implementation."""
    plain = [replace(r.trial, settings=Settings(), implementation="") for r in speed]
    return tuple(
        n for n in varying(plain) if n not in ("device", *THREADS_AND_ARITHMETIC)
    )


# --- one row -------------------------------------------------------------------------


_NUMBERS = ("time_s", "tokens_per_s", "flop_per_s", "flops", "least_bytes")
_BYTES = ("peak_bytes", "baseline_bytes", "allocator_peak_bytes", "device_peak_bytes")
"""Fields of a row and of its memory that a trial stores under the same names."""


def _row(
    record: TrialRecord,
    phase: str,
    heading: Heading,
    run: JudgedRun,
    memory: TrialRecord | None,
) -> SpeedRow:
    trial, result = record.trial, record.result
    doubt, fitness = run.doubt([record]), result.get("fitness") or {}
    steps = result.get("time_steps", trial.time_steps)
    turns, unstable = _turns(record, phase), result.get("unstable") or {}
    sample = tuple(known_curve(record, phase, "latency_s")[1])
    stored: dict[str, Any] = {name: number(record, phase, name) for name in _NUMBERS}
    row = SpeedRow(
        heading=heading,
        cell=trial.cell,
        implementation=trial.implementation,
        trial=trial,
        phase=phase,
        outcome=record.outcome,
        reason=record.reason,
        **stored,
        time=_interval(record, phase, "time_low_s", "time_high_s", turns),
        tokens=_interval(record, phase, "tokens_low_per_s", "tokens_high_per_s", turns),
        first_call_s=_first_call_s(record, memory, phase),
        shaky=number(record, phase, "shaky") == 1,
        certified=doubt is None,
        doubt=doubt,
        relative=None,
        kernel=result.get("kernel"),
        framework=result.get("framework"),
        machine=machine_of(record),
        conditions=conditions_of(record),
        time_steps=steps if isinstance(steps, int) else None,
        xla_flags=_xla_flags(record),
        peak=peak_of(record),
        latency=latency(
            [number(record, phase, name) for name in LATENCIES], sample, len(turns)
        ),
        unstable=tuple(map(Reason.from_json, unstable.get(phase) or ())),
        memory=_memory(memory, phase),
        session=session_of(record),
        fitness=Fitness.from_json(fitness) if fitness.get("verdict") else None,
        wrong=wrong(run.doubts[record.id]),
        turns=turns,
        latency_sample_s=sample,
        machine_facts={name: str(result[name]) for name in MACHINE if result.get(name)},
        host=str(result.get("host") or ""),
        flushes=result.get("flushes_subnormals"),
    )
    if phase == PLACEMENT and not row.shaky:
        row = replace(row, unstable=_wide(row), shaky=bool(_wide(row)))
    return replace(row, shaky=row.shaky or row.unfit) if phase else row


def _turns(record: TrialRecord, phase: str) -> dict[int, float]:
    """Return the median seconds of a call by round, from the raw readings."""
    samples, rounds = (
        curve(record, phase, metric)[1] for metric in ("sample_s", "round")
    )
    pairs = zip(rounds, samples, strict=False)
    read = [(int(n), s) for n, s in pairs if n is not None and s is not None and s > 0]
    return {
        n: median([sample for _, sample in of_round])
        for n, of_round in group(read, lambda pair: pair[0]).items()
    }


def _interval(
    record: TrialRecord, phase: str, low: str, high: str, turns: Mapping[int, float]
) -> Interval | None:
    """Return a stored interval; None if the turns are too few to enclose a median."""
    ends = number(record, phase, low), number(record, phase, high)
    if ends[0] is None or ends[1] is None or 0 < len(turns) < FEWEST:
        return None
    return Interval(ends[0], ends[1])


def _xla_flags(record: TrialRecord) -> str | None:
    """Return the pinned flags if the kernel says that XLA compiled it."""
    if not str(record.result.get("kernel") or "").startswith("XLA"):
        return None
    flags = (record.result.get("pinned") or {}).get("XLA_FLAGS")
    return None if flags is None else str(flags)


def _wide(row: SpeedRow) -> tuple[Reason, ...]:
    """Return why a placement is shaky; a session judges only phases."""
    if not row.time_s or row.time is None:
        return ()
    width = (row.time.high - row.time.low) / row.time_s
    if width <= WIDEST:
        return ()
    words = f"the interval is {width:.0%} of the median wide"
    return (Reason("wide", words, "take it as an order of magnitude"),)


def _memory(record: TrialRecord | None, phase: str) -> Memory | None:
    if record is None:
        return None
    stored = {name: number(record, phase, name) for name in _BYTES}
    found = Memory(**stored, outcome=record.outcome)
    return None if found == Memory(None, None, None, None) else found


def _first_call_s(
    record: TrialRecord, memory: TrialRecord | None, phase: str
) -> float | None:
    """Return the seconds of the first call, from the trial of memory if there is one.

    None if the worker had built the network before, for a session that it began again.
    """
    cold = None if memory is None else number(memory, phase, "first_call_s")
    if cold is None and not record.result.get("built_before"):
        return number(record, phase, "first_call_s")
    return cold
