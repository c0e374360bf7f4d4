"""How many cores this process and others keep busy while something is timed."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from harness.machine.descendants import descendants, of_threads

LEAST_S = 0.1
"""The shortest time over which load is computed. The system counts busy time in units
of 10 ms (1 / USER_HZ), so that on two idle cores the load over 50 ms has a standard
deviation of 0.13 cores, and over 100 ms of 0.02 cores."""

_BUSY = (0, 1, 2, 5, 6)
"""user, nice, system, irq and softirq of a `cpu` line. Idle, iowait and steal are not
busy, and guest time is part of user time."""

_TICKS = os.sysconf("SC_CLK_TCK")

_CPUCLOCK_SCHED = 2
"""Part of the number of a process's CPU clock: clock_getcpuclockid of Linux."""


@dataclass(frozen=True)
class _Look:
    wall_s: float
    busy_s: float | None
    own_s: float
    waited_s: float


class OtherLoad:
    """Counts the cores that other processes keep busy, and those of this process.

    This process includes its descendants. Only the time between `begin` and `end`
    counts, which is a turn: the timed work may take turns with other work.

    Reading the counts takes some 50 µs, and 10 µs for each further thread or child. It
    is outside the timed work.

    Args:
        root: The folder that holds `proc`.

    Attributes:
        readable: False if the system does not report it; `end` then returns 0.
        span_s: Seconds of timed work that the last result of `end` covers.
        own: Cores that this process kept busy in the last turn.
        waited_s: Seconds that the threads of this process waited for a core in the last
            turn; 0 if the system does not report it.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._proc = root / "proc"
        self._begun: _Look | None = None
        self._spans: deque[tuple[float, float]] = deque()
        self.readable = self._busy_s() is not None
        self.span_s = self.own = self.waited_s = 0.0

    def begin(self) -> None:
        """Record the processor time used so far."""
        self._begun = self._look()

    def end(self) -> float:
        """Return the cores that other processes kept busy since `begin`.

        A turn shorter than `LEAST_S` counts together with turns before it, which last
        `LEAST_S` with it. Before there are enough of them, the result is a lower bound.
        """
        begun, ended = self._begun, self._look()
        self._begun = None
        if begun is None:
            return 0.0
        wall_s, own_s = ended.wall_s - begun.wall_s, ended.own_s - begun.own_s
        self.own = own_s / wall_s if wall_s > 0 else 0.0
        self.waited_s = max(0.0, ended.waited_s - begun.waited_s)
        if begun.busy_s is None or ended.busy_s is None:
            return 0.0
        others_s = ended.busy_s - begun.busy_s - own_s
        self._spans.append((wall_s, others_s))
        self.span_s = sum(wall for wall, _ in self._spans)
        while self.span_s - self._spans[0][0] >= LEAST_S:
            self.span_s -= self._spans.popleft()[0]
        others_s = sum(others for _, others in self._spans)
        return max(0.0, others_s / max(self.span_s, LEAST_S))

    def _look(self) -> _Look:
        busy_s, waited_s = self._busy_s(), self._waited_s()
        return _Look(time.perf_counter(), busy_s, self._own_s(), waited_s)

    def _busy_s(self) -> float | None:
        """Return the busy seconds of all cores together since the system began."""
        try:
            with (self._proc / "stat").open("rb", buffering=0) as file:
                name, *words = file.read(256).split(b"\n")[0].split()
            ticks = [int(word) for word in words]
            if name != b"cpu" or not any(ticks):  # a sandbox may show zeros
                return None
            return sum(ticks[index] for index in _BUSY) / _TICKS
        except (OSError, ValueError, IndexError):
            return None

    def _waited_s(self) -> float:
        """Return the seconds that living threads waited for a core since they began."""
        waited_ns = 0
        with contextlib.suppress(ValueError, IndexError):
            for text in of_threads("self", "schedstat", self._proc):
                waited_ns += int(text.split()[1])
        return waited_ns / 1e9

    def _own_s(self) -> float:
        """Return the seconds that this process and all its descendants have used.

        Living descendants can be found if the kernel lists the children of threads
        (CONFIG_PROC_CHILDREN). Otherwise they count as other processes.
        """
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        living = descendants("self", self._proc) if _has_children() else ()
        living_s = sum(self._used_s(pid) for pid in living)
        return time.process_time() + ended.ru_utime + ended.ru_stime + living_s

    def _used_s(self, pid: str) -> float:
        """Return the seconds that a process and its ended children have used."""
        try:
            text = (self._proc / pid / "stat").read_text(encoding="utf-8")
            # The second word is a name in parentheses and may hold anything.
            words = text.rpartition(")")[2].split()
            own, ended = (
                sum(int(word) for word in words[place : place + 2]) / _TICKS
                for place in (11, 13)
            )
        except (OSError, ValueError):
            return 0.0
        with contextlib.suppress(OSError):  # a turn may be shorter than a tick
            own = time.clock_gettime(~int(pid) << 3 | _CPUCLOCK_SCHED)
        return own + ended


def _has_children() -> bool:
    """Say whether there are children: faster than listing those of every thread."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
