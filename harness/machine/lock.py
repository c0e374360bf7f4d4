"""Timed trials run alone on this machine, whichever commands of a user run there.

Two files are locked. Each trial locks the door, then the room, and holds the room while
it is measured. A timed session keeps the door locked while it waits for an empty room,
so that other trials cannot keep it waiting for ever. The system unlocks both files when
a process dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import time
from collections.abc import Callable, Iterator
from typing import IO

from harness.machine.cache import user_cache

_LOOK_S = 0.05


@contextlib.contextmanager
def measuring(
    *, alone: bool, waits: Callable[[], None], check: Callable[[], None]
) -> Iterator[None]:
    """Wait until a trial may be measured here, and make others wait during it.

    If no file can be locked, nobody waits.

    Args:
        alone: Whether nothing else may be measured meanwhile.
        waits: Called once, if the trial has to wait.
        check: Called again and again during the wait; an exception of it ends the wait.
    """
    waiting = False

    def take(file: IO[str]) -> None:
        nonlocal waiting
        mode = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        while True:
            try:
                fcntl.flock(file, mode | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waiting:
                    waiting = True
                    waits()
                check()
                time.sleep(_LOOK_S)
                continue
            except OSError:  # a file system without locks
                pass
            return

    with contextlib.ExitStack() as opened:
        door, room = (_open(name, opened) for name in ("door", "room"))
        if door is not None and room is not None:
            take(door)
            take(room)
            if not alone:
                with contextlib.suppress(OSError):
                    fcntl.flock(door, fcntl.LOCK_UN)
        yield


def _open(name: str, opened: contextlib.ExitStack) -> IO[str] | None:
    """Open this machine's own file: several machines may share a home folder."""
    cache = user_cache()
    if cache is None:
        return None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        file = cache / f"{socket.gethostname()}-{name}.lock"
        return opened.enter_context(file.open("a", encoding="utf-8"))
    except OSError:
        return None
