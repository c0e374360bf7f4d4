"""The table of the reasons why timings are shaky, and what to do about each."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.speed.timings import SpeedRow
from harness.analysis.summary import Summary
from harness.reason import Reason
from harness.report.tables.form import Column, Table, keys, table, through
from harness.report.tables.timings import CELL, NAME, PHASE, block_title

Shaky = tuple[SpeedRow, Reason]
"""A timing and one reason to doubt it."""

COLUMNS: Sequence[Column[Shaky]] = (
    *through(lambda pair: pair[0], (CELL, NAME, PHASE)),
    Column("why it is shaky", lambda pair: pair[1].words or pair[1].kind),
    Column("what to do", lambda pair: pair[1].advice or None),
)


def shaky_table(summary: Summary) -> Table:
    """Return each reason why a timing is shaky, and what to do about it."""
    rows = [row for row in summary.speed if row.shaky or row.unstable]
    return table(
        "shaky",
        "Shaky timings and what to do",
        COLUMNS,
        [(row, reason) for row in rows for reason in reasons(row)],
        keys=lambda pair: keys(pair[0]),
        tone=lambda pair: "doubt",
        block=lambda pair: block_title(pair[0]),
    )


def reasons(row: SpeedRow) -> tuple[Reason, ...]:
    """Return why a row is shaky; a general reason if the run stored none."""
    found = list(row.unstable)
    fitness = row.fitness
    if fitness is not None and fitness.verdict == "unfit" and not found:
        # The table of timings has all reasons; one is enough here.
        advice = "see `rnn-harness doctor`, and measure again when it says fit"
        why = next(iter(fitness.reasons), Reason("machine", "no reason stored", advice))
        words = f"the machine was unfit: {why.words or why.kind}"
        found.append(Reason("machine", words, why.advice))
    if not found:
        words = "wide interval, few turns or no steady state; which was not stored"
        found.append(Reason("unknown", words, "measure again on a quiet machine"))
    return tuple(found)
