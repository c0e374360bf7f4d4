"""Messages between a worker and its parent: a line of JSON, then raw arrays."""

from __future__ import annotations

import io
import json
import os
import select
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from harness.contract import Weights
from harness.store import to_json


@dataclass(frozen=True)
class Message:
    """One message: JSON values and named arrays."""

    values: Mapping[str, Any]
    arrays: Weights = field(default_factory=dict)


def send(stream: IO[bytes], message: Message) -> None:
    """Write a message and flush it."""
    arrays = {n: np.asarray(a, order="C") for n, a in message.arrays.items()}
    shapes = [[name, a.dtype.str, list(a.shape)] for name, a in arrays.items()]
    header = to_json({"values": message.values, "arrays": shapes})
    stream.write(header.encode() + b"\n")
    for array in arrays.values():
        stream.write(array.tobytes())
    stream.flush()


def receive(stream: IO[bytes]) -> Message | None:
    """Read a message; return None if the other side has closed."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    header = json.loads(line)
    arrays = {}
    for name, dtype, shape in header["arrays"]:
        kind = np.dtype(dtype)
        size = kind.itemsize * int(np.prod(shape))
        data = stream.read(size)
        if len(data) != size:
            return None
        arrays[name] = np.frombuffer(data, kind).reshape(shape).copy()
    return Message(header["values"], arrays)


class EndingPipe(io.RawIOBase):
    """The read end of a pipe, which ends when the writing process ends.

    The pipe itself would stay open as long as a child of that process holds it.
    """

    def __init__(self, source: int, ended: Callable[[], bool]) -> None:
        self._source, self._ended = source, ended

    def readable(self) -> bool:
        """Say yes."""
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
