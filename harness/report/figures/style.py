"""What every figure shares: colours, dashes, axes, and how it is written."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from harness.report.text import UNCERTIFIED

# Okabe & Ito (2008): told apart with every common colour vision deficiency. Their
# yellow is left out, it is too faint on white.
CELL_COLOURS = {
    "gru": "#0072B2",
    "lstm": "#D55E00",
    "rnn": "#009E73",
    "gru-reset-before": "#56B4E9",
    "rnn-relu": "#CC79A7",
}
SPARE_COLOURS = ("#E69F00", "#000000", "#999999")
DASHES: tuple[Any, ...] = (
    "-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)), (0, (2, 2)), (0, (8, 1, 2, 1)),
    (0, (12, 2)), (0, (1, 2.5)), (0, (4, 4)), (0, (6, 1, 1, 1, 1, 1, 1, 1)),
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "*", "h", "<", "p", "d", ">")
PNG_DPI = 150
COLUMNS = 3
"""Panels side by side, so that their words can be read at the page's width."""
GREY = "#666666"
INK = "#222222"

RC: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: selectable, readable aloud
    "svg.hashsalt": "rnn-harness",  # the same ids on every writing
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 9.0,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "hatch.linewidth": 0.8,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw and write with the report's settings, whatever the user's are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        settings: Any = mpl.rcParams
        settings.update(RC)
        yield


@dataclass(frozen=True)
class Palette:
    """Colour by cell, dash and marker by implementation; the same in every figure."""

    cells: Mapping[str, str]
    implementations: Mapping[str, int]

    @classmethod
    def of(cls, cells: Iterable[str], implementations: Iterable[str]) -> Palette:
        """Choose colours for the cells of a run; well-known cells keep their own."""
        names = list(dict.fromkeys(cells))
        taken = {CELL_COLOURS[name] for name in names if name in CELL_COLOURS}
        free = [*SPARE_COLOURS, *(c for c in CELL_COLOURS.values() if c not in taken)]
        others = [name for name in names if name not in CELL_COLOURS]
        chosen = {name: free[i % len(free)] for i, name in enumerate(others)}
        return cls(
            {name: CELL_COLOURS.get(name) or chosen[name] for name in names},
            {name: i for i, name in enumerate(dict.fromkeys(implementations))},
        )

    def dash(self, implementation: str) -> Any:
        """Return the line style of an implementation."""
        return DASHES[self.implementations[implementation] % len(DASHES)]

    def marker(self, implementation: str) -> str:
        """Return the marker of an implementation."""
        return MARKERS[self.implementations[implementation] % len(MARKERS)]


@dataclass
class Sketch:
    """A figure being drawn, and which cell and implementation its marks are of."""

    width: float
    height: float
    palette: Palette
    figure: Figure = field(init=False)
    marks: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size = (self.width, self.height)
        self.figure = Figure(figsize=size, dpi=PNG_DPI, layout="constrained")
        FigureCanvasAgg(self.figure)

    def mark(self, artists: Iterable[Artist], cell: str, implementation: str) -> None:
        """Name artists so that the page can hide them by cell and implementation."""
        for artist in artists:
            name = f"mark{len(self.marks)}"
            artist.set_gid(name)
            self.marks[name] = (cell, implementation)

    def legend(self, handles: Sequence[Line2D | Patch]) -> None:
        """Put the legend above the axes, where it covers no data."""
        widths = [0.62 + 0.075 * len(str(handle.get_label())) for handle in handles]
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


def _span(widths: Sequence[float], columns: int) -> float:
    """Return the width of a legend, filled column by column, the first the longest."""
    return sum(float(max(part)) for part in np.array_split(widths, columns))


@dataclass(frozen=True)
class Drawn:
    """A finished figure.

    Attributes:
        name: The file's name without its ending.
        alt: What the picture shows, for those who do not see it.
        caption: How to read it.
        marks: By id in the SVG, the cell and implementation of a mark.
    """

    name: str
    title: str
    alt: str
    caption: str
    svg: str = field(repr=False)
    png: bytes = field(repr=False)
    task: str = ""
    marks: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)


