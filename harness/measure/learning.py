"""What can it learn? Fresh data every update, held out data every N updates."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from harness.contract import Batch, Quantity, Task, TrainableNetwork
from harness.errors import PluginError
from harness.measure.problem import Measurement, Problem
from harness.store import Reading

CONSECUTIVE = 3
"""Held-out evaluations past the task's rule that count as solved."""

EVALUATION_BATCH = 500
CHUNK = 20
"""Updates between two events: often enough to watch, seldom enough to cost nothing."""

QUANTITIES = {
    "gradient_norm": Quantity("norm before clipping", "neither"),
    "clipped_fraction": Quantity("fraction", "neither"),
    "solved": Quantity("yes or no", "higher"),
    "updates_to_solve": Quantity("updates", "lower"),
    "updates": Quantity("updates", "neither"),
    "budget": Quantity("updates", "neither"),
    "evaluate_every": Quantity("updates", "neither"),
}

Emit = Callable[[Reading], None]


def measure_learning(problem: Problem, emit: Emit) -> Measurement:
    """Train until solved or at the budget.

    Settings: `updates`, the budget; `evaluate_every`; `evaluate_sequences`.

    Returns:
        The outcome `ok`, or `diverged` where a loss or gradient is no longer finite;
        the trained weights as arrays.
    """
    assert problem.task is not None
    network = problem.trainable_network()
    network.load_weights(problem.initial_weights())
    study = _Study(problem, problem.task, network, emit)
    reason = study.train()
    return Measurement(
        readings=study.readings(),
        facts={
            "kernel": network.kernel(),
            "parameters": problem.parameters(),
            "time_steps": problem.time_steps,
            "headline": problem.task.info.headline,
        },
        quantities={**QUANTITIES, **problem.task.info.scores},
        outcome="ok" if reason is None else "diverged",
        reason=reason,
        arrays=network.weights(),
    )


class _Study:
    """One training run: its place, its norms, its row of solved evaluations."""

    def __init__(
        self, problem: Problem, task: Task, network: TrainableNetwork, emit: Emit
    ) -> None:
        settings = problem.trial.settings
        self._problem, self._task, self._network = problem, task, network
        self._emit = emit
        self._budget = int(settings["updates"])
        self._every = int(settings["evaluate_every"])
        sequences = int(settings["evaluate_sequences"])
        self._held_out = [
            (batch, network.place(batch))
            for batch in problem.batches("held_out", sequences, EVALUATION_BATCH)
        ]
        self._updates = 0
        self._norms: list[float] = []
        self._solved_at: list[int] = []

    @property
    def _is_solved(self) -> bool:
        return len(self._solved_at) >= CONSECUTIVE

    def train(self) -> str | None:
        """Train; return why the loss stopped being finite, or None."""
        reason = self._evaluate()
        if reason is not None:
            return reason
        marks = [*range(0, self._budget, self._every), self._budget]
        for start, end in pairwise(marks):
            for first in range(start, end, CHUNK):
                reason = self._update(range(first, min(first + CHUNK, end)))
                if reason is not None:
                    return reason
            reason = self._evaluate()
            if reason is not None or self._is_solved:
                return reason
        return None

    def _update(self, indices: range) -> str | None:
        size = self._problem.trial.batch
        assert size is not None
        placed = [
            self._network.place(self._problem.batch("train", index, size))
            for index in indices
        ]
        done = self._network.train_steps(placed).read()
        updates = [index + 1 for index in indices]
        finite = np.isfinite(done.losses) & np.isfinite(done.gradient_norms)
        values = {
            "loss": done.losses.tolist(),
            "gradient_norm": done.gradient_norms.tolist(),
        }
        self._emit(Reading("train", values, updates, "updates"))
        self._norms += values["gradient_norm"]
        self._updates = updates[-1]
        if finite.all():
            return None
        bad = int(np.argmin(finite))
        name, found = "loss", done.losses[bad]
        if np.isfinite(found):
            name, found = "gradient", done.gradient_norms[bad]
        return f"{name} became {_named(found)} at update {updates[bad]}"

    def _evaluate(self) -> str | None:
        total: dict[str, Any] = {}
        for batch, placed in self._held_out:
            outputs = self._network.forward(placed).read().outputs
            self._check_shape(outputs.shape, batch)
            for name, tally in self._task.score(outputs, batch).items():
                total[name] = total[name] + tally if name in total else tally
        scores = {name: tally.mean for name, tally in total.items()}
        loss = scores["loss"]
        self._emit(Reading("held_out", scores, self._updates, "updates"))
        if self._task.solved(loss, scores):
            self._solved_at.append(self._updates)
        else:
            self._solved_at = []
        if np.isfinite(loss):
            return None
        return f"held-out loss became {_named(loss)} at update {self._updates}"

    def _check_shape(self, found: tuple[int, ...], batch: Batch) -> None:
        expected = (*batch.scored.shape, self._task.info.output_size)
        if found != expected:
            name = self._problem.trial.implementation
            raise PluginError(name, f"outputs have shape {found}, not {expected}")

    def readings(self) -> list[Reading]:
        """Return the values of the whole trial."""
        length = self._problem.trial.length
        assert length is not None
        clip = self._problem.trial.optimizer.clip_norm
        outcome: dict[str, float] = {
            "solved": int(self._is_solved),
            "updates": self._updates,
            "budget": self._budget,
            "evaluate_every": self._every,
        }
        if self._is_solved:
            outcome["updates_to_solve"] = self._solved_at[0]
        readings = [
            Reading("outcome", outcome),
            Reading("floor", dict(self._task.floor(length=length))),
        ]
        if clip is not None and self._norms:
            clipped = float(np.mean(np.array(self._norms) > clip))
            readings.append(Reading("train", {"clipped_fraction": clipped}))
        return readings


def _named(value: float) -> str:
    return "NaN" if np.isnan(value) else "infinite"
