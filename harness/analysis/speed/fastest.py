"""Which implementation is the fastest certified one, at each batch and hidden size?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.grouping import group
from harness.analysis.speed.conditions import sizes_of
from harness.analysis.speed.relative import fastest_of, ratio
from harness.analysis.speed.timings import SpeedRow, phase_order
from harness.intervals import Interval
from harness.trial import Conditions


@dataclass(frozen=True)
class Spot:
    """The fastest implementations at one batch and hidden size.

    Attributes:
        batch: 1 for single time steps, whatever the batch of the trial.
        certified: Certified implementations that were compared, the fastest first.
        equals: The first of them, and all that cannot be distinguished from it; one
            name if the first wins.
        ratio: Time of the runner-up over that of the first; None if there is none.
        interval: The 95 % interval of `ratio`.
        faster_uncertified: Uncertified ones with a smaller time; they never win.
        uncertified: Every uncertified one that was timed here.
        failures: (implementation, outcome) of those without a timing.
        shaky: Whether the timing of the first is shaky.
        runner_up_shaky: Whether the timing of the runner-up is shaky.
        framework: The library of the first.
        kernel: What ran in the first.
    """

    batch: int | None
    hidden_size: int | None
    certified: tuple[str, ...]
    equals: tuple[str, ...]
    ratio: float | None
    interval: Interval | None
    time_s: float | None
    faster_uncertified: tuple[str, ...]
    uncertified: tuple[str, ...]
    failures: tuple[tuple[str, str], ...]
    shaky: bool
    runner_up_shaky: bool
    session: str | None
    framework: str | None = None
    kernel: str | None = None

    @property
    def winner(self) -> str | None:
        """The only fastest implementation, or None."""
        return self.equals[0] if len(self.equals) == 1 else None

    @property
    def runner_up(self) -> str | None:
        """The second certified implementation, or None."""
        return self.certified[1] if len(self.certified) > 1 else None


@dataclass(frozen=True)
class FastestMap:
    """The spots of one cell and phase with equal conditions.

    Attributes:
        where: Task and length, or the input's sizes, and layers.
    """

    cell: str
    phase: str
    where: str
    conditions: Conditions
    spots: tuple[Spot, ...]

    @property
    def is_map(self) -> bool:
        """Whether several sizes were timed."""
        return len(self.spots) > 1


def fastest_maps(rows: Sequence[SpeedRow]) -> list[FastestMap]:
    """Return a map per cell, phase, input and conditions, phases in their order.

    Implementations are compared within one session only; of several, the latest.
    """
    phases = {row.phase for row in rows if row.timed}
    found = [each for phase in phases for each in _maps(rows, phase)]
    cells = list(dict.fromkeys(row.cell for row in rows))
    return sorted(found, key=lambda m: (cells.index(m.cell), phase_order(m.phase)))


def _maps(rows: Sequence[SpeedRow], phase: str) -> list[FastestMap]:
    shown = [row for row in rows if row.phase in (phase, "")]
    asked = group(shown, lambda r: (r.cell, _where(r, phase), r.conditions))
    return [
        FastestMap(cell, phase, where, alike, _spots(members, phase))
        for (cell, where, alike), members in asked.items()
        if any(row.timed for row in members)
    ]


def _where(row: SpeedRow, phase: str) -> str:
    """Return the input and the layers; a single time step is one of any number."""
    single = () if row.trial.task or phase != "stream" else ("time_steps",)
    return " · ".join(sizes_of(row.trial, "batch", "hidden_size", *single))


def _spots(rows: Sequence[SpeedRow], phase: str) -> tuple[Spot, ...]:
    alone = phase == "stream"
    sizes = group(rows, lambda r: (1 if alone else r.trial.batch, r.trial.hidden_size))
    order = sorted(sizes, key=lambda size: (size[0] or 0, size[1] or 0))
    return tuple(_spot(*size, _latest(sizes[size])) for size in order)


def _latest(rows: Sequence[SpeedRow]) -> list[SpeedRow]:
    """Return the rows of the last session that timed something certified.

    Implementations that no session timed have failed, and are shown with every session.
    """
    sessions = list(group(rows, lambda r: (r.trial.session, r.session)).values())
    useful = [s for s in sessions if any(r.certified and r.timed for r in s)]
    chosen = (useful or sessions)[-1]
    timed = [row for row in rows if row.timed]
    known = {row.implementation for row in [*chosen, *timed]}
    return [*chosen, *(row for row in rows if row.implementation not in known)]


def _spot(batch: int | None, hidden_size: int | None, rows: Sequence[SpeedRow]) -> Spot:
    timed = sorted((r for r in rows if r.timed), key=lambda r: r.time_s or 0.0)
    by_name = group((r for r in timed if r.certified), lambda r: r.implementation)
    certified = [of_one[0] for of_one in by_name.values()]  # the first of several
    doubted = [row for row in timed if not row.certified]
    first = fastest_of(certified)
    certified.sort(key=lambda row: row is not first)
    over = [None if first is None else ratio(first, row) for row in certified]
    equals = [
        row
        for row, found in zip(certified, over, strict=True)
        if row is first or found is None or not found.is_slower
    ]
    second = over[1] if len(over) > 1 else None
    least = first.time_s if first else None
    return Spot(
        batch=batch,
        hidden_size=hidden_size,
        certified=_names(certified),
        equals=_names(equals),
        ratio=second.value if second else None,
        interval=second.interval if second else None,
        time_s=least,
        faster_uncertified=_names(
            [r for r in doubted if least is not None and (r.time_s or 0.0) < least]
        ),
        uncertified=_names(doubted),
        failures=tuple(
            (row.implementation, row.outcome if row.outcome != "ok" else "no timing")
            for row in rows
            if not row.phase
        ),
        shaky=first is not None and first.shaky,
        runner_up_shaky=len(certified) > 1 and certified[1].shaky,
        session=rows[0].session,
        framework=first.framework if first else None,
        kernel=first.kernel if first else None,
    )


def _names(rows: Sequence[SpeedRow]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.implementation for row in rows))
