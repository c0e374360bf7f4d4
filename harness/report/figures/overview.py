"""The three pictures of the first screen: one panel for each question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.analysis.grouping import Heading, group
from harness.analysis.speed.timings import PLACEMENT, SpeedRow
from harness.report.figures import gradients, learning, speed
from harness.report.figures.axes import at_dots
from harness.report.figures.results import Results
from harness.report.figures.sketch import Drawn, Sketch
from harness.report.tables.timings import phase

WIDTH, HEIGHT = 5.0, 3.7
TITLE = 40
"""The characters of a title in one line."""

MOST_LINES = 16
"""More lines than this cannot be read at the size of the first screen."""


def learning_overview(results: Results) -> Iterator[Drawn]:
    """Draw the learning curves of the heading in focus."""
    for panel in results.curves:
        if panel.heading == results.summary.focus and learning.has_curve([panel]):
            sketch = Sketch(WIDTH, HEIGHT, results.palette)
            learning.learning_axes(sketch.figure.subplots(), panel, sketch)
            sketch.legend(learning.learning_handles([panel], results.palette))
            yield sketch.finish(
                "overview-learning",
                "What can it learn?",
                learning.describe([panel]),
                "Thin: seeds. Thick: their median. Dashed: the floor.",
                panel.heading.task,
            )


def gradients_overview(results: Results) -> Iterator[Drawn]:
    """Draw the gradient over lag of the task and length in focus, else of the first."""
    focus = results.summary.focus
    near = sorted(results.gradients, key=lambda p: not _same(p.heading, focus))
    for panel in near[:1]:
        sketch = Sketch(WIDTH, HEIGHT, results.palette)
        gradients.gradient_axes(sketch.figure.subplots(), panel, sketch)
        sketch.legend(gradients.gradient_handles([panel], results.palette))
        yield sketch.finish(
            "overview-gradients",
            "Why?",
            gradients.describe([panel]),
            "How much of the gradient is left, so many time steps before the output.",
            panel.heading.task,
        )


def speed_overview(results: Results) -> Iterator[Drawn]:
    """Draw the throughput of one heading and phase."""
    compared = overview_speed(results.summary.speed, results.summary.focus)
    if not compared:
        return
    rows = best_of_each(compared)
    lines = list(dict.fromkeys((row.cell, row.implementation) for row in rows))
    sketch = Sketch(WIDTH, max(HEIGHT, 1.3 + 0.2 * len(lines)), results.palette)
    axes = sketch.figure.subplots()
    speed.throughput_axes(axes, rows, lines, sketch, longest=15)
    name = next(row.phase for row in rows if row.phase)
    axes.set_title(at_dots(f"{rows[0].heading.title}: {phase(name)}", TITLE))
    sketch.legend(speed.throughput_handles(rows, results.palette))
    few = f" The best of each cell, {len(rows)} of {len(compared)}."
    yield sketch.finish(
        "overview-speed",
        "How fast is it?",
        speed.describe(rows),
        "Median and 95 % interval; hatched: uncertified."
        + (few if len(rows) < len(compared) else ""),
        rows[0].heading.task,
    )


def overview_speed(rows: Sequence[SpeedRow], focus: Heading | None) -> list[SpeedRow]:
    """Return the timings for the first screen: of one heading and one phase.

    It is the heading with the most implementations; of several, the one in focus, else
    the first. The phase is the whole update if it was timed, else the first one.
    """
    headings = group((r for r in rows if r.phase != PLACEMENT), lambda r: r.heading)
    found = [_main_phase(members) for members in headings.values()]

    def compared(shown: Sequence[SpeedRow]) -> tuple[int, bool]:
        names = {row.implementation for row in shown if row.tokens_per_s}
        return len(names), _same(shown[0].heading, focus)

    return max(filter(None, found), key=compared, default=[])


def _main_phase(rows: Sequence[SpeedRow]) -> list[SpeedRow]:
    """Return the rows of whole updates, else of the first phase that was timed."""
    phases = [row.phase for row in rows if row.tokens_per_s]
    if not phases:
        return []
    name = "train_step" if "train_step" in phases else phases[0]
    return [row for row in rows if row.phase in (name, "")]


def best_of_each(rows: Sequence[SpeedRow], most: int = MOST_LINES) -> list[SpeedRow]:
    """Return at most `most` rows: of each cell the certified ones, fastest first."""
    if len(rows) <= most:
        return list(rows)

    def order(index: int) -> tuple[bool, float]:
        return not rows[index].certified, -(rows[index].tokens_per_s or 0)

    of_cells = group(range(len(rows)), lambda index: rows[index].cell).values()
    ranked = [
        each for found in of_cells for each in enumerate(sorted(found, key=order))
    ]
    kept = sorted(index for _, index in sorted(ranked)[:most])
    return [rows[index] for index in kept]


def _same(where: Heading, focus: Heading | None) -> bool:
    if focus is None:
        return False
    return (where.task, where.length) == (focus.task, focus.length)
