"""The same network twice, the one on trial and the reference, and what both are fed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

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
    State,
    Target,
    Weights,
)
from harness.measure.problem import build_oracle, initial_weights
from harness.measure.shapes import Shape
from harness.registry import Registry
from harness.trial import Trial

OUTPUT_SIZE = 3

# With ordinary constants correct float32 code drifts from float64 by half within 100
# updates; with these its noise stays under 2e-6 and every mistake is above 0.1.
_STEADY = Optimizer(learning_rate=1e-3, epsilon=1e-3, clip_norm=0.01)
OPTIMIZERS = (
    replace(_STEADY, name="adam"),
    replace(_STEADY, name="rmsprop"),
    replace(_STEADY, name="sgd", momentum=0.9),
)

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
    def has_reference(self) -> bool:
        """Whether the cell has a reference of its own."""
        return self.registry.cell(self.trial.cell).reference

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
        return self.registry.build(trial.implementation, spec, self.cell, trial.device)

    def pair(self, shape: Shape, optimizer: Optimizer | None = None) -> Pair:
        """Build the network on trial and its reference."""
        spec = self.spec(shape, optimizer)
        network = self.network(spec)
        oracle = build_oracle(self.registry, self.trial, spec, self.cell)
        return Pair(network, oracle, spec, self.cell, shape)


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
