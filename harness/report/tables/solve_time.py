"""The table of time to solve."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.learning.solve_time import SolveTime
from harness.analysis.summary import Summary
from harness.intervals import Interval
from harness.report.tables.form import Column, Table, ends, keys, table
from harness.report.tables.timings import shaky, titled
from harness.report.text import marked, seconds

COLUMNS: Sequence[Column[SolveTime]] = (
    Column("cell", lambda row: row.cell),
    Column("implementation", lambda row: row.implementation),
    Column("library", lambda row: row.framework),
    Column("kernel", lambda row: row.kernel),
    Column("time to solve", lambda r: f"{shaky(r)}{seconds(r.seconds)}{span(r)}"),
    Column("updates counted on", lambda row: marked(row.learned_on, row.doubt)),
)


def solve_table(summary: Summary) -> Table:
    """Return time to solve for every certified implementation."""
    notes = (
        "Updates to solve × time of one update, both medians. [ ] multiplies the lower "
        "ends of both spreads and the upper ends of both, so that it is wider than a "
        "95 % interval; > where the upper end is beyond the limit of updates.",
    )
    return table(
        "solve-times",
        "Time to solve",
        COLUMNS,
        summary.solve_times,
        keys=keys,
        tone=lambda row: "doubt" if row.shaky or row.doubt else "",
        block=lambda row: titled(row.heading, row.budget),
        notes=notes,
    )


def span(row: SolveTime) -> str:
    """Return " [12, 16 s]", the upper end ">" where it is beyond the limit."""
    if row.low is None:
        return ""
    if row.high is None:
        return f" [{seconds(row.low)}, >]"
    return ends(Interval(row.low, row.high), seconds)
