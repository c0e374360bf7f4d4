"""The absolute paths of files that a user names, which may not exist."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from harness.errors import MisuseError, shortened


def real_path(path: str | os.PathLike[str]) -> Path:
    """Return an absolute path without links.

    Raises:
        MisuseError: If its links lead in a circle, or as `absolute_path` does.
    """
    absolute = absolute_path(path)
    try:
        return absolute.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError up to Python 3.12
        raise MisuseError(
            f"{shortened(os.fspath(path))} cannot be read ({os.strerror(errno.ELOOP)})"
        ) from error


def absolute_path(path: str | os.PathLike[str]) -> Path:
    """Return an absolute path whose links are kept.

    Raises:
        MisuseError: If it is relative to a current folder that was removed.
    """
    try:
        return Path(path).absolute()
    except OSError as error:
        raise MisuseError(
            f"the current folder cannot be read ({error.strerror}); change to one that "
            "exists"
        ) from error
