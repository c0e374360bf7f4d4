"""Run a plan on this machine: workers, stages, commits."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from harness.contract import Weights
from harness.registry import Registry
from harness.run.choice import Choice, admit, choose
from harness.run.client import WorkerDiedError, WorkerProcess
from harness.run.pipe import Message
from harness.run.plan import (
    LearningGroup,
    Plan,
    Planned,
    certificate_trial,
    gradients_trial,
    planned,
)
from harness.run.progress import Progress
from harness.store import Attempt, Reading, RunFolder, TrialRecord
from harness.trial import Trial


class StoppedError(Exception):
    """The run is being stopped; what was in flight is abandoned, not committed."""


@dataclass
class Executor:
    """Runs the stages of a plan and commits every trial as it ends.

    Args:
        run: Where results go.
        registry: Whose plugin files the workers read.
        jobs: Trials side by side, one thread each; speed runs alone whatever it is.
        progress: Told of every start, event and end.
        choices: Implementations chosen for learning; new choices are added.
        on_choice: Called after a choice was made, to write it down.
        certify: False to run what the plan holds without a certificate.
    """

    run: RunFolder
    registry: Registry
    jobs: int
    progress: Progress
    choices: dict[str, str]
    on_choice: Callable[[], None]
    certify: bool = True
    _crews: dict[int, Crew] = field(default_factory=dict)
    _workers: list[WorkerProcess] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    stopping: bool = False

    def execute(self, plan: Plan) -> None:
        """Run what is not done yet: certificates, speed, learning and gradients."""
        try:
            first = (*plan.parity, *plan.gradients)
            self._side_by_side([self._single(trial) for trial in first])
            for name, trials in plan.speed.items():
                self._run_session(name, [self._planned(trial) for trial in trials])
            self.progress.refine(plan)
            self._side_by_side(
                [self._learning(group, trial) for group, trial in self._chosen(plan)]
            )
        finally:
            for crew in self._crews.values():
                crew.close()
            self._crews.clear()

    def stop(self) -> None:
        """Kill every worker; unfinished trials are abandoned."""
        self.stopping = True
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            worker.kill()

    # --- stages ----------------------------------------------------------------------

    def _planned(self, trial: Trial) -> Planned:
        return planned(trial, self.registry, self.run)

    def _side_by_side(self, tasks: Sequence[Callable[[Crew], None]]) -> None:
        """Run tasks on `jobs` threads, each with workers of its own."""
        waiting: queue.SimpleQueue[Callable[[Crew], None]] = queue.SimpleQueue()
        for task in tasks:
            waiting.put(task)

        def work(crew: Crew) -> None:
            while not self.stopping:
                try:
                    task = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    task(crew)
                except StoppedError:
                    return

        with ThreadPoolExecutor(self.jobs) as pool:
            crews = [self._crew(slot) for slot in range(self.jobs)]
            futures: list[Future[None]] = [pool.submit(work, crew) for crew in crews]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
                for future in futures:
                    if future.done():
                        future.result()
            except BaseException:
                self.stop()
                raise

    def _crew(self, slot: int) -> Crew:
        """Return the crew of a slot, whose workers live until the plan is done."""
        return self._crews.setdefault(slot, Crew(self))

    def start_worker(self, kind: WorkerKind) -> WorkerProcess:
        """Start a worker that `stop` will know of."""
        with self._lock:
            if self.stopping:
                raise StoppedError
            environment = self.registry.frameworks[kind.framework].environment
            with (self.run.path / "workers.log").open("ab") as log:
                worker = WorkerProcess(
                    kind.threads, self.registry.files, log, environment
                )
            self._workers.append(worker)
        return worker

    def forget_worker(self, worker: WorkerProcess) -> None:
        """Stop knowing a worker that has ended."""
        with self._lock:
            if worker in self._workers:
                self._workers.remove(worker)

    def _single(self, trial: Trial) -> Callable[[Crew], None]:
        return lambda crew: self._measure(crew, self._planned(trial))

    # --- one trial at a time ---------------------------------------------------------

    def _measure(
        self, crew: Crew, todo: Planned, arrays: Weights | None = None
    ) -> None:
        if not todo.runs:
            self.progress.skipped(todo)
            return
        attempt = self._begin(todo)
        try:
            answer = crew.ask(todo, attempt, "measure", arrays)
        except BaseException:
            attempt.abandon()
            raise
        self._commit(todo, attempt, answer)

    def _begin(self, todo: Planned) -> Attempt:
        self.progress.started(todo)
        return self.run.begin(todo.trial, todo.id, todo.sources)

    def _commit(
        self,
        todo: Planned,
        attempt: Attempt,
        answer: Message,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        values = answer.values
        readings = [Reading.from_json(line) for line in values.get("readings", [])]
        result = {
            "outcome": values["outcome"],
            "reason": values["reason"],
            **values.get("facts", {}),
            **(facts or {}),
        }
        attempt.commit(result, readings, answer.arrays)
        self.progress.finished(
            todo,
            values["outcome"],
            values["reason"],
            readings,
            certified=self._is_certified(todo.trial),
        )

    def _is_certified(self, trial: Trial) -> bool:
        """Say whether a timing may stand without a mark; others need no certificate."""
        if trial.measure != "speed":
            return True
        certificate = self._find(certificate_trial(trial))
        speed = self._find(trial)
        return bool(
            certificate
            and certificate.value("certificate", "certified")
            and speed
            and (speed.outcome != "ok" or speed.value("readback", "ok"))
        )

    def _refuse(self, todo: Planned, outcome: str, reason: str) -> None:
        attempt = self._begin(todo)
        self._commit(todo, attempt, _ended(outcome, reason))

    # --- learning --------------------------------------------------------------------

    def _find(self, trial: Trial) -> TrialRecord | None:
        return self.run.read(self._planned(trial).id)

    def _chosen(self, plan: Plan) -> list[tuple[LearningGroup, Planned]]:
        """Return what learns, refusing what may not; each trial once."""
        chosen: dict[str, tuple[LearningGroup, Planned]] = {}
        refused = set()
        for group in plan.learning:
            choice = self._choice(group)
            todo = self._planned(choice.trial)
            if choice.refused is not None:
                if todo.runs and todo.id not in refused:
                    self._refuse(todo, choice.outcome, choice.refused)
                refused.add(todo.id)
                continue
            if todo.id in chosen:
                follow = chosen[todo.id][0].follow_gradients
                group = replace(
                    group, follow_gradients=follow or group.follow_gradients
                )
            chosen[todo.id] = (group, todo)
        return list(chosen.values())

    def _choice(self, group: LearningGroup) -> Choice:
        """Choose a group's implementation, once for all its seeds."""
        if group.on_each and not self.certify:
            return Choice(group.candidates[0])
        if group.on_each:
            return admit(group.candidates[0], self._find)
        name = self.choices.get(group.choice_key)
        earlier = [t for t in group.candidates if t.implementation == name]
        if earlier:
            return Choice(earlier[0])
        choice = choose(group, self._find, certify=self.certify)
        if choice.refused is None:
            self.choices[group.choice_key] = choice.trial.implementation
            self.on_choice()
        return choice

    def _learning(self, group: LearningGroup, todo: Planned) -> Callable[[Crew], None]:
        def work(crew: Crew) -> None:
            self._measure(crew, todo)
            if not group.follow_gradients:
                return
            follower = self._planned(gradients_trial(todo.trial, todo.id))
            learned = self.run.read(todo.id)
            outcome = learned.outcome if learned is not None else "nowhere"
            if outcome == "ok" or not follower.runs:
                self._measure(crew, follower, self.run.arrays(todo.id))
            elif outcome == "diverged":
                self._refuse(follower, "refused", "its learning trial diverged")
            else:
                self._refuse(follower, "failed", f"its learning trial ended {outcome}")

        return work

    # --- speed -----------------------------------------------------------------------

    def _run_session(self, name: str, trials: Sequence[Planned]) -> None:
        """Measure the undone trials of a session taking turns; commit them together."""
        todo = [trial for trial in trials if trial.runs]
        for trial in trials:
            if not trial.runs:
                self.progress.skipped(trial)
        if not todo:
            return
        session = f"{name}, {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())}"
        crew = self._crew(0)
        attempts = {trial.id: self._begin(trial) for trial in todo}
        try:
            answers = self._session_answers(crew, todo, attempts)
        except BaseException:
            self.stop()
            for attempt in attempts.values():
                attempt.abandon()
            raise
        for trial in todo:
            self._commit(
                trial, attempts[trial.id], answers[trial.id], {"session": session}
            )

    def _session_answers(
        self, crew: Crew, todo: Sequence[Planned], attempts: Mapping[str, Attempt]
    ) -> dict[str, Message]:
        """Measure trials taking turns; start again without one that kills a worker."""
        answers: dict[str, Message] = {}
        while left := [trial for trial in todo if trial.id not in answers]:
            answers |= _Session(crew, left, attempts, self.progress).answers()
        return answers


