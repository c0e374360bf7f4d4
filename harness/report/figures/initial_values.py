"""Gradient over lag at initial values: a panel a cell, a line an initialisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from harness.analysis.learning.initial_values import InitialPanel, InitialSeries
from harness.report.figures.gradients import (
    HORIZON,
    LOWEST,
    draw_underflow,
    drawable,
)
from harness.report.figures.style import (
    DASHES,
    INK,
    Drawn,
    Palette,
    Sketch,
    arrange,
    finish,
    label_line,
    line_handle,
    log_axis,
    note_failures,
    power_label,
)

SHIPPED = "#8a8a8a"
"""Of what a framework ships; the schemes of this project have the cell's colour."""

LOOKS: dict[str, dict[str, Any]] = {
    "canonical": {"linestyle": "-", "linewidth": 2.2},
    "zero-bias": {"linestyle": (0, (1, 1)), "linewidth": 2.0},
    "chrono": {"linestyle": (0, (6, 1.5)), "linewidth": 2.0},
    "native-torch": {"linestyle": "-", "linewidth": 1.6, "color": SHIPPED},
    "native-keras": {"linestyle": (0, (4, 2)), "linewidth": 1.6, "color": SHIPPED},
}
CAPTION = (
    "R(lag) = |dL/ds(τ−lag)| / |dL/ds(τ)| before any training: the total derivative of "
    "one fixed term L of the loss for the state. Lines: the median over seeds of the "
    "median over examples; in the cell's colour this project's initial values, grey "
    "what a framework ships. A triangle: beyond it the ratio is smaller than any "
    "number. The level 10⁻³ defines the horizon. The axis ends at 10⁻¹⁰."
)


def draw_initial_values(
    panels: Sequence[InitialPanel], palette: Palette, index: int
) -> Drawn:
    """Draw the panels of one place, all with the same axes."""
    cells = arrange(["cell"] * len(panels)) if len(panels) > 1 else [(0, 0)]
    lines, columns = (1 + max(ends) for ends in zip(*cells, strict=True))
    sketch = Sketch(1.2 + 4.2 * columns, 0.8 + 3.1 * lines, palette)
    grid = sketch.figure.subplots(lines, columns, squeeze=False)
    high = max(
        1.0, *(max(series.median) for panel in panels for series in panel.series)
    )
    for cell, panel in zip(cells, panels, strict=True):
        _axes(grid[cell], panel, sketch, high)
    for cell in set(np.ndindex(lines, columns)) - set(cells):
        grid[cell].remove()
    sketch.legend(_handles(panels))
    where = panels[0].heading
    return finish(
        sketch,
        f"initial-values-{index}",
        f"Initial values and the gradient over lag: {where.title}",
        _describe(panels),
        CAPTION,
        where.task,
    )


def _axes(axes: Axes, panel: InitialPanel, sketch: Sketch, high: float) -> None:
    for series in panel.series:
        _draw(axes, panel, series, sketch)
    log_axis(axes.yaxis, LOWEST, high)
    axes.set_ylim(LOWEST, high * 3)
    axes.set_xlim(0, max(series.lags[-1] for series in panel.series))
    label_line(axes, HORIZON, "10⁻³")
    axes.set_title(f"{panel.heading.title}: {panel.cell}")
    axes.set_xlabel("lag (time steps)")
    axes.set_ylabel("R(lag)")
    _note_equals(axes, panel.series)
    note_failures(axes, panel.failures)


def _draw(
    axes: Axes, panel: InitialPanel, series: InitialSeries, sketch: Sketch
) -> None:
    look = {"color": sketch.palette.cells[panel.cell], **_look(series.inits[0])}
    artists = axes.plot(series.lags, drawable(series.median), zorder=3, **look)
    artists += draw_underflow(axes, series.lags, series.median, look["color"])
    sketch.mark(artists, panel.cell, panel.implementation)


def _look(init: str) -> dict[str, Any]:
    """Return how a line is drawn; a scheme that is not known here gets a dash."""
    index = sum(map(ord, init)) % (len(DASHES) - 1)
    return LOOKS.get(init, {"linestyle": DASHES[1 + index], "linewidth": 1.6})


def _note_equals(axes: Axes, series: Sequence[InitialSeries]) -> None:
    """Say under the axes which lines would cover each other: they are drawn once."""
    for first, *others in (each.inits for each in series):
        if others:
            words = f"same as {first}: {', '.join(others)}"
            axes.set_xlabel(f"{axes.get_xlabel()}\n{words}")


def _handles(panels: Sequence[InitialPanel]) -> list[Line2D]:
    shown = {init for panel in panels for each in panel.series for init in each.inits}
    names = [*(n for n in LOOKS if n in shown), *sorted(shown - set(LOOKS))]
    return [line_handle(name, **{"color": INK, **_look(name)}) for name in names]


def _describe(panels: Sequence[InitialPanel]) -> str:
    """Return the panels in words: the ratio at the largest lag."""
    words = []
    for panel in panels:
        for series in panel.series:
            end = series.median[-1]
            left = power_label(end) if end > 0 else "no number left"
            words.append(
                f"{panel.cell} {', '.join(series.inits)}: {left} at lag "
                f"{series.lags[-1]:.0f}"
            )
    return f"{panels[0].heading.title}, gradient ratio over lag. {'; '.join(words)}."
