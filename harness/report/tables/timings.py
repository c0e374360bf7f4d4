"""What the tables of timings share: titles of blocks, columns, marks."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.grouping import Heading
from harness.analysis.speed.conditions import budget_of
from harness.analysis.speed.timings import SpeedRow
from harness.measure.speed.phases import PHASES
from harness.report.tables.form import Column, ends
from harness.report.text import NOTHING, marked, one_line, seconds


def block_title(row: SpeedRow) -> str:
    """Return heading and conditions: "adding, length 100 · 1 thread · float32"."""
    return titled(row.heading, budget_of(row.trial))


def titled(heading: Heading, budget: str) -> str:
    """Return a heading with the conditions, which it may contain already."""
    title = heading.title
    return title if budget in title else f"{title} · {budget}"


def phase(name: str) -> str:
    """Return a phase in words."""
    return name.replace("_", " ")


def phase_order(name: str) -> tuple[int, str]:
    """Return the position of a phase among others; unknown phases come last."""
    return (PHASES.index(name) if name in PHASES else len(PHASES), name)


def tone(row: SpeedRow) -> str:
    """Return how a row is coloured."""
    if not row.phase:
        return "bad"
    return "doubt" if row.marks else ""


def timing(row: SpeedRow) -> str:
    """Return "shaky 3.61 ms [3.55, 3.7]"."""
    shaky = "shaky " if row.shaky else ""
    return shaky + seconds(row.time_s) + ends(row.time, seconds)


def _of_timed(words: str | None, row: SpeedRow) -> str:
    return one_line(words or NOTHING) if row.phase else NOTHING


CELL: Column[SpeedRow] = Column("cell", lambda row: row.cell)
NAME: Column[SpeedRow] = Column("implementation", lambda row: row.implementation)
MARKED: Column[SpeedRow] = Column(
    "implementation", lambda row: marked(row.implementation, row.doubt)
)
PHASE: Column[SpeedRow] = Column("phase", lambda row: phase(row.phase or NOTHING))
RAN: Sequence[Column[SpeedRow]] = (
    Column("library", lambda row: _of_timed(row.framework, row)),
    Column("kernel", lambda row: _of_timed(row.kernel, row)),
)
"""What computed a timing."""
