"""Which figures a run has: one with nothing to show is not drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.grouping import Heading, group
from harness.analysis.learning.agreement import agreement_panels
from harness.analysis.learning.curves import LearningPanel, learning_panels
from harness.analysis.learning.gradients import GradientPanel, gradient_panels
from harness.analysis.learning.initial_values import InitialPanel, initial_panels
from harness.analysis.speed.rows import PLACEMENT, SpeedRow
from harness.analysis.speed.scaling import chosen_panels, scaling_panels, spread
from harness.analysis.summary import Summary
from harness.report.figures import overview, scaling
from harness.report.figures.agreement import draw_agreement
from harness.report.figures.fastest import draw_fastest
from harness.report.figures.gradients import draw_gradients
from harness.report.figures.initial_values import draw_initial_values
from harness.report.figures.latency import draw_latency, latency_panels
from harness.report.figures.learning import draw_learning
from harness.report.figures.payback import draw_payback, payback_panels
from harness.report.figures.roofline import draw_roofline, roofline_rows
from harness.report.figures.scaling import draw_scaling
from harness.report.figures.solve_time import draw_solve_time
from harness.report.figures.solved import draw_solved
from harness.report.figures.speed import draw_throughput
from harness.report.figures.style import Drawn, Palette, drawing
from harness.report.tables.fastest import is_choice

MOST_THROUGHPUT = 3
"""Places whose throughput is drawn; of more the smallest, largest and between."""

MOST_OVERVIEW_LINES = 16
"""More lines than this cannot be read at the size of the first screen."""


@dataclass(frozen=True)
class Gallery:
    """The figures of a report by the section they stand in, in order."""

    overview: tuple[Drawn, ...]
    learning: tuple[Drawn, ...]
    agreement: tuple[Drawn, ...]
    gradients: tuple[Drawn, ...]
    speed: tuple[Drawn, ...]

    @property
    def all(self) -> tuple[Drawn, ...]:
        """Every figure."""
        return (
            *self.overview,
            *self.learning,
            *self.agreement,
            *self.gradients,
            *self.speed,
        )


def draw_all(summary: Summary) -> Gallery:
    """Draw every figure that has something to show."""
    run = summary.run
    palette = Palette.of(
        [record.trial.cell for record in run.records],
        [record.trial.implementation for record in run.records],
    )
    curves = learning_panels(run)
    losses = learning_panels(run, metric="loss")
    lags = [panel for panel in gradient_panels(run) if panel.series]
    untrained = [panel for panel in initial_panels(run) if panel.series]
    with drawing():
        return Gallery(
            overview=tuple(_overview(summary, curves, lags, palette)),
            learning=tuple(_learning(summary, curves, losses, palette)),
            agreement=tuple(_agreement(summary, palette)),
            gradients=(
                *_gradients(lags, palette),
                *_initial_values(untrained, palette),
            ),
            speed=tuple(_speed(summary, palette)),
        )


def _learning(
    summary: Summary,
    curves: Sequence[LearningPanel],
    losses: Sequence[LearningPanel],
    palette: Palette,
) -> list[Drawn]:
    found = []
    rows = group(
        [row.learning for row in summary.learned], lambda row: row.heading.task
    )
    for task, members in rows.items():
        shown = [panel for panel in curves if panel.heading.task == task]
        others = [panel for panel in losses if panel.heading.task == task]
        if shown[0].metric != "loss":
            shown = [*shown, *others]
        if _has_curve(shown):
            found.append(draw_learning(shown, palette))
        if members:
            found.append(draw_solved(members, palette))
    return found


def _agreement(summary: Summary, palette: Palette) -> list[Drawn]:
    places = group(agreement_panels(summary.run), lambda panel: panel.heading).values()
    return [draw_agreement(found, palette, i + 1) for i, found in enumerate(places)]


def _has_curve(panels: Sequence[LearningPanel]) -> bool:
    return any(series.curves for panel in panels for series in panel.series)


def _gradients(panels: Sequence[GradientPanel], palette: Palette) -> list[Drawn]:
    tasks = group(panels, lambda panel: panel.heading.task)
    return [
        draw_gradients(sorted(members, key=lambda p: p.cotangent), palette)
        for members in tasks.values()
    ]


def _initial_values(panels: Sequence[InitialPanel], palette: Palette) -> list[Drawn]:
    places = group(panels, lambda panel: panel.heading).values()
    return [
        draw_initial_values(found, palette, i + 1) for i, found in enumerate(places)
    ]


def _speed(summary: Summary, palette: Palette) -> list[Drawn]:
    found = _which(summary, palette)
    shown = spread(timed_places(summary), MOST_THROUGHPUT)
    found += [draw_throughput(rows, palette, i + 1) for i, rows in enumerate(shown)]
    panels, others = chosen_panels(scaling_panels(summary.speed), scaling.MOST)
    if panels:
        found.append(draw_scaling(panels, others, palette))
    if roofline_rows(summary.speed):
        found.append(draw_roofline(summary.speed, summary.peaks, palette))
    if waits := latency_panels(summary.speed):
        found.append(draw_latency(waits, palette))
    if first_calls := payback_panels(summary.paybacks):
        found.append(draw_payback(first_calls, palette))
    tasks = group(summary.learned, lambda row: row.learning.heading.task)
    for rows in tasks.values():
        if any(row.solve_times for row in rows):
            found.append(draw_solve_time(rows, palette))
    return found


def _which(summary: Summary, palette: Palette) -> list[Drawn]:
    """Return the map of what is fastest, where there is more than one place on it."""
    maps = [m for m in summary.fastest if m.is_map and is_choice(m)]
    return [draw_fastest(maps, palette)] if maps else []


def timed_places(summary: Summary) -> list[list[SpeedRow]]:
    """Return the rows of every place with a timing, small work first where many."""
    places = [
        [row for row in rows if row.phase != PLACEMENT]
        for rows in group(summary.speed, lambda row: row.heading).values()
    ]
    timed = [rows for rows in places if any(row.tokens_per_s for row in rows)]
    if len(timed) <= MOST_THROUGHPUT:
        return timed
    return sorted(timed, key=lambda rows: max(row.flops or 0.0 for row in rows))


def _overview(
    summary: Summary,
    curves: Sequence[LearningPanel],
    lags: Sequence[GradientPanel],
    palette: Palette,
) -> list[Drawn]:
    focus = summary.focus
    found = []
    for panel in curves:
        if panel.heading == focus and _has_curve([panel]):
            found.append(overview.draw_learning(panel, palette))
    near = sorted(lags, key=lambda panel: not _same(panel.heading, focus))
    if near:
        found.append(overview.draw_gradients(near[0], palette))
    rows = overview_speed(summary.speed, focus)
    if rows:
        found.append(overview.draw_speed(best_of_each(rows), palette, len(rows)))
    return found


def overview_speed(rows: Sequence[SpeedRow], focus: Heading | None) -> list[SpeedRow]:
    """Return what the first screen shows of speed: one place, one phase.

    Where most implementations are compared; of several such places the focus, else the
    first. Whole updates where they were timed, else the first phase.
    """
    places = group((r for r in rows if r.phase != PLACEMENT), lambda r: r.heading)
    found = [_most_telling(members) for members in places.values()]

    def compared(shown: Sequence[SpeedRow]) -> tuple[int, bool]:
        names = {row.implementation for row in shown if row.tokens_per_s}
        return len(names), _same(shown[0].heading, focus)

    return max(filter(None, found), key=compared, default=[])


def _most_telling(rows: Sequence[SpeedRow]) -> list[SpeedRow]:
    """Return the rows of a place's most telling phase; none where none is timed."""
    phases = [row.phase for row in rows if row.tokens_per_s]
    if not phases:
        return []
    name = "train_step" if "train_step" in phases else phases[0]
    return [row for row in rows if row.phase in (name, "")]


def best_of_each(
    rows: Sequence[SpeedRow], most: int = MOST_OVERVIEW_LINES
) -> list[SpeedRow]:
    """Return at most so many rows: of each cell the certified, then the fastest."""
    if len(rows) <= most:
        return list(rows)
    ranked: list[tuple[int, int]] = []
    for members in group(enumerate(rows), lambda item: item[1].cell).values():
        order = sorted(
            members,
            key=lambda item: (not item[1].certified, -(item[1].tokens_per_s or 0)),
        )
        ranked += [(rank, index) for rank, (index, _) in enumerate(order)]
    kept = sorted(index for _, index in sorted(ranked)[:most])
    return [rows[index] for index in kept]


def _same(where: Heading, focus: Heading | None) -> bool:
    return focus is not None and (where.task, where.length) == (
        focus.task,
        focus.length,
    )
