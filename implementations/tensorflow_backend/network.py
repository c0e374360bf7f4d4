"""The network of every TensorFlow implementation: device, graphs and conversion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from harness.contract import Array, Batch, Cell, NetworkSpec, Readout, Weights
from implementations.keras_layers import LayerFactory, check_backend
from implementations.shared import optimizers
from implementations.shared.batches import running
from implementations.shared.device import check_device, index_of
from implementations.shared.layout import with_layer_names
from implementations.shared.network import Parts, PlacedBatch, SharedNetwork, Tensors
from implementations.tensorflow_backend.kernel import kernel_of
from implementations.tensorflow_backend.layer import build_layer
from implementations.tensorflow_backend.model import Model

Tensor = Any
T = TypeVar("T")


def _turn_tf32_off() -> None:
    tf.config.experimental.enable_tensor_float_32_execution(False)


_turn_tf32_off()  # here too, so that building a network changes nothing of the process


class TensorFlowNetwork(SharedNetwork):
    """Stacked layers with a linear readout; every call is a graph that is traced once.

    Args:
        spec: Sizes, readout, loss, optimiser.
        cell: Names the canonical tensors and the state parts.
        device: `cpu`, `cuda` or `cuda:N`.
        layer: Called with (cell, input_size, hidden_size) for a Keras layer; see
            `LayerFactory`.

    Raises:
        UnavailableError: If TensorFlow sees no such device, or Keras computes with
            another backend.
        PluginError: If the layer has another form or another layout of its weights.
    """

    _batch_axis = 0

    def __init__(
        self, spec: NetworkSpec, cell: Cell, device: str, layer: LayerFactory
    ) -> None:
        check_backend("tensorflow", "tensorflow")
        self._device = find_device(device)
        _turn_tf32_off()
        # Otherwise Keras adds a page about the call's arguments to a layer's errors.
        keras.config.disable_traceback_filtering()
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
        super().__init__(spec, cell, [built.layout for built in layers])
        self._weights = {
            **{n: self._variable(shape) for n, shape in self._layout.outside.items()},
            **with_layer_names(built.variables for built in layers),
        }
        self._moments = {
            moment: {n: self._variable(v.shape) for n, v in self._weights.items()}
            for moment in optimizers.moments(spec.optimizer)
        }
        trained = {name: self._real(needed) for name, needed in self._needed.items()}
        self._model = Model(
            spec, layers, self._parts, self._weights, self._moments, trained
        )
        self._graphs: dict[tuple[str, bool, int], Any] = {}

    # --- tensors ---------------------------------------------------------------------

    def _put(self, array: Array) -> Tensor:
        if np.issubdtype(array.dtype, np.integer):
            # TensorFlow keeps 32-bit integers on the host.
            array = array.astype(np.int64)
        with tf.device(self._device):
            return tf.constant(array)

    def _variable(self, shape: Sequence[int]) -> tf.Variable:
        with tf.device(self._device):
            return tf.Variable(tf.zeros(shape, self._spec.dtype))

    def _on_host(self, tensors: Any) -> Any:
        return tf.nest.map_structure(lambda tensor: tensor.numpy(), tensors)

    def _wait(self, tensors: Any) -> None:
        # On the CPU a call returns when its work is done.
        if "GPU" in self._device:
            tf.test.experimental.sync_devices()

    def _assign(self, held: dict[str, Any], arrays: Weights) -> None:
        for name, array in arrays.items():
            held[name].assign(self._real(array))

    def _padding(self, batch: Batch) -> Tensor:
        return self._put(running(batch).T)

    # --- graphs ----------------------------------------------------------------------

    def _call(
        self, body: Callable[..., T], sequences: Parts, others: tuple[Any, ...] = ()
    ) -> T:
        """Call a function of the model as a graph for one batch size and any length.

        If the batch size is unknown, each time step of the backward pass first finds
        out along which axes to sum, and an update takes 1.3 times as long.

        Args:
            body: The function.
            sequences: The function's first arguments, [batch, time, …] each; x and the
                padding come first.
            others: The other arguments, whose sizes do not change.
        """
        x, padding = sequences[:2]
        key = (body.__name__, padding is not None, x.shape[0])
        if key not in self._graphs:

            def on_device(*arguments: Any) -> Any:
                with tf.device(self._device):
                    return body(*arguments)

            function = tf.function(on_device, autograph=False)
            self._graphs[key] = function.get_concrete_function(
                *(None if s is None else _of_any_length(s) for s in sequences),
                *tf.nest.map_structure(tf.TensorSpec.from_tensor, others),
            )
        found: T = self._graphs[key](*sequences, *others)
        return found

    def _forward(
        self, x: Tensor, padding: Tensor | None, state: Parts
    ) -> tuple[Tensor, Parts]:
        return self._call(self._model.forward, (x, padding), (state,))

    def _pull(
        self, placed: PlacedBatch, state: Parts, d_outputs: Tensor, d_final: Parts
    ) -> tuple[Tensors, Tensor, Parts]:
        sequences = placed.x, placed.padding, d_outputs
        return self._call(self._model.pull, sequences, (state, d_final))

    def _loss_and_gradients(self, placed: PlacedBatch) -> tuple[Tensor, Tensors]:
        return self._call(self._model.loss_and_gradients, placed)

    def _update(self, placed: PlacedBatch) -> tuple[Tensor, Tensor]:
        corrections = optimizers.corrections(self._spec.optimizer, self._updates)
        others = (tuple(map(self._real, corrections)),)
        return self._call(self._model.update, placed, others)

    def kernel(self) -> str:
        """Name the recurrent kernels in the graphs of all calls, padded or not."""
        if not self._graphs:
            self._forward(self._zero_input(1, 1), None, self._zero_state(1))
        graphs = [g.graph.as_graph_def() for g in self._graphs.values()]
        return "; ".join(dict.fromkeys(map(kernel_of, graphs)))


def _of_any_length(sequences: Tensor) -> tf.TensorSpec:
    batch, _, *size = sequences.shape
    return tf.TensorSpec([batch, None, *size], sequences.dtype)


def find_device(device: str) -> str:
    """Return TensorFlow's name of `cpu`, `cuda` or `cuda:N`.

    Raises:
        UnavailableError: If TensorFlow sees no such device.
    """
    if device == "cpu":
        return "/CPU:0"
    count = len(tf.config.list_physical_devices("GPU"))
    check_device("tensorflow", tf.__version__, device, count)
    return f"/GPU:{index_of(device)}"
