"""Which implementation learning runs on: the fastest certified one, chosen once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.run.plan import LearningGroup, certificate_trial, timed_trial
from harness.store import TrialRecord
from harness.trial import Trial

Find = Callable[[Trial], TrialRecord | None]


@dataclass(frozen=True)
class Choice:
    """The chosen trial, or why none could be chosen."""

    trial: Trial
    refused: str | None = None


def choose(group: LearningGroup, find: Find) -> Choice:
    """Choose among a group's candidates by certificate and timed update.

    Because certified implementations compute the same mathematics, what is learned
    belongs to the cell whichever of them runs it.

    Args:
        group: Candidates that differ in nothing but the implementation.
        find: Returns the finished record of a trial.
    """
    times: list[tuple[float, Trial]] = []
    reasons: list[str] = []
    for trial in group.candidates:
        reason = _not_certified(trial, find(certificate_trial(trial)))
        speed = find(timed_trial(trial))
        time_s = speed.value("train_step", "time_s") if speed is not None else None
        if reason is None and time_s is None:
            reason = f"{trial.implementation} could not be timed"
            if speed is not None and speed.reason:
                reason = f"{reason} ({speed.reason})"
        elif reason is None and speed is not None and not speed.value("readback", "ok"):
            reason = f"{trial.implementation} computed something else when it was timed"
        if reason is None and time_s is not None:
            times.append((float(time_s), trial))
        elif reason is not None:
            reasons.append(reason)
    if times:
        return Choice(min(times, key=lambda pair: pair[0])[1])
    return Choice(
        group.candidates[0], f"no certified implementation: {'; '.join(reasons)}"
    )


def _not_certified(trial: Trial, certificate: TrialRecord | None) -> str | None:
    name = trial.implementation
    if certificate is None:
        return f"{name} has no certificate"
    if certificate.outcome != "ok":
        return certificate.reason or f"the certificate of {name} ended badly"
    if certificate.value("certificate", "certified"):
        return None
    broken = certificate.value("certificate", "broken")
    checks = certificate.value("certificate", "checks")
    return f"{name} is not certified ({broken} of {checks} checks broken)"
