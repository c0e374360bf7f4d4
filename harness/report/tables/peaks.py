"""The table of what the machine can do at best."""

from __future__ import annotations

from collections.abc import Callable

from harness.analysis.roofline import Peak, PeakRow
from harness.analysis.summary import Summary
from harness.report.tables.form import Block, Row, Table
from harness.report.text import NOTHING, one_line


def peaks_table(summary: Summary) -> Table:
    """Return the measured peaks; empty where no session measured one."""
    head = (
        "machine", "budget", "matrix product, GFLOP/s", "by", "copy, GB/s", "by",
        "FLOP/byte at the ridge",
    )  # fmt: skip
    notes = (
        "The best that any installed library reached on this machine, which no "
        "datasheet says. ( ) the worst of several sessions. Below the ridge memory is "
        "the limit, above it arithmetic.",
    )
    rows = tuple(_row(found) for found in summary.peaks)
    known = any(found.peak for found in summary.peaks)
    blocks = (Block(head, rows),) if known else ()
    return Table("peaks", "Measured peak of the machine", "llrlrlr", blocks, notes)


def _row(found: PeakRow) -> Row:
    alike, peak = found.conditions, found.peak
    where = (one_line(alike.machine) or NOTHING, alike.budget)
    if peak is None:
        return Row((*where, "not measured", *[NOTHING] * 4), "doubt")
    return Row(
        (
            *where,
            _rate(found, lambda each: each.flop_per_s),
            one_line(peak.flop_by or NOTHING),
            _rate(found, lambda each: each.copy_bytes_per_s),
            one_line(peak.copy_by or NOTHING),
            NOTHING if peak.ridge is None else f"{peak.ridge:.3g}",
        )
    )


def _rate(found: PeakRow, of: Callable[[Peak], float | None]) -> str:
    assert found.peak is not None
    best = of(found.peak)
    worst = None if found.lowest is None else of(found.lowest)
    if best is None:
        return NOTHING
    words = f"{best / 1e9:.3g}"
    return words if worst is None else f"{words} ({worst / 1e9:.3g})"
