"""Keras layers as layers of a `TensorFlowNetwork`: how they are built and called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from harness.contract import Cell, NetworkSpec
from harness.errors import PluginError, describe_error
from implementations import keras_layers
from implementations.keras_layers import LayerFactory
from implementations.shared.layout import KerasLayout, Layout, layout_of

Tensor = Any
Parts = tuple[Tensor, ...]
"""One tensor [batch, hidden] for each state part."""


@dataclass(frozen=True)
class RecurrentLayer:
    """A Keras layer of a known layout, called in the graphs of a network.

    Attributes:
        layer: Called as `keras_layers.LayerFactory` says. One trace of it serves all
            lengths: `x.shape[1]` is None.
        variables: The layer's weights by name.
        layout: How the weights hold the canonical ones.
        device: The device on which the layer computes.
        last: Whether only the last output is used.
    """

    layer: Any
    variables: Mapping[str, tf.Variable]
    layout: Layout
    device: str
    last: bool

    def __post_init__(self) -> None:
        if self.last and isinstance(self.layer, keras.layers.RNN):
            # A user's own network would do this too. The loop then keeps no earlier
            # outputs, and an update takes a twentieth less time.
            self.layer.return_sequences = False

    def __call__(
        self, x: Tensor, state: Parts, mask: Tensor | None, *, training: bool
    ) -> tuple[Tensor, Parts]:
        """Run over x [batch, time, input] from a state.

        Args:
            x: The input.
            state: Parts before the first time step.
            mask: bool [batch, time], False from a sequence's end on; None if no
                sequence is padded.
            training: Whether a gradient will be computed.

        Returns:
            Outputs [batch, time, hidden], zero from a sequence's end on, or the last
            one [batch, 1, hidden] if only that is used; and the state after
            each sequence's own end.
        """
        with tf.device(self.device):
            outputs, *final = self.layer(
                x, initial_state=list(state), mask=mask, training=training
            )
            if self.last:
                return final[0][:, None], tuple(final)
            if mask is not None:
                # Keras repeats the last output after a sequence's end.
                outputs = tf.where(mask[..., None], outputs, tf.zeros_like(outputs))
        return outputs, tuple(final)

    def check_any_length(self, x: Tensor, state: Parts) -> None:
        """Trace the layer as `__call__` would for x and a state of any size.

        Raises:
            PluginError: If it cannot run over an unknown number of time steps.
        """
        parts = tuple(tf.TensorSpec([None, p.shape[1]], p.dtype) for p in state)
        sequences = tf.TensorSpec([None, None, x.shape[2]], x.dtype)
        try:
            tf.function(
                lambda x, state: self(x, state, None, training=False), autograph=False
            ).get_concrete_function(sequences, parts)
        except (TypeError, ValueError) as error:
            raise PluginError(
                type(self.layer).__name__,
                "runs over 2 time steps but not over any number of them: "
                f"{describe_error(error)}; x.shape[1] is None where TensorFlow traces "
                "a layer, so loop with tf.while_loop or keras.layers.RNN",
            ) from error


def build_layer(
    factory: LayerFactory,
    cell: Cell,
    input_size: int,
    spec: NetworkSpec,
    device: str,
    *,
    last: bool = False,
) -> RecurrentLayer:
    """Build a layer on a device of TensorFlow, such as `/CPU:0`, and check it.

    Args:
        factory: Returns the layer.
        cell: Names the canonical tensors and the state parts.
        input_size: Width of the layer's input.
        spec: Sizes and dtype.
        device: The device on which the layer computes.
        last: Whether only the layer's last output is used.

    Raises:
        PluginError: If the layer has another form or another layout of its weights.
    """
    sizes = (input_size, spec.hidden_size)
    with _default_dtype(spec.dtype), tf.device(device):
        found = keras_layers.checked(factory(spec.cell, *sizes))
        if "CPU" in device:
            keras_layers.leave_cudnn(found)
        x = tf.zeros([1, 2, input_size], spec.dtype)
        if not found.built:
            found(x)
        keras_layers.check_dtype(found, spec.dtype)
        named = keras_layers.by_name(found, found.weights)
        variables = {name: variable.value for name, variable in named.items()}
        shapes = {name: tuple(v.shape) for name, v in variables.items()}
        layout = layout_of(shapes, KerasLayout, cell, *sizes, type(found).__name__)
        state = (tf.zeros([1, spec.hidden_size], spec.dtype),) * len(
            cell.info.state_parts
        )
        mask = tf.ones(x.shape[:2], tf.bool)
        answered = found(x, initial_state=list(state), mask=mask)
        keras_layers.check_answer(found, answered, x, state)
    built = RecurrentLayer(found, variables, layout, device, last)
    built.check_any_length(x, state)
    return built


@contextmanager
def _default_dtype(dtype: str) -> Iterator[None]:
    """Set the dtype of layers that name none."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
