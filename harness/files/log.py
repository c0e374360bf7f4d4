"""A log of bounded size: its head and its tail, whatever a plugin prints in between."""

from __future__ import annotations

import re
from pathlib import Path

from harness.files.opening import opened_to_append

HEAD_BYTES = 1 << 20
TAIL_BYTES = 1 << 18
_MOST_BYTES = HEAD_BYTES + 4 * TAIL_BYTES

_LEFT_OUT = re.compile(rb"\n\[(\d+) bytes are left out here\]\n")


def left_out(count: int) -> bytes:
    """Return the line that stands for bytes that are left out."""
    return f"\n[{count} bytes are left out here]\n".encode()


def append_bounded(file: Path, data: bytes) -> None:
    """Append to a log; a long one keeps its first and its last bytes.

    Raises:
        OddFileError: If something else than a log is there.
        OSError: If it cannot be written.
    """
    with opened_to_append(file) as log:
        log.write(data)
        if log.seek(0, 2) <= _MOST_BYTES:
            return
        log.seek(HEAD_BYTES)
        rest, dropped = log.read(), 0
        if earlier := _LEFT_OUT.match(rest):
            rest, dropped = rest[earlier.end() :], int(earlier.group(1))
        log.truncate(HEAD_BYTES)
        log.write(left_out(dropped + len(rest) - TAIL_BYTES) + rest[-TAIL_BYTES:])