class _Session:
    """Trials whose meters are open at once and take turns."""

    def __init__(
        self,
        crew: Crew,
        todo: Sequence[Planned],
        attempts: Mapping[str, Attempt],
        progress: Progress,
    ) -> None:
        self._crew, self._todo, self._attempts = crew, todo, attempts
        self._progress = progress
        self._answers: dict[str, Message] = {}

    def answers(self) -> dict[str, Message]:
        """Return every answer, or those until a worker died with all its meters."""
        turns = []
        for trial in self._todo:
            opened = self._ask(trial, "open")
            if opened is not None:
                turns += [(trial, phase) for phase in opened.values["phases"]]
        rng = np.random.default_rng()
        rounds = max(int(t.trial.settings["rounds"]) for t in self._todo)
        for number in range(rounds):
            for index in rng.permutation(len(turns)):
                trial, phase = turns[index]
                self._ask(trial, "turn", phase)
            self._progress.round(self._todo, number + 1, rounds)
        for trial in self._todo:
            self._ask(trial, "close")
        return self._answers

    def _ask(
        self, trial: Planned, command: str, phase: str | None = None
    ) -> Message | None:
        """Return what is no end; an end is kept, and nobody is asked after a death."""
        died = any(a.values["outcome"] == "crashed" for a in self._answers.values())
        if died or trial.id in self._answers:
            return None
        answer = self._crew.ask(trial, self._attempts[trial.id], command, phase=phase)
        if answer.values["kind"] in ("opened", "turned"):
            return answer
        self._answers[trial.id] = answer
        return None


