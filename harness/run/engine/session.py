"""Jobs on one machine: one trial beside others, or a session that is timed alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.machine.fitness import fitness_of_machine
from harness.machine.lock import measuring
from harness.run.engine.peaks import PeakKey
from harness.run.engine.pool import Request, WorkerPool, broke_limit_with_others
from harness.run.engine.turns import time_in_turns
from harness.run.job import Answer, Job, Round, Sink, Waits
from harness.run.worker.process import WorkerProcess
from harness.trial import Trial

SESSION_WATCH_S = 0.5
"""How long the machine is watched before each session."""


@dataclass(frozen=True)
class Part:
    """The trials of a session that the workers of one pool measure, by trial id."""

    pool: WorkerPool
    trials: Mapping[str, Trial]
    sink: Sink


def run_job(pool: WorkerPool, job: Job, sink: Sink) -> Mapping[str, Answer]:
    """Run a job and return the answer of each trial by its id.

    Raises:
        StoppedError: If the pool was stopped with `now` meanwhile, or at all while the
            job waited for the machine.
    """
    part = Part(pool, job.trials, sink)
    if job.session:
        (answers,) = run_session([part])
        return answers
    with _on_this_machine([part], alone=False):
        return pool.measure(job, sink)


def run_session(parts: Sequence[Part]) -> list[dict[str, Answer]]:
    """Time the trials of all parts taking turns, with nothing beside them.

    A run has one part; a gate has one for each side. The last pool measures the peaks.

    Returns:
        For each part the answers by trial id. Beside what a trial found they hold how
        fit the machine was before, and the peak of the session's libraries.
    """
    trials = [trial for part in parts for trial in part.trials.values()]
    with _on_this_machine(parts, alone=True):
        device = next((t.device for t in trials if t.device != "cpu"), "cpu")
        fitness = fitness_of_machine(device, SESSION_WATCH_S)
        answers = _take_turns(parts)
        ok = [
            part.trials[id]
            for part, found in zip(parts, answers, strict=True)
            for id, answer in found.items()
            if answer.outcome == "ok"
        ]
        peaks = parts[-1].pool.peaks(ok, fitness.verdict)

    def with_facts(answer: Answer, trial: Trial) -> Answer:
        peak = peaks.get(PeakKey.of(trial))
        facts = {"fitness": fitness.to_json()}
        facts |= {"peak": peak.to_json()} if peak is not None else {}
        return replace(answer, facts={**answer.facts, **facts})

    return [
        {id: with_facts(answer, part.trials[id]) for id, answer in found.items()}
        for part, found in zip(parts, answers, strict=True)
    ]


@contextlib.contextmanager
def _on_this_machine(parts: Sequence[Part], *, alone: bool) -> Iterator[None]:
    """Hold this machine's lock; say once that it is waited for."""

    def waits(for_what: str | None) -> None:
        for part in parts if for_what is None else parts[-1:]:
            part.sink(Waits(for_what))

    def check() -> None:
        for part in parts:
            part.pool.check_running()

    with measuring(alone=alone, waits=waits, check=check):
        yield


def _take_turns(parts: Sequence[Part]) -> list[dict[str, Answer]]:
    """Time the trials of all parts in fresh workers, so that first calls are first."""
    meters = [{id: _WorkerMeter(part, id) for id in part.trials} for part in parts]

    def on_round(number: int, rounds: int) -> None:
        for part in parts:
            part.sink(Round(number, rounds))

    for part in parts:
        part.pool.renew(part.trials.values())
    try:
        answers = time_in_turns(
            {
                f"{number} {id}": meter
                for number, of_part in enumerate(meters)
                for id, meter in of_part.items()
            },
            on_round,
        )
    finally:
        for of_part in meters:
            for meter in of_part.values():
                meter.close()
    return [
        {id: answers[f"{number} {id}"] for id in of_part}
        for number, of_part in enumerate(meters)
    ]


class _WorkerMeter:
    """The meter of one trial in a worker of its part's pool."""

    def __init__(self, part: Part, trial_id: str) -> None:
        self._pool, self._sink, self._id = part.pool, part.sink, trial_id
        self.trial = part.trials[trial_id]
        self._kind = part.pool.kind(self.trial)
        self._built_in: set[WorkerProcess | None] = set()
        self._built_before = False
        self._answer: Answer | None = None

    def ask(
        self, command: str, phase: str | None = None, number: int = 0
    ) -> Answer | tuple[Any, ...]:
        if command == "warm":
            # A session is begun again when a worker dies; another worker that lives on
            # has built this trial before, and its first call is then not a first one.
            worker = self._pool.worker(self._kind)
            self._built_before = worker in self._built_in
            self._built_in.add(worker)
        request = Request(
            command, self._id, self.trial, self._kind, phase=phase, number=number
        )
        found = self._pool.ask(request, self._sink)
        if isinstance(found, Answer):
            if self._built_before:
                found = replace(found, facts={**found.facts, "built_before": True})
            self._answer = found
        return found

    def is_final(self, answer: Answer) -> bool:
        if not broke_limit_with_others(answer):
            return True
        self._kind = replace(self._kind, own=self._id)
        return False

    def close(self) -> None:
        """End a worker that is this trial's own, or whose trial did not end ok."""
        ok = self._answer is None or self._answer.outcome == "ok"
        if self._kind.own or not ok:
            self._pool.drop(self._kind)
