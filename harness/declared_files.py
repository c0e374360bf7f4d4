"""Find the files that a declaration names in `files`."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from harness.errors import PluginError, shown

MOST_DECLARED = 10_000
"""How many files a declaration may name."""


def declared_files(folder: Path, patterns: Sequence[str], plugin: str) -> list[Path]:
    """Return the files that patterns such as "weights/*.npz" name, from a folder.

    Raises:
        PluginError: If a pattern names no file, or all of them too many.
    """
    found: list[Path] = []
    for pattern in patterns:
        files = list(islice(_matching(folder, pattern), MOST_DECLARED + 1 - len(found)))
        if not files:
            raise PluginError(
                plugin, f"files names {shown(pattern)}, which is no file in {folder}"
            )
        found += files
    if len(found) > MOST_DECLARED:
        raise PluginError(
            plugin, f"files names more than {MOST_DECLARED} files; name fewer"
        )
    return sorted(set(found))


def _matching(folder: Path, pattern: str) -> Iterator[Path]:
    # Unlike `Path.glob`, this takes "/data/*.npz" and "../shared.json".
    find = glob.iglob
    for name in find(pattern, root_dir=folder, recursive=True, include_hidden=True):
        path = Path(os.path.normpath(folder / name))
        yield from files_in_tree(path) if path.is_dir() else [path]


def files_in_tree(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and below it, without what Python and git keep."""
    seen = set()
    for path, folders, names in os.walk(folder, followlinks=True):
        here = Path(path).stat()
        known = (here.st_dev, here.st_ino) in seen  # by another link
        seen.add((here.st_dev, here.st_ino))
        kept = (f for f in folders if f[:1] != "." and f != "__pycache__")
        folders[:] = [] if known else sorted(kept)
        yield from (Path(path, name) for name in ([] if known else sorted(names)))
