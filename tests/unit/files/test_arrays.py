"""An archive of arrays is read only if it is what `numpy.savez` writes of numbers."""

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.files.arrays import arrays_in, hash_of_array, read_arrays, write_arrays

ARRAYS = {
    "layer0/w": np.arange(6.0).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "scalar": np.array(3, np.int64),
    "none": np.zeros((0, 4)),
    "bytes": np.arange(3, dtype=np.uint8),
    "flags": np.array([True, False]),
}


def test_arrays_are_read_back_with_type_shape_and_values(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", ARRAYS)
    found = read_arrays(tmp_path / "a.npz")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)
        assert hash_of_array(found[name]) == hash_of_array(array)
        assert found[name].flags.writeable


def archive(
    *entries: tuple[str, bytes], packed: int = zipfile.ZIP_STORED, comment: bytes = b""
) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packed) as found:
        for name, data in entries:
            found.writestr(name, data)
        found.comment = comment
    return stream.getvalue()


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data


def of(descr: str, shape: str, data: bytes = b"") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"
    return npy(header, data)


def pickled() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return stream.getvalue()


def overlapping() -> bytes:
    """Return an archive whose entries all are the same bytes of it."""
    whole = archive(("a.npy", of("'|u1'", "(100000,)", bytes(100_000))))
    end = whole[-22:]
    start = struct.unpack("<L", end[16:20])[0]
    entry = whole[start:-22]
    count = 1000
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, 0, 0, 0)
    size = struct.pack("<2L", count * len(entry), start)
    return whole[:start] + entry * count + tail[:12] + size + b"\0\0"


HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "no archive": b"PK\3\4" + bytes(100),
    "packed zeros": archive(
        ("a.npy", of("'<f8'", "(1250000,)", bytes(10**7))), packed=zipfile.ZIP_DEFLATED
    ),
    "terabytes by name": archive(("a.npy", of("'<f8'", "(1000000, 1000000)"))),
    "a negative size": archive(("a.npy", of("'<f8'", "(-1,)"))),
    "a size of many digits": archive(("a.npy", of("'<f8'", f"({'9' * 400},)"))),
    "too many sizes": archive(("a.npy", of("'<f8'", f"({'1, ' * 200})", bytes(8)))),
    "pickle": archive(("a.npy", pickled())),
    "records": archive(("a.npy", of("[('a', '<f8')]", "(1,)", bytes(8)))),
    "text": archive(("a.npy", of("'<U8'", "(1,)", bytes(32)))),
    "no such type": archive(("a.npy", of("'<f1'", "(1,)", bytes(1)))),
    "more data": archive(("a.npy", of("'<f8'", "(1,)", bytes(16)))),
    "a header that is code": archive(("a.npy", npy("__import__('os').abort()"))),
    "a deep header": archive(("a.npy", npy("(" * 60_000))),
    "a later version": archive(("a.npy", npy("{}", b"", b"\x09\x00"))),
    "no array": archive(("a.npy", b"x")),
    "a comment": archive(("a.npy", of("'<f8'", "(1,)", bytes(8))), comment=b"x" * 30),
    "overlapping": overlapping(),
    "a directory of 100 MB": bytes(10)
    + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 10**8, 0, 0),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_before_it_takes_memory(name: str) -> None:
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"\w"):
        arrays_in(HOSTILE[name])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 3 << 20


@pytest.mark.parametrize("value", ["text", {"a": 1}, 1 + 2j])
def test_only_numbers_are_written(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="array a has dtype"):
        write_arrays(tmp_path / "a.npz", {"a": np.array([value])})
    assert list(tmp_path.iterdir()) == []
