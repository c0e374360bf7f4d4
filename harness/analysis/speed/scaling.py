"""How time grows with length, batch, hidden size and threads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from harness.analysis.grouping import group
from harness.analysis.speed.conditions import budget_of, sizes_of
from harness.analysis.speed.timings import SpeedRow, rank

T = TypeVar("T")

AXES = ("time_steps", "batch", "hidden_size", "threads")

_PREFERRED = ("train_step", "loss_and_gradients", "forward", "stream")
_OF_ONE_TIME_STEP = ("time_steps", "batch")
"""The axes that a single time step does not depend on."""

_TimeSteps = Mapping[tuple[object, ...], int]
"""The time steps of each task and length, as far as they are known."""


@dataclass(frozen=True)
class ScalingLine:
    """The timings of one implementation along an axis.

    Attributes:
        points: (x, row), x ascending; rows without a timing are failures.
    """

    implementation: str
    points: tuple[tuple[int, SpeedRow], ...]

    @property
    def timed(self) -> tuple[tuple[int, SpeedRow], ...]:
        """The points with a timing."""
        return tuple(point for point in self.points if point[1].timed)

    @property
    def failed(self) -> tuple[tuple[int, SpeedRow], ...]:
        """The points without a timing."""
        return tuple(point for point in self.points if not point[1].timed)


@dataclass(frozen=True)
class ScalingPanel:
    """One cell and phase along one axis, everything else equal.

    Attributes:
        where: The sizes, task and budget; also the machine if there are several.
    """

    axis: str
    cell: str
    phase: str
    where: str
    lines: tuple[ScalingLine, ...]

    @property
    def xs(self) -> tuple[int, ...]:
        """The sizes at which anything was timed."""
        return tuple(sorted({x for line in self.lines for x, _ in line.timed}))


def scaling_panels(rows: Sequence[SpeedRow]) -> list[ScalingPanel]:
    """Return every panel with two points or more, by axis and cell."""
    steps: _TimeSteps = {
        (row.trial.task, row.trial.length): row.time_steps
        for row in rows
        if row.time_steps is not None
    }
    several = len({row.machine for row in rows}) > 1
    usable = [row for row in rows if row.timed or not row.phase]
    found = [panel for axis in AXES for panel in _panels(usable, axis, several, steps)]
    return [panel for panel in found if len(panel.xs) > 1]


def _panels(
    rows: Sequence[SpeedRow], axis: str, several: bool, steps: _TimeSteps
) -> Iterator[ScalingPanel]:
    keyed = group(rows, lambda row: (row.cell, _alike(row, axis, several)))
    for (cell, where), members in keyed.items():
        phases = {row.phase for row in members if row.timed}
        if axis in _OF_ONE_TIME_STEP:
            phases.discard("stream")
        for phase in sorted(phases, key=_rank):
            shown = [row for row in members if row.phase in (phase, "")]
            yield ScalingPanel(axis, cell, phase, where, _lines(shown, axis, steps))


def _rank(phase: str) -> tuple[int, str]:
    return rank(phase, _PREFERRED)


def chosen_panels(
    panels: Sequence[ScalingPanel], most: int
) -> tuple[list[ScalingPanel], int]:
    """Return at most `most` panels for each axis, and how many are left out.

    For each axis, one phase is chosen, and the panels with the most points: the last
    panel of each of several cells; of one cell the first, the last and some between.
    """
    kept: list[ScalingPanel] = []
    for members in group(panels, lambda p: p.axis).values():
        phase = min((p.phase for p in members), key=_rank)
        of_cells = group((p for p in members if p.phase == phase), lambda p: p.cell)
        longest = [_longest(of_cell) for of_cell in of_cells.values()]
        if len(longest) > 1:
            kept += [alike[-1] for alike in longest[:most]]
        else:
            kept += spread(longest[0], most)
    return kept, len(panels) - len(kept)


def _longest(panels: Sequence[ScalingPanel]) -> list[ScalingPanel]:
    def extent(panel: ScalingPanel) -> tuple[int, int]:
        return len(panel.xs), sum(bool(line.timed) for line in panel.lines)

    most = max(map(extent, panels))
    return [panel for panel in panels if extent(panel) == most]


def spread(items: Sequence[T], most: int) -> list[T]:
    """Return at most `most` items, evenly from the first to the last."""
    if len(items) <= most:
        return list(items)
    last = len(items) - 1
    return [items[round(i * last / max(most - 1, 1))] for i in range(most)]


def _x(row: SpeedRow, axis: str, steps: _TimeSteps) -> int | None:
    if axis == "time_steps":
        known = steps.get((row.trial.task, row.trial.length))
        return row.trial.time_steps or row.time_steps or known
    found = getattr(row.trial, axis)
    return found if isinstance(found, int) else None


def _alike(row: SpeedRow, axis: str, several: bool) -> str:
    trial = row.trial
    if axis == "threads":
        budget = budget_of(replace(trial, threads=1)).replace("1 thread · ", "")
    else:
        budget = budget_of(trial)
    on = [row.machine] if several and row.machine else []
    return " · ".join([*sizes_of(trial, axis), budget, *on])


def _lines(
    rows: Sequence[SpeedRow], axis: str, steps: _TimeSteps
) -> tuple[ScalingLine, ...]:
    found = []
    for name, members in group(rows, lambda r: r.implementation).items():
        # Of two timings at one x the later counts.
        at = {x: row for row in members if (x := _x(row, axis, steps)) is not None}
        points = tuple(sorted(at.items(), key=lambda point: point[0]))
        if points:
            found.append(ScalingLine(name, points))
    return tuple(found)
