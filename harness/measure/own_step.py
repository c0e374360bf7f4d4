"""A reference for a cell that has none: an implementation's own single time steps.

The NumPy network loops over these steps, forward and backward, and adds readout, loss,
padding, stacked layers and the optimiser. So the results of an implementation for whole
sequences are compared with its own results for single time steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.contract import (
    Array,
    Batch,
    Cell,
    Inputs,
    NetworkSpec,
    Readout,
    Saved,
    State,
    Target,
    TrainableNetwork,
    Weights,
)


@dataclass
class OwnStep:
    """One layer's step and backward step, computed by a network of one layer.

    Args:
        network: A network of `spec`.
        spec: The result of `own_step_spec` for the layer.
        cell: Names the canonical tensors.
        takes_zeros: Whether zeros may be given as a state. If not, no state is given in
            place of zeros.
    """

    network: TrainableNetwork
    spec: NetworkSpec
    cell: Cell
    takes_zeros: bool = True
    _loaded: Weights | None = None

    def step(self, weights: Weights, x: Array, state: State) -> tuple[State, Saved]:
        """Advance one time step: x [batch, input], state parts [batch, hidden]."""
        self._load(weights)
        before = self._given(state)
        if before is None:
            done = self.network.forward(self.network.place(self._batch(x)))
        else:
            done = self.network.step(x.astype(self.spec.dtype), before)
        after = done.read().state
        return tuple(part[0].astype(x.dtype) for part in after), (x, state)

    def step_backward(
        self, weights: Weights, saved: Saved, d_state: State
    ) -> tuple[Weights, Array, State]:
        """Return gradients with respect to the weights, x and the state before."""
        self._load(weights)
        x, state = saved
        one = self._batch(x)
        found = self.network.vjp(
            self.network.place(one),
            self._given(state),
            np.zeros_like(one.targets),
            self._stacked(d_state),
        )
        d_weights = {
            name: found.weights[f"layer0.{name}"].astype(x.dtype) for name in weights
        }
        d_before = tuple(part[0].astype(x.dtype) for part in found.state)
        return d_weights, found.inputs[:, 0].astype(x.dtype), d_before

    def _batch(self, x: Array) -> Batch:
        """Return sequences of one time step."""
        size = len(x)
        return Batch(
            x[:, None].astype(self.spec.dtype),
            np.ones(size, int),
            np.zeros((size, 1, 1), self.spec.dtype),
            np.ones((size, 1), bool),
        )

    def _given(self, state: State) -> State | None:
        """Return a state as the network is given it."""
        zero = not any(np.any(part) for part in state)
        return None if zero and not self.takes_zeros else self._stacked(state)

    def _stacked(self, state: State) -> State:
        return tuple(part[None].astype(self.spec.dtype) for part in state)

    def _load(self, weights: Weights) -> None:
        # A sequence is computed with one dictionary, so that most calls load nothing.
        if weights is not self._loaded:
            shapes = self.spec.weight_shapes(self.cell).items()
            zeros = {n: np.zeros(shape, self.spec.dtype) for n, shape in shapes}
            layer = {f"layer0.{n}": w for n, w in weights.items()}
            self.network.load_weights(zeros | layer)
            self._loaded = weights


def own_step_spec(spec: NetworkSpec, input_size: int, double: bool) -> NetworkSpec:
    """Return the network of one layer whose single steps replace a layer of `spec`.

    It computes in float64 if `double`, else in float32.
    """
    return NetworkSpec(
        cell=spec.cell,
        inputs=Inputs("reals", input_size),
        hidden_size=spec.hidden_size,
        output_size=1,
        readout=Readout.EVERY,
        target=Target.REAL,
        dtype="float64" if double else "float32",
    )
