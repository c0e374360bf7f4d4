"""Keras layers that tests build networks of; import it only with Keras.

It has the names of `jax_layers.py` that `test_layers.py` uses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

CELL = "gru"
STACKED = {"return_sequences": True, "return_state": True}
# Keras' own initial values take seconds to draw.
ZERO = {"kernel_initializer": "zeros", "recurrent_initializer": "zeros"}


def factory(make: Callable[[int], Any]) -> Callable[[str, int, int], Any]:
    """Return a function that makes a layer of a hidden size for a network."""
    return lambda cell, input_size, hidden_size: make(hidden_size)


def gru(hidden_size: int, **changes: Any) -> Any:
    return layers.GRU(hidden_size, **{**STACKED, **ZERO, **changes})


class NoState(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return x


class Elman(layers.Layer):  # type: ignore[misc]
    """A tanh Elman network with canonical names that ignores padding."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.supports_masking = True

    def build(self, shape: Any) -> None:
        size = self.hidden_size
        self.w = self.add_weight(name="w_ih", shape=(1, size, shape[-1]))
        self.u = self.add_weight(name="w_hh", shape=(1, size, size))
        self.b = self.add_weight(name="b", shape=(1, size))

    def call(self, x: Any, initial_state: Any = None, mask: Any = None) -> Any:
        def advance(h: Any, a_t: Any) -> Any:
            new = ops.tanh(a_t + ops.matmul(h, ops.transpose(self.u[0])))
            return new, new

        zero = ops.zeros((ops.shape(x)[0], self.hidden_size))
        (state,) = initial_state or (zero,)
        a = ops.swapaxes(self.projected(x), 0, 1)
        final, outputs = ops.scan(advance, state, a)
        return ops.swapaxes(outputs, 0, 1), final

    def projected(self, x: Any) -> Any:
        return ops.matmul(x, ops.transpose(self.w[0])) + self.b[0]


class WithoutLoop(Elman):
    """A ReLU network of U = 0."""

    def call(self, x: Any, initial_state: Any = None, mask: Any = None) -> Any:
        outputs = ops.relu(self.projected(x))
        return outputs, outputs[:, -1]


class Rounded(WithoutLoop):
    def build(self, shape: Any) -> None:
        super().build(shape)
        self.scale = self.add_weight(name="scale", shape=(), dtype="float16")


class Answering(layers.GRU):  # type: ignore[misc]
    """A GRU whose (outputs, state) a function changes."""

    def __init__(self, hidden_size: int, answer: Any) -> None:
        super().__init__(hidden_size, **STACKED)
        self.answer = answer

    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None) -> Any:
        found = super().call(sequences, initial_state=initial_state, mask=mask)
        return self.answer(*found)


elman, without_loop = Elman, WithoutLoop

WRONG_FORMS = [
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
    (Rounded, "Rounded: has the dtype policy float16; expected float32"),
    (
        lambda h: gru(h, stateful=True),
        "GRU: keeps its state from call to call (stateful=True); expected a layer "
        "that starts from initial_state; build it with stateful=False",
    ),
]
"""A layer, and words of the error when a network of it is built."""

# TensorFlow runs a layer for 1 sequence of 2 time steps when it is built.
B, T = (1, 2) if keras.backend.backend() == "tensorflow" else (4, 9)
EXPECTED = f"expected outputs float32 ({B}, {T}, 6)"
WRONG_ANSWERS = [
    (
        lambda h: gru(h, return_sequences=False),
        f"GRU: answered float32 ({B}, 6), float32 ({B}, 6); {EXPECTED}",
    ),
    (
        lambda h: gru(h, return_state=False),
        f"GRU: answered float32 ({B}, {T}, 6); {EXPECTED}, [batch, time, hidden], "
        f"and 1 state parts float32 ({B}, 6)",
    ),
    (
        lambda h: Answering(h, lambda o, s: (ops.cast(o, "float16"), s)),
        f"Answering: answered float16 ({B}, {T}, 6), float32 ({B}, 6); {EXPECTED}",
    ),
    (
        lambda h: Answering(h, lambda o, s: (o, [s])),
        f"Answering: answered float32 ({B}, {T}, 6), list; {EXPECTED}",
    ),
]
"""A layer, and words of the error when its answers are first seen."""
