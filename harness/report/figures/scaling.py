"""The time of a call against length, batch, hidden size and threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from harness.analysis.grouping import group
from harness.analysis.speed.scaling import (
    AXES,
    ScalingLine,
    ScalingPanel,
    chosen_panels,
    scaling_panels,
)
from harness.analysis.speed.timings import SpeedRow
from harness.report.figures.axes import log_axis, note, seconds_label, titled
from harness.report.figures.layout import in_lines, left_out
from harness.report.figures.marks import (
    End,
    failed,
    look,
    name_ends,
    reach,
    ring,
    timing_handles,
)
from harness.report.figures.results import Results
from harness.report.figures.sketch import Drawn, Sketch
from harness.report.figures.style import Look, Palette, shorten
from harness.report.tables.timings import phase
from harness.report.text import seconds, whole

NAMES = {axis: axis.replace("_", " ") for axis in AXES}
CAPTION = (
    "The time of a call on log axes; all else is the same on a line. A slope of 1 "
    "means that twice the size takes twice the time; a slope of -1 over threads means "
    "that twice the threads take half the time. Band: the 95 % interval of the median. "
    "Open: uncertified. Ringed: shaky. A cross at the upper edge: the trial did not "
    "end ok; the table says why."
)
MOST = 3
"""The most panels of one axis."""

WIDTH, HEIGHT = 3.9, 3.1


def scaling_figures(results: Results) -> Iterator[Drawn]:
    """Draw one figure where several sizes of one kind were timed."""
    panels, others = chosen_panels(scaling_panels(results.summary.speed), MOST)
    if panels:
        yield draw_scaling(panels, others, results.palette)


def draw_scaling(
    panels: Sequence[ScalingPanel], others: int, palette: Palette
) -> Drawn:
    """Draw a line of panels for each axis; `others` is how many are not drawn."""
    lines = group(panels, lambda p: p.axis)
    sketch, kept = in_lines(list(lines.values()), palette, WIDTH, HEIGHT, margin=0.8)
    for axes, panel in kept:
        scaling_axes(axes, panel, sketch)
    rows = [r for p in panels for line in p.lines for _, r in line.points]
    sketch.legend(timing_handles(rows, palette))
    title = f"Time against {', '.join(NAMES[axis] for axis in lines)}"
    caption = CAPTION + left_out(others, "the tables")
    return sketch.finish("scaling", title, describe(panels), caption)


def scaling_axes(axes: Axes, panel: ScalingPanel, sketch: Sketch) -> None:
    """Draw one panel: the time of a call over its axis."""
    rows = [row for line in panel.lines for _, row in line.timed]
    times = [value for row in rows for value in _ends(row)]
    low, high = min(times) / 1.4, max(times) * 1.8
    log_axis(axes.yaxis, low, high, seconds_label)
    xs = sorted({x for line in panel.lines for x, _ in line.points})
    log_axis(axes.xaxis, xs[0], xs[-1], whole, (xs[0] / 1.12, xs[-1] * 1.12))
    axes.xaxis.set_major_locator(FixedLocator(xs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel=NAMES[panel.axis], ylabel=f"time of {phase(panel.phase)}")
    titled(axes, f"{panel.cell} · {panel.where}", sketch.panel_width - 0.7)
    ends, artists = [], []
    for line in panel.lines:
        artists.append(_draw(axes, line, sketch.palette))
        if line.timed:
            x, row = line.timed[-1]
            colour = sketch.palette.cells[row.cell]
            ends.append(End(x, row.time_s or 1.0, line.implementation, colour))
    names = iter(name_ends(axes, ends, HEIGHT - 1.0))
    for line, drawn in zip(panel.lines, artists, strict=True):
        drawn += [next(names)] if line.timed else []
        sketch.mark(drawn, panel.cell, line.implementation)
    _note_failures(axes, panel)


def _ends(row: SpeedRow) -> tuple[float, float]:
    return reach(row.time_s, row.time)


def _draw(axes: Axes, line: ScalingLine, palette: Palette) -> list[Artist]:
    found: list[Artist] = []
    rows = [row for _, row in line.timed]
    xs = [x for x, _ in line.timed]
    if rows:
        colour = palette.cells[rows[0].cell]
        times = [row.time_s or 1.0 for row in rows]
        dash = palette.dash(line.implementation)
        found += axes.plot(xs, times, color=colour, linestyle=dash, linewidth=1.3)
        low, high = zip(*map(_ends, rows), strict=True)
        band: Look = {"color": colour, "alpha": 0.15, "linewidth": 0}
        found.append(axes.fill_between(xs, low, high, **band))
    for x, row in line.timed:
        looks = look(row, palette)
        found += axes.plot(x, row.time_s or 1.0, markersize=5, zorder=4, **looks)
        found += ring(axes, x, row.time_s or 1.0) if row.shaky else []
    for x, row in line.failed:
        found += failed(axes, x, 1.0, palette.cells[row.cell])
    return found


def _note_failures(axes: Axes, panel: ScalingPanel) -> None:
    points = [(line, x, row) for line in panel.lines for x, row in line.failed]
    ways = group(points, lambda each: (each[0].implementation, each[2].outcome))
    for (name, outcome), members in list(ways.items())[:2]:
        at = ", ".join(str(x) for _, x, _ in members)
        note(axes, f"{shorten(name, 18)} at {at}: {outcome.replace('_', ' ')}")
    if len(ways) > 2:
        note(axes, f"and {len(ways) - 2} more that did not end ok")


def describe(panels: Sequence[ScalingPanel]) -> str:
    """Return the panels in words: the first and last time of every line."""
    words = []
    for panel in panels:
        ends = [
            f"{line.implementation} from {seconds(first.time_s)} at {low} to "
            f"{seconds(last.time_s)} at {high}"
            for line in panel.lines
            if line.timed
            for (low, first), (high, last) in [(line.timed[0], line.timed[-1])]
        ]
        name = f"{panel.cell}, {phase(panel.phase)} over {NAMES[panel.axis]}"
        words.append(f"{name}, {panel.where}: {', '.join(ends)}")
    return f"Time of a call. {'; '.join(words)}."
