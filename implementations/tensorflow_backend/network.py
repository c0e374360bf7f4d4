"""What every TensorFlow implementation shares: device, graphs, conversion, state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from harness.contract import (
    Array,
    Batch,
    Cell,
    Forward,
    Gradients,
    Handle,
    LossAndGradients,
    NetworkSpec,
    Readout,
    State,
    Target,
    Updates,
    Weights,
)
from harness.errors import UnavailableError
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
from implementations.tensorflow_backend.kernel import kernel_of
from implementations.tensorflow_backend.layer import LayerFactory, build_layer
from implementations.tensorflow_backend.model import Model, PlacedBatch

Tensor = Any


class TensorFlowNetwork:
    """Stacked layers with a linear readout, every call a graph that is traced once.

    Args:
        spec: Sizes, readout, loss, optimiser.
        cell: Names the canonical tensors and the state parts.
        device: `cpu`, `cuda` or `cuda:N`.
        layer: Called with (cell, input_size, hidden_size) for a Keras layer; see
            `LayerFactory`.

    Raises:
        UnavailableError: If TensorFlow sees no such device, or Keras computes with
            another backend.
        PluginError: If the layer is of another form or its weights are laid out
            otherwise.
    """

    def __init__(
        self, spec: NetworkSpec, cell: Cell, device: str, layer: LayerFactory
    ) -> None:
        _check_backend()
        self._device = find_device(device)
        tf.config.experimental.enable_tensor_float_32_execution(False)
        # Or Keras adds a page on the call's arguments to what a layer raises.
        keras.config.disable_traceback_filtering()
        self._spec = spec
        self._parts = len(cell.info.state_parts)
        self._shapes = spec.weight_shapes(cell)
        widths = spec.layer_input_sizes
        layers = tuple(
            build_layer(
                layer,
                cell,
                width,
                spec,
                self._device,
                last=spec.readout is Readout.LAST and i == len(widths) - 1,
            )
            for i, width in enumerate(widths)
        )
        self._layout = NetworkLayout(self._shapes, [built.layout for built in layers])
        self._variables = {
            **{n: self._zeros(shape) for n, shape in self._layout.outside.items()},
            **{
                f"layer{i}.{name}": variable
                for i, built in enumerate(layers)
                for name, variable in built.variables.items()
            },
        }
        self._moments = {
            moment: {n: self._zeros(v.shape) for n, v in self._variables.items()}
            for moment in optimizers.moments(spec.optimizer)
        }
        held = self._layout.needed if spec.biases == "canonical" else {}
        trained = {name: self._real(needed) for name, needed in held.items()}
        self._model = Model(
            spec, layers, self._parts, self._variables, self._moments, trained
        )
        self._graphs: dict[tuple[str, bool, int], Any] = {}
        self._updates = 0

    def _zeros(self, shape: Sequence[int]) -> tf.Variable:
        with tf.device(self._device):
            return tf.Variable(tf.zeros(shape, self._spec.dtype))

    def _real(self, array: Array | float) -> Tensor:
        with tf.device(self._device):
            return tf.constant(np.asarray(array, self._spec.dtype))

    def _integers(self, array: Array) -> Tensor:
        with tf.device(self._device):
            # TensorFlow keeps 32-bit integers on the host.
            return tf.constant(np.asarray(array, np.int64))

    # --- graphs ----------------------------------------------------------------------

    def _graph(self, body: Callable[..., Any], x: Tensor, *, padded: bool) -> Any:
        """Return a function of the model as a graph for one batch size and any length.

        Where the batch size is unknown, each time step of the way back first finds out
        along which axes to sum, and an update takes 1.3 times as long.
        """
        key = (body.__name__, padded, x.shape[0])
        if key not in self._graphs:

            def on_device(*arguments: Any) -> Any:
                with tf.device(self._device):
                    return body(*arguments)

            function = tf.function(on_device, autograph=False)
            signature = self._signature(*key)
            self._graphs[key] = function.get_concrete_function(*signature)
        return self._graphs[key]

    def _signature(self, body: str, padded: bool, size: int) -> tuple[Any, ...]:
        spec = self._spec
        tokens = tf.TensorSpec([size, None], tf.int64)
        reals = tf.TensorSpec([size, None, spec.input_size], spec.dtype)
        x = tokens if spec.inputs.embedded else reals
        mask = tf.TensorSpec([size, None], tf.bool) if padded else None
        part = tf.TensorSpec([spec.num_layers, size, spec.hidden_size], spec.dtype)
        state = (part,) * self._parts
        outputs = tf.TensorSpec([size, None, spec.output_size], spec.dtype)
        targets = tokens if spec.target is Target.CLASS else outputs
        scored = tf.TensorSpec([size, None], spec.dtype)
        batch = PlacedBatch(x, mask, targets, scored)
        correction = tf.TensorSpec([], spec.dtype)
        arguments: dict[str, tuple[Any, ...]] = {
            "forward": (x, mask, state),
            "pull": (x, mask, state, outputs, state),
            "loss_and_gradients": (batch,),
            "update": (batch, (correction, correction)),
        }
        return arguments[body]

    # --- weights ---------------------------------------------------------------------

    def load_weights(self, weights: Weights) -> None:
        """Take canonical weights and forget the optimiser's moments.

        Raises:
            InputError: If a tensor is missing, misshapen or not finite.
        """
        check_weights(self._shapes, weights, self._spec.dtype)
        for name, array in self._layout.from_canonical(weights).items():
            self._variables[name].assign(self._real(array))
        self._forget_moments()

    def weights(self) -> Weights:
        """Return the canonical weights."""
        return self._layout.values(_on_host(self._variables))

    # --- forward ---------------------------------------------------------------------

    def place(self, batch: Batch) -> PlacedBatch:
        """Bring a batch to the device.

        Raises:
            InputError: If the batch does not fit the network.
        """
        host = host_batch(self._spec, batch)
        mask = None
        with tf.device(self._device):
            if host.active is not None:
                mask = tf.constant(host.active[..., 0].T)
            return PlacedBatch(
                self._entering(np.swapaxes(host.x, 0, 1)),
                mask,
                self._targets(host.targets),
                self._real(host.weights),
            )

    def _entering(self, encoded: Array) -> Tensor:
        """Return reals, one-hot vectors or tokens to embed, on the device."""
        if self._spec.inputs.embedded:
            return self._integers(encoded)
        return self._real(encoded)

    def _targets(self, targets: Array) -> Tensor:
        if self._spec.target is Target.CLASS:
            return self._integers(targets)
        return self._real(targets)

    def forward(
        self, placed: PlacedBatch, state: State | None = None
    ) -> Handle[Forward]:
        """Compute outputs [batch, readouts, output] and the final state."""
        before = self._state(state, placed.x.shape[0])
        padded = placed.mask is not None
        graph = self._graph(self._model.forward, placed.x, padded=padded)
        return self._forward_handle(*graph(placed.x, placed.mask, before))

    def step(self, x: Array, state: State | Any) -> Handle[Forward]:
        """Advance one time step and answer, whatever the readout."""
        check_step(self._spec, x)
        before = self._state(state, len(x))
        entering = self._entering(encode(self._spec, x)[:, None])
        graph = self._graph(self._model.forward, entering, padded=False)
        return self._forward_handle(*graph(entering, None, before))

    def _forward_handle(
        self, outputs: Tensor, final: tuple[Tensor, ...]
    ) -> Handle[Forward]:
        def read() -> Forward:
            return Forward(outputs.numpy(), tuple(part.numpy() for part in final))

        return Handle(self._wait, read, carry=final)

    def _wait(self) -> None:
        # On the CPU a call returns when its work is done.
        if "GPU" in self._device:
            tf.test.experimental.sync_devices()

    def _state(self, state: State | Any, batch: int) -> tuple[Tensor, ...]:
        if state is None:
            shape = (self._spec.num_layers, batch, self._spec.hidden_size)
            with tf.device(self._device):
                return (tf.zeros(shape, self._spec.dtype),) * self._parts
        if tf.is_tensor(state[0]):  # carried from the step before
            return tuple(state)
        check_state(self._spec, self._parts, state, batch)
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
        check_cotangents(self._spec, self._parts, d_outputs, d_final, placed.x.shape[1])
        before = self._state(state, placed.x.shape[0])
        cotangents = (self._real(d_outputs), tuple(self._real(d) for d in d_final))
        padded = placed.mask is not None
        graph = self._graph(self._model.pull, placed.x, padded=padded)
        d_weights, d_x, d_state = graph(placed.x, placed.mask, before, *cotangents)
        return Gradients(
            self._layout.gradients(_on_host(d_weights)),
            d_x.numpy(),
            tuple(d.numpy() for d in d_state),
        )

    def loss_and_gradients(self, placed: PlacedBatch) -> Handle[LossAndGradients]:
        """Compute the mean loss over scored positions and every weight's gradient."""
        padded = placed.mask is not None
        graph = self._graph(self._model.loss_and_gradients, placed.x, padded=padded)
        loss, gradients = graph(placed)

        def read() -> LossAndGradients:
            found = self._layout.gradients(_on_host(gradients))
            return LossAndGradients(float(loss.numpy()), found)

        return Handle(self._wait, read)

    # --- training --------------------------------------------------------------------

    def train_steps(self, placed: Sequence[PlacedBatch]) -> Handle[Updates]:
        """Take one optimiser update on each batch."""
        done = []
        for batch in placed:
            self._updates += 1
            corrections = optimizers.corrections(self._spec.optimizer, self._updates)
            padded = batch.mask is not None
            graph = self._graph(self._model.update, batch.x, padded=padded)
            done.append(graph(batch, tuple(map(self._real, corrections))))

        def read() -> Updates:
            losses, norms = zip(*done, strict=True)
            return Updates(*(np.array([v.numpy() for v in x]) for x in (losses, norms)))

        return Handle(self._wait, read)

    def _forget_moments(self) -> None:
        self._updates = 0
        for moments in self._moments.values():
            for variable in moments.values():
                variable.assign(tf.zeros_like(variable))

    def optimizer_state(self) -> dict[str, Array]:
        """Return `updates` and the moments of every tensor, in canonical layout."""
        if self._updates == 0:
            return {}
        arrays: dict[str, Array] = {"updates": np.asarray(self._updates, np.int64)}
        for name, moments in self._moments.items():
            for tensor, array in self._layout.gradients(_on_host(moments)).items():
                arrays[f"{name}/{tensor}"] = array
        return arrays

    def load_optimizer_state(self, arrays: Mapping[str, Array]) -> None:
        """Take what `optimizer_state` returned."""
        self._forget_moments()
        self._updates = int(arrays.get("updates", 0))
        if self._updates == 0:
            return
        for name, variables in self._moments.items():
            moments = {tensor: arrays[f"{name}/{tensor}"] for tensor in self._shapes}
            for tensor, array in self._layout.from_canonical(moments).items():
                variables[tensor].assign(self._real(array))

    def kernel(self) -> str:
        """Name the recurrent kernels in the graphs of what was asked, padded or not."""
        if not self._graphs:
            x = tf.zeros([1, 1, self._spec.input_size])
            self._graph(self._model.forward, x, padded=False)
        graphs = [g.graph.as_graph_def() for g in self._graphs.values()]
        return "; ".join(dict.fromkeys(map(kernel_of, graphs)))


def _on_host(tensors: Mapping[str, Tensor]) -> Weights:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _check_backend() -> None:
    if keras.backend.backend() != "tensorflow":
        raise UnavailableError(
            "tensorflow",
            f"keras {keras.__version__} computes with {keras.backend.backend()} in "
            "this process; KERAS_BACKEND must be tensorflow before it is imported",
        )


def find_device(device: str) -> str:
    """Return TensorFlow's name of `cpu`, `cuda` or `cuda:N`.

    Raises:
        UnavailableError: If TensorFlow sees no such device.
    """
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return "/CPU:0"
    count = len(tf.config.list_physical_devices("GPU"))
    if int(index or 0) >= count:
        raise UnavailableError(
            "tensorflow",
            f"tensorflow {tf.__version__} sees {count} CUDA devices, so {device} is "
            "not there",
        )
    return f"/GPU:{int(index or 0)}"
