"""Trials that are timed together: their meters are open at once and take turns.

Rounds go on until every row, a phase of a trial, is known well enough, or the time is
out. A row is known when the interval of its median is narrower than the target, or that
of its ratio to the fastest row of its cell and phase: on a machine that drifts the
times may never settle and the ratios do. A row that is known takes no more turns,
unless others are measured against it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from harness.intervals import median_interval, ratio_interval
from harness.machine.fitness import fitness_of_machine
from harness.run.job import Answer
from harness.trial import IMPLEMENTATION, SETTINGS, SpeedSettings, Trial

_LOOK_AGAIN = 1.25
"""Rounds from one look at the intervals to the next, as a factor. Who looks after every
round stops at the first interval that is narrow by chance."""


SESSION_WATCH_S = 0.5
"""How long the machine is watched before each session."""


def fitness_before(trials: Iterable[Trial]) -> Mapping[str, Any]:
    """Return as JSON values how fit the machine is for a session of trials."""
    devices = [trial.device for trial in trials]
    device = next((d for d in devices if d != "cpu"), "cpu")
    return fitness_of_machine(device, SESSION_WATCH_S).to_json()


class Ask(Protocol):
    """Asks a worker."""

    def __call__(
        self,
        trial_id: str,
        trial: Trial,
        command: str,
        phase: str | None,
        number: int = 0,
        /,
    ) -> Answer | tuple[Any, ...] | None:
        """Return an answer, which ends the trial, or what a meter says.

        That are the phases of one that was opened, and the readings of a turn, in the
        round of a number, in seconds.
        """


class Stands(Protocol):
    """Says whether an answer stands; a trial whose does not is asked again."""

    def __call__(self, trial_id: str, answer: Answer, /) -> bool:
        """Say so."""


class Rounds(Protocol):
    """Is told of rounds; every `Sink` is."""

    def round(self, number: int, rounds: int, /) -> None:
        """As `Sink.round`."""


def time_in_turns(
    trials: Mapping[str, Trial],
    ask: Ask,
    sink: Rounds,
    stands: Stands = lambda *_: True,
) -> dict[str, Answer]:
    """Time trials taking turns in random order; return every answer.

    A worker that dies takes the meters of its other trials along, so the session is
    started again without the trial that killed it.

    Settings: `rounds`, the fewest that are taken unless the time is out; `target`, the
    width of an interval as a share of its middle; `time_budget_s`, after which no round
    begins. Of trials that differ in them, the most demanding counts.

    Args:
        trials: By trial id.
        ask: Asks a worker.
        sink: Told of rounds, and how many the time allows at most.
        stands: Whether an answer stands.
    """
    answers: dict[str, Answer] = {}
    while left := {id: trial for id, trial in trials.items() if id not in answers}:
        found = _Turns(left, ask, sink).answers()
        answers |= {id: answer for id, answer in found.items() if stands(id, answer)}
    return answers


@dataclass
class _Row:
    """One phase of one trial; `times` are the medians of its turns by round."""

    trial_id: str
    trial: Trial
    phase: str
    times: dict[int, float] = field(default_factory=dict)
    known: bool = False

    @cached_property
    def group(self) -> tuple[object, ...]:
        """What its ratios are formed within."""
        # All that a trial asks of whichever implementation, as in `analysis.timings`.
        return (self.phase, self.trial.key(IMPLEMENTATION, SETTINGS))

    def is_narrow(self, baseline: _Row, target: float) -> bool:
        """Say whether the median or the ratio to the baseline is known well enough."""
        found = median_interval([[t] for t in self.times.values()])
        if found.width <= target:
            return True
        rounds = [n for n in self.times if n in baseline.times]
        if baseline is self or not rounds:
            return False
        ratio = ratio_interval(
            [self.times[n] for n in rounds],
            [baseline.times[n] for n in rounds],
        )
        return ratio.width <= target


class _Turns:
    def __init__(self, trials: Mapping[str, Trial], ask: Ask, sink: Rounds) -> None:
        self._trials, self._ask_worker, self._sink = trials, ask, sink
        self._answers: dict[str, Answer] = {}
        settings = [trial.settings_as(SpeedSettings) for trial in trials.values()]
        self._fewest = max(each.rounds for each in settings)
        self._target = min(each.target for each in settings)
        self._budget_s = max(each.time_budget_s for each in settings)
        self._baselines: dict[tuple[object, ...], _Row] = {}

    def answers(self) -> dict[str, Answer]:
        """Return every answer, or those until a worker died with all its meters."""
        phases = self._at_once("open")
        for trial_id in self._trials:
            self._ask(trial_id, "warm")  # one after the other: first calls are timed
        rows = [
            _Row(trial_id, trial, phase)
            for trial_id, trial in self._trials.items()
            for phase in phases[trial_id]
        ]
        rng = np.random.default_rng()
        number, look, begun_s = 0, self._fewest, time.monotonic()
        while active := self._active(rows):
            for index in rng.permutation(len(active)):
                self._turn(active[index], number)
            number += 1
            took_s = time.monotonic() - begun_s
            most = math.ceil(number * self._budget_s / max(took_s, 1e-9))
            self._sink.round(number, max(most, number))
            if took_s > self._budget_s:
                break
            if number >= look:
                self._look(rows)
                look = math.ceil(_LOOK_AGAIN * number)
        self._at_once("close")
        return self._answers

    def _at_once(self, command: str) -> dict[str, tuple[Any, ...]]:
        """Ask of all trials what is under no clock; workers answer side by side."""
        with ThreadPoolExecutor(len(self._trials)) as pool:
            found = pool.map(lambda id: self._ask(id, command), self._trials)
            return dict(zip(self._trials, found, strict=True))

    @property
    def _died(self) -> bool:
        """Whether a worker died, and took the meters of its other trials along."""
        return any(answer.died for answer in [*self._answers.values()])

    def _active(self, rows: list[_Row]) -> list[_Row]:
        """Return the rows that take another turn, with what they are held against."""
        if self._died:
            return []
        left = [row for row in rows if row.trial_id not in self._answers]
        unknown = [row for row in left if not row.known]
        needed = {id(row) for row in unknown}
        needed |= {id(self._baselines.get(row.group)) for row in unknown}
        return [row for row in left if id(row) in needed]

    def _turn(self, row: _Row, number: int) -> None:
        readings = self._ask(row.trial_id, "turn", row.phase, number)
        if readings:
            row.times[number] = float(np.median(readings))

    def _look(self, rows: list[_Row]) -> None:
        """See which rows are known; the fastest of each group is chosen once."""
        timed = [row for row in rows if row.times]
        for row in sorted(
            timed, key=lambda r: float(np.median(list(r.times.values())))
        ):
            baseline = self._baselines.setdefault(row.group, row)
            row.known = row.known or row.is_narrow(baseline, self._target)

    def _ask(
        self, trial_id: str, command: str, phase: str | None = None, number: int = 0
    ) -> tuple[Any, ...]:
        """Return what a meter says; an end is kept, and no one asked after a death."""
        if self._died or trial_id in self._answers:
            return ()
        trial = self._trials[trial_id]
        found = self._ask_worker(trial_id, trial, command, phase, number)
        if isinstance(found, Answer):
            self._answers[trial_id] = found
            return ()
        return found or ()
