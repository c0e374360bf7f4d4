"""Every implementation under the roof that was measured on its machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from harness.analysis.conditions import Conditions
from harness.analysis.grouping import group
from harness.analysis.roofline import Peak, PeakRow
from harness.analysis.speed import SpeedRow
from harness.measure.phases import PHASES
from harness.report.figures.marks import FONT, look, mark_handles, ring, titled
from harness.report.figures.style import (
    GREY,
    INK,
    Drawn,
    Palette,
    Sketch,
    cell_handles,
    finish,
    implementation_handles,
    line_handle,
    log_axis,
)
from harness.report.tables.speed import phase
from harness.report.text import number, percent, short

CAPTION = (
    "FLOP of the cell a second against the FLOP for each byte that a call has to move "
    "at least, on log axes. The roof is what the machine was measured to do: left of "
    "its ridge the copy bandwidth is the limit, right of it the matrix product. How "
    "far a mark is below the roof is what its implementation leaves unused. Above it: "
    "what the call needs stayed in a cache, which copies faster than memory."
)
MOST = 4
"""Conditions that are drawn, a line of panels each."""


def roofline_rows(rows: Sequence[SpeedRow]) -> list[SpeedRow]:
    """Return the rows that have a place under a roof."""
    return [row for row in rows if row.timed and row.flop_per_s and row.intensity]


def draw_roofline(
    rows: Sequence[SpeedRow], peaks: Sequence[PeakRow], palette: Palette
) -> Drawn:
    """Draw conditions down, phases across."""
    shown = roofline_rows(rows)
    alike = group(shown, lambda row: row.conditions)
    kept = sorted(alike, key=lambda each: -len(alike[each]))[:MOST]
    roofs = {found.conditions: found.peak for found in peaks}
    phases = sorted({row.phase for row in shown}, key=_order)
    sketch = Sketch(max(6.5, 0.8 + 3.0 * len(phases)), 1.0 + 2.9 * len(kept), palette)
    grid = sketch.figure.subplots(
        len(kept), len(phases), squeeze=False, sharex="row", sharey="row"
    )
    for line, each in zip(grid, kept, strict=True):
        ranges = _ranges(alike[each], roofs.get(each))
        for axes, name in zip(line, phases, strict=True):
            members = [row for row in alike[each] if row.phase == name]
            roofline_axes(axes, members, roofs.get(each), ranges, sketch)
            titled(axes, _title(name, each, kept), 2.6)
        line[0].set_ylabel("FLOP/s")
    for axes in grid[-1]:
        axes.set_xlabel("FLOP/byte")
    drawn = [row for each in kept for row in alike[each]]
    known = any(roofs.get(each) is not None for each in kept)
    sketch.legend(
        [
            *cell_handles(palette, [row.cell for row in drawn]),
            *implementation_handles(palette, [row.implementation for row in drawn]),
            *mark_handles(drawn),
            *(
                [line_handle("measured roof", color=INK, linewidth=1.6)]
                if known
                else []
            ),
        ]
    )
    left = len(alike) - len(kept)
    more = f" {left} other conditions are only in the tables." if left else ""
    return finish(
        sketch, "roofline", "Under the machine's roof", describe(drawn), CAPTION + more
    )


def _order(name: str) -> tuple[int, str]:
    return (PHASES.index(name) if name in PHASES else len(PHASES), name)


def _title(name: str, alike: Conditions, all_: Sequence[Conditions]) -> str:
    if len(all_) == 1:
        return phase(name)
    several = len({each.machine for each in all_}) > 1
    return f"{phase(name)} · {alike.title if several else alike.budget}"


def _ranges(
    rows: Sequence[SpeedRow], peak: Peak | None
) -> tuple[float, float, float, float]:
    xs = [row.intensity or 1.0 for row in rows]
    ys = [row.flop_per_s or 1.0 for row in rows]
    ridge = peak.ridge if peak is not None else None
    xs += [ridge] if ridge else []
    top = max([*ys, (peak and peak.flop_per_s) or 0.0])
    return min(xs) / 2.5, max(xs) * 2.5, min(ys) / 2.5, top * 6


def roofline_axes(
    axes: Axes,
    rows: Sequence[SpeedRow],
    peak: Peak | None,
    ranges: tuple[float, float, float, float],
    sketch: Sketch,
) -> None:
    """Draw one phase under one roof; `ranges` are left, right, bottom and top."""
    left, right, bottom, top = ranges
    log_axis(axes.xaxis, left, right)
    log_axis(axes.yaxis, bottom, top, short)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    _draw_roof(axes, peak, left, right)
    size = 5.5 if len(rows) < 40 else 4.0
    for row in rows:
        x, y = row.intensity or 1.0, row.flop_per_s or 1.0
        artists = axes.plot(
            x, y, linestyle="", markersize=size, zorder=3, **look(row, sketch.palette)
        )
        artists += ring(axes, x, y, size + 4) if row.shaky else []
        sketch.mark(artists, row.cell, row.implementation)


def _draw_roof(axes: Axes, peak: Peak | None, left: float, right: float) -> None:
    words = "peak not measured: no roof"
    if peak is not None and peak.flop_per_s is not None:
        words = f"matrix product {_rate(peak.flop_per_s)}FLOP/s ({peak.flop_by})"
        xs = np.array([left, right])
        ys = np.full(2, peak.flop_per_s)
        if peak.copy_bytes_per_s is not None:
            xs = np.array(
                sorted({left, min(max(peak.ridge or left, left), right), right})
            )
            ys = np.minimum(peak.flop_per_s, xs * peak.copy_bytes_per_s)
            words += f"\ncopy {_rate(peak.copy_bytes_per_s)}B/s ({peak.copy_by})"
        axes.plot(xs, ys, color=INK, linewidth=1.6, zorder=2)
    axes.annotate(
        words,
        xy=(0, 1),
        xycoords="axes fraction",
        xytext=(4, -3),
        textcoords="offset points",
        va="top",
        fontsize=FONT,
        color=GREY,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )


def _rate(value: float) -> str:
    """Return "80 G"."""
    words = short(value)
    return f"{words[:-1]} {words[-1]}" if words[-1].isalpha() else f"{words} "


def describe(rows: Sequence[SpeedRow]) -> str:
    """Return the best of every phase in words."""
    words = []
    for name, members in group(rows, lambda row: row.phase).items():
        best = max(members, key=lambda row: row.of_roof or row.flop_per_s or 0.0)
        share = f", {percent(best.of_roof)} of the roof" if best.of_roof else ""
        words.append(
            f"{phase(name)}: nearest is {best.cell} {best.implementation} with "
            f"{_rate(best.flop_per_s or 0.0)}FLOP/s at "
            f"{number(best.intensity)} FLOP/byte{share}"
        )
    return f"FLOP a second against FLOP for each byte. {'; '.join(words)}."
