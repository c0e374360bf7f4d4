"""What is seen of a machine while a fixed piece of work is repeated on it.

A value that cannot be read is None, and never counts as good.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.intervals import median, median_interval, quantiles
from harness.machine.clock import ClockCheck, no_garbage_collection
from harness.machine.load import OtherLoad
from harness.machine.system import System

WATCH_S = 1.5
"""Long enough for 150 of the system's ticks of 10 ms and for 1500 readings."""

_TURNS = 15
"""Parts of that time; the clocks are read after each."""


@dataclass(frozen=True)
class Machine:
    """What was seen of a machine during the work; a value is None if not readable.

    Attributes:
        clock_wrong: Whether the clock stepped or ran at another rate than the raw one.
        work_s: Median time of the fixed piece of work.
        work_spread: 95th percentile / median - 1.
        work_interval: Width of the median's 95 % interval, as a share of the median.
        cores: Cores of the machine.
        allowed_cores: Cores that this process may use.
        quota_cores: Processor time that its control group may use, in cores; without a
            limit it is the number of cores.
        quota_stops: Periods in which the group was stopped because of its quota.
        load_average: Runnable processes over the last minute.
        other_load: Cores that other processes kept busy.
        steal: Share of all cores' time that a hypervisor gave to other machines.
        swap_used_bytes: Memory that is on a disk.
        swap_ins: Pages that came back from the disk.
        swap_outs: Pages that were written to the disk.
        governor: What sets the cores' clock; several are joined by commas.
        boost: Whether a core may exceed its nominal clock.
        clock_hz: Highest clock of a core, the median over several readings.
        clock_spread: Range of this clock, as a share of its highest value.
        throttled: How often heat slowed a core or a processor.
    """

    clock_wrong: bool
    work_s: float
    work_spread: float
    work_interval: float
    cores: int | None = None
    allowed_cores: int | None = None
    quota_cores: float | None = None
    quota_stops: int | None = None
    load_average: float | None = None
    other_load: float | None = None
    steal: float | None = None
    swap_used_bytes: int | None = None
    swap_ins: int | None = None
    swap_outs: int | None = None
    governor: str | None = None
    boost: bool | None = None
    clock_hz: float | None = None
    clock_spread: float | None = None
    throttled: int | None = None

    @property
    def not_readable(self) -> tuple[str, ...]:
        """Names of what could not be read."""
        return tuple(name for name, value in vars(self).items() if value is None)


def fixed_work() -> None:
    """Compute for about a millisecond, with no more memory than the first cache."""
    total = 0
    for number in range(30_000):
        total += number * number


def watch_machine(
    root: Path = Path("/"),
    *,
    duration_s: float = WATCH_S,
    work: Callable[[], None] = fixed_work,
) -> Machine:
    """Repeat a piece of work and return what was seen of the machine meanwhile.

    Args:
        root: The folder that holds `proc` and `sys`.
        duration_s: How long the work is repeated.
        work: The piece of work.
    """
    system = System(root)
    load, clock = OtherLoad(root), ClockCheck()
    clocks_hz = [system.clock_hz()]
    turns: list[list[float]] = []
    work()
    with no_garbage_collection():
        before = system.counters()
        load.begin()
        for _ in range(_TURNS):
            turns.append(_turn(work, duration_s / _TURNS))
            clock.look()
            clocks_hz.append(system.clock_hz())
        other_load = load.end() if load.readable else None
        after = system.counters()
    return Machine(
        clock_wrong=clock.wrong,
        other_load=other_load,
        **_of_work(turns),
        **_of_clocks([hz for hz in clocks_hz[1:] if hz is not None]),
        **_between(before, after),
        **system.settings(),
    )


def _turn(work: Callable[[], None], duration_s: float) -> list[float]:
    """Return the seconds of every repetition."""
    readings = []
    begun_s = last_s = time.perf_counter()
    while last_s - begun_s < duration_s:
        work()
        now_s = time.perf_counter()
        readings.append(now_s - last_s)
        last_s = now_s
    return readings


def _of_work(turns: list[list[float]]) -> dict[str, Any]:
    every = np.concatenate(turns)
    usual_s, slow_s = quantiles(every, 0.5, 0.95).tolist()
    return {
        "work_s": usual_s,
        "work_spread": slow_s / usual_s - 1,
        "work_interval": median_interval(turns).width,
    }


def _of_clocks(seen_hz: list[float]) -> dict[str, Any]:
    if not seen_hz:
        return {}
    highest = max(seen_hz)
    spread = (highest - min(seen_hz)) / highest
    return {"clock_hz": median(seen_hz), "clock_spread": spread}


def _between(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, Any]:
    """Return how far counters advanced, without those that were reset meanwhile."""
    passed = {n: after[n] - before[n] for n in before.keys() & after.keys()}
    passed = {name: count for name, count in passed.items() if count >= 0}
    steal, total = passed.pop("steal", None), passed.pop("total", 0)
    share = {"steal": steal / total} if steal is not None and total else {}
    return {**passed, **share}
