"""Threads and child processes that go on computing when nobody waits for them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

GRACE_S = 1.0
"""How long a new thread may go on. OpenMP's threads, for one, wait for work in a loop
for a while before they sleep."""

_WINDOW_S = 0.02
_BUSY = 0.25
"""A thread is busy in a window if it ran, or waited for a core, this part of it."""


class Left(NamedTuple):
    """A thread or child that goes on computing.

    Attributes:
        what: Its kind and name.
        asked: Who was asked for something when it was first seen.
    """

    what: str
    asked: str


class Threads:
    """The threads of this process: those of before, and those that came later.

    Only Linux says how long each has computed. Elsewhere none is found.

    Args:
        children: Whether child processes are watched like threads.
    """

    def __init__(self, *, children: bool = False) -> None:
        self._children = children
        self._known = _everyone(children)
        self._busy: set[Path] = set()
        self._seen: dict[Path, tuple[float, float]] = {}
        self._asked: dict[Path, str] = {}

    def left_computing(self, asked: str = "") -> list[Left]:
        """Return each thread and child that was started since and goes on computing.

        One that sleeps, or that ends or begins to sleep within `GRACE_S`, is not among
        them. A thread that was seen asleep is not looked at again. A child may only be
        starting, so it is looked at whenever it has computed for a part of the time.

        Args:
            asked: Who was asked for something since this was last called.
        """
        every = _everyone(self._children)
        self._known &= every
        self._seen = {child: self._seen[child] for child in self._seen.keys() & every}
        self._asked = {who: self._asked.get(who, asked) for who in every}
        new = every - self._known - self._busy
        woken = {child for child in [*self._seen] if self._has_run(child)}
        self._busy = _busy(self._busy & every) | _busy_after_grace(new | woken)
        self._known |= new - self._busy
        for child in new - self._busy:
            if child.parent != _TASKS:
                self._has_run(child)
        return sorted(Left(_named(who), self._asked[who]) for who in self._busy)

    def accept(self) -> None:
        """Take those that go on computing for some that were there before."""
        self._known |= self._busy
        for child in self._busy:
            self._seen.pop(child, None)
        self._busy = set()

    def _has_run(self, child: Path) -> bool:
        """Say whether a child has computed for a part of the time since the last look.

        The first look is remembered, and is no.
        """
        now = time.monotonic(), _runnable_s(child)
        before = self._seen.get(child, now)
        self._seen[child] = now
        passed_s, ran_s = (b - a for a, b in zip(before, now, strict=True))
        return ran_s > 0 and ran_s >= _BUSY * passed_s


def _busy_after_grace(threads: set[Path]) -> set[Path]:
    """Return those that are busy without a pause until `GRACE_S` is over."""
    end_s = time.monotonic() + GRACE_S
    while threads and time.monotonic() < end_s:
        threads = _busy(threads)
    return threads


def _busy(threads: set[Path]) -> set[Path]:
    """Return those that are busy in the next window."""
    if not threads:
        return threads
    before_s = {t: _runnable_s(t) for t in threads}
    begin_s = time.monotonic()
    time.sleep(_WINDOW_S)
    least_s = _BUSY * (time.monotonic() - begin_s)
    return {t for t in threads if _runnable_s(t) - before_s[t] >= least_s}


_TASKS = Path("/proc/self/task")


def _everyone(children: bool) -> set[Path]:
    """Return where the system describes each thread, and each child if asked for."""
    found = set()
    with contextlib.suppress(OSError):
        found = {*_TASKS.iterdir()}
    for thread in [*found] if children else ():
        with contextlib.suppress(OSError):  # it has ended, or the system does not say
            started = (thread / "children").read_text().split()
            found |= {Path("/proc", process) for process in started}
    return found


def _runnable_s(who: Path) -> float:
    """Return how long one has run or waited for a core; 0 if it has ended."""
    threads = [who]
    if who.parent != _TASKS:
        with contextlib.suppress(OSError):
            threads = [*(who / "task").iterdir()]
    return sum(map(_of_thread_s, threads))


def _of_thread_s(thread: Path) -> float:
    with contextlib.suppress(OSError, ValueError):
        ran, waited, _ = (thread / "schedstat").read_text().split()
        return (int(ran) + int(waited)) / 1e9
    return 0.0


def _named(who: Path) -> str:
    what = "thread" if who.parent == _TASKS else "process"
    return f"a {what} left computing ({_name(who)})"


def _name(who: Path) -> str:
    named: Iterable[threading.Thread] = threading.enumerate()
    for each in named:
        if who == _TASKS / str(each.native_id):
            return each.name
    with contextlib.suppress(OSError):
        return (who / "comm").read_text().strip()
    return who.name
