"""A network's gradients compared with central differences of its own outputs.

This needs no reference: a gradient that is not the slope of the outputs is wrong,
whatever the equations are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from harness.contract import Array, Batch, State
from harness.measure.certificate.network_pair import NetworkPair
from harness.measure.certificate.record import Certificate, Tolerance, in_layer
from harness.measure.certificate.shapes import PAIRWISE, Shape
from harness.measure.subject import Subject

LONGEST = 20
"""Most time steps of a sequence here: over longer ones a slope changes too fast."""

SHORTER = (1 / 8, 1 / 64, 1 / 512)
"""Shares of the step that are tried if no longer step agrees and rounding allows it."""

_FINEST = 1e-9
"""Float64 resolves a step of this size to seven digits; float32 does not resolve it."""


class Arithmetic:
    """A dtype, the step that it resolves best, and the error that is then allowed.

    A central difference with the step h is wrong by h² from curvature and by eps / h
    from rounding; both are eps^(2/3) at h = eps^(1/3).

    Attributes:
        epsilon: The distance from 1 to the next number.
        step: How far an entry is moved.
    """

    def __init__(self, dtype: Literal["float32", "float64"]) -> None:
        self.dtype = dtype
        self.epsilon = float(np.finfo(dtype).eps)
        self.step = float(np.cbrt(self.epsilon))

    def tolerance(self, time_steps: int) -> Tolerance:
        """Return the allowed error: curvature and rounding add up over time steps.

        With the kinks of relu, correct code was seen at half of it in float32 and at a
        third in float64; without them at a tenth. Half a gradient is at eight times.
        """
        allowed = 200 * time_steps * self.epsilon ** (2 / 3)
        return Tolerance(allowed, allowed / 3)


DOUBLE, SINGLE = Arithmetic("float64"), Arithmetic("float32")


def compare_differences(certificate: Certificate, subject: Subject) -> str:
    """Compare every gradient with central differences, at the short shapes.

    They are taken in float64 if the implementation really computes in float64, whatever
    it declares. Otherwise they are taken in float32, where a difference has lost most
    of its digits.

    Returns:
        The dtype in which the differences were taken.
    """
    shapes = [s for s in PAIRWISE if s.time_steps <= LONGEST]
    arithmetic = DOUBLE if _computes_in_float64(subject, shapes[0]) else SINGLE
    for index, shape in enumerate(shapes):
        where, allowed = f"at {shape.words}", arithmetic.tolerance(shape.time_steps)
        for check, error in _Differences(subject, shape, arithmetic, index).errors():
            certificate.record(check, error, where, allowed)
    return arithmetic.dtype


def _computes_in_float64(subject: Subject, shape: Shape) -> bool:
    """Say whether a float64 network resolves what float32 would round away.

    A layer may compute in float32 and still return float64.
    """
    try:
        return _Differences(subject, shape, DOUBLE, seed=0).resolves(_FINEST)
    except Exception:  # a layer that was not made for float64 may raise anything
        return False


class _Differences:
    """A network at one point, which is weights, a batch, a state and cotangents."""

    def __init__(
        self, subject: Subject, shape: Shape, arithmetic: Arithmetic, seed: int
    ) -> None:
        self._arithmetic, self._shape = arithmetic, shape
        self._allowed = arithmetic.tolerance(shape.time_steps)
        dtype = arithmetic.dtype
        trial = replace(subject.trial, dtype=dtype, precision="highest")
        pair = NetworkPair(replace(subject, trial=trial), shape)
        case = pair.case(seed, dtype)
        self._network, self._rng, self._batch = pair.network, case.rng, case.batch
        self._d_outputs = case.cotangent.astype(dtype)
        self._d_final = tuple(
            self._rng.standard_normal(part.shape).astype(dtype) for part in case.state
        )
        self._weights = case.weights
        self._state = {f"state {i}": part for i, part in enumerate(case.state)}
        reals = shape.inputs.kind == "reals"
        inputs = {"inputs": case.batch.inputs.astype(dtype)} if reals else {}
        self._at = {**case.weights, **inputs, **self._state}

    def errors(self) -> Iterator[tuple[str, float]]:
        """Yield the error of the gradient of every weight, of inputs and of state."""
        batch, state = self._loaded(self._at)
        placed = self._network.place(batch)
        found = self._network.vjp(placed, state, self._d_outputs, self._d_final)
        gradients = {**found.weights, "inputs": found.inputs}
        gradients |= dict(zip(self._state, found.state, strict=True))
        for name in self._at:
            of = "state" if name in self._state else in_layer(name)
            yield f"differences {of}", self._error(name, gradients[name])

    def resolves(self, step: float) -> bool:
        """Say whether a small step gives the same slope as the usual step does."""
        direction = {
            n: self._rng.standard_normal(w.shape) for n, w in self._weights.items()
        }
        slopes = []
        for size in (step, self._arithmetic.step):
            ends = [
                self._value({n: w + d * direction[n] for n, w in self._weights.items()})
                for d in (size, -size)
            ]
            slopes.append((ends[0] - ends[1]) / (2 * size))
        fine, coarse = slopes
        return abs(fine - coarse) <= 1e-3 * abs(coarse)

    def _error(self, name: str, gradient: Array) -> float:
        """Return the larger error of two: along the gradient and in a random direction.

        A wrong length shows along the gradient, a wrong direction in any other one.
        """
        directions = [self._rng.standard_normal(self._at[name].shape)]
        gradient = gradient.astype(np.float64)
        length = float(np.linalg.norm(gradient))
        if length > 0:
            directions.append(gradient / length)
        return max(self._least_error(name, gradient, d) for d in directions)

    def _least_error(self, name: str, gradient: Array, direction: Array) -> float:
        """Return the smallest error over steps, tried from the longest on.

        A kink between the two ends, such as that of relu, makes a difference wrong, and
        a shorter step avoids the kink. A wrong gradient is wrong with every step.
        """
        step = self._arithmetic.step * direction
        least = self._error_along(name, gradient, step)
        usual = _usual_difference(gradient, 2 * step)
        for share in SHORTER:
            if least <= self._allowed.warned or share * usual <= self._smallest:
                break
            least = min(least, self._error_along(name, gradient, share * step))
        return least

    def _error_along(self, name: str, gradient: Array, step: Array) -> float:
        at = self._at[name]
        ends = [(at + sign * step).astype(at.dtype) for sign in (1, -1)]
        # The distance after rounding, which differs from the step.
        moved = ends[0].astype(np.float64) - ends[1]
        difference = self._value({name: ends[0]}) - self._value({name: ends[1]})
        expected = float(np.vdot(gradient, moved))
        # In a direction almost at right angles to the gradient the slope is near zero:
        # there the error is relative to the slope in an average direction.
        size = max(_usual_difference(gradient, moved), abs(difference), self._smallest)
        return abs(difference - expected) / size

    @property
    def _smallest(self) -> float:
        """The smallest difference that rounding changes by no more than is allowed."""
        # Outputs and states are of order 1, and rounding walks at random over time.
        size = np.linalg.norm(self._d_outputs) + sum(map(np.linalg.norm, self._d_final))
        noise = self._arithmetic.epsilon * math.sqrt(self._shape.time_steps) * size
        return float(noise) / self._allowed.certified

    def _value(self, moved: Mapping[str, Array]) -> float:
        """Return the sum of outputs and final state, weighted with the cotangents.

        Args:
            moved: Tensors that replace those of the point, by name.
        """
        batch, state = self._loaded({**self._at, **moved})
        done = self._network.forward(self._network.place(batch), state).read()
        # Added up in float64, so that only the network itself rounds.
        total = float(np.vdot(self._d_outputs.astype(np.float64), done.outputs))
        return total + sum(
            float(np.vdot(d.astype(np.float64), part))
            for d, part in zip(self._d_final, done.state, strict=True)
        )

    def _loaded(self, at: Mapping[str, Array]) -> tuple[Batch, State]:
        """Load the weights of a point, and return its batch and its state."""
        self._network.load_weights({name: at[name] for name in self._weights})
        inputs = at.get("inputs", self._batch.inputs)
        state = tuple(at[name] for name in self._state)
        return replace(self._batch, inputs=inputs), state


def _usual_difference(gradient: Array, moved: Array) -> float:
    """Return the difference over a move of this length in an average direction."""
    length = float(np.linalg.norm(gradient) * np.linalg.norm(moved))
    return length / math.sqrt(gradient.size)
