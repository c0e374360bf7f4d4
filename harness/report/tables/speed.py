"""Tables of timings: how long, at which share of the peak, and what is doubtful."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from harness.analysis.grouping import Heading, group
from harness.analysis.speed.conditions import budget_of
from harness.analysis.speed.latency import SHARES
from harness.analysis.speed.timings import PLACEMENT, Memory, SpeedRow
from harness.analysis.summary import Summary
from harness.intervals import Interval, fewest_to_enclose
from harness.machine.reason import Reason
from harness.measure.speed.phases import PHASES
from harness.report.tables.form import Block, Row, Table, ends
from harness.report.text import (
    NOTHING,
    marked,
    one_line,
    percent,
    seconds,
    short,
    size,
    times,
    verdict,
)


def speed_table(summary: Summary) -> Table:
    """Return every timing, uncertified ones marked."""
    head = (
        "cell", "implementation", "phase", "time of a call", "× fastest", "library",
        "kernel", "certified",
    )  # fmt: skip
    notes = [
        "Medians over turns with intervals: 95 % by name, 91 to 95 % in simulations of "
        "sessions that stop when they are narrow. × fastest: time over "
        "that of the fastest certified implementation, within one session only and "
        "round by round, so that what slowed the machine for a round is in both; where "
        "pairs of rounds name no one fastest, that is told. A "
        "call of stream is one time step at batch 1. Kernel: what really ran, from "
        "evidence."
    ]
    if any(row.phase == PLACEMENT for row in summary.speed):
        notes.append("Place: a batch to the device, in no other figure.")
    return Table(
        "speed",
        "Timings",
        "lllrrlll",
        blocks(head, summary.speed, _speed_row),
        (*notes, *_compiled(summary), *_fitness(summary)),
    )


def rates_table(summary: Summary) -> Table:
    """Return what the timings come to: rates, shares of the peak, memory."""
    head = (
        "cell", "implementation", "phase", "library", "kernel", "tokens/s", "GFLOP/s",
        "of peak", "of roof", "memory",
    )  # fmt: skip
    notes = (
        "Tokens: sequences × time steps. FLOP: the cell's own, whoever computes it. Of "
        "peak: of the best matrix product that any library of the run reached on the "
        "same device, threads and arithmetic. It is measured once a command, in the "
        "library's worker, after the first session that uses it; where `doctor` had "
        "found more, that counts and is named below. Of roof: of the most that this "
        "peak and the copy bandwidth allow for the FLOP and the bytes that a call has "
        "to move at least. Memory: peak of a process of its own, above what its "
        "imports take.",
    )
    rows = [row for row in summary.speed if row.timed]
    return Table(
        "rates",
        "Rates and memory",
        "lllllrrrrr",
        blocks(head, rows, _rates_row),
        (*notes, *_remembered(rows)),
    )


def shaky_table(summary: Summary) -> Table:
    """Return why timings are shaky, and what to do about it."""
    head = ("cell", "implementation", "phase", "why it is shaky", "what to do")
    told = [
        _why(row, each)
        for row in summary.speed
        if row.shaky or row.unstable
        for each in reasons(row)
    ]
    found = group(told, lambda pair: pair[0])
    return Table(
        "shaky",
        "Shaky timings and what to do",
        "lllll",
        tuple(
            Block(head, tuple(row for _, row in members), title)
            for title, members in found.items()
        ),
    )


def latency_table(summary: Summary) -> Table:
    """Return what a user of single time steps waits."""
    head = (
        "cell", "implementation", "p50", "p95", "p99", "longest", "kept", "library",
        "kernel",
    )  # fmt: skip
    notes = (
        "One time step at batch 1 with the state carried, each timed alone: half of "
        "them take p50 at most, 1 of 20 longer than p95, 1 of 100 longer than p99. "
        "[ ] 95 % by name: turns are resampled as blocks, since neighbours see the "
        "same state of the machine; none of fewer turns than 6. Few: fewer than the "
        f"{fewest_to_enclose(SHARES[-1])} that can enclose p99. Kept: the latencies "
        "stored, evenly from all; longest: of these.",
    )
    rows = [row for row in summary.speed if row.latency is not None]
    return Table(
        "latency",
        "Latency of one time step",
        "llrrrrrll",
        tuple(
            _step_block(head, members, title)
            for title, members in group(rows, _step_title).items()
        ),
        notes,
    )


def _step_title(row: SpeedRow) -> str:
    """Return the title of a block without what a single time step does not know."""
    return titled(row.heading.without("batch", "time steps"), budget_of(row.trial))


def _step_block(head: tuple[str, ...], rows: list[SpeedRow], title: str) -> Block:
    """Return a block of single time steps: measured beside several sizes, the latest.

    As the figure has it; the title names the sizes.
    """
    latest = {(row.cell, row.implementation): row for row in rows}
    if len(latest) < len(rows):
        beside = [
            f"{name} {', '.join(map(str, dict.fromkeys(found)))}"
            for name, found in (
                ("batch", [row.trial.batch for row in rows]),
                ("time steps", [row.trial.time_steps for row in rows]),
            )
        ]
        title += f" · the latest of those timed beside {' and '.join(beside)}"
    return Block(head, tuple(map(_latency_row, latest.values())), title)


def blocks(
    head: tuple[str, ...], rows: Iterable[SpeedRow], form: Callable[[SpeedRow], Row]
) -> tuple[Block, ...]:
    """Return a block for each heading and budget."""
    return tuple(
        Block(head, tuple(form(row) for row in members), title)
        for title, members in group(rows, block_title).items()
    )


def block_title(row: SpeedRow) -> str:
    """Return heading and budget: "adding, length 100 · 1 thread · float32"."""
    return titled(row.heading, budget_of(row.trial))


def titled(heading: Heading, budget: str) -> str:
    """Return a heading with its budget, which it may hold already."""
    title = heading.title
    return title if budget in title else f"{title} · {budget}"


def phase(name: str) -> str:
    """Return a phase in words."""
    return name.replace("_", " ")


def phase_order(name: str) -> tuple[int, str]:
    """Return where a phase comes among others: those of a trial's own last."""
    return (PHASES.index(name) if name in PHASES else len(PHASES), name)


