"""The formats that `rnn-harness export --format` writes: one file for each.

To add one, write a file with its function and name it in `EXPORTS`. This module is
read by `--help`, so a format imports what it needs inside its function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from harness.report.exports.tidy_csv import write_csv

if TYPE_CHECKING:
    from harness.analysis.run import JudgedRun

EXPORTS: Mapping[str, Callable[[JudgedRun, Path | TextIO], None]] = {
    "csv": write_csv,
}
"""The name of each format, and what writes a run to a file or a stream."""
