"""Copies of `jax-scan` with one mistake planted in optimiser, clip or loss."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

from jax import numpy as jnp

from harness import declare_implementation
from implementations.cells import equations
from implementations.jax_backend import scan
from implementations.jax_backend.network import JaxNetwork
from implementations.shared import optimizers
from tests.broken_optimizers import clipping_per_tensor, epsilon_inside

for mistake in (
    "rmsprop-epsilon-inside",
    "clipped-per-tensor",
    "always-rescaled",
    "loss-over-sequences",
):
    declare_implementation(
        f"jax-{mistake}",
        framework="jax",
        cells=["rnn"],
        factory=f"sabotage_jax:{mistake.replace('-', '_')}",
    )


class _Scan(JaxNetwork):
    def __init__(self, spec, cell, device):
        super().__init__(
            spec, cell, device, lambda _, i, h: scan.layer(equations.rnn, cell, i, h)
        )


def _norm(g):
    return jnp.sqrt((g * g).sum())


class _EpsilonInside(_Scan):
    def train_steps(self, placed):
        if self._spec.optimizer.name != "rmsprop":
            return super().train_steps(placed)
        with mock.patch.object(optimizers, "step", epsilon_inside):
            return super().train_steps(placed)


def rmsprop_epsilon_inside(spec, cell, device):
    return _EpsilonInside(spec, cell, device)


class _ClippedPerTensor(_Scan):
    def __init__(self, spec, cell, device):
        self._clip_norm = spec.optimizer.clip_norm
        unclipped = replace(spec.optimizer, clip_norm=None)
        super().__init__(replace(spec, optimizer=unclipped), cell, device)

    def train_steps(self, placed):
        if self._clip_norm is None:
            return super().train_steps(placed)
        step = clipping_per_tensor(self._clip_norm, _norm, jnp.minimum)
        with mock.patch.object(optimizers, "step", step):
            return super().train_steps(placed)


def clipped_per_tensor(spec, cell, device):
    return _ClippedPerTensor(spec, cell, device)


class _AlwaysRescaled(_Scan):
    def train_steps(self, placed):
        with mock.patch.object(jnp, "minimum", lambda one, clipped: clipped):
            return super().train_steps(placed)


def always_rescaled(spec, cell, device):
    return _AlwaysRescaled(spec, cell, device)


class _LossOverSequences(_Scan):
    """Divides the loss by the number of sequences, not of scored positions."""

    def place(self, batch):
        placed = super().place(batch)
        scored = (placed.weights > 0).astype(self._dtype)
        return placed._replace(weights=scored / batch.size)


def loss_over_sequences(spec, cell, device):
    return _LossOverSequences(spec, cell, device)
