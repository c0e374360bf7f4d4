"""The table of what the machine can do at best."""

from __future__ import annotations

from collections.abc import Callable

from harness.analysis.speed.roofline import PeakRow
from harness.analysis.summary import Summary
from harness.machine.peak import Peak, Rate
from harness.report.tables.form import Block, Row, Table
from harness.report.tables.speed import DOCTOR, unfit
from harness.report.text import NOTHING, one_line


def peaks_table(summary: Summary) -> Table:
    """Return the measured peaks; empty where no session measured one."""
    head = (
        "machine", "budget", "matrix product, GFLOP/s", "by", "copy, GB/s", "by",
        "FLOP/byte at the ridge",
    )  # fmt: skip
    notes = (
        "The best that any library of the run, or at an earlier `doctor` any installed "
        "one, reached on this machine, which no datasheet says. ( ) the worst of "
        "several sessions. An unfit machine may reach more. Below the ridge memory is "
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
            _rate(found, lambda each: each.flop),
            _by(peak.flop),
            _rate(found, lambda each: each.copy),
            _by(peak.copy),
            NOTHING if peak.ridge is None else f"{peak.ridge:.3g}",
        )
    )


def _by(rate: Rate | None) -> str:
    """Return "torch 2.13.0", or "jax 0.9.2, doctor 2026-11-26 10:00:00"."""
    if rate is None or rate.library is None:
        return NOTHING
    name = rate.library.removesuffix(DOCTOR)
    doctor = DOCTOR if name != rate.library else ""
    date = f" {rate.measured_at}" if rate.measured_at else ""
    words = one_line(f"{rate.versions or name}{doctor}{date}")
    return words + unfit(rate.machine)


def _rate(found: PeakRow, of: Callable[[Peak], Rate | None]) -> str:
    assert found.peak is not None
    best = of(found.peak)
    worst = None if found.lowest is None else of(found.lowest)
    if best is None:
        return NOTHING
    words = f"{best.per_s / 1e9:.3g}"
    return words if worst is None else f"{words} ({worst.per_s / 1e9:.3g})"
