"""What went wrong: the trials that did not end ok, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.grouping import group
from harness.store import TrialRecord


@dataclass(frozen=True)
class OutcomeRow:
    """Trials that did not end ok, for the same reason.

    Attributes:
        seeds: Their seeds; empty if the measure has none.
        last_words: The last line that the latest of them printed, or None.
    """

    measure: str
    task: str
    length: int | None
    cell: str
    implementation: str
    outcome: str
    reason: str
    count: int
    seeds: tuple[int, ...]
    last_words: str | None = None


def outcome_rows(records: Sequence[TrialRecord]) -> list[OutcomeRow]:
    """Return one row for all trials that failed in the same way, whatever the seed."""
    keyed = group(
        (record for record in records if record.outcome != "ok"),
        lambda r: (
            r.trial.measure,
            r.trial.task or "",
            r.trial.length,
            r.trial.cell,
            r.trial.implementation,
            r.outcome,
            r.reason or "no reason was given",
        ),
    )
    rows = []
    for key, members in keyed.items():
        seeds = sorted(r.trial.seed for r in members if r.trial.seed is not None)
        rows.append(OutcomeRow(*key, len(members), tuple(seeds), _last_words(members)))
    return rows


def _last_words(records: Sequence[TrialRecord]) -> str | None:
    printed = (line for r in records for line in r.result.get("log_tail", []))
    lines = [line.strip() for line in printed if line.strip()]
    fatal = [i for i, line in enumerate(lines) if line.startswith("Fatal Python error")]
    if not fatal:
        return lines[-1] if lines else None
    # Python's own report of a crash begins with the innermost call.
    crash = lines[fatal[-1] :]
    innermost = next((line for line in crash if line.startswith("File ")), "")
    return f"{crash[0]} {innermost}".strip()
