"""How fast: every timed phase of every implementation, and what stands behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.analysis.grouping import (
    Heading,
    curve,
    group,
    heading_of,
    number,
    varying,
)
from harness.analysis.run import JudgedRun
from harness.analysis.speed.conditions import (
    Conditions,
    budget_of,
    conditions,
    machine_of,
)
from harness.analysis.speed.latency import SHARES, Latency, latency
from harness.analysis.speed.ratios import (
    Turns,
    by_round,
    paired_median,
    paired_ratio,
    unpaired_ratio,
)
from harness.analysis.speed.roofline import Peak, peak_of, session_of
from harness.intervals import FEWEST, Interval
from harness.measure.speed.phases import PHASES
from harness.measure.speed.stability import WIDEST
from harness.store import TrialRecord
from harness.trial import QUESTION, Settings, Trial

PLACEMENT = "place"
"""The placing of a batch on the device: timed like a phase, and no part of any."""

_BUDGET = ("device", "dtype", "precision", "threads")

_NO_PHASE = ("readback",)


@dataclass(frozen=True)
class Instability:
    """Why a timing is shaky, and what to do about it."""

    kind: str
    words: str
    advice: str


@dataclass(frozen=True)
class Fitness:
    """What `doctor` said of the machine before the session: fit, noisy or unfit."""

    verdict: str
    reasons: tuple[Instability, ...]


@dataclass(frozen=True)
class Memory:
    """Peak memory of a phase, measured in a pass of its own.

    Attributes:
        peak_bytes: Of the process, above what its imports take.
        baseline_bytes: What the imports take.
        allocator_peak_bytes: On a GPU, what the framework says it held.
        device_peak_bytes: On a GPU, what the driver says the process held.
        outcome: How the pass ended; without a value unless `ok`.
    """

    peak_bytes: float | None
    baseline_bytes: float | None
    allocator_peak_bytes: float | None
    device_peak_bytes: float | None
    outcome: str = "ok"


@dataclass(frozen=True)
class SpeedRow:
    """One phase of one implementation at one shape, or a trial without a timing.

    Attributes:
        phase: "" where the trial did not end ok and has no timing; `PLACEMENT` where
            it is none.
        time: The 95 % interval of the median time of one call, in seconds.
        relative: Time over the fastest certified one's of the same session, cell and
            phase, paired by round where rounds are known; None where there is none.
        relative_interval: The 95 % interval of `relative`; None for the fastest.
        doubt: Why the row is not certified, or None.
        flops: Of one call.
        least_bytes: What a call has to move between memory and processor at least.
        xla_flags: What XLA compiled with, of an implementation that it compiles.
        turns: Raw readings by round, in seconds a call.
        latency_sample_s: Raw latencies of single time steps, in order.
        session: Its name; rows of another one share no ratio.
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
    unstable: tuple[Instability, ...] = ()
    memory: Memory | None = None
    session: str | None = None
    fitness: Fitness | None = None
    turns: Turns = field(default_factory=dict, repr=False)
    latency_sample_s: tuple[float, ...] = field(default=(), repr=False)

    @property
    def intensity(self) -> float | None:
        """FLOP per byte that has to be moved, or None."""
        known = self.flops is not None and self.least_bytes
        return self.flops / self.least_bytes if known else None  # type: ignore[operator]

    @property
    def of_peak(self) -> float | None:
        """Fraction of the machine's measured peak, or None."""
        return _share(
            self.flop_per_s, None if self.peak is None else self.peak.flop_per_s
        )

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
        return self.time_s is not None and self.phase not in ("", PLACEMENT)

    @property
    def marks(self) -> tuple[str, ...]:
        """What has to stand beside its number."""
        marks = () if self.certified else ("uncertified",)
        return (*marks, "shaky") if self.shaky else marks


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def without_samples(row: SpeedRow) -> SpeedRow:
    """Return a row without its raw readings, for where it is only told."""
    return replace(row, turns={}, latency_sample_s=())


def speed_rows(run: JudgedRun) -> list[SpeedRow]:
    """Return the rows of every timed phase, by place, cell and implementation."""
    speed = run.of("speed")
    if not speed:
        return []
    headings = _places(speed)
    memory = {_memory_key(r): r for r in run.of("memory")}
    rows = [
        row
        for record in speed
        for row in _rows(
            record,
            headings[record.id],
            run.doubt([record]),
            memory.get(_memory_key(record)),
        )
    ]
    return _with_relative(rows)


# --- where a row stands --------------------------------------------------------------


