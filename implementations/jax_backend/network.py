"""What every JAX implementation shares: device, compilation, conversion, state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from harness.contract import (
    Array,
    Batch,
    Cell,
    Forward,
    Gradients,
    Handle,
    LossAndGradients,
    NetworkSpec,
    State,
    Updates,
    Weights,
)
from harness.errors import UnavailableError
from implementations.jax_backend.kernel import kernel_of
from implementations.jax_backend.layer import LayerFactory, Tensors, as_layer
from implementations.jax_backend.model import Model, Moments, PlacedBatch
from implementations.shared import optimizers
from implementations.shared.batches import (
    check_cotangents,
    check_state,
    check_step,
    check_weights,
    encode,
    host_batch,
)
from implementations.shared.layout import NetworkLayout

KERNEL_TIME_STEPS = 64
"""Long enough that nobody unrolls the loop by chance."""


class JaxNetwork:
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
        self._spec = spec
        self._device = find_device(device)
        self._dtype = np.dtype(spec.dtype)
        self._shapes = spec.weight_shapes(cell)
        widths, hidden_size = spec.layer_input_sizes, spec.hidden_size
        with computing_in(spec, self._device):
            layers = tuple(
                as_layer(layer(spec.cell, width, hidden_size), cell, width, hidden_size)
                for width in widths
            )
        self._layout = NetworkLayout(
            self._shapes,
            [
                layer.layout(cell, width, hidden_size)
                for layer, width in zip(layers, widths, strict=True)
            ],
        )
        held = self._layout.needed if spec.biases == "canonical" else {}
        trained = {name: needed.astype(bool) for name, needed in held.items()}
        self._model = Model(spec, layers, len(cell.info.state_parts), trained)
        self._compile()
        self._weights = self._zeros()
        self._moments: Moments = self._no_moments()
        self._updates = 0

    def _compile(self) -> None:
        model = self._model
        self._forward = jax.jit(model.forward)
        self._pull = jax.jit(model.pull)
        self._loss_and_gradients = jax.jit(model.loss_and_gradients)
        # An update overwrites weights and moments in their own memory.
        self._update = jax.jit(model.update, donate_argnums=(0, 1))

    @contextmanager
    def _settings(self) -> Iterator[None]:
        with computing_in(self._spec, self._device):
            yield

    def _put(self, array: Array) -> jax.Array:
        """Copy to the device: JAX may otherwise compute in the caller's own memory."""
        placed: jax.Array = jax.device_put(np.array(array), self._device)
        return placed

    def _real(self, array: Array) -> jax.Array:
        return self._put(np.asarray(array, self._dtype))

    def _zeros(self) -> Tensors:
        with self._settings():
            return {
                name: self._real(np.zeros(shape))
                for name, shape in self._layout.shapes.items()
            }

    # --- weights ---------------------------------------------------------------------

    def load_weights(self, weights: Weights) -> None:
        """Take canonical weights and forget the optimiser's moments.

        Raises:
            InputError: If a tensor is missing, misshapen or not finite.
        """
        check_weights(self._shapes, weights, self._spec.dtype)
        with self._settings():
            laid_out = self._layout.from_canonical(weights)
            self._weights = {n: self._real(w) for n, w in laid_out.items()}
        self._moments, self._updates = self._no_moments(), 0

    def weights(self) -> Weights:
        """Return the canonical weights."""
        return self._layout.values(jax.device_get(self._weights))

    # --- forward ---------------------------------------------------------------------

    def place(self, batch: Batch) -> PlacedBatch:
        """Bring a batch to the device with time first.

        Raises:
            InputError: If the batch does not fit the network.
        """
        host = host_batch(self._spec, batch)
        with self._settings():
            placed = PlacedBatch(
                self._put(host.x),
                None if host.active is None else self._put(host.active),
                self._put(host.targets),
                self._put(host.weights),
            )
            _wait(placed)
            return placed

    def forward(
        self, placed: PlacedBatch, state: State | None = None
    ) -> Handle[Forward]:
        """Compute outputs [batch, readouts, output] and the final state."""
        with self._settings():
            before = self._state(state, placed.x.shape[1])
            found = self._forward(self._weights, placed.x, placed.active, before)
        return _forward_handle(found)

    def step(self, x: Array, state: State | Any) -> Handle[Forward]:
        """Advance one time step and answer, whatever the readout."""
        check_step(self._spec, x)
        with self._settings():
            before = self._state(state, len(x))
            entered = self._put(encode(self._spec, x)[None])
            found = self._forward(self._weights, entered, None, before)
        return _forward_handle(found)

    def _state(self, state: State | Any, batch: int) -> tuple[jax.Array, ...]:
        if state is None:
            shape = (self._spec.num_layers, batch, self._spec.hidden_size)
            state = (np.zeros(shape),) * self._model.parts
        if isinstance(state[0], jax.Array):  # carried from the step before
            return tuple(state)
        check_state(self._spec, self._model.parts, state, batch)
        return tuple(self._real(part) for part in state)

    # --- gradients -------------------------------------------------------------------

    def vjp(
        self,
        placed: PlacedBatch,
        state: State | None,
        d_outputs: Array,
        d_final: State,
    ) -> Gradients:
        """Pull cotangents of outputs and final state back to all that entered."""
        check_cotangents(
            self._spec, self._model.parts, d_outputs, d_final, placed.x.shape[0]
        )
        with self._settings():
            before = self._state(state, placed.x.shape[1])
            cotangents = (self._real(d_outputs), tuple(map(self._real, d_final)))
            found = jax.device_get(
                self._pull(self._weights, placed.x, placed.active, before, cotangents)
            )
        d_weights, d_x, d_initial = found
        return Gradients(
            self._layout.gradients(d_weights), np.swapaxes(d_x, 0, 1), d_initial
        )

    def loss_and_gradients(self, placed: PlacedBatch) -> Handle[LossAndGradients]:
        """Compute the mean loss over scored positions and every weight's gradient."""
        with self._settings():
            found = self._loss_and_gradients(self._weights, placed)

        def read() -> LossAndGradients:
            loss, gradients = jax.device_get(found)
            return LossAndGradients(float(loss), self._layout.gradients(gradients))

        return Handle(lambda: _wait(found), read)

    # --- training --------------------------------------------------------------------

    def train_steps(self, placed: Sequence[PlacedBatch]) -> Handle[Updates]:
        """Take one optimiser update on each batch."""
        losses, norms = [], []
        with self._settings():
            for batch in placed:
                self._updates += 1
                corrections = optimizers.corrections(
                    self._spec.optimizer, self._updates
                )
                self._weights, self._moments, loss, norm = self._update(
                    self._weights,
                    self._moments,
                    tuple(self._dtype.type(c) for c in corrections),
                    batch,
                )
                losses.append(loss)
                norms.append(norm)

        def wait() -> None:
            # The weights as they are by then: those of this call may be overwritten.
            _wait((losses, norms, self._weights, self._moments))

        def read() -> Updates:
            found = jax.device_get((losses, norms))
            return Updates(*(np.array(values, self._dtype) for values in found))

        return Handle(wait, read)

    def _no_moments(self) -> Moments:
        names = optimizers.moments(self._spec.optimizer)
        return {name: self._zeros() for name in names}

    def optimizer_state(self) -> dict[str, Array]:
        """Return `updates` and the moments of every tensor, in canonical layout."""
        if self._updates == 0:
            return {}
        arrays: dict[str, Array] = {"updates": np.asarray(self._updates, np.int64)}
        for name, moments in jax.device_get(self._moments).items():
            for tensor, array in self._layout.gradients(moments).items():
                arrays[f"{name}/{tensor}"] = array
        return arrays

    def load_optimizer_state(self, arrays: Mapping[str, Array]) -> None:
        """Take what `optimizer_state` returned."""
        self._moments = self._no_moments()
        self._updates = int(arrays.get("updates", 0))
        if self._updates == 0:
            return
        with self._settings():
            for name in self._moments:
                moments = {n: arrays[f"{name}/{n}"] for n in self._shapes}
                laid_out = self._layout.from_canonical(moments)
                self._moments[name] = {n: self._real(m) for n, m in laid_out.items()}

    def kernel(self) -> str:
        """Name the recurrent kernel in the program that XLA compiled."""
        shape = (KERNEL_TIME_STEPS, 2)
        if self._spec.inputs.embedded:
            x = np.zeros(shape, np.int64)
        else:
            x = np.zeros((*shape, self._spec.input_size), self._dtype)
        with self._settings():
            program = self._forward.lower(
                self._weights, self._put(x), None, self._state(None, 2)
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
    kind, _, index = device.partition(":")
    try:
        found = jax.devices(kind)
    except RuntimeError:  # no such platform on this machine or in this build of JAX
        found = []
    if int(index or 0) >= len(found):
        raise UnavailableError(
            "jax",
            f"jax {jax.__version__} sees {len(found)} devices of kind {kind}, so "
            f"{device} is not there",
        )
    return found[int(index or 0)]


def _wait(arrays: Any) -> None:
    jax.block_until_ready(arrays)  # type: ignore[no-untyped-call]  # JAX has no type


def _forward_handle(found: tuple[jax.Array, tuple[jax.Array, ...]]) -> Handle[Forward]:
    def read() -> Forward:
        outputs, state = jax.device_get(found)
        return Forward(outputs, state)

    return Handle(lambda: _wait(found), read, carry=found[1])
