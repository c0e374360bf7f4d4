"""The gradient over lag on a log axis, before and after training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from harness.analysis.grouping import group
from harness.analysis.learning.gradient_over_lag import GradientPanel, LagSeries
from harness.analysis.learning.initial_values import InitialSeries
from harness.measure.gradients import HORIZON_RATIO
from harness.report.figures.axes import label_line, log_axis, note_trials
from harness.report.figures.layout import arrange
from harness.report.figures.results import Results
from harness.report.figures.sketch import Drawn, Sketch, extent
from harness.report.figures.style import Look, Palette, line_handle

LOWEST = 1e-10
"""Ratios below this are not drawn: they are too small to help an optimiser."""

NAMES = {"loss": "loss term", "random": "random cotangent"}
LOOKS: dict[str, Look] = {
    "initial": {"linewidth": 1.5, "linestyle": (0, (3, 1.5))},
    "trained": {"linewidth": 2.2},
}
CAPTION = (
    "How much of the gradient of L is left so many time steps (lag) before the output: "
    "R(lag) = |dL/ds(τ−lag)| / |dL/ds(τ)|, with the total derivative with respect to "
    "the state s. Lines: the median over seeds of the median over examples, dashed at "
    "the initial values, solid after training. Band: the 10 % to 90 % quantiles over "
    "examples. Loss term: L is one fixed term of the loss. Random cotangent: L is the "
    "output in a random direction of length 1. A triangle: from here on the ratio is "
    "too small for a float. The lag at which a line falls below 10⁻³ is the horizon. "
    "The axis ends at 10⁻¹⁰."
)


def gradient_figures(results: Results) -> Iterator[Drawn]:
    """Draw the gradients of each task."""
    for panels in group(results.gradients, lambda p: p.heading.task).values():
        ordered = sorted(panels, key=lambda panel: panel.cotangent)
        yield draw_gradients(ordered, results.palette)


def draw_gradients(panels: Sequence[GradientPanel], palette: Palette) -> Drawn:
    """Draw the panels of one task, the loss terms first."""
    cells = arrange([panel.cotangent for panel in panels])
    sketch = lag_sketch(cells, palette)
    for axes, panel in zip(sketch.panels(cells), panels, strict=True):
        gradient_axes(axes, panel, sketch)
    sketch.legend(gradient_handles(panels, palette))
    task = panels[0].heading.task
    title = f"Gradient over lag: {task}"
    return sketch.finish(f"gradients-{task}", title, describe(panels), CAPTION, task)


def lag_sketch(cells: Sequence[tuple[int, int]], palette: Palette) -> Sketch:
    """Return a sketch for panels of a gradient over lag in these cells."""
    lines, columns = extent(cells)
    return Sketch(1.2 + 4.2 * columns, 0.8 + 3.1 * lines, palette)


def gradient_axes(axes: Axes, panel: GradientPanel, sketch: Sketch) -> None:
    """Draw one panel: the ratio over lag."""
    marked = len({series.implementation for series in panel.series}) > 1
    for series in panel.series:
        marker = sketch.palette.marker(series.implementation) if marked else ""
        _draw_series(axes, series, sketch, marker)
    values = [v for series in panel.series for v in (*series.median, *series.high)]
    shown = [value for value in values if value >= LOWEST]
    low, high = min([*shown, HORIZON_RATIO]), max([*shown, 1.0])
    log_axis(axes.yaxis, low, high, ends=(max(low / 3, LOWEST), high * 3))
    axes.set_xlim(left=0)
    label_lag(axes, f"{panel.heading.title}: {NAMES[panel.cotangent]}")
    note_trials(axes, panel.failures, panel.uncertified)


def label_lag(axes: Axes, title: str) -> None:
    """Write the title and the labels of a panel, and draw the horizon's level."""
    label_line(axes, HORIZON_RATIO, "10⁻³")
    axes.set(title=title, xlabel="lag (time steps)", ylabel="R(lag)")


def _draw_series(axes: Axes, series: LagSeries, sketch: Sketch, marker: str) -> None:
    colour = sketch.palette.cells[series.cell]
    lags, median = series.lags, drawable(series.median)
    looks = {"color": colour, "marker": marker, "markersize": 4, **LOOKS[series.state]}
    every = max(1, len(lags) // 6)
    artists: list[Artist] = []
    artists += axes.plot(lags, median, markevery=every, zorder=3, **looks)
    if series.state == "trained":
        low = np.where(np.isnan(median), np.nan, np.maximum(series.low, LOWEST / 10))
        high = np.where(np.isnan(median), np.nan, series.high)
        band: Look = {"color": colour, "alpha": 0.13, "linewidth": 0}
        artists.append(axes.fill_between(lags, low, high, **band))
    artists += draw_underflow(axes, series.lags, series.median, colour)
    sketch.mark(artists, series.cell, series.implementation)


def drawable(values: Sequence[float]) -> np.ndarray:
    """Return values for a log axis, with NaN for those that underflowed."""
    found = np.asarray(values, dtype=float)
    return np.where(found > 0, found, np.nan)


def draw_underflow(
    axes: Axes, lags: Sequence[float], median: Sequence[float], colour: str
) -> list[Line2D]:
    """Mark where a line ends because its next value is too small for a float."""
    last = max(i for i, value in enumerate(median) if value > 0)
    if last == len(median) - 1 or median[last] < LOWEST:
        return []
    return axes.plot(lags[last], median[last], "v", color=colour, markersize=6)


def left(series: LagSeries | InitialSeries, form: Callable[[float], str]) -> str:
    """Return how much is left at the largest lag: "10^-3 at lag 100"."""
    end = series.median[-1]
    words = form(end) if end > 0 else "too small for a float"
    return f"{words} at lag {series.lags[-1]:.0f}"


def gradient_handles(panels: Sequence[GradientPanel], palette: Palette) -> list[Line2D]:
    """Return the legend of gradient panels."""
    series = [each for panel in panels for each in panel.series]
    states = {each.state for each in series}
    handles = palette.cell_handles(each.cell for each in series)
    handles += palette.marker_handles(each.implementation for each in series)
    shown = {state: look for state, look in LOOKS.items() if state in states}
    return handles + [line_handle(state, **look) for state, look in shown.items()]


def describe(panels: Sequence[GradientPanel]) -> str:
    """Return the panels in words: the ratio at the largest lag."""
    words = [
        f"{panel.heading.title}, {NAMES[panel.cotangent]}, {series.cell} "
        f"{series.state}: {left(series, lambda end: f'10^{math.log10(end):.0f}')}"
        for panel in panels
        for series in panel.series
    ]
    return f"Gradient ratio over lag. {'; '.join(words)}."
