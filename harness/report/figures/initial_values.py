"""The gradient over lag before training, with a line for each initialisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from harness.analysis.grouping import group
from harness.analysis.learning.initial_values import InitialPanel, InitialSeries
from harness.report.figures.axes import log_axis, note, note_trials, power_label
from harness.report.figures.gradients import (
    LOWEST,
    draw_underflow,
    drawable,
    label_lag,
    lag_sketch,
    left,
)
from harness.report.figures.layout import arrange
from harness.report.figures.results import Results
from harness.report.figures.sketch import Drawn, Sketch
from harness.report.figures.style import DASHES, INK, Look, Palette, line_handle

SHIPPED = "#8a8a8a"
"""The colour of a framework's own scheme; the others have the cell's colour."""

LOOKS: dict[str, Look] = {
    "canonical": {"linestyle": "-", "linewidth": 2.2},
    "zero-bias": {"linestyle": (0, (1, 1)), "linewidth": 2.0},
    "chrono": {"linestyle": (0, (6, 1.5)), "linewidth": 2.0},
    "native-torch": {"linestyle": "-", "linewidth": 1.6, "color": SHIPPED},
    "native-keras": {"linestyle": (0, (4, 2)), "linewidth": 1.6, "color": SHIPPED},
}
CAPTION = (
    "How much of the gradient is left so many time steps (lag) before the output, "
    "before any training: R(lag) = |dL/ds(τ−lag)| / |dL/ds(τ)|, the total derivative "
    "of one fixed term L of the loss with respect to the state s. Lines: the median "
    "over seeds of the median over examples, in the cell's colour for this project's "
    "initial values and grey for those of a framework. A triangle: from here on the "
    "ratio is too small for a float. The lag at which a line falls below 10⁻³ is the "
    "horizon. The axis ends at 10⁻¹⁰."
)


def initial_values_figures(results: Results) -> Iterator[Drawn]:
    """Draw the gradients at initial values of each task and length."""
    found = group(results.initial_gradients, lambda panel: panel.heading)
    for index, panels in enumerate(found.values(), 1):
        yield draw_initial_values(panels, results.palette, index)


def draw_initial_values(
    panels: Sequence[InitialPanel], palette: Palette, index: int
) -> Drawn:
    """Draw the panels of one task and length, all with the same axes."""
    cells = arrange(["cell"] * len(panels))
    sketch = lag_sketch(cells, palette)
    high = max(
        1.0, *(max(series.median) for panel in panels for series in panel.series)
    )
    for axes, panel in zip(sketch.panels(cells), panels, strict=True):
        _axes(axes, panel, sketch, high)
    sketch.legend(_handles(panels))
    where = panels[0].heading
    title = f"Initial values and the gradient over lag: {where.title}"
    name = f"initial-values-{index}"
    return sketch.finish(name, title, _describe(panels), CAPTION, where.task)


def _axes(axes: Axes, panel: InitialPanel, sketch: Sketch, high: float) -> None:
    for series in panel.series:
        _draw(axes, panel, series, sketch)
    log_axis(axes.yaxis, LOWEST, high, ends=(LOWEST, high * 3))
    axes.set_xlim(0, max(series.lags[-1] for series in panel.series))
    label_lag(axes, f"{panel.heading.title}: {panel.cell}")
    for first, *others in (series.inits for series in panel.series):
        if others:  # their lines would cover each other: they are drawn once
            note(axes, f"same as {first}: {', '.join(others)}")
    note_trials(axes, panel.failures)


def _draw(
    axes: Axes, panel: InitialPanel, series: InitialSeries, sketch: Sketch
) -> None:
    look = {"color": sketch.palette.cells[panel.cell], **_look(series.inits[0])}
    artists = axes.plot(series.lags, drawable(series.median), zorder=3, **look)
    artists += draw_underflow(axes, series.lags, series.median, look["color"])
    sketch.mark(artists, panel.cell, panel.implementation)


def _look(init: str) -> Look:
    """Return how a scheme's line is drawn; an unknown scheme gets a dash."""
    index = sum(map(ord, init)) % (len(DASHES) - 1)
    return LOOKS.get(init, {"linestyle": DASHES[1 + index], "linewidth": 1.6})


def _handles(panels: Sequence[InitialPanel]) -> list[Line2D]:
    shown = {init for panel in panels for each in panel.series for init in each.inits}
    names = [*(n for n in LOOKS if n in shown), *sorted(shown - set(LOOKS))]
    return [line_handle(name, **{"color": INK, **_look(name)}) for name in names]


def _describe(panels: Sequence[InitialPanel]) -> str:
    """Return the panels in words: the ratio at the largest lag."""
    words = [
        f"{panel.cell} {', '.join(series.inits)}: {left(series, power_label)}"
        for panel in panels
        for series in panel.series
    ]
    return f"{panels[0].heading.title}, gradient ratio over lag. {'; '.join(words)}."
