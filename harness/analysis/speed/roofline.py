"""How much of the machine is used: peaks that were measured, and the roof they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.analysis.grouping import group
from harness.analysis.run import JudgedRun
from harness.analysis.speed.conditions import Conditions, conditions
from harness.store import TrialRecord


@dataclass(frozen=True)
class Peak:
    """The best rates that any installed library reached under the same conditions.

    Attributes:
        flop_by: The library that multiplied matrices at `flop_per_s`.
        copy_by: The library that copied memory at `copy_bytes_per_s`.
        flop_versions: Its version; None where only the trials beside it tell.
        flop_measured_at: In UTC, where `doctor` measured it before.
        flop_machine: How fit the machine was then: "fit", "noisy", "unfit".
    """

    flop_per_s: float | None
    flop_by: str | None
    copy_bytes_per_s: float | None
    copy_by: str | None
    flop_versions: str | None = None
    flop_measured_at: str | None = None
    flop_machine: str | None = None
    copy_versions: str | None = None
    copy_measured_at: str | None = None
    copy_machine: str | None = None

    def roof(self, intensity: float | None) -> float | None:
        """Return the most FLOP/s at an intensity in FLOP/byte, or None if unknown."""
        if self.flop_per_s is None:
            return None
        if intensity is None or self.copy_bytes_per_s is None:
            return None
        return min(self.flop_per_s, intensity * self.copy_bytes_per_s)

    def limit_machine(self, intensity: float | None) -> str | None:
        """Return how fit the machine was when the limit there was measured."""
        ridge = self.ridge
        if intensity is None or ridge is None or intensity >= ridge:
            return self.flop_machine
        return self.copy_machine

    @property
    def ridge(self) -> float | None:
        """The intensity in FLOP/byte from which arithmetic is the limit."""
        if self.flop_per_s is None or not self.copy_bytes_per_s:
            return None
        return self.flop_per_s / self.copy_bytes_per_s


@dataclass(frozen=True)
class PeakRow:
    """What was reached under the same conditions.

    Attributes:
        peak: The best of every session; None where none measured it.
        lowest: The worst of every session, where they differ.
        sessions: How many measured it.
    """

    conditions: Conditions
    peak: Peak | None
    lowest: Peak | None = None
    sessions: int = 0


def peak_of(record: TrialRecord) -> Peak | None:
    """Return the peak that was measured beside a trial, or None."""
    found = record.result.get("peak")
    if not isinstance(found, dict):
        return None
    peak = Peak(
        _rate(found.get("flop_per_s")),
        _name(found.get("flop_by")),
        _rate(found.get("copy_bytes_per_s")),
        _name(found.get("copy_by")),
        *(
            _name(found.get(f"{rate}_{what}"))
            for rate in ("flop", "copy")
            for what in ("versions", "measured_at", "machine")
        ),
    )
    known = peak.flop_per_s is not None or peak.copy_bytes_per_s is not None
    return peak if known else None


def peak_rows(run: JudgedRun) -> list[PeakRow]:
    """Return the peak of every conditions that something was timed under."""
    timed = [r for r in run.of("speed") if r.outcome == "ok"]
    return [
        _peak_row(alike, members) for alike, members in group(timed, conditions).items()
    ]


def _peak_row(alike: Conditions, records: Sequence[TrialRecord]) -> PeakRow:
    names = [str(record.result.get("framework") or "") for record in records]
    of_session = {
        session_of(record): _with_versions(peak_of(record), names) for record in records
    }
    found = [peak for peak in of_session.values() if peak is not None]
    if not found:
        return PeakRow(alike, None)
    if len(set(found)) == 1:
        return PeakRow(alike, found[0], None, len(found))
    return PeakRow(alike, _most(found, 1), _most(found, -1), len(found))


def _with_versions(peak: Peak | None, frameworks: Sequence[str]) -> Peak | None:
    """Return a peak with the versions that the trials beside it tell."""
    if peak is None:
        return None
    flop, copy = (
        told or next((f for f in frameworks if by and f.split(" ")[0] == by), None)
        for told, by in (
            (peak.flop_versions, peak.flop_by),
            (peak.copy_versions, peak.copy_by),
        )
    )
    return replace(peak, flop_versions=flop, copy_versions=copy)


def _most(peaks: Sequence[Peak], sign: int) -> Peak:
    """Return the highest rates, or with -1 the lowest, each with who reached it."""
    flop = max(
        (p for p in peaks if p.flop_per_s is not None),
        key=lambda p: sign * (p.flop_per_s or 0.0),
        default=UNKNOWN,
    )
    copy = max(
        (p for p in peaks if p.copy_bytes_per_s),
        key=lambda p: sign * (p.copy_bytes_per_s or 0.0),
        default=UNKNOWN,
    )
    return replace(
        flop,
        copy_bytes_per_s=copy.copy_bytes_per_s,
        copy_by=copy.copy_by,
        copy_versions=copy.copy_versions,
        copy_measured_at=copy.copy_measured_at,
        copy_machine=copy.copy_machine,
    )


UNKNOWN = Peak(None, None, None, None)


def session_of(record: TrialRecord) -> str | None:
    """Return the name of the session a trial was measured in, or None."""
    found = record.result.get("session") or record.trial.session
    return None if found is None else str(found)


def _rate(value: object) -> float | None:
    usable = isinstance(value, int | float) and value > 0
    return float(value) if usable else None  # type: ignore[arg-type]


def _name(value: object) -> str | None:
    return None if value is None else str(value)
