"""What is running, how much is left, and the last score, on standard error."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from harness.run.estimate.cost import (
    Cost,
    CostModel,
    Totals,
    alike,
    duration,
    expected_end,
)
from harness.run.plan.plan import LearningGroup, Plan, gradients_trial
from harness.run.plan.todo import Planned
from harness.store import Reading
from harness.trial import QUESTION, SETTINGS, WHO_COMPUTES, Trial

_SPEED, _LEARNING = 1, 2
"""Stages, by number; the first is what is neither."""

_PACE_FROM = 0.02
"""From this part of its work on, a running trial is predicted by its own pace."""


def live(
    console: Console, shown: Callable[[], RenderableType]
) -> AbstractContextManager[object]:
    """Show at the foot of a terminal what a function returns; elsewhere nothing."""
    if not console.is_terminal:
        return nullcontext()
    return Live(
        get_renderable=shown, console=console, refresh_per_second=4, transient=True
    )


@dataclass
class _Running:
    todo: Planned
    since: float
    text: str = ""
    begun: float = 0.0
    begun_at: float = 0.0
    done: float = 0.0

    def left_s(self, predicted_s: float, share: float) -> float:
        """Return the seconds left, given those of the trial and its expected end."""
        now = time.monotonic()
        did = self.done - self.begun
        if did < _PACE_FROM:
            return max(predicted_s - (now - self.since), 0.0)
        left = expected_end(share, self.done) - self.done
        return (now - (self.begun_at or self.since)) * left / did


class Progress:
    """Tells of a run: a live display on a terminal, else a line for each trial.

    Args:
        console: Standard error.
        jobs: Trials side by side.
        model: Predicts each trial, and learns from each that ends.
    """

    def __init__(self, console: Console, jobs: int, model: CostModel) -> None:
        self._console = console
        self._jobs = jobs
        self._lock = threading.Lock()
        self._model = model
        self._left: dict[str, tuple[int, str]] = {}
        self._like: dict[str, Trial] = {}
        self._begun: dict[str, float] = {}
        self._took: list[tuple[Trial, Cost]] = []
        self._start_s = time.monotonic()
        self._on_each: set[str] = set()
        self._running: dict[str, _Running] = {}
        self._together: Counter[str] = Counter()
        self._done = 0
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
        """Take in the whole plan: what is to come, in which stage.

        Args:
            plan: All trials, those that are done too.
            to_run: Those that are not done; all where it is None.
            begun: By key, the part of its budget from which learning goes on.
        """
        with self._lock:
            for group in plan.learning:
                if group.on_each:
                    self._on_each.add(group.candidates[0].key(QUESTION))
            stages = [
                plan.first,
                [t for session in plan.speed.values() for t in session],
            ]
            for stage, trials in enumerate(stages):
                for trial in trials:
                    self._expect(stage, trial)
            for group in plan.learning:
                for trial in self._to_learn(group):
                    self._expect(_LEARNING, trial)
                    if begun and trial.key() in begun:
                        self._begun[self._key(trial)] = begun[trial.key()]
            if to_run is not None:
                wanted = {self._key(trial) for trial in to_run}
                self._left = {k: p for k, p in self._left.items() if k in wanted}

    def _expect(self, stage: int, trial: Trial) -> None:
        like = alike(trial)
        self._like.setdefault(like, trial)
        self._left[self._key(trial)] = stage, like

    def _to_learn(self, group: LearningGroup) -> list[Trial]:
        """Return a group's likeliest trial, and the gradients trial that follows."""
        trial = self._model.cheapest(group.likely)
        return [trial, gradients_trial(trial, "")][: 1 + group.follow_gradients]

    def took(self) -> Totals:
        """Return what the trials took that have ended."""
        with self._lock:
            wall_time_s = time.monotonic() - self._start_s
            return self._model.totals(wall_time_s, self._took, self._jobs)

    def skipped(self, todo: Planned) -> None:
        """Count a trial that was done before."""
        with self._lock:
            self._left.pop(self._key(todo.trial), None)

    def started(self, todo: Planned) -> None:
        """Show a trial as running."""
        with self._lock:
            begun = self._begun.get(self._key(todo.trial), 0.0)
            self._running[todo.id] = _Running(
                todo, time.monotonic(), begun=begun, done=begun
            )
            if todo.trial.session is not None and todo.trial.measure == "speed":
                self._together[todo.trial.session] += 1

    def begins(self, todo: Planned, *, resumed: bool) -> None:
        """Take a trial's pace from here, where its learning begins or goes on."""
        with self._lock:
            entry = self._running.get(todo.id)
            if entry is not None:
                entry.done = entry.done if resumed else 0.0
                entry.begun, entry.begun_at = entry.done, time.monotonic()

    def event(self, todo: Planned, reading: Reading) -> None:
        """Show the last score of a running trial."""
        if reading.split != "held_out" or not isinstance(reading.x, int | float):
            return
        score = ", ".join(
            f"{name} not finite" if value is None else f"{name} {value:.4g}"
            for name, value in list(reading.values.items())[:2]
        )
        share = reading.x / max(1, int(todo.trial.settings["updates"]))
        with self._lock:
            entry = self._running.get(todo.id)
            if entry is not None:
                entry.text, entry.done = f"update {reading.x:.0f}, {score}", share

    def round(self, todo: Sequence[Planned], number: int, rounds: int) -> None:
        """Show how far a speed session is."""
        with self._lock:
            for trial in todo:
                entry = self._running.get(trial.id)
                if entry is not None:
                    entry.text = f"round {number} of at most {rounds}"
                    entry.done = number / rounds

    def waits(self, todo: Sequence[Planned], for_what: str | None) -> None:
        """Tell what trials wait for, or begin their time anew where they go on."""
        with self._lock:
            for trial in todo:
                entry = self._running.get(trial.id)
                if entry is not None:
                    entry.since, entry.text = time.monotonic(), for_what or ""
        if for_what is not None:
            label = todo[0].trial.label
            more = f" and {len(todo) - 1} more" if len(todo) > 1 else ""
            line = f"{label}{more}: waits for {for_what}"
            self._console.print(Text(line), soft_wrap=True)

    def finished(
        self,
        todo: Planned,
        outcome: str,
        reason: str | None,
        readings: Sequence[Reading],
        *,
        certified: bool = True,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Print how a trial ended; a timing without a certificate is marked.

        What it took is learned from `facts`, which its `result.json` holds.
        """
        with self._lock:
            entry = self._running.pop(todo.id, None)
            self._left.pop(self._key(todo.trial), None)
            took_s = time.monotonic() - entry.since if entry is not None else 0.0
            self._done += 1
            facts = facts or {}
            memory, disk = facts.get("worker_memory_bytes"), facts.get("disk_bytes")
            cost = Cost(took_s, memory or 0, disk or 0, "measured")
            self._took.append((todo.trial, cost))
            # What went on from a checkpoint took longer than was seen here.
            whole = outcome == "ok" and "resumed_from" not in facts
            if whole and entry is not None:
                self._learn(todo.trial, took_s, readings, facts)
            counted = f"[{self._done}/{self._done + len(self._left)}]"
            left = duration(self._time_left_s())
        what = _summary(readings) if outcome == "ok" else f"{outcome}: {reason}"
        if outcome == "ok" and not certified:
            what = f"{what} · UNCERTIFIED"
        line = f"{counted} {todo.trial.label}: {what} · {took_s:.1f} s"
        self._console.print(
            Text(f"{line} · {left} left" if self._left else line), soft_wrap=True
        )

    # --- time left -------------------------------------------------------------------

    def _key(self, trial: Trial) -> str:
        # Learning is planned for a candidate and may run on another implementation.
        if trial.measure not in ("learning", "gradients"):
            return trial.key()
        on_each = trial.key(QUESTION) in self._on_each
        return trial.key(SETTINGS, () if on_each else WHO_COMPUTES)

    def _learn(
        self,
        trial: Trial,
        took_s: float,
        readings: Sequence[Reading],
        facts: Mapping[str, Any],
    ) -> None:
        # Trials that take turns begin and end together.
        turns = self._together.get(trial.session or "", 1)
        values = _whole(readings)
        self._model.learn(
            trial,
            took_s / (turns if trial.measure == "speed" else 1),
            facts.get("worker_memory_bytes"),
            facts.get("disk_bytes"),
            updates=values.get(("outcome", "updates")),
            update_s=values.get(("train_step", "time_s")),
            machine=facts.get("processor"),
        )

    def _time_left_s(self) -> float:
        """Return the seconds left: by stage, what is spread over jobs and the longest.

        A running trial is taken by its own pace once it has one.
        """
        running = {self._key(r.todo.trial): r for r in self._running.values()}
        waiting: Counter[tuple[int, str]] = Counter(
            place
            for key, place in self._left.items()
            if key not in running and key not in self._begun
        )
        total = [0.0] * (_LEARNING + 1)
        longest = [0.0] * (_LEARNING + 1)

        def add(stage: int, each_s: float, count: int = 1) -> None:
            total[stage] += count * each_s
            longest[stage] = max(longest[stage], each_s)

        for (stage, like), count in waiting.items():
            add(stage, self._model.predict(self._like[like]).wall_time_s, count)
        for key, done in self._begun.items():
            if key in self._left and key not in running:
                stage, like = self._left[key]
                add(stage, self._model.left(self._like[like], done).wall_time_s)
        for key, entry in running.items():
            if key in self._left:
                add(self._left[key][0], self._running_left_s(entry))
        return sum(
            total[stage] if stage == _SPEED else max(total[stage] / self._jobs, most)
            for stage, most in enumerate(longest)
        )

    def _running_left_s(self, entry: _Running) -> float:
        trial = entry.todo.trial
        predicted_s = self._model.left(trial, entry.begun).wall_time_s
        if trial.measure != "speed":
            return entry.left_s(predicted_s, self._model.share(trial))
        turns = self._together.get(trial.session or "", 1)
        return entry.left_s(predicted_s * turns, 1.0) / turns

    def refine(self, plan: Plan) -> None:
        """Take the learning trials anew, now that their updates have been timed."""
        with self._lock:
            for group in plan.learning:
                for trial in self._to_learn(group):
                    if self._key(trial) in self._left:
                        self._expect(_LEARNING, trial)

    def shown(self) -> RenderableType:
        """Return what stands at the foot of a terminal now: how far, and what runs."""
        with self._lock:
            lines = [
                Text(f"  {entry.todo.trial.label}  {entry.text}", style="dim")
                for entry in list(self._running.values())[: 2 * self._jobs]
            ]
            head = Text(
                f"{self._done} done, {len(self._left)} left, "
                f"about {duration(self._time_left_s())}"
            )
        return Group(head, *lines)


def _whole(readings: Sequence[Reading]) -> dict[tuple[str, str], Any]:
    """Return the values of the whole trial."""
    return {
        (r.split, n): v for r in readings if r.x is None for n, v in r.values.items()
    }


def _summary(readings: Sequence[Reading]) -> str:
    """Return the few words a finished trial is told in."""
    values = _whole(readings)
    if ("certificate", "certified") in values:
        broken = values["certificate", "broken"]
        checks = values["certificate", "checks"]
        if values["certificate", "certified"]:
            return f"certified ({checks} checks)"
        return f"NOT certified ({broken} of {checks} checks broken)"
    if ("outcome", "solved") in values:
        if values["outcome", "solved"]:
            return f"solved at update {values['outcome', 'updates_to_solve']}"
        return f"not solved within {values['outcome', 'budget']} updates"
    if ("initial", "horizon_loss") in values:
        before = values["initial", "horizon_loss"]
        after = values.get(("trained", "horizon_loss"))
        trained = "" if after is None else f", {after} after"
        return f"horizon {before} before{trained} training"
    times = [f"{s} {v * 1e3:.3g} ms" for (s, n), v in values.items() if n == "time_s"]
    return ", ".join(times)
