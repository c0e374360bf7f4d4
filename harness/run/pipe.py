"""Messages between a worker and whoever asked: a line of JSON, then raw arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from harness.contract import Weights
from harness.store import to_json


@dataclass(frozen=True)
class Message:
    """One message: JSON values, and named arrays beside them."""

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
    """Read a message; None where the other side has closed."""
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