def tone(row: SpeedRow) -> str:
    """Return how a row wants to be seen."""
    return "doubt" if row.marks else ""


def keys(row: SpeedRow) -> tuple[str, str, str]:
    """Return what the filter asks for."""
    return row.heading.task, row.cell, row.implementation


def ran(row: SpeedRow) -> tuple[str, str]:
    """Return library and kernel."""
    return one_line(row.framework or NOTHING), one_line(row.kernel or NOTHING)


def timing(row: SpeedRow) -> str:
    """Return "shaky 3.61 ms [3.55, 3.7]"."""
    shaky = "shaky " if row.shaky else ""
    return shaky + seconds(row.time_s) + ends(row.time, seconds)


def failure(row: SpeedRow) -> str:
    """Return why there is no timing."""
    return f"{row.outcome.replace('_', ' ')}: {one_line(row.reason or 'no timing')}"


def reasons(row: SpeedRow) -> tuple[Reason, ...]:
    """Return why a row is shaky; what a run without reasons stored has is said."""
    found = list(row.unstable)
    fitness = row.fitness
    if fitness is not None and fitness.verdict == "unfit" and not found:
        # All that was seen of the machine stands once, under the timings.
        why = fitness.reasons[0] if fitness.reasons else None
        found.append(
            Reason(
                "machine",
                f"the machine was unfit: {why.words or why.kind if why else 'no why'}",
                why.advice
                if why
                else "see `rnn-harness doctor`, and measure again when it says fit",
            )
        )
    if not found:
        words = "wide interval, few turns or no steady state; which was not stored"
        found.append(Reason("unknown", words, "measure again on a quiet machine"))
    return tuple(found)


def _compiled(summary: Summary) -> list[str]:
    """Return what XLA compiled with, of the thread counts that asked for it."""
    told = group(
        (row for row in summary.speed if row.xla_flags), lambda row: row.xla_flags
    )
    return [
        one_line(f"XLA compiled {', '.join(_names(rows))} with {flags}.")
        for flags, rows in told.items()
    ]


def _names(rows: Iterable[SpeedRow]) -> list[str]:
    """Name implementations and their budgets."""
    told = group(rows, lambda row: budget_of(row.trial))
    return [
        f"{' and '.join(dict.fromkeys(r.implementation for r in members))} ({budget})"
        for budget, members in told.items()
    ]


def _remembered(rows: Iterable[SpeedRow]) -> list[str]:
    """Return whose peak it is and of when, where `doctor` had found more."""
    told = {}
    for row in rows:
        peak, budget = row.peak, budget_of(row.trial)
        if peak is not None:
            told[budget, "peak", peak.flop.library] = peak.flop
            if peak.copy is not None:
                told[budget, "copy bandwidth", peak.copy.library] = peak.copy
    said = []
    for (budget, name, by), rate in told.items():
        if by is None or not by.endswith(DOCTOR):
            continue
        at = rate.measured_at
        when = f"found it at {at} UTC" if at else "remembered it"
        library = rate.versions or by.removesuffix(DOCTOR)
        said.append(
            one_line(f"The {name} of {budget} is of {library}, as doctor {when}.")
        )
    return said


