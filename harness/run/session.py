"""Trials that are timed together: their meters are open at once and take turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from harness.run.jobs import Answer, Sink
from harness.trial import Trial

Ask = Callable[[str, Trial, str, str | None], Answer | tuple[str, ...] | None]
"""Asks a worker: trial id, trial, command, phase. An answer ends the trial; phases are
what an opened meter has."""


def time_in_turns(
    trials: Mapping[str, Trial],
    ask: Ask,
    sink: Sink,
    stands: Callable[[str, Answer], bool] = lambda *_: True,
) -> dict[str, Answer]:
    """Time trials taking turns in random order; return every answer.

    A worker that dies takes the meters of its other trials along, so the session is
    started again without the trial that killed it.

    Args:
        trials: By trial id.
        ask: Asks a worker.
        sink: Told of rounds.
        stands: Whether an answer stands; a trial whose does not is asked again.
    """
    answers: dict[str, Answer] = {}
    while left := {id: trial for id, trial in trials.items() if id not in answers}:
        found = _Turns(left, ask, sink).answers()
        answers |= {id: answer for id, answer in found.items() if stands(id, answer)}
    return answers


class _Turns:
    def __init__(self, trials: Mapping[str, Trial], ask: Ask, sink: Sink) -> None:
        self._trials, self._ask_worker, self._sink = trials, ask, sink
        self._answers: dict[str, Answer] = {}

    def answers(self) -> dict[str, Answer]:
        """Return every answer, or those until a worker died with all its meters."""
        turns = []
        for trial_id in self._trials:
            phases = self._ask(trial_id, "open")
            turns += [(trial_id, phase) for phase in phases]
        rng = np.random.default_rng()
        rounds = max(int(t.settings["rounds"]) for t in self._trials.values())
        for number in range(rounds):
            for index in rng.permutation(len(turns)):
                trial_id, phase = turns[index]
                self._ask(trial_id, "turn", phase)
            self._sink.round(number + 1, rounds)
        for trial_id in self._trials:
            self._ask(trial_id, "close")
        return self._answers

    def _ask(
        self, trial_id: str, command: str, phase: str | None = None
    ) -> tuple[str, ...]:
        """Return phases; an end is kept, and nobody is asked after a death."""
        died = any(answer.died for answer in self._answers.values())
        if died or trial_id in self._answers:
            return ()
        found = self._ask_worker(trial_id, self._trials[trial_id], command, phase)
        if isinstance(found, Answer):
            self._answers[trial_id] = found
            return ()
        return found or ()
