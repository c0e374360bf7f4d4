"""Time of all calls together: when a costly first call has paid back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from harness.analysis.grouping import group
from harness.analysis.speed.payback import Payback
from harness.measure.speed.phases import PHASES
from harness.report.figures.marks import (
    FONT,
    End,
    axis_seconds,
    few_of_each,
    left_out,
    line_handles,
    look,
    mark_handles,
    name_ends,
    titled,
)
from harness.report.figures.style import (
    INK,
    Drawn,
    Palette,
    Sketch,
    cell_handles,
    finish,
    line_handle,
    log_axis,
)
from harness.report.tables.first_calls import paid_back
from harness.report.tables.speed import block_title, phase
from harness.report.text import seconds, short

CAPTION = (
    "Time of all calls together, the first with its build, trace and compile, against "
    "their number; log axes. Diamond: where a line has paid back its first call "
    "against the certified implementation that is cheapest to call once, with that "
    "number of calls. Open: uncertified. Ringed: shaky."
)
MOST = 6
"""Panels that are drawn."""

Floats = npt.NDArray[np.float64]

LEAST_CALLS = 1000
WIDTH, HEIGHT = 4.4, 3.1


def payback_panels(found: Sequence[Payback]) -> list[list[Payback]]:
    """Return first calls that differ, by place and cell; of each the whole update.

    Where no update was timed the last phase counts. Panels in which something pays
    back come first.
    """
    keyed = group(found, lambda p: (p.row.heading, p.row.session, p.row.cell))
    panels = []
    for members in keyed.values():
        phases = group(members, lambda p: p.row.phase)
        name = "train_step" if "train_step" in phases else max(phases, key=_order)
        if len(phases[name]) > 1:
            panels.append(phases[name])
    return sorted(panels, key=lambda panel: not any(_crossing(p) for p in panel))


def _order(name: str) -> tuple[int, str]:
    return (PHASES.index(name) if name in PHASES else len(PHASES), name)


def _crossing(found: Payback) -> float | None:
    return found.calls if found.calls is not None and found.calls > 1 else None


def draw_payback(panels: Sequence[Sequence[Payback]], palette: Palette) -> Drawn:
    """Draw a panel per place and cell."""
    crossed = [p for p in panels if any(_crossing(each) for each in p)]
    lines = few_of_each(crossed or panels, lambda members: members[0].row.cell, MOST)
    kept = [members for line in lines for members in line]
    columns = max(len(line) for line in lines)
    width = WIDTH if columns > 1 else 7.0
    sketch = Sketch(width * columns, 0.9 + HEIGHT * len(lines), palette)
    grid = sketch.figure.subplots(len(lines), columns, squeeze=False)
    for across, line in zip(grid, lines, strict=True):
        for axes in across[len(line) :]:
            axes.remove()
        for axes, members in zip(across, line, strict=False):
            payback_axes(axes, members, sketch)
            row = members[0].row
            titled(axes, f"{row.cell} · {block_title(row)}", width - 1.0)
    rows = [each.row for members in kept for each in members]
    diamond = {
        "linestyle": "",
        "marker": "D",
        "markersize": 8,
        "markerfacecolor": "white",
        "markeredgecolor": INK,
    }
    sketch.legend(
        [
            *cell_handles(palette, [row.cell for row in rows]),
            *line_handles(palette, [row.implementation for row in rows]),
            *mark_handles(rows),
            *([line_handle("paid back", **diamond)] if crossed else []),
        ]
    )
    more = left_out(len(panels) - len(kept))
    return finish(
        sketch, "payback", "When a first call has paid back", describe(kept),
        CAPTION + more,
    )  # fmt: skip


def payback_axes(axes: Axes, found: Sequence[Payback], sketch: Sketch) -> None:
    """Draw one panel: calls across, the time of all of them up."""
    crossings = [at for each in found if (at := _crossing(each)) is not None]
    last = max([LEAST_CALLS, *(10 * at for at in crossings)])
    calls = np.geomspace(1, last, 200)
    totals = [_total(each, calls) for each in found]
    low = min(float(total[0]) for total in totals) / 1.5
    high = max(float(total[-1]) for total in totals) * 1.5
    log_axis(axes.xaxis, 1, last, short)
    log_axis(axes.yaxis, low, high, axis_seconds)
    axes.set_xlim(1, last)
    axes.set_ylim(low, high)
    ends, drawn = [], []
    order = sorted(crossings)
    for each, total in zip(found, totals, strict=True):
        at = _crossing(each)
        below = at is None or order.index(at) % 2 == 0
        drawn.append(_draw(axes, each, calls, total, sketch.palette, below))
        colour = sketch.palette.cells[each.row.cell]
        ends.append(End(last, float(total[-1]), each.row.implementation, colour))
    names = name_ends(axes, ends, HEIGHT - 1.0)
    for each, artists, name in zip(found, drawn, names, strict=True):
        sketch.mark([*artists, *name], each.row.cell, each.row.implementation)
    axes.set_xlabel("calls, the first among them")
    axes.set_ylabel(f"time of all: {phase(found[0].row.phase)}")


def _total(found: Payback, calls: Floats) -> Floats:
    row = found.row
    return (row.first_call_s or 0.0) + (calls - 1) * (row.time_s or 0.0)


def _draw(
    axes: Axes,
    found: Payback,
    calls: Floats,
    total: Floats,
    palette: Palette,
    below: bool,
) -> list[Artist]:
    row = found.row
    looks = look(row, palette)
    artists: list[Artist] = [
        *axes.plot(
            calls,
            total,
            linestyle=palette.dash(row.implementation),
            linewidth=1.3,
            markersize=5,
            markevery=[0],
            **looks,
        )
    ]
    artists[0].set_clip_on(False)
    if row.shaky:
        artists += axes.plot(
            1, total[0], "o", markersize=10, markerfacecolor="none",
            markeredgecolor=INK, clip_on=False, zorder=6,
        )  # fmt: skip
    crossing = _crossing(found)
    if crossing is None:
        return artists
    at = float(_total(found, np.array(crossing)))
    artists += axes.plot(
        crossing, at, "D", markersize=6.5, markerfacecolor="white",
        markeredgecolor=INK, zorder=5,
    )  # fmt: skip
    artists.append(
        axes.annotate(
            short(crossing),
            xy=(crossing, at),
            xytext=(5, -9) if below else (-6, 6),
            textcoords="offset points",
            ha="left" if below else "right",
            fontsize=FONT,
            color=INK,
            zorder=7,
        )
    )
    return artists


def describe(panels: Sequence[Sequence[Payback]]) -> str:
    """Return the panels in words."""
    words = []
    for members in panels:
        told = [
            f"{each.row.implementation} first {seconds(each.row.first_call_s)}, then "
            f"{seconds(each.row.time_s)}, paid back: {paid_back(each)}"
            for each in members
        ]
        words.append(f"{members[0].row.cell}: {'; '.join(told)}")
    return f"Time of all calls together. {'. '.join(words)}."
