"""What a table is, whoever renders it: page, summary or terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from harness.analysis.grouping import Heading, group
from harness.intervals import Interval

R = TypeVar("R")


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        tone: `good`, `doubt` or `bad` where the line wants to be seen.
        task: What the filter asks for; "" where it does not apply.
    """

    cells: tuple[str, ...]
    tone: str = ""
    task: str = ""
    cell: str = ""
    implementation: str = ""


@dataclass(frozen=True)
class Block:
    """Lines under one heading, and under a title where the table has several."""

    head: tuple[str, ...]
    rows: tuple[Row, ...]
    title: str = ""


@dataclass(frozen=True)
class Table:
    """Blocks with the same columns.

    Attributes:
        align: One letter a column: l or r.
        nested: Whether the first column's heading is a title its lines belong under.
    """

    name: str
    title: str
    align: str
    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()
    nested: bool = False

    @property
    def rows(self) -> tuple[Row, ...]:
        """The lines of every block."""
        return tuple(row for block in self.blocks for row in block.rows)


def by_heading(
    head: tuple[str, ...],
    items: Iterable[R],
    where: Callable[[R], Heading],
    row: Callable[[R], Row],
) -> tuple[Block, ...]:
    """Return a block a place, in order of appearance."""
    return tuple(
        Block(head, tuple(row(item) for item in members), found.title)
        for found, members in group(items, where).items()
    )


def ends(interval: Interval | None, form: Callable[[float], str]) -> str:
    """Return " [low, high]", or nothing; a unit that both share is written once."""
    if interval is None:
        return ""
    low, high = form(interval.low), form(interval.high)
    number, _, unit = low.partition(" ")
    if unit and high.endswith(f" {unit}") and high.count(" ") == 1:
        low = number
    return f" [{low}, {high}]"
