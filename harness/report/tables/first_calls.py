"""The table of first calls, and when they have paid back."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.speed.payback import Payback
from harness.analysis.summary import Summary
from harness.report.tables.form import Column, Table, through
from harness.report.tables.timings import CELL, MARKED, PHASE, RAN, timing, timing_table
from harness.report.text import seconds, short

COLUMNS: Sequence[Column[Payback]] = (
    *through(lambda found: found.row, (CELL, MARKED, PHASE, *RAN)),
    Column("first call", lambda found: seconds(found.row.first_call_s), "r"),
    Column("a later call", lambda found: timing(found.row), "r"),
    Column("compared with", lambda found: _against(found)),
    Column("paid back after", lambda found: paid_back(found)),
)


def first_calls_table(summary: Summary) -> Table:
    """Return what the first call costs, and after how many it has paid back."""
    notes = (
        "First call: building, tracing, compiling and autotuning, which no other "
        "timing includes. It is a single reading: in a separate process where memory "
        "was measured, else in the process that the session's trials of a framework "
        "share. A compiler's cache on disk is not emptied. Paid back after: so many "
        "calls, with the first, take no more time than those of the certified "
        "implementation with the fastest first call. [ ] comes from the intervals of "
        "the later calls.",
    )
    found = summary.paybacks
    return timing_table(
        "first-calls", "First calls", COLUMNS, found, lambda each: each.row, notes
    )


def _against(found: Payback) -> str | None:
    if found.against is None or found.is_cheapest:
        return None
    return found.against.implementation


def paid_back(found: Payback) -> str | None:
    """Return "12 calls [10, 15]", or why no number of calls is known."""
    if found.against is None:
        return None
    if found.is_cheapest:
        return "cheapest at first"
    if found.calls is None:
        return "never: not faster later"
    if found.calls == 1:
        return "at once"
    low = short(found.low)
    high = "never" if found.high is None else short(found.high)
    return f"{short(found.calls)} calls [{low}, {high}]"
