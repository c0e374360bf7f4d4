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
    outcomes = {record.outcome for record in records}
    if not outcomes & {"ok", "diverged"}:
        return NOTHING
    if any(map(_is_broken, records)):
        return NO
    return DONE if outcomes == {"ok"} else NOT_ALL_OK


def _is_broken(record: TrialRecord) -> bool:
    from harness.measure import MEASURES  # `--help` need not wait for it

    measure = MEASURES.get(record.trial.measure)  # a later version may have stored it
    if measure is None or measure.verdict is None or record.outcome != "ok":
        return False
    return not record.value(*measure.verdict)


def exit_code(registry: Registry, *codes: int) -> int:
    """Return the most serious exit code: misuse if a plugin cannot be used."""
    order = [MISUSE, INTERRUPTED, TERMINATED, INTERNAL, NOTHING, NO, NOT_ALL_OK, DONE]
    given = [*codes, MISUSE] if registry.problems else codes
    return min(given, key=order.index, default=DONE)