@dataclass(frozen=True)
class WorkerKind:
    """What is settled when a worker starts: its framework, threads and precision."""

    framework: str
    threads: int
    precision: str


class Crew:
    """The live workers of one slot, one of each kind."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._workers: dict[WorkerKind, WorkerProcess] = {}

    def _kind(self, trial: Trial) -> WorkerKind:
        registry = self._executor.registry
        framework = registry.framework_of(trial.implementation).name
        if trial.measure == "gradients" and registry.cell(trial.cell).reference:
            framework = "numpy"
        return WorkerKind(framework, trial.threads, trial.precision)

    def ask(
        self,
        todo: Planned,
        attempt: Attempt,
        command: str,
        arrays: Weights | None = None,
        phase: str | None = None,
    ) -> Message:
        """Ask the worker of a trial's framework; a death is an answer too.

        Raises:
            StoppedError: If the run was stopped meanwhile.
        """
        kind = self._kind(todo.trial)
        if kind not in self._workers:
            self._workers[kind] = self._executor.start_worker(kind)
        worker = self._workers[kind]
        message = None
        try:
            for message in worker.ask(
                command, todo.id, todo.trial, attempt.log, arrays, phase
            ):
                if message.values["kind"] == "event":
                    reading = Reading.from_json(message.values["reading"])
                    attempt.write(reading)
                    self._executor.progress.event(todo, reading)
        except WorkerDiedError as error:
            self._drop(kind)
            if self._executor.stopping:
                raise StoppedError from None
            return _ended(error.outcome, error.reason)
        assert message is not None
        return message

    def _drop(self, kind: WorkerKind) -> None:
        worker = self._workers.pop(kind)
        worker.kill()
        self._executor.forget_worker(worker)

    def close(self) -> None:
        """Let every worker end."""
        for worker in self._workers.values():
            worker.close()
            self._executor.forget_worker(worker)
        self._workers.clear()


def _ended(outcome: str, reason: str) -> Message:
    return Message({"kind": "error", "outcome": outcome, "reason": reason})
