"""Files that are written completely or not at all, and JSON of finite numbers."""

from __future__ import annotations

import hashlib
import json
import math
import numbers
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from harness.contract import Weights


def to_json(value: Any) -> str:
    """Return one line of JSON; a number that is not finite becomes null."""
    return json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    # These include the numbers of NumPy.
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def write_atomically(file: Path, text: str) -> None:
    """Write a file completely or not at all, even if the process is killed."""
    _replace(file, lambda stream: stream.write(text.encode()))


def write_arrays(file: Path, arrays: Weights) -> None:
    """Write arrays as `write_atomically` does, without pickle."""
    _replace(file, lambda stream: np.savez(stream, allow_pickle=False, **arrays))


def read_arrays(file: Path) -> Weights:
    """Read arrays; their checksums are verified."""
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _replace(file: Path, write: Callable[[IO[bytes]], object]) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to disk, not only the contents of its files."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_of(content: bytes) -> str:
    """Return the hash that a result keeps of each of its files."""
    return hashlib.sha256(content).hexdigest()
