"""The time of all calls together: after how many a slow first call has paid back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from harness.analysis.grouping import group
from harness.analysis.speed.payback import Payback
from harness.analysis.speed.timings import phase_order
from harness.report.figures.axes import SMALL, log_axis, seconds_label, titled, write
from harness.report.figures.layout import few_of_each, in_lines, left_out
from harness.report.figures.marks import End, look, name_ends, ring, timing_handles
from harness.report.figures.results import Results
from harness.report.figures.sketch import Drawn, Sketch
from harness.report.figures.style import INK, Look, Palette, point_handle
from harness.report.tables.first_calls import COLUMNS
from harness.report.tables.form import in_words
from harness.report.tables.timings import block_title, phase
from harness.report.text import short

CAPTION = (
    "The time of all calls together against their number, on log axes. The first call "
    "includes building, tracing and compiling. Diamond, with the number of calls: from "
    "here on, a line takes less time than the certified implementation with the "
    "fastest first call. Open: uncertified. Ringed: shaky."
)
MOST = 6
"""The most panels that are drawn."""

Floats = npt.NDArray[np.float64]

LEAST_CALLS = 1000
WIDTH, HEIGHT = 4.4, 3.1


DIAMOND: Look = {"markerfacecolor": "white", "markeredgecolor": INK}


def payback_figures(results: Results) -> Iterator[Drawn]:
    """Draw a panel for each heading and cell whose first calls were timed."""
    panels = payback_panels(results.summary.paybacks)
    if not panels:
        return
    crossed = [p for p in panels if any(_crossing(each) for each in p)]
    lines = few_of_each(crossed or panels, lambda members: members[0].row.cell, MOST)
    sketch, kept = in_lines(lines, results.palette, WIDTH, HEIGHT)
    for axes, members in kept:
        payback_axes(axes, members, sketch)
        row = members[0].row
        titled(axes, f"{row.cell} · {block_title(row)}", sketch.panel_width - 1.0)
    shown = [found for _, members in kept for found in members]
    handles = timing_handles([found.row for found in shown], results.palette)
    if crossed:
        handles.append(point_handle("paid back", "D", markersize=8, **DIAMOND))
    sketch.legend(handles)
    caption = CAPTION + left_out(len(panels) - len(kept))
    alt = f"Time of all calls together. {in_words(COLUMNS, shown)}."
    yield sketch.finish("payback", "When a first call has paid back", alt, caption)


def payback_panels(found: Sequence[Payback]) -> list[list[Payback]]:
    """Return the first calls of whole updates, by heading, session and cell.

    If no update was timed, they are of the last phase. Panels in which something
    pays back come first.
    """
    keyed = group(found, lambda p: (p.row.heading, p.row.session, p.row.cell))
    panels = []
    for members in keyed.values():
        phases = group(members, lambda p: p.row.phase)
        name = "train_step" if "train_step" in phases else max(phases, key=phase_order)
        if len(phases[name]) > 1:
            panels.append(phases[name])
    return sorted(panels, key=lambda panel: not any(_crossing(p) for p in panel))


def _crossing(found: Payback) -> float | None:
    return found.calls if found.calls is not None and found.calls > 1 else None


def payback_axes(axes: Axes, found: Sequence[Payback], sketch: Sketch) -> None:
    """Draw one panel: the time of all calls over their number."""
    crossings = [at for each in found if (at := _crossing(each)) is not None]
    last = max([LEAST_CALLS, *(10 * at for at in crossings)])
    calls = np.geomspace(1, last, 200)
    totals = [_total(each, calls) for each in found]
    low = min(float(total[0]) for total in totals) / 1.5
    high = max(float(total[-1]) for total in totals) * 1.5
    log_axis(axes.xaxis, 1, last, short)
    log_axis(axes.yaxis, low, high, seconds_label)
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
        sketch.mark([*artists, name], each.row.cell, each.row.implementation)
    words = f"time of all: {phase(found[0].row.phase)}"
    axes.set(xlabel="calls, the first among them", ylabel=words)


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
    looks = {**look(row, palette), "linestyle": palette.dash(row.implementation)}
    artists: list[Artist] = [
        *axes.plot(calls, total, linewidth=1.3, markersize=5, markevery=[0], **looks)
    ]
    artists[0].set_clip_on(False)
    if row.shaky:
        artists += ring(axes, 1, total[0], clip_on=False)
    crossing = _crossing(found)
    if crossing is None:
        return artists
    at = (crossing, float(_total(found, np.array(crossing))))
    artists += axes.plot(*at, "D", markersize=6.5, zorder=5, **DIAMOND)
    offset, side = ((5, -9), "left") if below else ((-6, 6), "right")
    words = {"ha": side, "va": "baseline", "fontsize": SMALL, "zorder": 7}
    artists.append(write(axes, short(crossing), at, offset, **words))
    return artists
