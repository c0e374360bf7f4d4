"""Keras layers that tests build networks of; import it only with Keras."""

from __future__ import annotations

from typing import Any

from keras import layers

STACKED = {"return_sequences": True, "return_state": True}
# Keras' own initial values take seconds to draw.
ZERO = {"kernel_initializer": "zeros", "recurrent_initializer": "zeros"}


def gru(hidden_size: int, **changes: Any) -> Any:
    return layers.GRU(hidden_size, **{**STACKED, **ZERO, **changes})


class NoState(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return x
