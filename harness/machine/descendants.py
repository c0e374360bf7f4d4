"""The processes below a process, as the kernel lists the children of threads.

To go through all processes takes longer than one may live that starts the next.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")


def of_threads(pid: str, name: str, proc: Path = PROC) -> Iterator[bytes]:
    """Yield the text of a file of each thread, up to one that cannot be read."""
    tasks = f"{proc}/{pid}/task"
    with contextlib.suppress(OSError):
        for task in os.listdir(tasks):  # noqa: PTH208
            with open(f"{tasks}/{task}/{name}", "rb", buffering=0) as file:  # noqa: PTH123
                text = file.read()
            yield text


def descendants(pid: str, proc: Path = PROC) -> list[str]:
    """Return the ids of the processes below a process, zombies among them."""
    found, parents = [], [pid]
    while parents:
        for text in of_threads(parents.pop(), "children", proc):
            children = text.decode().split()
            found += children
            parents += children
    return found
