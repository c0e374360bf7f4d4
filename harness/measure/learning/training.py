"""What can it learn? Updates take new data; evaluations take held-out data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from harness.contract import Array, TrainableNetwork, Weights
from harness.errors import PluginError
from harness.measure.arithmetic import FLOPS_PER_FORWARD, flops_of_call, kept_bytes
from harness.measure.learning.readback import LearningReadBack
from harness.measure.problem import Measurement, Problem
from harness.measure.readback import ReadBack
from harness.measure.work import SPEC_BYTES, Work
from harness.quantities import LEARNING
from harness.reading import Reading
from harness.registry import Registry
from harness.trial import LearningSettings, Trial

CONSECUTIVE = 3
"""Held-out evaluations past the task's rule that count as solved."""

EVALUATION_BATCH = 500
_EVENT_BYTES = 45
"""Size of an update's part of the stored curve."""

CHUNK = 20
"""Updates between two events: often enough to watch, rarely enough to cost no time."""


@dataclass(frozen=True)
class Observer:
    """Watches learning, and may stop it.

    Attributes:
        emit: Receives each part of a curve.
        checkpoint: Receives state and arrays from which learning can continue, to the
            last bit, on the same machine with the same library versions.
        checkpoint_s: Time between two checkpoints.
        is_stopped: Called between updates; if it returns True, learning writes a
            checkpoint and ends.
        start: State and arrays of the checkpoint to continue from.
    """

    emit: Callable[[Reading], None]
    checkpoint: Callable[[Mapping[str, Any], Weights], None] = lambda *_: None
    checkpoint_s: float = math.inf
    is_stopped: Callable[[], bool] = lambda: False
    start: tuple[Mapping[str, Any], Weights] | None = None


class _StoppedError(Exception):
    """Learning was asked to stop and has written a checkpoint."""


class _DivergedError(Exception):
    """A loss or a gradient is not finite; the message says which, and when."""


@dataclass
class _Progress:
    """How far learning has come.

    Attributes:
        updates: Updates that were taken.
        clipped: Updates whose gradient was clipped.
        solved_at: The update of each of the last evaluations in a row that count as
            solved.
        evaluated_at: The update of the last evaluation.
    """

    updates: int = 0
    clipped: int = 0
    solved_at: list[int] = field(default_factory=list)
    evaluated_at: int = -1


def measure_learning(problem: Problem, observer: Observer) -> Measurement:
    """Train until the task is solved or the updates are used up.

    Results are read back and checked before and after training.

    Settings: `updates`, the most to take; `evaluate_every`; `evaluate_sequences`.

    Returns:
        The outcome is `ok`, or `diverged` if a loss or gradient is not finite, or
        `stopped` if the observer stopped it. The arrays are the trained weights.
    """
    network = problem.trainable_network()
    study, reason = _Study(problem, network, observer), None
    try:
        study.train()
    except _StoppedError:
        return Measurement([], {}, {}, "stopped", "the run was stopped")
    except _DivergedError as error:
        reason = str(error)
    # Copied, because checking changes the network's own memory.
    trained = {n: np.array(tensor) for n, tensor in network.weights().items()}
    if reason is None:
        study.read_back.check("trained", trained)
    return Measurement(
        readings=study.readings(),
        facts={
            **problem.facts(network.kernel()),
            "headline": study.task.info.headline,
            "read_back_at": study.read_back.found.where,
        },
        quantities={**LEARNING, **study.task.info.scores},
        outcome="ok" if reason is None else "diverged",
        reason=reason,
        arrays=trained,
    )


