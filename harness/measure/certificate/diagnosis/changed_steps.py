"""Mistakes inside a time step, forward or backward, as steps for the reference."""

from __future__ import annotations

import itertools
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


class FirstGates(Operations):
    """Operations of one time step whose sigmoids are those of the first time step.

    Args:
        kept: The values of the first time step, which this one appends to or reads.
        first: Whether this is the first time step.
    """

    def __init__(self, kept: list[Array], first: bool) -> None:
        self._kept, self._first, self._taken = kept, first, 0

    def sigmoid(self, a: Traced) -> Traced:
        """Compute σ(a) in the first time step; return that value in later ones."""
        if self._first:
            self._kept.append(super().sigmoid(a).value)
        self._taken += 1
        return Traced(self._kept[self._taken - 1])


def other_activations(
    equations: Equations, info: CellInfo, time_steps: int
) -> Iterator[tuple[str, Steps]]:
    """Yield the cell's steps with other values of the gates and candidates.

    These are each usual hard sigmoid, relu for tanh, and the gates of the first time
    step in all time steps.
    """

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
    taken, kept = itertools.count(), list[Array]()

    def of_first() -> FirstGates:
        first = next(taken) % time_steps == 0
        if first:
            kept.clear()
        return FirstGates(kept, first)

    words = "matches if the gates of the first time step are used in all"
    yield words, with_operations(of_first)


@dataclass
class ForgottenState:
    """Time steps of a layer of which some start anew.

    Args:
        steps: The right cell.
        time_steps: Length of the sequences; each layer runs over all of it in turn.
        every: Every so many time steps one starts anew.
        zeros: Whether it starts from zeros, or else from the layer's initial state.
        first: Whether the first time step starts anew, too.
    """

    steps: Steps
    time_steps: int
    every: int
    zeros: bool
    first: bool = False
    _taken: int = 0
    _initial: State = ()

    def step(self, weights: Weights, x: Array, state: State) -> tuple[State, Saved]:
        """Do what the right cell does, from another state in some time steps."""
        t = self._taken % self.time_steps
        self._taken += 1
        if t == 0:
            self._initial = state
        if t % self.every == 0 and (t > 0 or self.first):
            zeros = tuple(map(np.zeros_like, state))
            state = zeros if self.zeros else self._initial
        return self.steps.step(weights, x, state)

    def step_backward(
        self, weights: Weights, saved: Saved, d_state: State
    ) -> tuple[Weights, Array, State]:
        """Do what the right cell does."""
        return self.steps.step_backward(weights, saved, d_state)


RESETS = (1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 50, 64)


def other_states(steps: Steps, time_steps: int) -> Iterator[tuple[str, Steps]]:
    """Yield the cell's steps with a state that is not carried on."""
    for every in RESETS:
        words = f"the state is not carried on over every {every} time steps"
        if every == 1:
            words = "the state is not carried on: every time step starts anew"
        for zeros, first in ((True, False), (True, True), (False, False)):
            yield words, ForgottenState(steps, time_steps, every, zeros, first)


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
