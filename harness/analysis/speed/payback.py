"""After how many calls has an expensive first call paid off?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.grouping import group
from harness.analysis.speed.relative import comparable
from harness.analysis.speed.timings import SpeedRow


@dataclass(frozen=True)
class Payback:
    """One phase of one implementation, compared with the cheapest first call.

    Attributes:
        against: The certified row whose first two calls together take the least time,
            which may be this row; None if nothing is certified.
        calls: Number of calls, with the first one, after which both have taken the same
            time; None if that never happens, or if there is nothing to pay off.
        low: `calls` from the ends of both intervals that favour the row.
        high: From the other ends; None if it may never pay off.
    """

    row: SpeedRow
    against: SpeedRow | None
    calls: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def is_cheapest(self) -> bool:
        """Whether this is the row that the others are compared with."""
        return self.against is self.row


def paybacks(rows: Sequence[SpeedRow]) -> list[Payback]:
    """Return every timing with a first call, in the order of the rows.

    Rows of one heading, session, cell and phase are compared.
    """
    known = [row for row in rows if row.timed and row.first_call_s is not None]
    keyed = group(known, comparable)
    return [
        payback(row, _cheapest(members))
        for members in keyed.values()
        for row in members
    ]


def _cheapest(rows: Sequence[SpeedRow]) -> SpeedRow | None:
    certified = [row for row in rows if row.certified]
    return min(
        certified,
        key=lambda r: (r.first_call_s or 0.0) + (r.time_s or 0.0),
        default=None,
    )


def payback(row: SpeedRow, against: SpeedRow | None) -> Payback:
    """Return when `row` has taken no more time in all than `against`.

    n calls take first + (n - 1) · time, so n = 1 + (first - first') / (time' - time).
    The first calls are single readings, so the interval covers only the other times.
    """
    if against is None or against is row:
        return Payback(row, against)
    first, base = row.first_call_s, against.first_call_s
    assert first is not None
    assert base is not None
    extra = first - base
    calls = _calls(extra, against.seconds - row.seconds)
    if calls is None:
        return Payback(row, against)
    low = _calls(extra, against.span.high - row.span.low)
    high = _calls(extra, against.span.low - row.span.high)
    return Payback(row, against, calls, low, high)


def _calls(extra: float, gain: float) -> float | None:
    return 1 + max(extra, 0.0) / gain if gain > 0 else None
