"""Table of the horizons that initial values give, before any training."""

from __future__ import annotations

from harness.analysis.grouping import group
from harness.analysis.learning.initial_values import InitialHorizon, InitialRow
from harness.analysis.summary import Summary
from harness.report.tables.form import Block, Row, Table
from harness.report.text import NOTHING, whole


def initial_values_table(summary: Summary) -> Table:
    """Return the horizons: a row a cell, a column an initialisation."""
    rows = summary.initial_values
    inits = tuple(dict.fromkeys(found.init for row in rows for found in row.horizons))
    head = ("network", *inits, "largest lag", "seeds")
    notes = (
        "Medians over seeds, [ ] their range, before any training. The horizon is the "
        "largest lag at which the median over examples of R(lag) = |dL/ds(τ−lag)| / "
        "|dL/ds(τ)| exceeds 10⁻³, L being one term of the loss; ≥ where it does so at "
        "the largest lag.",
    )
    return Table(
        "initial-values",
        "Horizon in time steps at the initial values",
        "l" * (1 + len(inits)) + "rr",
        tuple(
            Block(head, tuple(_row(row, inits) for row in members), where.title)
            for where, members in group(rows, lambda row: row.heading).items()
        ),
        notes,
    )


def _row(row: InitialRow, inits: tuple[str, ...]) -> Row:
    found = {each.init: each for each in row.horizons}
    return Row(
        (
            f"{row.cell} {whole(row.trial.hidden_size)}",
            *(_horizon(found.get(init)) for init in inits),
            whole(max((each.max_lag for each in row.horizons), default=None)),
            str(max((each.seeds for each in row.horizons), default=0)),
        ),
        task=row.heading.task,
        cell=row.cell,
        implementation=row.trial.implementation,
    )


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
