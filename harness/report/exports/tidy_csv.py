"""A run as CSV: every value that was measured, one row each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from harness.store import TrialRecord


def write_csv(records: Sequence[TrialRecord], target: Path | TextIO) -> None:
    """Write the tidy frame of `records`, with the names of its columns first."""
    from harness.analysis.frame import frame

    frame(records).to_csv(target, index=False)
