"""The table of how long one time step takes, the longest included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.analysis.grouping import group
from harness.analysis.speed.conditions import budget_of
from harness.analysis.speed.latency import SHARES
from harness.analysis.speed.timings import SpeedRow
from harness.analysis.summary import Summary
from harness.intervals import fewest_to_enclose
from harness.report.tables.form import Column, Table, ends, keys, table, through
from harness.report.tables.timings import CELL, MARKED, RAN, shaky, titled, tone
from harness.report.text import NOTHING, seconds

COLUMNS: Sequence[Column[SpeedRow]] = (
    CELL,
    MARKED,
    Column("p50", lambda row: shaky(row) + _waited(row, "p50"), "r"),
    Column("p95", lambda row: _waited(row, "p95"), "r"),
    Column("p99", lambda row: ("few " if _few(row) else "") + _waited(row, "p99"), "r"),
    Column("longest", lambda r: seconds(max(r.latency_sample_s, default=None)), "r"),
    Column("kept", lambda row: str(len(row.latency_sample_s) or NOTHING), "r"),
    *RAN,
)


def latency_table(summary: Summary) -> Table:
    """Return how long a user of single time steps waits."""
    notes = (
        "One time step at batch 1 with the state carried, each timed alone: half of "
        "the steps take p50 at most, 1 of 20 takes longer than p95, 1 of 100 longer "
        "than p99. [ ]: 95 % intervals from resampled turns, since steps of one turn "
        "see the same state of the machine; there are none with fewer than 6 turns. "
        f"Few: fewer than the {fewest_to_enclose(SHARES[-1])} latencies that an "
        "interval of p99 needs. Kept: how many latencies are stored, evenly from all; "
        "longest: the longest of these.",
    )
    return table(
        "latency",
        "Latency of one time step",
        through(lambda pair: pair[1], COLUMNS),
        _titled(summary),
        keys=lambda pair: keys(pair[1]),
        tone=lambda pair: "doubt" if _few(pair[1]) else tone(pair[1]),
        block=lambda pair: pair[0],
        notes=notes,
    )


def _titled(summary: Summary) -> Iterator[tuple[str, SpeedRow]]:
    """Return the rows with a latency, each with the title of its block.

    A single time step is timed at batch 1, whatever the batch and the time steps of its
    trial are. Of rows that differ in these alone, the latest is shown, as in the
    figure, and the title says so.
    """
    rows = [row for row in summary.speed if row.latency is not None]
    for title, members in group(rows, _step_title).items():
        latest = {(row.cell, row.implementation): row for row in members}
        if len(latest) < len(members):
            title += f" · the latest of those timed beside {_sizes(members)}"
        yield from ((title, row) for row in latest.values())


def _step_title(row: SpeedRow) -> str:
    return titled(row.heading.without("batch", "time steps"), budget_of(row.trial))


def _sizes(rows: Sequence[SpeedRow]) -> str:
    """Return "batch 1, 64 and time steps 100"."""
    batches = dict.fromkeys(str(row.trial.batch) for row in rows)
    steps = dict.fromkeys(str(row.trial.time_steps) for row in rows)
    return f"batch {', '.join(batches)} and time steps {', '.join(steps)}"


def _few(row: SpeedRow) -> bool:
    return row.latency is not None and row.latency.few


def _waited(row: SpeedRow, name: str) -> str:
    found = row.latency
    return seconds(getattr(found, f"{name}_s")) + ends(getattr(found, name), seconds)
