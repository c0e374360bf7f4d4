"""The table of rates: tokens and FLOP a second, shares of the peak, memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.analysis.speed.conditions import budget_of
from harness.analysis.speed.timings import Memory, SpeedRow
from harness.analysis.summary import Summary
from harness.machine.peak import Rate
from harness.printing import one_line
from harness.report.tables.form import Column, Table, ends
from harness.report.tables.timings import CELL, PHASE, RAN, timing_table
from harness.report.text import NOTHING, percent, short, size

DOCTOR = ", doctor"
"""The ending of a library's name if `doctor` had measured its rate."""

WITH_MARKS: Column[SpeedRow] = Column(
    "implementation", lambda row: " · ".join((row.implementation, *row.marks))
)
TOKENS: Column[SpeedRow] = Column(
    "tokens/s", lambda row: short(row.tokens_per_s) + ends(row.tokens, short), "r"
)
COLUMNS: Sequence[Column[SpeedRow]] = (
    CELL,
    WITH_MARKS,
    PHASE,
    *RAN,
    TOKENS,
    Column("GFLOP/s", lambda row: giga(row.flop_per_s), "r"),
    Column("of peak", lambda row: _of_peak(row), "r"),
    Column("of roof", lambda row: _of_roof(row), "r"),
    Column("memory", lambda row: memory(row.memory) if row.memory else None, "r"),
)


def rates_table(summary: Summary) -> Table:
    """Return the rates of the timings, their shares of the peak, and memory."""
    rows = [row for row in summary.speed if row.timed]
    notes = (
        "Tokens: sequences × time steps. FLOP: the floating-point operations of the "
        "cell's equations, the same for every implementation. Of peak: the share of "
        "the fastest matrix product that any library of the run reached on the same "
        "device, threads and arithmetic. It is measured once in a command, in the "
        "library's worker, after the first session that uses it; if `doctor` has "
        "measured more, that is used and named below. Of roof: the share of what this "
        "peak and the copy bandwidth allow, given the FLOP and the bytes that a call "
        "has to move at least. Memory: the peak in a separate process, without what "
        "its imports take.",
        *_of_doctor(rows),
    )
    return timing_table(
        "rates", "Rates and memory", COLUMNS, rows, lambda row: row, notes
    )


def giga(rate: float | None) -> str:
    """Return a rate in thousand millions."""
    return NOTHING if rate is None else f"{rate / 1e9:.3g}"


def _of_peak(row: SpeedRow) -> str | None:
    return _share(row.of_peak, row.peak.flop if row.peak else None)


def _of_roof(row: SpeedRow) -> str | None:
    return _share(row.of_roof, row.peak.limit(row.intensity) if row.peak else None)


def _share(value: float | None, limit: Rate | None) -> str | None:
    """Return "28 %", marked if the limit was measured on an unfit machine."""
    if value is None or limit is None:
        return None
    return percent(value) + unfit(limit.machine)


def unfit(machine: str | None) -> str:
    """Return the mark of a rate that was measured on an unfit machine."""
    return " (unfit)" if machine == "unfit" else ""


def memory(found: Memory) -> str:
    """Return "40.9 MiB", with the memory of a GPU, or how the trial ended."""
    if found.outcome != "ok":
        return found.outcome.replace("_", " ")
    device = [found.allocator_peak_bytes, found.device_peak_bytes]
    held = [size(count) for count in device if count is not None]
    words = size(found.peak_bytes)
    return f"{words}, GPU {' of '.join(held)}" if held else words


def _of_doctor(rows: Iterable[SpeedRow]) -> list[str]:
    """Return a sentence about each peak that `doctor` had measured before."""
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
        when = f"found it at {at} UTC" if at else "found it earlier"
        library = rate.versions or by.removesuffix(DOCTOR)
        said.append(
            one_line(f"The {name} of {budget} is of {library}, as doctor {when}.")
        )
    return said
