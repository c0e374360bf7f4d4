"""Timed trials run alone on this machine, whichever commands of a user run there.

Two files are locked: the queue, then the machine. A single trial leaves the queue once
it shares the machine. A session stays at the head of the queue until the machine is
empty, so that no stream of other trials keeps it waiting for ever. The system releases
the locks of a process that dies.
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

TRIALS = "trials of another rnn-harness command on this machine"
TIMING = "the timing of another rnn-harness command on this machine"


@contextlib.contextmanager
def measuring(
    *, alone: bool, waits: Callable[[str | None], None], check: Callable[[], None]
) -> Iterator[None]:
    """Wait until a trial may be measured here, and hold the machine while it is.

    If no file can be locked, nobody waits.

    Args:
        alone: Whether nothing else may be measured meanwhile.
        waits: Called with what is waited for, and with None when that is over.
        check: Called again and again while it waits; what it raises ends the wait.
    """
    waited = False

    def take(file: IO[str]) -> None:
        nonlocal waited
        mode = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        while True:
            try:
                fcntl.flock(file, mode | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waited:
                    waited = True
                    waits(TRIALS if alone else TIMING)
                check()
                time.sleep(_LOOK_S)
                continue
            except OSError:  # a file system without locks
                pass
            return

    with contextlib.ExitStack() as opened:
        queue, machine = (_open(name, opened) for name in ("queue", "machine"))
        if queue is not None and machine is not None:
            take(queue)
            take(machine)
            if not alone:
                with contextlib.suppress(OSError):
                    fcntl.flock(queue, fcntl.LOCK_UN)
        if waited:
            waits(None)
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
