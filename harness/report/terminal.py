"""Tables for a terminal; plain text where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from harness.analysis.summary import Summary
from harness.report import tables
from harness.report.sections import line
from harness.report.tables import Block, Table
from harness.report.text import one_line

WIDEST = 24
"""Columns may shrink to this many characters before their words are folded."""

INDENT = 2

STYLES = {"bad": "red", "doubt": "yellow", "good": "green"}


def end_of_run(summary: Summary, report: Path | None = None) -> RenderableType:
    """Return what a run ends with: one line, the table of results, where to look.

    Without learning the timings or the certificates stand in the table's place.
    """
    parts: list[RenderableType] = [Text(line(summary.header)), Text("")]
    found = next((table for table in _main(summary) if table.rows), None)
    if found is not None:
        parts += [render(found), Text("")]
    failures = tables.outcome_table(summary)
    if failures.rows:
        parts += [Text(failures.title), render(failures), Text("")]
    if report is not None:
        parts.append(Text(f"report: {report}", no_wrap=True, overflow="ignore"))
    return Group(*parts)


def _main(summary: Summary) -> list[Table]:
    return [
        tables.learned_table(summary),
        tables.speed_table(summary),
        tables.parity_table(summary),
        tables.horizon_table(summary),
        tables.initial_values_table(summary),
    ]


def all_tables(summary: Summary) -> RenderableType:
    """Return every table of a run, in the order of the report."""
    parts: list[RenderableType] = [Text(line(summary.header)), Text("")]
    shown = [
        tables.learned_table(summary),
        tables.horizon_table(summary),
        tables.initial_values_table(summary),
        tables.speed_table(summary),
        tables.solve_table(summary),
        tables.agreement_table(summary),
        tables.parting_table(summary),
        tables.parity_table(summary),
        tables.outcome_table(summary),
        tables.environment_table(summary),
    ]
    for found in shown:
        if found.rows:
            parts += [Text(found.title, style="bold"), render(found)]
            parts += [Text(note, style="dim") for note in found.notes]
            parts.append(Text(""))
    return Group(*parts)


def render(found: Table) -> RenderableType:
    """Return a table; its blocks keep their columns in line where they fit."""
    return _Blocks(found)


class _Blocks:
    """The blocks of a table under each other, as wide as the console allows."""

    def __init__(self, found: Table) -> None:
        self._found = found

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        widths = self._widths()
        if sum(widths) + 2 * len(widths) > options.max_width:
            widths = [0] * len(widths)  # rather folded than cut off
        for index, block in enumerate(self._found.blocks):
            if index:
                yield Text("")
            if block.title:
                yield Text(one_line(block.title), style="bold")
            yield self._table(block, widths)

    def _widths(self) -> list[int]:
        found = self._found
        lines = [block.head for block in found.blocks]
        lines += [row.cells for row in found.rows]
        widths = [
            min(max(len(one_line(cells[i])) for cells in lines), WIDEST)
            for i in range(len(found.align))
        ]
        widths[0] += INDENT
        return widths

    def _table(self, block: Block, widths: Sequence[int]) -> RichTable:
        found = self._found
        table = RichTable(
            box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0)
        )
        for side, width in zip(found.align, widths, strict=True):
            justify: Literal["left", "right"] = "right" if side == "r" else "left"
            table.add_column(justify=justify, overflow="fold", min_width=width or None)
        indent = " " * INDENT if found.nested or block.title else ""
        table.add_row(*_cells(block.head, "" if found.nested else indent, "bold"))
        for row in block.rows:
            table.add_row(*_cells(row.cells, indent, STYLES.get(row.tone, "")))
        return table


def _cells(words: Sequence[str], indent: str, style: str) -> list[Text]:
    # Text, not markup: brackets in a reason stay brackets.
    cells = [Text(one_line(word), style=style) for word in words]
    cells[0].pad_left(len(indent))
    return cells
