"""How many cores this process and others keep busy while something is timed."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LEAST_S = 0.1
"""The shortest span that is answered for: the system counts busy time in units of 10 ms
(1 / USER_HZ), so that over 50 ms idle company reads as 0.13 cores and over 100 ms as
0.02 (standard deviations on two cores)."""

_BUSY = (0, 1, 2, 5, 6)
"""user, nice, system, irq and softirq of a `cpu` line: neither idle, iowait nor steal,
and guest time is within user."""

_TICKS = os.sysconf("SC_CLK_TCK")

_CPUCLOCK_SCHED = 2
"""Of a process, in the number of a clock: clock_getcpuclockid of Linux."""


@dataclass(frozen=True)
class _Look:
    wall_s: float
    busy_s: float | None
    own_s: float
    aside_s: float


class OtherLoad:
    """Cores of this machine that neither this process nor its descendants keep busy.

    And beside them the cores that these do.

    Between `begin` and `end` something is timed. What is in between is left out, so
    that others may take turns with it.

    A look costs some 50 µs, and 10 µs for each further thread or child; it is outside
    what is timed.

    Args:
        root: The folder that holds `proc`.

    Attributes:
        readable: False where the system does not tell; `end` then answers 0.
        span_s: Seconds of timed work that the last answer is about.
        own: Cores that this process and its descendants kept busy, in the last turn
            alone.
        aside_s: Seconds that the threads of this process waited for a core, in the last
            turn alone; 0 where the system does not tell.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._proc = root / "proc"
        self._begun: _Look | None = None
        self._spans: deque[tuple[float, float]] = deque()
        self.readable = self._busy_s() is not None
        self.span_s = self.own = self.aside_s = 0.0

    def begin(self) -> None:
        """Take note of what has been used so far."""
        self._begun = self._look()

    def end(self) -> float:
        """Return the cores that others kept busy since `begin`.

        A turn shorter than `LEAST_S` is answered for together with the turns before it,
        as many as make up `LEAST_S`. While there are not enough of them yet, the answer
        is a lower bound.
        """
        begun, ended = self._begun, self._look()
        self._begun = None
        if begun is None:
            return 0.0
        wall_s, own_s = ended.wall_s - begun.wall_s, ended.own_s - begun.own_s
        self.own = own_s / wall_s if wall_s > 0 else 0.0
        self.aside_s = max(0.0, ended.aside_s - begun.aside_s)
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
        busy_s, aside_s = self._busy_s(), self._aside_s()
        return _Look(time.perf_counter(), busy_s, self._own_s(), aside_s)

    def _busy_s(self) -> float | None:
        """Return the seconds that all cores together were busy since the start."""
        try:
            with (self._proc / "stat").open("rb", buffering=0) as file:
                name, *words = file.read(256).split(b"\n")[0].split()
            ticks = [int(word) for word in words]
            if name != b"cpu" or not any(ticks):  # a sandbox may show zeros
                return None
            return sum(ticks[index] for index in _BUSY) / _TICKS
        except (OSError, ValueError, IndexError):
            return None

    def _aside_s(self) -> float:
        """Return what the threads that live waited for a core, since they began."""
        tasks, waited_ns = f"{self._proc}/self/task", 0
        with contextlib.suppress(OSError, ValueError, IndexError):
            for task in os.listdir(tasks):  # noqa: PTH208
                with open(f"{tasks}/{task}/schedstat", "rb", buffering=0) as file:  # noqa: PTH123
                    waited_ns += int(file.read().split()[1])
        return waited_ns / 1e9

    def _own_s(self) -> float:
        """Return what this process and all it started have used, the ended ones too.

        Descendants that live are known where the kernel lists a thread's children
        (CONFIG_PROC_CHILDREN); elsewhere they count as others.
        """
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        living = self._descendants("self") if _has_children() else ()
        living_s = sum(self._used_s(pid) for pid in living)
        return time.process_time() + ended.ru_utime + ended.ru_stime + living_s

    def _descendants(self, pid: str) -> Iterator[str]:
        tasks = f"{self._proc}/{pid}/task"
        with contextlib.suppress(OSError):
            for task in os.listdir(tasks):  # noqa: PTH208
                with open(f"{tasks}/{task}/children", "rb", buffering=0) as file:  # noqa: PTH123
                    children = file.read().decode().split()
                for child in children:
                    yield child
                    yield from self._descendants(child)

    def _used_s(self, pid: str) -> float:
        """Return what a process used, with its own children that have ended."""
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
        with contextlib.suppress(OSError):  # ticks are longer than a turn may be
            own = time.clock_gettime(~int(pid) << 3 | _CPUCLOCK_SCHED)
        return own + ended


def _has_children() -> bool:
    """Ask with one call what listing them takes a file for every thread."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
