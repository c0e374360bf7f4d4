"""A network's gradients compared with central differences of its own outputs.

This needs no reference: a gradient that is not the slope of the outputs is wrong,
whatever the equations are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from harness.contract import Array, Batch, State
from harness.measure.certificate.pair import Pair
from harness.measure.certificate.record import Certificate, Tolerance, in_layer
from harness.measure.certificate.shapes import PAIRWISE, Shape
from harness.measure.subject import Subject

LONGEST = 20
"""Most time steps of a sequence here: over longer ones a slope changes too fast."""

SHORTER = (1 / 8, 1 / 64, 1 / 512)
"""Parts of the step that are tried next if no step agrees, while rounding allows it."""

_FINEST = 1e-9
"""Float64 resolves a step of this size to seven digits; float32 does not resolve it."""


@dataclass(frozen=True)
class Arithmetic:
    """A dtype, the step that it resolves best, and the error that is then allowed.

    A central difference with the step h is wrong by h² from curvature and by eps / h
    from rounding; both are eps^(2/3) at h = eps^(1/3).
    """

    dtype: Literal["float32", "float64"]

    @property
    def epsilon(self) -> float:
        """The distance from 1 to the next number."""
        return float(np.finfo(self.dtype).eps)

    @property
    def step(self) -> float:
        """How far an entry is moved."""
        return float(np.cbrt(self.epsilon))

    def tolerance(self, time_steps: int) -> Tolerance:
        """Return the allowed error: curvature and rounding add up over time steps.

        Correct code was seen at half of it in float32 and a third in float64 with the
        kinks of relu, at a tenth without them. Half a gradient is eight times over it.
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
        network = _Differences(subject, shape, arithmetic, index)
        for check, error in network.errors():
            certificate.record(
                check,
                error,
                f"at {shape.words}",
                arithmetic.tolerance(shape.time_steps),
            )
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
    """One network at one point: weights, batch, state and cotangents."""

    def __init__(
        self, subject: Subject, shape: Shape, arithmetic: Arithmetic, seed: int
    ) -> None:
        self._arithmetic, self._shape = arithmetic, shape
        self._allowed = arithmetic.tolerance(shape.time_steps)
        dtype = arithmetic.dtype
        trial = replace(subject.trial, dtype=dtype, precision="highest")
        pair = Pair(replace(subject, trial=trial), shape)
        case = pair.case(seed, dtype)
        self._network, self._rng, self._batch = pair.network, case.rng, case.batch
        self._d_outputs = case.cotangent().astype(dtype)
        self._d_final = tuple(
            self._rng.standard_normal(part.shape).astype(dtype) for part in case.state
        )
        self._weights = case.weights
        self._state = {f"state {i}": part for i, part in enumerate(case.state)}
        self._at = {**case.weights, **self._state}
        if shape.inputs.kind == "reals":
            inputs = {"inputs": case.batch.inputs.astype(dtype)}
            self._at = {**case.weights, **inputs, **self._state}

    def errors(self) -> Iterator[tuple[str, float]]:
        """Yield the error of the gradient of every weight, of inputs and of state."""
        batch, state = self._loaded(self._at)
        placed = self._network.place(batch)
        found = self._network.vjp(placed, state, self._d_outputs, self._d_final)
        gradients = {**found.weights, "inputs": found.inputs}
        gradients |= dict(zip(self._state, found.state, strict=True))
        for name, tensor in self._at.items():
            of = "state" if name in self._state else in_layer(name)
            value = partial(self._value_at, name)
            yield f"differences {of}", self._error(tensor, gradients[name], value)

    def resolves(self, step: float) -> bool:
        """Say whether a small step gives the same slope as the usual step."""
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

    def _error(
        self, at: Array, gradient: Array, value: Callable[[Array], float]
    ) -> float:
        """Return the larger error of two: along the gradient and in a random direction.

        A wrong length shows along the gradient, a wrong direction in any other one.
        """
        ways = [self._rng.standard_normal(at.shape)]
        gradient = gradient.astype(np.float64)
        length = float(np.linalg.norm(gradient))
        if length > 0:
            ways.append(gradient / length)
        return max(self._least_error(at, gradient, value, way) for way in ways)

    def _least_error(
        self, at: Array, gradient: Array, value: Callable[[Array], float], way: Array
    ) -> float:
        """Return the smallest error over steps, tried from the longest on.

        A kink between the two ends, such as that of relu, spoils a difference; a
        shorter step avoids the kink. A wrong gradient is wrong with every step.
        """
        step = self._arithmetic.step * way
        least = self._error_along(at, gradient, value, step)
        length = float(np.linalg.norm(gradient) * np.linalg.norm(2 * step))
        for share in SHORTER:
            resolved = share * length / math.sqrt(at.size) > self._smallest
            if least <= self._allowed.warned or not resolved:
                break
            least = min(least, self._error_along(at, gradient, value, share * step))
        return least

    def _error_along(
        self, at: Array, gradient: Array, value: Callable[[Array], float], step: Array
    ) -> float:
        ends = [(at + sign * step).astype(at.dtype) for sign in (1, -1)]
        # The distance after rounding, which differs from the step.
        moved = ends[0].astype(np.float64) - ends[1]
        difference = value(ends[0]) - value(ends[1])
        expected = float(np.vdot(gradient, moved))
        # In a direction almost at right angles to the gradient the slope is near zero:
        # there the error is relative to the slope in an average direction.
        size = float(np.linalg.norm(gradient) * np.linalg.norm(moved)) / math.sqrt(
            at.size
        )
        return abs(difference - expected) / max(size, abs(difference), self._smallest)

    @property
    def _smallest(self) -> float:
        """The smallest difference that rounding changes by no more than is allowed."""
        # Outputs and states are of order 1, and rounding walks at random over time.
        size = np.linalg.norm(self._d_outputs) + sum(map(np.linalg.norm, self._d_final))
        noise = self._arithmetic.epsilon * math.sqrt(self._shape.time_steps) * size
        return float(noise) / self._allowed.certified

    def _value_at(self, name: str, moved: Array) -> float:
        return self._value({name: moved})

    def _value(self, moved: Mapping[str, Array]) -> float:
        """Return outputs and final state, weighted with the cotangents and summed.

        Args:
            moved: Tensors that replace those at the point.
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
