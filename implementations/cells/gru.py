"""The gated recurrent unit in its two forms, which differ in where the reset acts.

In both forms the gate z keeps the state: h_t = z ⊙ h_{t-1} + (1 - z) ⊙ n. Weights of
one form cannot be converted to the other.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from harness.contract import Array, CellInfo, Saved, State, Weights
from implementations.cells.base import BuiltInCell
from implementations.cells.gates import (
    products,
    products_backward,
    side_by_side,
    sigmoid,
)

RESET, UPDATE, CANDIDATE = range(3)


class Gru(BuiltInCell):
    """A gated recurrent unit with the reset after the recurrent product.

        r_t = σ(W_r x_t + U_r h_{t-1} + b_r)        reset gate: 0 ignores the past
        z_t = σ(W_z x_t + U_z h_{t-1} + b_z)        update gate: 1 keeps h
        n_t = tanh(W_n x_t + b_n + r_t ⊙ (U_n h_{t-1} + b_hn))       candidate
        h_t = z_t ⊙ h_{t-1} + (1 - z_t) ⊙ n_t

    W is `w_ih` [3, hidden, input], U is `w_hh` [3, hidden, hidden], b is `b`
    [3, hidden], each in the order r, z, n; `b_hn` is [hidden].

    Source: Cho et al. (2014), arXiv:1406.1078v1; with b_hn, the form of cuDNN.
    """

    info = CellInfo(
        name="gru",
        gates=("r", "z", "n"),
        state_parts=("h",),
        keep_bias=("b", UPDATE),
        source="Cho et al. (2014), arXiv:1406.1078v1; with b_hn, the form of cuDNN",
    )
    # For each of two gates the sum of both products, the bias and the sigmoid, then n:
    # two biases, the reset, the sum and tanh (5), and h (4).
    elementwise = 2 * 3 + 5 + 4
    # Of the second biases only the candidate's, `b_hn`, has an effect that the first
    # does not have. Keras has them with `reset_after=True`.
    biases: ClassVar = {"torch": 2, "keras": 2}

    def weight_shapes(
        self, input_size: int, hidden_size: int
    ) -> dict[str, tuple[int, ...]]:
        """Return the shapes of `w_ih`, `w_hh`, `b` and `b_hn`."""
        shapes = super().weight_shapes(input_size, hidden_size)
        return {**shapes, "b_hn": (hidden_size,)}

    def step(self, weights: Weights, x: Array, state: State) -> tuple[State, Saved]:
        """Advance one time step: x [batch, input], h [batch, hidden]."""
        (h_before,) = state
        wx, uh = products(weights["w_ih"], x), products(weights["w_hh"], h_before)
        a = wx + weights["b"][:, None]

        r, z = sigmoid(a[:CANDIDATE] + uh[:CANDIDATE])
        q = uh[CANDIDATE] + weights["b_hn"]
        n = np.tanh(a[CANDIDATE] + r * q)
        h = z * h_before + (1 - z) * n
        return (h,), (x, h_before, r, z, q, n)

    def step_backward(
        self, weights: Weights, saved: Saved, d_state: State
    ) -> tuple[Weights, Array, State]:
        """Return gradients with respect to the weights, x and the state before."""
        x, h_before, r, z, q, n = saved
        (d_h,) = d_state
        # h = z h' + (1 - z) n.
        d_z = d_h * (h_before - n)
        d_n = d_h * (1 - z)
        # n = tanh(a_n), tanh' = 1 - n², and a_n = W_n x + b_n + r q.
        d_a_n = d_n * (1 - n * n)
        d_r, d_q = d_a_n * q, d_a_n * r
        # r = σ(a_r) and z = σ(a_z), σ' = σ (1 - σ).
        d_a_r = d_r * r * (1 - r)
        d_a_z = d_z * z * (1 - z)
        # a = W x + U h' + b for both gates; in n the input enters through a_n, the
        # state through q = U_n h' + b_hn.
        d_a = side_by_side((d_a_r, d_a_z, d_a_n))
        d_uh = side_by_side((d_a_r, d_a_z, d_q))
        d_w_ih, d_x = products_backward(d_a, weights["w_ih"], x)
        d_w_hh, d_h_products = products_backward(d_uh, weights["w_hh"], h_before)
        d_weights = {
            "w_ih": d_w_ih,
            "w_hh": d_w_hh,
            "b": d_a.sum(axis=0),
            "b_hn": d_q.sum(axis=0),
        }
        # h' also reaches h directly, scaled by z.
        return d_weights, d_x, (d_h * z + d_h_products,)


class GruResetBefore(BuiltInCell):
    """A gated recurrent unit with the reset before the recurrent product.

        r_t = σ(W_r x_t + U_r h_{t-1} + b_r)        reset gate: 0 ignores the past
        z_t = σ(W_z x_t + U_z h_{t-1} + b_z)        update gate: 1 keeps h
        n_t = tanh(W_n x_t + U_n (r_t ⊙ h_{t-1}) + b_n)              candidate
        h_t = z_t ⊙ h_{t-1} + (1 - z_t) ⊙ n_t

    W is `w_ih` [3, hidden, input], U is `w_hh` [3, hidden, hidden], b is `b`
    [3, hidden], each in the order r, z, n.

    Source: Cho et al. (2014), EMNLP, arXiv:1406.1078v3, eq. 5-8.
    """

    info = CellInfo(
        name="gru-reset-before",
        gates=("r", "z", "n"),
        state_parts=("h",),
        keep_bias=("b", UPDATE),
        source="Cho et al. (2014), EMNLP, arXiv:1406.1078v3, eq. 5-8",
    )
    # For each of two gates the sum of both products, the bias and the sigmoid, then n:
    # the reset, the sum, the bias and tanh (4), and h (4).
    elementwise = 2 * 3 + 4 + 4
    # Keras has it with `reset_after=False`. torch has no such layer.
    biases: ClassVar = {"keras": 1}

    def step(self, weights: Weights, x: Array, state: State) -> tuple[State, Saved]:
        """Advance one time step: x [batch, input], h [batch, hidden]."""
        (h_before,) = state
        u = weights["w_hh"]
        a = products(weights["w_ih"], x) + weights["b"][:, None]

        r, z = sigmoid(a[:CANDIDATE] + products(u[:CANDIDATE], h_before))
        q = r * h_before
        n = np.tanh(a[CANDIDATE] + q @ u[CANDIDATE].T)
        h = z * h_before + (1 - z) * n
        return (h,), (x, h_before, r, z, q, n)

    def step_backward(
        self, weights: Weights, saved: Saved, d_state: State
    ) -> tuple[Weights, Array, State]:
        """Return gradients with respect to the weights, x and the state before."""
        x, h_before, r, z, q, n = saved
        (d_h,) = d_state
        u = weights["w_hh"]
        # h = z h' + (1 - z) n.
        d_z = d_h * (h_before - n)
        d_n = d_h * (1 - z)
        # n = tanh(a_n), tanh' = 1 - n², and a_n = W_n x + U_n q + b_n.
        d_a_n = d_n * (1 - n * n)
        d_u_n, d_q = products_backward(d_a_n[:, None], u[CANDIDATE:], q)
        # q = r h'.
        d_r = d_q * h_before
        # r = σ(a_r) and z = σ(a_z), σ' = σ (1 - σ).
        d_a_r = d_r * r * (1 - r)
        d_a_z = d_z * z * (1 - z)
        # a = W x + U h' + b for both gates.
        d_a = side_by_side((d_a_r, d_a_z, d_a_n))
        d_u_gates, d_h_products = products_backward(
            d_a[:, :CANDIDATE], u[:CANDIDATE], h_before
        )
        d_w_ih, d_x = products_backward(d_a, weights["w_ih"], x)
        d_weights = {
            "w_ih": d_w_ih,
            "w_hh": np.concatenate([d_u_gates, d_u_n]),
            "b": d_a.sum(axis=0),
        }
        # h' reaches h directly, scaled by z, through q, scaled by r, and by the gates.
        return d_weights, d_x, (d_h * z + d_q * r + d_h_products,)
