"""Keras layers on JAX: conversions, bias modes, padding, kernels, refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import jax
import keras
import numpy as np
import pytest
from keras import layers, ops

from harness.contract import Inputs, NetworkSpec, Optimizer, Readout, Target
from harness.errors import PluginError, RefusedError, UnavailableError
from harness.loading import build_network, load_cell
from implementations.jax_backend import network as network_module
from implementations.jax_backend.keras_network import network as keras_network
from implementations.jax_backend.network import JaxNetwork
from tests.backend_cases import (
    REGISTRY,
    SPEC,
    assert_training_goes_on,
    assert_weights_come_back,
    build,
    draw_batch,
    draw_weights,
    errors_against_reference,
)

CELLS = ["rnn", "rnn-relu", "gru", "gru-reset-before", "lstm"]
SMALL = replace(
    SPEC, inputs=Inputs("reals", 2), num_layers=1, target=Target.REAL, cell="gru"
)


def keras_jax(spec: NetworkSpec) -> JaxNetwork:
    return cast(JaxNetwork, build("keras-jax", spec))


def of_layer(make: Any, spec: NetworkSpec = SMALL) -> JaxNetwork:
    cell = load_cell(REGISTRY, spec.cell)
    network = keras_network(spec, cell, "cpu", make)
    network.load_weights(draw_weights(spec))
    return network


@pytest.mark.parametrize("cell", CELLS)
def test_weights_come_back_bit_for_bit(cell: str) -> None:
    spec = replace(SPEC, cell=cell)
    assert_weights_come_back(keras_jax(spec), spec)


def test_training_goes_on_from_weights_and_optimiser_state() -> None:
    assert_training_goes_on("keras-jax", cell="gru", optimizer=Optimizer("adam"))


@pytest.mark.parametrize(
    "spec",
    [
        replace(SPEC, num_layers=1),
        replace(SMALL, cell="lstm", num_layers=2, readout=Readout.LAST),
    ],
    ids=["tokens, every", "reals, last"],
)
def test_padded_sequences_agree_with_the_reference(spec: NetworkSpec) -> None:
    errors = errors_against_reference(keras_jax(spec), spec)
    assert max(errors.values()) < 1e-5, errors


def test_float64_which_keras_would_compute_in_float32_is_refused() -> None:
    with pytest.raises(RefusedError, match="computes in float32; asked was float64"):
        keras_jax(replace(SMALL, dtype="float64"))
    # Should this fail one day, float64 can be offered.
    assert keras.backend.result_type("float64", float) == "float32"


# --- biases --------------------------------------------------------------------------


@pytest.mark.parametrize(("biases", "moves"), [("canonical", False), ("native", True)])
def test_redundant_biases_stay_zero_in_canonical_mode_only(
    biases: Any, moves: bool
) -> None:
    spec = replace(SMALL, biases=biases, optimizer=Optimizer("sgd"))
    network = keras_jax(spec)
    batch = network.place(draw_batch(spec))
    gradients = network.loss_and_gradients(batch).read().gradients
    norm = network.train_steps([batch] * 2).read().gradient_norms[0]
    first, second = np.asarray(network._weights["layer0.bias"])
    redundant, needed = second[:12], second[12:]  # of z and r; b_hn of n
    assert (redundant != 0).all() == moves
    assert (needed != 0).all()
    squares = {name: (g**2).sum() for name, g in gradients.items()}
    # A bias that is trained has the gradient of its twin, and counts in the norm.
    twice = (gradients["layer0.b"][:2] ** 2).sum() if moves else 0
    assert norm == pytest.approx(np.sqrt(sum(squares.values()) + twice), rel=1e-5)
    z, r = first[:6] + second[:6], first[6:12] + second[6:12]
    found = network.weights()["layer0.b"]
    np.testing.assert_array_equal(found, np.stack([r, z, first[12:]]))


@pytest.mark.parametrize(
    ("cell", "count"), [("rnn", 640 - 20), ("gru", 1920), ("lstm", 2560 - 80)]
)
def test_keras_trains_as_many_parameters_as_it_ships(cell: str, count: int) -> None:
    spec = replace(SMALL, cell=cell, inputs=Inputs("reals", 10), hidden_size=20)
    held = keras_jax(replace(spec, biases="native"))._weights
    shipped = sum(w.size for n, w in held.items() if n.startswith("layer"))
    declared = load_cell(REGISTRY, cell).parameter_counts(10, 20)
    assert shipped == declared["keras"] == count


# --- layers of somebody's own --------------------------------------------------------


class OwnRnn(layers.Layer):  # type: ignore[misc]
    """A tanh Elman network with canonical names, blind to padding."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size

    def build(self, shape: Any) -> None:
        size = self.hidden_size
        self.w = self.add_weight(name="w_ih", shape=(1, size, shape[-1]))
        self.u = self.add_weight(name="w_hh", shape=(1, size, size))
        self.b = self.add_weight(name="b", shape=(1, size))
        self.built = True

    def call(self, x: Any, initial_state: Any = None, mask: Any = None) -> Any:
        a = ops.matmul(x, ops.transpose(self.w[0])) + self.b[0]
        h, outputs = initial_state[0], []
        for t in range(x.shape[1]):
            h = ops.tanh(a[:, t] + ops.matmul(h, ops.transpose(self.u[0])))
            outputs.append(h)
        return ops.stack(outputs, axis=1), h


