"""What every JAX implementation shares: device, compilation, conversion, state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import jax
import numpy as np

from harness.contract import Array, Batch, Cell, NetworkSpec
from implementations.jax_backend.kernel import kernel_of
from implementations.jax_backend.layer import LayerFactory, Parts, Tensors, as_layer
from implementations.jax_backend.model import Model
from implementations.shared import optimizers
from implementations.shared.device import check_device, index_of
from implementations.shared.layout import KerasLayout, layout_of
from implementations.shared.network import PlacedBatch, SharedNetwork

KERNEL_TIME_STEPS = 64
"""Long enough that XLA does not unroll the loop by chance."""


class JaxNetwork(SharedNetwork):
    """Stacked layers with a linear readout, every call compiled once a shape.

    Args:
        spec: Sizes, readout, loss, optimiser.
        cell: Names the canonical tensors and the state parts.
        device: `cpu`, `cuda` or `cuda:N`.
        layer: Called with (cell, input_size, hidden_size); returns a `Layer`, or a
            function (weights, x, state, active) to (outputs, state) of the canonical
            weights by name.

    Raises:
        UnavailableError: If JAX sees no such device.
        PluginError: If the layer is of another form or its tensors are laid out
            otherwise.
    """

    def __init__(
        self, spec: NetworkSpec, cell: Cell, device: str, layer: LayerFactory
    ) -> None:
        self._device = find_device(device)
        widths, hidden_size = spec.layer_input_sizes, spec.hidden_size
        with computing_in(spec, self._device):
            layers = tuple(
                as_layer(layer(spec.cell, width, hidden_size), cell, width, hidden_size)
                for width in widths
            )
        layouts = [
            layout_of(layer.shapes, KerasLayout, cell, width, hidden_size, layer.name)
            for layer, width in zip(layers, widths, strict=True)
        ]
        super().__init__(spec, cell, layouts)
        trained = {name: needed.astype(bool) for name, needed in self._needed.items()}
        model = Model(spec, layers, self._parts, trained)
        self._model_forward = jax.jit(model.forward)
        self._model_pull = jax.jit(model.pull)
        self._model_gradients = jax.jit(model.loss_and_gradients)
        # An update overwrites weights and moments in their own memory.
        self._model_update = jax.jit(model.update, donate_argnums=(0, 1))
        names = optimizers.moments(spec.optimizer)
        with self._settings():
            self._weights = self._zero_tensors()
            self._moments = {name: self._zero_tensors() for name in names}

    # --- arrays ----------------------------------------------------------------------

    def _settings(self) -> AbstractContextManager[object]:
        return computing_in(self._spec, self._device)

    def _put(self, array: Array) -> jax.Array:
        """Copy to the device: JAX may otherwise compute in the caller's own memory."""
        placed: jax.Array = jax.device_put(np.array(array), self._device)
        return placed

    def _on_host(self, tensors: Any) -> Any:
        return jax.device_get(tensors)

    def _wait(self, tensors: Any) -> None:
        jax.block_until_ready(tensors)  # type: ignore[no-untyped-call]  # JAX has none

    def _wait_for_updates(self, done: Any) -> None:
        # The weights as they are by then: those of this call may be overwritten.
        self._wait((done, self._weights, self._moments))

    def place(self, batch: Batch) -> PlacedBatch:
        """Bring a batch to the device with time first, and wait until it is there.

        Raises:
            InputError: If the batch does not fit the network.
        """
        placed = super().place(batch)
        self._wait(placed)
        return placed

    # --- computing -------------------------------------------------------------------

    def _forward(
        self, x: jax.Array, padding: jax.Array | None, state: Parts
    ) -> tuple[jax.Array, Parts]:
        outputs, final = self._model_forward(self._weights, x, padding, state)
        return outputs, final

    def _pull(
        self, placed: PlacedBatch, state: Parts, d_outputs: jax.Array, d_final: Parts
    ) -> tuple[Tensors, jax.Array, Parts]:
        x, padding, cotangents = placed.x, placed.padding, (d_outputs, d_final)
        d_weights, d_x, d_state = self._model_pull(
            self._weights, x, padding, state, cotangents
        )
        return d_weights, d_x, d_state

    def _loss_and_gradients(self, placed: PlacedBatch) -> tuple[jax.Array, Tensors]:
        loss, gradients = self._model_gradients(self._weights, placed)
        return loss, gradients

    def _update(self, placed: PlacedBatch) -> tuple[jax.Array, jax.Array]:
        dtype = np.dtype(self._spec.dtype)
        corrections = optimizers.corrections(self._spec.optimizer, self._updates)
        self._weights, self._moments, loss, norm = self._model_update(
            self._weights,
            self._moments,
            tuple(dtype.type(c) for c in corrections),
            placed,
        )
        return loss, norm

    def kernel(self) -> str:
        """Name the recurrent kernel in the program that XLA compiled."""
        with self._settings():
            x = self._zero_input(KERNEL_TIME_STEPS, 2)
            program = self._model_forward.lower(
                self._weights, x, None, self._zero_state(2)
            )
            return kernel_of(program.compile().as_text() or "")


@contextmanager
def computing_in(spec: NetworkSpec, device: jax.Device) -> Iterator[None]:
    """Compute in the dtype and precision of a network, and on its device.

    JAX keeps these apart from the arrays: without `highest`, a GPU multiplies float32
    in TF32.
    """
    with (
        jax.enable_x64(spec.dtype == "float64"),
        jax.default_matmul_precision(spec.precision),
        jax.default_device(device),
    ):
        yield


def find_device(device: str) -> jax.Device:
    """Return JAX's device for `cpu`, `cuda` or `cuda:N`.

    Raises:
        UnavailableError: If JAX sees no such device.
    """
    kind = device.partition(":")[0]
    try:
        found = jax.devices(kind)
    except RuntimeError:  # no such platform on this machine or in this build of JAX
        found = []
    check_device("jax", jax.__version__, device, len(found))
    return found[index_of(device)]
