"""Learning curves: every seed thin, their median thick, and the floor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from harness.analysis.grouping import group
from harness.analysis.learning.held_out_curves import (
    LearningPanel,
    LearningSeries,
    SeedCurve,
    learning_panels,
)
from harness.report.figures.axes import label_line, log_axis, note_trials
from harness.report.figures.layout import arrange
from harness.report.figures.results import Results
from harness.report.figures.sketch import Drawn, Sketch, extent
from harness.report.figures.style import (
    INK,
    Look,
    Palette,
    line_handle,
    point_handle,
    shorten,
)
from harness.report.text import number

CAPTION = (
    "{metric} on examples that were not trained on, over updates. Thin: single seeds, "
    "with a dot where training stopped because the task was solved, and a cross where "
    "a seed did not end ok. Thick: the median over seeds; a solved seed keeps its last "
    "value, a diverged seed counts as worse than every other. Dashed: the floor, which "
    "is the best score without memory."
)


def learning_figures(results: Results) -> Iterator[Drawn]:
    """Draw the curves of each task, and its loss if that is not its metric."""
    losses = learning_panels(results.summary.run, metric="loss")
    for task, panels in group(results.curves, lambda p: p.heading.task).items():
        if panels[0].metric != "loss":
            panels += [panel for panel in losses if panel.heading.task == task]
        if has_curve(panels):
            yield draw_learning(panels, results.palette)


def has_curve(panels: Sequence[LearningPanel]) -> bool:
    """Return whether any seed of these panels has a curve."""
    return any(series.curves for panel in panels for series in panel.series)


def draw_learning(panels: Sequence[LearningPanel], palette: Palette) -> Drawn:
    """Draw the panels of one task, of one metric or two."""
    cells = arrange([panel.metric for panel in panels])
    lines, columns = extent(cells)
    width = 7.0 if columns == 1 else 1.0 + 4.0 * columns
    sketch = Sketch(width, 0.7 + 3.1 * lines, palette)
    for axes, panel in zip(sketch.panels(cells), panels, strict=True):
        learning_axes(axes, panel, sketch)
    sketch.legend(learning_handles(panels, palette))
    task = panels[0].heading.task
    metric = " and ".join(dict.fromkeys(p.metric.replace("_", " ") for p in panels))
    title = f"Learning curves: {task}, {metric}"
    caption = CAPTION.format(metric=metric.capitalize())
    return sketch.finish(f"learning-{task}", title, describe(panels), caption, task)


def learning_axes(axes: Axes, panel: LearningPanel, sketch: Sketch) -> None:
    """Draw one panel: the held-out metric over updates."""
    end = max((c.x[-1] for s in panel.series for c in s.curves), default=1.0)
    dashed = len({series.implementation for series in panel.series}) > 1
    for series in panel.series:
        look = _look(series.implementation, sketch.palette) if dashed else {}
        _draw_series(axes, series, sketch, end, look)
    metric = panel.metric.replace("_", " ") + (f" ({panel.unit})" if panel.unit else "")
    axes.set(title=panel.heading.title, xlabel="updates", ylabel=f"held-out {metric}")
    _scale(axes, panel)
    axes.set_xlim(left=0)
    if panel.floor is not None:
        label_line(axes, panel.floor, f"floor\n{number(panel.floor)}")
    note_trials(axes, panel.failures, panel.uncertified)


def _look(implementation: str, palette: Palette) -> Look:
    """Return how a median looks: that of the first implementation is wide and pale."""
    if palette.implementations[implementation] == 0:
        return {"linewidth": 5.0, "alpha": 0.35}
    return {"linestyle": palette.dash(implementation), "linewidth": 1.8}


def _draw_series(
    axes: Axes, series: LearningSeries, sketch: Sketch, end: float, look: Look
) -> None:
    colour = sketch.palette.cells[series.cell]
    artists = axes.plot(
        series.median_x,
        series.median,
        **{"color": colour, "linewidth": 2.4, "zorder": 3, **look},
    )
    for curve in series.curves:
        artists += axes.plot(
            curve.x, curve.y, color=colour, linewidth=0.9, alpha=0.4, zorder=2
        )
        artists += _draw_end(axes, curve, colour, end)
    sketch.mark(artists, series.cell, series.implementation)


def _draw_end(axes: Axes, curve: SeedCurve, colour: str, end: float) -> list[Line2D]:
    x, y = curve.x[-1], curve.y[-1]
    if curve.outcome != "ok":
        edge: Look = {"color": colour, "markeredgecolor": INK}
        return axes.plot(x, y, "X", markersize=9, zorder=5, **edge)
    if x < end:
        return axes.plot(x, y, marker="o", color=colour, markersize=3.5, zorder=4)
    return []


def _scale(axes: Axes, panel: LearningPanel) -> None:
    values = [value for s in panel.series for c in s.curves for value in c.y]
    values += [] if panel.floor is None else [panel.floor]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if panel.better == "lower" and low > 0 and high / low >= 8:
        log_axis(axes.yaxis, low, high, ends=(low / 1.5, high * 1.5))
    elif panel.unit == "fraction":
        axes.set_ylim(0, 1.03)
    else:
        axes.set_ylim(bottom=min(0.0, low))


def learning_handles(panels: Sequence[LearningPanel], palette: Palette) -> list[Line2D]:
    """Return the legend of learning panels."""
    drawn = [each for panel in panels for each in panel.series if each.curves]
    handles = palette.cell_handles(each.cell for each in drawn)
    names = dict.fromkeys(each.implementation for each in drawn)
    if len(names) > 1:
        handles += [line_handle(shorten(n), **_look(n, palette)) for n in names]
    if any(len(each.curves) > 1 for each in drawn):
        handles.append(line_handle("single seed", linewidth=0.9, alpha=0.6))
    if any(curve.outcome != "ok" for each in drawn for curve in each.curves):
        crossed = point_handle("did not end ok", "X", markersize=8, markeredgecolor=INK)
        handles.append(crossed)
    return handles


def describe(panels: Sequence[LearningPanel]) -> str:
    """Return the panels in words: the last median of every cell."""
    words = []
    for panel in panels:
        ends = [
            f"{series.cell} ends at {number(series.median[-1])}"
            for series in panel.series
            if series.median
        ]
        name = f"{panel.heading.title}, {panel.metric.replace('_', ' ')}"
        words.append(f"{name}: {', '.join(ends) or 'no curve'}")
    return f"Held-out scores over updates. {'; '.join(words)}."
