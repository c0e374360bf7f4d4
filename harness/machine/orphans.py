"""Processes that outlive their parent, and how they end nevertheless.

A process may leave its parent, its session and its group, and clear its environment.
Its nearest ancestor that called `adopt_orphans` then becomes its parent, and finds it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time

from harness.machine.descendants import descendants

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_MOST_S = 5.0
"""How long processes are looked for that others start meanwhile."""


def adopt_orphans() -> None:
    """Become the parent of all orphans among the descendants of this process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(by: signal.Signals = signal.SIGKILL) -> None:
    """Let the kernel send a signal when the thread that started this process ends."""
    _prctl(_PR_SET_PDEATHSIG, by)


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):  # Linux alone can do this
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def end_descendants(pid: int) -> None:
    """Kill the processes below a process, also those that start meanwhile.

    What is killed may have started another one just before. That one is below `pid` as
    well, if `pid` adopts orphans.
    """
    deadline_s = time.monotonic() + _MOST_S
    killed: list[str] | None = None
    while (found := descendants(str(pid))) != killed and time.monotonic() < deadline_s:
        for one in found:
            with contextlib.suppress(OSError):
                os.kill(int(one), signal.SIGKILL)
        killed = found
