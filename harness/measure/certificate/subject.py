"""The same network twice, the one on trial and the reference, and what both are fed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol, cast

import numpy as np

from harness.contract import (
    Array,
    Batch,
    Cell,
    Network,
    NetworkSpec,
    Optimizer,
    Oracle,
    Readout,
    ReferenceCell,
    Saved,
    State,
    Target,
    Weights,
)
from harness.loading import build_around, build_network, load_equations
from harness.measure.certificate.shapes import Shape
from harness.measure.equations import EquationSteps
from harness.measure.problem import (
    Basis,
    basis_of,
    build_oracle,
    initial_weights,
)
from harness.registry import Registry
from harness.trial import Trial

OUTPUT_SIZE = 3

LARGE_COTANGENT = 1024.0
"""Gradients are linear in the cotangents, and a power of two rounds nothing: only a
bound on the gradient inside time, a clamp to ±10 say, shows more with large ones."""

LONGEST_MEMORY = 60
"""Time constants up to this show a gradient cut short, every 50 time steps say: biases
of keeping gates go up to ln 59 = 4.1. Much beyond, float32 itself loses digits: a GRU
computes 1 - z, with a relative error of 6e-8 / (1 - z). All gates at +4 would not do:
an LSTM that keeps without writing less is chaotic, and correct float32 code was seen
1e-4 from the reference."""


@dataclass(frozen=True)
class Pair:
    """The same network twice: the one on trial and the reference."""

    network: Network
    oracle: Oracle
    spec: NetworkSpec
    cell: Cell
    shape: Shape

    def load(self, weights: Weights) -> Weights:
        """Give both the same weights, rounded to the dtype of the one on trial."""
        # The reference must not know more digits than the network can hold.
        rounded = {n: w.astype(self.spec.dtype) for n, w in weights.items()}
        self.network.load_weights(rounded)
        self.oracle.load_weights(rounded)
        return rounded

    def state(self, rng: np.random.Generator) -> State:
        """Draw a state, parts [layers, batch, hidden]."""
        shape = self.shape
        size = (shape.num_layers, shape.batch, shape.hidden_size)
        return tuple(
            rng.uniform(-0.5, 0.5, size).astype(np.float32)
            for _ in self.cell.info.state_parts
        )


class Steps(Protocol):
    """One time step of a layer, and back, in float64."""

    def step(self, weights: Weights, x: Array, state: State) -> tuple[State, Saved]:
        """As `ReferenceCell.step`."""

    def step_backward(
        self, weights: Weights, saved: Saved, d_state: State
    ) -> tuple[Weights, Array, State]:
        """As `ReferenceCell.step_backward`."""


@dataclass(frozen=True)
class Subject:
    """Whom the certificate is about.

    Raises:
        RefusedError: From `pair`, if there is nothing to hold it against.
    """

    registry: Registry
    trial: Trial
    cell: Cell

    @property
    def basis(self) -> Basis:
        """What it is held against."""
        return basis_of(self.registry, self.trial.cell)

    def spec(self, shape: Shape, optimizer: Optimizer | None = None) -> NetworkSpec:
        """Return the network on trial at a shape."""
        trial = self.trial
        return NetworkSpec(
            cell=trial.cell,
            inputs=shape.inputs,
            hidden_size=shape.hidden_size,
            output_size=OUTPUT_SIZE,
            readout=shape.readout,
            target=shape.target,
            num_layers=shape.num_layers,
            optimizer=optimizer or Optimizer(),
            dtype=trial.dtype,
            precision=trial.precision,
            biases=trial.biases,
        )

    def network(self, spec: NetworkSpec) -> Network:
        """Build the network on trial."""
        trial = self.trial
        return build_network(
            self.registry, trial.implementation, spec, self.cell, trial.device
        )

    def oracle(self, spec: NetworkSpec) -> Oracle:
        """Build the reference of the network on trial."""
        return build_oracle(self.registry, self.trial, spec, self.cell)

    def steps(self) -> Steps:
        """Return the time steps of the cell's reference, or of its equations."""
        if self.basis is Basis.REFERENCE:
            return cast(ReferenceCell, self.cell)
        equations = load_equations(self.registry, self.trial.cell)
        return EquationSteps(equations, self.cell.info)

    def oracle_around(self, spec: NetworkSpec, steps: Steps) -> Oracle:
        """Build the reference around other time steps, the same in every layer."""
        reference = replace(
            spec, dtype="float64", precision="highest", biases="canonical"
        )
        found = build_around(
            self.registry, "numpy", lambda *_: steps, reference, self.cell, "cpu"
        )
        return cast(Oracle, found)

    def pair(self, shape: Shape, optimizer: Optimizer | None = None) -> Pair:
        """Build the network on trial and its reference."""
        spec = self.spec(shape, optimizer)
        network = self.network(spec)
        return Pair(network, self.oracle(spec), spec, self.cell, shape)


