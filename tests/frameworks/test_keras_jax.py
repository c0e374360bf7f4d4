"""Keras layers on JAX: only float32, custom layers, wrong answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import keras
import numpy as np
import pytest
from keras import layers, ops

from harness.errors import PluginError, RefusedError
from implementations.jax_backend import network as network_module
from tests.backend_cases import build, draw_batch
from tests.frameworks.backends import SMALL, Backend
from tests.frameworks.keras_layers import STACKED, ZERO, gru

KERAS_JAX = Backend.of("keras-jax")


def test_float64_is_refused_as_keras_would_compute_in_float32() -> None:
    with pytest.raises(RefusedError, match="computes in float32; asked was float64"):
        build("keras-jax", replace(SMALL, dtype="float64"))
    # If this fails one day, float64 can be offered.
    assert keras.backend.result_type("float64", float) == "float32"


# --- custom layers --------------------------------------------------------------------


class OwnRnn(layers.Layer):  # type: ignore[misc]
    """A tanh Elman network with canonical names that ignores padding."""

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


def test_a_custom_keras_layer_may_use_canonical_names_for_its_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(network_module, "KERNEL_TIME_STEPS", 8)  # 64 compile slowly
    spec = replace(SMALL, cell="rnn")
    batch = replace(draw_batch(spec), lengths=np.full(4, 9))
    own = KERAS_JAX.network_of(lambda cell, i, h: OwnRnn(h), spec)
    oracle = build("numpy-reference", spec)
    found = own.loss_and_gradients(own.place(batch)).read()
    expected = oracle.loss_and_gradients(oracle.place(batch)).read()
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    for name, tensor in expected.gradients.items():
        np.testing.assert_allclose(found.gradients[name], tensor, rtol=1e-5, atol=1e-7)
    stock = build("keras-jax", spec)
    assert (stock.kernel(), own.kernel()) == ("XLA while loop", "XLA operations")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"return_sequences": False},
            "answered float32 (4, 6), float32 (4, 6); expected outputs",
        ),
        (
            {"return_state": False},
            "answered float32 (4, 9, 6); expected outputs float32 (4, 9, 6)",
        ),
    ],
)
def test_a_layer_with_wrong_answers_is_refused_in_one_sentence(
    changes: Any, words: str
) -> None:
    network = KERAS_JAX.network_of(lambda cell, i, h: gru(h, **changes))
    with pytest.raises(PluginError) as caught:
        network.forward(network.place(draw_batch(SMALL)))
    assert words in str(caught.value)
    assert "return_sequences=True and return_state=True" in str(caught.value)


# --- on a GPU ------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(jax.default_backend() != "gpu", reason="no CUDA device")
def test_an_lstm_that_keras_does_not_run_in_cudnn_is_reported() -> None:
    spec = replace(SMALL, cell="lstm")

    def make(**changes: Any) -> Any:
        def layer(name: str, input_size: int, hidden_size: int) -> Any:
            return layers.LSTM(hidden_size, **STACKED, **ZERO, **changes)

        return KERAS_JAX.network_of(layer, spec, "cuda:0")

    assert make().kernel() == "cuDNN"
    assert make(recurrent_activation="hard_sigmoid").kernel() == "XLA while loop"
    assert build("keras-jax", spec).kernel() == "XLA while loop"
