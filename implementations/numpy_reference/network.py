"""Stacked layers of a cell's reference with a linear readout: the oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_info

from harness.conformance import check_call
from harness.contract import (
    Array,
    Batch,
    Forward,
    Gradients,
    Handle,
    LossAndGradients,
    NetworkSpec,
    Readout,
    ReferenceCell,
    State,
    Updates,
    Weights,
    layer_weights,
)
from harness.errors import PluginError
from implementations.numpy_reference import optimizers
from implementations.numpy_reference.losses import loss_and_gradient
from implementations.numpy_reference.sequence import (
    Steps,
    Trace,
    run_backward,
    run_forward,
)
from implementations.shared.batches import (
    check_cotangents,
    check_state,
    check_step,
    check_weights,
    encode,
    host_batch,
)

R = TypeVar("R")

LayerFactory = Callable[[str, int, int], Steps]


@dataclass(frozen=True)
class PlacedBatch:
    """A batch with time first, in the network's dtype.

    Attributes:
        x: [time, batch, input] reals or one-hot vectors, or tokens [time, batch].
        active: bool [time, batch, 1], or None where no sequence is padded.
    """

    x: Array
    active: Array | None
    targets: Array
    scored: Array


@dataclass(frozen=True)
class ForwardTrace:
    """One pass forward, with what the way back needs."""

    outputs: Array
    top: Array
    state: State
    traces: list[Trace]


class NumpyNetwork:
    """A network that computes every equation with numpy, one time step at a time.

    Args:
        spec: Sizes, readout, loss, optimiser; dtype float64 or float32.
        cell: The recurrence, which computes where no layer is given.
        device: `cpu`.
        layer: Called with (cell, input_size, hidden_size); returns what has the `step`
            and `step_backward` of a `ReferenceCell`.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        cell: ReferenceCell,
        device: str,
        layer: LayerFactory | None = None,
    ) -> None:
        self._spec = spec
        self._parts = len(cell.info.state_parts)
        self._steps: list[Steps] = [
            cell if layer is None else _checked(layer(spec.cell, w, spec.hidden_size))
            for w in spec.layer_input_sizes
        ]
        self._dtype = np.dtype(spec.dtype)
        self._shapes = spec.weight_shapes(cell)
        self._weights = {n: np.zeros(s, self._dtype) for n, s in self._shapes.items()}
        self._optimizer_state: dict[str, Array] = {}

    def load_weights(self, weights: Weights) -> None:
        """Take canonical weights and forget the optimiser's moments.

        Raises:
            InputError: If a tensor is missing, misshapen or not finite.
        """
        check_weights(self._shapes, weights, self._spec.dtype)
        self._weights = {n: np.array(weights[n], self._dtype) for n in self._shapes}
        self._optimizer_state = {}

    def weights(self) -> Weights:
        """Return a copy of the canonical weights."""
        return {name: tensor.copy() for name, tensor in self._weights.items()}

    def place(self, batch: Batch) -> PlacedBatch:
        """Put time first and turn tokens of a small vocabulary into one-hot vectors.

        Raises:
            InputError: If the batch does not fit the network.
        """
        host = host_batch(self._spec, batch)
        return PlacedBatch(host.x, host.active, batch.targets, batch.scored)

    def forward(
        self, placed: PlacedBatch, state: State | None = None
    ) -> Handle[Forward]:
        """Compute outputs [batch, readouts, output] and the final state."""
        done = self._forward(placed, state)
        return _finished(lambda: Forward(done.outputs, done.state))

    def step(self, x: Array, state: State) -> Handle[Forward]:
        """Advance one time step and answer, whatever the readout."""
        check_step(self._spec, x)
        encoded = encode(self._spec, x)[None]
        done = self._forward(PlacedBatch(encoded, None, x, x), state)
        return _finished(lambda: Forward(done.outputs, done.state))

    def vjp(
        self,
        placed: PlacedBatch,
        state: State | None,
        d_outputs: Array,
        d_final: State,
    ) -> Gradients:
        """Pull cotangents of outputs and final state back to all that entered."""
        time_steps = len(placed.x)
        check_cotangents(self._spec, self._parts, d_outputs, d_final, time_steps)
        done = self._forward(placed, state)
        d_weights, d_x, d_states = self._backward(placed, done, d_outputs, d_final)
        return Gradients(
            d_weights,
            np.swapaxes(d_x, 0, 1),
            tuple(np.stack(part) for part in _parts_of_layers(d_states, 0)),
        )

    def state_gradients(
        self, placed: PlacedBatch, d_outputs: Array | None
    ) -> tuple[Array, ...]:
        """Return the total derivative for every state.

        One array [time + 1, layers, batch, hidden] a state part; `d_outputs` None
        takes the gradient of the loss.
        """
        done = self._forward(placed, None)
        if d_outputs is None:
            d_outputs = self._loss(placed, done)[1]
        d_final = tuple(np.zeros_like(part) for part in done.state)
        _, _, d_states = self._backward(placed, done, d_outputs, d_final)
        times = range(len(placed.x) + 1)
        by_time = [_parts_of_layers(d_states, t) for t in times]
        return tuple(np.stack(part) for part in zip(*by_time, strict=True))

    def loss_and_gradients(self, placed: PlacedBatch) -> Handle[LossAndGradients]:
        """Compute the mean loss over scored positions and every weight's gradient."""
        loss, gradients = self._loss_and_gradients(placed)
        return _finished(lambda: LossAndGradients(loss, gradients))

    def train_steps(self, placed: Sequence[PlacedBatch]) -> Handle[Updates]:
        """Take one optimiser update on each batch."""
        losses, norms = [], []
        for batch in placed:
            loss, gradients = self._loss_and_gradients(batch)
            clipped, norm = optimizers.clip(gradients, self._spec.optimizer.clip_norm)
            optimizers.step(
                self._spec.optimizer, self._weights, clipped, self._optimizer_state
            )
            losses.append(loss)
            norms.append(norm)
        return _finished(lambda: Updates(np.array(losses), np.array(norms)))

    def optimizer_state(self) -> dict[str, Array]:
        """Return `updates` and the moments of every tensor."""
        return {name: array.copy() for name, array in self._optimizer_state.items()}

    def load_optimizer_state(self, arrays: Mapping[str, Array]) -> None:
        """Take what `optimizer_state` returned."""
        self._optimizer_state = {
            name: np.array(a, None if name == "updates" else self._dtype)
            for name, a in arrays.items()
        }

    def kernel(self) -> str:
        """Name the loaded BLAS, whose matrix product does the work."""
        loaded = [i for i in threadpool_info() if i["user_api"] == "blas"]
        names = {f"{i['internal_api']} {i['version']}" for i in loaded}
        return ", ".join(sorted(names)) or "no BLAS"

    # --- inside ----------------------------------------------------------------------

    def _zero_state(self, batch: int) -> State:
        shape = (self._spec.num_layers, batch, self._spec.hidden_size)
        return tuple(np.zeros(shape, self._dtype) for _ in range(self._parts))

    def _forward(self, placed: PlacedBatch, state: State | None) -> ForwardTrace:
        x = placed.x
        if self._spec.inputs.embedded:
            x = self._weights["embedding"][x]
        if state is None:
            state = self._zero_state(x.shape[1])
        check_state(self._spec, self._parts, state, x.shape[1])
        finals, traces = [], []
        for layer in range(self._spec.num_layers):
            initial = tuple(part[layer].astype(self._dtype) for part in state)
            weights = layer_weights(self._weights, layer)
            x, final, trace = run_forward(
                self._steps[layer], weights, x, initial, placed.active
            )
            finals.append(final)
            traces.append(trace)
        last = self._spec.readout is Readout.LAST
        top = finals[-1][0][:, None] if last else np.swapaxes(x, 0, 1)
        outputs = top @ self._weights["readout.w"].T + self._weights["readout.b"]
        final_state = tuple(np.stack(part) for part in zip(*finals, strict=True))
        return ForwardTrace(outputs, top, final_state, traces)

    def _backward(
        self, placed: PlacedBatch, done: ForwardTrace, d_outputs: Array, d_final: State
    ) -> tuple[Weights, Array, list[list[State]]]:
        """Return gradients of weights and inputs, and each layer's state gradients."""
        d_outputs = d_outputs.astype(self._dtype)
        gradients = {
            "readout.w": np.einsum("bro,brh->oh", d_outputs, done.top),
            "readout.b": d_outputs.sum(axis=(0, 1)),
        }
        d_top = d_outputs @ self._weights["readout.w"]
        finals = [
            tuple(part[layer].astype(self._dtype) for part in d_final)
            for layer in range(self._spec.num_layers)
        ]
        shape = (len(placed.x), *finals[-1][0].shape)
        if self._spec.readout is Readout.LAST:
            d_x = np.zeros(shape, self._dtype)
            finals[-1] = (finals[-1][0] + d_top[:, 0], *finals[-1][1:])
        else:
            d_x = np.swapaxes(d_top, 0, 1)
        d_states: list[list[State]] = []
        for layer in reversed(range(self._spec.num_layers)):
            d_layer, d_x, states = run_backward(
                self._steps[layer],
                layer_weights(self._weights, layer),
                done.traces[layer],
                d_x,
                finals[layer],
            )
            gradients |= {f"layer{layer}.{n}": d for n, d in d_layer.items()}
            d_states.insert(0, states)
        if self._spec.inputs.embedded:
            gradients["embedding"] = np.zeros_like(self._weights["embedding"])
            np.add.at(gradients["embedding"], placed.x, d_x)
        return {name: gradients[name] for name in self._shapes}, d_x, d_states

    def _loss(self, placed: PlacedBatch, done: ForwardTrace) -> tuple[float, Array]:
        return loss_and_gradient(
            self._spec.target, done.outputs, placed.targets, placed.scored
        )

    def _loss_and_gradients(self, placed: PlacedBatch) -> tuple[float, Weights]:
        done = self._forward(placed, None)
        loss, d_outputs = self._loss(placed, done)
        d_final = tuple(np.zeros_like(part) for part in done.state)
        return loss, self._backward(placed, done, d_outputs, d_final)[0]


def _parts_of_layers(d_states: list[list[State]], t: int) -> list[list[Array]]:
    """Regroup the states after t time steps: by part, then by layer."""
    return [list(p) for p in zip(*(layer[t] for layer in d_states), strict=True)]


def _finished(read: Callable[[], R]) -> Handle[R]:
    return Handle(wait=lambda: None, read=read)


def _checked(layer: Steps) -> Steps:
    for name, arguments in (
        ("step", ("weights", "x", "state")),
        ("step_backward", ("weights", "saved", "d_state")),
    ):
        method = getattr(layer, name, None)
        if not callable(method):
            raise PluginError(
                "layer",
                f"returned {type(layer).__name__}, which lacks '{name}'; expected "
                f"{name}({', '.join(arguments)})",
            )
        check_call(method, arguments, type(layer).__name__, by_place=True)
    return layer
