"""Text for a terminal or a pipe: no control characters, and no error while printing."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any, TextIO, cast


def printable(text: object, kept: str = "") -> str:
    """Return text with a space for each character that is not printable.

    These are control characters, terminal escapes, line breaks, marks that turn the
    direction of text, and surrogates, which no encoding can hold.

    Args:
        text: What to print; names and reasons of plugins and of run folders are data.
        kept: Characters that stay, such as line breaks.
    """
    words = str(text)
    if words.isprintable():
        return words
    return "".join(c if c.isprintable() or c in kept else " " for c in words)


def one_line(text: object) -> str:
    """Return text without line breaks, control characters and repeated spaces."""
    return " ".join(printable(text).split())


def echo(text: object = "", *, err: bool = False) -> None:
    """Print one line to standard output or standard error, as `printable` makes it.

    A name in it may be a stranger's and hold a line break.
    """
    echo_lines(printable(text), err=err)


def echo_lines(text: object, *, err: bool = False) -> None:
    """Print text whose line breaks are the harness's own, such as a JSON document."""
    stream = sys.stderr if err else sys.stdout
    if stream is not None:
        print(printable(text, "\n"), file=stream, flush=True)


# --- streams that end early ----------------------------------------------------------


class Descriptor(io.FileIO):
    """An open file whose errors end no command: the first is kept, the rest is dropped.

    A reader such as `head` may end, a disk may be full, a terminal may be gone. What
    the command measures and stores does not depend on what can be printed.

    Attributes:
        error: Why something could not be written, or None.
    """

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write data; report all of it as written after an error."""
        if self.error is None:
            try:
                # A terminal may be shared with a program that made it non-blocking.
                while (count := cast(int | None, super().write(data))) is None:
                    select.select([], [self], [])
                return count
            except OSError as error:
                self.error = error
        return len(data)


def guard_streams() -> None:
    """Replace standard output and standard error by streams that raise no error.

    A character that the encoding cannot hold is replaced. Streams that are not the
    process's own, as in a test, stay.
    """
    if sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__:
        return
    # The next file to be opened would get a closed descriptor's number, and would be
    # sent what is printed.
    closed = [number for number in (0, 1, 2) if not _is_open(number)]
    for _ in closed:
        os.open(os.devnull, os.O_RDWR)
    sys.stdout = _guarded(1, sys.stdout, "replace", is_open=1 not in closed)
    sys.stderr = _guarded(2, sys.stderr, "backslashreplace", is_open=2 not in closed)


def output_error() -> OSError | None:
    """Return why something could not be written to standard output, or None."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.error if isinstance(raw, Descriptor) else None


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _guarded(
    number: int, before: TextIO | None, errors: str, *, is_open: bool
) -> TextIO:
    descriptor = Descriptor(number, "wb", closefd=False)
    if not is_open:
        descriptor.error = OSError(errno.EBADF, "it is closed")
    return io.TextIOWrapper(
        io.BufferedWriter(descriptor),
        encoding="utf-8" if before is None else before.encoding,
        errors=errors,
        line_buffering=errors == "backslashreplace" or descriptor.isatty(),
    )
