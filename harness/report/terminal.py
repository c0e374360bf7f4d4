"""Tables for a terminal, or as plain text where the output is not a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from harness.analysis.summary import Summary
from harness.printing import one_line, printable
from harness.report.contents import end_table, terminal_tables
from harness.report.header import line
from harness.report.tables.checks import outcome_table
from harness.report.tables.form import Block, Table

WIDEST = 24
"""A longer word may be broken over two lines."""

GAP = 2
INDENT = 2

STYLES = {"bad": "red", "doubt": "yellow", "good": "green"}


def end_of_run(summary: Summary, report: Path | None = None) -> RenderableType:
    """Return what the end of a run prints: one line, a table, failures, the report."""
    parts: list[RenderableType] = [Text(line(summary.header)), Text("")]
    found = end_table(summary)
    if found is not None:
        parts += [render(found), Text("")]
    failures = outcome_table(summary)
    if failures.rows:
        parts += [Text(one_line(failures.title)), render(failures), Text("")]
    if report is not None:
        parts.append(
            Text(printable(f"report: {report}"), no_wrap=True, overflow="ignore")
        )
    return Group(*parts)


def all_tables(summary: Summary) -> RenderableType:
    """Return the tables of a run, in the order of the report."""
    parts: list[RenderableType] = [Text(line(summary.header)), Text("")]
    for found in terminal_tables(summary):
        parts += [Text(one_line(found.title), style="bold"), render(found)]
        parts += [Text(one_line(note), style="dim") for note in found.notes]
        parts.append(Text(""))
    return Group(*parts)


def render(found: Table) -> RenderableType:
    """Return a table whose blocks have columns of the same widths."""
    return _Blocks(found)


@dataclass(frozen=True)
class _Blocks:
    """The blocks of a table below each other, as wide as the console allows."""

    table: Table

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        widths = self._widths(options.max_width)
        for index, block in enumerate(self.table.blocks):
            if index:
                yield Text("")
            if block.title:
                yield Text(one_line(block.title), style="bold")
            yield self._table(block, widths)

    def _widths(self, most: int) -> list[int]:
        """Return the width of each column, 0 where the console decides.

        If the console is too narrow, numbers stay on one line and words stay whole. The
        width that is left is given first to the columns that need the least.
        """
        found = self.table
        lines = [block.head for block in found.blocks]
        lines += [row.cells for row in found.rows]
        columns = [[*map(one_line, column)] for column in zip(*lines, strict=True)]
        whole = [max(map(len, column)) for column in columns]
        whole[0] += INDENT
        spare = most - GAP * len(whole)
        if sum(whole) <= spare:
            return whole
        widths = [
            full if side == "r" else min(full, WIDEST, _longest_word(column))
            for full, side, column in zip(whole, found.align, columns, strict=True)
        ]
        widths[0] = min(whole[0], widths[0] + INDENT)
        spare -= sum(widths)
        if spare < 0:
            return [0] * len(widths)  # the console folds the words
        wants = [full - width for full, width in zip(whole, widths, strict=True)]
        for index in sorted(range(len(wants)), key=wants.__getitem__):
            given = min(wants[index], spare)
            widths[index] += given
            spare -= given
        return widths

    def _table(self, block: Block, widths: Sequence[int]) -> RichTable:
        found = self.table
        table = RichTable(
            box=None, show_header=False, pad_edge=False, padding=(0, GAP, 0, 0)
        )
        for side, width in zip(found.align, widths, strict=True):
            justify: Literal["left", "right"] = "right" if side == "r" else "left"
            table.add_column(justify=justify, overflow="fold", width=width or None)
        indent = " " * INDENT if found.nested or block.title else ""
        table.add_row(*_cells(block.head, "" if found.nested else indent, "bold"))
        for row in block.rows:
            table.add_row(*_cells(row.cells, indent, STYLES.get(row.tone, "")))
        return table


def _longest_word(column: Sequence[str]) -> int:
    return max(len(word) for words in column for word in words.split(" "))


def _cells(words: Sequence[str], indent: str, style: str) -> list[Text]:
    # `Text`, because rich would read brackets in a string as markup.
    cells = [Text(one_line(word), style=style) for word in words]
    cells[0].pad_left(len(indent))
    return cells
