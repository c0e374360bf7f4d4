"""Run a job on one machine: a single trial, or a session that is timed alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.machine.fitness import fitness_of_machine
from harness.machine.lock import measuring
from harness.run.engine.pool import WorkerPool
from harness.run.engine.turns import time_in_turns
from harness.run.job import Answer, Job, Round, Sink, Waits
from harness.run.worker.process import Request, WorkerProcess
from harness.trial import Conditions, Trial

SESSION_WATCH_S = 0.5
"""How long the machine is watched before each session."""


@dataclass(frozen=True)
class PoolTrials:
    """The trials of a session, by trial id, that the workers of one pool measure."""

    pool: WorkerPool
    trials: Mapping[str, Trial]
    sink: Sink


def run_job(pool: WorkerPool, job: Job, sink: Sink) -> Mapping[str, Answer]:
    """Run a job and return the answer of each trial by its id.

    Raises:
        StoppedError: If the pool was stopped with `now`, or in any way while the job
            waited for the machine.
    """
    group = PoolTrials(pool, job.trials, sink)
    if job.session:
        return run_session([group])
    with _on_this_machine([group], alone=False):
        return pool.measure(job, sink)


def run_session(groups: Sequence[PoolTrials]) -> dict[str, Answer]:
    """Time the trials of all groups taking turns, with nothing else on the machine.

    A run has one group; a gate has one for each side, and their trials have different
    ids because their sources differ. The last pool measures the peaks.

    Returns:
        The answers by trial id. Each also says how fit the machine was before the
        session, and the peak of the session's libraries.
    """
    trials = {id: trial for group in groups for id, trial in group.trials.items()}
    with _on_this_machine(groups, alone=True):
        device = next((t.device for t in trials.values() if t.device != "cpu"), "cpu")
        fitness = fitness_of_machine(device, SESSION_WATCH_S)
        answers = _take_turns(groups)
        ok = [trials[id] for id, answer in answers.items() if answer.outcome == "ok"]
        peaks = groups[-1].pool.peaks(ok, fitness.verdict)
    for id, answer in answers.items():
        peak = peaks.get(Conditions.of(trials[id]))
        facts = {**answer.facts, "fitness": fitness.to_json()}
        if peak is not None:
            facts["peak"] = peak.to_json()
        answers[id] = replace(answer, facts=facts)
    return answers


@contextlib.contextmanager
def _on_this_machine(groups: Sequence[PoolTrials], *, alone: bool) -> Iterator[None]:
    """Hold this machine's lock; report once that the groups wait for it."""

    def waits(for_what: str | None) -> None:
        for group in groups if for_what is None else groups[-1:]:
            group.sink(Waits(for_what))

    def check() -> None:
        for group in groups:
            group.pool.check_running()

    with measuring(alone=alone, waits=waits, check=check):
        yield


def _take_turns(groups: Sequence[PoolTrials]) -> dict[str, Answer]:
    """Time the trials of all groups in fresh workers, so that first calls are first."""
    meters = {id: _WorkerMeter(group, id) for group in groups for id in group.trials}

    def on_round(number: int, rounds: int) -> None:
        for group in groups:
            group.sink(Round(number, rounds))

    for group in groups:
        group.pool.renew(group.trials.values())
    try:
        return time_in_turns(meters, on_round)
    finally:
        for meter in meters.values():
            meter.close()


class _WorkerMeter:
    """The meter of one trial in a worker of its group's pool."""

    def __init__(self, group: PoolTrials, trial_id: str) -> None:
        self._pool, self._sink, self._id = group.pool, group.sink, trial_id
        self.trial = group.trials[trial_id]
        self._kind = group.pool.kind(self.trial)
        self._built_in: set[WorkerProcess | None] = set()
        self._built_before = False
        self._answer: Answer | None = None

    def ask(
        self, command: str, phase: str | None = None, number: int = 0
    ) -> Answer | tuple[Any, ...]:
        if command == "open":  # by now it may have a process of its own
            self._kind = self._pool.kind(self.trial)
        if command == "warm":
            # When a worker dies the session starts again. A worker that survived has
            # built this trial before, so that its next call is not a first call.
            worker = self._pool.worker(self._kind)
            self._built_before = worker in self._built_in
            self._built_in.add(worker)
        request = Request(command, self._id, self.trial, phase, number)
        found = self._pool.ask(self._kind, request, self._sink)
        if isinstance(found, Answer):
            if self._built_before:
                found = replace(found, facts={**found.facts, "built_before": True})
            self._answer = found
        return found

    def is_final(self, answer: Answer) -> bool:
        return not answer.in_doubt

    def close(self) -> None:
        """End the worker if nobody else may use it.

        It serves this trial alone, or the trial did not end ok, or its process was
        changed when a meter was closed.
        """
        bad = self._answer is not None and self._answer.outcome != "ok"
        if bad or self._pool.is_changed(self._kind):
            self._pool.drop(self._kind)
