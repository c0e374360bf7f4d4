"""The table of horizons at the initial values, before any training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.analysis.learning.initial_values import InitialHorizon, InitialRow
from harness.analysis.summary import Summary
from harness.report.tables.form import Column, Table, table
from harness.report.text import NOTHING, whole


def initial_values_table(summary: Summary) -> Table:
    """Return the horizons: a line for each cell, a column for each initialisation."""
    rows = summary.initial_values
    inits = dict.fromkeys(found.init for row in rows for found in row.horizons)
    columns: Sequence[Column[InitialRow]] = (
        Column("network", lambda row: f"{row.cell} {whole(row.trial.hidden_size)}"),
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
    def words(row: InitialRow) -> str:
        return _horizon(next((h for h in row.horizons if h.init == init), None))

    return Column(init, words)


def _most(found: Iterable[float]) -> str:
    return whole(max(found, default=None))


def _horizon(found: InitialHorizon | None) -> str:
    """Return "103 [76, 115]", or "≥200"."""
    if found is None:
        return NOTHING
    bound = "≥" if found.median >= found.max_lag else ""
    spread = ""
    if found.low < found.high:
        longest = "≥" if found.high >= found.max_lag else ""
        spread = f" [{whole(found.low)}, {longest}{whole(found.high)}]"
    return f"{bound}{whole(found.median)}{spread}"
