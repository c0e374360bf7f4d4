"""Copies of `tensorflow-loop` with one mistake in optimiser, clipping or loss."""

import tensorflow as tf

from implementations.cells import equations
from implementations.tensorflow_backend import loop
from implementations.tensorflow_backend.network import TensorFlowNetwork
from tests.broken_optimizers import declare_mistakes, mistakes

declare_mistakes("sabotage_tensorflow", "tensorflow", "tensorflow")


class _Loop(TensorFlowNetwork):
    def __init__(self, spec, cell, device):
        super().__init__(
            spec, cell, device, lambda _, i, h: loop.layer(equations.rnn, cell, i, h)
        )


(
    rmsprop_epsilon_inside,
    clipped_per_tensor,
    always_rescaled,
    loss_over_sequences,
) = mistakes(_Loop, tf, tf.norm)
