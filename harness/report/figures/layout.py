"""Positions of the panels of a figure, and of the names beside them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from scipy.optimize import isotonic_regression

from harness.analysis.grouping import group
from harness.analysis.speed.scaling import spread
from harness.report.figures.sketch import Sketch
from harness.report.figures.style import Palette

P = TypeVar("P")

COLUMNS = 3
"""The words of more panels side by side could not be read at the page's width."""

ALONE = 7.0
"""The width of a figure with one column, in inches."""


HIGHEST = 0.97
"""The highest position of a name beside the axes, as a fraction of their height."""


def arrange(kinds: Sequence[str]) -> list[tuple[int, int]]:
    """Return the line and column of each panel, given panels sorted by kind.

    Each kind begins a line; if every kind has one panel, they share a line.
    """
    counts = Counter(kinds)
    most = max(counts.values())
    if most == 1:
        return [(0, column) for column in range(len(kinds))]
    columns = min(COLUMNS, most)
    lines = math.ceil(most / columns)
    return [
        (lines * block + i // columns, i % columns)
        for block, count in enumerate(counts.values())
        for i in range(count)
    ]


def few_of_each(
    panels: Sequence[P], cell_of: Callable[[P], str], most: int
) -> list[list[P]]:
    """Return a line of panels for each cell, `most` in all, evenly chosen."""
    of_cells = list(group(panels, cell_of).values())[:most]
    share = max(1, min(COLUMNS, most // len(of_cells)))
    lines = [spread(m, most if len(of_cells) == 1 else share) for m in of_cells]
    if len(lines) > 1 and max(map(len, lines)) > 1:
        return lines
    kept = [panel for line in lines for panel in line]
    return [kept[i : i + COLUMNS] for i in range(0, len(kept), COLUMNS)]


def left_out(count: int, where: str = "the table") -> str:
    """Return a sentence on panels that are not drawn, or ""."""
    if not count:
        return ""
    panels = "panel is" if count == 1 else "panels are"
    return f" {count} more {panels} only in {where}."


def in_lines(
    lines: Sequence[Sequence[P]],
    palette: Palette,
    width: float,
    height: float,
    margin: float = 0.9,
) -> tuple[Sketch, list[tuple[Axes, P]]]:
    """Return a sketch, and the axes and the item of each panel.

    Args:
        lines: What each panel shows, by line.
        palette: The colours.
        width: The inches of a panel.
        height: The inches of a panel.
        margin: The inches above the panels.
    """
    columns = max(map(len, lines))
    across = width * columns if columns > 1 else ALONE
    sketch = Sketch(across, margin + height * len(lines), palette)
    cells = [(i, j) for i, line in enumerate(lines) for j in range(len(line))]
    items = [item for line in lines for item in line]
    return sketch, list(zip(sketch.panels(cells), items, strict=True))


def apart(wanted: Sequence[float], gap: float) -> list[float]:
    """Return positions in the order of `wanted`, at least `gap` from each other.

    They are as near to `wanted` as that allows, in the sense of least squares.
    """
    if not wanted:
        return []
    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(wanted))
    found = np.empty(len(wanted))
    found[order] = isotonic_regression(np.array(wanted)[order] - steps).x + steps
    return [float(position) for position in found]


def within(positions: Sequence[float]) -> list[float]:
    """Return positions, all moved down by as much as the top one is too high."""
    over = max(0.0, max(positions, default=0.0) - HIGHEST)
    return [position - over for position in positions]
