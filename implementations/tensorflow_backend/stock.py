"""Keras' own recurrent layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras

_LAYERS: dict[str, Callable[..., Any]] = {
    "rnn": keras.layers.SimpleRNN,
    "rnn-relu": partial(keras.layers.SimpleRNN, activation="relu"),
    "gru": keras.layers.GRU,
    "gru-reset-before": partial(keras.layers.GRU, reset_after=False),
    "lstm": keras.layers.LSTM,
}


def layer(cell: str, input_size: int, hidden_size: int) -> Any:
    """Return the stock layer of a cell; Keras leaves cuDNN to itself."""
    return _LAYERS[cell](hidden_size, return_sequences=True, return_state=True)
