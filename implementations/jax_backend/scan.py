"""A cell's equations in `jax.lax.scan`."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from jax import Array, lax
from jax import numpy as jnp

from harness.contract import Cell, Equations
from implementations.jax_backend.layer import Layer, Parts, Tensors


class Operations:
    """The operations of equations, in JAX."""

    sigmoid = staticmethod(jax.nn.sigmoid)
    tanh = staticmethod(jnp.tanh)
    relu = staticmethod(jax.nn.relu)

    @staticmethod
    def products(w: Array, v: Array) -> Sequence[Array]:
        """Multiply v [batch, size] by w [gates, hidden, size] in one product."""
        return jnp.split(v @ w.reshape(-1, w.shape[-1]).T, len(w), axis=1)


def layer(equations: Equations, cell: Cell, input_size: int, hidden_size: int) -> Layer:
    """Return a layer of any cell that has equations, over time by `jax.lax.scan`.

    The loop is not unrolled: on a CPU four time steps in an iteration were no faster,
    and took twice as long to compile.
    """

    def run(
        weights: Tensors, x: Array, state: Parts, active: Array | None
    ) -> tuple[Array, Parts]:
        w_ih, b = weights["w_ih"], weights["b"]
        # W x + b does not depend on the state: all time steps in one product.
        a = x @ w_ih.reshape(-1, w_ih.shape[-1]).T + b.reshape(-1)
        # Split before the loop. If it is split inside, XLA's loop over a gate's entries
        # is scalar, and a forward pass on a CPU takes three times as long.
        gates = jnp.split(a, len(b), axis=2)

        def advance(
            before: Parts, at: tuple[list[Array], Array | None]
        ) -> tuple[Parts, Array]:
            gates_t, active_t = at
            after = equations(Operations(), weights, gates_t, before)
            if active_t is None:
                return after, after[0]
            held = tuple(
                jnp.where(active_t, new, old)
                for new, old in zip(after, before, strict=True)
            )
            return held, jnp.where(active_t, after[0], 0)

        final, outputs = lax.scan(advance, state, (gates, active))
        return outputs, final

    return Layer("scan", cell.weight_shapes(input_size, hidden_size), run)
