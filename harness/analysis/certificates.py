"""Certificates: the error of each check, and its tolerance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.analysis.grouping import group, number
from harness.store import TrialRecord


@dataclass(frozen=True)
class Check:
    """The worst comparison of one kind.

    Attributes:
        error: None if the reference underflowed and nothing was compared.
        tolerance: What is allowed there.
        usual: The usual tolerance, if more is allowed because rounding alone makes a
            larger error there.
        expected: Norm of the reference; None if only equality was checked.
        found: Norm of the result; None if it had another shape.
        where: The tensor and the shape with the worst error.
    """

    name: str
    error: float | None
    tolerance: float | None
    warned_above: float | None = None
    expected: float | None = None
    found: float | None = None
    where: str = ""
    usual: float | None = None

    @property
    def warned(self) -> bool:
        """Whether the error is unusually large, even if it is within the tolerance."""
        return self._exceeds(self.warned_above)

    @property
    def broken(self) -> bool:
        """Whether the error is above the tolerance."""
        return self._exceeds(self.tolerance)

    def _exceeds(self, limit: float | None) -> bool:
        return self.error is not None and limit is not None and self.error > limit

    @property
    def share(self) -> float:
        """The error divided by the tolerance; -1 if either is not known."""
        if self.error is None or self.tolerance is None:
            return -1.0
        if self.tolerance == 0:  # an exact match says nothing about precision
            return math.inf if self.error else -1.0
        return self.error / self.tolerance


@dataclass(frozen=True)
class ParityRow:
    """The certificate of one implementation of one cell.

    Attributes:
        worst: The check with the largest error in units of its tolerance.
        broken: Number of broken checks; None if the trial did not end ok.
        against: What it was compared with; "" if that is not known.
        causes: Likely causes, with the checks that each explains.
    """

    implementation: str
    cell: str
    device: str
    dtype: str
    precision: str
    biases: str
    threads: int
    outcome: str
    reason: str | None
    certified: bool
    count: int | None
    broken: int | None
    warned: int | None
    worst: Check | None
    checks: tuple[Check, ...]
    framework: str | None = None
    kernel: str | None = None
    against: str = ""
    causes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_OF_TRIAL = (
    "implementation", "cell", "device", "dtype", "precision", "biases", "threads"
)  # fmt: skip


def parity_rows(certificates: Sequence[TrialRecord]) -> list[ParityRow]:
    """Return one row per certificate, in order of implementation and cell."""
    rows = [_row(record) for record in certificates]
    return sorted(rows, key=lambda row: (row.implementation, row.cell))


def _row(record: TrialRecord) -> ParityRow:
    checks = checks_of(record)
    compared = [check for check in checks if check.share >= 0]
    return ParityRow(
        **{name: getattr(record.trial, name) for name in _OF_TRIAL},
        outcome=record.outcome,
        reason=record.reason,
        certified=record.outcome == "ok"
        and number(record, "certificate", "certified") == 1,
        count=_count(record, "checks"),
        broken=_count(record, "broken"),
        warned=_count(record, "warned"),
        worst=max(compared, key=lambda check: check.share, default=None),
        checks=checks,
        framework=record.result.get("framework"),
        kernel=record.result.get("kernel"),
        against=str(record.result.get("against") or ""),
        causes=likely_causes(record),
    )


def likely_causes(record: TrialRecord) -> dict[str, tuple[str, ...]]:
    """Return the likely causes of broken checks, with the checks that each explains."""
    by_check = record.result.get("causes") or {}
    found = group(by_check, lambda check: str(by_check[check]))
    return {cause: tuple(checks) for cause, checks in found.items()}


def checks_of(record: TrialRecord) -> tuple[Check, ...]:
    """Return every check of a certificate, in the order they were made."""
    where = record.result.get("where") or {}
    splits = [
        reading.split
        for reading in record.readings
        if reading.x is None and "tolerance" in reading.values
    ]
    return tuple(
        Check(
            split,
            error=number(record, split, "error"),
            tolerance=number(record, split, "tolerance"),
            warned_above=number(record, split, "warned_above"),
            expected=number(record, split, "expected_norm"),
            found=number(record, split, "found_norm"),
            where=str(where.get(split, "")),
            usual=number(record, split, "usual_tolerance"),
        )
        for split in dict.fromkeys(splits)
    )


def _count(record: TrialRecord, metric: str) -> int | None:
    found = number(record, "certificate", metric)
    return None if found is None else int(found)
