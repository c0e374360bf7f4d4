"""The distance of each learning curve from that of the float64 reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from harness.analysis.grouping import group
from harness.analysis.learning.agreement import (
    LEVEL,
    OWN_FLOAT32,
    REFERENCE,
    AgreementPanel,
    AgreementSeries,
    agreement_panels,
    computer_name,
)
from harness.report.figures.axes import (
    dashed_line,
    label_line,
    log_axis,
    power_label,
    write,
)
from harness.report.figures.results import Results
from harness.report.figures.sketch import Drawn, Sketch
from harness.report.figures.style import GREY, INK, Palette, line_handle

MOST_SEEDS = 3
CAPTION = (
    "How far each training loss has been from that of "
    f"{computer_name(*REFERENCE)} up to each update, with the same batches and the "
    f"same initial values. The wide grey line is {computer_name(*OWN_FLOAT32)}: it "
    "shows the effect of rounding alone. Two curves have parted once their difference "
    "is above the dashed level: a mark shows the update, and the vertical line shows "
    "it for the grey line. A line ends where the shorter of its two curves ends."
)


def agreement_figures(results: Results) -> Iterator[Drawn]:
    """Draw the differences of each task and length."""
    found = group(agreement_panels(results.summary.run), lambda panel: panel.heading)
    for index, panels in enumerate(found.values(), 1):
        yield draw_agreement(panels, results.palette, index)


def draw_agreement(
    panels: Sequence[AgreementPanel], palette: Palette, number: int
) -> Drawn:
    """Draw one task and length, with a row for each cell and a column for each seed."""
    where = panels[0].heading
    cells = list(dict.fromkeys(panel.cell for panel in panels))
    every = sorted({panel.seed or 0 for panel in panels})
    seeds = every[:MOST_SEEDS]
    shown = {(p.cell, p.seed or 0): p for p in panels if (p.seed or 0) in seeds}
    sketch = Sketch(1.2 + 3.7 * len(seeds), 0.9 + 2.4 * len(cells), palette)
    grid = sketch.figure.subplots(
        len(cells), len(seeds), squeeze=False, sharex=True, sharey=True
    )
    _scale(grid[0, 0], list(shown.values()))
    for line, cell in enumerate(cells):
        for column, seed in enumerate(seeds):
            axes = grid[line, column]
            axes.set_title(f"{cell}, seed {seed}")
            if (cell, seed) in shown:
                agreement_axes(axes, shown[cell, seed], sketch)
        grid[line, 0].set_ylabel("largest difference so far")
    grid[0, 0].xaxis.set_major_locator(MaxNLocator(5))
    for axes in grid[-1]:
        axes.set_xlabel("updates")
    for axes in grid[:, -1]:
        label_line(axes, LEVEL, power_label(LEVEL))
    sketch.legend(agreement_handles(list(shown.values()), palette))
    few = f" The first {len(seeds)} of {len(every)} seeds." if seeds != every else ""
    return sketch.finish(
        f"agreement-{number}-{where.task}",
        f"Do the learning curves agree? {where.title}",
        describe(panels),
        CAPTION + few,
        where.task,
    )


def _scale(axes: Axes, panels: Sequence[AgreementPanel]) -> None:
    values = [y for panel in panels for series in panel.series for y in series.y]
    low, high = min([LEVEL / 10, *values]), max([LEVEL * 10, *values])
    log_axis(axes.yaxis, low, high, ends=(low / 2, high * 3))
    axes.set_xlim(0, max(panel.updates for panel in panels) * 1.01)


def agreement_axes(axes: Axes, panel: AgreementPanel, sketch: Sketch) -> None:
    """Draw one panel: the largest difference so far over updates."""
    dashed_line(axes, LEVEL)
    if panel.reference_parts_at is not None:
        x, above = panel.reference_parts_at, ("data", "axes fraction")
        axes.axvline(x, color=INK, linewidth=0.9, zorder=1.4)
        write(axes, str(x), (x, 1.0), (3, -3), xycoords=above, va="top")
    for series in panel.series:
        _draw_series(axes, series, panel.cell, sketch)


def _draw_series(
    axes: Axes, series: AgreementSeries, cell: str, sketch: Sketch
) -> None:
    if not series.x:
        return
    colour, name = sketch.palette.cells[cell], series.implementation
    look = {"color": colour, "linestyle": sketch.palette.dash(name)}
    look |= {"linewidth": 1.5, "zorder": 3}
    is_own = (name, series.dtype) == OWN_FLOAT32
    if is_own:
        look = {"color": GREY, "alpha": 0.45, "linewidth": 4.5, "zorder": 2}
    x, y = [*series.x, series.updates], [*series.y, series.y[-1]]
    artists = axes.plot(x, y, drawstyle="steps-post", **look)
    if series.parts_at is not None and not is_own:
        at = series.x.index(series.parts_at)
        artists += axes.plot(
            series.parts_at, series.y[at], color=colour, markeredgecolor=INK,
            marker=sketch.palette.marker(name), markersize=6, zorder=4,
        )  # fmt: skip
    sketch.mark(artists, cell, name)


def agreement_handles(
    panels: Sequence[AgreementPanel], palette: Palette
) -> list[Line2D]:
    """Return the legend: cells, and every implementation with dash and marker."""
    every = [(s.implementation, s.dtype) for panel in panels for s in panel.series]
    handles = palette.cell_handles(panel.cell for panel in panels)
    if OWN_FLOAT32 in every:
        words = computer_name(*OWN_FLOAT32)
        handles.append(line_handle(words, linewidth=4.5, alpha=0.45))
    for name, dtype in dict.fromkeys(who for who in every if who != OWN_FLOAT32):
        look = {"linewidth": 1.5, "markeredgecolor": INK, **palette.look(name)}
        handles.append(line_handle(computer_name(name, dtype), **look))
    return handles


def describe(panels: Sequence[AgreementPanel]) -> str:
    """Return in words where every curve parts."""
    words = []
    for panel in panels:
        ends = [
            f"{computer_name(s.implementation, s.dtype)} "
            + ("does not part" if s.parts_at is None else f"parts at {s.parts_at}")
            for s in panel.series
        ]
        words.append(f"{panel.cell}, seed {panel.seed}: {', '.join(ends)}")
    return f"Distance to the float64 reference over updates. {'; '.join(words)}."
