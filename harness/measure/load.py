"""How many cores other processes keep busy while something is timed."""

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


@dataclass(frozen=True)
class _Look:
    wall_s: float
    busy_s: float
    own_s: float


class OtherLoad:
    """Cores of this machine that neither this process nor its descendants keep busy.

    Between `begin` and `end` something is timed. What is in between is left out, so
    that others may take turns with it.

    A look costs some 50 µs, more where there are children; it is outside what is timed.

    Args:
        root: The folder that holds `proc`.

    Attributes:
        readable: False where the system does not tell; `end` then answers 0.
        span_s: Seconds of timed work that the last answer is about.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._proc = root / "proc"
        self._begun: _Look | None = None
        self._spans: deque[tuple[float, float]] = deque()
        self.readable = self._look() is not None
        self.span_s = 0.0

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
        if begun is None or ended is None:
            return 0.0
        wall_s = ended.wall_s - begun.wall_s
        others_s = ended.busy_s - begun.busy_s - (ended.own_s - begun.own_s)
        self._spans.append((wall_s, others_s))
        self.span_s = sum(wall for wall, _ in self._spans)
        while self.span_s - self._spans[0][0] >= LEAST_S:
            self.span_s -= self._spans.popleft()[0]
        others_s = sum(others for _, others in self._spans)
        return max(0.0, others_s / max(self.span_s, LEAST_S))

    def _look(self) -> _Look | None:
        busy_s = self._busy_s()
        if busy_s is None:
            return None
        return _Look(time.perf_counter(), busy_s, self._own_s())

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
            return sum(int(word) for word in words[11:15]) / _TICKS
        except (OSError, ValueError):
            return 0.0


def _has_children() -> bool:
    """Ask with one call what listing them takes a file for every thread."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
