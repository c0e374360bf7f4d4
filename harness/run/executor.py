"""Run a plan, stage by stage, on an engine, and commit every trial as it ends."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any

from harness.contract import Weights
from harness.measure import MEASURES
from harness.run.job import (
    DEFAULT_OPTIONS,
    Answer,
    Begins,
    Checkpointed,
    Engine,
    Event,
    Job,
    News,
    Options,
    Printed,
    Round,
    Start,
    StoppedError,
    Waits,
)
from harness.run.plan.choice import Choice, admit, choose
from harness.run.plan.derived import certificate_trial, gradients_trial
from harness.run.plan.expand import LearningGroup
from harness.run.plan.plan import Plan
from harness.run.plan.todo import Planned
from harness.run.progress import Progress
from harness.store import Attempt, Checkpoint, RunFolder, TrialRecord
from harness.trial import Trial

Work = Callable[[], None]


class Attempts:
    """Attempts at the trials of one job: its `Sink`. An error abandons all of them.

    Args:
        of: Each trial and its attempt, by trial id.
        progress: Shows the news.
    """

    def __init__(
        self, of: Mapping[str, tuple[Planned, Attempt]], progress: Progress
    ) -> None:
        self.of, self._progress = of, progress
        self.trials = {trial_id: todo.trial for trial_id, (todo, _) in of.items()}

    def __enter__(self) -> Attempts:
        return self

    def __exit__(self, error: type[BaseException] | None, *more: object) -> None:
        if error is not None:
            for _, attempt in self.of.values():
                attempt.abandon()

    def __call__(self, news: News) -> None:
        """Write the news of the job to its attempts, and show them."""
        every = [todo for todo, _ in self.of.values()]
        match news:
            case Round():
                self._progress.round(every, news.number, news.rounds)
            case Waits():
                if news.for_what is None:
                    for _, attempt in self.of.values():
                        attempt.waited()
                self._progress.waits(every, news.for_what)
            case _:
                self._of_one(news, *self.of[news.trial_id])

    def _of_one(
        self,
        news: Begins | Event | Checkpointed | Printed,
        todo: Planned,
        attempt: Attempt,
    ) -> None:
        match news:
            case Begins():
                attempt.restart(resumed=news.resumed)
                self._progress.begins(todo, resumed=news.resumed)
            case Event():
                attempt.write(news.reading)
                self._progress.event(todo, news.reading)
            case Checkpointed():
                attempt.checkpoint(news.start.state, news.start.arrays)
            case Printed():
                attempt.write_log(news.data)


@dataclass
class Executor:
    """Runs the stages of a plan and commits every trial as it ends.

    Args:
        run: Where results are stored.
        planned: Says whether a trial has to run, and under which id.
        engine: Where trials run.
        progress: Shows every start, event and end.
        choices: Implementations chosen for learning; new choices are added.
        on_choice: Called after a choice was made, to write it down.
        options: Of the run.
    """

    run: RunFolder
    planned: Callable[[Trial], Planned]
    engine: Engine
    progress: Progress
    choices: dict[str, str] = field(default_factory=dict)
    on_choice: Callable[[], None] = lambda: None
    options: Options = DEFAULT_OPTIONS
    stopping: bool = False
    _redone: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def execute(self, plan: Plan) -> None:
        """Run what is not done yet: certificates, speed, learning and gradients."""
        first = [self._single(trial) for trial in plan.first]
        self._side_by_side(first, self.engine.slots)
        sessions = [self._session(name, t) for name, t in plan.speed.items()]
        self._side_by_side(sessions, self.engine.session_slots)
        self.progress.refine(plan)
        learning = [self._learning(group, t) for group, t in self._chosen(plan)]
        self._side_by_side(learning, self.engine.slots)

    def stop(self, *, now: bool) -> None:
        """Start nothing more; what runs ends soon, or `now` and is not committed."""
        self.stopping = True
        self.engine.stop(now=now)

    def _side_by_side(self, work: Sequence[Work], most: int) -> None:
        """Do all the work, on so many threads at most."""

        def do(item: Work) -> None:
            if not self.stopping:
                with contextlib.suppress(StoppedError):
                    item()

        with ThreadPoolExecutor(most) as threads:
            try:
                futures = [threads.submit(do, item) for item in work]
                wait(futures, return_when=FIRST_EXCEPTION)
                for future in futures:
                    if future.done():
                        future.result()
            except BaseException:
                self.stop(now=True)
                raise

    # --- jobs ------------------------------------------------------------------------

    def _single(self, trial: Trial) -> Work:
        return lambda: self._measure(self.planned(trial))

    def _measure(self, todo: Planned, arrays: Weights | None = None) -> None:
        if not self._runs(todo):
            self.progress.skipped(todo)
            return
        found = None
        if MEASURES[todo.trial.measure].has_updates and not self.options.force:
            found = self.run.checkpoint(todo.id)
        start = None if found is None else Start(found.state, found.arrays)
        with self.begin([todo], found) as attempts:
            job = Job(attempts.trials, arrays=arrays or {}, start=start)
            answers = self.engine.run(job, attempts)
            if answers[todo.id].outcome == "stopped":  # it goes on at the next run
                raise StoppedError
        self.commit(attempts, answers)

    def _session(self, name: str, trials: Sequence[Trial]) -> Work:
        def work() -> None:
            todo = [self.planned(trial) for trial in trials]
            if not any(trial.runs for trial in todo):
                for trial in todo:
                    self.progress.skipped(trial)
                return
            session = session_name(name)
            with self.begin(todo) as attempts:
                answers = self.engine.run(Job(attempts.trials, session=True), attempts)
            self.commit(attempts, answers, {"session": session})

        return work

    def _runs(self, todo: Planned) -> bool:
        """Say whether a trial has to run, and this command has not run it yet."""
        with self._lock:
            return todo.runs and todo.id not in self._redone

    def begin(
        self, todo: Iterable[Planned], found: Checkpoint | None = None
    ) -> Attempts:
        """Begin an attempt at each trial, from a checkpoint if one was found."""
        begun = {}
        for each in todo:
            self.progress.started(each)
            attempt = self.run.begin(each.trial, each.id, each.sources, resume=found)
            begun[each.id] = (each, attempt)
        return Attempts(begun, self.progress)

    def commit(
        self,
        attempts: Attempts,
        answers: Mapping[str, Answer],
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Commit the answer of every trial, with facts that hold for all of them."""
        for trial_id, (todo, attempt) in attempts.of.items():
            answer = answers[trial_id]
            result = {"outcome": answer.outcome, "reason": answer.reason}
            self._commit(
                todo, attempt, answer, {**result, **answer.facts, **(facts or {})}
            )

    def _commit(
        self, todo: Planned, attempt: Attempt, answer: Answer, result: dict[str, Any]
    ) -> None:
        if answer.outcome != "ok" and self.run.outcome_or_damage(todo.id)[0] == "ok":
            # Measured again only for the others of its session: the good result stays.
            attempt.abandon()
            self._done(todo)
            reason = f"{answer.reason}; its earlier result stays"
            self.progress.finished(todo, answer.outcome, reason, ())
            return
        stored = attempt.commit(result, answer.readings, answer.arrays)
        self._done(todo)
        self.progress.finished(
            todo,
            answer.outcome,
            answer.reason,
            answer.readings,
            certified=self._is_certified(todo.trial),
            facts=stored,
        )

    def _done(self, todo: Planned) -> None:
        with self._lock:
            self._redone.add(todo.id)

    def _is_certified(self, trial: Trial) -> bool:
        """Say whether what was timed or learned needs no mark."""
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
        self.commit(self.begin([todo]), {todo.id: Answer(outcome, reason)})

    # --- learning --------------------------------------------------------------------

    def _find(self, trial: Trial) -> TrialRecord | None:
        return self.run.read(self.planned(trial).id)

    def _chosen(self, plan: Plan) -> list[tuple[LearningGroup, Planned]]:
        """Return the learning trials, each once; commit the refused ones as refused."""
        chosen: dict[str, tuple[LearningGroup, Planned]] = {}
        for group in plan.learning:
            choice = self._choice(group)
            todo = self.planned(choice.trial)
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
        def work() -> None:
            again = self._runs(todo)
            self._measure(todo)
            if not group.follow_gradients:
                return
            follower = self.planned(gradients_trial(todo.trial, todo.id))
            if again:  # its weights are new, so the gradients are measured again
                follower = replace(follower, runs=True)
            learned = self.run.read(todo.id)
            outcome = learned.outcome if learned is not None else "nowhere"
            if outcome == "ok" or not follower.runs:
                self._measure(follower, self.run.arrays(todo.id))
            elif outcome == "diverged":
                self._refuse(follower, "refused", "its learning trial diverged")
            else:
                self._refuse(follower, "failed", f"its learning trial ended {outcome}")

        return work


def session_name(name: str) -> str:
    """Return a name that no other session has: two may begin in one second."""
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    return f"{name}, {now} {uuid.uuid4().hex[:6]}"
