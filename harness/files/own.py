"""Files that a program writes again and again, beside files of others.

The folder may be a stranger's, a folder in it a link, and a user may keep files there
or change one. So the hashes of what was written are stored. A file that is there and
has no such hash is renamed, and only files that have one are deleted: by its name
alone, a user's picture cannot be distinguished from one that an earlier version wrote.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from harness.files.opening import (
    check_own_folder,
    first_free,
    hash_of_file,
    is_there,
    read_file,
)
from harness.files.text import (
    hash_of,
    parse_object,
    to_json,
    write_atomically,
    write_bytes_atomically,
)

LIST = ".written.json"

_MOST_BYTES = 1 << 28
_MOST_LIST_BYTES = 1 << 22
_NAME = re.compile(r"([A-Za-z0-9_-]+/)?[A-Za-z0-9_-][A-Za-z0-9._-]*")
"""A file of a folder, or of a folder in it."""

Hashes = Mapping[str, list[str]]
"""The hashes that a file may have if this program wrote it, by the file's name."""


def write_own_files(
    folder: Path, contents: Mapping[str, bytes], report: Callable[[str], object]
) -> None:
    """Write files, and delete those that an earlier call wrote and this one does not.

    Args:
        folder: Where they are.
        contents: The content of each file, by its name in the folder. If the last of
            them is there, but no list of hashes, then an earlier version wrote them.
        report: Is given a sentence on each file that is kept under another name.

    Raises:
        OSError: If something cannot be written.
    """
    new = {name: [hash_of(content)] for name, content in contents.items()}
    with _alone(folder):
        known = _known(folder)
        if known is None:
            earlier = is_there(folder / [*contents][-1])
            known = {n: [_hash(folder / n) or ""] for n in new if earlier}
        for inner in sorted({Path(name).parent for name in new} - {Path()}):
            _make_folder(folder / inner, report)
        for name in new:
            _keep_what_others_wrote(folder / name, known.get(name, []), report)
        # If the process is killed, the next call knows the old and the new content.
        _write_list(folder, {**known, **{n: [*known.get(n, []), *new[n]] for n in new}})
        for name, content in contents.items():
            write_bytes_atomically(folder / name, content)
        for name in known.keys() - new.keys():
            if _NAME.fullmatch(name) and _is_own(folder / name, known[name]):
                (folder / name).unlink()
        _write_list(folder, new)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait for another process, which would rename what this one writes."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # a file system may lock no folder
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _known(folder: Path) -> Hashes | None:
    """Return the hashes of what was written; None if there is no list of them."""
    try:
        found = parse_object(read_file(folder / LIST, _MOST_LIST_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return {name: each for name, each in found.items() if isinstance(each, list)}


def _write_list(folder: Path, hashes: Hashes) -> None:
    write_atomically(folder / LIST, to_json(hashes) + "\n")


def _make_folder(folder: Path, report: Callable[[str], object]) -> None:
    try:
        check_own_folder(folder)
    except FileNotFoundError:
        folder.mkdir()
    except OSError as error:
        if not is_there(folder):
            raise
        _rename(folder, str(error.strerror), report)
        folder.mkdir()


def _keep_what_others_wrote(
    file: Path, hashes: list[str], report: Callable[[str], object]
) -> None:
    """Rename what has the name of a file, unless this program wrote it."""
    if is_there(file) and not _is_own(file, hashes):
        _rename(file, "was written or changed by another program", report)


def _is_own(file: Path, hashes: list[str]) -> bool:
    try:
        check_own_folder(file.parent)
    except OSError:
        return False
    return (found := _hash(file)) is not None and found in hashes


def _hash(file: Path) -> str | None:
    """Return the hash of a regular file; None if it cannot be read."""
    try:
        return hash_of_file(file, _MOST_BYTES)
    except OSError:
        return None


def _rename(path: Path, why: str, report: Callable[[str], object]) -> None:
    kept = first_free(path.parent, f"{path.stem}.kept-", path.suffix)
    path.rename(kept)
    report(f"{path} {why}; it is kept as {kept.name}")
