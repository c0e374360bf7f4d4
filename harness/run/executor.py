"""Run a plan, stage by stage, on an engine, and commit every trial as it ends."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from harness.contract import Weights
from harness.measure import MEASURES, most_updates
from harness.run.job import (
    DEFAULT_OPTIONS,
    STOPPED_FROM_ELSEWHERE,
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
from harness.store import (
    Attempt,
    Checkpoint,
    RunFolder,
    TrialRecord,
    UnstorableError,
)
from harness.trial import Trial


@dataclass(frozen=True)
class Attempts:
    """The attempts at the trials of one job, which are the sink of its news.

    Attributes:
        of: Each trial and its attempt, by trial id.
        progress: Shows the news.
    """

    of: Mapping[str, tuple[Planned, Attempt]]
    progress: Progress

    @property
    def every(self) -> list[Planned]:
        """The trials, in the order in which they began."""
        return [todo for todo, _ in self.of.values()]

    @property
    def trials(self) -> dict[str, Trial]:
        """The trials by trial id."""
        return {todo.id: todo.trial for todo in self.every}

    def __call__(self, news: News) -> None:
        """Write the news of the job to its attempts, and show them."""
        match news:
            case Round(number, rounds):
                self.progress.round(self.every, number, rounds)
            case Waits(for_what):
                if for_what is None:
                    for _, attempt in self.of.values():
                        attempt.waited()
                self.progress.waits(self.every, for_what)
            case Begins(trial_id, resumed):
                self.of[trial_id][1].restart(resumed=resumed)
                self.progress.begins(self.of[trial_id][0], resumed=resumed)
            case Event(trial_id, reading):
                self.of[trial_id][1].write(reading)
                self.progress.event(self.of[trial_id][0], reading)
            case Checkpointed(trial_id, start):
                self.of[trial_id][1].checkpoint(start.state, start.arrays)
            case Printed(trial_id, data):
                self.of[trial_id][1].write_log(data)


@dataclass
class Executor:
    """Runs the stages of a plan and commits every trial as it ends.

    Args:
        run: The folder where results are stored.
        planned: Returns the id of a trial, and whether it has to run.
        engine: Runs the trials.
        progress: Shows every start, event and end.
        choices: The implementations chosen for learning; new choices are added.
        on_choice: Called after a choice was made, to store it.
        options: The options of the run.
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
        """Run the trials that are not done yet, stage by stage."""
        first = [partial(self._single, trial) for trial in plan.first]
        self._side_by_side(first, self.engine.slots)
        sessions = [partial(self._session, *each) for each in plan.speed.items()]
        self._side_by_side(sessions, self.engine.session_slots)
        self.progress.refine(plan)
        learning = [partial(self._learning, *each) for each in self._chosen(plan)]
        self._side_by_side(learning, self.engine.slots)

    def stop(self, *, now: bool) -> None:
        """Start no more trials; `now` also ends those that run, without a commit."""
        self.stopping = True
        self.engine.stop(now=now)

    def _side_by_side(self, work: Sequence[Callable[[], None]], most: int) -> None:
        """Do all the work on `most` threads."""

        def do(item: Callable[[], None]) -> None:
            if not self.stopping:
                with contextlib.suppress(StoppedError):
                    item()

        with ThreadPoolExecutor(most) as threads:
            try:
                futures = [threads.submit(do, item) for item in work]
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                self.stop(now=True)
                raise

    # --- jobs ------------------------------------------------------------------------

    def _single(self, trial: Trial) -> None:
        self._measure(self.planned(trial))

    def _measure(self, todo: Planned, arrays: Weights | None = None) -> None:
        if not self._runs(todo):
            self.progress.skipped(todo)
            return
        found = None
        if most_updates(todo.trial) and not self.options.force:
            found = self.run.checkpoint(todo.id)
        start = None if found is None else Start(found.state, found.arrays)
        with self.begin([todo], found) as attempts:
            job = Job(attempts.trials, arrays=arrays or {}, start=start)
            answers = self.engine.run(job, attempts)
            if answers[todo.id].outcome == "stopped":  # the next run continues it
                if self.stopping:
                    raise StoppedError
                answers = {todo.id: Answer("crashed", STOPPED_FROM_ELSEWHERE)}
        self.commit(attempts, answers)

    def _session(self, name: str, trials: Sequence[Trial]) -> None:
        todo = [self.planned(trial) for trial in trials]
        if not any(each.runs for each in todo):
            for each in todo:
                self.progress.skipped(each)
            return
        session = session_name(name)
        with self.begin(each for each in todo if not each.is_newer) as attempts:
            answers = self.engine.run(Job(attempts.trials, session=True), attempts)
        self.commit(attempts, answers, {"session": session})

    def _runs(self, todo: Planned) -> bool:
        """Say whether a trial has to run, and this command has not run it yet."""
        with self._lock:
            return todo.runs and todo.id not in self._redone

    @contextlib.contextmanager
    def begin(
        self, todo: Iterable[Planned], found: Checkpoint | None = None
    ) -> Iterator[Attempts]:
        """Begin an attempt at each trial, from a checkpoint if there is one.

        An error inside the block abandons all of them.
        """
        begun: dict[str, tuple[Planned, Attempt]] = {}
        try:
            for each in todo:
                self.progress.started(each)
                attempt = self.run.begin(
                    each.trial, each.id, each.sources, resume=found
                )
                begun[each.id] = (each, attempt)
            yield Attempts(begun, self.progress)
        except BaseException:
            for _, attempt in begun.values():
                attempt.abandon()
            raise

    def commit(
        self,
        attempts: Attempts,
        answers: Mapping[str, Answer],
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Commit the answer of every trial, with facts that hold for all of them."""
        for trial_id, (todo, attempt) in attempts.of.items():
            answer = answers[trial_id]
            ok = answer.outcome == "ok"
            if not ok and self.run.outcome_or_damage(trial_id)[0] == "ok":
                # It ran again only for the others of its session: its result stays.
                attempt.abandon()
                reason = f"{answer.reason}; its earlier result stays"
                answer = Answer(answer.outcome, reason)
            else:
                answer = self._stored(todo, attempt, answer, facts or {})
            with self._lock:
                self._redone.add(trial_id)
            certified = self._is_certified(todo.trial)
            self.progress.finished(todo, answer, certified=certified)

    def _stored(
        self, todo: Planned, attempt: Attempt, answer: Answer, facts: Mapping[str, Any]
    ) -> Answer:
        """Commit an answer, or why it cannot be stored; return what was committed.

        A plugin may have removed the folder of the trial, or the whole run.
        """
        result = {"outcome": answer.outcome, "reason": answer.reason}
        result |= {**answer.facts, **facts}
        try:
            stored = attempt.commit(result, answer.readings, answer.arrays)
        except UnstorableError as error:
            attempt.abandon()
            answer = Answer("failed", str(error))
            another = self.run.begin(todo.trial, todo.id, todo.sources)
            stored = another.commit(
                {"outcome": answer.outcome, "reason": answer.reason, **facts}
            )
        return replace(answer, facts=stored)

    def _is_certified(self, trial: Trial) -> bool:
        """Say whether the numbers of a trial are those of a certified network."""
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
        with self.begin([todo]) as attempts:
            self.commit(attempts, {todo.id: Answer(outcome, reason)})

    # --- learning --------------------------------------------------------------------

    def _find(self, trial: Trial) -> TrialRecord | None:
        return self.run.read(self.planned(trial).id)

    def _chosen(self, plan: Plan) -> list[tuple[LearningGroup, Planned]]:
        """Choose the learning trials, each once; commit those that are refused."""
        chosen: dict[str, tuple[LearningGroup, Planned]] = {}
        for group in plan.learning:
            choice = self._choice(group)
            todo = self.planned(choice.trial)
            if choice.refused is not None:
                if self._runs(todo):
                    self._refuse(todo, choice.outcome, choice.refused)
                continue
            earlier, _ = chosen.get(todo.id, (group, todo))
            follow = group.follow_gradients or earlier.follow_gradients
            chosen[todo.id] = (replace(group, follow_gradients=follow), todo)
        return list(chosen.values())

    def _choice(self, group: LearningGroup) -> Choice:
        """Choose a group's implementation, once for all its seeds."""
        if group.on_each:
            (trial,) = group.candidates
            return admit(trial, self._find) if self.options.certify else Choice(trial)
        name = self.choices.get(group.choice_key)
        earlier = [t for t in group.candidates if t.implementation == name]
        if earlier:
            return Choice(earlier[0])
        choice = choose(group, self._find, certify=self.options.certify)
        if choice.refused is None:
            self.choices[group.choice_key] = choice.trial.implementation
            self.on_choice()
        return choice

    def _learning(self, group: LearningGroup, todo: Planned) -> None:
        """Run a learning trial, then the gradients trial that follows it, if any."""
        again = self._runs(todo)
        self._measure(todo)
        if not group.follow_gradients:
            return
        follower = self.planned(gradients_trial(todo.trial, todo.id))
        if todo.is_newer:  # its weights cannot be read
            self.progress.skipped(replace(follower, runs=False, why=todo.why))
            return
        if again and not follower.is_newer:
            # Its weights are new, so the gradients are measured again.
            follower = replace(follower, runs=True)
        learned = self.run.read(todo.id)
        outcome = learned.outcome if learned is not None else "nowhere"
        if outcome == "ok" or not follower.runs:
            self._measure(follower, self.run.arrays(todo.id))
        elif outcome == "diverged":
            self._refuse(follower, "refused", "its learning trial diverged")
        else:
            self._refuse(follower, "failed", f"its learning trial ended {outcome}")


def session_name(name: str) -> str:
    """Return a name that no other session has: two may begin in one second."""
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    return f"{name}, {now} {uuid.uuid4().hex[:6]}"
