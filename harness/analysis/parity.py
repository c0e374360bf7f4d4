"""Certificates: the worst error of an implementation beside what is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.grouping import number, of_measure
from harness.store import TrialRecord
from harness.trial import Trial


@dataclass(frozen=True)
class Check:
    """One compared tensor.

    Attributes:
        error: None where the reference underflowed and nothing was compared.
    """

    name: str
    error: float | None
    tolerance: float | None

    @property
    def broken(self) -> bool:
        """Whether the error is above the tolerance."""
        if self.error is None or self.tolerance is None:
            return False
        return self.error > self.tolerance

    @property
    def share(self) -> float:
        """The error in units of the tolerance, -1 where it is unknown."""
        if self.error is None or not self.tolerance:
            return -1.0
        return self.error / self.tolerance


@dataclass(frozen=True)
class ParityRow:
    """One implementation of one cell beside the reference.

    Attributes:
        worst: The check with the largest error in units of its tolerance.
        broken: Number of broken checks; None where the trial did not end ok.
    """

    implementation: str
    cell: str
    trial: Trial
    outcome: str
    reason: str | None
    certified: bool
    count: int | None
    broken: int | None
    warned: int | None
    worst: Check | None
    checks: tuple[Check, ...]


def parity_rows(records: Sequence[TrialRecord]) -> list[ParityRow]:
    """Return one row per certificate, in order of implementation and cell."""
    rows = [_row(record) for record in of_measure(records, "parity")]
    return sorted(rows, key=lambda row: (row.implementation, row.cell))


def _row(record: TrialRecord) -> ParityRow:
    checks = _checks(record)
    compared = [check for check in checks if check.share >= 0]
    return ParityRow(
        implementation=record.trial.implementation,
        cell=record.trial.cell,
        trial=record.trial,
        outcome=record.outcome,
        reason=record.reason,
        certified=record.outcome == "ok"
        and number(record, "certificate", "certified") == 1,
        count=_count(record, "checks"),
        broken=_count(record, "broken"),
        warned=_count(record, "warned"),
        worst=max(compared, key=lambda check: check.share, default=None),
        checks=checks,
    )


def _checks(record: TrialRecord) -> tuple[Check, ...]:
    splits = [
        reading.split
        for reading in record.readings
        if reading.x is None and "tolerance" in reading.values
    ]
    return tuple(
        Check(split, number(record, split, "error"), number(record, split, "tolerance"))
        for split in dict.fromkeys(splits)
    )


def _count(record: TrialRecord, metric: str) -> int | None:
    found = number(record, "certificate", metric)
    return None if found is None else int(found)
