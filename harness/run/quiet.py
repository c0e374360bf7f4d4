"""Timed trials run alone on this machine, whichever commands of a user run there.

Two files are locked. Whoever measures passes the door and is in the room. A session
keeps the door shut while it waits until the room is empty, so that no stream of other
trials keeps it out for ever; the system opens both for whoever dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from harness.environment import user_cache

_LOOK_S = 0.05


@contextlib.contextmanager
def measuring(
    *, alone: bool, waits: Callable[[], None], check: Callable[[], None]
) -> Iterator[None]:
    """Wait until a trial may be measured here, and tell others while it is.

    Where no file can be locked, nobody waits.

    Args:
        alone: Whether nothing else may be measured meanwhile.
        waits: Called once, where there is somebody to wait for.
        check: Called again and again while that is so; what it raises ends the wait.
    """
    told = False

    def take(file: IO[str]) -> None:
        nonlocal told
        mode = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        while True:
            try:
                fcntl.flock(file, mode | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    told = True
                    waits()
                check()
                time.sleep(_LOOK_S)
                continue
            except OSError:  # a file system without locks
                pass
            return

    with _opened("door") as door, _opened("room") as room:
        if door is not None and room is not None:
            take(door)
            take(room)
            if not alone:
                with contextlib.suppress(OSError):
                    fcntl.flock(door, fcntl.LOCK_UN)
        yield


@contextlib.contextmanager
def _opened(name: str) -> Iterator[IO[str] | None]:
    file = _file(name)
    try:
        if file is None:
            stream = None
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            stream = file.open("a", encoding="utf-8")
    except OSError:
        stream = None
    if stream is None:
        yield None
        return
    with stream:
        yield stream


def _file(name: str) -> Path | None:
    """Return this machine's own file: several may share a home."""
    cache = user_cache()
    return None if cache is None else cache / f"{socket.gethostname()}-{name}.lock"
