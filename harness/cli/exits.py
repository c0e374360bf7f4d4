"""Exit codes, and the exit code for a set of trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.registry import Registry
    from harness.store import TrialRecord

DONE, INTERNAL, MISUSE, NO, NOT_ALL_OK, NOTHING = 0, 1, 2, 3, 4, 5
INTERRUPTED, TERMINATED = 130, 143


def verdict(records: Sequence[TrialRecord]) -> int:
    """Return the exit code of a command that made these trials."""
    codes = []
    if not any(record.outcome in ("ok", "diverged") for record in records):
        codes.append(NOTHING)
    if any(record.outcome != "ok" for record in records):
        codes.append(NOT_ALL_OK)
    if any(_is_broken(record) for record in records):
        codes.append(NO)
    return _worst(codes)


def _is_broken(record: TrialRecord) -> bool:
    return (
        record.trial.measure == "parity"
        and record.outcome == "ok"
        and not record.value("certificate", "certified")
    )


def exit_code(registry: Registry, *codes: int) -> int:
    """Return the most serious exit code: misuse if a plugin cannot be used."""
    return _worst([*codes, MISUSE] if registry.problems else codes)


def _worst(codes: Sequence[int]) -> int:
    order = [MISUSE, INTERRUPTED, TERMINATED, INTERNAL, NOTHING, NO, NOT_ALL_OK]
    return min(codes, key=[*order, DONE].index, default=DONE)
