"""The LSTM with forget gate: three gates and a candidate around a cell state."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from harness.contract import Array, CellInfo, LayerSizes, Saved, State, Weights
from implementations.cells.base import BuiltInCell
from implementations.cells.gates import (
    products,
    products_backward,
    side_by_side,
    sigmoid,
)

INPUT, FORGET, CANDIDATE, OUTPUT = range(4)


class Lstm(BuiltInCell):
    """Long short-term memory with forget gate, without peepholes.

        i_t = σ(W_i x_t + U_i h_{t-1} + b_i)        input gate
        f_t = σ(W_f x_t + U_f h_{t-1} + b_f)        forget gate: 1 keeps c
        g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)     candidate
        o_t = σ(W_o x_t + U_o h_{t-1} + b_o)        output gate
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
        h_t = o_t ⊙ tanh(c_t)

    W is `w_ih` [4, hidden, input], U is `w_hh` [4, hidden, hidden], b is `b`
    [4, hidden], each in the order i, f, g, o. The state is (h, c), two independent
    coordinates: a gradient with respect to c_{t-1} holds h_{t-1} fixed.

    Source: Hochreiter & Schmidhuber (1997); the forget gate, Gers, Schmidhuber &
    Cummins (2000).
    """

    info = CellInfo(
        name="lstm",
        gates=("i", "f", "g", "o"),
        state_parts=("h", "c"),
        keep_bias=("b", FORGET),
        source="Hochreiter & Schmidhuber (1997); forget gate, Gers, Schmidhuber & "
        "Cummins (2000)",
    )
    # For each of four gates the sum of both products, the bias and the activation, then
    # c (3) and h (2).
    elementwise = 4 * 3 + 3 + 2
    biases: ClassVar = {"torch": 2, "keras": 1}

    def initial_weights(
        self, scheme: str, rng: np.random.Generator, sizes: LayerSizes
    ) -> Weights:
        """Draw initial values.

        `canonical` and `native-keras` have b_f = 1. `chrono` has b_f = log U(1, T - 1)
        and b_i = -b_f, so that i = 1 - f where input and state are zero.

        Raises:
            ValueError: If no scheme has that name.
        """
        weights = super().initial_weights(scheme, rng, sizes)
        if scheme == "native-keras":
            weights["b"][FORGET] = 1
        elif scheme == "chrono":
            weights["b"][INPUT] = -weights["b"][FORGET]
        return weights

    def step(self, weights: Weights, x: Array, state: State) -> tuple[State, Saved]:
        """Advance one time step: x [batch, input], h and c [batch, hidden]."""
        h_before, c_before = state
        wx, uh = products(weights["w_ih"], x), products(weights["w_hh"], h_before)
        a = wx + uh + weights["b"][:, None]

        i, f, o = sigmoid(a[[INPUT, FORGET, OUTPUT]])
        g = np.tanh(a[CANDIDATE])
        c = f * c_before + i * g
        tanh_c = np.tanh(c)
        h = o * tanh_c
        return (h, c), (x, h_before, c_before, i, f, g, o, tanh_c)

    def step_backward(
        self, weights: Weights, saved: Saved, d_state: State
    ) -> tuple[Weights, Array, State]:
        """Return gradients with respect to the weights, x and the state before."""
        x, h_before, c_before, i, f, g, o, tanh_c = saved
        d_h, d_c_direct = d_state
        # h = o tanh(c): c reaches the loss by itself and through h.
        d_o = d_h * tanh_c
        d_c = d_c_direct + d_h * o * (1 - tanh_c * tanh_c)
        # c = f c' + i g.
        d_i, d_f, d_g = d_c * g, d_c * c_before, d_c * i
        d_c_before = d_c * f
        # Through the activations: σ' = σ (1 - σ), tanh' = 1 - tanh².
        d_a = side_by_side(
            (
                d_i * i * (1 - i),
                d_f * f * (1 - f),
                d_g * (1 - g * g),
                d_o * o * (1 - o),
            )
        )
        # a = W x + U h' + b for every block; h' enters nowhere else.
        d_w_ih, d_x = products_backward(d_a, weights["w_ih"], x)
        d_w_hh, d_h_before = products_backward(d_a, weights["w_hh"], h_before)
        d_weights = {"w_ih": d_w_ih, "w_hh": d_w_hh, "b": d_a.sum(axis=0)}
        return d_weights, d_x, (d_h_before, d_c_before)
