"""Mistakes that are another time step, forward or back: what the reference becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from harness.contract import (
    Array,
    CellInfo,
    Equations,
    Saved,
    State,
    Weights,
)
from harness.measure.certificate.diagnosis.changed_weights import EVERY, of_row
from harness.measure.certificate.subject import Steps
from harness.measure.equations import EquationSteps, Operations, Traced

# --- forward -------------------------------------------------------------------------


@dataclass(frozen=True)
class HardSigmoid(Operations):
    """Operations whose sigmoid is max(0, min(1, slope a + 1/2))."""

    slope: float

    def sigmoid(self, a: Traced) -> Traced:
        """Compute the line, bounded."""
        return Traced(np.clip(self.slope * a.value + 0.5, 0, 1))


def with_hard_sigmoid(
    equations: Equations, info: CellInfo
) -> Iterator[tuple[str, Steps]]:
    """Yield a cell with each hard sigmoid in use; it has no way back."""
    for slope, words, whose in (
        (1 / 6, "a/6", "torch's, JAX's and Keras 3's"),
        (0.2, "0.2 a", "Keras 2's and ONNX's"),
    ):
        yield (
            f"matches if sigmoid is a hard sigmoid, {words} + 1/2 between 0 and 1, "
            f"{whose}",
            EquationSteps(_in_operations(equations, partial(HardSigmoid, slope)), info),
        )


@dataclass
class ReluForTanh(Operations):
    """Operations of one time step whose tanh is relu.

    Args:
        only_first: Whether only the first tanh is, which is the candidate's.
    """

    only_first: bool
    _taken: int = 0

    def tanh(self, a: Traced) -> Traced:
        """Compute max(0, a), or tanh after the first."""
        self._taken += 1
        if self.only_first and self._taken > 1:
            return super().tanh(a)
        return self.relu(a)


def with_relu(equations: Equations, info: CellInfo) -> Iterator[tuple[str, Steps]]:
    """Yield a cell with relu for the tanh of its candidate, and for each tanh."""
    for words, only_first in (("the candidate's tanh", True), ("every tanh", False)):
        yield (
            f"matches if relu stands in place of {words}",
            EquationSteps(
                _in_operations(equations, partial(ReluForTanh, only_first)), info
            ),
        )


def _in_operations(
    equations: Equations, operations: Callable[[], Operations]
) -> Equations:
    """Return equations that are written in other operations than they are given.

    `operations` is called for those of each time step.
    """
    return lambda _, w, a, state: equations(operations(), w, a, state)


# --- back ----------------------------------------------------------------------------


@dataclass(frozen=True)
class NoWayThroughGates:
    """No gradient reaches what some gates are computed from.

    Their rows hand nothing back and get nothing. The gates themselves stand in what the
    step kept, so that the rest of the way back is as it was.
    """

    steps: Steps
    info: CellInfo
    gates: tuple[int, ...]

    def step(self, weights: Weights, x: Array, state: State) -> tuple[State, Saved]:
        """As the right cell."""
        return self.steps.step(weights, x, state)

    def step_backward(
        self, weights: Weights, saved: Saved, d_state: State
    ) -> tuple[Weights, Array, State]:
        """As the right cell with rows of zeros, and zeros for these rows."""
        found, d_x, before = self.steps.step_backward(
            self._without(weights), saved, d_state
        )
        return self._without(found), d_x, before

    def _without(self, weights: Weights) -> Weights:
        for gate in self.gates:
            weights = of_row(weights, gate, EVERY, np.zeros_like)
            second = f"b_h{self.info.gates[gate]}"
            if second in weights:
                weights = weights | {second: np.zeros_like(weights[second])}
        return weights


Pull = Callable[[int, State], State]
"""Called with a time step and a gradient there; returns what is handed on."""


@dataclass
class ChangedWayBack:
    """Changes the gradient to the state where a time step takes it and hands it on.

    Args:
        steps: The right cell.
        time_steps: Length of the sequences: layer after layer is run over all of it.
        entering: Changes the gradient that a time step takes, the outputs' in it.
        leaving: Changes the gradient to the state before, that it hands on.
    """

    steps: Steps
    time_steps: int
    entering: Pull
    leaving: Pull
    _taken: int = 0

    def step(self, weights: Weights, x: Array, state: State) -> tuple[State, Saved]:
        """As the right cell, and count."""
        after, saved = self.steps.step(weights, x, state)
        t = self._taken % self.time_steps
        self._taken += 1
        return after, (t, saved)

    def step_backward(
        self, weights: Weights, saved: Saved, d_state: State
    ) -> tuple[Weights, Array, State]:
        """As the right cell between two changes."""
        t, kept = saved
        d_state = self.entering(t, d_state)
        found, d_x, before = self.steps.step_backward(weights, kept, d_state)
        return found, d_x, self.leaving(t, before)


def unchanged(_: int, d_state: State) -> State:
    """Hand the gradient on."""
    return d_state
