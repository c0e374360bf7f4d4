"""The table of horizons at the initial values, before any training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.analysis.learning.initial_values import InitialHorizon, InitialRow
from harness.analysis.summary import Summary
from harness.report.tables.form import Column, Table, table
from harness.report.tables.learning import lag, sized
from harness.report.text import whole


def initial_values_table(summary: Summary) -> Table:
    """Return the horizons: a line for each cell, a column for each initialisation."""
    rows = summary.initial_values
    inits = dict.fromkeys(found.init for row in rows for found in row.horizons)
    columns: Sequence[Column[InitialRow]] = (
        Column("network", sized),
        *map(_column, inits),
        Column("largest lag", lambda row: _most(h.max_lag for h in row.horizons), "r"),
        Column("seeds", lambda row: _most(h.seeds for h in row.horizons), "r"),
    )
    notes = (
        "Medians over seeds before any training, with their range in [ ]. The horizon "
        "is the largest lag at which R(lag) = |dL/ds(τ−lag)| / |dL/ds(τ)|, as a median "
        "over examples, exceeds 10⁻³; L is one term of the loss. ≥: R still exceeds it "
        "at the largest lag that was measured.",
    )
    return table(
        "initial-values",
        "Horizon in time steps at the initial values",
        columns,
        rows,
        keys=lambda r: (r.heading.task, r.cell, r.trial.implementation),
        block=lambda row: row.heading.title,
        notes=notes,
    )


def _column(init: str) -> Column[InitialRow]:
    def words(row: InitialRow) -> str | None:
        return next((_horizon(h) for h in row.horizons if h.init == init), None)

    return Column(init, words)


def _most(found: Iterable[float]) -> str:
    return whole(max(found, default=None))


def _horizon(found: InitialHorizon) -> str:
    """Return "103 [76, 115]", or "≥200"."""
    middle = lag(found.median, found.max_lag)
    if found.low == found.high:
        return middle
    return f"{middle} [{whole(found.low)}, {lag(found.high, found.max_lag)}]"
