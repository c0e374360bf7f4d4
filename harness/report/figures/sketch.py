"""A figure: its panels, its legend, and how it is written as SVG and PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

from harness.files.text import hash_of
from harness.printing import printable
from harness.report.figures.style import Palette, shorten

PNG_DPI = 150

LONGEST = 60
"""The characters of a name in a legend."""

WIDEST = 160
"""The characters of a line of words in a figure."""


@dataclass(frozen=True)
class Drawn:
    """A finished figure.

    Attributes:
        name: The name of its files without the ending.
        alt: What the picture shows, for readers who do not see it.
        caption: How to read it.
        task: The task that it is about, or "".
        marks: The cell and implementation of each mark, by the mark's id in the SVG.
    """

    name: str
    title: str
    alt: str
    caption: str
    svg: str = field(repr=False)
    png: bytes = field(repr=False)
    task: str = ""
    marks: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)


@dataclass
class Sketch:
    """A figure that is being drawn.

    Attributes:
        width: In inches, as `height`.
        panel_width: The width of one panel with its labels, in inches.
        marks: The cell and implementation of each mark, by the mark's id.
    """

    width: float
    height: float
    palette: Palette
    figure: Figure = field(init=False)
    panel_width: float = field(init=False)
    marks: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size = (self.width, self.height)
        self.figure = Figure(figsize=size, dpi=PNG_DPI, layout="constrained")
        self.panel_width = self.width
        FigureCanvasAgg(self.figure)

    def panels(self, cells: Sequence[tuple[int, int]]) -> list[Axes]:
        """Return the axes of panels, given the line and column of each."""
        lines, columns = extent(cells)
        self.panel_width = self.width / columns
        grid: Any = self.figure.subplots(lines, columns, squeeze=False)
        for cell in set(np.ndindex(lines, columns)) - set(cells):
            grid[cell].remove()
        return [grid[cell] for cell in cells]

    def mark(self, artists: Iterable[Artist], cell: str, implementation: str) -> None:
        """Name artists so that the page can hide them by cell and implementation."""
        for artist in artists:
            name = f"mark{len(self.marks)}"
            artist.set_gid(name)
            self.marks[name] = (cell, implementation)

    def legend(self, handles: Sequence[Line2D | Patch]) -> None:
        """Put the legend above the axes, where it covers no data."""
        labels = [shorten(str(handle.get_label()), LONGEST) for handle in handles]
        for handle, label in zip(handles, labels, strict=True):
            # Before 3.10 matplotlib leaves out an entry that begins with an underscore.
            handle.set_label(f" {label}" if label.startswith("_") else label)
        widths = [0.62 + 0.075 * len(label) for label in labels]
        columns = next(
            (n for n in range(len(widths), 1, -1) if _span(widths, n) < self.width), 1
        )
        self.figure.legend(
            handles=list(handles),
            loc="outside upper left",
            ncols=columns,
            handlelength=2.4,
            columnspacing=1.4,
        )

    def finish(
        self, name: str, title: str, alt: str, caption: str, task: str = ""
    ) -> Drawn:
        """Write the figure as SVG and PNG; the same bytes for the same numbers."""
        svg, png = io.StringIO(), io.BytesIO()
        for found in self.figure.findobj(Text):
            found.set_text(written(found.get_text()))
        # The layout takes longer than the drawing, and `savefig` would compute it for
        # each file.
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")
        raster: Any = FigureCanvasAgg(self.figure)
        raster.print_png(png, metadata={"Software": None})
        vector: Any = FigureCanvasSVG(self.figure)
        vector.print_svg(svg, metadata={"Date": None, "Creator": None})
        text = "\n".join(line.rstrip() for line in svg.getvalue().splitlines()) + "\n"
        return Drawn(
            file_name(name),
            title,
            alt,
            caption,
            text,
            png.getvalue(),
            task,
            self.marks,
        )


def file_name(name: str) -> str:
    """Return a name that is one part of a path and of a link, and its own for each.

    A name of a task may be anything. One of letters, digits and hyphens stays; of
    others the hash of the name is a part, behind a dot, which none of the first has.
    """
    if re.fullmatch(r"[A-Za-z0-9_-]{1,80}", name):
        return name
    readable = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40]
    return f"{readable}.{hash_of(name.encode(errors='surrogatepass'))[:12]}"


def written(words: str) -> str:
    """Return words that an SVG file may contain, in lines that are not too long."""
    lines = printable(words, "\n\xa0").split("\n")
    return "\n".join(
        line if len(line) <= WIDEST else f"{line[: WIDEST - 1]}…" for line in lines
    )


def extent(cells: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return how many lines and columns a grid with these cells has."""
    lines, columns = (1 + max(ends) for ends in zip(*cells, strict=True))
    return lines, columns


def _span(widths: Sequence[float], columns: int) -> float:
    """Return the width of a legend, filled column by column, the first the longest."""
    return sum(float(max(part)) for part in np.array_split(widths, columns))
