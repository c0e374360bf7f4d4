"""Tables of timings and of time to solve."""

from __future__ import annotations

from harness.analysis.speed import SolveTime, SpeedRow
from harness.analysis.summary import Summary
from harness.report.tables.form import Row, Table, by_place, ends
from harness.report.text import NOTHING, marked, one_line, seconds, short, verdict


def speed_table(summary: Summary) -> Table:
    """Return every timing, uncertified ones marked."""
    head = (
        "cell", "implementation", "phase", "time of a call", "tokens/s",
        "× fastest", "GFLOP/s", "first call", "kernel", "certified",
    )  # fmt: skip
    notes = (
        "Medians with 95 % bootstrap intervals. Ratios are formed within one session "
        "only; 1.00 is the fastest certified implementation. First call: build, trace "
        "and compile, in no other figure. Kernel: what really ran, from evidence.",
    )
    return Table(
        "speed",
        "Timings",
        "lllrrrrrll",
        by_place(head, summary.speed, lambda row: row.place, _speed_row),
        notes,
    )


def _speed_row(row: SpeedRow) -> Row:
    keys = (row.place.task, row.cell, row.implementation)
    if not row.phase:
        why = f"{row.outcome.replace('_', ' ')}: {one_line(row.reason or 'no timing')}"
        cells = (row.cell, row.implementation, NOTHING, *[NOTHING] * 6, why)
        return Row(cells, "bad", *keys)
    flops = None if row.flop_per_s is None else row.flop_per_s / 1e9
    shaky = "shaky " if row.shaky else ""
    return Row(
        (
            row.cell,
            row.implementation,
            phase(row.phase),
            shaky + seconds(row.time_s) + ends(row.time, seconds),
            short(row.tokens_per_s) + ends(row.tokens, short),
            NOTHING if row.relative is None else f"{row.relative:.2f}",
            NOTHING if flops is None else f"{flops:.3g}",
            seconds(row.first_call_s),
            one_line(row.kernel or NOTHING),
            verdict(row.doubt),
        ),
        "" if row.certified and not row.shaky else "doubt",
        *keys,
    )


def phase(name: str) -> str:
    """Return a phase in words."""
    return name.replace("_", " ")


def solve_table(summary: Summary) -> Table:
    """Return time to solve for every certified implementation."""
    head = (
        "cell", "implementation", "device", "kernel", "time to solve",
        "updates counted on",
    )  # fmt: skip
    notes = (
        "Updates to solve × time of one update, both medians; [ ] multiplies the ends "
        "of both spreads, > where the upper one is beyond the budget.",
    )
    return Table(
        "solve-times",
        "Time to solve",
        "llllll",
        by_place(head, summary.solve_times, lambda row: row.place, _solve_row),
        notes,
    )


def _solve_row(row: SolveTime) -> Row:
    shaky = "shaky " if row.shaky else ""
    return Row(
        (
            row.cell,
            row.implementation,
            row.device,
            one_line(row.kernel or NOTHING),
            shaky + seconds(row.seconds) + _span(row),
            marked(row.learned_on, row.doubt),
        ),
        "doubt" if row.shaky or row.doubt else "",
        row.place.task,
        row.cell,
        row.implementation,
    )


def _span(row: SolveTime) -> str:
    if row.low is None:
        return ""
    return f" [{seconds(row.low)}, {'>' if row.high is None else seconds(row.high)}]"
