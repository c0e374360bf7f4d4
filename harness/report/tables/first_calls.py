"""The table of first calls, and when they have paid back."""

from __future__ import annotations

from harness.analysis.grouping import group
from harness.analysis.speed.payback import Payback
from harness.analysis.summary import Summary
from harness.report.tables.form import Block, Row, Table
from harness.report.tables.speed import block_title, keys, phase, ran, timing, tone
from harness.report.text import NOTHING, marked, seconds, short


def first_calls_table(summary: Summary) -> Table:
    """Return what the first call costs, and after how many it has paid back."""
    head = (
        "cell", "implementation", "phase", "library", "kernel", "first call",
        "a later call", "held against", "paid back after",
    )  # fmt: skip
    notes = (
        "First call: build, trace, compile and autotune, in no other figure; a single "
        "reading, in a process of its own where memory was measured, else in one that "
        "a session's trials of a framework share, one after the other. What a compiler "
        "keeps on disk is kept. Paid back: "
        "when all calls together, the first among them, have taken no more than those "
        "of the certified implementation that is cheapest to call once. [ ] from both "
        "intervals of the later calls.",
    )
    titled = group(summary.paybacks, lambda found: block_title(found.row))
    return Table(
        "first-calls",
        "First calls",
        "lllllrrll",
        tuple(
            Block(head, tuple(_row(found) for found in members), title)
            for title, members in titled.items()
        ),
        notes,
    )


def _row(found: Payback) -> Row:
    row = found.row
    held_against = NOTHING
    if found.against is not None and not found.is_cheapest:
        held_against = found.against.implementation
    return Row(
        (
            row.cell,
            marked(row.implementation, row.doubt),
            phase(row.phase),
            *ran(row),
            seconds(row.first_call_s),
            timing(row),
            held_against,
            paid_back(found),
        ),
        tone(row),
        *keys(row),
    )


def paid_back(found: Payback) -> str:
    """Return "12 calls [10, 15]", or why there is no number."""
    if found.against is None:
        return NOTHING
    if found.is_cheapest:
        return "cheapest at first"
    if found.calls is None:
        return "never: not faster later"
    if found.calls == 1:
        return "at once"
    low = short(found.low)
    high = "never" if found.high is None else short(found.high)
    return f"{short(found.calls)} calls [{low}, {high}]"
