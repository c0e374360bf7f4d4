"""Input that does not fit a network is refused in one sentence, never cast or cut."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.contract import (
    Batch,
    Inputs,
    NetworkSpec,
    Readout,
    Target,
    TrainableNetwork,
    Weights,
)
from harness.errors import InputError
from harness.loading import build_network, load_cell
from harness.measure.problem import initial_weights
from tests.helpers import REGISTRY

SPEC = NetworkSpec(
    cell="lstm",
    inputs=Inputs("reals", 2),
    hidden_size=4,
    output_size=3,
    readout=Readout.EVERY,
    target=Target.CLASS,
    num_layers=2,
)
TOKENS = replace(SPEC, inputs=Inputs("tokens", 40), target=Target.REAL)
HERE = ["numpy-reference"]
if importlib.util.find_spec("torch") is not None:
    HERE += ["torch-native", "torch-loop"]

each = pytest.mark.parametrize("implementation", HERE)


def build(implementation: str, spec: NetworkSpec = SPEC) -> TrainableNetwork:
    cell = load_cell(REGISTRY, spec.cell)
    network: Any = build_network(REGISTRY, implementation, spec, cell, "cpu")
    network.load_weights(weights(spec))
    return network  # type: ignore[no-any-return]


def weights(spec: NetworkSpec = SPEC) -> Weights:
    cell = load_cell(REGISTRY, spec.cell)
    drawn = initial_weights(spec, cell, "canonical", 0, 10)
    return {name: tensor.astype(np.float32) for name, tensor in drawn.items()}


def batch(**changes: Any) -> Batch:
    rng = np.random.default_rng(0)
    sound = Batch(
        rng.standard_normal((3, 5, 2)).astype(np.float32),
        np.array([5, 4, 1]),
        rng.integers(0, 3, (3, 5)),
        np.ones((3, 5), bool),
    )
    return replace(sound, **changes)


def tokens(**changes: Any) -> Batch:
    rng = np.random.default_rng(0)
    sound = Batch(
        rng.integers(0, 40, (3, 5)),
        np.array([5, 4, 1]),
        rng.standard_normal((3, 5, 3)).astype(np.float32),
        np.ones((3, 5), bool),
    )
    return replace(sound, **changes)


def with_huge(shape: tuple[int, ...]) -> Any:
    """Return an array with a float64 that float32 rounds to infinity."""
    values = np.zeros(shape)
    values[(1,) * len(shape)] = -1e300
    return values


def with_nan(shape: tuple[int, ...]) -> Any:
    values = np.zeros(shape, np.float32)
    values[(1,) * len(shape)] = np.nan
    return values


BATCHES = [
    (
        batch,
        {"inputs": np.zeros((3, 5, 7))},
        "shape (3, 5, 7); expected [batch, time, 2]",
    ),
    (batch, {"inputs": np.zeros((3, 5))}, "shape (3, 5); expected [batch, time, 2]"),
    (batch, {"inputs": np.zeros((3, 5, 2), int)}, "floating-point numbers, not int64"),
    (batch, {"inputs": np.zeros((3, 5, 2), complex)}, "not complex128"),
    (batch, {"inputs": with_nan((3, 5, 2))}, "inputs holds nan at [1, 1, 1]"),
    (
        batch,
        {"inputs": with_huge((3, 5, 2))},
        "inputs holds -1e+300 at [1, 1, 1], which float32 cannot hold; its largest",
    ),
    (batch, {"inputs": np.zeros((3, 0, 2))}, "at least 1 sequence and 1 time step"),
    (batch, {"inputs": np.zeros((0, 5, 2))}, "at least 1 sequence and 1 time step"),
    (batch, {"lengths": np.array([5, 4])}, "lengths: shape (2,); expected (3,)"),
    (
        batch,
        {"lengths": np.array([5.0, 4, 1])},
        "lengths must be integers, not float64",
    ),
    (
        batch,
        {"lengths": np.array([5, 0, 1])},
        "lengths run from 0 to 5; with 5 time steps allowed are 1 to 5",
    ),
    (
        batch,
        {"lengths": np.array([6, 4, 1])},
        "lengths run from 1 to 6; with 5 time steps allowed are 1 to 5",
    ),
    (batch, {"targets": np.zeros((3, 5))}, "targets must be integers, not float64"),
    (batch, {"targets": np.full((3, 5), 3)}, "run from 3 to 3; with 3 classes allowed"),
    (
        batch,
        {"targets": np.zeros((3, 1), int)},
        "targets: shape (3, 1); expected (3, 5)",
    ),
    (batch, {"scored": np.zeros((3, 5), bool)}, "bool with at least one True"),
    (batch, {"scored": np.ones((3, 5))}, "scored must be bool"),
    (tokens, {"inputs": np.zeros((3, 5))}, "tokens must be integers, not float64"),
    (tokens, {"inputs": np.full((3, 5), 40)}, "with 40 symbols allowed are 0 to 39"),
    (tokens, {"inputs": np.full((3, 5), -1)}, "tokens run from -1 to -1"),
    (tokens, {"inputs": np.zeros((3, 5, 40), int)}, "expected [batch, time], integers"),
    (tokens, {"targets": np.zeros((3, 5, 1))}, "shape (3, 5, 1); expected (3, 5, 3)"),
    (tokens, {"targets": with_nan((3, 5, 3))}, "targets holds nan at [1, 1, 1]"),
    (tokens, {"targets": with_huge((3, 5, 3))}, "which float32 cannot hold"),
]


@each
@pytest.mark.parametrize(("make", "changes", "words"), BATCHES)
def test_a_batch_that_does_not_fit_is_refused(
    implementation: str, make: Callable[..., Batch], changes: Any, words: str
) -> None:
    network = build(implementation, SPEC if make is batch else TOKENS)
    network.place(make())
    with pytest.raises(InputError) as raised:
        network.place(make(**changes))
    assert words in str(raised.value)


def changed(name: str, tensor: Any) -> Weights:
    return {**weights(), name: tensor}


WEIGHTS = [
    (changed("layer1.w_hh", np.zeros((4, 4, 5))), "(4, 4, 5); expected (4, 4, 4)"),
    # A vector that would broadcast, and a matrix that would reshape, are refused too.
    (
        changed("layer0.b", np.zeros(4)),
        "weight 'layer0.b': shape (4,); expected (4, 4)",
    ),
    (changed("readout.w", np.zeros((4, 3))), "shape (4, 3); expected (3, 4)"),
    (changed("layer0.w_ih", np.zeros((4, 4, 2), int)), "not int64"),
    (changed("layer0.w_ih", with_nan((4, 4, 2))), "holds nan at [1, 1, 1]"),
    (
        changed("layer0.w_ih", with_huge((4, 4, 2))),
        "weight 'layer0.w_ih' holds -1e+300 at [1, 1, 1], which float32 cannot hold; "
        "its largest number is 3.4e+38",
    ),
    (changed("readout.b", np.full(3, np.inf)), "weight 'readout.b' holds inf at [0]"),
    (
        changed("layer2.b", np.zeros((4, 4))),
        "weight 'layer2.b' is unknown; expected lay",
    ),
    ({"readout.b": np.zeros(3)}, "weight 'layer0.w_ih' is missing; shape (4, 4, 2)"),
]


@each
@pytest.mark.parametrize(("given", "words"), WEIGHTS)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(
    implementation: str, given: Weights, words: str
) -> None:
    network = build(implementation)
    before = network.weights()
    with pytest.raises(InputError) as raised:
        network.load_weights(given)
    assert words in str(raised.value)
    for name, tensor in network.weights().items():
        np.testing.assert_array_equal(tensor, before[name])


@each
def test_a_float64_network_accepts_values_beyond_float32(implementation: str) -> None:
    spec = replace(SPEC, dtype="float64")
    network = build(implementation, spec)
    huge = with_huge((4, 4, 2))
    network.load_weights({**weights(), "layer0.w_ih": huge})
    np.testing.assert_array_equal(network.weights()["layer0.w_ih"], huge)
    network.place(batch(inputs=with_huge((3, 5, 2))))


@each
def test_values_that_a_smaller_dtype_rounds_are_accepted(implementation: str) -> None:
    network = build(implementation)
    network.load_weights({n: w.astype(np.float64) for n, w in weights().items()})
    # float32 makes values below its smallest number zero, those beyond its largest
    # infinite, and rounds those between.
    largest = float(np.finfo(np.float32).max)
    network.load_weights(
        changed("readout.b", np.array([1e-300, largest * 1.00000001, 0.0]))
    )
    np.testing.assert_array_equal(
        network.weights()["readout.b"], np.array([0, largest, 0], np.float32)
    )


STATES = [
    ((np.zeros((2, 3, 4)),), "the state has 1 parts; expected 2"),
    ((np.zeros((2, 1, 4)),) * 2, "the state: shape (2, 1, 4); expected (2, 3, 4)"),
    ((np.zeros((1, 3, 4)),) * 2, "the state: shape (1, 3, 4); expected (2, 3, 4)"),
    ((np.zeros((2, 3, 4), int),) * 2, "floating-point numbers, not int64"),
    ((with_nan((2, 3, 4)),) * 2, "the state holds nan at [1, 1, 1]"),
    ((with_huge((2, 3, 4)),) * 2, "the state holds -1e+300 at [1, 1, 1], which float"),
]


@each
@pytest.mark.parametrize(("state", "words"), STATES)
def test_a_state_that_does_not_fit_is_refused(
    implementation: str, state: Any, words: str
) -> None:
    network = build(implementation)
    placed = network.place(batch())
    zero = tuple(np.zeros((2, 3, 4)) for _ in range(2))
    d_outputs = np.zeros((3, 5, 3))
    for call in (
        lambda: network.forward(placed, state),
        lambda: network.step(batch().inputs[:, 0], state),
        lambda: network.vjp(placed, state, d_outputs, zero),
    ):
        with pytest.raises(InputError) as raised:
            call()
        assert words in str(raised.value)


COTANGENTS = [
    ((3, 1, 3), (2, 3, 4), "outputs: shape (3, 1, 3); expected (3, 5, 3)"),
    ((3, 5, 1), (2, 3, 4), "outputs: shape (3, 5, 1); expected (3, 5, 3)"),
    ((3, 5, 3), (2, 3, 1), "the state: shape (2, 3, 1); expected (2, 3, 4)"),
]


@each
@pytest.mark.parametrize(("outputs", "final", "words"), COTANGENTS)
def test_a_cotangent_is_not_broadcast(
    implementation: str,
    outputs: tuple[int, ...],
    final: tuple[int, ...],
    words: str,
) -> None:
    network = build(implementation)
    placed = network.place(batch())
    with pytest.raises(InputError) as raised:
        network.vjp(placed, None, np.zeros(outputs), (np.zeros(final),) * 2)
    assert words in str(raised.value)


@each
def test_the_input_of_a_time_step_has_no_time(implementation: str) -> None:
    network = build(implementation)
    state = tuple(np.zeros((2, 3, 4)) for _ in range(2))
    with pytest.raises(InputError, match=r"expected \[batch, 2\]"):
        network.step(batch().inputs, state)


@pytest.mark.parametrize("size", ["hidden_size", "output_size", "num_layers"])
def test_a_network_of_size_zero_is_refused(size: str) -> None:
    with pytest.raises(ValueError, match=f"{size} must be at least 1, not 0"):
        replace(SPEC, **{size: 0})
    with pytest.raises(ValueError, match="a size of at least 1, not 0"):
        Inputs("reals", 0)
