"""The table of timings: how long a call takes, and what was seen beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.analysis.grouping import group
from harness.analysis.speed.conditions import budget_of
from harness.analysis.speed.timings import PLACEMENT, SpeedRow
from harness.analysis.summary import Summary
from harness.printing import one_line
from harness.report.tables.form import Column, Table, ends
from harness.report.tables.timings import CELL, NAME, PHASE, RAN, timing, timing_table
from harness.report.text import times, verdict

COLUMNS: Sequence[Column[SpeedRow]] = (
    CELL,
    NAME,
    PHASE,
    Column("time of a call", timing, "r"),
    Column("× fastest", lambda row: _relative(row), "r"),
    *RAN,
    Column("certified", lambda r: verdict(r.doubt) if r.phase else _failure(r)),
)


def speed_table(summary: Summary) -> Table:
    """Return every timing, uncertified ones marked."""
    notes = [
        "Medians over turns, with intervals of 95 %, wider where turns follow each "
        "other (87 to 96 % in simulations of sessions that stop once an interval is "
        "narrow). × fastest: the time divided "
        "by that of the fastest certified implementation, within one session and round "
        "by round, so that a slow round of the machine counts in both; “rounds "
        "disagree” means that no implementation is the fastest in every comparison. A "
        "call of stream is one time step at batch 1. Kernel: what was seen to run."
    ]
    if any(row.phase == PLACEMENT for row in summary.speed):
        notes.append(
            "Place: moving a batch to the device, which no other timing includes."
        )
    notes += [*_compiled(summary), *_fitness(summary)]
    return timing_table(
        "speed", "Timings", COLUMNS, summary.speed, lambda row: row, notes
    )


def _failure(row: SpeedRow) -> str:
    """Return why a trial has no timing."""
    return f"{row.outcome.replace('_', ' ')}: {row.reason or 'no timing'}"


def _relative(row: SpeedRow) -> str:
    """Return × fastest, and whether a certified row is faster than the fastest."""
    words = times(row.relative) + ends(row.relative_interval, times)
    below = row.certified and (row.relative or 1.0) < 0.995
    return f"{words} (rounds disagree)" if below else words


def _compiled(summary: Summary) -> list[str]:
    """Return the flags that XLA compiled with, and for which implementations."""
    groups = group(summary.speed, lambda row: row.xla_flags)
    return [
        one_line(f"XLA compiled {', '.join(_names(rows))} with {flags}.")
        for flags, rows in groups.items()
        if flags
    ]


def _names(rows: Iterable[SpeedRow]) -> list[str]:
    """Name implementations and their conditions."""
    groups = group(rows, lambda row: budget_of(row.trial))
    return [
        f"{' and '.join(dict.fromkeys(r.implementation for r in members))} ({budget})"
        for budget, members in groups.items()
    ]


def _fitness(summary: Summary) -> list[str]:
    """Return why machines were not fit, a sentence for each machine."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for row in summary.speed:
        if row.fitness and row.fitness.verdict != "fit":
            name = row.machine or "the machine", row.fitness.verdict
            # One reason of each kind: every session measures the load again.
            kinds = {reason.kind: reason.words for reason in row.fitness.reasons}
            found.setdefault(name, {}).update(kinds)
    said = []
    for (machine, how), kinds in found.items():
        why = f": {'; '.join(kinds.values())}" if kinds else ""
        said.append(one_line(f"Before a session {machine} was {how}{why}."))
    return said
