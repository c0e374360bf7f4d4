"""Open files that may be anything: links, pipes, devices, folders, or endless.

A run folder may come from a stranger, and the cache may be in a shared home folder. So
only regular files are read, up to a size, and nothing is written through a link.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

_KINDS = (
    (stat.S_ISLNK, "is a link"),
    (stat.S_ISFIFO, "is a pipe"),
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
)
_CAREFUL = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""Flags that follow no link, and do not wait for the other end of a pipe."""

_CHUNK = 1 << 20


class OddFileError(OSError):
    """Something that is not a regular file, or is too large, has the name of one."""

    def __init__(self, file: Path, what: str) -> None:
        super().__init__(errno.EEXIST, what, str(file))


def read_file(file: Path, most_bytes: int) -> bytes:
    """Return the content of a regular file.

    Raises:
        OddFileError: If it is a link, a pipe, a device or a folder, or is too large.
        OSError: If it cannot be read; FileNotFoundError if there is none.
    """
    return b"".join(_parts(file, most_bytes))


def hash_of_file(file: Path, most_bytes: int) -> str:
    """Return the SHA-256 of a regular file; raise as `read_file` does."""
    digest = hashlib.sha256()
    for part in _parts(file, most_bytes):
        digest.update(part)
    return digest.hexdigest()


def _parts(file: Path, most_bytes: int) -> Iterator[bytes]:
    too_large = OddFileError(file, f"is larger than {most_bytes / 2**20:g} MiB")
    with os.fdopen(_open(file, os.O_RDONLY), "rb", buffering=0) as stream:
        left = most_bytes
        if os.fstat(stream.fileno()).st_size > left:
            raise too_large
        while part := stream.read(_CHUNK):
            left -= len(part)
            if left < 0:  # it has grown meanwhile
                raise too_large
            yield part


@contextlib.contextmanager
def opened_to_append(file: Path) -> Iterator[IO[bytes]]:
    """Open a file to read it and to append to it, unbuffered; make it if needed.

    Raises:
        OddFileError: If it is a link or anything else that is not a regular file, or
            has another name too, so that a file elsewhere would change.
        OSError: If it cannot be opened.
    """
    descriptor = _open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    with os.fdopen(descriptor, "a+b", buffering=0) as stream:
        if os.fstat(descriptor).st_nlink > 1:
            raise OddFileError(file, "is a hard link")
        yield stream


def _open(file: Path, flags: int) -> int:
    """Open a regular file and return its descriptor."""
    try:
        # Asked first: opening a device may already do something.
        _check_regular(file, file.lstat())
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    descriptor = os.open(file, flags | _CAREFUL, 0o666)
    try:
        _check_regular(file, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(file: Path, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    for is_kind, what in _KINDS:
        if is_kind(found.st_mode):
            raise OddFileError(file, what)


def check_own_folder(folder: Path) -> None:
    """Check that a folder is one, and no link to a folder elsewhere.

    Raises:
        OddFileError: If it is anything else.
        OSError: If it cannot be asked; FileNotFoundError if there is none.
    """
    mode = folder.lstat().st_mode
    if not stat.S_ISDIR(mode):
        kinds = (what for is_kind, what in _KINDS if is_kind(mode))
        raise OddFileError(folder, next(kinds, "is a file"))


def files_below(folder: Path, folders: str, files: str) -> list[Path]:
    """Return files in some folders of a folder, and none behind a linked folder.

    Args:
        folder: The folder.
        folders: A pattern of names of folders in it.
        files: A pattern of names of files in those.
    """
    return [
        file
        for own in folder.glob(folders)
        if not own.is_symlink()
        for file in own.glob(files)
    ]


def is_there(file: Path) -> bool:
    """Say whether anything has this name, even a link that leads nowhere."""
    return os.path.lexists(file)


def first_free(folder: Path, before: str, after: str = "") -> Path:
    """Return a path in a folder that nothing has: a name with the first free number.

    Args:
        folder: The folder.
        before: What is before the number.
        after: What is behind it.
    """
    names = (f"{before}{number}{after}" for number in itertools.count(1))
    return next(folder / name for name in names if not is_there(folder / name))


def replace_file(file: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file completely or not at all, even if the process is killed.

    What has its name is replaced; a link is not followed.

    Args:
        file: The file.
        write: Writes the content to a stream.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o666), "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        error.filename, error.filename2 = str(file), None  # the name that users know
        raise
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to disk, not only the contents of its files."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
