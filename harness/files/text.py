"""JSON and TOML of finite numbers, with bounds, and a checksum for JSON."""

from __future__ import annotations

import hashlib
import json
import math
import numbers
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.files.opening import read_file, replace_file

MOST_TOML_BYTES = 1 << 19
MOST_JSON_BYTES = 1 << 25
"""The size of the largest document: 32 MiB."""

MOST_DEPTH = 32
_TOO_DEEP = f"lists or tables are nested more than {MOST_DEPTH} deep"

_NOT_UTF_8 = "it is not text in UTF-8; save it as UTF-8"

_TOO_LARGE = "an integer has more than 18 digits"
_MOST_INTEGER = 10**18
"""Above any count, time or size, and below what an array or a float can hold."""

_MOST_DOTS = 200
"""In a line of TOML: the memory that its reader takes grows with their square."""

_CHECKSUM = re.compile(rb',\s*"checksum": ?"([0-9a-f]{64})"\s*\}\s*\Z')


# --- writing -------------------------------------------------------------------------


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
    write_bytes_atomically(file, text.encode())


def write_bytes_atomically(file: Path, content: bytes) -> None:
    """Write a file of bytes as `write_atomically` does."""
    replace_file(file, lambda stream: stream.write(content))


def hash_of(content: bytes) -> str:
    """Return the SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()


def sealed(text: str) -> str:
    """Return a JSON object with the hash of its own text as its last entry."""
    body = text.rstrip().removesuffix("}").rstrip()
    indent = "\n " if "\n" in body else ""
    return f'{body},{indent}"checksum":"{hash_of(body.encode())}"}}'


# --- reading -------------------------------------------------------------------------


def parse_json(content: bytes) -> Any:
    """Return a JSON document.

    Raises:
        ValueError: If it is not JSON, is nested too deeply, or holds a number that is
            not finite or has too many digits.
    """
    try:
        found = json.loads(content, parse_float=_float, parse_constant=_refuse)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_bounds([found], MOST_DEPTH)
    return found


def parse_object(content: bytes) -> dict[str, Any]:
    """Return a JSON object, as `parse_json` does; its checksum is not looked at."""
    found = parse_json(content)
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    found.pop("checksum", None)
    return found


def has_seal(content: bytes) -> bool:
    """Say whether an object holds its own hash.

    Raises:
        ValueError: If the hash is that of another text.
    """
    found = _CHECKSUM.search(content, max(0, len(content) - 120))
    if found is None:
        return False
    if hash_of(content[: found.start()]).encode() != found[1]:
        raise ValueError("it does not match its checksum")
    return True


def unsealed(content: bytes) -> dict[str, Any]:
    """Return an object that `sealed` has written.

    Raises:
        ValueError: If it has no checksum or a wrong one, or as `parse_object` does.
    """
    if not has_seal(content):
        raise ValueError("it has no checksum")
    return parse_object(content)


def read_sealed(file: Path) -> dict[str, Any]:
    """Return the object in a file, as `unsealed` and `read_file` do."""
    return unsealed(read_file(file, MOST_JSON_BYTES))


def read_toml(file: Path) -> dict[str, Any]:
    """Return the table in a TOML file of the user, which may be a link.

    A byte order mark is skipped.

    Raises:
        ValueError: As `parse_toml` does, or if it is in another encoding than UTF-8.
        OSError: As `read_file` does.
    """
    content = read_file(Path(os.path.realpath(file)), MOST_TOML_BYTES)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(_NOT_UTF_8) from None
    return parse_toml(text.replace("\r\n", "\n").replace("\r", "\n"))


def parse_toml(text: str) -> dict[str, Any]:
    """Return the table that a TOML text holds.

    Raises:
        ValueError: If it is not TOML, is nested too deeply, or holds an integer that
            has too many digits.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > _MOST_DOTS:
            raise ValueError(
                f"there are more than {_MOST_DOTS} dots (at line {number})"
            )
    try:
        found = tomllib.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # that Python reads no integer of so many digits
        raise ValueError(_TOO_LARGE) from None
    _check_bounds(found, MOST_DEPTH)
    return found


def _float(digits: str) -> float:
    found = float(digits)
    if math.isinf(found):
        raise ValueError("a number is not finite")
    return found


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _check_bounds(value: Any, left: int) -> None:
    """Check how deeply lists and tables are nested, and the size of integers."""
    if not left:
        raise ValueError(_TOO_DEEP)
    items = value.values() if isinstance(value, dict) else value
    for item in items:
        if isinstance(item, list | dict):
            _check_bounds(item, left - 1)
        elif isinstance(item, int) and abs(item) > _MOST_INTEGER:
            raise ValueError(_TOO_LARGE)
