"""The output of workers: every byte is read, and a bounded part of it is kept."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable
from pathlib import Path

from harness.files.log import HEAD_BYTES, TAIL_BYTES, append_bounded, left_out
from harness.files.opening import OddFileError

_CHUNK = 1 << 16
_MOST_CHUNKS = 32
"""More than a pipe holds; reading ends here if a child never stops printing."""

Write = Callable[[bytes], None]


def append_to(file: Path) -> Write:
    """Return a function that appends to a file, which is opened for each write.

    Nothing is written if the folder is gone, or if something else has the file's name.
    """

    def write(data: bytes) -> None:
        gone = (FileNotFoundError, NotADirectoryError, IsADirectoryError, OddFileError)
        with contextlib.suppress(*gone):
            append_bounded(file, data)

    return write


class LogPump:
    """Reads a pipe on a thread and passes its bytes to a listener.

    Each listener gets the first `HEAD_BYTES` and the last `TAIL_BYTES`: a plugin that
    never stops printing must not fill the memory.

    Args:
        source: The read end of a pipe; it is closed when the other end is.
        write: The listener while there is no other.
    """

    def __init__(self, source: int, write: Write) -> None:
        self._source = source
        self._default = write
        self._lock = threading.Lock()
        self._listener = _Bounded(write)
        self._open = True
        threading.Thread(target=self._pump, daemon=True).start()

    def listen(self, write: Write | None) -> None:
        """Pass what is printed from now on to a listener; None is the default one.

        The previous listener still gets everything that was printed before.
        """
        with self._lock:
            for _ in range(_MOST_CHUNKS):
                if not self._open or not _is_readable(self._source, 0):
                    break
                self._read()
            self._listener.finish()
            self._listener = _Bounded(write or self._default)

    def _pump(self) -> None:
        while self._open:
            if _is_readable(self._source, 500):
                with self._lock:
                    if self._open and _is_readable(self._source, 0):
                        self._read()

    def _read(self) -> None:
        data = os.read(self._source, _CHUNK)
        if data:
            self._listener.write(data)
            return
        self._open = False
        os.close(self._source)
        self._listener.finish()


class _Bounded:
    """Passes the head of a stream on, keeps its tail, and drops what is between."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._left = HEAD_BYTES
        self._tail = b""
        self._dropped = 0

    def write(self, data: bytes) -> None:
        head, rest = data[: self._left], data[self._left :]
        if head:
            self._pass_on(head)
            self._left -= len(head)
        self._tail += rest
        self._dropped += max(0, len(self._tail) - TAIL_BYTES)
        self._tail = self._tail[-TAIL_BYTES:]

    def finish(self) -> None:
        if self._dropped:
            self._pass_on(left_out(self._dropped))
        if self._tail:
            self._pass_on(self._tail)
        self._tail, self._dropped = b"", 0

    def _pass_on(self, data: bytes) -> None:
        # The next commit reports a full disk; a worker must not wait for it here.
        with contextlib.suppress(OSError):
            self._write(data)


def _is_readable(source: int, wait_ms: int) -> bool:
    poll = select.poll()
    poll.register(source, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(wait_ms))
