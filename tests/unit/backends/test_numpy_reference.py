"""The reference agrees with finite differences and torch's optimisers and losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.contract import (
    Array,
    Batch,
    Inputs,
    NetworkSpec,
    Optimizer,
    Readout,
    Target,
    Weights,
)
from harness.loading import load_cell
from harness.measure.problem import initial_weights
from implementations.numpy_reference import optimizers
from implementations.numpy_reference.losses import loss_and_gradient
from implementations.numpy_reference.network import NumpyNetwork
from implementations.shared.optimizers import moments as moments_of
from tests.helpers import REGISTRY

CELLS = sorted(REGISTRY.implementation("numpy-reference").cells)

STEP = 1e-6
"""Central differences in float64 are off by about STEP^2 + 1e-16 / STEP = 1e-10."""
TOLERANCE = 1e-7


def network(cell: str, **changes: Any) -> tuple[NumpyNetwork, Weights, Batch]:
    """Return two layers, their weights and a padded batch of embedded tokens."""
    options: dict[str, Any] = {
        "cell": cell,
        "inputs": Inputs("tokens", 40),
        "hidden_size": 5,
        "output_size": 3,
        "readout": Readout.EVERY,
        "target": Target.CLASS,
        "num_layers": 2,
        "dtype": "float64",
    }
    spec = NetworkSpec(**{**options, **changes})
    rng = np.random.default_rng(1)
    lengths = np.array([7, 4, 1])
    if spec.inputs.kind == "tokens":
        inputs: Array = rng.integers(0, spec.inputs.size, (3, 7))
    else:
        inputs = rng.standard_normal((3, 7, spec.inputs.size))
    readouts = spec.readouts(7)
    scored = np.ones((3, readouts), bool)
    if readouts > 1:
        scored = np.arange(readouts) < lengths[:, None]
    if spec.target is Target.CLASS:
        targets: Array = rng.integers(0, 3, (3, readouts))
    else:
        targets = rng.standard_normal((3, readouts, 3))
    built = NumpyNetwork(spec, load_cell(REGISTRY, cell), "cpu")
    weights = initial_weights(spec, load_cell(REGISTRY, cell), "canonical", 0, 7)
    weights = {n: w + rng.uniform(-0.3, 0.3, w.shape) for n, w in weights.items()}
    built.load_weights(weights)
    return built, weights, Batch(inputs, lengths, targets, scored)


def slope(value: Callable[[float], float]) -> float:
    return (value(STEP) - value(-STEP)) / (2 * STEP)


VARIANTS = [
    {},
    {"readout": Readout.LAST, "target": Target.REAL, "inputs": Inputs("reals", 2)},
    {"readout": Readout.EVERY, "target": Target.REAL, "inputs": Inputs("tokens", 6)},
]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("changes", VARIANTS)
def test_the_gradients_of_the_loss_are_its_slopes(
    cell: str, changes: dict[str, Any]
) -> None:
    net, weights, batch = network(cell, **changes)
    gradients = net.loss_and_gradients(net.place(batch)).read().gradients
    assert list(gradients) == list(weights)
    rng = np.random.default_rng(2)
    for name, tensor in weights.items():
        direction = rng.standard_normal(tensor.shape)

        def loss(
            step: float,
            name: str = name,
            tensor: Array = tensor,
            direction: Array = direction,
        ) -> float:
            net.load_weights({**weights, name: tensor + step * direction})
            return net.loss_and_gradients(net.place(batch)).read().loss

        expected = slope(loss)
        found = float(np.sum(gradients[name] * direction))
        assert found == pytest.approx(expected, abs=TOLERANCE, rel=TOLERANCE), name


@pytest.mark.parametrize("cell", CELLS)
def test_the_vjp_gives_the_slopes_for_inputs_and_initial_state(cell: str) -> None:
    net, _, batch = network(
        cell, inputs=Inputs("reals", 2), target=Target.REAL, readout=Readout.EVERY
    )
    rng = np.random.default_rng(3)
    parts = len(load_cell(REGISTRY, cell).info.state_parts)
    state = tuple(rng.uniform(-0.5, 0.5, (2, 3, 5)) for _ in range(parts))
    d_outputs = rng.standard_normal((3, 7, 3))
    d_final = tuple(rng.standard_normal((2, 3, 5)) for _ in range(parts))
    found = net.vjp(net.place(batch), state, d_outputs, d_final)

    def value(inputs: Array, initial: tuple[Array, ...]) -> float:
        placed = net.place(replace(batch, inputs=inputs))
        done = net.forward(placed, initial).read()
        total = np.sum(done.outputs * d_outputs)
        return float(
            total + sum(np.sum(a * b) for a, b in zip(done.state, d_final, strict=True))
        )

    direction = rng.standard_normal(batch.inputs.shape)
    expected = slope(lambda step: value(batch.inputs + step * direction, state))
    assert np.sum(found.inputs * direction) == pytest.approx(expected, abs=TOLERANCE)
    for index in range(parts):
        direction = rng.standard_normal((2, 3, 5))

        def moved(
            step: float, index: int = index, direction: Array = direction
        ) -> tuple[Array, ...]:
            changed = list(state)
            changed[index] = state[index] + step * direction
            return tuple(changed)

        expected = slope(lambda step: value(batch.inputs, moved(step)))
        gradient = float(np.sum(found.state[index] * direction))
        assert gradient == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("cell", CELLS)
def test_the_first_state_gradient_is_that_of_the_initial_state(cell: str) -> None:
    net, _, batch = network(cell)
    placed = net.place(batch)
    parts = load_cell(REGISTRY, cell).info.state_parts
    zero = tuple(np.zeros((2, 3, 5)) for _ in parts)
    d_outputs = np.random.default_rng(4).standard_normal((3, 7, 3))
    expected = net.vjp(placed, zero, d_outputs, zero).state
    for part, tensor in zip(
        net.state_gradients(placed, d_outputs), expected, strict=True
    ):
        np.testing.assert_array_equal(part[0], tensor)


def test_the_loss_is_the_mean_over_scored_positions_alone() -> None:
    outputs = np.array([[[1.0, 3.0], [0.0, 0.0]]])
    targets = np.array([[[0.0, 0.0], [9.0, 9.0]]])
    loss, gradient = loss_and_gradient(
        Target.REAL, outputs, targets, np.array([[True, False]])
    )
    assert loss == (1 + 9) / 2
    assert gradient.tolist() == [[[1.0, 3.0], [0.0, 0.0]]]


def test_losses_agree_with_torch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(5)
    outputs = 30 * rng.standard_normal((4, 6, 5))
    targets = rng.integers(0, 5, (4, 6))
    scored = rng.random((4, 6)) < 0.5
    loss, gradient = loss_and_gradient(Target.CLASS, outputs, targets, scored)
    tensor = torch.tensor(outputs, requires_grad=True)
    picked = torch.tensor(scored)
    expected = torch.nn.functional.cross_entropy(
        tensor[picked], torch.tensor(targets)[picked]
    )
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-13)
    np.testing.assert_allclose(gradient, tensor.grad.numpy(), atol=1e-15)


OPTIMIZERS = [
    (Optimizer("adam", 0.01, None, 1e-8, beta1=0.8, beta2=0.95), "Adam"),
    (Optimizer("rmsprop", 0.01, None, 1e-6, decay=0.9), "RMSprop"),
    (Optimizer("sgd", 0.01, None), "SGD"),
    (Optimizer("sgd", 0.01, None, momentum=0.9), "SGD"),
]


@pytest.mark.parametrize(("optimizer", "name"), OPTIMIZERS)
@pytest.mark.parametrize("clip_norm", [None, 0.5, 50.0])
def test_optimisers_take_the_step_of_torch(
    optimizer: Optimizer, name: str, clip_norm: float | None
) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(6)
    weights = {"a": rng.standard_normal((3, 2)), "b": rng.standard_normal(4)}
    parameters = {n: torch.nn.Parameter(torch.tensor(w)) for n, w in weights.items()}
    options: dict[str, Any] = {"lr": optimizer.learning_rate}
    if name == "Adam":
        options |= {"betas": (optimizer.beta1, optimizer.beta2), "eps": 1e-8}
    elif name == "RMSprop":
        options |= {"alpha": optimizer.decay, "eps": optimizer.epsilon}
    else:
        options |= {"momentum": optimizer.momentum}
    theirs = getattr(torch.optim, name)(list(parameters.values()), **options)
    moments: dict[str, dict[str, Array]] = {
        moment: {n: np.zeros_like(w) for n, w in weights.items()}
        for moment in moments_of(optimizer)
    }
    for update in range(1, 21):
        gradients = {n: rng.standard_normal(w.shape) for n, w in weights.items()}
        for n, parameter in parameters.items():
            parameter.grad = torch.tensor(gradients[n])
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(list(parameters.values()), clip_norm)
        theirs.step()
        clipped, norm = optimizers.clip(gradients, clip_norm)
        flat = np.concatenate([g.ravel() for g in gradients.values()])
        assert norm == pytest.approx(float(np.linalg.norm(flat)))
        optimizers.step(optimizer, weights, clipped, moments, update)
        for n, parameter in parameters.items():
            np.testing.assert_allclose(
                weights[n], parameter.detach().numpy(), rtol=1e-12, atol=1e-14
            )


def test_a_sequence_keeps_its_state_after_its_end() -> None:
    net, _, batch = network("lstm", readout=Readout.LAST)
    whole = net.forward(net.place(batch)).read()
    for index, length in enumerate(batch.lengths):
        alone = Batch(
            batch.inputs[index : index + 1, :length],
            np.array([length]),
            batch.targets[index : index + 1],
            batch.scored[index : index + 1],
        )
        one = net.forward(net.place(alone)).read()
        np.testing.assert_allclose(whole.outputs[index], one.outputs[0], rtol=1e-13)
        for a, b in zip(whole.state, one.state, strict=True):
            np.testing.assert_allclose(a[:, index], b[:, 0], rtol=1e-13)


def test_optimiser_state_can_be_saved_and_loaded() -> None:
    net, weights, batch = network("gru")
    placed = net.place(batch)
    net.train_steps([placed] * 3)
    state, between = net.optimizer_state(), net.weights()
    net.train_steps([placed] * 2)
    expected = net.weights()
    other, _, _ = network("gru")
    other.load_weights(between)
    other.load_optimizer_state(state)
    other.train_steps([placed] * 2)
    for name, tensor in other.weights().items():
        np.testing.assert_array_equal(tensor, expected[name])
    assert state["updates"] == 3
    assert not np.array_equal(weights["readout.w"], expected["readout.w"])
