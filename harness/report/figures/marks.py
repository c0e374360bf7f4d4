"""Marks of timings that are uncertified, shaky or failed, and names of lines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from harness.analysis.speed.timings import SpeedRow
from harness.intervals import Interval
from harness.report.figures.axes import SMALL, write
from harness.report.figures.layout import apart, within
from harness.report.figures.style import GREY, INK, Look, Palette, point_handle, shorten


@dataclass(frozen=True)
class End:
    """The end of a line, and the words to write there."""

    x: float
    y: float
    words: str
    colour: str


def reach(value: float | None, interval: Interval | None) -> tuple[float, float]:
    """Return the lowest and the highest of a value and its interval."""
    known = value or 1.0
    if interval is None:
        return known, known
    return min(known, interval.low), max(known, interval.high)


def look(row: SpeedRow, palette: Palette) -> Look:
    """Return how the point of a timing looks: open if it is uncertified."""
    colour = palette.cells[row.cell]
    return {
        "marker": palette.marker(row.implementation),
        "color": colour,
        "markerfacecolor": colour if row.certified else "white",
        "markeredgecolor": colour,
    }


def ring(
    axes: Axes, x: float, y: float, size: float = 10.0, **look: Any
) -> list[Line2D]:
    """Draw the mark of a shaky timing."""
    return axes.plot(
        x, y, "o", markersize=size, markerfacecolor="none", markeredgecolor=INK,
        markeredgewidth=0.9, zorder=6, **look,
    )  # fmt: skip


def failed(axes: Axes, x: float, y: float, colour: str) -> list[Line2D]:
    """Draw the mark of a trial that did not end ok; y in fractions of the axes."""
    return axes.plot(
        x, y, "X", markersize=7, color=colour, markeredgecolor=INK, clip_on=False,
        transform=axes.get_xaxis_transform(), zorder=6,
    )  # fmt: skip


def timing_handles(rows: Sequence[SpeedRow], palette: Palette) -> list[Line2D]:
    """Return the legend of lines of timings: cells, implementations and marks."""
    return [
        *palette.cell_handles(row.cell for row in rows),
        *palette.dash_handles(row.implementation for row in rows),
        *mark_handles(rows),
    ]


def mark_handles(rows: Iterable[SpeedRow]) -> list[Line2D]:
    """Return the legend of the marks that are shown."""
    shown = list(rows)
    found = []
    if any(row.timed and not row.certified for row in shown):
        found.append(point_handle("open: uncertified", markerfacecolor="white"))
    if any(row.timed and row.shaky for row in shown):
        ringed: Look = {"markerfacecolor": "none", "markersize": 9}
        found.append(point_handle("ringed: shaky", markeredgecolor=INK, **ringed))
    if any(not row.phase for row in shown):
        crossed = point_handle("did not end ok", "X", markeredgecolor=INK, markersize=7)
        found.append(crossed)
    return found


def name_ends(axes: Axes, ends: Sequence[End], height: float) -> list[Artist]:
    """Write the name of each line beside the axes, in order and without overlap.

    Args:
        axes: With its final limits, y logarithmic.
        ends: Of the lines.
        height: Of the axes, in inches, roughly.

    Returns:
        The name of each end.
    """
    low, high = (math.log(limit) for limit in axes.get_ylim())
    wanted = [(math.log(end.y) - low) / (high - low) for end in ends]
    positions = within(apart(wanted, (SMALL + 1.5) / 72 / height))
    last = max((end.x for end in ends), default=0.0)
    beside: Look = {"textcoords": "axes fraction", "fontsize": SMALL}
    beside["annotation_clip"] = False
    names: list[Artist] = []
    for end, y in zip(ends, positions, strict=True):
        words, at = shorten(end.words, 18), (end.x, end.y)
        line = _leader(end, last)
        names.append(write(axes, words, at, (1.05, y), arrowprops=line, **beside))
    return names


def _leader(end: End, last: float) -> Look:
    """Return how the line to a name looks: dotted if it crosses the axes."""
    line: Look = {"arrowstyle": "-", "shrinkA": 1, "shrinkB": 3, "relpos": (0.0, 0.5)}
    if end.x < last:
        return {**line, "color": GREY, "linewidth": 0.6, "linestyle": ":"}
    return {**line, "color": end.colour, "linewidth": 0.6, "alpha": 0.7}
