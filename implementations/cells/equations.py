"""One time step of each cell in the operations of any framework.

`w` holds the canonical weights, `a` holds W x + b for every gate, and `state` holds the
parts of the state before. The state after is returned. Frameworks differ only in `ops`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.contract import Operations, Tensor

Weights = Mapping[str, Tensor]
State = tuple[Tensor, ...]


def rnn(ops: Operations, w: Weights, a: Sequence[Tensor], state: State) -> State:
    """Advance `Rnn` by one time step."""
    (h,) = state
    (uh,) = ops.products(w["w_hh"], h)
    return (ops.tanh(a[0] + uh),)


def rnn_relu(ops: Operations, w: Weights, a: Sequence[Tensor], state: State) -> State:
    """Advance `RnnRelu` by one time step."""
    (h,) = state
    (uh,) = ops.products(w["w_hh"], h)
    return (ops.relu(a[0] + uh),)


def gru(ops: Operations, w: Weights, a: Sequence[Tensor], state: State) -> State:
    """Advance `Gru` by one time step."""
    (h,) = state
    a_r, a_z, a_n = a
    uh_r, uh_z, uh_n = ops.products(w["w_hh"], h)
    r = ops.sigmoid(a_r + uh_r)
    z = ops.sigmoid(a_z + uh_z)
    n = ops.tanh(a_n + r * (uh_n + w["b_hn"]))
    return (z * h + (1 - z) * n,)


def gru_reset_before(
    ops: Operations, w: Weights, a: Sequence[Tensor], state: State
) -> State:
    """Advance `GruResetBefore` by one time step."""
    (h,) = state
    a_r, a_z, a_n = a
    uh_r, uh_z = ops.products(w["w_hh"][:2], h)
    r = ops.sigmoid(a_r + uh_r)
    z = ops.sigmoid(a_z + uh_z)
    (u_rh,) = ops.products(w["w_hh"][2:], r * h)
    n = ops.tanh(a_n + u_rh)
    return (z * h + (1 - z) * n,)


def lstm(ops: Operations, w: Weights, a: Sequence[Tensor], state: State) -> State:
    """Advance `Lstm` by one time step."""
    h, c = state
    a_i, a_f, a_g, a_o = a
    uh_i, uh_f, uh_g, uh_o = ops.products(w["w_hh"], h)
    i = ops.sigmoid(a_i + uh_i)
    f = ops.sigmoid(a_f + uh_f)
    g = ops.tanh(a_g + uh_g)
    o = ops.sigmoid(a_o + uh_o)
    c = f * c + i * g
    return o * ops.tanh(c), c
