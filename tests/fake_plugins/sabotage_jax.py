"""Copies of `jax-scan` with one mistake in optimiser, clipping or loss."""

from jax import numpy as jnp

from implementations.cells import equations
from implementations.jax_backend import scan
from implementations.jax_backend.network import JaxNetwork
from tests.broken_optimizers import declare_mistakes, mistakes

declare_mistakes("sabotage_jax", "jax", "jax")


class _Scan(JaxNetwork):
    def __init__(self, spec, cell, device):
        super().__init__(
            spec, cell, device, lambda _, i, h: scan.layer(equations.rnn, cell, i, h)
        )


(
    rmsprop_epsilon_inside,
    clipped_per_tensor,
    always_rescaled,
    loss_over_sequences,
) = mistakes(_Scan, jnp, lambda g: jnp.sqrt((g * g).sum()))
