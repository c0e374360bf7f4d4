"""The implementation's network and the reference, and what both are given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice

import numpy as np

from harness.contract import (
    Array,
    Batch,
    Cell,
    Network,
    NetworkSpec,
    Optimizer,
    Oracle,
    Placed,
    Readout,
    State,
    Steps,
    Target,
    TrainableNetwork,
    Weights,
)
from harness.declarations import INITS
from harness.measure.certificate.rounding import unit_of
from harness.measure.certificate.shapes import Shape
from harness.measure.problem import initial_weights
from harness.measure.subject import Subject

LARGE_COTANGENT = 1024.0
"""Gradients are linear in the cotangents, and scaling by a power of two rounds nothing.
Only a bound on the gradient inside time, such as a clamp to ±10, shows more clearly
with large cotangents."""

LONGEST_MEMORY = 60
"""Time constants up to this show a truncated gradient, for example every 50 time steps:
biases of keeping gates go up to ln 59 = 4.1. Far beyond, float32 itself loses digits: a
GRU computes 1 - z, with a relative error of 6e-8 / (1 - z). Setting all gates to +4
would not do: an LSTM that keeps its state and writes as much as before is chaotic, and
correct float32 code was seen 1e-4 from the reference."""


@dataclass(frozen=True)
class NetworkPair:
    """One network at one shape, twice: the implementation's and the reference.

    Each is built when it is first asked for.
    """

    subject: Subject
    shape: Shape
    optimizer: Optimizer = field(default_factory=Optimizer)

    @cached_property
    def spec(self) -> NetworkSpec:
        """What both networks are built from."""
        trial, shape = self.subject.trial, self.shape
        return NetworkSpec(
            cell=trial.cell,
            inputs=shape.inputs,
            hidden_size=shape.hidden_size,
            output_size=shape.output_size,
            readout=shape.readout,
            target=shape.target,
            num_layers=shape.num_layers,
            optimizer=self.optimizer,
            dtype=trial.dtype,
            precision=trial.precision,
            biases=trial.biases,
        )

    @cached_property
    def network(self) -> TrainableNetwork:
        """The implementation's network."""
        return self.subject.network(self.spec)

    @cached_property
    def oracle(self) -> Oracle:
        """The reference."""
        return self.subject.oracle(self.spec)

    @property
    def cell(self) -> Cell:
        """The cell of both."""
        return self.subject.cell

    def load(self, weights: Weights) -> Weights:
        """Round the weights, load them into both networks, and return them."""
        rounded = self.rounded(weights)
        self.network.load_weights(rounded)
        self.oracle.load_weights(rounded)
        return rounded

    def rounded(self, weights: Weights) -> Weights:
        """Round weights to the network's dtype, so that both compute with the same."""
        return {name: w.astype(self.spec.dtype) for name, w in weights.items()}

    @property
    def unit(self) -> float:
        """The relative distance of two neighbouring numbers of the network."""
        return unit_of(self.spec.dtype, self.spec.precision)

    def state(self, rng: np.random.Generator, dtype: str = "float32") -> State:
        """Draw a state, parts [layers, batch, hidden], from what the cell allows."""
        shape = self.shape
        size = (shape.num_layers, shape.batch, shape.hidden_size)
        ranges = self.subject.state_ranges()
        return tuple(rng.uniform(*between, size).astype(dtype) for between in ranges)

    def cotangent_of_state(self, rng: np.random.Generator) -> State:
        """Draw a cotangent of a state, parts [layers, batch, hidden], in float32."""
        shape = self.shape
        size = (shape.num_layers, shape.batch, shape.hidden_size)
        return tuple(
            rng.uniform(-0.5, 0.5, size).astype(np.float32)
            for _ in self.cell.info.state_parts
        )

    def case(self, seed: int, dtype: str = "float32", *, point: int = 0) -> Case:
        """Draw a batch and a state, and take one of the `weight_points`.

        Args:
            seed: Decides everything that is drawn.
            dtype: The dtype of the state.
            point: The index of the weight point.
        """
        rng = np.random.default_rng(seed)
        batch = random_batch(self.shape, rng)
        points = weight_points(self.spec, self.cell, seed)
        weights = self.rounded(next(islice(points, point, None)))
        return Case(self, weights, batch, self.state(rng, dtype), rng)


@dataclass
class OnBoth:
    """A batch that each network of a pair places once, when it first needs it."""

    pair: NetworkPair
    batch: Batch
    _placed: dict[bool, Placed] = field(default_factory=dict)
    _parts: tuple[OnBoth, OnBoth] | None = None

    def on(self, network: Network) -> Placed:
        """Return the batch as a network of the pair placed it."""
        own = network is self.pair.network
        if own not in self._placed:
            self._placed[own] = network.place(self.batch)
        return self._placed[own]

    def split_at(self, middle: int) -> tuple[OnBoth, OnBoth]:
        """Cut the batch in two in time; further calls return the same parts."""
        if self._parts is None:
            first, second = split_at(self.batch, middle)
            self._parts = OnBoth(self.pair, first), OnBoth(self.pair, second)
        return self._parts


