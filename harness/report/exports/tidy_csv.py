"""A run as CSV: every value that was measured, one row each."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from harness.printing import one_line

if TYPE_CHECKING:
    from harness.analysis.run import JudgedRun

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")

_FORMULA = tuple("=+-@＝＋－＠")
"""A spreadsheet computes a cell that begins with one of these."""


def write_csv(run: JudgedRun, target: Path | TextIO) -> None:
    """Write the tidy frame of `run`, with the names of its columns first."""
    from harness.analysis.frame import frame

    found = frame(run)
    for name in found.select_dtypes(exclude=["number", "bool"]):
        found[name] = found[name].map(_cell)
    found.to_csv(target, index=False)


def _cell(value: Any) -> Any:
    return text(value) if isinstance(value, str) else value


@lru_cache(10_000)
def text(words: str) -> str:
    """Return words in one line that a spreadsheet reads as text.

    The apostrophe before what would be a formula is the spreadsheets' own mark of text.
    """
    line = one_line(words)
    if line.startswith(_FORMULA) and not _NUMBER.fullmatch(line):
        return f"'{line}"
    return line
