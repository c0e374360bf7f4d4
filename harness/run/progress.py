"""What is running, how much is left, and the last score, on standard error."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from harness.run.plan import Plan, Planned
from harness.store import Reading
from harness.trial import Measure, Trial

# Guesses for what has not been timed yet; they are corrected by what trials take.
_GUESS_S = {"parity": 8.0, "gradients": 4.0, "speed": 6.0}
_GUESS_UPDATE_S = 0.02
_EVALUATION_SHARE = 1.3


class Progress:
    """Tells of a run: a live display on a terminal, else a line for each trial.

    Args:
        console: Standard error.
        jobs: Trials side by side.
    """

    def __init__(self, console: Console, jobs: int) -> None:
        self._console = console
        self._jobs = jobs
        self._lock = threading.Lock()
        self._left: dict[str, float] = {}
        self._on_each: set[str] = set()
        self._running: dict[str, tuple[Planned, float, str, float]] = {}
        self._done = 0
        self._spent_s = self._guessed_s = 0.0
        self._update_s: dict[tuple[str, str, int | None], float] = {}
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(
                get_renderable=self._render,
                console=console,
                refresh_per_second=4,
                transient=True,
            )

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    # --- what happens ----------------------------------------------------------------

    def expect(self, plan: Plan) -> None:
        """Take in the whole plan: what is to come, a guess of seconds for each."""
        trials = [*plan.parity, *plan.gradients]
        trials += [t for s in plan.speed.values() for t in s]
        for group in plan.learning:
            trials.append(group.candidates[0])
            if group.on_each:
                self._on_each.add(_without_settings(group.candidates[0], "learning"))
        for trial in trials:
            self._left[self._key(trial)] = self._guess_s(trial)
        for group in plan.learning:
            if group.follow_gradients:
                key = self._key(group.candidates[0], "gradients")
                self._left[key] = _GUESS_S["gradients"]

    def skipped(self, todo: Planned) -> None:
        """Count a trial that was done before."""
        with self._lock:
            self._left.pop(self._key(todo.trial), None)

    def started(self, todo: Planned) -> None:
        """Show a trial as running."""
        with self._lock:
            self._running[todo.id] = (todo, time.monotonic(), "", 0.0)

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
                text = f"update {reading.x:.0f}, {score}"
                self._running[todo.id] = (entry[0], entry[1], text, share)

    def round(self, todo: Sequence[Planned], number: int, rounds: int) -> None:
        """Show how far a speed session is."""
        with self._lock:
            for trial in todo:
                entry = self._running.get(trial.id)
                if entry is not None:
                    text = f"round {number} of {rounds}"
                    share = number / rounds
                    self._running[trial.id] = (entry[0], entry[1], text, share)

    def finished(
        self,
        todo: Planned,
        outcome: str,
        reason: str | None,
        readings: Sequence[Reading],
        *,
        certified: bool = True,
    ) -> None:
        """Print how a trial ended; a timing without a certificate is marked."""
        with self._lock:
            entry = self._running.pop(todo.id, None)
            guessed = self._left.pop(self._key(todo.trial), 0.0)
            took_s = time.monotonic() - entry[1] if entry is not None else 0.0
            self._done += 1
            if todo.trial.measure == "speed":
                self._learn_update_time(todo.trial, readings)
            elif outcome == "ok":
                self._spent_s += took_s
                self._guessed_s += guessed
            counted = f"[{self._done}/{self._done + len(self._left)}]"
            left = _duration(self._time_left_s())
        what = _summary(readings) if outcome == "ok" else f"{outcome}: {reason}"
        if not certified:
            what = f"{what} · UNCERTIFIED"
        line = f"{counted} {todo.trial.label}: {what} · {took_s:.1f} s"
        self._console.print(
            Text(f"{line} · {left} left" if self._left else line), soft_wrap=True
        )

    # --- time left -------------------------------------------------------------------

    def _key(self, trial: Trial, measure: Measure | None = None) -> str:
        # Learning is planned for a candidate and may run on another implementation.
        measure = measure or trial.measure
        if measure not in ("learning", "gradients"):
            return trial.slot()
        if _without_settings(trial, "learning") in self._on_each:
            return _without_settings(trial, measure)
        return replace(
            trial, measure=measure, implementation="", device="", settings={}
        ).slot()

    def _guess_s(self, trial: Trial) -> float:
        if trial.measure != "learning":
            return _GUESS_S[trial.measure]
        per_update = self._update_s.get(_shape(trial), _GUESS_UPDATE_S)
        return float(trial.settings["updates"]) * per_update * _EVALUATION_SHARE

    def _learn_update_time(self, trial: Trial, readings: Sequence[Reading]) -> None:
        for reading in readings:
            found = reading.values.get("time_s")
            if reading.split == "train_step" and found is not None and trial.task:
                key = _shape(trial)
                self._update_s[key] = min(self._update_s.get(key, found), found)

    def _time_left_s(self) -> float:
        """Return the seconds left, as guessed and corrected by what trials took."""
        running = {
            self._key(entry[0].trial): entry[3] for entry in self._running.values()
        }
        total = 0.0
        for key, guess in self._left.items():
            total += guess * (1 - running.get(key, 0.0))
        factor = self._spent_s / self._guessed_s if self._guessed_s else 1.0
        return total * factor / self._jobs

    def refine(self, plan: Plan) -> None:
        """Guess the learning trials anew, now that their updates have been timed."""
        with self._lock:
            for group in plan.learning:
                trial = group.candidates[0]
                if self._key(trial) in self._left:
                    self._left[self._key(trial)] = self._guess_s(trial)
            self._spent_s = self._guessed_s = 0.0

    def _render(self) -> RenderableType:
        with self._lock:
            lines = [
                Text(f"  {entry[0].trial.label}  {entry[2]}", style="dim")
                for entry in list(self._running.values())[: 2 * self._jobs]
            ]
            head = Text(
                f"{self._done} done, {len(self._left)} left, "
                f"about {_duration(self._time_left_s())}"
            )
        return Group(head, *lines)


def _without_settings(trial: Trial, measure: Measure) -> str:
    return replace(trial, measure=measure, settings={}).slot()


def _shape(trial: Trial) -> tuple[str, str, int | None]:
    return trial.cell, f"{trial.task} {trial.length} {trial.batch}", trial.hidden_size


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _summary(readings: Sequence[Reading]) -> str:
    """Return the few words a finished trial is told in."""
    values = {
        (r.split, n): v for r in readings if r.x is None for n, v in r.values.items()
    }
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
