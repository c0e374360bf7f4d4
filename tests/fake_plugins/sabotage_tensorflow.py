"""Copies of `tensorflow-loop` with one mistake planted in optimiser, clip or loss."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import tensorflow as tf

from harness import declare_implementation
from implementations.cells import equations
from implementations.shared import optimizers
from implementations.tensorflow_backend import loop
from implementations.tensorflow_backend.network import TensorFlowNetwork
from tests.broken_optimizers import clipping_per_tensor, epsilon_inside

for mistake in (
    "rmsprop-epsilon-inside",
    "clipped-per-tensor",
    "always-rescaled",
    "loss-over-sequences",
):
    declare_implementation(
        f"tensorflow-{mistake}",
        framework="tensorflow",
        cells=["rnn"],
        factory=f"sabotage_tensorflow:{mistake.replace('-', '_')}",
    )


class _Loop(TensorFlowNetwork):
    def __init__(self, spec, cell, device):
        super().__init__(
            spec, cell, device, lambda _, i, h: loop.layer(equations.rnn, cell, i, h)
        )


class _EpsilonInside(_Loop):
    def train_steps(self, placed):
        if self._spec.optimizer.name != "rmsprop":
            return super().train_steps(placed)
        with mock.patch.object(optimizers, "step", epsilon_inside):
            return super().train_steps(placed)


def rmsprop_epsilon_inside(spec, cell, device):
    return _EpsilonInside(spec, cell, device)


class _ClippedPerTensor(_Loop):
    def __init__(self, spec, cell, device):
        self._clip_norm = spec.optimizer.clip_norm
        unclipped = replace(spec.optimizer, clip_norm=None)
        super().__init__(replace(spec, optimizer=unclipped), cell, device)

    def train_steps(self, placed):
        if self._clip_norm is None:
            return super().train_steps(placed)
        step = clipping_per_tensor(self._clip_norm, tf.norm, tf.minimum)
        with mock.patch.object(optimizers, "step", step):
            return super().train_steps(placed)


def clipped_per_tensor(spec, cell, device):
    return _ClippedPerTensor(spec, cell, device)


class _AlwaysRescaled(_Loop):
    def train_steps(self, placed):
        with mock.patch.object(tf, "minimum", lambda one, clipped: clipped):
            return super().train_steps(placed)


def always_rescaled(spec, cell, device):
    return _AlwaysRescaled(spec, cell, device)


class _LossOverSequences(_Loop):
    """Divides the loss by the number of sequences, not of scored positions."""

    def place(self, batch):
        placed = super().place(batch)
        scored = tf.cast(placed.weights > 0, self._spec.dtype)
        return placed._replace(weights=scored / batch.size)


def loss_over_sequences(spec, cell, device):
    return _LossOverSequences(spec, cell, device)