def finish(
    sketch: Sketch, name: str, title: str, alt: str, caption: str, task: str = ""
) -> Drawn:
    """Write a sketch as SVG and PNG; the same bytes for the same numbers."""
    svg, png = io.StringIO(), io.BytesIO()
    figure = sketch.figure
    # Laying out takes longer than drawing: once is enough for both files, and
    # `savefig` would do it for each.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    raster: Any = FigureCanvasAgg(figure)
    raster.print_png(png, metadata={"Software": None})
    vector: Any = FigureCanvasSVG(figure)
    vector.print_svg(svg, metadata={"Date": None, "Creator": None})
    text = "\n".join(line.rstrip() for line in svg.getvalue().splitlines()) + "\n"
    return Drawn(name, title, alt, caption, text, png.getvalue(), task, sketch.marks)


# --- axes ----------------------------------------------------------------------------


def arrange(kinds: Sequence[str]) -> list[tuple[int, int]]:
    """Return line and column of panels that come sorted by kind.

    A kind begins a line; where each has one panel, they share a line.
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


def log_axis(
    axis: Any, low: float, high: float, form: Callable[[float], str] | None = None
) -> None:
    """Make an axis logarithmic with ticks that can be read, from low to high > 0."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    decades = math.log10(high / low)
    written = form or (log_label if decades < 4 else power_label)
    subs = (1.0, 2.0, 5.0) if decades < 2.2 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: written(value)))
    axis.set_minor_formatter(NullFormatter())


def log_label(value: float) -> str:
    """Return "0.01", or "10⁻⁸" where digits would be many."""
    if value <= 0:
        return ""
    if 1e-4 <= value < 1e5:
        return f"{value:g}"
    return power_label(value)


def power_label(value: float) -> str:
    """Return "10⁻⁸", or "2·10⁻⁸" between the powers of ten."""
    if value == 1:
        return "1"
    exponent = math.floor(math.log10(value) + 1e-9)
    digits = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    factor = round(value / 10**exponent)
    return f"10{digits}" if factor == 1 else f"{factor}·10{digits}"


def label_line(axes: Axes, value: float, words: str) -> None:
    """Draw a level across the axes, its name beside them, clear of the data."""
    axes.axhline(value, color=GREY, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1.5)
    axes.annotate(
        words,
        xy=(1.0, value),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color=GREY,
    )


def note_failures(axes: Axes, failures: Mapping[tuple[str, str, str], int]) -> None:
    """Say under the axes which trials did not end ok."""
    if not failures:
        return
    named = [
        f"{cell}: {count} {outcome.replace('_', ' ')}"
        for (cell, _, outcome), count in failures.items()
    ]
    shown = named[:4] + ([f"{len(named) - 4} more"] if len(named) > 4 else [])
    words = "not ok: " + "; ".join(shown)
    axes.set_xlabel(f"{axes.get_xlabel()}\n{words}")


def note_uncertified(axes: Axes, cells: Sequence[str]) -> None:
    """Say under the axes which cells were not trained by what is certified."""
    if cells:
        axes.set_xlabel(f"{axes.get_xlabel()}\n{UNCERTIFIED}: {', '.join(cells)}")


def shorten(name: str, longest: int = 26) -> str:
    """Return a name that fits beside an axis; tables give it whole."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


def line_handle(words: str, **look: Any) -> Line2D:
    """Return a legend entry."""
    return Line2D([], [], label=words, **{"color": GREY, "linewidth": 2.0, **look})


def tint(colour: str) -> str:
    """Return a colour a fifth as strong, opaque: SVG gives a hatch the face's alpha."""
    red, green, blue = (1 - 0.2 * (1 - part) for part in to_rgb(colour))
    return to_hex((red, green, blue))


def several(names: Iterable[str]) -> bool:
    """Return whether there is more than one implementation to tell apart."""
    return len(set(names)) > 1


def cell_handles(palette: Palette, cells: Iterable[str]) -> list[Line2D]:
    """Return a legend entry a cell."""
    names = dict.fromkeys(cells)
    return [line_handle(name, color=palette.cells[name]) for name in names]


def implementation_handles(palette: Palette, names: Iterable[str]) -> list[Line2D]:
    """Return a legend entry an implementation, by marker, where there are several."""
    unique = list(dict.fromkeys(names))
    if len(unique) < 2:
        return []
    return [
        line_handle(shorten(name), linestyle="", marker=palette.marker(name))
        for name in unique
    ]
