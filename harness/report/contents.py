"""The list of the figures and tables of a report, in the order of its sections.

The page, `summary.md` and the terminal show what is named here, in this order. To add a
figure or a table, write its file and name it in `PARTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from harness.analysis.learning.agreement import learned_by_several
from harness.analysis.summary import Summary
from harness.report import missing
from harness.report.figures.agreement import agreement_figures
from harness.report.figures.fastest import fastest_figures
from harness.report.figures.gradients import gradient_figures
from harness.report.figures.initial_values import initial_values_figures
from harness.report.figures.latency import latency_figures
from harness.report.figures.learning import learning_figures
from harness.report.figures.overview import (
    gradients_overview,
    learning_overview,
    speed_overview,
)
from harness.report.figures.payback import payback_figures
from harness.report.figures.results import Results
from harness.report.figures.roofline import roofline_figures
from harness.report.figures.scaling import scaling_figures
from harness.report.figures.sketch import Drawn
from harness.report.figures.solve_time import solve_time_figures
from harness.report.figures.solved import solved_figures
from harness.report.figures.speed import throughput_figures
from harness.report.figures.style import drawing
from harness.report.tables.agreement import agreement_table, parting_table
from harness.report.tables.checks import (
    checks_table,
    environment_table,
    outcome_table,
    parity_table,
)
from harness.report.tables.fastest import fastest_table, map_table
from harness.report.tables.first_calls import first_calls_table
from harness.report.tables.form import Table
from harness.report.tables.initial_values import initial_values_table
from harness.report.tables.latency import latency_table
from harness.report.tables.learning import horizon_table, learned_table, learning_table
from harness.report.tables.peaks import peaks_table
from harness.report.tables.rates import rates_table
from harness.report.tables.shaky import shaky_table
from harness.report.tables.solve_time import solve_table
from harness.report.tables.speed import speed_table

Figures = Callable[[Results], Iterable[Drawn]]
"""Draws the figures of one kind; draws none if there is nothing to show."""

Tabled = Callable[[Summary], Table]
"""Makes a table; it has no rows if there is nothing to show."""


@dataclass(frozen=True)
class Part:
    """One section of a report.

    Attributes:
        name: The target of links to the section.
        title: The heading; "" for the first screen.
        figures: Functions that draw its figures, in order.
        tables: Functions that make its tables, in order.
        missing: Returns sentences about measurements that the run does not have.
        by_task: Whether the figures of one task follow each other.
        asked: Returns whether a run has this section at all.
    """

    name: str
    title: str
    figures: tuple[Figures, ...] = ()
    tables: tuple[Tabled, ...] = ()
    missing: Callable[[Results], Iterable[str]] = lambda results: ()
    by_task: bool = False
    asked: Callable[[Summary], bool] = lambda summary: True


PARTS = (
    Part(
        "first",
        "",
        (learning_overview, gradients_overview, speed_overview),
        (learned_table,),
        missing=missing.one_machine,
    ),
    Part(
        "learning",
        "What can it learn?",
        (learning_figures, solved_figures),
        (learning_table,),
        missing=missing.learning,
        by_task=True,
    ),
    Part(
        "agreement",
        "Do all implementations learn the same?",
        (agreement_figures,),
        (agreement_table, parting_table),
        missing=missing.agreement,
        asked=lambda s: learned_by_several(row.learning.trial for row in s.learned),
    ),
    Part(
        "gradients",
        "Why? How the gradient travels back",
        (gradient_figures, initial_values_figures),
        (horizon_table, initial_values_table),
        missing=missing.gradients,
    ),
    Part(
        "speed",
        "How fast is it?",
        (
            fastest_figures,
            throughput_figures,
            scaling_figures,
            roofline_figures,
            latency_figures,
            payback_figures,
            solve_time_figures,
        ),
        (
            fastest_table,
            speed_table,
            rates_table,
            latency_table,
            shaky_table,
            first_calls_table,
            peaks_table,
            solve_table,
        ),
        missing=missing.speed,
    ),
    Part(
        "certificates",
        "Certificates: is it the same mathematics?",
        tables=(parity_table, checks_table),
        missing=missing.certificates,
    ),
    Part("outcomes", "Outcomes", tables=(outcome_table,), missing=missing.outcomes),
    Part(
        "environment",
        "Environment",
        tables=(environment_table,),
        missing=missing.environment,
    ),
)

FOLDED = (first_calls_table, peaks_table, checks_table)
"""Long tables, which the page shows on a click and `summary.md` leaves out."""

PAGE_ONLY = (learning_table, checks_table)
"""Tables that are too wide or too long for a terminal."""

AT_THE_END = (
    learned_table,
    map_table,
    speed_table,
    parity_table,
    horizon_table,
    initial_values_table,
)
"""The first of these that has rows is shown at the end of a run."""


@dataclass(frozen=True)
class Section:
    """A part of a report with the figures and tables of one run."""

    name: str
    title: str
    figures: tuple[Drawn, ...]
    tables: tuple[Table, ...]
    folded: tuple[Table, ...]
    missing: tuple[str, ...]


def sections(results: Results) -> list[Section]:
    """Draw the figures and make the tables of every part that the run has."""
    with drawing():
        return [
            Section(
                part.name,
                part.title,
                tuple(_drawn(part, results)),
                _tables(part, results.summary, folded=False),
                _tables(part, results.summary, folded=True),
                tuple(part.missing(results)),
            )
            for part in PARTS
            if part.asked(results.summary)
        ]


def _drawn(part: Part, results: Results) -> list[Drawn]:
    found = [figure for draw in part.figures for figure in draw(results)]
    if part.by_task:
        tasks = [row.learning.heading.task for row in results.summary.learned]
        found.sort(key=lambda figure: tasks.index(figure.task))
    return found


def _tables(part: Part, summary: Summary, *, folded: bool) -> tuple[Table, ...]:
    return tuple(_filled([t for t in part.tables if (t in FOLDED) is folded], summary))


def _filled(tables: Iterable[Tabled], summary: Summary) -> Iterator[Table]:
    """Return the tables that have rows."""
    return (table for make in tables if (table := make(summary)).rows)


def terminal_tables(summary: Summary) -> Iterator[Table]:
    """Return the tables that `show` prints."""
    every = [table for part in PARTS for table in part.tables]
    return _filled([table for table in every if table not in PAGE_ONLY], summary)


def end_table(summary: Summary) -> Table | None:
    """Return the table that is shown at the end of a run, or None."""
    return next(_filled(AT_THE_END, summary), None)
