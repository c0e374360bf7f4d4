"""Time of a call against length, batch, hidden size and threads."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from harness.analysis.grouping import group
from harness.analysis.speed.rows import SpeedRow
from harness.analysis.speed.scaling import ScalingLine, ScalingPanel
from harness.report.figures.marks import (
    End,
    axis_seconds,
    failed,
    left_out,
    line_handles,
    look,
    mark_handles,
    name_ends,
    note,
    ring,
    titled,
)
from harness.report.figures.style import (
    Drawn,
    Palette,
    Sketch,
    cell_handles,
    finish,
    log_axis,
    shorten,
)
from harness.report.tables.speed import phase
from harness.report.text import seconds

NAMES = {
    "time_steps": "time steps",
    "batch": "batch",
    "hidden_size": "hidden size",
    "threads": "threads",
}
CAPTION = (
    "Time of a call on log axes, everything but the axis alike: with slope 1 twice as "
    "much takes twice as long, and with slope -1 on threads the whole gain is had. "
    "Band: 95 % interval of the median. Open: uncertified. Ringed: shaky. "
    "A cross at the upper edge: did not end ok there; the table says why."
)
MOST = 3
"""Panels of one axis."""

WIDTH, HEIGHT = 3.9, 3.1


def draw_scaling(
    panels: Sequence[ScalingPanel], others: int, palette: Palette
) -> Drawn:
    """Draw a line of panels an axis; `others` more there are."""
    lines = list(group(panels, lambda p: p.axis).values())
    columns = max(len(line) for line in lines)
    width = WIDTH if columns > 1 else 7.0
    sketch = Sketch(width * columns, 0.8 + HEIGHT * len(lines), palette)
    grid = sketch.figure.subplots(len(lines), columns, squeeze=False)
    for row, members in zip(grid, lines, strict=True):
        for axes in row[len(members) :]:
            axes.remove()
        for axes, panel in zip(row, members, strict=False):
            scaling_axes(axes, panel, sketch, width)
    rows = [r for p in panels for line in p.lines for _, r in line.points]
    sketch.legend(
        [
            *cell_handles(palette, [row.cell for row in rows]),
            *line_handles(palette, [row.implementation for row in rows]),
            *mark_handles(rows),
        ]
    )
    more = left_out(others, "the tables")
    along = ", ".join(NAMES[p[0].axis] for p in lines)
    return finish(
        sketch, "scaling", f"Time against {along}", describe(panels), CAPTION + more
    )


def scaling_axes(
    axes: Axes, panel: ScalingPanel, sketch: Sketch, width: float = 7.0
) -> None:
    """Draw one panel: the axis across, time of a call up."""
    rows = [row for line in panel.lines for _, row in line.timed]
    times = [value for row in rows for value in _ends(row)]
    low, high = min(times) / 1.4, max(times) * 1.8
    log_axis(axes.yaxis, low, high, axis_seconds)
    axes.set_ylim(low, high)
    xs = sorted({x for line in panel.lines for x, _ in line.points})
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(xs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.set_xlim(xs[0] / 1.12, xs[-1] * 1.12)
    axes.set_xlabel(NAMES[panel.axis])
    axes.set_ylabel(f"time of {phase(panel.phase)}")
    titled(axes, f"{panel.cell} · {panel.where}", width - 0.7)
    ends, artists = [], []
    for line in panel.lines:
        artists.append(_draw(axes, line, sketch.palette))
        if line.timed:
            x, row = line.timed[-1]
            colour = sketch.palette.cells[row.cell]
            ends.append(End(x, row.time_s or 1.0, line.implementation, colour))
    names = iter(name_ends(axes, ends, HEIGHT - 1.0))
    for line, drawn in zip(panel.lines, artists, strict=True):
        drawn += next(names) if line.timed else []
        sketch.mark(drawn, panel.cell, line.implementation)
    _note_failures(axes, panel)


def _ends(row: SpeedRow) -> list[float]:
    value = row.time_s or 1.0
    return [value] if row.time is None else [row.time.low, row.time.high, value]


def _draw(axes: Axes, line: ScalingLine, palette: Palette) -> list[Artist]:
    found: list[Artist] = []
    rows = [row for _, row in line.timed]
    xs = [x for x, _ in line.timed]
    if rows:
        colour = palette.cells[rows[0].cell]
        times = [row.time_s or 1.0 for row in rows]
        dash = palette.dash(line.implementation)
        found += axes.plot(xs, times, color=colour, linestyle=dash, linewidth=1.3)
        low, high = [min(_ends(r)) for r in rows], [max(_ends(r)) for r in rows]
        found.append(
            axes.fill_between(xs, low, high, color=colour, alpha=0.15, linewidth=0)
        )
    for x, row in line.timed:
        looks = look(row, palette)
        found += axes.plot(x, row.time_s or 1.0, markersize=5, zorder=4, **looks)
        found += ring(axes, x, row.time_s or 1.0) if row.shaky else []
    for x, row in line.failed:
        found += failed(axes, x, 1.0, palette.cells[row.cell])
    return found


def _note_failures(axes: Axes, panel: ScalingPanel) -> None:
    ways = group(
        (
            (line.implementation, row.outcome, x)
            for line in panel.lines
            for x, row in line.failed
        ),
        lambda each: each[:2],
    )
    for (name, outcome), members in list(ways.items())[:2]:
        at = ", ".join(str(x) for _, _, x in members)
        note(axes, f"{shorten(name, 18)} at {at}: {outcome.replace('_', ' ')}")
    if len(ways) > 2:
        note(axes, f"and {len(ways) - 2} more that did not end ok")


def describe(panels: Sequence[ScalingPanel]) -> str:
    """Return the panels in words: the first and last time of every line."""
    words = []
    for panel in panels:
        ends = [
            f"{line.implementation} from {seconds(line.timed[0][1].time_s)} at "
            f"{line.timed[0][0]} to {seconds(line.timed[-1][1].time_s)} at "
            f"{line.timed[-1][0]}"
            for line in panel.lines
            if line.timed
        ]
        name = f"{panel.cell}, {phase(panel.phase)} over {NAMES[panel.axis]}"
        words.append(f"{name}, {panel.where}: {', '.join(ends)}")
    return f"Time of a call. {'; '.join(words)}."
