"""Is it the same mathematics? The certificate: everything held against the reference.

Outputs, final states, gradients of weights, inputs and initial state, and the steps of
the optimiser are compared with the float64 reference, tensor by tensor, as
|found - reference| / |reference| in the 2-norm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np

from harness.contract import (
    Array,
    Batch,
    Cell,
    Inputs,
    Network,
    NetworkSpec,
    Optimizer,
    Oracle,
    Readout,
    Target,
    TrainableNetwork,
    Weights,
)
from harness.errors import RefusedError
from harness.measure.certificate import QUANTITIES, TOLERANCES, Certificate
from harness.measure.problem import ORACLE, Measurement, initial_weights, offered
from harness.registry import Registry
from harness.trial import Trial

LONGEST_MEMORY = 60
"""Time constants up to this show a gradient cut short, every 50 time steps say: biases
of keeping gates go up to ln 59 = 4.1. Much beyond, float32 itself loses digits: a GRU
computes 1 - z, with a relative error of 6e-8 / (1 - z). All gates at +4 would not do:
an LSTM that keeps without writing less is chaotic, and correct float32 code was seen
1e-4 from the reference."""


@dataclass(frozen=True)
class Shape:
    """One shape of the certificate; its loss follows from the kind of input."""

    inputs: Inputs
    time_steps: int
    batch: int
    hidden_size: int
    num_layers: int
    readout: Readout
    padded: bool

    @property
    def target(self) -> Target:
        """Cross-entropy for tokens, squared error for reals."""
        return Target.CLASS if self.inputs.kind == "tokens" else Target.REAL


def _shape(
    kind: Literal["reals", "tokens"],
    size: int,
    time_steps: int,
    batch: int,
    hidden_size: int,
    num_layers: int,
    readout: str,
    padded: bool,
) -> Shape:
    return Shape(
        Inputs(kind, size),
        time_steps,
        batch,
        hidden_size,
        num_layers,
        Readout(readout),
        padded,
    )


SHAPES = (
    # Every pair of levels of any two columns occurs in some row (a test counts them):
    # kind, long or short, one or several sequences, hidden size, layers, readout, pad.
    _shape("reals", 2, 100, 4, 32, 1, "last", False),
    _shape("reals", 5, 100, 1, 20, 2, "every", False),
    _shape("reals", 5, 13, 4, 20, 1, "every", True),
    _shape("reals", 2, 13, 1, 32, 2, "last", True),
    _shape("tokens", 10, 100, 4, 20, 2, "last", True),
    _shape("tokens", 40, 100, 1, 32, 1, "every", True),
    _shape("tokens", 40, 13, 4, 32, 2, "every", False),
    _shape("tokens", 10, 13, 1, 20, 1, "last", False),
)


def measure_parity(registry: Registry, trial: Trial) -> Measurement:
    """Certify one implementation of one cell at every shape of `SHAPES`.

    Raises:
        RefusedError: If the implementation declines the trial, or no tolerance is
            stated for its precision.
    """
    declared = offered(registry, trial)
    key = (trial.dtype, trial.precision)
    if key not in TOLERANCES or trial.biases != "canonical":
        raise RefusedError(
            f"no tolerance is stated for {trial.dtype} at precision {trial.precision} "
            f"with {trial.biases} biases"
        )
    cell = registry.load_cell(trial.cell)
    certificate = Certificate(TOLERANCES[key], len(SHAPES))
    kernel = ""
    for index, shape in enumerate(SHAPES):
        pair = _pair(registry, trial, cell, shape, Optimizer())
        kernel = kernel or pair.network.kernel()
        _compare_shape(certificate, pair, shape, index, trains=declared.trains)
    if declared.trains:
        _compare_optimizers(certificate, registry, trial, cell)
    return Measurement(
        readings=certificate.readings(),
        facts={"kernel": kernel},
        quantities=QUANTITIES,
    )


@dataclass(frozen=True)
class Pair:
    """The same network twice: the one on trial and the reference."""

    network: Network
    oracle: Oracle
    spec: NetworkSpec
    cell: Cell

    def load(self, weights: Weights) -> None:
        """Give both the same weights, rounded to the dtype of the one on trial."""
        # The reference must not know more digits than the network can hold.
        rounded = {n: w.astype(self.spec.dtype) for n, w in weights.items()}
        self.network.load_weights(rounded)
        self.oracle.load_weights(rounded)


def _pair(
    registry: Registry, trial: Trial, cell: Cell, shape: Shape, optimizer: Optimizer
) -> Pair:
    spec = NetworkSpec(
        cell=trial.cell,
        inputs=shape.inputs,
        hidden_size=shape.hidden_size,
        output_size=3,
        readout=shape.readout,
        target=shape.target,
        num_layers=shape.num_layers,
        optimizer=optimizer,
        dtype=trial.dtype,
        precision=trial.precision,
        biases=trial.biases,
    )
    network = registry.build(trial.implementation, spec, cell, trial.device)
    reference = replace(spec, dtype="float64", precision="highest")
    oracle = cast(Oracle, registry.build(ORACLE, reference, cell, "cpu"))
    return Pair(network, oracle, spec, cell)


def _weight_points(pair: Pair, seed: int) -> Iterator[Weights]:
    """Give two points: canonical values, and a long memory.

    Biases are moved off zero, where exchanging or forgetting one would not show. The
    long memory is `chrono` with time constants up to `LONGEST_MEMORY`.
    """
    rng = np.random.default_rng(seed)
    for scheme in ("canonical", "chrono"):
        weights = initial_weights(pair.spec, pair.cell, scheme, seed, LONGEST_MEMORY)
        for name, tensor in weights.items():
            if tensor.ndim == 1 or name.endswith(".b"):
                weights[name] = tensor + rng.uniform(-0.2, 0.2, tensor.shape)
        yield weights


def _random_batch(shape: Shape, rng: np.random.Generator) -> Batch:
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
        targets: Array = rng.integers(0, 3, (shape.batch, readouts))
    else:
        targets = rng.standard_normal((shape.batch, readouts, 3)).astype(np.float32)
    return Batch(inputs, lengths, targets, scored)


def _compare_shape(
    certificate: Certificate, pair: Pair, shape: Shape, index: int, *, trains: bool
) -> None:
    rng = np.random.default_rng(index)
    batch = _random_batch(shape, rng)
    for weights in _weight_points(pair, index):
        pair.load(weights)
        _compare_forward(certificate, pair, shape, batch, rng)
        if trains:
            _compare_gradients(certificate, pair, shape, batch, rng)
            _compare_loss(certificate, pair, batch)


def _random_state(
    pair: Pair, shape: Shape, rng: np.random.Generator
) -> tuple[Array, ...]:
    size = (shape.num_layers, shape.batch, shape.hidden_size)
    parts = len(pair.cell.info.state_parts)
    return tuple(rng.uniform(-0.5, 0.5, size).astype(np.float32) for _ in range(parts))


def _compare_forward(
    certificate: Certificate,
    pair: Pair,
    shape: Shape,
    batch: Batch,
    rng: np.random.Generator,
) -> None:
    state = _random_state(pair, shape, rng)
    found = pair.network.forward(pair.network.place(batch), state).read()
    reference = pair.oracle.forward(pair.oracle.place(batch), state).read()
    certificate.compare("outputs", found.outputs, reference.outputs)
    for a, b in zip(found.state, reference.state, strict=True):
        certificate.compare("final state", a, b)
    # From no state: zero is what both must take.
    start = pair.network.forward(pair.network.place(batch)).read()
    zero = pair.oracle.forward(pair.oracle.place(batch)).read()
    certificate.compare("outputs", start.outputs, zero.outputs)
    one = pair.network.step(batch.inputs[:, 0], state).read()
    expected = pair.oracle.step(batch.inputs[:, 0], state).read()
    certificate.compare("one time step", one.outputs, expected.outputs)
    for a, b in zip(one.state, expected.state, strict=True):
        certificate.compare("one time step", a, b)


def _compare_gradients(
    certificate: Certificate,
    pair: Pair,
    shape: Shape,
    batch: Batch,
    rng: np.random.Generator,
) -> None:
    network = cast(TrainableNetwork, pair.network)
    readouts = batch.scored.shape[1]
    dense = rng.standard_normal((shape.batch, readouts, 3))
    last = np.zeros_like(dense)
    last[:, -1] = rng.standard_normal((shape.batch, 3))
    state = _random_state(pair, shape, rng)
    d_dense = tuple(rng.standard_normal(part.shape) for part in state)
    d_none = tuple(np.zeros(part.shape) for part in state)
    halves = [(batch, state)]
    if not batch.padded:
        # The gradient to the state at a split point stands for every state gradient.
        halves.append(_second_half(pair, batch, state))
    for part, before in halves:
        offset = batch.time_steps - part.time_steps
        for cotangent, d_final in ((dense, d_dense), (last, d_none)):
            d_outputs = cotangent[:, offset:] if readouts > 1 else cotangent
            d_outputs, d_state = _rounded(d_outputs, d_final)
            found = network.vjp(network.place(part), before, d_outputs, d_state)
            reference = pair.oracle.vjp(
                pair.oracle.place(part), before, d_outputs, d_state
            )
            where = "grad state at split" if offset else "grad initial state"
            for a, b in zip(found.state, reference.state, strict=True):
                certificate.compare(where, a, b)
            certificate.compare("grad inputs", found.inputs, reference.inputs)
            for name, d_tensor in reference.weights.items():
                check = f"grad {name.split('.')[-1]}"
                if not name.startswith("layer"):
                    check = f"grad {name}"
                certificate.compare(check, found.weights[name], d_tensor)


def _rounded(
    d_outputs: Array, d_final: tuple[Array, ...]
) -> tuple[Array, tuple[Array, ...]]:
    """Round cotangents to float32, so that both sides start from the same numbers."""
    return d_outputs.astype(np.float32), tuple(d.astype(np.float32) for d in d_final)


def _second_half(
    pair: Pair, batch: Batch, state: tuple[Array, ...]
) -> tuple[Batch, tuple[Array, ...]]:
    middle = batch.time_steps // 2
    every = batch.scored.shape[1] > 1
    cut = slice(middle, None) if every else slice(None)
    first = replace(
        batch,
        inputs=batch.inputs[:, :middle],
        lengths=np.full(batch.size, middle),
        targets=batch.targets[:, :middle],
        scored=batch.scored[:, :middle],
    )
    second = Batch(
        batch.inputs[:, middle:],
        np.full(batch.size, batch.time_steps - middle),
        batch.targets[:, cut],
        batch.scored[:, cut],
    )
    between = pair.oracle.forward(pair.oracle.place(first), state).read().state
    return second, tuple(part.astype(np.float32) for part in between)


def _compare_loss(certificate: Certificate, pair: Pair, batch: Batch) -> None:
    network = cast(TrainableNetwork, pair.network)
    found = network.loss_and_gradients(network.place(batch)).read()
    reference = pair.oracle.loss_and_gradients(pair.oracle.place(batch)).read()
    certificate.compare("loss", np.array(found.loss), np.array(reference.loss))
    for name, d_tensor in reference.gradients.items():
        certificate.compare("grad of loss", found.gradients[name], d_tensor)


# --- the optimiser's steps -----------------------------------------------------------

UPDATES = 100
# With ordinary constants correct float32 code drifts from float64 by half within 100
# updates; with these its noise stays under 2e-6 and every mistake is above 0.1.
_STEADY = Optimizer(learning_rate=1e-3, epsilon=1e-3, clip_norm=0.01)
OPTIMIZERS = (
    replace(_STEADY, name="adam"),
    replace(_STEADY, name="rmsprop"),
    replace(_STEADY, name="sgd", momentum=0.9),
)
TRAINING_SHAPE = _shape("reals", 2, 20, 8, 32, 1, "last", False)


def _compare_optimizers(
    certificate: Certificate, registry: Registry, trial: Trial, cell: Cell
) -> None:
    for optimizer in OPTIMIZERS:
        pair = _pair(registry, trial, cell, TRAINING_SHAPE, optimizer)
        pair.load(next(_weight_points(pair, 0)))
        network = cast(TrainableNetwork, pair.network)
        rng = np.random.default_rng(0)
        batches = [_random_batch(TRAINING_SHAPE, rng) for _ in range(UPDATES)]
        found = network.train_steps([network.place(b) for b in batches]).read()
        reference = pair.oracle.train_steps(
            [pair.oracle.place(b) for b in batches]
        ).read()
        assert optimizer.clip_norm is not None
        assert (reference.gradient_norms > optimizer.clip_norm).all()
        check = f"{optimizer.name} updates"
        for a, b in (
            (found.losses, reference.losses),
            (found.gradient_norms, reference.gradient_norms),
        ):
            certificate.record(check, _largest_difference(a, b))
        weights = network.weights()
        for name, tensor in pair.oracle.weights().items():
            certificate.compare(check, weights[name], tensor)
        moments = network.optimizer_state()
        for name, array in pair.oracle.optimizer_state().items():
            certificate.compare(
                f"{optimizer.name} moments", moments.get(name, np.empty(0)), array
            )


def _largest_difference(found: Array, reference: Array) -> float:
    if found.shape != reference.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.max(np.abs(found - reference) / np.abs(reference)))