def weight_points(spec: NetworkSpec, cell: Cell, seed: int) -> Iterator[Weights]:
    """Give two points: canonical values, and a long memory.

    Biases are moved off zero, where exchanging or forgetting one would not show, and
    not far: an identity matrix with relu adds them up over the whole sequence. The long
    memory is `chrono` with time constants up to `LONGEST_MEMORY`. Where no gate keeps
    the state, the recurrent matrices are turned instead: an identity would hide that
    one was transposed.
    """
    rng = np.random.default_rng(seed)
    for scheme in ("canonical", "chrono"):
        weights = initial_weights(spec, cell, scheme, seed, LONGEST_MEMORY)
        turned = scheme == "chrono" and cell.info.keep_bias is None
        for name, tensor in weights.items():
            if turned and name.endswith("w_hh"):
                turn, _ = np.linalg.qr(rng.standard_normal(tensor.shape[-2:]))
                weights[name] = tensor @ turn
            if tensor.ndim == 1 or name.endswith(".b"):
                weights[name] = tensor + rng.uniform(-0.05, 0.05, tensor.shape)
        yield weights


def random_batch(shape: Shape, rng: np.random.Generator) -> Batch:
    """Draw a batch of a shape, part of its positions scored."""
    lengths = np.full(shape.batch, shape.time_steps)
    if shape.padded:
        lengths = rng.integers(1, shape.time_steps, shape.batch)
        lengths[0] = shape.time_steps - 1
    size = (shape.batch, shape.time_steps)
    if shape.inputs.kind == "tokens":
        inputs: Array = rng.integers(0, shape.inputs.size, size)
    else:
        # Small enough to leave tanh unsaturated: 1 - h^2 loses digits near h = 1, and
        # correct float32 code was seen 2e-5 from the reference there.
        inputs = rng.uniform(-1, 1, (*size, shape.inputs.size)).astype(np.float32)
    every = shape.readout is Readout.EVERY
    readouts = shape.time_steps if every else 1
    scored = np.ones((shape.batch, 1), bool)
    if every:
        scored = np.arange(readouts) < lengths[:, None]
        scored[:, : readouts // 3] = False  # a loss over all positions must show
        scored[:, 0] = True
    if shape.target is Target.CLASS:
        targets: Array = rng.integers(0, OUTPUT_SIZE, (shape.batch, readouts))
    else:
        normal = rng.standard_normal((shape.batch, readouts, OUTPUT_SIZE))
        targets = normal.astype(np.float32)
    return Batch(inputs, lengths, targets, scored)


def split_at(batch: Batch, middle: int) -> tuple[Batch, Batch]:
    """Cut an unpadded batch in two in time; a last readout belongs to both parts."""
    every = batch.scored.shape[1] > 1
    parts = []
    for cut in (slice(None, middle), slice(middle, None)):
        readouts = cut if every else slice(None)
        inputs = batch.inputs[:, cut]
        parts.append(
            replace(
                batch,
                inputs=inputs,
                lengths=np.full(batch.size, inputs.shape[1]),
                targets=batch.targets[:, readouts],
                scored=np.ones_like(batch.scored[:, readouts]),
            )
        )
    return parts[0], parts[1]
