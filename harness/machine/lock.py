"""The lock with which timed trials of all a user's commands run alone on a machine.

Two files are locked: first the queue, then the machine. A trial that is not timed
unlocks the queue as soon as it shares the machine. A session keeps the queue locked
until the machine is free, so that later trials cannot overtake it. The system releases
the locks of a process that dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import time
from collections.abc import Callable, Iterator
from typing import IO

from harness.files.opening import opened_to_append
from harness.machine.cache import user_cache

_LOOK_S = 0.05

TRIALS = "trials of another rnn-harness command on this machine"
TIMING = "the timing of another rnn-harness command on this machine"


@contextlib.contextmanager
def measuring(
    *, alone: bool, waits: Callable[[str | None], None], check: Callable[[], None]
) -> Iterator[None]:
    """Wait until a trial may be measured here, and lock the machine until it ends.

    If no file can be locked, nobody waits.

    Args:
        alone: Whether nothing else may be measured meanwhile.
        waits: Called with the reason for waiting, and with None when the wait is over.
        check: Called repeatedly during the wait; an exception of it ends the wait.
    """
    waited = False

    def take(file: IO[bytes]) -> None:
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


def _open(name: str, opened: contextlib.ExitStack) -> IO[bytes] | None:
    """Open this machine's own file: several machines may share a home folder.

    Nothing is written to it. None if something else has its name, such as a link.
    """
    cache = user_cache()
    if cache is None:
        return None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        file = cache / f"{socket.gethostname()}-{name}.lock"
        return opened.enter_context(opened_to_append(file))
    except OSError:
        return None
