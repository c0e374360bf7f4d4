"""What every recurrence must satisfy, whatever its equations.

For a cell that has no reference: no output before an input is changed by it, a sequence
may be split with the state passed on, the order of a batch does not matter, and in
float64 the gradients are what finite differences give.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np

from harness.contract import Array, Batch, State, TrainableNetwork, Weights
from harness.measure.certificate import Certificate, Tolerance
from harness.measure.pair import (
    Pair,
    Subject,
    random_batch,
    split_at,
    weight_points,
)
from harness.measure.shapes import PAIRWISE

DIFFERENCES = Tolerance(1e-6, 1e-7)
"""A central difference in float64 with a step of 1e-5 is good to about 1e-9."""

_STEP = 1e-5


def compare_invariants(certificate: Certificate, pair: Pair, seed: int) -> None:
    """Check batch order, causality and the passing on of a state at one shape."""
    rng = np.random.default_rng(seed)
    batch = random_batch(pair.shape, rng)
    pair.load(next(weight_points(pair.spec, pair.cell, seed)))
    state = pair.state(rng)
    words = f"at {pair.shape.words}"
    outputs, final = _forward(pair, batch, state)

    order = rng.permutation(batch.size)
    mixed, _ = _forward(pair, _reordered(batch, order), _of_batch(state, order))
    certificate.compare("batch order", mixed, outputs[order], words)
    if batch.padded:
        return

    middle = batch.time_steps // 2
    first, second = split_at(batch, middle)
    before, between = _forward(pair, first, state)
    after, end = _forward(pair, second, between)
    for a, b in zip(end, final, strict=True):
        certificate.compare("state passed on", a, b, f"final state {words}")
    if outputs.shape[1] == 1:
        certificate.compare("state passed on", after, outputs, f"outputs {words}")
        return
    whole = np.concatenate([before, after], axis=1)
    certificate.compare("state passed on", whole, outputs, f"outputs {words}")
    changed = batch.inputs.copy()
    changed[:, middle:] = changed[:, middle:][:, ::-1]
    later, _ = _forward(pair, replace(batch, inputs=changed), state)
    certificate.compare("causality", later[:, :middle], outputs[:, :middle], words)


def _forward(pair: Pair, batch: Batch, state: State) -> tuple[Array, State]:
    found = pair.network.forward(pair.network.place(batch), state).read()
    return found.outputs, found.state


def _reordered(batch: Batch, order: Array) -> Batch:
    return Batch(
        batch.inputs[order],
        batch.lengths[order],
        batch.targets[order],
        batch.scored[order],
    )


def _of_batch(state: State, order: Array) -> State:
    return tuple(part[:, order] for part in state)


# --- finite differences --------------------------------------------------------------


def compare_differences(certificate: Certificate, subject: Subject) -> None:
    """Hold every gradient against central differences along random directions.

    Only where the implementation computes in float64: in float32 a difference has lost
    what it should show.
    """
    declared = subject.registry.implementation(subject.trial.implementation)
    if "float64" not in declared.dtypes:
        return
    exact = replace(subject, trial=replace(subject.trial, dtype="float64"))
    for index, shape in enumerate(PAIRWISE):
        if shape.time_steps > 20:  # short sequences: differences of long ones are steep
            continue
        network = cast(TrainableNetwork, exact.network(exact.spec(shape)))
        _Differences(certificate, exact, network, index).run()


class _Differences:
    """One network's gradients beside its differences."""

    def __init__(
        self,
        certificate: Certificate,
        subject: Subject,
        network: TrainableNetwork,
        index: int,
    ) -> None:
        self._certificate, self._network = certificate, network
        self._shape = PAIRWISE[index]
        self._rng = np.random.default_rng(index)
        spec = subject.spec(self._shape)
        self._weights = next(weight_points(spec, subject.cell, index))
        self._batch = random_batch(self._shape, self._rng)
        inputs = self._batch.inputs
        if self._shape.inputs.kind == "reals":
            inputs = inputs.astype(np.float64)
        self._batch = replace(self._batch, inputs=inputs)
        size = (self._shape.num_layers, self._shape.batch, self._shape.hidden_size)
        parts = len(subject.cell.info.state_parts)
        self._state = tuple(self._rng.uniform(-0.5, 0.5, size) for _ in range(parts))
        readouts = self._batch.scored.shape[1]
        self._d_outputs = self._rng.standard_normal(
            (self._shape.batch, readouts, spec.output_size)
        )
        self._d_final = tuple(self._rng.standard_normal(size) for _ in range(parts))

    def run(self) -> None:
        """Compare the gradients of every weight, of the inputs and of the state."""
        self._network.load_weights(self._weights)
        placed = self._network.place(self._batch)
        found = self._network.vjp(placed, self._state, self._d_outputs, self._d_final)
        for name, tensor in self._weights.items():
            self._compare(
                f"differences {name.split('.')[-1]}",
                tensor,
                found.weights[name],
                partial(self._value_of_weight, name),
            )
        if self._shape.inputs.kind == "reals":
            self._compare(
                "differences inputs",
                self._batch.inputs,
                found.inputs,
                lambda moved: self._value(batch=replace(self._batch, inputs=moved)),
            )
        for i, part in enumerate(self._state):
            self._compare(
                "differences state",
                part,
                found.state[i],
                partial(self._value_of_part, i),
            )

    def _compare(
        self,
        check: str,
        at: Array,
        gradient: Array,
        value: Callable[[Array], float],
    ) -> None:
        direction = self._rng.standard_normal(at.shape)
        step = _STEP / float(np.linalg.norm(direction))
        slope = (value(at + step * direction) - value(at - step * direction)) / (
            2 * step
        )
        along = float(np.vdot(gradient, direction))
        # Along a direction that the gradient hardly meets the difference is noise; the
        # size of both decides what is small.
        size = float(np.linalg.norm(gradient) * np.linalg.norm(direction))
        size = max(size / math.sqrt(at.size), abs(slope), 1e-12)
        self._certificate.record(
            check, abs(slope - along) / size, f"at {self._shape.words}", DIFFERENCES
        )

    def _value_of_weight(self, name: str, moved: Array) -> float:
        return self._value(weights={name: moved})

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
        total = float(np.vdot(self._d_outputs, done.outputs))
        return total + sum(
            float(np.vdot(d, part))
            for d, part in zip(self._d_final, done.state, strict=True)
        )
