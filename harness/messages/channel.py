"""One end of two pipes, which belongs to one process alone.

A plugin may fork, as loaders of data do, and both processes may go on. Only the process
that made a channel may use it; a copy of it ends when it tries.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import IO

from harness.messages.pipe import Message, receive, send


class Channel:
    """Receives from one pipe and sends on another.

    Args:
        source: What to receive from.
        target: What to send on.
    """

    def __init__(self, source: IO[bytes], target: IO[bytes]) -> None:
        self._source, self._target = source, target
        self._pipe = _opened(target)
        self._owner = os.getpid()
        os.register_at_fork(after_in_child=self._close_copies)

    @classmethod
    def of(cls, source: int, target: int) -> Channel:
        """Return a channel of two descriptors, which no child inherits."""
        for descriptor in (source, target):
            os.set_inheritable(descriptor, False)
        return cls(os.fdopen(source, "rb"), os.fdopen(target, "wb"))

    def send(self, message: Message) -> None:
        """Send a message.

        Raises:
            OSError: If the other side has closed, or the pipe was closed here.
            MessageError: If an array holds anything but numbers or booleans.
        """
        self._end_copy()
        if _opened(self._target) != self._pipe:
            # A plugin may have closed the pipe; a file of it may have the number now.
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        send(self._target, message)

    def receive(self, most_line_bytes: int | None = None) -> Message | None:
        """Return the next message, or None if the other side has closed.

        Args:
            most_line_bytes: The most bytes of its line, by default those of `receive`.

        Raises:
            MessageError: If what arrives is not a message.
        """
        self._end_copy()
        return receive(self._source, most_line_bytes)

    def close(self) -> None:
        """Close both pipes."""
        for stream in (self._target, self._source):
            with contextlib.suppress(OSError, ValueError):
                stream.close()

    def _end_copy(self) -> None:
        if os.getpid() != self._owner:
            os._exit(0)

    def _close_copies(self) -> None:
        """Close a child's copies of both pipes: what they hold is not sent again.

        Their numbers stay taken. A file that got one would be closed with the copy.
        """
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (self._source, self._target):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(nothing, stream.fileno(), inheritable=False)
        os.close(nothing)


def _opened(stream: IO[bytes]) -> tuple[int, int] | None:
    """Return what is open under the number of a stream, or None if nothing is."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
