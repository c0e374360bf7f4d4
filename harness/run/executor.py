"""Run a plan, stage by stage, on an engine, and commit every trial as it ends."""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any

from harness.contract import Weights
from harness.measure import MEASURES
from harness.registry import Registry
from harness.run.job import (
    DEFAULT_OPTIONS,
    Answer,
    Engine,
    Job,
    Options,
    Sink,
    Start,
    StoppedError,
)
from harness.run.plan.choice import Choice, admit, choose
from harness.run.plan.derived import certificate_trial, gradients_trial
from harness.run.plan.expand import LearningGroup
from harness.run.plan.plan import Plan
from harness.run.plan.todo import Planned, planned
from harness.run.progress import Progress
from harness.store import Attempt, Checkpoint, Reading, RunFolder, TrialRecord
from harness.trial import Trial

Work = Callable[[int], None]
"""Something to do on the slot of a number."""


@dataclass
class Executor:
    """Runs the stages of a plan and commits every trial as it ends.

    Args:
        run: Where results go.
        registry: Knows every plugin's source.
        engine: Where trials run.
        progress: Told of every start, event and end.
        choices: Implementations chosen for learning; new choices are added.
        on_choice: Called after a choice was made, to write it down.
        options: Of the run.
    """

    run: RunFolder
    registry: Registry
    engine: Engine
    progress: Progress
    choices: dict[str, str]
    on_choice: Callable[[], None]
    options: Options = DEFAULT_OPTIONS
    stopping: bool = False
    _redone: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def execute(self, plan: Plan) -> None:
        """Run what is not done yet: certificates, speed, learning and gradients."""
        try:
            first = [self._single(trial) for trial in plan.first]
            self._side_by_side(first, self.engine.slots)
            sessions = [self._session(name, t) for name, t in plan.speed.items()]
            self._side_by_side(sessions, self.engine.quiet_slots)
            self.progress.refine(plan)
            learning = [self._learning(group, t) for group, t in self._chosen(plan)]
            self._side_by_side(learning, self.engine.slots)
        finally:
            self.engine.close()

    def stop(self, *, now: bool) -> None:
        """Start nothing more; have what runs end soon, or `now` and uncommitted."""
        self.stopping = True
        self.engine.stop(now=now)

    # --- stages ----------------------------------------------------------------------

    def _planned(self, trial: Trial) -> Planned:
        return planned(trial, self.registry, self.run, self.options)

    def _side_by_side(self, work: Sequence[Work], slots: int) -> None:
        """Do all the work on a number of slots, each on a thread of its own."""
        waiting: queue.SimpleQueue[Work] = queue.SimpleQueue()
        for item in work:
            waiting.put(item)

        def serve(slot: int) -> None:
            while not self.stopping:
                try:
                    item = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    item(slot)
                except StoppedError:
                    return

        with ThreadPoolExecutor(slots) as pool:
            futures: list[Future[None]] = [pool.submit(serve, s) for s in range(slots)]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
                for future in futures:
                    if future.done():
                        future.result()
            except BaseException:
                self.stop(now=True)
                raise

    def _single(self, trial: Trial) -> Work:
        return lambda slot: self._measure(slot, self._planned(trial))

    # --- one trial at a time ---------------------------------------------------------

    def _measure(self, slot: int, todo: Planned, arrays: Weights | None = None) -> None:
        if not self._runs(todo):
            self.progress.skipped(todo)
            return
        found = None
        if MEASURES[todo.trial.measure].has_updates and not self.options.force:
            found = self.run.checkpoint(todo.id)
        attempt = self._begin(todo, found)
        start = None if found is None else Start(found.state, found.arrays)
        job = Job({todo.id: todo.trial}, arrays=arrays or {}, start=start)
        self._run(slot, job, {todo.id: (todo, attempt)})

    def _runs(self, todo: Planned) -> bool:
        """Say whether a trial has to run; one that was run by this command has not."""
        with self._lock:
            return todo.runs and todo.id not in self._redone

    def _begin(self, todo: Planned, found: Checkpoint | None = None) -> Attempt:
        self.progress.started(todo)
        return self.run.begin(todo.trial, todo.id, todo.sources, resume=found)

    def sink(self, attempts: Mapping[str, tuple[Planned, Attempt]]) -> Sink:
        """Return what writes a job's news to its attempts, and tells of them."""
        return _Sink(attempts, self.progress)

    def _run(
        self,
        slot: int,
        job: Job,
        attempts: Mapping[str, tuple[Planned, Attempt]],
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Run a job and commit its trials; a stopped one is left to go on later."""
        try:
            answers = self.engine.run(job, slot, self.sink(attempts))
        except BaseException:
            for _, attempt in attempts.values():
                attempt.abandon()
            raise
        for trial_id, (todo, attempt) in attempts.items():
            answer = answers[trial_id]
            if answer.outcome == "stopped":
                attempt.abandon()
                raise StoppedError
            self._commit(
                todo, attempt, replace(answer, facts={**answer.facts, **(facts or {})})
            )

    def _commit(self, todo: Planned, attempt: Attempt, answer: Answer) -> None:
        result = {"outcome": answer.outcome, "reason": answer.reason, **answer.facts}
        if answer.outcome != "ok" and self.run.outcome_or_damage(todo.id)[0] == "ok":
            # Measured anew for the others of its session: what is good stays.
            attempt.abandon()
            with self._lock:
                self._redone.add(todo.id)
            reason = f"{answer.reason}; its earlier result stays"
            self.progress.finished(todo, answer.outcome, reason, ())
            return
        stored = attempt.commit(result, answer.readings, answer.arrays)
        with self._lock:
            self._redone.add(todo.id)
        self.progress.finished(
            todo,
            answer.outcome,
            answer.reason,
            answer.readings,
            certified=self._is_certified(todo.trial),
            facts=stored,
        )

    def _is_certified(self, trial: Trial) -> bool:
        """Say whether what was timed or learned may stand without a mark."""
        if not MEASURES[trial.measure].read_back:
            return True
        certificate = self._find(certificate_trial(trial))
        found = self._find(trial)
        return bool(
            certificate
            and certificate.value("certificate", "certified")
            and found
            and (found.outcome != "ok" or found.value("readback", "ok"))
        )

    def _refuse(self, todo: Planned, outcome: str, reason: str) -> None:
        self._commit(todo, self._begin(todo), Answer(outcome, reason))

    # --- learning --------------------------------------------------------------------

    def _find(self, trial: Trial) -> TrialRecord | None:
        return self.run.read(self._planned(trial).id)

    def _chosen(self, plan: Plan) -> list[tuple[LearningGroup, Planned]]:
        """Return what learns, refusing what may not; each trial once."""
        chosen: dict[str, tuple[LearningGroup, Planned]] = {}
        for group in plan.learning:
            choice = self._choice(group)
            todo = self._planned(choice.trial)
            if choice.refused is not None:
                if self._runs(todo):
                    self._refuse(todo, choice.outcome, choice.refused)
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
        if group.on_each and not self.options.certify:
            return Choice(group.candidates[0])
        if group.on_each:
            return admit(group.candidates[0], self._find)
        name = self.choices.get(group.choice_key)
        earlier = [t for t in group.candidates if t.implementation == name]
        if earlier:
            return Choice(earlier[0])
        choice = choose(group, self._find, certify=self.options.certify)
        if choice.refused is None:
            self.choices[group.choice_key] = choice.trial.implementation
            self.on_choice()
        return choice

    def _learning(self, group: LearningGroup, todo: Planned) -> Work:
        def work(slot: int) -> None:
            again = self._runs(todo)
            self._measure(slot, todo)
            if not group.follow_gradients:
                return
            follower = self._planned(gradients_trial(todo.trial, todo.id))
            if again:  # what follows new weights is new too
                follower = replace(follower, runs=True)
            learned = self.run.read(todo.id)
            outcome = learned.outcome if learned is not None else "nowhere"
            if outcome == "ok" or not follower.runs:
                self._measure(slot, follower, self.run.arrays(todo.id))
            elif outcome == "diverged":
                self._refuse(follower, "refused", "its learning trial diverged")
            else:
                self._refuse(follower, "failed", f"its learning trial ended {outcome}")

        return work

    # --- speed -----------------------------------------------------------------------

    def _session(self, name: str, trials: Sequence[Trial]) -> Work:
        def work(slot: int) -> None:
            todo = [self._planned(trial) for trial in trials]
            if not any(trial.runs for trial in todo):
                for trial in todo:
                    self.progress.skipped(trial)
                return
            facts = {"session": session_name(name)}
            attempts = {trial.id: (trial, self._begin(trial)) for trial in todo}
            job = Job({trial.id: trial.trial for trial in todo}, session=True)
            self._run(slot, job, attempts, facts)

        return work


def session_name(name: str) -> str:
    """Return a name that no other session has: two may begin in one second."""
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    return f"{name}, {now} {uuid.uuid4().hex[:6]}"


class _Sink:
    """Writes a job's news to its attempts, and tells of them."""

    def __init__(
        self, attempts: Mapping[str, tuple[Planned, Attempt]], progress: Progress
    ) -> None:
        self._attempts, self._progress = attempts, progress

    def begins(self, trial_id: str, *, resumed: bool) -> None:
        todo, attempt = self._attempts[trial_id]
        attempt.restart(resumed=resumed)
        self._progress.begins(todo, resumed=resumed)

    def event(self, trial_id: str, reading: Reading) -> None:
        todo, attempt = self._attempts[trial_id]
        attempt.write(reading)
        self._progress.event(todo, reading)

    def checkpoint(
        self, trial_id: str, state: Mapping[str, Any], arrays: Weights
    ) -> None:
        _, attempt = self._attempts[trial_id]
        attempt.checkpoint(state, arrays)

    def log(self, trial_id: str, data: bytes) -> None:
        _, attempt = self._attempts[trial_id]
        attempt.write_log(data)

    def round(self, number: int, rounds: int) -> None:
        self._progress.round(self._todo(), number, rounds)

    def waits(self, for_what: str | None) -> None:
        if for_what is None:
            for _, attempt in self._attempts.values():
                attempt.waited()
        self._progress.waits(self._todo(), for_what)

    def _todo(self) -> list[Planned]:
        return [todo for todo, _ in self._attempts.values()]
