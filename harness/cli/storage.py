"""Errors of the file system while a command measures, as sentences."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from harness.errors import MisuseError

STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG}
STORAGE |= {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ESTALE}
"""Errors of a file system that cannot write a run folder any more."""

IN_THE_WAY = {errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST}
"""Errors if something else has the name of a file or folder to write."""


@contextlib.contextmanager
def storage_errors_explained(
    folder: Path, then: str = "the same command continues"
) -> Iterator[None]:
    """Turn an error of the file system into a sentence.

    Args:
        folder: Where the command stores what it measures.
        then: What to do once the folder can be written again.
    """
    try:
        yield
    except OSError as error:
        path = error.filename2 or error.filename or folder
        if error.errno in IN_THE_WAY:
            what = f"{path} is in the way ({error.strerror}); move it away"
        elif error.errno in STORAGE:
            what = f"{folder} cannot be written any more ({error.strerror})"
        else:
            raise
        raise MisuseError(
            f"{what}: every finished trial is kept, and {then}"
        ) from error
