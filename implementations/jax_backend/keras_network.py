"""Keras layers on JAX, as layers of a `JaxNetwork`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import jax
import keras
from jax import Array
from jax import numpy as jnp

from harness.conformance import check_call
from harness.contract import Cell, NetworkSpec
from harness.errors import PluginError, RefusedError, UnavailableError
from implementations.jax_backend.layer import Layer, LayerFactory, Parts, Tensors
from implementations.jax_backend.network import JaxNetwork
from implementations.shared.keras_layers import check_stateless


def network(
    spec: NetworkSpec, cell: Cell, device: str, layer: LayerFactory
) -> JaxNetwork:
    """Return a network of Keras layers.

    Args:
        spec: Sizes, readout, loss, optimiser.
        cell: Names the canonical tensors and the state parts.
        device: `cpu`, `cuda` or `cuda:N`.
        layer: Called with (cell, input_size, hidden_size); returns a
            `keras.layers.Layer` that is called as `keras.layers.GRU(return_sequences=
            True, return_state=True)`: (x [batch, time, input], initial_state, mask) to
            (outputs, *state). Its parameters are the canonical ones or Keras'.

    Raises:
        UnavailableError: If Keras computes with another backend, or JAX sees no such
            device.
        RefusedError: If the dtype is not float32.
        PluginError: If the layer is of another form or its parameters are laid out
            otherwise.
    """
    if keras.backend.backend() != "jax":
        raise UnavailableError(
            "keras-jax",
            f"keras {keras.__version__} computes with {keras.backend.backend()} in "
            "this process; KERAS_BACKEND must be jax before it is imported",
        )
    if spec.dtype != "float32":
        # keras.backend.result_type gives float32 for float64, and ops.tanh casts to it.
        raise RefusedError(f"Keras on JAX computes in float32; asked was {spec.dtype}")

    def of_keras(name: str, input_size: int, hidden_size: int) -> Layer:
        found = _checked(layer(name, input_size, hidden_size), spec.dtype)
        if device == "cpu" and isinstance(found, keras.layers.GRU | keras.layers.LSTM):
            # Keras takes cuDNN wherever it sees a GPU, whatever the device.
            found.use_cudnn = False
        if not found.built:
            found.build((None, None, input_size))
        return _layer(found)

    return JaxNetwork(spec, cell, device, of_keras)


def _checked(layer: object, dtype: str) -> Any:
    if not isinstance(layer, keras.layers.Layer):
        raise PluginError(
            "layer",
            f"returned {type(layer).__name__}; expected a keras.layers.Layer that is "
            "called and laid out as keras.layers.GRU",
        )
    name = type(layer).__name__
    check_call(layer.call, ("x", "initial_state", "mask"), name, by_place=True)
    for found in (layer.variable_dtype, layer.compute_dtype):
        if found != dtype:
            raise PluginError(
                name,
                f"has the dtype policy {layer.dtype_policy.name}; expected {dtype}",
            )
    check_stateless(layer)
    return layer


def _layer(layer: Any) -> Layer:
    name = type(layer).__name__
    names = [variable.name for variable in layer.trainable_variables]
    for repeated, count in Counter(names).items():
        if count > 1:
            raise PluginError(
                name,
                f"has {count} parameters named '{repeated}'; expected one layer of "
                "one direction",
            )
    shapes = {v.name: tuple(v.shape) for v in layer.trainable_variables}
    return Layer(name, shapes, _Call(layer, tuple(names)))


@dataclass(frozen=True)
class _Call:
    """A Keras layer as a pure function."""

    layer: Any
    names: tuple[str, ...]

    def __call__(
        self, weights: Tensors, x: Array, state: Parts, active: Array | None
    ) -> tuple[Array, Parts]:
        mask = None if active is None else jnp.swapaxes(active[..., 0], 0, 1)
        found, _ = self.layer.stateless_call(
            [weights[name] for name in self.names],
            [variable.value for variable in self.layer.non_trainable_variables],
            jnp.swapaxes(x, 0, 1),
            initial_state=list(state),
            mask=mask,
        )
        outputs, final = self._answer(found, x, state)
        if active is not None:
            # Keras repeats the last output after a sequence's end.
            outputs = jnp.where(active, outputs, 0)
        return outputs, final

    def _answer(self, found: Any, x: Array, state: Parts) -> tuple[Array, Parts]:
        """Return outputs with time first, and the state."""
        expected = (x.shape[1], x.shape[0], state[0].shape[1])
        parts = list(found) if isinstance(found, tuple | list) else [found]
        if parts[0].shape != expected or len(parts) != 1 + len(state):
            shapes = ", ".join(str(part.shape) for part in parts)
            raise PluginError(
                type(self.layer).__name__,
                f"answered {shapes}; expected outputs {expected}, [batch, time, "
                f"hidden], and {len(state)} state parts, as a layer of Keras with "
                "return_sequences=True and return_state=True",
            )
        return jnp.swapaxes(parts[0], 0, 1), tuple(jax.tree.leaves(parts[1:]))
