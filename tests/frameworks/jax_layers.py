"""JAX layers that tests build networks of; import it only with JAX.

It has the names of `keras_layers.py` that `test_layers.py` uses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax import lax
from jax import numpy as jnp

from implementations.jax_backend.layer import Layer
from implementations.jax_backend.scan import Operations

CELL = "rnn"


def factory(layer: Any) -> Callable[[str, int, int], Any]:
    """Return a function that returns the layer for a network."""
    return lambda cell, input_size, hidden_size: layer


def scanned(weights: Any, x: Any, state: Any, active: Any) -> Any:
    """Compute a tanh Elman network that ignores padding."""
    w, u, b = weights["w_ih"][0], weights["w_hh"][0], weights["b"][0]

    def advance(h: Any, x_t: Any) -> Any:
        new = jnp.tanh(x_t @ w.T + h @ u.T + b)
        return new, new

    h, outputs = lax.scan(advance, state[0], x)
    return outputs, (h,)


def unrolled(weights: Any, x: Any, state: Any, active: Any) -> Any:
    outputs = []
    for x_t in x:
        out, state = scanned(weights, x_t[None], state, active)
        outputs.append(out)
    return jnp.concatenate(outputs), state


elman, without_loop = scanned, unrolled

WRONG_FORMS = [
    (None, "returned NoneType; expected a function (weights, x, state, active)"),
    (Operations, "returned type; expected a function"),
    (lambda weights, x: x, "expected <lambda>(weights, x, state, active)"),
    (
        Layer("own", {"w_ih": (1, 6, 2)}, scanned),
        "own: parameter 'kernel' is missing; expected shape (2, 6)",
    ),
]
"""A layer, and words of the error when a network of it is built."""


def outputs_only(weights: Any, x: Any, state: Any, active: Any) -> Any:
    return scanned(weights, x, state, active)[0]


def last_only(weights: Any, x: Any, state: Any, active: Any) -> Any:
    outputs, final = scanned(weights, x, state, active)
    return outputs[-1], final


def batch_first(weights: Any, x: Any, state: Any, active: Any) -> Any:
    outputs, final = scanned(weights, x, state, active)
    return jnp.swapaxes(outputs, 0, 1), final


def bare_state(weights: Any, x: Any, state: Any, active: Any) -> Any:
    outputs, final = scanned(weights, x, state, active)
    return outputs, final[0]


def half(weights: Any, x: Any, state: Any, active: Any) -> Any:
    outputs, final = scanned(weights, x, state, active)
    return outputs.astype(jnp.bfloat16), final


EXPECTED = "expected (float32 (9, 4, 6), (float32 (4, 6))), a tuple of outputs"
WRONG_ANSWERS = [
    (outputs_only, "outputs_only: answered float32 (9, 4, 6); expected (float32"),
    (last_only, f"answered (float32 (4, 6), (float32 (4, 6))); {EXPECTED}"),
    (batch_first, f"answered (float32 (4, 9, 6), (float32 (4, 6))); {EXPECTED}"),
    (bare_state, f"answered (float32 (9, 4, 6), float32 (4, 6)); {EXPECTED}"),
    (half, f"answered (bfloat16 (9, 4, 6), (float32 (4, 6))); {EXPECTED}"),
]
"""A layer, and words of the error when a network of it computes."""
"""A layer, and words of the error when its answers are first seen."""
