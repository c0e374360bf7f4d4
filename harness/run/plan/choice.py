"""Choose the implementation on which a cell learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.run.plan.derived import certificate_trial, timed_trial
from harness.run.plan.expand import LearningGroup
from harness.store import TrialRecord
from harness.trial import Trial

Find = Callable[[Trial], TrialRecord | None]


@dataclass(frozen=True)
class Choice:
    """The chosen trial, or the reason why none could be chosen.

    Attributes:
        outcome: The outcome of a trial that cannot be chosen.
    """

    trial: Trial
    refused: str | None = None
    outcome: str = "failed"


def choose(group: LearningGroup, find: Find, *, certify: bool = True) -> Choice:
    """Choose the candidate that is certified and has the fastest update.

    Certified implementations compute the same mathematics, so the cell learns the same
    on each of them. Their rounding differs, and two may be equally fast: naming one in
    `learn_on` makes curves repeat to the last digit.

    Args:
        group: Candidates that differ only in the implementation.
        find: Returns the finished record of a trial.
        certify: False if the run makes no certificates.
    """
    times: dict[str, tuple[float, Trial]] = {}
    reasons: list[str] = []
    for trial in group.candidates:
        found = _update_time(trial, find, certify)
        if isinstance(found, str):
            reasons.append(found)
        else:
            times[trial.implementation] = (found, trial)
    for name in group.learn_on:
        if name in times:
            return Choice(times[name][1])
    if times:
        return Choice(min(times.values(), key=lambda pair: pair[0])[1])
    return Choice(
        group.candidates[0], f"no certified implementation: {'; '.join(reasons)}"
    )


def admit(trial: Trial, find: Find) -> Choice:
    """Choose a trial if its implementation is certified, and refuse it otherwise.

    If the certificate has no verdict, the trial ends as its certificate did.
    """
    certificate = find(certificate_trial(trial))
    reason = _not_certified(trial, certificate)
    ended = certificate.outcome if certificate is not None else "failed"
    return Choice(trial, reason, "refused" if ended == "ok" else ended)


def _update_time(trial: Trial, find: Find, certify: bool) -> float | str:
    """Return the seconds of an update, or why an implementation cannot be chosen."""
    name = trial.implementation
    reason = _not_certified(trial, find(certificate_trial(trial))) if certify else None
    if reason is not None:
        return reason
    speed = find(timed_trial(trial))
    time_s = speed.value("train_step", "time_s") if speed is not None else None
    if speed is None or time_s is None:
        why = f" ({speed.reason})" if speed is not None and speed.reason else ""
        return f"{name} could not be timed{why}"
    if not speed.value("readback", "ok"):
        return f"{name} computed something else when it was timed"
    return float(time_s)


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
