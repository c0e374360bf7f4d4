"""The reasons why a number is not that of a certified network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.analysis.certificates import checks_of
from harness.analysis.grouping import group, number
from harness.measure import MEASURES
from harness.store import COUNTED, TrialRecord
from harness.trial import UNCERTIFIED

MOST_CHECKS = 3
"""Broken checks that are named."""

_READ_BACK = {name for name, measure in MEASURES.items() if measure.read_back}

_WRONG = ("broken", "read-back differs")
_HOLDS_FOR = {"processor": "on", "gpu": "on", "framework": "with"}


@dataclass(frozen=True)
class Doubt:
    """One reason why a number is not that of a certified network.

    Attributes:
        kind: The words that are equal for several trials with the same doubt.
        size: How large it is; of several, the largest is shown.
    """

    kind: str
    detail: str = ""
    size: float = 0.0

    @property
    def words(self) -> str:
        """The reason in words."""
        return f"{self.kind}{self.detail}"


Doubts = Mapping[str, tuple[Doubt, ...]]
"""The doubts about each trial, by trial id; a certified trial has none."""


def doubts(records: Sequence[TrialRecord]) -> Doubts:
    """Return the doubts about every trial.

    Gradients have the doubts about the learning trial that trained the network.
    """
    certificates = _certificates(records)
    by_id = {record.id: record for record in records}
    found = {}
    for record in records:
        source = by_id.get(str(record.trial.follows), record)
        certificate = certificates.get(record.trial.key(UNCERTIFIED))
        reasons = (
            _of_certificate(certificate),
            _of_another_setup(certificate, source),
            _of_read_back(source),
        )
        found[record.id] = tuple(reason for reason in reasons if reason is not None)
    return found


def words(found: Sequence[Sequence[Doubt]]) -> str | None:
    """Return the doubts about several trials in words, or None if there is none.

    Of each kind the largest is named, with the number of trials if not all have it.
    """
    kinds = group((doubt for each in found for doubt in each), lambda d: d.kind)
    parts = []
    for members in kinds.values():
        worst = max(members, key=lambda doubt: doubt.size)
        share = f" in {len(members)} of {len(found)}"
        parts.append(worst.words + (share if len(members) < len(found) else ""))
    return "; ".join(parts) or None


def wrong(found: Sequence[Doubt]) -> str | None:
    """Return the doubts that say that something else was computed, or None."""
    return words([[doubt for doubt in found if doubt.kind.startswith(_WRONG)]])


def _certificates(records: Sequence[TrialRecord]) -> dict[str, TrialRecord]:
    """Return the last certificate of each kind, or the last that ended ok."""
    parity = [record for record in records if record.trial.measure == "parity"]
    ordered = sorted(parity, key=lambda record: record.outcome == "ok")
    return {record.trial.key(UNCERTIFIED): record for record in ordered}


def _of_certificate(record: TrialRecord | None) -> Doubt | None:
    if record is None:
        return Doubt("not checked")
    if record.outcome != "ok":
        return Doubt("certificate: ", record.outcome.replace("_", " "))
    if number(record, "certificate", "certified") == 1:
        # The cell has no reference, so its implementation only agrees with itself.
        unproven = record.result.get("unproven")
        return Doubt("held against itself only") if unproven else None
    names = [check.name for check in checks_of(record) if check.broken]
    named = ", ".join(names[:MOST_CHECKS]) + (" …" if len(names) > MOST_CHECKS else "")
    return Doubt("broken: ", named or "see certificate")


def _of_another_setup(
    certificate: TrialRecord | None, record: TrialRecord
) -> Doubt | None:
    """Return a doubt if the certificate is of another processor or library version.

    Trials of one run may differ in them: a cluster has several machines, and libraries
    are upgraded between two commands.
    """
    if certificate is None or certificate.outcome != "ok":
        return None
    for name, what in _HOLDS_FOR.items():
        there, here = certificate.result.get(name), record.result.get(name)
        if there is not None and here is not None and there != here:
            return Doubt(f"certified {what} {there}, not {here}")
    return None


def _of_read_back(record: TrialRecord) -> Doubt | None:
    if record.trial.measure not in _READ_BACK or record.outcome not in COUNTED:
        return None
    ok = number(record, "readback", "ok")
    if ok == 1:
        return None
    if ok is None:
        return Doubt("not read back")
    error = number(record, "readback", "error")
    at = record.result.get("read_back_at")
    # Such an error was not measured: the answer had another shape, for example.
    by = "" if error is None or error >= 1e300 else f" by {error:.1e}"
    return Doubt("read-back differs", by + (f" ({at})" if at else ""), error or 0.0)
