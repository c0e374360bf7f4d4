"""Throughput of every implementation and cell, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from harness.analysis.grouping import group
from harness.analysis.speed.scaling import spread
from harness.analysis.speed.timings import PLACEMENT, SpeedRow
from harness.analysis.summary import Summary
from harness.report.figures.axes import around, log_axis, name_lines, write
from harness.report.figures.marks import reach
from harness.report.figures.results import Results
from harness.report.figures.sketch import Drawn, Sketch
from harness.report.figures.style import (
    GREY,
    INK,
    Look,
    Palette,
    line_handle,
    shorten,
    tint,
)
from harness.report.tables.form import in_words
from harness.report.tables.rates import TOKENS, WITH_MARKS
from harness.report.tables.timings import CELL, PHASE, phase
from harness.report.text import short

CAPTION = (
    "Tokens (sequences × time steps) a second: the median and its 95 % interval, on "
    "a log axis. Hatched with an open mark: uncertified, so it may compute something "
    "else; the table says why. “shaky”: the readings scattered too much."
)
MOST = 3
"""The most figures: of more headings the least work, the most work and between."""

HATCH = "/////"
Line = tuple[str, str]


def throughput_figures(results: Results) -> Iterator[Drawn]:
    """Draw the timings of a few headings."""
    shown = spread(timed(results.summary), MOST)
    for index, rows in enumerate(shown, 1):
        yield _draw(rows, results.palette, index)


def timed(summary: Summary) -> list[list[SpeedRow]]:
    """Return the rows of every heading with a timing; of many, the least work first."""
    found = [
        [row for row in rows if row.phase != PLACEMENT]
        for rows in group(summary.speed, lambda row: row.heading).values()
    ]
    known = [rows for rows in found if any(row.tokens_per_s for row in rows)]
    if len(known) <= MOST:
        return known
    return sorted(known, key=lambda rows: max(row.flops or 0.0 for row in rows))


def _draw(rows: Sequence[SpeedRow], palette: Palette, index: int) -> Drawn:
    """Draw a panel for each phase, with a line for each cell and implementation."""
    where = rows[0].heading
    phases = list(dict.fromkeys(row.phase for row in rows if row.phase))
    lines = list(dict.fromkeys((row.cell, row.implementation) for row in rows))
    sketch = Sketch(3.0 + 3.1 * len(phases), 1.3 + 0.22 * len(lines), palette)
    grid = sketch.figure.subplots(1, len(phases), squeeze=False, sharey=True)
    for axes, name in zip(grid[0], phases, strict=True):
        shown = [row for row in rows if row.phase in (name, "")]
        throughput_axes(axes, shown, lines, sketch)
        axes.set_title(phase(name))
    interval = line_handle("95 % interval", color=INK, linewidth=1.2)
    sketch.legend([*throughput_handles(rows, palette), interval])
    name = f"throughput-{index}" + (f"-{where.task}" if where.task else "")
    title = f"Throughput: {where.title}"
    return sketch.finish(name, title, describe(rows), CAPTION, where.task)


def throughput_axes(
    axes: Axes,
    rows: Sequence[SpeedRow],
    lines: Sequence[Line],
    sketch: Sketch,
    longest: int = 26,
) -> None:
    """Draw one phase: tokens a second across; names up to `longest` characters."""
    known = [row for row in rows if row.tokens_per_s]
    low, high = around([end for row in known for end in _ends(row)], 2)
    # The word is needed beside the hatching only if a panel has certified rows too.
    said = any(row.certified for row in known)
    words = [_words(row, said) for row in rows]
    # Room on the right for what is written behind each mark.
    room = max(0.35, 0.03 + 0.02 * max(map(len, words), default=0))
    right = high * (high / low) ** (room / (1 - room))
    log_axis(axes.xaxis, low, high, short, (low, right))
    for row, written in zip(rows, words, strict=True):
        line = lines.index((row.cell, row.implementation))
        artists = _draw_row(axes, line, row, low, sketch.palette, written)
        sketch.mark(artists, row.cell, row.implementation)
    names = [" · ".join(shorten(name, longest) for name in line) for line in lines]
    name_lines(axes, names)
    axes.set_xlabel("tokens/s")


def _ends(row: SpeedRow) -> tuple[float, float]:
    return reach(row.tokens_per_s, row.tokens)


def _words(row: SpeedRow, said: bool) -> str:
    if row.tokens_per_s is None:
        return row.outcome.replace("_", " ") if row.outcome != "ok" else "no timing"
    marks = [short(row.tokens_per_s)]
    marks += ["uncertified"] if said and not row.certified else []
    marks += ["shaky"] if row.shaky else []
    return " · ".join(marks)


def _draw_row(
    axes: Axes, line: int, row: SpeedRow, left: float, palette: Palette, words: str
) -> list[Artist]:
    white: Look = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
    if row.tokens_per_s is None:
        return [write(axes, words, (left, line), (6, 0), bbox=white)]
    colour, (low, high) = palette.cells[row.cell], _ends(row)
    # On a log axis the length of a bar means nothing, so certified rows have none.
    bar: list[Artist] = []
    if row.certified:
        bar += axes.plot([left, low], [line, line], color=tint(colour), linewidth=1)
    else:
        bar += axes.barh(
            line, axes.get_xlim()[1] - left, left=left, height=0.66, linewidth=0.5,
            facecolor=tint(colour), edgecolor=colour, hatch=HATCH,
        )  # fmt: skip
    interval = axes.plot([low, high], [line, line], color=INK, linewidth=1.2)
    point = axes.plot(
        row.tokens_per_s, line, palette.marker(row.implementation), color=colour,
        markerfacecolor=colour if row.certified else "white", markersize=5.5,
    )  # fmt: skip
    text = write(axes, words, (high, line), (6, 0), bbox=white)
    return [*bar, *interval, *point, text]


def throughput_handles(
    rows: Sequence[SpeedRow], palette: Palette
) -> list[Line2D | Patch]:
    """Return the legend of throughput panels."""
    known = [row for row in rows if row.phase]
    handles: list[Line2D | Patch] = [*palette.cell_handles(row.cell for row in known)]
    if any(not row.certified for row in known):
        look: Look = {"facecolor": "white", "edgecolor": GREY, "hatch": HATCH}
        handles.append(Patch(**look, label="uncertified"))
    return handles


def describe(rows: Sequence[SpeedRow]) -> str:
    """Return the rows in words."""
    known = [row for row in rows if row.phase]
    return f"Tokens a second. {in_words((CELL, WITH_MARKS, PHASE, TOKENS), known)}."