def _places(speed: Sequence[TrialRecord]) -> dict[str, Heading]:
    """Return the place of each trial: what is unlike is named, the session at need."""
    by_task, by_shape = (
        _named([r for r in speed if (r.trial.task is not None) is asked])
        for asked in (True, False)
    )
    budgets = {budget_of(record.trial) for record in speed}
    machines = {record.result.get("machine") for record in speed} - {None}
    found = {}
    for record in speed:
        trial = record.trial
        shape = ("batch", "time steps", "input size", "hidden size")
        shown = by_task if trial.task else tuple(dict.fromkeys([*shape, *by_shape]))
        where = heading_of(trial, shown)
        if len(budgets) > 1:
            where = _add(where, budget_of(trial))
        if len(machines) > 1:
            on = record.result.get("machine") or "unknown machine"
            where = _add(where, f"on {on}")
        found[record.id] = where
    same = group(
        speed, lambda r: (found[r.id], r.trial.cell, r.trial.implementation)
    ).values()
    several = {found[m[0].id] for m in same if len(m) > 1}
    for record in speed:
        if found[record.id] in several:
            found[record.id] = _add(found[record.id], f"session {session_of(record)}")
    return found


def _named(speed: Sequence[TrialRecord]) -> tuple[str, ...]:
    """Return the sizes that differ inside a cell, whoever computes it.

    The budget is named apart, where it differs anywhere.
    """
    plain = [replace(r.trial, settings=Settings(), implementation="") for r in speed]
    return tuple(name for name in varying(plain) if name not in _BUDGET)


def _add(where: Heading, words: str) -> Heading:
    return replace(where, variant=" · ".join(w for w in (where.variant, words) if w))


# --- what a row says -----------------------------------------------------------------


def _memory_key(record: TrialRecord) -> tuple[str | None, str]:
    return machine_of(record), record.trial.key(QUESTION)


def _rows(
    record: TrialRecord, where: Heading, doubt: str | None, memory: TrialRecord | None
) -> list[SpeedRow]:
    splits = {r.split for r in record.readings if r.split not in _NO_PHASE}
    known = [phase for phase in PHASES if phase in splits]
    known += sorted(splits - set(PHASES))
    timed = [phase for phase in known if number(record, phase, "time_s") is not None]
    if not timed or record.outcome != "ok":
        timed = [""]
    return [_row(record, where, phase, doubt, memory) for phase in timed]


def _row(
    record: TrialRecord,
    where: Heading,
    phase: str,
    doubt: str | None,
    memory: TrialRecord | None,
) -> SpeedRow:
    fitness = _fitness(record)
    unfit = fitness is not None and fitness.verdict == "unfit"
    unstable = _unstable(record, phase)
    shaky = number(record, phase, "shaky") == 1 or (phase == PLACEMENT and unstable)
    steps = record.result.get("time_steps", record.trial.time_steps)
    return SpeedRow(
        heading=where,
        cell=record.trial.cell,
        implementation=record.trial.implementation,
        trial=record.trial,
        phase=phase,
        outcome=record.outcome,
        reason=record.reason,
        time_s=number(record, phase, "time_s"),
        time=_interval(record, phase, "time_low_s", "time_high_s"),
        tokens_per_s=number(record, phase, "tokens_per_s"),
        tokens=_interval(record, phase, "tokens_low_per_s", "tokens_high_per_s"),
        flop_per_s=number(record, phase, "flop_per_s"),
        first_call_s=_first_call_s(record, memory, phase),
        shaky=bool(phase) and bool(shaky or unfit),
        certified=doubt is None,
        doubt=doubt,
        relative=None,
        kernel=record.result.get("kernel"),
        framework=record.result.get("framework"),
        machine=machine_of(record),
        conditions=conditions(record),
        time_steps=steps if isinstance(steps, int) else None,
        flops=number(record, phase, "flops"),
        least_bytes=number(record, phase, "least_bytes"),
        xla_flags=_xla_flags(record),
        peak=peak_of(record),
        latency=_latency(record, phase),
        unstable=unstable,
        memory=_memory(memory, phase),
        session=session_of(record),
        fitness=fitness,
        turns=_turns(record, phase),
        latency_sample_s=_sample(record, phase, "latency_s"),
    )


def _interval(record: TrialRecord, phase: str, low: str, high: str) -> Interval | None:
    """Return a stored interval, unless of too few turns to enclose their median."""
    if 0 < len(_turns(record, phase)) < FEWEST:
        return None
    ends = number(record, phase, low), number(record, phase, high)
    return None if ends[0] is None or ends[1] is None else Interval(ends[0], ends[1])


def _latency(record: TrialRecord, phase: str) -> Latency | None:
    return latency(
        [number(record, phase, f"latency_p{100 * share:.0f}_s") for share in SHARES],
        _sample(record, phase, "latency_s"),
        len(_turns(record, phase)),
    )


def _xla_flags(record: TrialRecord) -> str | None:
    """Return the pinned flags where the kernel says that XLA compiled it."""
    pinned, kernel = record.result.get("pinned"), record.result.get("kernel")
    if not isinstance(pinned, Mapping) or not str(kernel or "").startswith("XLA"):
        return None
    flags = pinned.get("XLA_FLAGS")
    return None if flags is None else str(flags)


