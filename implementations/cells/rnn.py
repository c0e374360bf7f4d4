"""Recurrent networks without gates: the tanh network and the rectified one."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from harness.contract import Array, CellInfo, LayerSizes, Saved, State, Weights
from implementations.cells.base import BuiltInCell
from implementations.cells.initial import NATIVE_SCHEMES


class _Elman(BuiltInCell):
    """One block, h_t = φ(W_ih x_t + W_hh h_{t-1} + b), for an activation φ.

    `w_ih` [1, hidden, input], `w_hh` [1, hidden, hidden], `b` [1, hidden].
    """

    # The sum of both products, the bias and the activation.
    elementwise = 3
    biases: ClassVar = {"torch": 2, "keras": 1}

    _activation: Callable[[Array], Array]
    """Computes φ(a)."""
    _slope: Callable[[Array], Array]
    """Computes φ'(a) from h = φ(a)."""

    def step(self, weights: Weights, x: Array, state: State) -> tuple[State, Saved]:
        """Advance one time step: x [batch, input], h [batch, hidden]."""
        (h_before,) = state
        w_ih, w_hh, b = weights["w_ih"][0], weights["w_hh"][0], weights["b"][0]
        h = self._activation(x @ w_ih.T + h_before @ w_hh.T + b)
        return (h,), (x, h_before, h)

    def step_backward(
        self, weights: Weights, saved: Saved, d_state: State
    ) -> tuple[Weights, Array, State]:
        """Return gradients with respect to the weights, x and the state before."""
        x, h_before, h = saved
        (d_h,) = d_state
        # h = φ(a).
        d_a = d_h * self._slope(h)
        # a = W_ih x + W_hh h' + b.
        d_weights = {
            "w_ih": (d_a.T @ x)[None],
            "w_hh": (d_a.T @ h_before)[None],
            "b": d_a.sum(axis=0)[None],
        }
        d_x = d_a @ weights["w_ih"][0]
        d_h_before = d_a @ weights["w_hh"][0]
        return d_weights, d_x, (d_h_before,)


class Rnn(_Elman):
    """A tanh recurrent network.

        h_t = tanh(W_ih x_t + W_hh h_{t-1} + b)

    One block: `w_ih` [1, hidden, input], `w_hh` [1, hidden, hidden], `b` [1, hidden].

    Source: Elman (1990), with tanh.
    """

    info = CellInfo(
        name="rnn",
        gates=("h",),
        state_parts=("h",),
        keep_bias=None,
        source="Elman (1990), Finding structure in time; with tanh",
    )

    _activation = staticmethod(lambda a: np.tanh(a))
    _slope = staticmethod(lambda h: 1 - h * h)  # tanh'(a) = 1 - tanh²(a)


class RnnRelu(_Elman):
    """A recurrent network of rectified linear units, which starts as an integrator.

        h_t = relu(W_ih x_t + W_hh h_{t-1} + b)

    relu(a) = max(a, 0), and its derivative at 0 is taken as 0. One block: `w_ih`
    [1, hidden, input], `w_hh` [1, hidden, hidden], `b` [1, hidden].

    Source: Le, Jaitly & Hinton (2015), arXiv:1504.00941 (the IRNN).
    """

    info = CellInfo(
        name="rnn-relu",
        gates=("h",),
        state_parts=("h",),
        keep_bias=None,
        source="Le, Jaitly & Hinton (2015), arXiv:1504.00941 (the IRNN)",
    )

    _activation = staticmethod(lambda a: np.maximum(a, 0))
    _slope = staticmethod(lambda h: (h > 0).astype(h.dtype))

    def initial_weights(
        self, scheme: str, rng: np.random.Generator, sizes: LayerSizes
    ) -> Weights:
        """Draw initial values.

        `canonical` are those of the paper: W_hh is the identity, W_ih normal with
        standard deviation 0.001, b is 0. Without a gate `zero-bias` and `chrono` are
        the same.

        Raises:
            ValueError: If no scheme has that name.
        """
        weights = super().initial_weights(scheme, rng, sizes)
        if scheme not in NATIVE_SCHEMES:
            weights["w_ih"] = rng.normal(0, 1e-3, weights["w_ih"].shape)
            weights["w_hh"] = np.eye(sizes.hidden_size)[None]
        return weights
