"""A network's gradients beside central differences of what it computes itself.

They need no reference: a gradient that is not the slope of the outputs is wrong,
whatever the equations are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, cast

import numpy as np

from harness.contract import Array, Batch, State, TrainableNetwork, Weights
from harness.measure.certificate.record import Certificate, Tolerance
from harness.measure.certificate.shapes import PAIRWISE, Shape
from harness.measure.certificate.subject import Subject, random_batch, weight_points

LONGEST = 20
"""Time steps of the sequences compared: over long ones a slope changes too fast."""

SHORTER = (1 / 8, 1 / 64, 1 / 512)
"""Shares of the step that are tried while none is good, and rounding allows it."""

_FINEST = 1e-9
"""A step that float64 resolves to seven digits, and float32 not at all."""


@dataclass(frozen=True)
class Arithmetic:
    """A dtype with the step that it resolves best, and what is then allowed.

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
        """Return what is allowed: curvature and rounding add up over time steps.

        Correct code was seen at half of it in float32 and a third in float64 with the
        kinks of relu, at a tenth without; half a gradient is eight times as far off.
        """
        allowed = 200 * time_steps * self.epsilon ** (2 / 3)
        return Tolerance(allowed, allowed / 3)


DOUBLE, SINGLE = Arithmetic("float64"), Arithmetic("float32")


def compare_differences(certificate: Certificate, subject: Subject) -> str:
    """Hold every gradient against central differences, at the short shapes.

    In float64 where the implementation turns out to compute in it, whatever it
    declares; in float32 otherwise, where a difference has lost most of its digits.

    Returns:
        The dtype the differences were taken in.
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
    """Say whether a network asked for float64 resolves what float32 would round away.

    A layer may round to float32 inside and still return float64.
    """
    try:
        return _Differences(subject, shape, DOUBLE, seed=0).resolves(_FINEST)
    except Exception:  # whatever a layer that was not made for it raises
        return False


class _Differences:
    """One network at one point, and what its cotangents make of outputs and state."""

    def __init__(
        self, subject: Subject, shape: Shape, arithmetic: Arithmetic, seed: int
    ) -> None:
        self._arithmetic, self._shape = arithmetic, shape
        self._allowed = arithmetic.tolerance(shape.time_steps)
        dtype = arithmetic.dtype
        trial = replace(subject.trial, dtype=dtype, precision="highest")
        subject = replace(subject, trial=trial)
        spec = subject.spec(shape)
        self._network = cast(TrainableNetwork, subject.network(spec))
        self._rng = np.random.default_rng(seed)
        weights = next(weight_points(spec, subject.cell, seed))
        self._weights = {name: tensor.astype(dtype) for name, tensor in weights.items()}
        self._batch = random_batch(shape, self._rng)
        if shape.inputs.kind == "reals":
            inputs = self._batch.inputs.astype(dtype)
            self._batch = replace(self._batch, inputs=inputs)
        size = (shape.num_layers, shape.batch, shape.hidden_size)
        parts = subject.cell.info.state_parts
        self._state = tuple(
            self._rng.uniform(-0.5, 0.5, size).astype(dtype) for _ in parts
        )
        answers = (*self._batch.scored.shape, spec.output_size)
        self._d_outputs = self._rng.standard_normal(answers).astype(dtype)
        self._d_final = tuple(
            self._rng.standard_normal(size).astype(dtype) for _ in parts
        )

    def errors(self) -> Iterator[tuple[str, float]]:
        """Yield the error of the gradient of every weight, of inputs and of state."""
        self._network.load_weights(self._weights)
        placed = self._network.place(self._batch)
        found = self._network.vjp(placed, self._state, self._d_outputs, self._d_final)
        for name, tensor in self._weights.items():
            value = partial(self._value_of_weight, name)
            of = name.split(".")[-1] if name.startswith("layer") else name
            error = self._error(tensor, found.weights[name], value)
            yield f"differences {of}", error
        if self._shape.inputs.kind == "reals":
            at, gradient = self._batch.inputs, found.inputs
            error = self._error(at, gradient, self._value_of_inputs)
            yield "differences inputs", error
        for i, part in enumerate(self._state):
            value = partial(self._value_of_part, i)
            yield "differences state", self._error(part, found.state[i], value)

    def resolves(self, step: float) -> bool:
        """Say whether a step this small shows the slope that a large one shows."""
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
        """Return the larger error of two: along the gradient, and any other way.

        Along the gradient its length shows, any other way its direction.
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
        """Return the error of the best step, the longest first.

        A kink between the two ends, such as that of relu, spoils a difference, and a
        shorter step misses it. A wrong gradient is wrong with every step.
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
        # What was moved is what rounding has left of the step.
        moved = ends[0].astype(np.float64) - ends[1]
        difference = value(ends[0]) - value(ends[1])
        expected = float(np.vdot(gradient, moved))
        # A way that the gradient hardly meets is measured by what it meets on average.
        size = float(np.linalg.norm(gradient) * np.linalg.norm(moved)) / math.sqrt(
            at.size
        )
        return abs(difference - expected) / max(size, abs(difference), self._smallest)

    @property
    def _smallest(self) -> float:
        """The smallest difference of which rounding leaves more than is allowed."""
        # Outputs and states are of order 1, and rounding walks at random over time.
        size = np.linalg.norm(self._d_outputs) + sum(map(np.linalg.norm, self._d_final))
        noise = self._arithmetic.epsilon * math.sqrt(self._shape.time_steps) * size
        return float(noise) / self._allowed.certified

    def _value_of_weight(self, name: str, moved: Array) -> float:
        return self._value({name: moved})

    def _value_of_inputs(self, moved: Array) -> float:
        return self._value(batch=replace(self._batch, inputs=moved))

    def _value_of_part(self, index: int, moved: Array) -> float:
        before, after = self._state[:index], self._state[index + 1 :]
        return self._value(state=(*before, moved, *after))

    def _value(
        self,
        weights: Mapping[str, Array] | None = None,
        batch: Batch | None = None,
        state: State | None = None,
    ) -> float:
        """Return the sum that the cotangents make of outputs and final state."""
        at: Weights = {**self._weights, **(weights or {})}
        self._network.load_weights(at)
        placed = self._network.place(batch or self._batch)
        done = self._network.forward(placed, state or self._state).read()
        # Added up in float64: the rounding left is the network's own.
        total = float(np.vdot(self._d_outputs.astype(np.float64), done.outputs))
        return total + sum(
            float(np.vdot(d.astype(np.float64), part))
            for d, part in zip(self._d_final, done.state, strict=True)
        )
