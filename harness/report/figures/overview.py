"""The three pictures of the first screen: one panel a question."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from harness.analysis.learning.curves import LearningPanel
from harness.analysis.learning.gradients import GradientPanel
from harness.analysis.speed.rows import SpeedRow
from harness.report.figures import gradients, learning, speed
from harness.report.figures.style import Drawn, Palette, Sketch, finish
from harness.report.tables.speed import phase

WIDTH, HEIGHT = 5.0, 3.7
TITLE = 40
"""Characters of a title that stand beside the names of lines."""


def draw_learning(panel: LearningPanel, palette: Palette) -> Drawn:
    """Draw what it can learn."""
    sketch = Sketch(WIDTH, HEIGHT, palette)
    learning.learning_axes(sketch.figure.subplots(), panel, sketch)
    sketch.legend(learning.learning_handles([panel], palette))
    return finish(
        sketch,
        "overview-learning",
        "What can it learn?",
        learning.describe([panel]),
        "Thin: seeds. Thick: their median. Dashed: the floor.",
        panel.heading.task,
    )


def draw_gradients(panel: GradientPanel, palette: Palette) -> Drawn:
    """Draw why."""
    sketch = Sketch(WIDTH, HEIGHT, palette)
    gradients.gradient_axes(sketch.figure.subplots(), panel, sketch)
    sketch.legend(gradients.gradient_handles([panel], palette))
    return finish(
        sketch,
        "overview-gradients",
        "Why?",
        gradients.describe([panel]),
        "How much of the gradient is left, that many time steps back.",
        panel.heading.task,
    )


def draw_speed(rows: Sequence[SpeedRow], palette: Palette, of: int) -> Drawn:
    """Draw how fast, for one phase; `of` lines there are in all."""
    lines = list(dict.fromkeys((row.cell, row.implementation) for row in rows))
    sketch = Sketch(WIDTH, max(HEIGHT, 1.3 + 0.2 * len(lines)), palette)
    axes = sketch.figure.subplots()
    speed.throughput_axes(axes, rows, lines, sketch, longest=15)
    name = next(row.phase for row in rows if row.phase)
    title = f"{rows[0].heading.title}: {phase(name)}"
    parts = title.replace(" ", "\xa0").replace("·\xa0", "· ")  # a line ends at a dot
    axes.set_title("\n".join(textwrap.wrap(parts, TITLE)))
    few = f" The best of each cell, {len(rows)} of {of}." if len(rows) < of else ""
    sketch.legend(speed.throughput_handles(rows, palette))
    return finish(
        sketch,
        "overview-speed",
        "How fast is it?",
        speed.describe(rows),
        f"Median and 95 % interval; hatched: uncertified.{few}",
        rows[0].heading.task,
    )