def _unstable(record: TrialRecord, phase: str) -> tuple[Instability, ...]:
    if phase == PLACEMENT and number(record, phase, "shaky") is None:
        return _wide(record)
    found = record.result.get("unstable")
    told = found.get(phase) if isinstance(found, Mapping) else None
    return tuple(map(_reason, told or ()))


def _wide(record: TrialRecord) -> tuple[Instability, ...]:
    """Return why a placement is shaky, of a run that has stored no verdict of it."""
    time_s = number(record, PLACEMENT, "time_s")
    found = _interval(record, PLACEMENT, "time_low_s", "time_high_s")
    if not time_s or found is None:
        return ()
    width = (found.high - found.low) / time_s
    if width <= WIDEST:
        return ()
    return (
        Instability(
            "wide",
            f"the interval is {width:.0%} of the median wide",
            "take it as an order of magnitude",
        ),
    )


def _reason(found: object) -> Instability:
    if not isinstance(found, Mapping):
        return Instability("", str(found), "")
    return Instability(
        str(found.get("kind") or ""),
        str(found.get("words") or ""),
        str(found.get("advice") or ""),
    )


def _fitness(record: TrialRecord) -> Fitness | None:
    found = record.result.get("fitness")
    if not isinstance(found, Mapping) or not found.get("verdict"):
        return None
    return Fitness(
        str(found["verdict"]), tuple(map(_reason, found.get("reasons") or ()))
    )


def _memory(record: TrialRecord | None, phase: str) -> Memory | None:
    if record is None:
        return None
    found = Memory(
        number(record, phase, "peak_bytes"),
        number(record, phase, "baseline_bytes"),
        number(record, phase, "allocator_peak_bytes"),
        number(record, phase, "device_peak_bytes"),
        record.outcome,
    )
    return None if found == Memory(None, None, None, None) else found


def _first_call_s(
    record: TrialRecord, memory: TrialRecord | None, phase: str
) -> float | None:
    """Return what a first call took: in a process of its own, if one measured memory.

    None where the session was begun again in a worker that had built it before.
    """
    cold = None if memory is None else number(memory, phase, "first_call_s")
    if cold is None and not record.result.get("built_before"):
        return number(record, phase, "first_call_s")
    return cold


def _sample(record: TrialRecord, phase: str, metric: str) -> tuple[float, ...]:
    return tuple(
        value for value in curve(record, phase, metric)[1] if value is not None
    )


def _turns(record: TrialRecord, phase: str) -> dict[int, tuple[float, ...]]:
    samples = curve(record, phase, "sample_s")[1]
    rounds = curve(record, phase, "round")[1]
    if len(rounds) != len(samples):
        return {}
    return {n: tuple(kept) for n, kept in by_round(samples, rounds).items()}


# --- how they stand to each other ----------------------------------------------------


def _with_relative(rows: list[SpeedRow]) -> list[SpeedRow]:
    keyed = group(
        rows, lambda r: (r.heading, r.trial.session, r.session, r.cell, r.phase)
    )
    found = []
    for members in keyed.values():
        known = [r for r in members if r.certified and r.timed]
        best = fastest_of(known)
        found += [row if best is None else _against(row, best) for row in members]
    headings = list(dict.fromkeys(row.heading for row in found))
    cells = list(dict.fromkeys(row.cell for row in found))
    phases = [*PHASES, *sorted({row.phase for row in found} - set(PHASES))]
    return sorted(
        found,
        key=lambda row: (
            headings.index(row.heading),
            cells.index(row.cell),
            phases.index(row.phase),
        ),
    )


def fastest_of(rows: Sequence[SpeedRow]) -> SpeedRow | None:
    """Return the row that no other is faster than, paired by round where it can be.

    Pairs need not agree with the medians of either row's own times, nor with each
    other: where there is no such row, it is the one that is beaten by least.
    """

    def beaten(base: SpeedRow) -> tuple[float, float]:
        least = min((_over(base, row) or 1.0 for row in rows), default=1.0)
        return least, -(base.time_s or 0.0)

    return max(rows, key=beaten, default=None)


def _over(base: SpeedRow, new: SpeedRow) -> float | None:
    if new.time_s is None or not base.time_s:
        return None
    ratio = paired_median(base.turns, new.turns)
    return new.time_s / base.time_s if ratio is None else ratio


def _against(row: SpeedRow, best: SpeedRow) -> SpeedRow:
    if row is best:
        return replace(row, relative=1.0)
    ratio = _over(best, row)
    if ratio is None:
        return row
    return replace(
        row,
        relative=ratio,
        relative_interval=ratio_interval(best, row),
    )


def ratio_interval(base: SpeedRow, new: SpeedRow) -> Interval | None:
    """Return the interval of new over base: by round, else from both intervals."""
    found = paired_ratio(base.turns, new.turns)
    if found is not None or base.time is None or new.time is None:
        return found
    return unpaired_ratio(base.time, new.time)
