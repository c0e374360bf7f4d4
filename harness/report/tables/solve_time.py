"""The table of time to solve."""

from __future__ import annotations

from harness.analysis.grouping import group
from harness.analysis.learning.solve_time import SolveTime
from harness.analysis.summary import Summary
from harness.intervals import Interval
from harness.report.tables.form import Block, Row, Table, ends
from harness.report.tables.speed import titled
from harness.report.text import NOTHING, marked, one_line, seconds


def solve_table(summary: Summary) -> Table:
    """Return time to solve for every certified implementation."""
    head = (
        "cell", "implementation", "library", "kernel", "time to solve",
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
        tuple(
            Block(head, tuple(_solve_row(row) for row in members), title)
            for title, members in group(
                summary.solve_times, lambda row: titled(row.heading, row.budget)
            ).items()
        ),
        notes,
    )


def _solve_row(row: SolveTime) -> Row:
    shaky = "shaky " if row.shaky else ""
    return Row(
        (
            row.cell,
            row.implementation,
            one_line(row.framework or NOTHING),
            one_line(row.kernel or NOTHING),
            shaky + seconds(row.seconds) + span(row),
            marked(row.learned_on, row.doubt),
        ),
        "doubt" if row.shaky or row.doubt else "",
        row.heading.task,
        row.cell,
        row.implementation,
    )


def span(row: SolveTime) -> str:
    """Return " [12, 16 s]", the upper end ">" where it is beyond the budget."""
    if row.low is None:
        return ""
    if row.high is None:
        return f" [{seconds(row.low)}, >]"
    return ends(Interval(row.low, row.high), seconds)
