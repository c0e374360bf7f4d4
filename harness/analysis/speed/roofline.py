"""Measured peaks of a machine, which set the roof of its timings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.analysis.grouping import group
from harness.analysis.run import JudgedRun
from harness.analysis.speed.conditions import conditions_of
from harness.machine.peak import Peak, Rate, best_of
from harness.store import TrialRecord
from harness.trial import Conditions


@dataclass(frozen=True)
class PeakRow:
    """The highest rates that were measured under the same conditions.

    Attributes:
        peak: The highest of all sessions; None if no session measured it.
        lowest: The lowest of all sessions, if they differ.
        sessions: Number of sessions that measured it.
    """

    conditions: Conditions
    peak: Peak | None
    lowest: Peak | None = None
    sessions: int = 0


def peak_of(record: TrialRecord) -> Peak | None:
    """Return the peak that was measured beside a trial, or None."""
    found = record.result.get("peak")
    if not isinstance(found, dict) or not found.get("flop_per_s"):
        return None
    return Peak.from_json(found)


def peak_json(peak: Peak) -> dict[str, Any]:
    """Return a peak as JSON values, None for what is unknown."""
    facts = peak.facts()
    return {key: facts[key] for key in facts if key not in ("size", "copy_bytes")}


def peak_rows(run: JudgedRun) -> list[PeakRow]:
    """Return a row for all conditions under which something was timed."""
    timed = [r for r in run.of("speed") if r.outcome == "ok"]
    return [
        _peak_row(alike, members)
        for alike, members in group(timed, conditions_of).items()
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
    return PeakRow(alike, best_of(found), best_of(found, min), len(found))


def _with_versions(peak: Peak | None, frameworks: Sequence[str]) -> Peak | None:
    """Return a peak with the versions of its libraries, if `frameworks` has them."""
    known = {name.split(" ")[0]: name for name in reversed(frameworks) if name}

    def named(rate: Rate) -> Rate:
        return replace(rate, versions=rate.versions or known.get(rate.library or ""))

    return peak and Peak(named(peak.flop), peak.copy and named(peak.copy))


def session_of(record: TrialRecord) -> str | None:
    """Return the name of the session a trial was measured in, or None."""
    found = record.result.get("session") or record.trial.session
    return None if found is None else str(found)
