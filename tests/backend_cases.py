"""Shared by tests of backends: a small network, its batch, and the reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np

from harness.contract import (
    Array,
    Batch,
    Inputs,
    NetworkSpec,
    Oracle,
    Readout,
    State,
    Target,
    TrainableNetwork,
    Weights,
)
from harness.loading import build_network, load_cell
from harness.measure.certificate.distance import relative_error
from harness.measure.problem import initial_weights
from tests.helpers import REGISTRY

SPEC = NetworkSpec(
    cell="gru",
    inputs=Inputs("tokens", 40),
    hidden_size=6,
    output_size=3,
    readout=Readout.EVERY,
    target=Target.CLASS,
    num_layers=2,
)
BATCH, TIME_STEPS = 4, 9


def build(implementation: str, spec: NetworkSpec) -> TrainableNetwork:
    """Build a network and give it `draw_weights`."""
    cell = load_cell(REGISTRY, spec.cell)
    network = cast(
        TrainableNetwork, build_network(REGISTRY, implementation, spec, cell, "cpu")
    )
    network.load_weights(draw_weights(spec))
    return network


def draw_weights(spec: NetworkSpec) -> Weights:
    """Draw canonical weights with nonzero biases, in the network's dtype."""
    cell = load_cell(REGISTRY, spec.cell)
    rng = np.random.default_rng(0)
    return {
        name: (w + rng.uniform(-0.1, 0.1, w.shape)).astype(spec.dtype)
        for name, w in initial_weights(spec, cell, "canonical", 0, 10).items()
    }


def draw_batch(spec: NetworkSpec, seed: int = 1) -> Batch:
    """Draw sequences of 9, 5, 3 and 9 time steps."""
    rng = np.random.default_rng(seed)
    size, lengths = (BATCH, TIME_STEPS), np.array([9, 5, 3, 9])
    positions = (BATCH, spec.readouts(TIME_STEPS))
    scored = np.ones(positions, bool)
    if spec.readout is Readout.EVERY:
        scored = np.arange(TIME_STEPS) < lengths[:, None]
    inputs: Array = rng.integers(0, spec.inputs.size, size)
    if spec.inputs.kind == "reals":
        inputs = rng.uniform(-1, 1, (*size, spec.inputs.size))
    targets: Array = rng.integers(0, spec.output_size, positions)
    if spec.target is Target.REAL:
        targets = rng.standard_normal((*positions, spec.output_size))
    return Batch(inputs, lengths, targets, scored)


def draw_state(spec: NetworkSpec, batch: int = BATCH) -> State:
    """Draw a state, parts [layers, batch, hidden], in the network's dtype."""
    rng = np.random.default_rng(2)
    parts = len(load_cell(REGISTRY, spec.cell).info.state_parts)
    size = (spec.num_layers, batch, spec.hidden_size)
    return tuple(rng.uniform(-0.5, 0.5, size).astype(spec.dtype) for _ in range(parts))


def call_everything(network: Any, spec: NetworkSpec, batch: Batch) -> None:
    """Call each method of a network that computes, with padding and without."""
    placed = network.place(batch)
    state = draw_state(spec, len(batch.lengths))
    done = network.forward(placed, state).read()
    network.forward(placed).read()
    network.step(batch.inputs[:, 0], state).read()
    network.vjp(placed, state, done.outputs, done.state)
    network.loss_and_gradients(placed).read()
    network.train_steps([placed] * 2).read()


def errors_against_reference(
    network: TrainableNetwork, spec: NetworkSpec
) -> dict[str, float]:
    """Return the relative error of everything a network computes from its weights."""
    cell = load_cell(REGISTRY, spec.cell)
    reference = replace(spec, dtype="float64")
    oracle = cast(
        Oracle, build_network(REGISTRY, "numpy-reference", reference, cell, "cpu")
    )
    weights = network.weights()
    oracle.load_weights(weights)
    batch, state = draw_batch(spec), draw_state(spec)
    rng = np.random.default_rng(3)
    size = (BATCH, spec.readouts(TIME_STEPS), spec.output_size)
    d_outputs = rng.standard_normal(size).astype(spec.dtype)
    d_final = tuple(rng.standard_normal(p.shape).astype(spec.dtype) for p in state)

    def computed(one: TrainableNetwork) -> dict[str, Array]:
        placed = one.place(batch)
        whole = one.forward(placed, state).read()
        step = one.step(batch.inputs[:, 0], state).read()
        pulled = one.vjp(placed, state, d_outputs, d_final)
        loss = one.loss_and_gradients(placed).read()
        return {
            "outputs": whole.outputs,
            "step": step.outputs,
            "d_inputs": pulled.inputs,
            "loss": np.array(loss.loss),
            **_named("final", whole.state),
            **_named("step state", step.state),
            **_named("d_initial", pulled.state),
            **{f"vjp {name}": w for name, w in pulled.weights.items()},
            **{f"grad {name}": w for name, w in loss.gradients.items()},
        }

    found, expected = computed(network), computed(oracle)
    assert list(found) == list(expected)
    errors = {name: relative_error(found[name], expected[name]) for name in expected}
    return {name: e for name, e in errors.items() if e is not None}


def _named(name: str, parts: State) -> dict[str, Array]:
    return {f"{name} {i}": part for i, part in enumerate(parts)}


def assert_training_resumes(implementation: str, **changes: Any) -> None:
    """Assert that a fresh network resumes another's training bit for bit."""
    spec = replace(SPEC, num_layers=1, **changes)
    batch = draw_batch(spec)
    network = build(implementation, spec)
    placed = network.place(batch)
    network.train_steps([placed] * 3).read()
    weights, state = network.weights(), network.optimizer_state()
    assert state["updates"] == 3
    expected = network.train_steps([placed] * 2).read()
    other = build(implementation, spec)
    other.train_steps([placed]).read()  # its own moments must be forgotten
    other.load_weights(weights)
    assert other.optimizer_state() == {}
    other.load_optimizer_state(state)
    again = other.optimizer_state()
    assert list(again) == list(state)
    for name, array in state.items():
        np.testing.assert_array_equal(again[name], array)
    found = other.train_steps([other.place(batch)] * 2).read()
    np.testing.assert_array_equal(found.losses, expected.losses)
    np.testing.assert_array_equal(found.gradient_norms, expected.gradient_norms)
    for name, tensor in network.weights().items():
        np.testing.assert_array_equal(other.weights()[name], tensor)


def assert_weights_come_back(network: TrainableNetwork, spec: NetworkSpec) -> None:
    """Assert that canonical weights come back bit for bit, in order and dtype."""
    weights, found = draw_weights(spec), network.weights()
    assert list(found) == list(weights)
    for name, tensor in weights.items():
        np.testing.assert_array_equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype
