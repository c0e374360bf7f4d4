"""The table of time to solve."""

from __future__ import annotations

from harness.analysis.solve_time import SolveTime
from harness.analysis.summary import Summary
from harness.report.tables.form import Row, Table, by_place
from harness.report.text import NOTHING, marked, one_line, seconds


def solve_table(summary: Summary) -> Table:
    """Return time to solve for every certified implementation."""
    head = (
        "cell", "implementation", "device", "kernel", "time to solve",
        "updates counted on",
    )  # fmt: skip
    notes = (
        "Updates to solve × time of one update, both medians. [ ] carries both doubts: "
        "it multiplies the low ends of both spreads and the high ends of both, which "
        "is wider than either alone asks for; > where the upper one is beyond the "
        "budget.",
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
