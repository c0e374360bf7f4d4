"""Time steps of a hypothesis, computed no further than it takes to refute them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.contract import Array, Saved, State, Steps, Weights
from harness.measure.certificate.distance import UNDERFLOW, norm


class RefutedError(Exception):
    """A hypothesis gives another gradient of the inputs than was found."""


@dataclass(frozen=True)
class Sought:
    """The gradient of the inputs that was found, which a hypothesis must give.

    Attributes:
        d_inputs: That gradient [batch, time, input].
        farthest: No part of a gradient that agrees is farther from it.
    """

    d_inputs: Array
    farthest: float

    @classmethod
    def of(cls, d_inputs: Array, tolerance: float) -> Sought:
        """Return what to look for, within a relative error of at most a half.

        If |found - given| <= tolerance |given|, then |given| <= 2 |found|. Two
        gradients that underflow agree too.
        """
        farthest = max(2 * tolerance * norm(d_inputs), 20 * UNDERFLOW)
        return cls(d_inputs, farthest)


@dataclass
class TriedSteps:
    """Time steps with a right forward pass and a changed backward pass.

    Backward they end with `RefutedError` as soon as the gradient of the inputs is too
    far from the one that is sought. Most mistakes show in the last time steps.

    Args:
        steps: The cell with the change.
        known: What its forward steps gave, layer by layer. The first pass fills it, and
            hypotheses with the same forward steps share it.
        sought: The gradient of the inputs that was found.
    """

    steps: Steps
    known: list[tuple[State, Saved]]
    sought: Sought
    _taken: int = 0
    _square: float = 0.0

    def step(self, weights: Weights, x: Array, state: State) -> tuple[State, Saved]:
        """Return what the cell gives, computed once for all who share `known`."""
        number = self._taken
        self._taken += 1
        if number == len(self.known):
            self.known.append(self.steps.step(weights, x, state))
        after, saved = self.known[number]
        return after, (number, saved)

    def step_backward(
        self, weights: Weights, saved: Saved, d_state: State
    ) -> tuple[Weights, Array, State]:
        """Do what the cell does.

        Raises:
            RefutedError: If the gradient of the inputs cannot be the one sought.
        """
        number, kept = saved
        found = self.steps.step_backward(weights, kept, d_state)
        d_inputs = self.sought.d_inputs
        if number < d_inputs.shape[1]:  # the first layer, which the inputs enter
            off = found[1] - d_inputs[:, number]
            self._square += float(np.vdot(off, off))
            if self._square > self.sought.farthest**2:
                raise RefutedError
        return found
