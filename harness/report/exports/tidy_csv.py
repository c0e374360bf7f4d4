"""A run as CSV: every value that was measured, one row each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from harness.analysis.run import JudgedRun


def write_csv(run: JudgedRun, target: Path | TextIO) -> None:
    """Write the tidy frame of `run`, with the names of its columns first."""
    from harness.analysis.frame import frame

    frame(run).to_csv(target, index=False)
