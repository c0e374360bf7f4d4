"""The table of the highest rates that were measured on the machine."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.speed.conditions import budget_of
from harness.analysis.speed.roofline import PeakRow
from harness.analysis.summary import Summary
from harness.machine.peak import RateName
from harness.report.tables.form import Column, Table, table
from harness.report.tables.rates import DOCTOR, giga, unfit

COLUMNS: Sequence[Column[PeakRow]] = (
    Column("machine", lambda row: row.conditions.machine or None),
    Column("conditions", lambda row: budget_of(row.conditions)),
    Column("matrix product, GFLOP/s", lambda row: _rate(row, "flop"), "r"),
    Column("by", lambda row: _by(row, "flop")),
    Column("copy, GB/s", lambda row: _rate(row, "copy"), "r"),
    Column("by", lambda row: _by(row, "copy")),
    Column("FLOP/byte at the ridge", lambda row: _ridge(row), "r"),
)


def peaks_table(summary: Summary) -> Table:
    """Return the measured peaks; empty where no session measured one."""
    notes = (
        "The highest rate that any library of the run reached on this machine, or any "
        "installed library at an earlier `doctor`. ( ): the lowest of several "
        "sessions. An unfit machine may reach more. Below the ridge, memory is the "
        "limit; above it, arithmetic.",
    )
    return table(
        "peaks",
        "Measured peak of the machine",
        COLUMNS,
        summary.peaks if any(row.peak for row in summary.peaks) else (),
        tone=lambda row: "" if row.peak else "doubt",
        notes=notes,
    )


def _rate(row: PeakRow, name: RateName) -> str | None:
    if row.peak is None:
        return "not measured" if name == "flop" else None
    best, worst = row.peak.rate(name), row.lowest and row.lowest.rate(name)
    if best is None:
        return None
    return giga(best.per_s) + (f" ({giga(worst.per_s)})" if worst else "")


def _by(row: PeakRow, name: RateName) -> str | None:
    """Return "torch 2.13.0", or "jax 0.9.2, doctor 2026-11-26 10:00:00"."""
    rate = None if row.peak is None else row.peak.rate(name)
    if rate is None or rate.library is None:
        return None
    library = rate.library.removesuffix(DOCTOR)
    doctor = DOCTOR if library != rate.library else ""
    date = f" {rate.measured_at}" if rate.measured_at else ""
    return f"{rate.versions or library}{doctor}{date}{unfit(rate.machine)}"


def _ridge(row: PeakRow) -> str | None:
    ridge = None if row.peak is None else row.peak.ridge
    return None if ridge is None else f"{ridge:.3g}"