@dataclass(frozen=True)
class Case:
    """Weights, a batch and a state that both networks of a pair are given.

    Attributes:
        rng: For anything else that a caller draws.
    """

    pair: NetworkPair
    weights: Weights
    batch: Batch
    state: State
    rng: np.random.Generator

    def load(self) -> Case:
        """Give the weights to both networks."""
        self.pair.load(self.weights)
        return self

    @cached_property
    def cotangent(self) -> Array:
        """A cotangent of the outputs [batch, readouts, output], drawn once."""
        size = self.pair.shape.output_size
        return self.rng.standard_normal((*self.batch.scored.shape, size))

    def oracle(self, weights: Weights | None = None) -> Oracle:
        """Return the reference with the weights, or with others."""
        self.pair.oracle.load_weights(weights or self.weights)
        return self.pair.oracle

    def around(self, steps: Steps) -> Oracle:
        """Return the reference around other time steps, with the weights."""
        changed = self.pair.subject.oracle_around(self.pair.spec, steps)
        changed.load_weights(self.weights)
        return changed


def weight_points(spec: NetworkSpec, cell: Cell, seed: int) -> Iterator[Weights]:
    """Yield two sets of weights: canonical values, and a long memory.

    Biases are moved off zero, because exchanging or forgetting a zero bias would not
    show. They are not moved far: an identity matrix with relu adds them up over the
    whole sequence. The long memory is `chrono` with time constants up to
    `LONGEST_MEMORY`. If no gate keeps the state, the recurrent matrices are rotated
    instead, because a transposed identity matrix would not show.
    """
    rng = np.random.default_rng(seed)
    for scheme in INITS:
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
    """Draw a batch of a shape, in which some positions are scored."""
    lengths = _lengths(shape, rng)
    size = (shape.batch, shape.time_steps)
    if shape.inputs.kind == "tokens":
        inputs: Array = rng.integers(0, shape.inputs.size, size)
    else:
        # Small, so that tanh does not saturate: 1 - h^2 loses digits near h = 1, and
        # correct float32 code was seen 2e-5 from the reference there.
        inputs = rng.uniform(-1, 1, (*size, shape.inputs.size)).astype(np.float32)
    every = shape.readout is Readout.EVERY
    readouts = shape.time_steps if every else 1
    scored = np.ones((shape.batch, 1), bool)
    if every:
        scored = np.arange(readouts) < lengths[:, None]
        scored[:, : readouts // 3] = False  # shows a loss over all positions
        scored[:, 0] = True
    if shape.target is Target.CLASS:
        targets: Array = rng.integers(0, shape.output_size, (shape.batch, readouts))
    else:
        normal = rng.standard_normal((shape.batch, readouts, shape.output_size))
        targets = normal.astype(np.float32)
    return Batch(inputs, lengths, targets, scored)


def one_unscored(batch: Batch) -> Batch:
    """Leave the second sequence out of the loss, if each has one answer."""
    scored = batch.scored.copy()
    if scored.shape[1] == 1:
        scored[1:2] = False
    return replace(batch, scored=scored)


def _lengths(shape: Shape, rng: np.random.Generator) -> Array:
    """Draw the length of every sequence.

    A padded batch is as a user's: the longest sequence has every time step, one has a
    single time step, and others are equal. A single sequence ends one time step early:
    padding may go beyond the longest sequence, too.
    """
    lengths = np.full(shape.batch, shape.time_steps)
    if shape.padded:
        lengths -= 1
    if shape.padded and shape.batch > 1:
        lengths[:] = rng.integers(2, shape.time_steps)
        lengths[0], lengths[1] = shape.time_steps, 1
        lengths[4:] = rng.integers(1, shape.time_steps + 1, shape.batch)[4:]
        rng.shuffle(lengths)
    return lengths


def split_at(batch: Batch, middle: int) -> tuple[Batch, Batch]:
    """Cut an unpadded batch in two in time; a last readout belongs to both parts."""

    def part(cut: slice) -> Batch:
        inputs, targets = batch.inputs[:, cut], batch.targets
        if batch.scored.shape[1] > 1:
            targets = targets[:, cut]
        lengths = np.full(batch.size, inputs.shape[1])
        return Batch(inputs, lengths, targets, np.ones(targets.shape[:2], bool))

    return part(slice(middle)), part(slice(middle, None))
