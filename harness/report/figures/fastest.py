"""The fastest certified implementation over batch and hidden size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from harness.analysis.grouping import group
from harness.analysis.speed.conditions import budget_of, title_of
from harness.analysis.speed.fastest import FastestMap, Spot
from harness.report.figures.axes import titled
from harness.report.figures.layout import left_out
from harness.report.figures.results import Results
from harness.report.figures.sketch import Drawn, Sketch
from harness.report.figures.style import GREY, INK, Look, line_handle, shorten
from harness.report.tables.fastest import COLUMNS, fastest_words, is_choice
from harness.report.tables.form import in_words
from harness.report.tables.timings import phase
from harness.report.text import times

# Paul Tol's light scheme: the colours differ for readers with every common colour
# vision deficiency, and each is pale enough for black words on it.
COLOURS = (
    "#77AADD", "#EE8866", "#EEDD88", "#44BB99", "#FFAABB", "#99DDFF", "#BBCC33",
    "#DDDDDD", "#AAAA00",
)  # fmt: skip
CAPTION = (
    "The fastest certified implementation at each batch and hidden size, and how many "
    "times faster it is than the next certified one. Each colour is an implementation. "
    "Two colours and ≈: the difference is below 2 %, or its 95 % interval contains 1, "
    "so that both are equally good. †: an uncertified implementation took less time; "
    "the table names it. Shaky: the timing of the first or of the next is shaky."
)
DAGGER = "†"

MOST = 12
"""The most panels that are drawn."""

SPOT = (0.93, 0.52)
MARGIN = 0.75
WIDEST = 15.6
"""The inches of a spot, of the labels beside a map, and of a line of maps."""


def fastest_figures(results: Results) -> Iterator[Drawn]:
    """Draw a panel per cell, phase and conditions if several sizes leave a choice."""
    maps = [m for m in results.summary.fastest if m.is_map and is_choice(m)]
    if not maps:
        return
    kept, colours = maps[:MOST], colours_of(maps)
    cells = group(kept, lambda m: m.cell).values()
    lines = [line for members in cells for line in _filled(members)]
    heights = [1.0 + SPOT[1] * max(len(_sizes(m)[1]) for m in line) for line in lines]
    width = max(4.5, *(sum(map(_inches, line)) for line in lines))
    sketch = Sketch(width, 0.6 + sum(heights), results.palette)
    outer = sketch.figure.add_gridspec(len(lines), 1, height_ratios=heights)
    for i, members in enumerate(lines):
        inches = [_inches(found) for found in members]
        left = [width - sum(inches)] if width - sum(inches) > 0.5 else []
        inner = outer[i].subgridspec(
            1, len(members) + len(left), width_ratios=[*inches, *left]
        )
        for j, found in enumerate(members):
            axes = sketch.figure.add_subplot(inner[j])
            fastest_axes(axes, found, colours, sketch)
            titled(axes, _title(found, kept), inches[j] - 0.5)
    spots = [spot for found in kept for spot in found.spots]
    shown = {name for spot in spots for name in spot.equals[:2]}
    handles: list[Line2D | Patch] = [
        Patch(facecolor=colour, edgecolor=GREY, label=shorten(name))
        for name, colour in colours.items()
        if name in shown
    ]
    if any(spot.faster_uncertified for spot in spots):
        said = f"{DAGGER} an uncertified one took less time"
        handles.append(line_handle(said, linestyle=""))
    sketch.legend(handles)
    caption = CAPTION + left_out(len(maps) - len(kept))
    title = "Fastest certified implementation"
    yield sketch.finish("fastest", title, describe(kept), caption)


def _inches(found: FastestMap) -> float:
    return max(1.9, MARGIN + SPOT[0] * len(_sizes(found)[0]))


def _filled(maps: Sequence[FastestMap]) -> list[list[FastestMap]]:
    """Return the maps in lines that are not too wide."""
    lines: list[list[FastestMap]] = [[]]
    for found in maps:
        if lines[-1] and sum(map(_inches, [*lines[-1], found])) > WIDEST:
            lines.append([])
        lines[-1].append(found)
    return lines


def colours_of(maps: Sequence[FastestMap]) -> dict[str, str]:
    """Return a colour for every implementation that is fastest anywhere."""
    names = {n: None for m in maps for spot in m.spots for n in spot.equals[:2]}
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def _title(found: FastestMap, maps: Sequence[FastestMap]) -> str:
    words = [found.cell, phase(found.phase)]
    words += [found.where] if len({m.where for m in maps}) > 1 else []
    alike = {m.conditions for m in maps}
    if len({each.machine for each in alike}) > 1:
        words.append(title_of(found.conditions))
    elif len(alike) > 1:
        words.append(budget_of(found.conditions))
    return " · ".join(words)


def _sizes(found: FastestMap) -> tuple[list[int], list[int]]:
    """Return the batches and the hidden sizes of a map, each sorted."""
    batches = {spot.batch or 0 for spot in found.spots}
    return sorted(batches), sorted({spot.hidden_size or 0 for spot in found.spots})


def fastest_axes(
    axes: Axes, found: FastestMap, colours: Mapping[str, str], sketch: Sketch
) -> None:
    """Draw one map: hidden sizes over batches."""
    batches, widths = _sizes(found)
    axes.set(xlim=(-0.5, len(batches) - 0.5), ylim=(-0.5, len(widths) - 0.5))
    axes.set_xticks(range(len(batches)), [str(batch) for batch in batches])
    axes.set_yticks(range(len(widths)), [str(width) for width in widths])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.set_facecolor("#f4f4f4")  # nothing was asked there
    axes.set(xlabel="batch", ylabel="hidden size")
    for spot in found.spots:
        x = batches.index(spot.batch or 0)
        y = widths.index(spot.hidden_size or 0)
        artists = _draw_spot(axes, x, y, spot, colours)
        sketch.mark(artists, found.cell, spot.equals[0] if spot.equals else "")


def _draw_spot(
    axes: Axes, x: float, y: float, spot: Spot, colours: Mapping[str, str]
) -> list[Artist]:
    first = colours[spot.equals[0]] if spot.equals else "white"
    corner = (x - 0.5, y - 0.5)
    white: Look = {"edgecolor": "white", "linewidth": 2}
    boxes = [Rectangle(corner, 1, 1, facecolor=first, **white)]
    if len(spot.equals) > 1:
        second = colours[spot.equals[1]]
        half: Look = {"facecolor": second, "edgecolor": second, "linewidth": 0}
        boxes.append(Rectangle(corner, 1, 0.5, **half))
        boxes.append(Rectangle(corner, 1, 1, facecolor="none", **white))
    artists: list[Artist] = [axes.add_patch(box) for box in boxes]
    parts = spot_words(spot)
    heights = [y] if len(parts) == 1 else [y + 0.25, y - 0.25]
    look: Look = {"ha": "center", "va": "center", "color": INK, "linespacing": 1.1}
    look["fontsize"] = 7.0 if len(parts) == 1 else 6.6
    for at, words in zip(heights, parts, strict=True):
        artists.append(axes.text(x, at, words, **look))
    return artists


def spot_words(spot: Spot) -> tuple[str, ...]:
    """Return the words on a spot, or on its upper and its lower half."""
    if not spot.equals:
        how = {how.replace("_", " ") for _, how in spot.failures}
        alone = not spot.uncertified and len(how) == 1
        return ((how.pop() if alone else fastest_words(spot)).replace(" ", "\n"),)
    marks = [DAGGER] if spot.faster_uncertified else []
    marks += ["shaky"] if spot.shaky or spot.runner_up_shaky else []
    names = [shorten(name, 16) for name in spot.equals[:2]]
    if len(names) == 1:
        ratio = "alone" if spot.ratio is None else f"{times(spot.ratio)} ×"
        return (f"{names[0]}\n{' '.join([ratio, *marks])}",)
    more = len(spot.equals) - 2
    marks = [f"+ {more} more", *marks] if more > 0 else marks
    return names[0], f"≈ {names[1]}\n{' '.join(marks)}".strip()


def describe(maps: Sequence[FastestMap]) -> str:
    """Return every spot in words."""
    spots = [(found, spot) for found in maps for spot in found.spots]
    return f"Fastest certified implementation. {in_words(COLUMNS[:5], spots)}."
