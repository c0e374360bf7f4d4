"""A cell's equations in `tf.while_loop`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from harness.contract import Cell, Equations

Tensor = Any


class Operations:
    """The operations of equations, in TensorFlow.

    Args:
        w: The canonical weights. Their matrices are laid out for products here, once,
            and not in every time step.
    """

    sigmoid = staticmethod(tf.sigmoid)
    tanh = staticmethod(tf.tanh)
    relu = staticmethod(tf.nn.relu)

    def __init__(self, w: Mapping[str, Tensor]) -> None:
        matrices = [tensor for tensor in w.values() if len(tensor.shape) == 3]
        self._laid_out = {tensor.ref(): _side_by_side(tensor) for tensor in matrices}

    def matrix(self, w: Tensor) -> Tensor:
        """Return [size, gates * hidden] of w [gates, hidden, size], or of a slice."""
        found = self._laid_out.get(w.ref())
        return _side_by_side(w) if found is None else found

    def products(self, w: Tensor, v: Tensor) -> Sequence[Tensor]:
        """Multiply v [batch, size] by w [gates, hidden, size] in one product."""
        found: Sequence[Tensor] = tf.split(v @ self.matrix(w), w.shape[0], axis=1)
        return found


def _side_by_side(w: Tensor) -> Tensor:
    return tf.transpose(tf.reshape(w, [-1, w.shape[-1]]))


class Loop(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """One layer: called as `keras.layers.GRU`, its weights the canonical ones."""

    def __init__(
        self, equations: Equations, cell: Cell, input_size: int, hidden_size: int
    ) -> None:
        super().__init__()
        self.supports_masking = True
        self._equations = equations
        self._parts = len(cell.info.state_parts)
        self._hidden_size = hidden_size
        self._w = {
            name: self.add_weight(shape=shape, initializer="zeros", name=name)
            for name, shape in cell.weight_shapes(input_size, hidden_size).items()
        }

    def call(
        self,
        sequences: Tensor,
        initial_state: Sequence[Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Run over sequences [batch, time, input] from state parts [batch, hidden]."""
        zero = tf.zeros((tf.shape(sequences)[0], self._hidden_size), sequences.dtype)
        state = tuple(initial_state or [zero] * self._parts)
        w = {name: tf.convert_to_tensor(v) for name, v in self._w.items()}
        ops = Operations(w)
        # W x + b does not depend on the state: all time steps in one product.
        x = tf.transpose(sequences, [1, 0, 2])
        a = tf.tensordot(x, ops.matrix(w["w_ih"]), 1) + tf.reshape(w["b"], [-1])
        inputs = _by_time(a)
        active = None if mask is None else _by_time(tf.transpose(mask)[..., None])
        time_steps = tf.shape(x)[0]

        def advance(
            t: Tensor, before: tuple[Tensor, ...], outputs: tf.TensorArray
        ) -> tuple[Tensor, tuple[Tensor, ...], tf.TensorArray]:
            gates = tf.split(inputs.read(t), w["b"].shape[0], axis=1)
            after = self._equations(ops, w, gates, before)
            if active is not None:
                running = active.read(t)
                after = tuple(
                    tf.where(running, new, old)
                    for new, old in zip(after, before, strict=True)
                )
            return t + 1, after, outputs.write(t, after[0])

        outputs = tf.TensorArray(
            state[0].dtype, time_steps, element_shape=state[0].shape
        )
        _, final, outputs = tf.while_loop(
            lambda t, *_: t < time_steps,
            advance,
            (tf.constant(0), state, outputs),
            maximum_iterations=time_steps,
        )
        return tf.transpose(outputs.stack(), [1, 0, 2]), *final


def _by_time(tensor: Tensor) -> tf.TensorArray:
    """Return one entry [batch, …] for each time step of [time, batch, …]."""
    size, element_shape = tf.shape(tensor)[0], tensor.shape[1:]
    entries = tf.TensorArray(tensor.dtype, size, element_shape=element_shape)
    return entries.unstack(tensor)


def layer(
    equations: Equations, cell: Cell, input_size: int, hidden_size: int
) -> keras.layers.Layer:
    """Return a layer of any cell that has equations."""
    return Loop(equations, cell, input_size, hidden_size)
