"""Tables of text, as the page, `summary.md` and the terminal show them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from harness.analysis.grouping import Heading, group
from harness.intervals import Interval
from harness.printing import one_line
from harness.report.text import NOTHING

R = TypeVar("R")
S = TypeVar("S")


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        tone: `good`, `doubt` or `bad` where the line is coloured, else "".
        task: For the page's filter; "" where it does not apply.
    """

    cells: tuple[str, ...]
    tone: str = ""
    task: str = ""
    cell: str = ""
    implementation: str = ""


@dataclass(frozen=True)
class Block:
    """Lines below one head, with a title if the table has several blocks."""

    head: tuple[str, ...]
    rows: tuple[Row, ...]
    title: str = ""


@dataclass(frozen=True)
class Table:
    """Blocks with the same columns.

    Attributes:
        align: One letter a column: l or r.
        nested: Whether the head of the first column is the title of the block.
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


Keys = tuple[str, str, str]
"""The task, cell and implementation of a line, "" where one does not apply."""


class Keyed(Protocol):
    """A row of an analysis that is about one cell and implementation."""

    @property
    def heading(self) -> Heading: ...  # noqa: D102
    @property
    def cell(self) -> str: ...  # noqa: D102
    @property
    def implementation(self) -> str: ...  # noqa: D102


def keys(row: Keyed) -> Keys:
    """Return what the page's filter compares."""
    return row.heading.task, row.cell, row.implementation


def heading(row: Keyed) -> str:
    """Return the title of the block that a row belongs to."""
    return row.heading.title


@dataclass(frozen=True)
class Column(Generic[R]):
    """A column of a table.

    Attributes:
        words: Returns what a line says there; None is shown as a dash.
        side: l or r.
    """

    head: str
    words: Callable[[R], str | None]
    side: str = "l"

    def text(self, row: R) -> str:
        """Return what a line says there, without line breaks."""
        words = self.words(row)
        return NOTHING if words is None else one_line(words)


def through(
    row: Callable[[S], R], columns: Iterable[Column[R]]
) -> tuple[Column[S], ...]:
    """Return the same columns for items that contain a row, such as pairs."""

    def of(column: Column[R]) -> Column[S]:
        return Column(column.head, lambda item: column.words(row(item)), column.side)

    return tuple(map(of, columns))


def in_words(columns: Iterable[Column[R]], rows: Iterable[R]) -> str:
    """Return rows in words, for readers who do not see a figure of them."""
    shown = list(columns)
    return "; ".join(
        ", ".join(f"{column.head} {column.text(row)}" for column in shown)
        for row in rows
    )


def table(
    name: str,
    title: str,
    columns: Sequence[Column[R]],
    rows: Iterable[R],
    *,
    keys: Callable[[R], Keys] = lambda row: ("", "", ""),
    tone: Callable[[R], str] = lambda row: "",
    block: Callable[[R], str] = lambda row: "",
    notes: Iterable[str] = (),
) -> Table:
    """Return a table of rows with the same columns.

    Args:
        name: The name that links to the table use.
        title: The title above it.
        columns: Its columns.
        rows: One item for each line.
        keys: Returns what the page's filter compares.
        tone: Returns how a line is coloured.
        block: Returns the title of the block that a line belongs to.
        notes: Sentences below the table.
    """
    head = tuple(column.head for column in columns)

    def line(row: R) -> Row:
        cells = tuple(column.text(row) for column in columns)
        return Row(cells, tone(row), *keys(row))

    blocks = group(rows, block).items()
    return Table(
        name,
        title,
        "".join(column.side for column in columns),
        tuple(Block(head, tuple(map(line, found)), words) for words, found in blocks),
        tuple(notes),
    )


def ends(interval: Interval | None, form: Callable[[float], str]) -> str:
    """Return " [low, high]", or ""; a unit that both ends share is written once."""
    if interval is None:
        return ""
    low, high = form(interval.low), form(interval.high)
    number, _, unit = low.partition(" ")
    if unit and high.endswith(f" {unit}") and high.count(" ") == 1:
        low = number
    return f" [{low}, {high}]"
