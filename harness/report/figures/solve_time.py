"""Time to solve, by cell and certified implementation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from harness.analysis.grouping import group
from harness.analysis.learning.solve_time import SolveTime
from harness.analysis.summary import LearnedRow
from harness.report.figures.axes import around, log_axis, name_lines, write
from harness.report.figures.results import Results
from harness.report.figures.sketch import Drawn, Sketch
from harness.report.figures.style import Palette, line_handle, point_handle, shorten
from harness.report.tables.learning import updates
from harness.report.text import marked, seconds

CAPTION = (
    "The updates that the cell needed to solve the task × the time of one update of "
    "the certified implementation, at the same shape and on one thread. The line "
    "multiplies the lower ends of both spreads and the upper ends of both; an arrow "
    "means that the upper end is beyond the limit of updates. A cell whose median seed "
    "did not solve the task has no time. Uncertified: an implementation without a "
    "certificate counted the updates."
)


def solve_time_figures(results: Results) -> Iterator[Drawn]:
    """Draw the times of each task that has any."""
    tasks = group(results.summary.learned, lambda row: row.learning.heading.task)
    for rows in tasks.values():
        if any(row.solve_times for row in rows):
            yield _draw(rows, results.palette)


def _draw(rows: Sequence[LearnedRow], palette: Palette) -> Drawn:
    """Draw a panel for each length and variant of one task."""
    found = group(rows, lambda row: row.learning.heading)
    counts = [sum(len(r.solve_times) or 1 for r in m) for m in found.values()]
    heights = [0.8 + 0.27 * count for count in counts]
    sketch = Sketch(9.0, 0.6 + sum(heights), palette)
    ratios = {"height_ratios": heights}
    grid = sketch.figure.subplots(
        len(found), 1, squeeze=False, sharex=True, gridspec_kw=ratios
    )
    times = [time for row in rows for time in row.solve_times]
    for axes, (where, members) in zip(grid[:, 0], found.items(), strict=True):
        _axes(axes, members, times, sketch)
        axes.set_title(where.title)
    grid[-1, 0].set_xlabel("time to solve")
    sketch.legend(_handles(times))
    task = rows[0].learning.heading.task
    title = f"Time to solve: {task}"
    return sketch.finish(f"time-to-solve-{task}", title, _describe(rows), CAPTION, task)


def _axes(
    axes: Axes,
    rows: Sequence[LearnedRow],
    all_times: Sequence[SolveTime],
    sketch: Sketch,
) -> None:
    low, high = around([value for time in all_times for value in _ends(time)], 1.6)
    right = high * max(2.0, (high / low) ** 0.25)
    log_axis(axes.xaxis, low, high, seconds, (low, right))
    labels: list[str] = []
    for row in rows:
        for time in row.solve_times:
            _draw_time(axes, len(labels), time, sketch)
            labels.append(f"{row.learning.cell} · {shorten(time.implementation)}")
        if not row.solve_times:
            text = write(axes, _why_none(row), (low, len(labels)), (7, 0))
            sketch.mark([text], row.learning.cell, row.learning.implementation)
            labels.append(row.learning.cell)
    name_lines(axes, labels)


def _ends(time: SolveTime) -> list[float]:
    known = (time.low, time.seconds, time.high)
    return [value for value in known if value is not None]


def _why_none(row: LearnedRow) -> str:
    found = row.learning.updates
    if found is None:
        return "no seed ended ok"
    if found.median is None:
        return updates(found)
    return "no certified timing at this shape"


def _draw_time(axes: Axes, line: int, time: SolveTime, sketch: Sketch) -> None:
    colour = sketch.palette.cells[time.cell]
    ends = _ends(time)
    reach = [min(ends), max(ends)]
    span = axes.plot(reach, [line, line], color=colour, linewidth=1.6)
    marker = sketch.palette.marker(time.implementation)
    span += axes.plot(time.seconds, line, marker, color=colour, markersize=6.5)
    beyond = time.high is None and time.low is not None
    if beyond:
        span += axes.plot(1.12 * time.seconds, line, ">", color=colour, markersize=4)
    words = seconds(time.seconds) + (" · shaky" if time.shaky else "")
    words = marked(words, time.doubt)
    at = max(ends) * (1.12 if beyond else 1.0)
    text = write(axes, words, (at, line), (7, 0))
    sketch.mark([*span, text], time.cell, time.implementation)


def _handles(times: Sequence[SolveTime]) -> list[Line2D]:
    handles = [
        point_handle("median"),
        line_handle("spread of updates × interval of time", linewidth=1.6),
    ]
    if any(time.high is None and time.low is not None for time in times):
        handles.append(point_handle("upper end beyond the limit", ">", markersize=4))
    return handles


def _describe(rows: Sequence[LearnedRow]) -> str:
    words = []
    for row in rows:
        times = [f"{t.implementation} {seconds(t.seconds)}" for t in row.solve_times]
        name = f"{row.learning.heading.title}, {row.learning.cell}"
        words.append(f"{name}: {', '.join(times) or _why_none(row)}")
    return f"Time to solve. {'; '.join(words)}."
