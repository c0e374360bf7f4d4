"""Write the initial values of Keras layers to an .npz file, in their own process.

Arguments: the file, the input size, the hidden size and the number of draws.
"""

from __future__ import annotations

import sys

import keras
import numpy as np

LAYERS = {
    "rnn": keras.layers.SimpleRNN,
    "rnn-relu": lambda units: keras.layers.SimpleRNN(units, activation="relu"),
    "gru": keras.layers.GRU,
    "gru-reset-before": lambda units: keras.layers.GRU(units, reset_after=False),
    "lstm": keras.layers.LSTM,
}


def main() -> None:
    file, input_size, hidden_size, draws = sys.argv[1], *map(int, sys.argv[2:])
    arrays = {}
    for draw in range(draws):
        keras.utils.set_random_seed(draw)
        for name, make in LAYERS.items():
            layer = make(hidden_size)
            layer.build((None, None, input_size))
            for variable in layer.weights:
                arrays[f"{name}/{draw}/{variable.name}"] = np.asarray(variable)
    np.savez(file, **arrays)


if __name__ == "__main__":
    main()
