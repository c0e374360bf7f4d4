"""The table of rates: tokens and FLOP a second, shares of the peak, memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.analysis.speed.conditions import budget_of
from harness.analysis.speed.timings import Memory, SpeedRow
from harness.analysis.summary import Summary
from harness.machine.peak import Rate
from harness.report.tables.form import Column, Table, ends, keys, table
from harness.report.tables.timings import CELL, PHASE, RAN, block_title, tone
from harness.report.text import NOTHING, one_line, percent, short, size

DOCTOR = ", doctor"
"""The ending of a library's name where `doctor` had measured its rate."""

COLUMNS: Sequence[Column[SpeedRow]] = (
    CELL,
    Column("implementation", lambda r: " · ".join((r.implementation, *r.marks))),
    PHASE,
    *RAN,
    Column("tokens/s", lambda r: short(r.tokens_per_s) + ends(r.tokens, short), "r"),
    Column("GFLOP/s", lambda row: giga(row.flop_per_s), "r"),
    Column("of peak", lambda row: _of_peak(row), "r"),
    Column("of roof", lambda row: _of_roof(row), "r"),
    Column("memory", lambda row: memory(row.memory), "r"),
)


def rates_table(summary: Summary) -> Table:
    """Return what the timings come to: rates, shares of the peak, memory."""
    rows = [row for row in summary.speed if row.timed]
    notes = (
        "Tokens: sequences × time steps. FLOP: the cell's own, whoever computes it. Of "
        "peak: of the best matrix product that any library of the run reached on the "
        "same device, threads and arithmetic. It is measured once a command, in the "
        "library's worker, after the first session that uses it; where `doctor` had "
        "found more, that counts and is named below. Of roof: of the most that this "
        "peak and the copy bandwidth allow for the FLOP and the bytes that a call has "
        "to move at least. Memory: peak of a process of its own, above what its "
        "imports take.",
        *_remembered(rows),
    )
    return table(
        "rates", "Rates and memory", COLUMNS, rows,
        keys=keys, tone=tone, block=block_title, notes=notes,
    )  # fmt: skip


def giga(rate: float | None) -> str:
    """Return a rate in thousand millions."""
    return NOTHING if rate is None else f"{rate / 1e9:.3g}"


def _of_peak(row: SpeedRow) -> str:
    return _share(row.of_peak, row.peak.flop if row.peak else None)


def _of_roof(row: SpeedRow) -> str:
    return _share(row.of_roof, row.peak.limit(row.intensity) if row.peak else None)


def _share(value: float | None, limit: Rate | None) -> str:
    """Return "28 %", marked where the limit was measured on an unfit machine."""
    return percent(value) + unfit(
        limit.machine if limit and value is not None else None
    )


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


def _remembered(rows: Iterable[SpeedRow]) -> list[str]:
    """Return whose peak it is and of when, where `doctor` had found more."""
    rates = {}
    for row in rows:
        peak, budget = row.peak, budget_of(row.trial)
        if peak is not None:
            rates[budget, "peak", peak.flop.library] = peak.flop
            if peak.copy is not None:
                rates[budget, "copy bandwidth", peak.copy.library] = peak.copy
    said = []
    for (budget, name, by), rate in rates.items():
        if by is None or not by.endswith(DOCTOR):
            continue
        at = rate.measured_at
        when = f"found it at {at} UTC" if at else "remembered it"
        library = rate.versions or by.removesuffix(DOCTOR)
        said.append(
            one_line(f"The {name} of {budget} is of {library}, as doctor {when}.")
        )
    return said