class _Study:
    """One training run and its progress."""

    def __init__(
        self, problem: Problem, network: TrainableNetwork, observer: Observer
    ) -> None:
        settings = problem.trial.settings_as(LearningSettings)
        self._problem, self._network = problem, network
        self.task, self._length = problem.task_and_length()
        self._observer, self._emit = observer, observer.emit
        self._most, self._every = settings.updates, settings.evaluate_every
        batches = problem.batches(
            "held_out", settings.evaluate_sequences, EVALUATION_BATCH
        )
        self._held_out = [(batch, network.place(batch)) for batch in batches]
        self._clip = problem.trial.optimizer.clip_norm
        self._at = _Progress()
        self._saved_at = time.monotonic()
        self.read_back = LearningReadBack(problem, network, self._held_out[0])
        if observer.start is not None:
            self._continue_from(*observer.start)
        else:
            self.read_back.check_start()
            network.load_weights(problem.initial_weights())

    @property
    def _is_solved(self) -> bool:
        return len(self._at.solved_at) >= CONSECUTIVE

    def train(self) -> None:
        """Train until the task is solved or the updates are used up.

        Raises:
            _StoppedError: If the observer stopped it; a checkpoint is written.
            _DivergedError: If a loss or a gradient is not finite.
        """
        if self._observer.start is None:
            self._evaluate()
        marks = [*range(0, self._most, self._every), self._most]
        for start, end in pairwise(marks):
            for first in range(start, end, CHUNK):
                if first < self._at.updates:  # done before the checkpoint
                    continue
                self._checkpoint()
                self._update(range(first, min(first + CHUNK, end)))
            if end > self._at.evaluated_at:
                self._evaluate()
                if self._is_solved:
                    return

    def _checkpoint(self) -> None:
        """Write a checkpoint if one is due, or if learning is stopped."""
        stopped = self._observer.is_stopped()
        due = time.monotonic() - self._saved_at >= self._observer.checkpoint_s
        if stopped or due:
            state = {**asdict(self._at), "read_back": self.read_back.found.to_json()}
            arrays = {f"weights/{n}": w for n, w in self._network.weights().items()}
            optimizer = self._network.optimizer_state()
            arrays |= {f"optimizer/{n}": a for n, a in optimizer.items()}
            self._observer.checkpoint(state, arrays)
            self._saved_at = time.monotonic()
        if stopped:
            raise _StoppedError

    def _continue_from(self, state: Mapping[str, Any], arrays: Weights) -> None:
        def of(kind: str) -> Weights:
            names = (name for name in arrays if name.startswith(kind))
            return {name.removeprefix(kind): arrays[name] for name in names}

        self._network.load_weights(of("weights/"))
        self._network.load_optimizer_state(of("optimizer/"))
        progress = dict(state)
        self.read_back.found = ReadBack(**progress.pop("read_back"))
        self._at = _Progress(**progress)

    def _update(self, indices: range) -> None:
        batches = (self._problem.batch("train", index) for index in indices)
        done = self._network.train_steps([*map(self._network.place, batches)]).read()
        self._problem.check_given()
        self._check_form("losses", done.losses, (len(indices),))
        self._check_form("gradient norms", done.gradient_norms, (len(indices),))
        updates = [index + 1 for index in indices]
        values = {
            "loss": done.losses.tolist(),
            "gradient_norm": done.gradient_norms.tolist(),
        }
        self._emit(Reading("train", values, updates, "updates"))
        if self._clip is not None:
            self._at.clipped += int(np.sum(done.gradient_norms > self._clip))
        self._at.updates = updates[-1]
        for update, loss, norm in zip(updates, *values.values(), strict=True):
            self._check_finite("loss", loss, update)
            self._check_finite("gradient", norm, update)

    def _check_form(self, name: str, found: Array, shape: tuple[int, ...]) -> None:
        """Check what a network answered, which may be anything.

        Raises:
            PluginError: If the shape differs, or these are no floating-point numbers.
        """
        array = np.asarray(found)
        if array.shape != shape or array.dtype.kind != "f":
            raise PluginError(
                self._problem.trial.implementation,
                f"{name} have shape {array.shape} and dtype {array.dtype}, not {shape} "
                "and floating-point numbers",
            )

    def _check_finite(self, name: str, value: float, update: int) -> None:
        if not np.isfinite(value):
            found = "NaN" if np.isnan(value) else "infinite"
            raise _DivergedError(f"{name} became {found} at update {update}")

    def _evaluate(self) -> None:
        total: dict[str, Any] = {}
        for batch, placed in self._held_out:
            outputs = self._network.forward(placed).read().outputs
            shape = (*batch.scored.shape, self.task.info.output_size)
            self._check_form("outputs", outputs, shape)
            for name, tally in self.task.score(outputs, batch).items():
                total[name] = total[name] + tally if name in total else tally
        scores = {name: tally.mean for name, tally in total.items()}
        updates, loss = self._at.updates, scores["loss"]
        self._emit(Reading("held_out", scores, updates, "updates"))
        self._at.evaluated_at = updates
        solved = self.task.solved(loss, scores)
        self._at.solved_at = [*self._at.solved_at, updates] if solved else []
        self._check_finite("held-out loss", loss, updates)

    def readings(self) -> list[Reading]:
        """Return the values of the whole trial."""
        outcome: dict[str, float] = {
            "solved": int(self._is_solved),
            "updates": self._at.updates,
            "budget": self._most,
            "evaluate_every": self._every,
        }
        if self._is_solved:
            outcome["updates_to_solve"] = self._at.solved_at[0]
        readings = [
            Reading("outcome", outcome),
            Reading("floor", dict(self.task.floor(length=self._length))),
            self.read_back.found.reading(),
        ]
        if self._clip is not None and self._at.updates:
            clipped = self._at.clipped / self._at.updates
            readings.append(Reading("train", {"clipped_fraction": clipped}))
        return readings


def work(registry: Registry, trial: Trial) -> Work:
    """Return what learning computes when it uses all its updates."""
    problem, settings = Problem(registry, trial), trial.settings_as(LearningSettings)
    batch, updates = trial.batch or 1, settings.updates
    sequences = settings.evaluate_sequences
    evaluations = 1 + updates / max(1, settings.evaluate_every)
    calls = math.ceil(sequences / EVALUATION_BATCH) * evaluations
    update, sizes = update_work(registry, trial), max(problem.parameters().values())
    evaluated = flops_of_call(problem, "forward", sequences)
    kept = max(batch, min(sequences, EVALUATION_BATCH) // 4)
    return Work(
        updates * update.time_steps + calls * problem.time_steps,
        updates * update.flops + evaluations * evaluated,
        start_s=0.5,
        activation_bytes=kept_bytes(problem, kept),
        file_bytes=SPEC_BYTES + _EVENT_BYTES * updates + 4 * sizes,
    )


def update_work(registry: Registry, trial: Trial) -> Work:
    """Return what one update computes."""
    problem, passes = Problem(registry, trial), FLOPS_PER_FORWARD["train_step"]
    flops = flops_of_call(problem, "forward", trial.batch or 1)
    return Work(passes * problem.time_steps, passes * flops)


def in_words(values: Mapping[tuple[str, str], Any]) -> str:
    """Return "solved at update 700", from the values by split and metric."""
    if values["outcome", "solved"]:
        return f"solved at update {values['outcome', 'updates_to_solve']}"
    return f"not solved within {values['outcome', 'budget']} updates"
