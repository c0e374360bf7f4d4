"""The oracle: stacked layers of a cell's reference with a linear readout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info

from harness.conformance import check_methods
from harness.contract import (
    Array,
    NetworkSpec,
    Readout,
    ReferenceCell,
    Saved,
    State,
    Steps,
    Weights,
    layer_weights,
)
from implementations.numpy_reference import optimizers
from implementations.numpy_reference.losses import loss_and_gradient
from implementations.numpy_reference.sequence import run_backward, run_forward
from implementations.shared.layout import CanonicalLayout
from implementations.shared.network import Parts, PlacedBatch, SharedNetwork
from implementations.shared.optimizers import moments

LayerFactory = Callable[[str, int, int], Steps]


@dataclass(frozen=True)
class ForwardTrace:
    """The results of a forward pass, and what the backward pass needs.

    Attributes:
        top: What entered the readout.
        saved: What the time steps of each layer have saved.
    """

    outputs: Array
    top: Array
    state: State
    saved: list[list[Saved]]


class NumpyNetwork(SharedNetwork):
    """A network that computes every equation with numpy, one time step at a time.

    Args:
        spec: Sizes, readout, loss, optimiser; dtype float64 or float32.
        cell: The recurrence. It also computes every layer if no `layer` is given.
        device: `cpu`.
        layer: Called with (cell, input_size, hidden_size); returns `Steps`.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        cell: ReferenceCell,
        device: str,
        layer: LayerFactory | None = None,
    ) -> None:
        widths = spec.layer_input_sizes
        super().__init__(
            spec, cell, [CanonicalLayout(cell, w, spec.hidden_size) for w in widths]
        )
        self._steps: list[Steps] = [
            cell if layer is None else layer(spec.cell, w, spec.hidden_size)
            for w in widths
        ]
        for steps in self._steps:
            check_methods(steps, Steps, "layer")
        self._weights = self._zero_tensors()
        self._moments = {m: self._zero_tensors() for m in moments(spec.optimizer)}

    def kernel(self) -> str:
        """Name the BLAS whose matrix product does the work.

        A wheel of NumPy brings its own; any other uses one of those that are loaded.
        """
        loaded = [i for i in threadpool_info() if i["user_api"] == "blas"]
        folders = {"numpy.libs", "numpy"}  # of a wheel for Linux, for macOS
        own = [i for i in loaded if folders & {*Path(i["filepath"]).parts[-3:]}]
        names = {f"{i['internal_api']} {i['version']}" for i in own or loaded}
        return ", ".join(sorted(names)) or "no BLAS"

    # --- forward ---------------------------------------------------------------------

    def _forward(
        self, x: Array, padding: Array | None, state: Parts
    ) -> tuple[Array, Parts]:
        done = self._trace(x, padding, state)
        return done.outputs, done.state

    def _trace(self, x: Array, active: Array | None, state: Parts) -> ForwardTrace:
        if self._spec.inputs.embedded:
            x = self._weights["embedding"][x]
        finals, saved = [], []
        for layer in range(self._spec.num_layers):
            initial = tuple(part[layer] for part in state)
            weights = layer_weights(self._weights, layer)
            x, final, kept = run_forward(
                self._steps[layer], weights, x, initial, active
            )
            finals.append(final)
            saved.append(kept)
        last = self._spec.readout is Readout.LAST
        top = finals[-1][0][:, None] if last else np.swapaxes(x, 0, 1)
        outputs = top @ self._weights["readout.w"].T + self._weights["readout.b"]
        final_state = tuple(np.stack(part) for part in zip(*finals, strict=True))
        return ForwardTrace(outputs, top, final_state, saved)

    # --- gradients -------------------------------------------------------------------

    def _pull(
        self, placed: PlacedBatch, state: Parts, d_outputs: Array, d_final: Parts
    ) -> tuple[Weights, Array, State]:
        done = self._trace(placed.x, placed.padding, state)
        d_weights, d_x, d_states = self._backward(placed, done, d_outputs, d_final)
        return d_weights, d_x, tuple(np.stack([d[0] for d in d_states], axis=1))

    def state_gradients(
        self, placed: PlacedBatch, d_outputs: Array | None
    ) -> tuple[Array, ...]:
        """Return the gradient for every state, of what continues from that state.

        There is one array [time + 1, layers, batch, hidden] for each state part. If
        `d_outputs` is None, the gradient of the loss is taken.
        """
        _, _, d_states = self._from_zero(placed, d_outputs)
        by_part: Array = np.transpose(d_states, (2, 1, 0, 3, 4))
        return tuple(np.ascontiguousarray(part) for part in by_part)

    def _from_zero(
        self, placed: PlacedBatch, d_outputs: Array | None = None
    ) -> tuple[float, Weights, list[list[State]]]:
        """Return the loss, and gradients of weights and of states from a zero state.

        They are the gradients of the loss, unless cotangents of the outputs are given.
        """
        zero = self._zero_state(placed.x.shape[1])
        done = self._trace(placed.x, placed.padding, zero)
        loss, d_loss = loss_and_gradient(
            self._spec.target, done.outputs, placed.targets, placed.weights > 0
        )
        d_outputs = d_loss if d_outputs is None else d_outputs.astype(d_loss.dtype)
        d_weights, _, d_states = self._backward(placed, done, d_outputs, zero)
        return loss, d_weights, d_states

    def _backward(
        self,
        placed: PlacedBatch,
        done: ForwardTrace,
        d_outputs: Array,
        d_final: Parts,
    ) -> tuple[Weights, Array, list[list[State]]]:
        """Return gradients of weights, of inputs, and of states by layer and time."""
        gradients = {
            "readout.w": np.einsum("bro,brh->oh", d_outputs, done.top),
            "readout.b": d_outputs.sum(axis=(0, 1)),
        }
        d_top = d_outputs @ self._weights["readout.w"]
        layers = range(self._spec.num_layers)
        finals = [tuple(part[layer] for part in d_final) for layer in layers]
        shape = (len(placed.x), *finals[-1][0].shape)
        if self._spec.readout is Readout.LAST:
            d_x = np.zeros(shape, self._spec.dtype)
            finals[-1] = (finals[-1][0] + d_top[:, 0], *finals[-1][1:])
        else:
            d_x = np.swapaxes(d_top, 0, 1)
        d_states: list[list[State]] = []
        for layer in reversed(layers):
            d_layer, d_x, states = run_backward(
                self._steps[layer],
                layer_weights(self._weights, layer),
                done.saved[layer],
                placed.padding,
                d_x,
                finals[layer],
                answers=layer == layers[-1],
            )
            gradients |= {f"layer{layer}.{n}": d for n, d in d_layer.items()}
            d_states.insert(0, states)
        if self._spec.inputs.embedded:
            gradients["embedding"] = np.zeros_like(self._weights["embedding"])
            np.add.at(gradients["embedding"], placed.x, d_x)
        return {name: gradients[name] for name in self._shapes}, d_x, d_states

    # --- training --------------------------------------------------------------------

    def _loss_and_gradients(self, placed: PlacedBatch) -> tuple[float, Weights]:
        loss, gradients, _ = self._from_zero(placed)
        return loss, gradients

    def _update(self, placed: PlacedBatch) -> tuple[float, float]:
        optimizer = self._spec.optimizer
        loss, gradients = self._loss_and_gradients(placed)
        clipped, norm = optimizers.clip(gradients, optimizer.clip_norm)
        optimizers.step(optimizer, self._weights, clipped, self._moments, self._updates)
        return loss, norm
