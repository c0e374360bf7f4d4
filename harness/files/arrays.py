"""Arrays in a file, without pickle: `numpy.savez` writes it, and any file may be read.

An archive from elsewhere may name terabytes, unpack to gigabytes, or hold code. So
every size is checked before memory is taken, and only plain numbers are read.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import struct
import zipfile
from pathlib import Path

import numpy as np

from harness.contract import Array, Weights
from harness.files.opening import read_file, replace_file

MOST_BYTES = 1 << 31
"""The size of the largest file: 2 GiB."""

_MOST_DIRECTORY_BYTES = 1 << 22
"""Room for the names of 40 000 arrays; Python's reader takes 10 times as much."""

_END = struct.Struct("<4s4H2LH")
_HEADER = re.compile(
    rb"\{'descr': '([<>|][fiub][1248])', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,12}, ?)*(?:\d{1,12})?)\), \}\s*\Z"
)
_MAGIC = b"\x93NUMPY\x01\x00"
_ANYTHING = (
    *(OSError, ValueError, TypeError, KeyError, RuntimeError, EOFError, OverflowError),
    *(struct.error, zipfile.BadZipFile),
)
"""What Python's and numpy's readers raise for a damaged archive."""


def write_arrays(file: Path, arrays: Weights) -> None:
    """Write arrays as `write_atomically` does, without pickle.

    Raises:
        ValueError: If an array does not hold plain numbers, and could not be read.
    """
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise ValueError(f"array {name} has dtype {array.dtype}")
    replace_file(file, lambda stream: np.savez(stream, allow_pickle=False, **arrays))


def read_arrays(file: Path) -> Weights:
    """Read arrays of numbers; their checksums are verified.

    Raises:
        ValueError: If the file is damaged, or is not as `write_arrays` writes it.
        OSError: As `read_file` does.
    """
    return arrays_in(read_file(file, MOST_BYTES))


def arrays_in(content: bytes) -> Weights:
    """Return the arrays in the content of a file, as `read_arrays` does."""
    _check_directory(content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            stored = all(e.compress_type == zipfile.ZIP_STORED for e in entries)
            if not stored or sum(e.file_size for e in entries) > len(content):
                raise ValueError("its arrays are packed")
            return {
                e.filename.removesuffix(".npy"): _array(archive.read(e))
                for e in entries
            }
    except _ANYTHING as error:
        raise ValueError(f"it is not a file of arrays: {error}") from error


def _check_directory(content: bytes) -> None:
    """Check the size of the list of arrays, which Python's reader reads at once."""
    end = content[-_END.size :]
    if len(end) < _END.size or not end.startswith(b"PK\x05\x06"):
        raise ValueError("it is not a file of arrays, or is cut short")
    *_, size, _, _ = _END.unpack(end)
    # A second, larger form of the list names its size elsewhere.
    large = content[-_END.size - 20 : -_END.size].startswith(b"PK\x06\x07")
    if size > _MOST_DIRECTORY_BYTES or large:
        raise ValueError("it names too many arrays")


def _array(data: bytes) -> Array:
    """Return an array from the bytes that numpy has written for it."""
    if not data.startswith(_MAGIC):
        raise ValueError("an entry is not an array")
    start = len(_MAGIC) + 2
    end = start + int.from_bytes(data[len(_MAGIC) : start], "little")
    header = _HEADER.match(data[start:end])
    if header is None:
        raise ValueError("an entry is not an array of plain numbers")
    kind, fortran, sizes = header.groups()
    dtype = np.dtype(kind.decode())
    shape = tuple(int(size) for size in sizes.split(b",") if size.strip())
    if math.prod(shape) * dtype.itemsize != len(data) - end:
        raise ValueError("an array has another size than it says")
    flat = np.frombuffer(data, dtype, offset=end)
    return flat.reshape(shape, order="F" if fortran == b"True" else "C").copy()


def hash_of_array(array: Array) -> str:
    """Return a hash of an array's type, shape and values."""
    found = np.ascontiguousarray(array)
    digest = hashlib.sha256(f"{found.dtype.str} {array.shape}".encode())
    digest.update(found.data if found.size else b"")
    return digest.hexdigest()
