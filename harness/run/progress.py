"""Show on standard error what is running, how much is left, and the last score."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from harness.measure import MEASURES, most_updates, takes_turns
from harness.printing import one_line
from harness.run.estimate.cost import Cost, Totals, duration, stage_s
from harness.run.estimate.model import CostModel
from harness.run.job import Answer
from harness.run.plan.derived import gradients_trial
from harness.run.plan.expand import LearningGroup
from harness.run.plan.plan import Plan
from harness.run.plan.todo import Planned
from harness.store import Reading, TrialRecord
from harness.trial import QUESTION, SETTINGS, WHO_COMPUTES, Trial

_PACE_FROM = 0.02
"""After this part of its work, a running trial is predicted from its own pace."""


def live(
    console: Console, shown: Callable[[], RenderableType]
) -> AbstractContextManager[object]:
    """Show what a function returns in the last lines, if this is a terminal."""
    if not console.is_terminal:
        return nullcontext()
    return Live(
        get_renderable=shown, console=console, refresh_per_second=4, transient=True
    )


@dataclass
class _Left:
    """A trial that has not ended.

    Attributes:
        stage: The number of its stage.
        begun: The part of its updates that an earlier attempt did.
    """

    stage: int
    trial: Trial
    begun: float = 0.0


@dataclass
class _Running:
    """A trial that runs.

    Attributes:
        since: When it started, or stopped waiting for its machine.
        computes: When it began to compute.
        begun: The part of its updates that was done when it began to compute.
        done: The part of its updates or rounds that is done now.
        text: Its last score, or what it waits for.
    """

    todo: Planned
    since: float
    computes: float
    begun: float = 0.0
    done: float = 0.0
    text: str = ""

    def left_s(self, cost: Cost, turns: int) -> float:
        """Return the seconds left, by the trial's own pace once it has one.

        Args:
            cost: What the trial was predicted to take.
            turns: Number of trials that take turns with it, itself included.
        """
        took_s = (time.monotonic() - self.computes) / turns
        did = self.done - self.begun
        if did < _PACE_FROM:
            return max(cost.left_s(self.begun) - took_s, 0.0)
        return took_s * (cost.end(self.done) - self.done) / did


class Progress:
    """Shows how far a run is: a line for each trial, and running trials on a terminal.

    Args:
        console: Standard error.
        jobs: Trials side by side.
        model: Predicts each trial, and learns from each that ends.
    """

    def __init__(self, console: Console, jobs: int, model: CostModel) -> None:
        self._console, self._jobs, self._model = console, jobs, model
        self._lock = threading.Lock()
        self._start_s = time.monotonic()
        self._left: dict[str, _Left] = {}
        self._running: dict[str, _Running] = {}
        self._on_each: set[str] = set()
        self._turns: Counter[str | None] = Counter()
        self._took: list[tuple[Trial, Cost]] = []
        self._ends: float | None = None
        self._live = live(console, self.shown)

    def __enter__(self) -> Progress:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.__exit__(None, None, None)

    # --- what happens ----------------------------------------------------------------

    def expect(
        self,
        plan: Plan,
        to_run: Iterable[Trial] | None = None,
        begun: Mapping[str, float] | None = None,
    ) -> None:
        """Take note of the trials that will run, stage by stage.

        Args:
            plan: All trials, finished ones too.
            to_run: The trials that will run; None for all of them.
            begun: The part of its updates that a learning trial has done, by key.
        """
        begun = begun or {}
        with self._lock:
            on_each = (group for group in plan.learning if group.on_each)
            self._on_each = {group.candidates[0].key(QUESTION) for group in on_each}
            stages: list[Iterable[Trial]] = [plan.first, *plan.speed.values()]
            stages.append(t for group in plan.learning for t in self._to_learn(group))
            self._left = {
                self._key(trial): _Left(stage, trial, begun.get(trial.key(), 0.0))
                for stage, trials in enumerate(stages)
                for trial in trials
            }
            if to_run is not None:
                wanted = {self._key(trial) for trial in to_run}
                self._left = {k: v for k, v in self._left.items() if k in wanted}

    def _to_learn(self, group: LearningGroup) -> list[Trial]:
        """Return a group's likeliest trial, and the gradients trial that follows."""
        trial = self._model.cheapest(group.likely)
        return [trial, gradients_trial(trial, "")][: 1 + group.follow_gradients]

    def took(self) -> Totals:
        """Return what the finished trials took."""
        with self._lock:
            wall_time_s = time.monotonic() - self._start_s
            return self._model.totals(wall_time_s, self._took, self._jobs)

    def skipped(self, todo: Planned) -> None:
        """Leave out a trial that was done before."""
        with self._lock:
            self._left.pop(self._key(todo.trial), None)

    def started(self, todo: Planned) -> None:
        """Show a trial as running."""
        now = time.monotonic()
        with self._lock:
            left = self._left.get(self._key(todo.trial))
            begun = 0.0 if left is None else left.begun
            self._running[todo.id] = _Running(todo, now, now, begun, begun)
            self._turns[todo.trial.session] += takes_turns(todo.trial)

    def begins(self, todo: Planned, *, resumed: bool) -> None:
        """Measure the pace of a trial from now on: its learning begins or continues."""
        with self._lock:
            entry = self._running[todo.id]
            entry.begun = entry.done = entry.begun if resumed else 0.0
            entry.computes = time.monotonic()

    def event(self, todo: Planned, reading: Reading) -> None:
        """Show the last score of a running trial."""
        if reading.split != "held_out" or not isinstance(reading.x, int | float):
            return
        score = ", ".join(
            f"{name} not finite" if value is None else f"{name} {value:.4g}"
            for name, value in list(reading.values.items())[:2]
        )
        done = reading.x / max(1, most_updates(todo.trial))
        self._note([todo], f"update {reading.x:.0f}, {score}", done)

    def round(self, todo: Sequence[Planned], number: int, rounds: int) -> None:
        """Show which round a speed session is in."""
        self._note(todo, f"round {number} of at most {rounds}", number / rounds)

    def _note(self, todo: Sequence[Planned], text: str, done: float) -> None:
        with self._lock:
            self._ends = None
            for each in todo:
                entry = self._running[each.id]
                entry.text, entry.done = text, done

    def waits(self, todo: Sequence[Planned], for_what: str | None) -> None:
        """Print what trials wait for; None means that they run now, so time starts."""
        with self._lock:
            for each in todo:
                entry = self._running[each.id]
                entry.since = entry.computes = time.monotonic()
                entry.text = for_what or ""
        if for_what is not None:
            more = f" and {len(todo) - 1} more" if len(todo) > 1 else ""
            line = f"{todo[0].trial.label}{more}: waits for {for_what}"
            self._console.print(Text(one_line(line)), soft_wrap=True)

    def finished(
        self, todo: Planned, answer: Answer, *, certified: bool = True
    ) -> None:
        """Print how a trial ended, and predict the others from what it took.

        Args:
            todo: The trial, which was started.
            answer: How it ended; its facts are those of `result.json`.
            certified: False to mark its numbers as uncertified.
        """
        facts = answer.facts
        with self._lock:
            took_s = time.monotonic() - self._running.pop(todo.id).since
            self._left.pop(self._key(todo.trial), None)
            memory, disk = facts.get("worker_memory_bytes"), facts.get("disk_bytes")
            self._took.append((todo.trial, Cost(took_s, memory or 0, disk or 0)))
            if "wall_time_s" in facts:
                ended, readings = (answer.outcome, answer.reason), answer.readings
                record = TrialRecord(todo.id, todo.trial, *ended, facts, readings)
                self._model.learn(record, self._turns_of(todo.trial))
            done, left, self._ends = len(self._took), len(self._left), None
            left_s = self._time_left_s()
        what = f"{answer.outcome}: {answer.reason}"
        if answer.outcome == "ok":
            whole = (reading for reading in answer.readings if reading.x is None)
            values = {(r.split, n): v for r in whole for n, v in r.values.items()}
            what = MEASURES[todo.trial.measure].in_words(values)
            what += "" if certified else " · UNCERTIFIED"
        line = f"[{done}/{done + left}] {todo.trial.label}: {what} · {took_s:.1f} s"
        line += f" · {duration(left_s)} left" if left else ""
        self._console.print(Text(one_line(line)), soft_wrap=True)

    # --- time left -------------------------------------------------------------------

    def _key(self, trial: Trial) -> str:
        """Return a key of a trial as it was planned.

        Learning is planned for one candidate and may run on another.
        """
        if not MEASURES[trial.measure].of_cell:
            return trial.key()
        on_each = trial.key(QUESTION) in self._on_each
        return trial.key(SETTINGS, () if on_each else WHO_COMPUTES)

    def _turns_of(self, trial: Trial) -> int:
        """Return how many trials take turns with one, itself included."""
        return self._turns[trial.session] if takes_turns(trial) else 1

    def _time_left_s(self) -> float:
        """Return the seconds until all trials have ended."""
        running = {self._key(r.todo.trial): r for r in self._running.values()}
        stages: dict[int, list[tuple[Trial, float]]] = {}
        for key, left in self._left.items():
            entry = running.get(key)
            trial = left.trial if entry is None else entry.todo.trial
            cost = self._model.predict(trial)
            left_s = cost.left_s(left.begun)
            if entry is not None:
                left_s = entry.left_s(cost, self._turns_of(trial))
            stages.setdefault(left.stage, []).append((trial, left_s))
        return sum(stage_s(stage, self._jobs) for stage in stages.values())

    def refine(self, plan: Plan) -> None:
        """Predict again which trials will learn, now that their updates are timed."""
        with self._lock:
            for group in plan.learning:
                for trial in self._to_learn(group):
                    left = self._left.get(self._key(trial))
                    if left is not None:
                        left.trial = trial

    def shown(self) -> RenderableType:
        """Return the last lines of a terminal: what is done, and what runs now."""
        with self._lock:
            lines = [
                Text(f"  {entry.todo.trial.label}  {entry.text}", style="dim")
                for entry in list(self._running.values())[: 2 * self._jobs]
            ]
            now = time.monotonic()
            if self._ends is None:  # between two events the clock runs down
                self._ends = now + self._time_left_s()
            head = Text(
                f"{len(self._took)} done, {len(self._left)} left, "
                f"about {duration(max(self._ends - now, 0.0))}"
            )
        return Group(head, *lines)
