"""Colours, dashes, markers, settings and legend entries that all figures share."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.colors import to_hex, to_rgb
from matplotlib.lines import Line2D

from harness.printing import one_line

# Okabe & Ito (2008): colours that differ for readers with every common colour vision
# deficiency. Their yellow is left out, because it is too faint on white.
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
GREY = "#666666"
INK = "#222222"

Look = dict[str, Any]
"""How something is drawn: keywords for matplotlib."""

RC: Look = {
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
    """Use the report's settings of matplotlib in place of the user's."""
    with mpl.rc_context(), warnings.catch_warnings():
        # The SVG has the character as text, and a PNG shows that there is one. With
        # many long names a panel has no room left, and matplotlib draws it unarranged.
        for words in ("Glyph .* missing from font", "constrained_layout not applied"):
            warnings.filterwarnings("ignore", words, UserWarning)
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
        """Choose colours for cells; a known cell has the same in every run."""
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

    def look(self, implementation: str) -> Look:
        """Return the dash and the marker of an implementation."""
        dash, marker = self.dash(implementation), self.marker(implementation)
        return {"linestyle": dash, "marker": marker}

    def cell_handles(self, cells: Iterable[str]) -> list[Line2D]:
        """Return a legend entry for each cell."""
        names = dict.fromkeys(cells)
        return [line_handle(shorten(name), color=self.cells[name]) for name in names]

    def marker_handles(self, implementations: Iterable[str]) -> list[Line2D]:
        """Return a legend entry for each of several implementations, by marker."""
        names = list(dict.fromkeys(implementations))
        return [
            point_handle(shorten(name), self.marker(name))
            for name in names
            if len(names) > 1
        ]

    def dash_handles(self, implementations: Iterable[str]) -> list[Line2D]:
        """Return a legend entry for each implementation, by dash and marker."""
        return [
            line_handle(shorten(name), linewidth=1.4, markersize=5, **self.look(name))
            for name in dict.fromkeys(implementations)
        ]


def line_handle(words: str, **look: Any) -> Line2D:
    """Return the legend entry of a line."""
    return Line2D([], [], label=words, **{"color": GREY, "linewidth": 2.0, **look})


def point_handle(words: str, marker: str = "o", **look: Any) -> Line2D:
    """Return the legend entry of a marker."""
    return line_handle(words, linestyle="", marker=marker, **look)


def shorten(name: str, longest: int = 26) -> str:
    """Return a name in one line that fits beside an axis; the tables have all of it."""
    name = one_line(name)
    return name if len(name) <= longest else name[: longest - 1] + "…"


def tint(colour: str) -> str:
    """Return a paler opaque colour: in SVG a hatch gets the alpha of its face."""
    red, green, blue = (1 - 0.2 * (1 - part) for part in to_rgb(colour))
    return to_hex((red, green, blue))
