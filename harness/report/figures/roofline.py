"""The FLOP/s of every timing, below the limits that were measured on its machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes

from harness.analysis.grouping import group
from harness.analysis.speed.conditions import budget_of, title_of
from harness.analysis.speed.roofline import PeakRow
from harness.analysis.speed.timings import SpeedRow, phase_order
from harness.machine.peak import Peak
from harness.report.figures.axes import (
    SMALL,
    log_axis,
    log_label,
    power_label,
    titled,
    write,
)
from harness.report.figures.marks import look, mark_handles, ring
from harness.report.figures.results import Results
from harness.report.figures.sketch import Drawn, Sketch
from harness.report.figures.style import GREY, INK, Palette, line_handle
from harness.report.tables.timings import phase
from harness.report.text import number, percent, short, with_unit
from harness.trial import Conditions

CAPTION = (
    "The cell's floating-point operations (FLOP) a second against its FLOP for each "
    "byte that a call has to move at least, on log axes. The roof was measured on this "
    "machine: left of its corner the copy bandwidth is the limit, right of it the "
    "matrix product. The distance below the roof is what an implementation leaves "
    "unused. A mark above the roof: the data stayed in a cache, which copies faster "
    "than memory."
)
MOST = 4
"""The most conditions that are drawn, each in a row of panels."""

WIDTH, HEIGHT = 3.0, 2.9
"""The inches of a panel with its labels."""

TOUCH = 0.06
"""Two marks that are fewer inches apart look like one."""

Ranges = tuple[float, float, float, float]
"""Left, right, bottom and top of a panel."""


def roofline_figures(results: Results) -> Iterator[Drawn]:
    """Draw one figure where a rate and an intensity are known."""
    summary = results.summary
    if roofline_rows(summary.speed):
        yield draw_roofline(summary.speed, summary.peaks, results.palette)


def roofline_rows(rows: Sequence[SpeedRow]) -> list[SpeedRow]:
    """Return the rows with a rate and an intensity.

    A single time step does not depend on the batch and the time steps of its trial: of
    rows that differ in these alone, the latest is shown.
    """
    found: dict[Hashable, SpeedRow] = {}
    for index, row in enumerate(rows):
        if row.timed and row.flop_per_s and row.intensity:
            found[_of_a_step(row) if row.phase == "stream" else index] = row
    return list(found.values())


def _of_a_step(row: SpeedRow) -> Hashable:
    where = row.heading.without("batch", "time steps")
    trial = row.trial
    sizes = (trial.hidden_size, trial.num_layers, trial.input_size)
    return (row.cell, row.implementation, where, row.conditions, sizes)


def draw_roofline(
    rows: Sequence[SpeedRow], peaks: Sequence[PeakRow], palette: Palette
) -> Drawn:
    """Draw a row for each set of conditions, with a panel for each phase."""
    shown = roofline_rows(rows)
    alike = group(shown, lambda row: row.conditions)
    kept = sorted(alike, key=lambda each: -len(alike[each]))[:MOST]
    roofs = {found.conditions: found.peak for found in peaks}
    drawn = [row for each in kept for row in alike[each]]
    phases = sorted({row.phase for row in drawn}, key=phase_order)
    width = max(6.5, 0.8 + WIDTH * len(phases))
    sketch = Sketch(width, 1.0 + HEIGHT * len(kept), palette)
    grid = sketch.figure.subplots(
        len(kept), len(phases), squeeze=False, sharex="row", sharey="row"
    )
    ranges = {each: _ranges(alike[each], roofs.get(each)) for each in kept}
    # FLOP/byte are written the same way in every panel.
    widest = max(right / left for left, right, _, _ in ranges.values())
    form = log_label if widest < 1e4 else power_label
    for line, each in zip(grid, kept, strict=True):
        panels = []
        for axes, name in zip(line, phases, strict=True):
            members = [row for row in alike[each] if row.phase == name]
            if not members:
                axes.remove()
                continue
            roofline_axes(axes, members, roofs.get(each), ranges[each], sketch, form)
            titled(axes, _title(name, each, kept), WIDTH - 0.4)
            panels.append(axes)
        panels[0].set_ylabel("FLOP/s")
        panels[0].tick_params(labelleft=True)
    for column in grid.T:
        [axes for axes in column if axes.figure][-1].set_xlabel("FLOP/byte")
    handles = [
        *palette.cell_handles(row.cell for row in drawn),
        *palette.marker_handles(row.implementation for row in drawn),
        *mark_handles(drawn),
    ]
    if any(roofs.get(each) is not None for each in kept):
        handles.append(line_handle("measured roof", color=INK, linewidth=1.6))
    sketch.legend(handles)
    left = len(alike) - len(kept)
    more = f" {left} other conditions are only in the tables." if left else ""
    title = "Under the machine's roof"
    return sketch.finish("roofline", title, describe(drawn), CAPTION + more)


def _title(name: str, alike: Conditions, all_: Sequence[Conditions]) -> str:
    if len(all_) == 1:
        return phase(name)
    several = len({each.machine for each in all_}) > 1
    return f"{phase(name)} · {(title_of if several else budget_of)(alike)}"


def _ranges(rows: Sequence[SpeedRow], peak: Peak | None) -> Ranges:
    xs = [row.intensity or 1.0 for row in rows]
    ys = [row.flop_per_s or 1.0 for row in rows]
    xs += [peak.ridge] if peak and peak.ridge else []
    top = max([*ys, peak.flop.per_s if peak else 0.0])
    return min(xs) / 2.5, max(xs) * 2.5, min(ys) / 2.5, top * 6


def roofline_axes(
    axes: Axes,
    rows: Sequence[SpeedRow],
    peak: Peak | None,
    ranges: Ranges,
    sketch: Sketch,
    form: Callable[[float], str] = log_label,
) -> None:
    """Draw one phase under one roof; `form` writes FLOP/byte."""
    left, right, bottom, top = ranges
    log_axis(axes.xaxis, left, right, form)
    log_axis(axes.yaxis, bottom, top, short)
    _draw_roof(axes, peak, left, right)
    _write(axes, _counted(rows, ranges), lower=True)
    size = 5.5 if len(rows) < 40 else 4.0
    for row in rows:
        x, y = row.intensity or 1.0, row.flop_per_s or 1.0
        looks = {**look(row, sketch.palette), "markersize": size}
        artists = axes.plot(x, y, linestyle="", zorder=3, **looks)
        artists += ring(axes, x, y, size + 4) if row.shaky else []
        sketch.mark(artists, row.cell, row.implementation)


def _counted(rows: Sequence[SpeedRow], ranges: Ranges) -> str:
    """Return "40 marks, 3 close to another", or "" if no marks are close."""
    left, right, bottom, top = ranges
    seen: list[tuple[float, float]] = []
    for row in rows:
        x = math.log((row.intensity or 1.0) / left) / math.log(right / left)
        y = math.log((row.flop_per_s or 1.0) / bottom) / math.log(top / bottom)
        near = (math.hypot((x - a) * WIDTH, (y - b) * HEIGHT) < TOUCH for a, b in seen)
        if not any(near):
            seen.append((x, y))
    hidden = len(rows) - len(seen)
    return f"{len(rows)} marks, {hidden} close to another" if hidden else ""


def _draw_roof(axes: Axes, peak: Peak | None, left: float, right: float) -> None:
    words = "peak not measured: no roof"
    if peak is not None:
        flop, copy = peak.flop, peak.copy
        words = f"matrix product {with_unit(flop.per_s, 'FLOP/s')} ({flop.library})"
        xs = np.array([left, right])
        ys = np.full(2, flop.per_s)
        if copy is not None:
            xs = np.unique(np.clip([left, peak.ridge or left, right], left, right))
            ys = np.minimum(flop.per_s, xs * copy.per_s)
            words += f"\ncopy {with_unit(copy.per_s, 'B/s')} ({copy.library})"
        axes.plot(xs, ys, color=INK, linewidth=1.6, zorder=2)
    _write(axes, words)


def _write(axes: Axes, words: str, *, lower: bool = False) -> None:
    """Write in the upper left corner or in the lower right one."""
    if not words:
        return
    at, offset, side, edge = (0, 1), (4, -3), "left", "top"
    if lower:
        at, offset, side, edge = (1, 0), (-3, 3), "right", "bottom"
    white = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    look = {"xycoords": "axes fraction", "fontsize": SMALL, "color": GREY}
    write(axes, words, at, offset, ha=side, va=edge, bbox=white, **look)


def describe(rows: Sequence[SpeedRow]) -> str:
    """Return the best of every phase in words."""
    words = []
    for name, members in group(rows, lambda row: row.phase).items():
        best = max(members, key=lambda row: row.of_roof or row.flop_per_s or 0.0)
        share = f", {percent(best.of_roof)} of the roof" if best.of_roof else ""
        words.append(
            f"{phase(name)}: nearest is {best.cell} {best.implementation} with "
            f"{with_unit(best.flop_per_s, 'FLOP/s')} at "
            f"{number(best.intensity)} FLOP/byte{share}"
        )
    return f"FLOP a second against FLOP for each byte. {'; '.join(words)}."
