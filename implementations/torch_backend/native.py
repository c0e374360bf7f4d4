"""torch's own recurrent layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

_LAYERS: dict[str, Callable[[int, int], torch.nn.Module]] = {
    "rnn": torch.nn.RNN,
    "rnn-relu": partial(torch.nn.RNN, nonlinearity="relu"),
    "gru": torch.nn.GRU,
    "lstm": torch.nn.LSTM,
}


def layer(cell: str, input_size: int, hidden_size: int) -> torch.nn.Module:
    """Return the stock layer of a cell."""
    return _LAYERS[cell](input_size, hidden_size)
