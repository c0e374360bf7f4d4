"""How long single time steps take, the longest included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from harness.analysis.grouping import group
from harness.analysis.speed.conditions import budget_of, title_of
from harness.analysis.speed.timings import SpeedRow
from harness.report.figures.axes import (
    SMALL,
    around,
    log_axis,
    seconds_label,
    titled,
    write,
)
from harness.report.figures.layout import few_of_each, in_lines, left_out
from harness.report.figures.marks import look, ring, timing_handles
from harness.report.figures.results import Results
from harness.report.figures.sketch import Drawn, Sketch
from harness.report.figures.style import GREY, Look, Palette
from harness.report.tables.form import Column, in_words
from harness.report.tables.latency import COLUMNS
from harness.report.text import percent
from harness.trial import Conditions

CAPTION = (
    "The share of single time steps that took longer than the time on the x axis, at "
    "batch 1 with the state carried from step to step. Both axes are logarithmic, so "
    "that rare long steps can be seen. Marks: the median, and the times that 1 of 20 "
    "and 1 of 100 steps exceed. The lower a line is where it turns to the right, the "
    "rarer its long steps. Open: uncertified. Ringed: shaky."
)
MOST = 6
"""The most panels that are drawn."""

LEVELS = {"p50": 0.5, "p95": 0.05, "p99": 0.01}
WIDTH, HEIGHT = 4.0, 3.0

_SAID: tuple[Column[SpeedRow], ...] = (
    Column("hidden size", lambda row: str(row.trial.hidden_size)),
    *COLUMNS[:5],
)
"""The columns in the description for readers who do not see the figure."""

_Key = tuple[str, int | None, int, str, Conditions]


def latency_figures(results: Results) -> Iterator[Drawn]:
    """Draw a panel for each cell and width whose single time steps were timed."""
    panels = latency_panels(results.summary.speed)
    if not panels:
        return
    lines = few_of_each(panels, lambda members: members[0].cell, MOST)
    sketch, kept = in_lines(lines, results.palette, WIDTH, HEIGHT)
    rows = [row for _, members in kept for row in members]
    several = len({row.machine for row in rows}) > 1
    for axes, members in kept:
        latency_axes(axes, members, sketch)
        titled(axes, _title(members[0], several), sketch.panel_width - 0.7)
    sketch.legend(timing_handles(rows, results.palette))
    caption = CAPTION + left_out(len(panels) - len(kept))
    yield sketch.finish("latency", "Latency of one time step", describe(rows), caption)


def latency_panels(rows: Sequence[SpeedRow]) -> list[list[SpeedRow]]:
    """Return the rows with latencies, by cell, width, input and conditions.

    A single time step does not depend on the batch of its trial: of rows that differ
    in the batch alone, the latest is shown.
    """
    known = group((row for row in rows if row.latency is not None), _key).values()
    return [list({r.implementation: r for r in rows}.values()) for rows in known]


def _key(row: SpeedRow) -> _Key:
    trial = row.trial
    fed = trial.task or f"input {trial.input_size}"
    return (row.cell, trial.hidden_size, trial.num_layers, fed, row.conditions)


def _title(row: SpeedRow, several: bool) -> str:
    cell, width, layers, fed, alike = _key(row)
    words = [cell, f"hidden {width}", *([f"{layers} layers"] if layers > 1 else [])]
    return " · ".join([*words, fed, (title_of if several else budget_of)(alike)])


def latency_axes(axes: Axes, rows: Sequence[SpeedRow], sketch: Sketch) -> None:
    """Draw one panel: the share of time steps that took longer, over latency."""
    times = [at for row in rows for at, _ in _percentiles(row)]
    times += [at for row in rows for at in row.latency_sample_s]
    low, high = around(times, 1.3, 1.3)
    most = max((len(row.latency_sample_s) for row in rows), default=0)
    bottom = 1 / max(most, 200) / 1.5
    log_axis(axes.xaxis, low, high, seconds_label)
    log_axis(axes.yaxis, bottom, 1.0, percent, (bottom, 1.3))
    beside: Look = {"ha": "right", "va": "bottom", "fontsize": SMALL, "color": GREY}
    beside["xycoords"] = ("axes fraction", "data")
    for name, level in LEVELS.items():
        axes.axhline(
            level, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1.2
        )
        write(axes, name, (1.0, level), (-3, 2), **beside)
    for row in rows:
        artists = _draw(axes, row, sketch.palette)
        sketch.mark(artists, row.cell, row.implementation)
    axes.set(xlabel="latency of one time step", ylabel="time steps that took longer")


def _percentiles(row: SpeedRow) -> list[tuple[float, float]]:
    """Return the known percentiles, each with the share of longer time steps."""
    found = ((getattr(row.latency, f"{n}_s"), level) for n, level in LEVELS.items())
    return [(at, level) for at, level in found if at is not None]


def _draw(axes: Axes, row: SpeedRow, palette: Palette) -> list[Artist]:
    colour, artists = palette.cells[row.cell], []
    sample = np.sort(row.latency_sample_s)
    if len(sample):
        longer = 1 - np.arange(len(sample)) / len(sample)
        dash = palette.dash(row.implementation)
        looks = {"color": colour, "linestyle": dash, "linewidth": 1.3}
        artists += axes.plot(sample, longer, drawstyle="steps-post", **looks)
    for at, level in _percentiles(row):
        looks = look(row, palette)
        artists += axes.plot(at, level, linestyle="", markersize=4.5, zorder=4, **looks)
        artists += ring(axes, at, level) if row.shaky else []
    return list(artists)


def describe(rows: Sequence[SpeedRow]) -> str:
    """Return the rows in words."""
    return f"Latency of one time step. {in_words(_SAID, rows)}."
