"""Time trials together: their meters are open at the same time and take turns.

A row is one phase of one trial. Rounds follow each other until every row is known well
enough, or the time is over. A row is known when the interval of its median is narrower
than the target, or the interval of its ratio to the fastest row of its cell and phase.
On a machine that drifts the times may never settle, while the ratios do. A row that is
known takes no more turns, unless other rows are compared with it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from harness.intervals import median, median_interval, ratio_interval
from harness.run.job import Answer
from harness.trial import IMPLEMENTATION, SETTINGS, SpeedSettings, Trial

_LOOK_AGAIN = 1.25
"""The intervals are looked at again after this many times as many rounds. A look after
every round would stop at the first interval that is narrow by chance."""

OnRound = Callable[[int, int], None]
"""Called after each round with its number and the highest number the time allows."""


class Meter(Protocol):
    """The meter of one trial, which a worker holds."""

    @property
    def trial(self) -> Trial:
        """The trial that it times."""

    def ask(
        self, command: str, phase: str | None = None, number: int = 0
    ) -> Answer | tuple[Any, ...]:
        """Return an answer, which ends the trial, or what the meter found.

        Args:
            command: `open` returns the phases; `warm` returns nothing; `turn` returns
                readings in seconds; `close` returns the answer.
            phase: The phase of a turn.
            number: The round of a turn.
        """

    def is_final(self, answer: Answer) -> bool:
        """Say whether an answer ends the trial; otherwise it is timed once more."""


def time_in_turns(meters: Mapping[str, Meter], on_round: OnRound) -> dict[str, Answer]:
    """Time trials taking turns in random order; return every answer.

    The meters of a worker's other trials are lost when it dies, so the session then
    starts again without the trial that killed it.

    Settings: `rounds` is the smallest number of rounds, unless the time is over;
    `target` is the width of an interval as a share of its middle; no round begins after
    `time_budget_s`. Where the trials differ in these, the most demanding one counts.

    Args:
        meters: By trial id.
        on_round: Called after each round.
    """
    answers: dict[str, Answer] = {}
    while left := {id: meter for id, meter in meters.items() if id not in answers}:
        found = _Turns(left, on_round).answers()
        answers |= {id: a for id, a in found.items() if left[id].is_final(a)}
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
        """What it shares with the rows that it forms ratios with."""
        return (self.phase, self.trial.key(IMPLEMENTATION, SETTINGS))

    @property
    def median_s(self) -> float:
        """The median of its turns."""
        return median(list(self.times.values()))

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
    """One attempt at a session, which ends early when a worker dies."""

    def __init__(self, meters: Mapping[str, Meter], on_round: OnRound) -> None:
        self._meters, self._on_round = meters, on_round
        self._answers: dict[str, Answer] = {}
        settings = [m.trial.settings_as(SpeedSettings) for m in meters.values()]
        self._fewest = max(each.rounds for each in settings)
        self._target = min(each.target for each in settings)
        self._budget_s = max(each.time_budget_s for each in settings)
        self._baselines: dict[tuple[object, ...], _Row] = {}

    def answers(self) -> dict[str, Answer]:
        """Return every answer, or only those before a worker died."""
        phases = self._ask_all("open")
        for trial_id in self._meters:
            self._ask(trial_id, "warm")  # one after the other: first calls are timed
        rows = [
            _Row(trial_id, meter.trial, phase)
            for trial_id, meter in self._meters.items()
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
            self._on_round(number, max(most, number))
            if took_s > self._budget_s:
                break
            if number >= look:
                self._look(rows)
                look = math.ceil(_LOOK_AGAIN * number)
        self._ask_all("close")
        return self._answers

    def _ask_all(self, command: str) -> dict[str, tuple[Any, ...]]:
        """Ask all trials at once; this is not timed."""
        with ThreadPoolExecutor(len(self._meters)) as pool:
            found = pool.map(lambda id: self._ask(id, command), self._meters)
            return dict(zip(self._meters, found, strict=True))

    @property
    def _died(self) -> bool:
        """Whether a worker died, so that the meters of its other trials are lost."""
        return any(answer.died for answer in [*self._answers.values()])

    def _active(self, rows: Iterable[_Row]) -> list[_Row]:
        """Return the rows that take another turn, and those they are compared with."""
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
            row.times[number] = median(readings)

    def _look(self, rows: Iterable[_Row]) -> None:
        """Mark the rows that are known; the fastest of a group becomes its baseline."""
        timed = [row for row in rows if row.times]
        for row in sorted(timed, key=lambda row: row.median_s):
            baseline = self._baselines.setdefault(row.group, row)
            row.known = row.known or row.is_narrow(baseline, self._target)

    def _ask(
        self, trial_id: str, command: str, phase: str | None = None, number: int = 0
    ) -> tuple[Any, ...]:
        """Return what a meter found; keep an answer, and ask nothing after a death."""
        if self._died or trial_id in self._answers:
            return ()
        found = self._meters[trial_id].ask(command, phase, number)
        if isinstance(found, Answer):
            self._answers[trial_id] = found
            return ()
        return found
