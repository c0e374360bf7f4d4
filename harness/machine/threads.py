"""Threads that go on computing when nobody waits for them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from pathlib import Path

GRACE_S = 1.0
"""How long a new thread may go on. OpenMP's threads, for one, wait for work in a loop
for a while before they sleep."""

_WINDOW_S = 0.02
_BUSY = 0.25
"""A thread is busy in a window if it ran, or waited for a core, this part of it."""


class Threads:
    """The threads of this process: those of before, and those that came later.

    Only Linux says how long a thread has computed. Elsewhere none is found.
    """

    def __init__(self) -> None:
        self._known = _ids()
        self._busy: set[int] = set()

    def left_computing(self) -> list[str]:
        """Name each thread that was started since and goes on computing.

        A thread that sleeps, or that ends or begins to sleep within `GRACE_S`, is not
        among them. One that was seen asleep is not looked at again.
        """
        every = _ids()
        self._known &= every
        new = every - self._known - self._busy
        self._busy = _busy(self._busy & every) | _busy_after_grace(new)
        self._known |= new - self._busy
        return [
            f"a thread left computing ({n})" for n in sorted(map(_name, self._busy))
        ]


def _busy_after_grace(threads: set[int]) -> set[int]:
    """Return those that are busy without a pause until `GRACE_S` is over."""
    end_s = time.monotonic() + GRACE_S
    while threads and time.monotonic() < end_s:
        threads = _busy(threads)
    return threads


def _busy(threads: set[int]) -> set[int]:
    """Return those that are busy in the next window."""
    if not threads:
        return threads
    before_s = {t: _runnable_s(t) for t in threads}
    begin_s = time.monotonic()
    time.sleep(_WINDOW_S)
    least_s = _BUSY * (time.monotonic() - begin_s)
    return {t for t in threads if _runnable_s(t) - before_s[t] >= least_s}


_TASKS = Path("/proc/self/task")


def _ids() -> set[int]:
    with contextlib.suppress(OSError):
        return {int(task.name) for task in _TASKS.iterdir()}
    return set()


def _runnable_s(thread: int) -> float:
    """Return how long a thread has run or waited for a core; 0 if it has ended."""
    with contextlib.suppress(OSError, ValueError):
        ran, waited, _ = (_TASKS / str(thread) / "schedstat").read_text().split()
        return (int(ran) + int(waited)) / 1e9
    return 0.0


def _name(thread: int) -> str:
    named: Iterable[threading.Thread] = threading.enumerate()
    for each in named:
        if each.native_id == thread:
            return each.name
    with contextlib.suppress(OSError):
        return (_TASKS / str(thread) / "comm").read_text().strip()
    return str(thread)