def test_a_keras_layer_of_ones_own_may_name_its_weights_canonically(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(network_module, "KERNEL_TIME_STEPS", 8)  # 64 compile slowly
    spec = replace(SMALL, cell="rnn")
    batch = replace(draw_batch(spec), lengths=np.full(4, 9))
    own = of_layer(lambda cell, i, h: OwnRnn(h), spec)
    oracle = build("numpy-reference", spec)
    found = own.loss_and_gradients(own.place(batch)).read()
    expected = oracle.loss_and_gradients(oracle.place(batch)).read()
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    for name, tensor in expected.gradients.items():
        np.testing.assert_allclose(found.gradients[name], tensor, rtol=1e-5, atol=1e-7)
    stock = keras_jax(spec)
    assert (stock.kernel(), own.kernel()) == ("XLA while loop", "XLA operations")


STACKED = {"return_sequences": True, "return_state": True}
# Keras' own initial values take seconds to draw.
ZERO = {"kernel_initializer": "zeros", "recurrent_initializer": "zeros"}


def gru(hidden_size: int, **changes: Any) -> Any:
    return layers.GRU(hidden_size, **{**STACKED, **ZERO, **changes})


class NoState(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return x


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda h: None, "returned NoneType; expected a keras.layers.Layer"),
        (lambda h: NoState(), "expected call(x, initial_state, mask)"),
        (
            lambda h: layers.Bidirectional(gru(h)),
            "Bidirectional: has 2 parameters named 'kernel'; expected one layer",
        ),
        (
            lambda h: layers.RNN([layers.GRUCell(h, **ZERO) for _ in "ab"], **STACKED),
            "RNN: has 2 parameters named 'kernel'; expected one layer",
        ),
        (
            lambda h: gru(h, use_bias=False),
            "GRU: parameter 'bias' is missing; expected shape (2, 18)",
        ),
        (
            lambda h: gru(h, reset_after=False),
            "parameter 'bias' has shape (18,); expected shape (2, 18); a GRU with "
            "reset_after=False computes the cell gru-reset-before: declare it for that "
            "one, or give it reset_after=True",
        ),
        (
            lambda h: gru(h, dtype="mixed_bfloat16"),
            "GRU: has the dtype policy mixed_bfloat16; expected float32",
        ),
        (
            lambda h: gru(h, stateful=True),
            "GRU: keeps its state from call to call (stateful=True); expected a layer "
            "that starts from initial_state; build it with stateful=False",
        ),
    ],
)
def test_a_layer_of_another_form_is_refused_when_it_is_built(
    make: Any, words: str
) -> None:
    with pytest.raises(PluginError) as caught:
        of_layer(lambda cell, i, h: make(h))
    assert words in str(caught.value)


def test_a_gru_declared_for_the_other_form_is_told_its_own() -> None:
    with pytest.raises(PluginError) as caught:
        of_layer(lambda cell, i, h: gru(h), replace(SMALL, cell="gru-reset-before"))
    assert str(caught.value) == (
        "GRU: parameter 'bias' has shape (2, 18); expected shape (18,); a GRU with "
        "reset_after=True computes the cell gru: declare it for that one, or give it "
        "reset_after=False"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"return_sequences": False}, "answered (4, 6), (4, 6); expected outputs"),
        ({"return_state": False}, "answered (4, 9, 6); expected outputs (4, 9, 6)"),
    ],
)
def test_a_layer_that_answers_otherwise_is_refused_in_one_sentence(
    changes: Any, words: str
) -> None:
    network = of_layer(lambda cell, i, h: gru(h, **changes))
    with pytest.raises(PluginError) as caught:
        network.forward(network.place(draw_batch(SMALL)))
    assert words in str(caught.value)
    assert "return_sequences=True and return_state=True" in str(caught.value)


def test_another_backend_of_keras_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(UnavailableError, match="KERAS_BACKEND must be jax"):
        of_layer(lambda cell, i, h: gru(h))


# --- on a GPU ------------------------------------------------------------------------


def on_gpu() -> bool:
    return jax.default_backend() == "gpu"


@pytest.mark.gpu
@pytest.mark.skipif(not on_gpu(), reason="no CUDA device")
def test_an_lstm_that_keras_takes_out_of_cudnn_is_reported() -> None:
    spec = replace(SMALL, cell="lstm")
    cell = load_cell(REGISTRY, "lstm")

    def make(**changes: Any) -> JaxNetwork:
        def layer(name: str, input_size: int, hidden_size: int) -> Any:
            return layers.LSTM(hidden_size, **STACKED, **ZERO, **changes)

        found = keras_network(spec, cell, "cuda:0", layer)
        found.load_weights(draw_weights(spec))
        return found

    assert make().kernel() == "cuDNN"
    assert make(recurrent_activation="hard_sigmoid").kernel() == "XLA while loop"
    assert keras_jax(spec).kernel() == "XLA while loop"


@pytest.mark.gpu
@pytest.mark.skipif(not on_gpu(), reason="no CUDA device")
@pytest.mark.parametrize("cell", CELLS)
def test_a_gpu_gives_what_the_cpu_gives_without_tf32(cell: str) -> None:
    # TF32 has a unit roundoff of 5e-4; float32 at 9 time steps stays near 1e-6.
    spec = replace(SPEC, cell=cell)
    declared = load_cell(REGISTRY, cell)
    network = cast(
        JaxNetwork, build_network(REGISTRY, "keras-jax", spec, declared, "cuda:0")
    )
    network.load_weights(draw_weights(spec))
    errors = errors_against_reference(network, spec)
    assert max(errors.values()) < 1e-5, errors