DOCTOR = ", doctor"
"""What stands behind a library whose rate `doctor` had found."""


def _fitness(summary: Summary) -> list[str]:
    """Return a sentence for what machines that were not fit had against them."""
    told = group(
        (
            (row.machine, row.fitness)
            for row in summary.speed
            if row.fitness and row.fitness.verdict != "fit"
        ),
        lambda pair: (pair[0], pair[1].verdict),
    )
    said = []
    for (machine, how), members in told.items():
        # One of a kind: every session counts the load anew.
        kinds = {each.kind: each.words for _, fit in members for each in fit.reasons}
        why = f": {'; '.join(kinds.values())}" if kinds else ""
        name = machine or "the machine"
        said.append(one_line(f"Before a session {name} was {how}{why}."))
    return said


def _speed_row(row: SpeedRow) -> Row:
    if not row.phase:
        cells = (row.cell, row.implementation, *[NOTHING] * 5, failure(row))
        return Row(cells, "bad", *keys(row))
    return Row(
        (
            row.cell,
            row.implementation,
            phase(row.phase),
            timing(row),
            _relative(row),
            *ran(row),
            verdict(row.doubt),
        ),
        tone(row),
        *keys(row),
    )


def _relative(row: SpeedRow) -> str:
    """Return × fastest; where a certified one is below 1, that no order fits all."""
    words = times(row.relative) + ends(row.relative_interval, times)
    below = row.certified and (row.relative or 1.0) < 0.995
    return f"{words} (rounds disagree)" if below else words


def _rates_row(row: SpeedRow) -> Row:
    flops = None if row.flop_per_s is None else row.flop_per_s / 1e9
    marks = "".join(f" · {mark}" for mark in row.marks)
    peak, limit = row.peak, row.peak and row.peak.limit(row.intensity)
    return Row(
        (
            row.cell,
            row.implementation + marks,
            phase(row.phase),
            *ran(row),
            short(row.tokens_per_s) + ends(row.tokens, short),
            NOTHING if flops is None else f"{flops:.3g}",
            _share(row.of_peak, peak.flop.machine if peak else None),
            _share(row.of_roof, limit.machine if limit else None),
            memory(row.memory),
        ),
        tone(row),
        *keys(row),
    )


def _share(value: float | None, machine: str | None) -> str:
    """Return "28 %", marked where what limits was measured on an unfit machine."""
    return percent(value) + ("" if value is None else unfit(machine))


def unfit(machine: str | None) -> str:
    """Mark what was measured on an unfit machine."""
    return " (unfit)" if machine == "unfit" else ""


def memory(found: Memory | None) -> str:
    """Return "40.9 MiB", what a GPU held beside it, or how the pass ended."""
    if found is None:
        return NOTHING
    if found.outcome != "ok":
        return found.outcome.replace("_", " ")
    device = [found.allocator_peak_bytes, found.device_peak_bytes]
    held = [size(count) for count in device if count is not None]
    words = size(found.peak_bytes)
    return f"{words}, GPU {' of '.join(held)}" if held else words


def _why(row: SpeedRow, found: Reason) -> tuple[str, Row]:
    cells = (
        row.cell,
        row.implementation,
        phase(row.phase),
        one_line(found.words or found.kind),
        one_line(found.advice or NOTHING),
    )
    return block_title(row), Row(cells, "doubt", *keys(row))


def _waited(value: float | None, interval: Interval | None) -> str:
    return seconds(value) + ends(interval, seconds)


def _latency_row(row: SpeedRow) -> Row:
    found, sample = row.latency, row.latency_sample_s
    assert found is not None
    doubtful = "doubt" if found.few else tone(row)
    return Row(
        (
            row.cell,
            marked(row.implementation, row.doubt),
            ("shaky " if row.shaky else "") + _waited(found.p50_s, found.p50),
            _waited(found.p95_s, found.p95),
            ("few " if found.few else "") + _waited(found.p99_s, found.p99),
            seconds(max(sample, default=None)),
            str(len(sample)) if sample else NOTHING,
            *ran(row),
        ),
        doubtful,
        *keys(row),
    )
