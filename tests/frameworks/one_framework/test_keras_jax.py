"""Keras layers on JAX: only float32, custom layers, wrong answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import keras
import pytest
from keras import layers

from harness.errors import RefusedError
from tests.backend_cases import build
from tests.frameworks.backends import SMALL, Backend
from tests.frameworks.keras_layers import STACKED, ZERO

KERAS_JAX = Backend.of("keras-jax")


def test_float64_is_refused_as_keras_would_compute_in_float32() -> None:
    with pytest.raises(RefusedError, match="computes in float32, not in float64"):
        build("keras-jax", replace(SMALL, dtype="float64"))
    # If this fails one day, float64 can be offered.
    assert keras.backend.result_type("float64", float) == "float32"


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
