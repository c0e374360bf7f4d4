"""The phases of a speed trial: what calls take, and what they must compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from harness.contract import Array, Batch, Weights
from harness.measure.capacity import FEWEST_BATCHES
from harness.measure.problem import Problem
from harness.measure.readback import Reference
from harness.runner.runner import AnyStopwatch

PHASES = ("forward", "loss_and_gradients", "train_step", "stream")

MOST_BYTES = 64 * 2**20
"""Most bytes of inputs of all batches that are placed at once."""


class Batches:
    """Batches of the trial's training data, which calls take one by one.

    Attributes:
        place_s: Seconds of placing each batch, in order.
    """

    def __init__(self, problem: Problem, stopwatch: AnyStopwatch) -> None:
        self._problem, self._stopwatch = problem, stopwatch
        self.place_s: list[float] = []
        self.grow(FEWEST_BATCHES)

    def __len__(self) -> int:
        return len(self.place_s)

    def batch(self, index: int) -> Batch:
        """Return a batch as it was before it was placed."""
        return self._problem.batch("train", index)

    def grow(self, count: int) -> None:
        """Place batches until there are `count`, or as many as `MOST_BYTES` allow."""
        while len(self) < count:
            batch = self.batch(len(self))
            most = max(FEWEST_BATCHES, MOST_BYTES // batch.inputs.nbytes)
            if len(self) >= most:
                return
            self.place_s.append(self._stopwatch.place(batch))


class TimeSteps:
    """Single time steps of sequences, one sequence at a time, on the host."""

    def __init__(self, problem: Problem, stopwatch: AnyStopwatch) -> None:
        self._problem, self._stopwatch = problem, stopwatch
        self._steps: list[Array] = []
        self.grow(1)

    def __len__(self) -> int:
        return len(self._steps)

    def grow(self, count: int) -> None:
        """Draw sequences until they have `count` time steps."""
        while len(self) < count:
            drawn = len(self) // self._problem.time_steps
            sequence = self._problem.batch("train", drawn, 1).inputs[0]
            self._stopwatch.add_steps(sequence)
            self._steps += list(sequence)

    def sequence(self, steps: Sequence[int]) -> Batch:
        """Return time steps as one sequence."""
        like = self._problem.batch("train", 0, 1)
        inputs = np.stack([self._steps[step] for step in steps])[None]
        readouts = self._problem.spec.readouts(len(steps))
        targets = np.zeros((1, readouts, *like.targets.shape[2:]), like.targets.dtype)
        scored = np.ones((1, readouts), bool)
        return Batch(inputs, np.array([len(steps)]), targets, scored)


@dataclass
class Phase:
    """One phase.

    Attributes:
        name: The phase.
        inputs: The inputs that calls take one by one.
        expected: Computes with the reference what calls have computed, from the numbers
            of the inputs of all calls.
    """

    name: str
    inputs: Batches | TimeSteps
    expected: Callable[[Sequence[int]], Weights]


def phases_of(
    problem: Problem, stopwatch: AnyStopwatch, reference: Reference
) -> dict[str, Phase]:
    """Return those phases of a trial that its implementation offers."""
    found: dict[str, Phase] = {}
    batches = None
    for name in PHASES:
        if name not in problem.phases:
            continue
        if name == "stream":
            steps = TimeSteps(problem, stopwatch)
            found[name] = Phase(name, steps, partial(_answer, steps, reference))
        elif problem.trains or name == "forward":
            batches = batches or Batches(problem, stopwatch)
            expected = partial(_result, name, batches, reference)
            found[name] = Phase(name, batches, expected)
    return found


def _answer(steps: TimeSteps, reference: Reference, calls: Sequence[int]) -> Weights:
    """Return the answer to the last of some time steps."""
    every = reference.outputs(steps.sequence(calls))
    return {"outputs": every[:, -1:]}


def _result(
    name: str, batches: Batches, reference: Reference, calls: Sequence[int]
) -> Weights:
    """Return the result of the last call, in training the weights after all calls."""
    if name == "train_step":
        return reference.train(batches.batch(index) for index in calls)
    last = batches.batch(calls[-1])
    if name == "forward":
        return {"outputs": reference.outputs(last)}
    return reference.loss_and_gradients(last)
