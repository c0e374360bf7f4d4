"""Updates to solve of every seed, and the solved fraction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from harness.analysis.grouping import Heading, group
from harness.analysis.learning.learned import LearningRow, Seed
from harness.report.figures.axes import name_lines
from harness.report.figures.results import Results
from harness.report.figures.sketch import Drawn, Sketch
from harness.report.figures.style import INK, Look, Palette, point_handle, shorten
from harness.report.tables.learning import solved, updates
from harness.report.text import marked

CAPTION = (
    "Left: each filled mark is the update at which one seed had solved the task. An "
    "open mark is a seed that had not solved it at the limit of updates. A cross is a "
    "seed that did not end ok. The bar is the median over seeds; it is at the limit "
    "where the median is not known. Right: the fraction of solved seeds with "
    "Wilson's 95 % interval."
)


def solved_figures(results: Results) -> Iterator[Drawn]:
    """Draw the seeds of each task."""
    rows = [row.learning for row in results.summary.learned]
    for members in group(rows, lambda row: row.heading.task).values():
        yield _draw(members, results.palette)


def _draw(rows: Sequence[LearningRow], palette: Palette) -> Drawn:
    """Draw two panels for each length of one task, with a line for each network."""
    found = group(rows, lambda row: row.heading)
    heights = [0.75 + 0.3 * len(members) for members in found.values()]
    sketch = Sketch(9.6, 0.6 + sum(heights), palette)
    ratios = {"width_ratios": [3, 1], "height_ratios": heights}
    grid = sketch.figure.subplots(len(found), 2, squeeze=False, gridspec_kw=ratios)
    for (left, right), (where, members) in zip(grid, found.items(), strict=True):
        _updates_axes(left, where, members, sketch)
        _fraction_axes(right, members, sketch)
    sketch.legend(_handles(rows))
    task = rows[0].heading.task
    title = f"Solved seeds and updates to solve: {task}"
    return sketch.finish(f"solved-{task}", title, _describe(rows), CAPTION, task)


def row_label(row: LearningRow, several: bool) -> str:
    """Return the cell of a line, with the implementation if there are several."""
    name = f"{row.cell} · {shorten(row.implementation)}" if several else row.cell
    return marked(name, row.doubt)


def _updates_axes(
    axes: Axes, where: Heading, rows: Sequence[LearningRow], sketch: Sketch
) -> None:
    limits = [s.limit for row in rows for s in row.seeds if s.limit is not None]
    limit = max(limits, default=1.0)
    for line, row in enumerate(rows):
        _draw_row(axes, line, row, limit, sketch)
    several = len({row.implementation for row in rows}) > 1
    name_lines(axes, [row_label(row, several) for row in rows])
    axes.axvline(limit, color=INK, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
    axes.set(xlabel="updates to solve", xlim=(-0.03 * limit, 1.06 * limit))
    axes.set_title(f"{where.title} (limit {limit:.0f})")


def _draw_row(
    axes: Axes, line: int, row: LearningRow, limit: float, sketch: Sketch
) -> None:
    colour = sketch.palette.cells[row.cell]
    artists: list[Line2D] = []
    for i, seed in enumerate(row.seeds):
        # Seeds are drawn side by side, so that two with the same update are both seen.
        y = line + (0.4 * (i / (len(row.seeds) - 1) - 0.5) if len(row.seeds) > 1 else 0)
        artists += _draw_seed(axes, y, seed, colour, limit)
    if row.updates is not None:
        median = row.updates.median
        x = row.updates.limit if median is None else median
        bar = [line - 0.36, line + 0.36]
        artists += axes.plot([x, x], bar, color=colour, linewidth=2.6, zorder=2)
    sketch.mark(artists, row.cell, row.implementation)


_SEED: Look = {"markersize": 5.5}
_FAILED: Look = {"markersize": 7, "markeredgecolor": INK, "clip_on": False}


def _draw_seed(
    axes: Axes, y: float, seed: Seed, colour: str, limit: float
) -> list[Line2D]:
    x, marker, look = seed.updates_to_solve, "o", _SEED
    if x is None and seed.outcome == "ok":
        x, look = seed.limit or limit, {**_SEED, "markerfacecolor": "white"}
    elif x is None:
        x, marker, look = seed.updates or 0, "X", _FAILED
    return axes.plot(x, y, marker, color=colour, zorder=3, **look)


def _fraction_axes(axes: Axes, rows: Sequence[LearningRow], sketch: Sketch) -> None:
    for line, row in enumerate(rows):
        if row.solved_interval is None:
            continue
        colour = sketch.palette.cells[row.cell]
        ends = [row.solved_interval.low, row.solved_interval.high]
        artists = axes.plot(ends, [line, line], color=colour, linewidth=1.6)
        artists += axes.plot(
            row.solved / row.count, line, "o", color=colour, clip_on=False, zorder=3
        )
        sketch.mark(artists, row.cell, row.implementation)
    name_lines(axes, [solved(row) for row in rows])
    axes.yaxis.tick_right()
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set(xlabel="solved fraction", xlim=(-0.03, 1.03))
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])


def _handles(rows: Sequence[LearningRow]) -> list[Line2D]:
    seeds = [seed for row in rows for seed in row.seeds]
    handles = []
    if any(seed.updates_to_solve is not None for seed in seeds):
        handles.append(point_handle("solved"))
    if any(seed.updates_to_solve is None and seed.outcome == "ok" for seed in seeds):
        handles.append(point_handle("not within the limit", markerfacecolor="white"))
    if any(seed.outcome != "ok" for seed in seeds):
        handles.append(point_handle("did not end ok", "X", markersize=8))
    bar = point_handle("median", "|", markersize=11, markeredgewidth=2.6)
    return [*handles, bar]


def _describe(rows: Sequence[LearningRow]) -> str:
    words = [
        f"{row.heading.title}, {marked(row.cell, row.doubt)}: solved {solved(row)}, "
        f"updates {updates(row.updates)}"
        for row in rows
    ]
    return f"Updates to solve. {'; '.join(words)}."
