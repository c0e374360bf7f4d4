"""Throughput by implementation and cell with intervals."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from harness.analysis.speed.rows import SpeedRow
from harness.report.figures.solved import label_rows
from harness.report.figures.style import (
    GREY,
    INK,
    Drawn,
    Palette,
    Sketch,
    cell_handles,
    finish,
    line_handle,
    log_axis,
    shorten,
    tint,
)
from harness.report.tables.speed import phase
from harness.report.text import short

CAPTION = (
    "Tokens (sequences × time steps) a second, median and 95 % interval, on "
    "a log axis. Hatched with an open mark: uncertified, so what was computed may be "
    "something else; the table says why. “shaky”: the readings scattered too much."
)
Line = tuple[str, str]


def draw_throughput(rows: Sequence[SpeedRow], palette: Palette, index: int) -> Drawn:
    """Draw one place: phases across, one line a cell and implementation."""
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
    return finish(
        sketch,
        f"throughput-{index}" + (f"-{where.task}" if where.task else ""),
        f"Throughput: {where.title}",
        describe(rows),
        CAPTION,
        where.task,
    )


def throughput_axes(
    axes: Axes,
    rows: Sequence[SpeedRow],
    lines: Sequence[Line],
    sketch: Sketch,
    longest: int = 26,
) -> None:
    """Draw one phase: tokens a second across; names up to `longest` characters."""
    known = [row for row in rows if row.tokens_per_s]
    ends = [value for row in known for value in _ends(row)]
    low, high = min(ends, default=1.0) / 2, max(ends, default=1.0)
    low = min(low, high / 12)  # less than a decade has ticks too close to read
    log_axis(axes.xaxis, low, high, short)
    # Hatching says it; the word is for those of a panel that are unlike the others.
    said = any(row.certified for row in known)
    words = [_words(row, said) for row in rows]
    # Room on the right for what is written behind each mark.
    room = max(0.35, 0.03 + 0.02 * max(map(len, words), default=0))
    axes.set_xlim(low, high * (high / low) ** (room / (1 - room)))
    for row, written in zip(rows, words, strict=True):
        line = lines.index((row.cell, row.implementation))
        artists = _draw_row(axes, line, row, low, sketch.palette, written)
        sketch.mark(artists, row.cell, row.implementation)
    label_rows(
        axes, [f"{shorten(c, longest)} · {shorten(name, longest)}" for c, name in lines]
    )
    axes.set_xlabel("tokens/s")


def _ends(row: SpeedRow) -> list[float]:
    value = row.tokens_per_s or 1.0
    return [value] if row.tokens is None else [row.tokens.low, row.tokens.high, value]


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
    if row.tokens_per_s is None:
        return [_write(axes, left, line, words)]
    colour, value = palette.cells[row.cell], row.tokens_per_s
    low, high = min(_ends(row)), max(_ends(row))
    # On a log axis the length of a bar means nothing, so certified rows have none.
    bar: list[Artist] = []
    if row.certified:
        bar += axes.plot([left, low], [line, line], color=tint(colour), linewidth=1)
    else:
        bar += axes.barh(
            line,
            axes.get_xlim()[1] - left,
            left=left,
            height=0.66,
            facecolor=tint(colour),
            edgecolor=colour,
            linewidth=0.5,
            hatch="/////",
        )
    interval = axes.plot([low, high], [line, line], color=INK, linewidth=1.2)
    point = axes.plot(
        value,
        line,
        palette.marker(row.implementation),
        color=colour,
        markerfacecolor=colour if row.certified else "white",
        markersize=5.5,
    )
    return [*bar, *interval, *point, _write(axes, high, line, words)]


def _write(axes: Axes, x: float, line: int, words: str) -> Artist:
    return axes.annotate(
        words,
        xy=(x, line),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color=INK,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1},
    )


def throughput_handles(
    rows: Sequence[SpeedRow], palette: Palette
) -> list[Line2D | Patch]:
    """Return the legend of throughput panels."""
    handles: list[Line2D | Patch] = [
        *cell_handles(palette, [row.cell for row in rows if row.phase])
    ]
    if any(not row.certified for row in rows if row.phase):
        handles.append(
            Patch(facecolor="white", edgecolor=GREY, hatch="/////", label="uncertified")
        )
    return handles


def describe(rows: Sequence[SpeedRow]) -> str:
    """Return the rows in words."""
    words = [
        f"{row.cell} {row.implementation} {phase(row.phase)}: "
        f"{short(row.tokens_per_s)}{'' if row.certified else ', uncertified'}"
        for row in rows
        if row.phase
    ]
    return f"Tokens a second. {'; '.join(words)}."
