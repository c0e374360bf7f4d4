"""Messages between two processes: a line of JSON, then raw arrays.

Nothing that arrives is trusted: the sizes are bounded, and an array holds only numbers
or booleans.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import select
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:  # declarations are read and listed without them
    import numpy as np

    from harness.contract import Array, Weights

MOST_LINE_BYTES = 2**26
"""The curve of a learning trial over a million updates takes a quarter of this."""

MOST_ARRAY_BYTES = 2**35
"""Most bytes of all arrays of a message; memory is taken only as they arrive."""

_KIND = re.compile(r"[<>=|][biuf]\d{1,2}")
_MOST_ARRAYS = 10_000
_MOST_DIMENSIONS = 8


class MessageError(Exception):
    """What arrived is not a message; the text says why."""


@dataclass(frozen=True)
class Message:
    """One message: JSON values and named arrays."""

    values: Mapping[str, Any]
    arrays: Weights = field(default_factory=dict)


def send(stream: IO[bytes], message: Message) -> None:
    """Write a message and flush it; a number that is not finite stays what it is.

    Nothing is written of a message that the other side would refuse.

    Raises:
        MessageError: If it holds anything but JSON values and arrays of numbers or
            booleans, or is too large.
    """
    left = MOST_ARRAY_BYTES
    for name, array in message.arrays.items():
        if not _KIND.fullmatch(array.dtype.str):
            raise MessageError(f"'{name}' is an array of dtype {array.dtype}")
        left -= array.nbytes
        if left < 0 or array.ndim > _MOST_DIMENSIONS:
            raise MessageError(f"'{name}' of shape {array.shape} is too large")
    # Copied only now: an array of a small memory may seem to be a huge one.
    arrays = {n: _contiguous(a) for n, a in message.arrays.items()}
    shapes = [[name, a.dtype.str, list(a.shape)] for name, a in arrays.items()]
    line = _line({"values": message.values, "arrays": shapes})
    stream.write(line + b"\n")
    for array in arrays.values():
        if array.size:
            stream.write(array.data.cast("B"))
    stream.flush()


def _line(header: Mapping[str, Any]) -> bytes:
    try:
        line = json.dumps(header, separators=(",", ":"), default=_plain).encode()
    except (ValueError, RecursionError) as error:
        # Such as an integer of 5000 digits, or lists within lists without end.
        raise MessageError(f"a value cannot be sent ({type(error).__name__})") from None
    if len(line) >= MOST_LINE_BYTES:
        raise MessageError(f"a line of more than {MOST_LINE_BYTES} bytes")
    return line


def _contiguous(array: Array) -> Array:
    import numpy as np

    return np.asarray(array, order="C")


def _plain(value: Any) -> Any:
    import numpy as np

    if isinstance(value, np.longdouble):  # its own item is one again
        return float(value)
    if isinstance(value, np.generic):
        return value.item()
    raise MessageError(f"a {type(value).__name__} cannot be sent")


def receive(stream: IO[bytes], most_line_bytes: int | None = None) -> Message | None:
    """Read a message; return None if the other side has closed.

    Args:
        stream: Where it arrives.
        most_line_bytes: The most bytes of its line, by default `MOST_LINE_BYTES`.

    Raises:
        MessageError: If what arrives is not a message.
    """
    most = MOST_LINE_BYTES if most_line_bytes is None else most_line_bytes
    line = stream.readline(most + 1)
    if len(line) > most:
        raise MessageError(f"a line of more than {most} bytes")
    if not line.endswith(b"\n"):
        return None
    values, described = _header(line)
    arrays = {}
    left = MOST_ARRAY_BYTES
    for name, dtype, shape in described:
        left -= dtype.itemsize * math.prod(shape)
        if left < 0:
            raise MessageError(f"arrays of more than {MOST_ARRAY_BYTES} bytes")
        array = _empty(shape, dtype)
        if array.size and not _fill(stream, array):
            return None
        arrays[name] = array
    return Message(values, arrays)


def _header(
    line: bytes,
) -> tuple[dict[str, Any], list[tuple[str, np.dtype[Any], tuple[int, ...]]]]:
    try:
        header = json.loads(line)
        values, described = header["values"], header["arrays"]
        if not isinstance(values, dict) or len(described) > _MOST_ARRAYS:
            raise MessageError("values and arrays of wrong types")
        return values, [(str(n), _dtype(d), _shape(s)) for n, d, s in described]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise MessageError(
            f"no message but {line[:40]!r} ({type(error).__name__})"
        ) from None


def _dtype(text: str) -> np.dtype[Any]:
    if not _KIND.fullmatch(text):
        raise MessageError(f"an array of dtype {text[:20]!r}")
    import numpy as np

    return np.dtype(text)


def _shape(sizes: list[int]) -> tuple[int, ...]:
    right = all(type(size) is int and 0 <= size < 2**40 for size in sizes)
    if not right or len(sizes) > _MOST_DIMENSIONS:
        raise MessageError("an array of a shape that none can have")
    return tuple(sizes)


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    import numpy as np

    try:
        return np.empty(shape, dtype)
    except (ValueError, MemoryError) as error:
        raise MessageError(f"an array that cannot be held ({error})") from None


def _fill(stream: IO[bytes], array: Array) -> bool:
    """Read the bytes of an array; say whether all of them arrived."""
    left = array.data.cast("B")
    while left:
        count = stream.readinto(left)  # type: ignore[attr-defined]
        if not count:
            return False
        left = left[count:]
    return True


class EndingPipe(io.RawIOBase):
    """The read end of a pipe, which ends when the writing process ends.

    The pipe itself would stay open as long as a child of that process holds it.

    Args:
        source: The descriptor, which is closed with this object.
        ended: Says whether the writing process has ended.
    """

    def __init__(self, source: int, ended: Callable[[], bool]) -> None:
        self._source, self._ended = source, ended

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._source

    def close(self) -> None:
        """Close the descriptor."""
        if not self.closed:
            super().close()
            os.close(self._source)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait for data and read it; read nothing once the writer has ended."""
        poll = select.poll()
        poll.register(self._source, select.POLLIN | select.POLLHUP)
        while True:
            ended = self._ended()  # asked first, so that its last output is read
            if poll.poll(0 if ended else 200):
                return os.readv(self._source, [buffer])
            if ended:
                return 0
