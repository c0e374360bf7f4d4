"""Say whether a trial is done already, or why it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.registry import Registry
from harness.run.job import DEFAULT_OPTIONS, Options
from harness.run.plan.fingerprint import CERTIFIED_WITH, source_hashes
from harness.run.worker.outcome import KEPT
from harness.store import NewerError, RunFolder
from harness.trial import Trial

OTHER_ID = "its id is of an earlier version of rnn-harness; measured again"
"""Why a trial runs although the folder holds it, under another id."""


@dataclass(frozen=True)
class Planned:
    """A trial with its id, whether it will run, and why.

    Attributes:
        why: "new", "done", "ended crashed before", "the source of cell gru changed" …
        is_newer: Whether a newer version of rnn-harness measured it. Nothing replaces
            its result, even if other trials of its session run again.
    """

    trial: Trial
    id: str
    sources: Mapping[str, str]
    runs: bool
    why: str
    is_newer: bool = False


def planned(
    trial: Trial,
    registry: Registry,
    run: RunFolder,
    options: Options = DEFAULT_OPTIONS,
) -> Planned:
    """Say whether a trial has to run, and why.

    Args:
        trial: The trial.
        registry: Knows the source of every plugin.
        run: The run folder that may hold its result.
        options: Whether failed trials, or all, run again; by default neither.
    """
    sources = source_hashes(registry, trial)
    trial_id = trial.identity(sources)
    try:
        outcome, damage = run.outcome_or_damage(trial_id)
    except NewerError as error:
        why = f"{error.what}; {error.advice}"
        return Planned(trial, trial_id, sources, False, why, is_newer=True)
    if damage is not None:
        runs, why = True, f"its result is damaged ({damage})"
    elif outcome is None:
        runs, why = True, _why_new(trial, trial_id, sources, run)
    elif options.force:
        runs, why = True, f"ended {outcome} before; --force runs it again"
    elif outcome in KEPT:
        runs, why = False, f"done ({outcome})"
    elif outcome == "unavailable" and registry.unavailable(trial.implementation):
        runs, why = False, "is still unavailable"
    elif outcome == "unavailable":
        runs, why = True, "was unavailable before, and is available here"
    elif options.retry_failed:
        runs, why = True, f"ended {outcome} before; --retry-failed runs it again"
    else:
        runs, why = False, f"ended {outcome} before; run again with --retry-failed"
    return Planned(trial, trial_id, sources, runs, why)


def _why_new(
    trial: Trial, trial_id: str, sources: Mapping[str, str], run: RunFolder
) -> str:
    if (run.trials / trial_id).exists():
        return "was interrupted before it was done"
    begun = run.begun(trial)
    current = [b for b in begun if b.trial.identity(b.sources) == b.id]
    if not current:
        return OTHER_ID if begun else "new"
    earlier = current[0].sources
    changed = [name for name in sources if earlier.get(name) != sources[name]]
    return f"{', '.join(map(_changed, changed)) or 'the trial that it follows'} changed"


def _changed(name: str) -> str:
    return name if name in CERTIFIED_WITH else f"the source of {name}"
