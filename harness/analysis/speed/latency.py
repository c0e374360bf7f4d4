"""How long a user of single time steps waits, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.intervals import Interval, fewest_to_enclose, percentile_intervals
from harness.measure.speed.results import LATENCIES

SHARES = tuple(LATENCIES.values())


@dataclass(frozen=True)
class Latency:
    """Percentiles in seconds, with their 95 % intervals.

    Attributes:
        few: Whether the latencies are too few to enclose p99.
    """

    p50_s: float
    p95_s: float | None
    p99_s: float | None
    p50: Interval | None = None
    p95: Interval | None = None
    p99: Interval | None = None
    few: bool = False


def latency(
    found: Sequence[float | None], sample: Sequence[float], turns: int
) -> Latency | None:
    """Return percentiles with intervals; None if there is no p50.

    Args:
        found: The percentiles of `SHARES`, computed from all latencies.
        sample: Latencies in order, the same number from each turn.
        turns: Number of turns.
    """
    middle, p95_s, p99_s = found
    if middle is None:
        return None
    pairs = list(zip(SHARES, found, strict=True))
    p50, p95, p99 = percentile_intervals(pairs, sample, turns)
    few = 0 < len(sample) < fewest_to_enclose(SHARES[-1])
    return Latency(middle, p95_s, p99_s, p50, p95, p99, few)
