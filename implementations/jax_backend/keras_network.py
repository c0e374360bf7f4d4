"""Keras layers on JAX, as layers of a `JaxNetwork`."""

from __future__ import annotations

from typing import Any

from jax import Array
from jax import numpy as jnp

from harness.contract import Cell, NetworkSpec
from harness.errors import RefusedError
from implementations import keras_layers
from implementations.jax_backend.layer import Layer, Parts, Run, Tensors
from implementations.jax_backend.network import JaxNetwork
from implementations.keras_layers import LayerFactory, check_backend


def network(
    spec: NetworkSpec, cell: Cell, device: str, layer: LayerFactory
) -> JaxNetwork:
    """Return a network of Keras layers.

    Args:
        spec: Sizes, readout, loss, optimiser.
        cell: Names the canonical tensors and the state parts.
        device: `cpu`, `cuda` or `cuda:N`.
        layer: Returns a Keras layer.

    Raises:
        UnavailableError: If Keras computes with another backend, or JAX sees no such
            device.
        RefusedError: If the dtype is not float32.
        PluginError: If the layer has another form or another layout of its parameters.
    """
    check_backend("keras-jax", "jax")
    if spec.dtype != "float32":
        # keras.backend.result_type gives float32 for float64, and ops.tanh casts to it.
        raise RefusedError(f"Keras on JAX computes in float32, not in {spec.dtype}")

    def of_keras(name: str, input_size: int, hidden_size: int) -> Layer:
        found = keras_layers.checked(layer(name, input_size, hidden_size))
        if device == "cpu":
            keras_layers.leave_cudnn(found)
        if not found.built:
            found.build((None, None, input_size))
        keras_layers.check_dtype(found, spec.dtype)
        variables = keras_layers.by_name(found, found.trainable_variables)
        shapes = {name: tuple(v.shape) for name, v in variables.items()}
        return Layer(type(found).__name__, shapes, _pure(found, tuple(variables)))

    return JaxNetwork(spec, cell, device, of_keras)


def _pure(layer: Any, names: tuple[str, ...]) -> Run:
    """Return a Keras layer as a pure function of its tensors."""

    def run(
        weights: Tensors, x: Array, state: Parts, active: Array | None
    ) -> tuple[Array, Parts]:
        mask = None if active is None else jnp.swapaxes(active[..., 0], 0, 1)
        sequences = jnp.swapaxes(x, 0, 1)
        found, _ = layer.stateless_call(
            [weights[name] for name in names],
            [variable.value for variable in layer.non_trainable_variables],
            sequences,
            initial_state=list(state),
            mask=mask,
        )
        outputs, *final = keras_layers.check_answer(layer, found, sequences, state)
        outputs = jnp.swapaxes(outputs, 0, 1)
        if active is not None:
            # Keras repeats the last output after a sequence's end.
            outputs = jnp.where(active, outputs, 0)
        return outputs, tuple(final)

    return run
