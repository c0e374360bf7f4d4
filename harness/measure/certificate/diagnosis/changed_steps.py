"""Mistakes inside a time step, forward or backward, as steps for the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from harness.contract import Array, CellInfo, Equations, Saved, State, Steps, Weights
from harness.measure.certificate.diagnosis.changed_weights import EVERY, of_row
from harness.measure.equations import EquationSteps, Operations, Traced

# --- forward -------------------------------------------------------------------------


@dataclass(frozen=True)
class HardSigmoid(Operations):
    """Operations with sigmoid(a) = max(0, min(1, slope a + 1/2))."""

    slope: float

    def sigmoid(self, a: Traced) -> Traced:
        """Compute the line, bounded to 0 and 1; no gradient passes back through it."""
        return Traced(np.clip(self.slope * a.value + 0.5, 0, 1))


@dataclass
class ReluForTanh(Operations):
    """Operations of one time step with relu instead of tanh.

    Args:
        only_first: Replace only the first tanh, which is the candidate's.
    """

    only_first: bool
    _taken: int = 0

    def tanh(self, a: Traced) -> Traced:
        """Compute max(0, a), or tanh after the first."""
        self._taken += 1
        if self.only_first and self._taken > 1:
            return super().tanh(a)
        return self.relu(a)


def other_activations(
    equations: Equations, info: CellInfo
) -> Iterator[tuple[str, Steps]]:
    """Yield the cell's steps with each usual hard sigmoid, and with relu for tanh."""

    def with_operations(operations: Callable[[], Operations]) -> Steps:
        # New operations for each time step, because they count their calls in it.
        return EquationSteps(lambda _, *rest: equations(operations(), *rest), info)

    hard = "matches if sigmoid is a hard sigmoid, {} + 1/2 between 0 and 1, {}"
    relu = "matches if relu stands in place of {}"
    sixth = hard.format("a/6", "torch's, JAX's and Keras 3's")
    yield sixth, with_operations(partial(HardSigmoid, 1 / 6))
    fifth = hard.format("0.2 a", "Keras 2's and ONNX's")
    yield fifth, with_operations(partial(HardSigmoid, 0.2))
    only_first = relu.format("the candidate's tanh")
    yield only_first, with_operations(partial(ReluForTanh, True))
    yield relu.format("every tanh"), with_operations(partial(ReluForTanh, False))


# --- backward ------------------------------------------------------------------------


Pull = Callable[[int, State], State]
"""Called with a time step and the gradient to the state; returns another gradient."""


@dataclass
class ChangedBackward:
    """Time steps with a right forward pass and a changed backward pass.

    Args:
        steps: The right cell.
        time_steps: Length of the sequences; each layer runs over all of it in turn.
        entering: Changes the gradient to the state after a time step, that of the
            outputs included.
        leaving: Changes the gradient to the state before a time step.
        weights: Changes the weights of the backward step, and their gradients.
    """

    steps: Steps
    time_steps: int
    entering: Pull = lambda _, d_state: d_state
    leaving: Pull = lambda _, d_state: d_state
    weights: Callable[[Weights], Weights] = lambda weights: weights
    _taken: int = 0

    def step(self, weights: Weights, x: Array, state: State) -> tuple[State, Saved]:
        """Do what the right cell does, and count the time steps."""
        after, saved = self.steps.step(weights, x, state)
        t = self._taken % self.time_steps
        self._taken += 1
        return after, (t, saved)

    def step_backward(
        self, weights: Weights, saved: Saved, d_state: State
    ) -> tuple[Weights, Array, State]:
        """Do what the right cell does, between the changes."""
        t, kept = saved
        found, d_x, before = self.steps.step_backward(
            self.weights(weights), kept, self.entering(t, d_state)
        )
        return self.weights(found), d_x, self.leaving(t, before)


def without_gates(weights: Weights, info: CellInfo, gates: Sequence[int]) -> Weights:
    """Return weights with zeros in the rows of some gates.

    In a backward step no gradient then flows back through these gates. The step has
    saved the gates' values, so that the other gradients are right.
    """
    for gate in gates:
        weights = of_row(weights, gate, EVERY, np.zeros_like)
        second = f"b_h{info.gates[gate]}"
        if second in weights:
            weights = weights | {second: np.zeros_like(weights[second])}
    return weights
