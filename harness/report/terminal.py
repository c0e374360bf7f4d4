"""Tables for a terminal; plain text where there is none."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from harness.analysis.summary import Summary
from harness.report import tables
from harness.report.sections import line
from harness.report.tables import Block, Table
from harness.report.text import one_line

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
    ]


def all_tables(summary: Summary) -> RenderableType:
    """Return every table of a run, in the order of the report."""
    parts: list[RenderableType] = [Text(line(summary.header)), Text("")]
    shown = [
        tables.learned_table(summary),
        tables.horizon_table(summary),
        tables.speed_table(summary),
        tables.solve_table(summary),
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
    """Return a table; blocks keep their columns in line."""
    table = RichTable(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for side in found.align:
        table.add_column(justify="right" if side == "r" else "left", overflow="fold")
    for number, block in enumerate(found.blocks):
        if number:
            table.add_row()
        _add_block(table, block)
    return table


def _add_block(table: RichTable, block: Block) -> None:
    if block.title:
        table.add_row(Text(one_line(block.title), style="bold"))
    table.add_row(*(Text(one_line(words), style="bold") for words in block.head))
    for row in block.rows:
        style = STYLES.get(row.tone, "")
        # Text, not markup: brackets in a reason stay brackets.
        cells = [Text(one_line(words), style=style) for words in row.cells]
        cells[0].pad_left(2)
        table.add_row(*cells)
