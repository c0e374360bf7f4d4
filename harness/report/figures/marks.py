"""How timings look on lines and points: doubt, failure, and whose each line is."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from harness.analysis.grouping import group
from harness.analysis.speed.rows import SpeedRow
from harness.analysis.speed.scaling import spread
from harness.report.figures.style import (
    COLUMNS,
    GREY,
    INK,
    Palette,
    line_handle,
    log_label,
    shorten,
)
from harness.report.text import seconds

P = TypeVar("P")

FONT = 7.5
TITLE_CHARACTERS = 11.0
"""Of a bold title, in an inch."""


@dataclass(frozen=True)
class End:
    """Where a line ends and what is written there."""

    x: float
    y: float
    words: str
    colour: str


def titled(axes: Axes, words: str, width: float) -> None:
    """Give a panel of so many inches its title, broken at the dots."""
    parts = words.replace(" ", "\xa0").replace("·\xa0", "· ")
    lines = textwrap.wrap(parts, max(int(TITLE_CHARACTERS * width), 16))
    axes.set_title("\n".join(lines), fontsize=8.5)


def look(row: SpeedRow, palette: Palette) -> dict[str, Any]:
    """Return how a timing's point looks: open where it is uncertified."""
    colour = palette.cells[row.cell]
    return {
        "marker": palette.marker(row.implementation),
        "color": colour,
        "markerfacecolor": colour if row.certified else "white",
        "markeredgecolor": colour,
    }


def ring(axes: Axes, x: float, y: float, size: float = 10.0) -> list[Line2D]:
    """Draw what marks a shaky timing."""
    return axes.plot(
        x, y, "o", markersize=size, markerfacecolor="none", markeredgecolor=INK,
        markeredgewidth=0.9, zorder=6,
    )  # fmt: skip


def failed(axes: Axes, x: float, y: float, colour: str) -> list[Line2D]:
    """Draw what marks a trial that did not end ok; y in fractions of the axes."""
    return axes.plot(
        x, y, "X", markersize=7, color=colour, markeredgecolor=INK, clip_on=False,
        transform=axes.get_xaxis_transform(), zorder=6,
    )  # fmt: skip


def mark_handles(rows: Iterable[SpeedRow]) -> list[Line2D]:
    """Return the legend of doubt and failure: only what is shown."""
    shown = list(rows)
    found = []
    plain = {"linestyle": "", "marker": "o"}
    if any(row.timed and not row.certified for row in shown):
        words = {"markerfacecolor": "white", **plain}
        found.append(line_handle("open: uncertified", **words))
    if any(row.timed and row.shaky for row in shown):
        words = {"markerfacecolor": "none", "markeredgecolor": INK, **plain}
        found.append(line_handle("ringed: shaky", markersize=9, **words))
    if any(not row.phase for row in shown):
        cross = {"linestyle": "", "marker": "X", "markeredgecolor": INK}
        found.append(line_handle("did not end ok", markersize=7, **cross))
    return found


def line_handles(palette: Palette, names: Iterable[str]) -> list[Line2D]:
    """Return a legend entry an implementation, by dash and marker."""
    return [
        line_handle(
            shorten(name),
            linestyle=palette.dash(name),
            linewidth=1.4,
            marker=palette.marker(name),
            markersize=5,
        )
        for name in dict.fromkeys(names)
    ]


def name_ends(axes: Axes, ends: Sequence[End], height: float) -> list[list[Artist]]:
    """Write beside the axes whose each line is, in order and clear of each other.

    Args:
        axes: With its final limits, y logarithmic.
        ends: Of the lines.
        height: Of the axes, in inches, roughly.

    Returns:
        What was drawn, for each end.
    """
    low, high = (math.log(limit) for limit in axes.get_ylim())
    wanted = [(math.log(end.y) - low) / (high - low) for end in ends]
    places = within(apart(wanted, (FONT + 1.5) / 72 / height))
    last = max((end.x for end in ends), default=0.0)
    drawn: list[list[Artist]] = []
    for end, place in zip(ends, places, strict=True):
        text = axes.annotate(
            shorten(end.words, 18),
            xy=(end.x, end.y),
            xycoords="data",
            xytext=(1.05, place),
            textcoords="axes fraction",
            va="center",
            fontsize=FONT,
            color=INK,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "shrinkA": 1,
                "shrinkB": 3,
                "relpos": (0.0, 0.5),
                **_leader(end, last),
            },
        )
        drawn.append([text])
    return drawn


def _leader(end: End, last: float) -> dict[str, Any]:
    """Return how the line to a name looks: not like data where it crosses the axes."""
    if end.x < last:
        return {"color": GREY, "linewidth": 0.6, "linestyle": ":"}
    return {"color": end.colour, "linewidth": 0.6, "alpha": 0.7}


def apart(wanted: Sequence[float], gap: float) -> list[float]:
    """Return places in the order of `wanted`, each `gap` from the next at least.

    Neighbours that would touch are spread around their middle.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[tuple[float, int]] = []  # the middle of a block, and how many it holds
    for index in order:
        middle, count = wanted[index], 1
        while blocks and _low(middle, count, gap) < _high(*blocks[-1], gap):
            before, held = blocks.pop()
            middle = (before * held + middle * count) / (held + count)
            count += held
        blocks.append((middle, count))
    places = [
        middle + (i - (count - 1) / 2) * gap
        for middle, count in blocks
        for i in range(count)
    ]
    found = [0.0] * len(wanted)
    for index, place in zip(order, places, strict=True):
        found[index] = place
    return found


def within(places: Sequence[float], highest: float = 0.97) -> list[float]:
    """Return places moved down together, so far that none is above `highest`."""
    over = max(0.0, max(places, default=0.0) - highest)
    return [place - over for place in places]


def _low(middle: float, count: int, gap: float) -> float:
    return middle - count * gap / 2


def _high(middle: float, count: int, gap: float) -> float:
    return middle + count * gap / 2


def axis_seconds(value: float) -> str:
    """Return a time for an axis: "1000 s" stays in seconds."""
    return f"{log_label(value)} s" if value >= 1 else seconds(value)


def left_out(count: int, where: str = "the table") -> str:
    """Return a sentence on panels that are not drawn, or nothing."""
    if not count:
        return ""
    panels = "panel is" if count == 1 else "panels are"
    return f" {count} more {panels} only in {where}."


def few_of_each(
    panels: Sequence[P], cell_of: Callable[[P], str], most: int
) -> list[list[P]]:
    """Return a line of panels a cell, at most `most` in all, each evenly chosen."""
    of_cells = list(group(panels, cell_of).values())[:most]
    share = max(1, min(COLUMNS, most // len(of_cells)))
    lines = [spread(m, most if len(of_cells) == 1 else share) for m in of_cells]
    if len(lines) > 1 and max(map(len, lines)) > 1:
        return lines
    kept = [panel for line in lines for panel in line]
    return [kept[i : i + COLUMNS] for i in range(0, len(kept), COLUMNS)]


def note(axes: Axes, words: str) -> None:
    """Say something under the axes."""
    axes.set_xlabel(f"{axes.get_xlabel()}\n{words}", color=INK)


def grey_line(axes: Axes, y: float, words: str) -> None:
    """Draw a thin level with its name inside the right edge."""
    axes.axhline(y, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1.2)
    axes.annotate(
        words,
        xy=(1.0, y),
        xycoords=("axes fraction", "data"),
        xytext=(-3, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=FONT,
        color=GREY,
    )
