"""Scales, levels and words on the axes of a panel."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from harness.report.figures.sketch import PNG_DPI
from harness.report.figures.style import GREY, INK, shorten
from harness.report.text import UNCERTIFIED, few, seconds

SMALL = 7.5
"""The size of words inside a panel, in points."""

NAME_CHARACTERS = 9.0
"""How many characters a name beside a panel may have for each inch of the panel."""

TITLE_CHARACTERS = 11.0
"""How many characters of a bold title fit in an inch."""

SMALLEST, LARGEST = 1e-150, 1e150
"""The ends of any log axis: the ticks beyond them are still numbers."""

# --- scales --------------------------------------------------------------------------


def log_axis(
    axis: Any,
    low: float,
    high: float,
    form: Callable[[float], str] | None = None,
    ends: tuple[float, float] | None = None,
) -> None:
    """Make an axis logarithmic with ticks that can be read.

    Limits that are equal, or that no axis can have, are moved.

    Args:
        axis: Of the x or the y.
        low: The lowest value to read.
        high: The highest value to read.
        form: Writes the value of a tick.
        ends: The ends of the axis, if they are not `low` and `high`.
    """
    name = axis.axis_name
    low, high = _limits(low, high)
    limits = (low, high) if ends is None else _limits(*ends)
    # The limits come first: those that the data would have may overflow.
    axis.axes.set(**{f"{name}lim": limits, f"{name}scale": "log"})
    decades = math.log10(high / low)
    written = form or (log_label if decades < 4 else power_label)
    subs = (1.0, 2.0, 5.0) if decades < 2.2 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: written(value)))
    axis.set_minor_formatter(NullFormatter())


def _limits(low: float, high: float) -> tuple[float, float]:
    low, high = (min(max(end, SMALLEST), LARGEST) for end in (low, high))
    return (low, high) if high / low > 1.001 else (low / 3, high * 3)


def around(
    values: Iterable[float], below: float, above: float = 1.0
) -> tuple[float, float]:
    """Return the limits of a log axis with some room on both sides of the values.

    They are more than a decade apart, because the ticks of a shorter axis are too close
    to each other.
    """
    known = [value for value in values if 0 < value < math.inf]
    low, high = min(known, default=1.0) / below, max(known, default=1.0) * above
    return min(low, high / 12), high


def log_label(value: float) -> str:
    """Return "0.01", or "10⁻⁸" where there would be many digits."""
    if value <= 0:
        return ""
    if 1e-4 <= value < 1e5:
        return f"{value:g}"
    return power_label(value)


def power_label(value: float) -> str:
    """Return "10⁻⁸", or "2·10⁻⁸" between the powers of ten."""
    if value == 1:
        return "1"
    if value <= 0:
        return ""
    exponent = math.floor(math.log10(value) + 1e-9)
    digits = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    factor = round(value / 10**exponent)
    return f"10{digits}" if factor == 1 else f"{factor}·10{digits}"


def seconds_label(value: float) -> str:
    """Return a time in seconds or a smaller unit: "1000 s", "2 ms"."""
    return f"{log_label(value)} s" if value >= 1 else seconds(value)


# --- levels and words ----------------------------------------------------------------


def write(
    axes: Axes,
    words: str,
    at: tuple[float, float],
    offset: tuple[float, float],
    **look: Any,
) -> Annotation:
    """Write words at an offset, in points, from a position in the data."""
    usual = {"textcoords": "offset points", "va": "center", "fontsize": 8, "color": INK}
    return axes.annotate(words, xy=at, xytext=offset, **{**usual, **look})


def dashed_line(axes: Axes, value: float) -> None:
    """Draw a level across the axes."""
    axes.axhline(value, color=GREY, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1.5)


def label_line(axes: Axes, value: float, words: str) -> None:
    """Draw a level across the axes, with its name beside them."""
    dashed_line(axes, value)
    beside = ("axes fraction", "data")
    write(axes, words, (1.0, value), (4, 0), xycoords=beside, color=GREY)


def titled(axes: Axes, words: str, width: float) -> None:
    """Write the title of a panel of `width` inches, with line breaks at the dots."""
    most = max(int(TITLE_CHARACTERS * width), 16)
    axes.set_title(at_dots(words, most), fontsize=8.5)


def at_dots(words: str, most: int) -> str:
    """Return words in lines of at most `most` characters, each ending at a dot."""
    parts = words.replace(" ", "\xa0").replace("·\xa0", "· ")
    return "\n".join(textwrap.wrap(parts, most))


def name_lines(axes: Axes, names: Sequence[str]) -> None:
    """Name the lines of a panel, the first at the top."""
    most = int(NAME_CHARACTERS * axes.bbox.width / PNG_DPI)
    axes.set_yticks(range(len(names)), [shorten(name, most) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def note(axes: Axes, words: str) -> None:
    """Write a line under the axes."""
    axes.set_xlabel(f"{axes.get_xlabel()}\n{words}")


def note_trials(
    axes: Axes,
    failures: Mapping[tuple[str, str, str], int],
    uncertified: Sequence[str] = (),
) -> None:
    """Write under the axes which trials did not end ok, and which are uncertified."""
    named = [
        f"{cell}: {count} {outcome.replace('_', ' ')}"
        for (cell, _, outcome), count in failures.items()
    ]
    if named:
        note(axes, "not ok: " + "; ".join(few(named, 4)))
    if uncertified:
        note(axes, f"{UNCERTIFIED}: {', '.join(uncertified)}")
