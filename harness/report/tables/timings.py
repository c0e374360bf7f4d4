"""Titles of blocks, columns and marks that the tables of timings share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from harness.analysis.grouping import Heading
from harness.analysis.learning.solve_time import SolveTime
from harness.analysis.speed.conditions import budget_of
from harness.analysis.speed.timings import SpeedRow
from harness.report.tables.form import Column, Table, ends, keys, table
from harness.report.text import NOTHING, marked, seconds

R = TypeVar("R")


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


def tone(row: SpeedRow) -> str:
    """Return how a row is coloured."""
    if not row.phase:
        return "bad"
    return "doubt" if row.marks else ""


def shaky(row: SpeedRow | SolveTime) -> str:
    """Return what precedes a time that is shaky."""
    return "shaky " if row.shaky else ""


def timing(row: SpeedRow) -> str:
    """Return "shaky 3.61 ms [3.55, 3.7]"."""
    return shaky(row) + seconds(row.time_s) + ends(row.time, seconds)


def timing_table(
    name: str,
    title: str,
    columns: Sequence[Column[R]],
    items: Iterable[R],
    row: Callable[[R], SpeedRow],
    notes: Iterable[str],
) -> Table:
    """Return a table of timings, or of items that contain one, in blocks."""
    return table(
        name, title, columns, items, keys=lambda item: keys(row(item)), notes=notes,
        tone=lambda item: tone(row(item)), block=lambda item: block_title(row(item)),
    )  # fmt: skip


CELL: Column[SpeedRow] = Column("cell", lambda row: row.cell)
NAME: Column[SpeedRow] = Column("implementation", lambda row: row.implementation)
MARKED: Column[SpeedRow] = Column(
    "implementation", lambda row: marked(row.implementation, row.doubt)
)
PHASE: Column[SpeedRow] = Column("phase", lambda row: phase(row.phase or NOTHING))
RAN: Sequence[Column[SpeedRow]] = (
    Column("library", lambda row: row.framework if row.phase else None),
    Column("kernel", lambda row: row.ran if row.phase else None),
)
"""The columns that say what computed a timing."""
